//! The config that travels to a wrapper (§10): what its next turn is run with, and the secrets that its agent needs.
//!
//! It is read strictly: a key that is not known is an error that names those that are. No error ever quotes a value, since it
//! may be a secret that was put in the wrong place.

mod key;

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use serde_json::{Map, Value, json};

pub use self::key::ConfigKey;
use crate::ModelRef;

/// What a turn is run with. What is absent is left to whoever comes next: the town, the options of the wrapper, the agent server.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct TurnConfig {
    /// Commit what the turn changed.
    pub auto_commit: Option<bool>,
    /// Have the agent condense its session after the turn.
    pub condense_on_complete: Option<bool>,
    /// The remote's branch that commits are pushed to.
    pub upstream_branch: Option<String>,
    /// The model that answers.
    pub model: Option<ModelRef>,
    /// The variant of the model, such as its effort.
    pub variant: Option<String>,
    /// More instructions.
    pub system: Option<String>,
    /// Which tools the agent has, by name; those that are not named stay as they are.
    pub tools: BTreeMap<String, bool>,
}

/// The resolved config of a town as it concerns one agent's wrapper.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct TownConfig {
    /// What turns are run with.
    pub turn: TurnConfig,
    /// Variables of the agent server's environment.
    pub env: BTreeMap<EnvName, Secret>,
}

/// The name of a variable: of `[A-Za-z0-9_]`, not beginning with a digit, and none of Gastown's own (`GASTOWN_…`).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct EnvName(String);

/// A text that is not to be seen. Its `Debug` does not show it, and it cannot be serialised.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

/// A config on its way: JSON whose `Debug` does not show what is in it. Only who is to use it reads it, with [`open`](Self::open).
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(transparent)]
#[schemars(inline)]
pub struct SealedConfig(Value);

/// Why a config is not taken. Names keys, never values.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// It is no JSON object.
    #[error("a config is a JSON object")]
    NoObject,
    /// It has a key that is not known.
    #[error("the config has no key {key:?}: {}it has {known}", .nearest.map(meant).unwrap_or_default())]
    Unknown {
        /// The key.
        key: String,
        /// The one that may be meant.
        nearest: Option<&'static str>,
        /// Those that are known.
        known: String,
    },
    /// A key has a value of the wrong kind.
    #[error("`{key}` of the config is to be {expected}")]
    Wrong {
        /// The key.
        key: String,
        /// What was expected.
        expected: &'static str,
    },
}

/// The keys of a [`TurnConfig`].
const TURN: [&str; 7] =
    ["autoCommit", "condenseOnComplete", "upstreamBranch", "model", "variant", "system", "tools"];
/// The key of [`TurnConfig::tools`].
const TOOLS: &str = "tools";
/// The key of [`TownConfig::env`].
const ENV: &str = "env";
/// What a name of `env` is to be.
const VARIABLE: &str = "a variable of letters, digits and _, and none of GASTOWN_…";

/// The keys of a [`TownConfig`].
fn known() -> Vec<&'static str> {
    TURN.into_iter().chain([ENV]).collect()
}

fn meant(key: &str) -> String {
    format!("did you mean {key}? ")
}

impl ConfigError {
    fn unknown(key: &str, known: &[&'static str]) -> Self {
        Self::Unknown { key: key.to_owned(), nearest: key::nearest(key, known), known: known.join(", ") }
    }
}

impl TurnConfig {
    /// Takes its keys out of an object, such as the body of a prompt, and leaves the others.
    ///
    /// # Errors
    /// [`ConfigError::Wrong`] when one of them has a value of the wrong kind.
    pub fn take_from(fields: &mut Map<String, Value>) -> Result<Self, ConfigError> {
        let mut taken = Self::default();
        for key in TURN {
            if let Some(value) = fields.remove(key).filter(|value| !value.is_null()) {
                taken.set(key, value)?;
            }
        }
        Ok(taken)
    }

    /// This config, with what `over` says instead where it says something.
    #[must_use]
    pub fn overlaid(mut self, over: Self) -> Self {
        let Self { auto_commit, condense_on_complete, upstream_branch, model, variant, system, tools } = over;
        self.auto_commit = auto_commit.or(self.auto_commit);
        self.condense_on_complete = condense_on_complete.or(self.condense_on_complete);
        self.upstream_branch = upstream_branch.or(self.upstream_branch);
        self.model = model.or(self.model);
        self.variant = variant.or(self.variant);
        self.system = system.or(self.system);
        self.tools.extend(tools);
        self
    }

    fn set(&mut self, key: &str, value: Value) -> Result<(), ConfigError> {
        let wrong = |expected| ConfigError::Wrong { key: key.to_owned(), expected };
        match key {
            "autoCommit" => self.auto_commit = Some(read(value, wrong("true or false"))?),
            "condenseOnComplete" => self.condense_on_complete = Some(read(value, wrong("true or false"))?),
            "upstreamBranch" => {
                let branch: String = read(value, wrong("a branch"))?;
                let odd = |c: char| c.is_control() || c.is_whitespace();
                if branch.is_empty()
                    || branch.starts_with('-')
                    || branch.contains("..")
                    || branch.contains(odd)
                {
                    return Err(wrong("a branch"));
                }
                self.upstream_branch = Some(branch);
            }
            "model" => {
                let expected = "{providerID, modelID} or \"provider/model\"";
                self.model = Some(ModelRef::from_json(value).ok_or(wrong(expected))?);
            }
            "variant" => self.variant = Some(read(value, wrong("a text"))?),
            "system" => self.system = Some(read(value, wrong("a text"))?),
            TOOLS => self.tools = read_tools(value)?,
            _ => unreachable!("only keys of a turn's config come here"),
        }
        Ok(())
    }

    fn write_to(&self, fields: &mut Map<String, Value>) {
        let Self { auto_commit, condense_on_complete, upstream_branch, model, variant, system, tools } = self;
        let values = [
            ("autoCommit", auto_commit.map(Value::from)),
            ("condenseOnComplete", condense_on_complete.map(Value::from)),
            ("upstreamBranch", upstream_branch.clone().map(Value::from)),
            ("model", model.as_ref().map(|model| json!(model))),
            ("variant", variant.clone().map(Value::from)),
            ("system", system.clone().map(Value::from)),
            (TOOLS, (!tools.is_empty()).then(|| json!(tools))),
        ];
        fields.extend(values.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))));
    }
}

impl TownConfig {
    /// Reads a config from its text, as the `X-Town-Config` header has it.
    ///
    /// # Errors
    /// When it is not understood.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        Self::read(serde_json::from_str(text).map_err(|_| ConfigError::NoObject)?)
    }

    /// Reads a config.
    ///
    /// # Errors
    /// When it is not understood.
    pub fn read(config: Value) -> Result<Self, ConfigError> {
        let Value::Object(mut fields) = config else { return Err(ConfigError::NoObject) };
        let turn = TurnConfig::take_from(&mut fields)?;
        let env = match fields.remove(ENV).filter(|env| !env.is_null()) {
            Some(env) => read_env(env)?,
            None => BTreeMap::new(),
        };
        match fields.into_iter().next() {
            None => Ok(Self { turn, env }),
            Some((key, _)) => Err(ConfigError::unknown(&key, &known())),
        }
    }

    /// This config, with what `over` says instead where it says something.
    #[must_use]
    pub fn overlaid(mut self, over: Self) -> Self {
        self.turn = self.turn.overlaid(over.turn);
        self.env.extend(over.env);
        self
    }

    /// The keys that it says something of, as a [`ConfigKey`] is written.
    #[must_use]
    pub fn keys(&self) -> Vec<String> {
        let mut keys = Vec::new();
        for (key, value) in self.to_fields(|_| String::new()) {
            match value.as_object().filter(|_| key == TOOLS || key == ENV) {
                Some(names) => keys.extend(names.keys().map(|name| format!("{key}.{name}"))),
                None => keys.push(key),
            }
        }
        keys
    }

    /// As it travels, with its secrets.
    #[must_use]
    pub fn seal(&self) -> SealedConfig {
        SealedConfig(Value::Object(self.to_fields(|secret| secret.expose().to_owned())))
    }

    /// As it may be shown: each secret is `***`.
    #[must_use]
    pub fn masked(&self) -> Value {
        Value::Object(self.to_fields(|_| "***".to_owned()))
    }

    fn to_fields(&self, secret: impl Fn(&Secret) -> String) -> Map<String, Value> {
        let mut fields = Map::new();
        self.turn.write_to(&mut fields);
        if !self.env.is_empty() {
            let env: BTreeMap<&str, String> =
                self.env.iter().map(|(name, value)| (name.as_str(), secret(value))).collect();
            fields.insert(ENV.to_owned(), json!(env));
        }
        fields
    }
}

impl SealedConfig {
    /// Reads it.
    ///
    /// # Errors
    /// When it is not understood.
    pub fn open(&self) -> Result<TownConfig, ConfigError> {
        TownConfig::read(self.0.clone())
    }
}

impl EnvName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn of(name: String) -> Option<Self> {
        let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let good = !name.is_empty()
            && name.chars().all(word)
            && !name.starts_with(|c: char| c.is_ascii_digit())
            && !name.starts_with("GASTOWN_");
        good.then_some(Self(name))
    }
}

impl Secret {
    /// A secret from its text.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text, for the one place that it is for.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl fmt::Debug for SealedConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SealedConfig(…)")
    }
}

/// As an object of its keys.
impl Serialize for TurnConfig {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = Map::new();
        self.write_to(&mut fields);
        fields.serialize(serializer)
    }
}

/// As strictly as [`TownConfig::read`].
impl<'de> Deserialize<'de> for TurnConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut fields = Map::deserialize(deserializer)?;
        let read = Self::take_from(&mut fields).map_err(de::Error::custom)?;
        match fields.into_iter().next() {
            None => Ok(read),
            Some((key, _)) => Err(de::Error::custom(ConfigError::unknown(&key, &TURN))),
        }
    }
}

fn read_tools(tools: Value) -> Result<BTreeMap<String, bool>, ConfigError> {
    let wrong = |key: &str, expected| ConfigError::Wrong { key: key.to_owned(), expected };
    let Value::Object(tools) = tools else { return Err(wrong(TOOLS, "an object of true and false")) };
    let read = |(name, value): (String, Value)| match value.as_bool() {
        Some(has) => Ok((name, has)),
        None => Err(wrong(&format!("{TOOLS}.{name}"), "true or false")),
    };
    tools.into_iter().map(read).collect()
}

fn read_env(env: Value) -> Result<BTreeMap<EnvName, Secret>, ConfigError> {
    let wrong = |key: &str, expected| ConfigError::Wrong { key: key.to_owned(), expected };
    let Value::Object(env) = env else { return Err(wrong(ENV, "an object of texts")) };
    let mut read = BTreeMap::new();
    for (name, value) in env {
        let key = format!("{ENV}.{name}");
        let name = EnvName::of(name).ok_or_else(|| wrong(&key, VARIABLE))?;
        let Value::String(text) = value else { return Err(wrong(&key, "a text")) };
        if text.contains('\0') {
            return Err(wrong(&key, "a text"));
        }
        read.insert(name, Secret(text));
    }
    Ok(read)
}

fn read<T: de::DeserializeOwned>(value: Value, wrong: ConfigError) -> Result<T, ConfigError> {
    serde_json::from_value(value).map_err(|_| wrong)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_key_is_read_and_written_as_it_was() {
        let config = json!({
            "autoCommit": true, "condenseOnComplete": false, "upstreamBranch": "gt/toast/gt-1", "variant": "high",
            "model": { "providerID": "kilo", "modelID": "auto" }, "system": "be brief", "tools": { "bash": false },
            "env": { "API_KEY": "canary" },
        });
        let read = TownConfig::read(config.clone()).unwrap();
        assert_eq!(read.seal(), SealedConfig(config));
        assert_eq!(TownConfig::parse("{}").unwrap(), TownConfig::default());
    }

    #[test]
    fn a_model_may_be_one_word() {
        let read = TownConfig::parse(r#"{"model":"openrouter/a/b"}"#).unwrap();
        let model = read.turn.model.unwrap();
        assert_eq!((&*model.provider_id, &*model.model_id), ("openrouter", "a/b"));
    }

    #[test]
    fn p19_what_is_wrong_is_named_by_its_key_and_never_quoted() {
        for (text, named) in [
            (r#"["canary"]"#, "a JSON object"),
            ("canary", "a JSON object"),
            (r#"{"autocommit":"canary"}"#, "did you mean autoCommit? it has autoCommit, condenseOnComplete"),
            (r#"{"autoCommit":"canary"}"#, "`autoCommit` of the config is to be true or false"),
            (r#"{"condenseOnComplete":"canary"}"#, "condenseOnComplete"),
            (r#"{"upstreamBranch":"--canary"}"#, "`upstreamBranch` of the config is to be a branch"),
            (r#"{"upstreamBranch":"../canary"}"#, "upstreamBranch"),
            (r#"{"model":"canary"}"#, "provider/model"),
            (r#"{"model":"/canary"}"#, "provider/model"),
            (r#"{"variant":["canary"]}"#, "variant"),
            (r#"{"system":["canary"]}"#, "system"),
            (r#"{"tools":{"bash":"canary"}}"#, "`tools.bash` of the config is to be true or false"),
            (r#"{"tools":["canary"]}"#, "`tools` of the config is to be an object"),
            (r#"{"env":"canary"}"#, "env"),
            (r#"{"env":{"KEY":["canary"]}}"#, "env.KEY"),
            (r#"{"env":{"KEY":"can\u0000ary"}}"#, "env.KEY"),
            (r#"{"env":{"GASTOWN_KEY":"canary"}}"#, "env.GASTOWN_KEY"),
            (r#"{"env":{"1KEY":"canary"}}"#, "env.1KEY"),
        ] {
            let error = TownConfig::parse(text).unwrap_err().to_string();
            assert!(error.contains(named), "{text}: {error}");
            assert!(!error.contains("canary"), "{error}");
        }
    }

    #[test]
    fn p19_a_secret_is_neither_shown_nor_written_but_where_it_travels() {
        let config = TownConfig::parse(r#"{"env":{"KEY":"canary"},"variant":"high"}"#).unwrap();
        assert!(!format!("{config:?} {:?} {}", config.seal(), config.masked()).contains("canary"));
        assert_eq!(config.masked(), json!({ "env": { "KEY": "***" }, "variant": "high" }));
        assert!(serde_json::to_string(&config.seal()).unwrap().contains("canary"));
    }

    #[test]
    fn a_prompt_gives_its_own_keys_up_and_keeps_the_others() {
        let mut body = Map::from_iter([
            ("text".to_owned(), json!("hi")),
            ("autoCommit".to_owned(), json!(true)),
            ("variant".to_owned(), Value::Null),
        ]);
        let taken = TurnConfig::take_from(&mut body).unwrap();
        assert_eq!(taken, TurnConfig { auto_commit: Some(true), ..TurnConfig::default() });
        assert_eq!(Value::Object(body), json!({ "text": "hi" }));
    }

    proptest! {
        #[test]
        fn what_lies_over_wins_where_it_says_something(under in configs(), over in configs()) {
            let both = under.clone().overlaid(over.clone());
            prop_assert_eq!(both.turn.auto_commit, over.turn.auto_commit.or(under.turn.auto_commit));
            prop_assert_eq!(&both.turn.variant, &over.turn.variant.clone().or(under.turn.variant.clone()));
            for (tool, allowed) in &both.turn.tools {
                prop_assert_eq!(over.turn.tools.get(tool).or(under.turn.tools.get(tool)), Some(allowed));
            }
            prop_assert_eq!(both.clone().overlaid(over), both);
        }

        #[test]
        fn what_is_sealed_is_opened_as_it_was(config in configs()) {
            prop_assert_eq!(config.seal().open().unwrap(), config);
        }
    }

    fn configs() -> impl Strategy<Value = TownConfig> {
        let tools = proptest::collection::btree_map("[ab]", any::<bool>(), 0..3);
        let env = proptest::collection::btree_map("[A-Z]", "[a-z]{0,4}", 0..3);
        let words = || proptest::option::of("[a-z]{1,3}");
        (proptest::option::of(any::<bool>()), words(), words(), tools, env).prop_map(
            |(auto_commit, variant, branch, tools, env)| TownConfig {
                turn: TurnConfig {
                    auto_commit,
                    variant,
                    upstream_branch: branch,
                    tools,
                    ..TurnConfig::default()
                },
                env: env.into_iter().map(|(name, value)| (EnvName(name), Secret(value))).collect(),
            },
        )
    }
}
