//! One key of a config, as a person writes it: `autoCommit`, `tools.bash`, `env.API_KEY`.

use std::{fmt, str::FromStr};

use serde_json::{Map, Value, json};

use super::{ConfigError, ENV, EnvName, TOOLS, TURN, TownConfig, VARIABLE, known};

/// A key of a [`TownConfig`]; of `tools` and `env` one name.
///
/// ```
/// use gastown_event_protocol::config::ConfigKey;
///
/// let key: ConfigKey = "tools.bash".parse()?;
/// assert_eq!(serde_json::Value::Object(key.set("false")?), serde_json::json!({ "tools": { "bash": false } }));
/// assert!("autocommit".parse::<ConfigKey>().unwrap_err().to_string().contains("did you mean autoCommit?"));
/// # Ok::<(), gastown_event_protocol::config::ConfigError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigKey(Key);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Key {
    Turn(&'static str),
    Tool(String),
    Env(EnvName),
}

impl ConfigKey {
    /// The patch that gives this key a value, which is read as the key wants it: `true` and `false` where that is a choice,
    /// the text itself otherwise.
    ///
    /// # Errors
    /// [`ConfigError::Wrong`] when it is not of the key's kind.
    pub fn set(&self, value: &str) -> Result<Map<String, Value>, ConfigError> {
        let value = match (&self.0, value) {
            (Key::Turn("autoCommit" | "condenseOnComplete") | Key::Tool(_), "true") => Value::Bool(true),
            (Key::Turn("autoCommit" | "condenseOnComplete") | Key::Tool(_), "false") => Value::Bool(false),
            (Key::Turn(_) | Key::Tool(_) | Key::Env(_), text) => Value::from(text),
        };
        let patch = self.patch(value);
        TownConfig::read(Value::Object(patch.clone()))?;
        Ok(patch)
    }

    /// The patch that takes this key away.
    #[must_use]
    pub fn unset(&self) -> Map<String, Value> {
        self.patch(Value::Null)
    }

    /// Whether it is of the environment, whose values are secrets and count from the next start on.
    #[must_use]
    pub fn is_env(&self) -> bool {
        matches!(self.0, Key::Env(_))
    }

    fn patch(&self, value: Value) -> Map<String, Value> {
        let (key, value) = match &self.0 {
            Key::Turn(key) => (*key, value),
            Key::Tool(name) => (TOOLS, json!({ name: value })),
            Key::Env(name) => (ENV, json!({ name.as_str(): value })),
        };
        Map::from_iter([(key.to_owned(), value)])
    }
}

impl FromStr for ConfigKey {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, ConfigError> {
        let wrong = |expected| ConfigError::Wrong { key: text.to_owned(), expected };
        let key = match text.split_once('.').unwrap_or((text, "")) {
            (TOOLS, "") => return Err(wrong("one of its names, such as tools.bash")),
            (ENV, "") => return Err(wrong("one of its names, such as env.API_KEY")),
            (TOOLS, name) => Key::Tool(name.to_owned()),
            (ENV, name) => Key::Env(EnvName::of(name.to_owned()).ok_or_else(|| wrong(VARIABLE))?),
            _ => match TURN.into_iter().find(|key| *key == text) {
                Some(key) => Key::Turn(key),
                None => return Err(ConfigError::unknown(text, &known())),
            },
        };
        Ok(Self(key))
    }
}

impl fmt::Display for ConfigKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Key::Turn(key) => f.write_str(key),
            Key::Tool(name) => write!(f, "{TOOLS}.{name}"),
            Key::Env(name) => write!(f, "{ENV}.{}", name.as_str()),
        }
    }
}

/// The known key that somebody who wrote this one may have meant.
pub(super) fn nearest(written: &str, known: &[&'static str]) -> Option<&'static str> {
    // A short word is soon another word; two letters that changed places are two changes.
    let within = |key: &str| if key.len() < 8 { 2 } else { 3 };
    let plain = |text: &str| -> Vec<char> {
        text.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).take(64).collect()
    };
    let written = plain(written);
    let distances = known.iter().map(|key| (distance(&written, &plain(key)), *key));
    distances.filter(|(distance, key)| *distance <= within(key)).min().map(|(_, key)| key)
}

/// How many letters are to be put in, taken out or changed to make one word of the other (Levenshtein 1966).
fn distance(a: &[char], b: &[char]) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, left) in a.iter().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, right) in b.iter().enumerate() {
            let changed = diagonal + usize::from(left != right);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_reads_its_value_and_takes_it_away_again() {
        for (key, value, patch) in [
            ("autoCommit", "true", json!({ "autoCommit": true })),
            ("condenseOnComplete", "false", json!({ "condenseOnComplete": false })),
            ("upstreamBranch", "main", json!({ "upstreamBranch": "main" })),
            ("model", "a/b", json!({ "model": "a/b" })),
            ("variant", "high", json!({ "variant": "high" })),
            ("system", "true", json!({ "system": "true" })),
            ("tools.mcp.read", "true", json!({ "tools": { "mcp.read": true } })),
            ("env.API_KEY", "true", json!({ "env": { "API_KEY": "true" } })),
        ] {
            let read: ConfigKey = key.parse().unwrap();
            assert_eq!(Value::Object(read.set(value).unwrap()), patch);
            assert_eq!((read.to_string().as_str(), read.is_env()), (key, key.starts_with("env")));
            let unset = Value::Object(read.unset()).to_string();
            assert!(unset.contains("null"), "{unset}");
        }
    }

    #[test]
    fn a_value_of_another_kind_says_which_is_wanted() {
        for (key, value, said) in [
            ("autoCommit", "yes", "`autoCommit` of the config is to be true or false"),
            ("tools.bash", "off", "`tools.bash` of the config is to be true or false"),
            ("model", "gpt", "provider/model"),
            ("upstreamBranch", "--force", "a branch"),
        ] {
            let error = key.parse::<ConfigKey>().unwrap().set(value).unwrap_err().to_string();
            assert!(error.contains(said) && !error.contains(value), "{error}");
        }
    }

    #[test]
    fn a_key_that_is_not_known_names_the_nearest_one() {
        for (written, nearest) in [
            ("autocommit", "autoCommit"),
            ("auto-commit", "autoCommit"),
            ("auto_comit", "autoCommit"),
            ("modle", "model"),
            ("upstream_branches", "upstreamBranch"),
            ("tool", "tools"),
        ] {
            let error = written.parse::<ConfigKey>().unwrap_err().to_string();
            assert!(error.contains(&format!("did you mean {nearest}?")), "{error}");
            assert!(error.contains("condenseOnComplete, "), "{error}");
        }
        let far = "colour".parse::<ConfigKey>().unwrap_err().to_string();
        assert!(!far.contains("did you mean"), "{far}");
    }

    #[test]
    fn what_has_names_wants_one() {
        for (written, said) in [
            ("tools", "tools.bash"),
            ("tools.", "tools.bash"),
            ("env", "env.API_KEY"),
            ("env.", "env.API_KEY"),
            ("env.1X", "a variable"),
            ("env.GASTOWN_X", "none of GASTOWN"),
        ] {
            let error = written.parse::<ConfigKey>().unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
    }

    #[test]
    fn a_distance_counts_letters() {
        let count =
            |a: &str, b: &str| distance(&a.chars().collect::<Vec<_>>(), &b.chars().collect::<Vec<_>>());
        assert_eq!([count("", "abc"), count("abc", "abc"), count("kitten", "sitting")], [3, 0, 3]);
    }
}
