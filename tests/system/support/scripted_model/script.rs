//! What the model says, and which of it to which request.

use std::{collections::BTreeMap, time::Duration};

use serde::Deserialize;
use serde_json::{Value, json};

/// The scripts.
#[derive(Debug)]
pub(super) struct Scenario {
    title: String,
    default: String,
    scripts: BTreeMap<String, Vec<Vec<RawAction>>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    title: String,
    default: String,
    scripts: BTreeMap<String, Vec<Vec<RawAction>>>,
}

/// An action as the file has it: one of `text`, `reasoning`, `tool`, `sleep_ms`, `error`, `drop`, and what goes with it.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawAction {
    text: Option<String>,
    reasoning: Option<String>,
    tool: Option<String>,
    args: Option<Value>,
    sleep_ms: Option<u64>,
    error: Option<u16>,
    message: Option<String>,
    #[serde(rename = "type")]
    kind: Option<String>,
    times: Option<usize>,
    retry_after: Option<u16>,
    drop: bool,
    usage: Option<(u64, u64)>,
    /// Characters of a piece, milliseconds between two, how often the text is said.
    chunk: Option<usize>,
    delay_ms: u64,
    repeat: Option<usize>,
}

/// One thing the model does.
#[derive(Debug, Clone)]
pub(super) enum Action {
    /// Says something.
    Text(Pieces),
    /// Thinks.
    Reasoning(Pieces),
    /// Calls a tool; the pieces are those of its arguments as JSON.
    Tool(String, Pieces),
    /// Says nothing for a while.
    Silence(Duration),
    /// Answers with an HTTP error (as the first action only).
    Error(HttpError),
    /// Breaks the connection.
    Drop,
}

/// A text in pieces.
#[derive(Debug, Clone)]
pub(super) struct Pieces {
    pub(super) text: String,
    chunk: usize,
    delay: Duration,
    /// Tokens in and out that the answer reports.
    pub(super) usage: Option<(u64, u64)>,
}

/// An answer that is an error.
#[derive(Debug, Clone)]
pub(super) struct HttpError {
    pub(super) status: u16,
    pub(super) kind: String,
    pub(super) message: String,
    /// For how many requests; always, if it does not say.
    pub(super) times: Option<usize>,
    /// Seconds.
    pub(super) retry_after: Option<u16>,
}

/// What answers a request.
#[derive(Debug)]
pub(super) struct Choice {
    pub(super) script: String,
    pub(super) turn: usize,
    /// The prompt with the marker: requests with the same one are attempts of the same turn.
    pub(super) prompt: String,
    pub(super) actions: Vec<Action>,
}

impl Scenario {
    pub(super) fn parse(json: &str) -> Result<Self, serde_json::Error> {
        let File { title, default, scripts } = serde_json::from_str(json)?;
        Ok(Self { title, default, scripts })
    }

    /// What answers a request of chat completions.
    pub(super) fn choose(&self, request: &Value) -> Choice {
        let messages = request["messages"].as_array().map(Vec::as_slice).unwrap_or_default();
        let mut chosen = (self.default.clone(), BTreeMap::new(), 0, String::new());
        for (at, message) in messages.iter().enumerate().filter(|(_, message)| message["role"] == "user") {
            let text = text_of(&message["content"]);
            for (name, variables) in markers(&text) {
                let turn = messages[at..].iter().filter(|message| message["role"] == "assistant").count();
                chosen = (name, variables, turn, text.clone());
            }
        }
        let (script, variables, turn, prompt) = chosen;
        if request["tools"].as_array().is_none_or(Vec::is_empty) {
            let actions = vec![Action::Text(Pieces::of(&self.title))];
            return Choice { script: "title".to_owned(), turn: 0, prompt, actions };
        }
        let actions = match self.scripts.get(&script).and_then(|turns| turns.get(turn)) {
            Some(actions) => actions.iter().map(|action| action.fill(&variables)).collect(),
            None => vec![Action::Text(Pieces::of("Done."))],
        };
        Choice { script, turn, prompt, actions }
    }
}

impl Action {
    /// The pause after each piece.
    pub(super) fn delay(&self) -> Duration {
        match self {
            Self::Text(pieces) | Self::Reasoning(pieces) | Self::Tool(_, pieces) => pieces.delay,
            Self::Silence(_) | Self::Error(_) | Self::Drop => Duration::ZERO,
        }
    }
}

impl Pieces {
    fn of(text: &str) -> Self {
        Self { text: text.to_owned(), chunk: 12, delay: Duration::ZERO, usage: None }
    }

    /// The pieces, none of them empty.
    pub(super) fn iter(&self) -> impl Iterator<Item = String> {
        let characters: Vec<char> = self.text.chars().collect();
        characters.chunks(self.chunk).map(|piece| piece.iter().collect()).collect::<Vec<String>>().into_iter()
    }
}

impl RawAction {
    fn fill(&self, variables: &BTreeMap<String, String>) -> Action {
        let pieces = |text: &str| Pieces {
            text: substitute(text, variables).repeat(self.repeat.unwrap_or(1)),
            chunk: self.chunk.unwrap_or(12),
            delay: Duration::from_millis(self.delay_ms),
            usage: self.usage,
        };
        if let Some(text) = &self.text {
            Action::Text(pieces(text))
        } else if let Some(text) = &self.reasoning {
            Action::Reasoning(pieces(text))
        } else if let Some(tool) = &self.tool {
            let arguments = self.args.clone().unwrap_or_else(|| json!({}));
            Action::Tool(substitute(tool, variables), pieces(&arguments.to_string()))
        } else if let Some(status) = self.error {
            Action::Error(HttpError {
                status,
                kind: self.kind.clone().unwrap_or_else(|| "api_error".to_owned()),
                message: self.message.clone().unwrap_or_else(|| "scripted".to_owned()),
                times: self.times,
                retry_after: self.retry_after,
            })
        } else if self.drop {
            Action::Drop
        } else {
            Action::Silence(Duration::from_millis(self.sleep_ms.unwrap_or(0)))
        }
    }
}

/// The text of a message's content, which is a string or a list of parts.
fn text_of(content: &Value) -> String {
    match content.as_array() {
        Some(parts) => parts.iter().filter_map(|part| part["text"].as_str()).collect::<Vec<_>>().join("\n"),
        None => content.as_str().unwrap_or_default().to_owned(),
    }
}

/// Every `[[name key=value …]]` in a text.
fn markers(text: &str) -> Vec<(String, BTreeMap<String, String>)> {
    let inside = text.split("[[").skip(1).filter_map(|rest| rest.split_once("]]")).map(|(inside, _)| inside);
    inside
        .filter_map(|inside| {
            let mut words = inside.split_whitespace();
            let name = words.next()?.to_owned();
            let variables =
                words.map(|word| word.split_once('=').map(|(key, value)| (key.to_owned(), value.to_owned())));
            Some((name, variables.collect::<Option<_>>()?))
        })
        .collect()
}

/// Puts variables in for `$name` and `${name}`; `$$` is a dollar, and a name that is not known stays.
fn substitute(text: &str, variables: &BTreeMap<String, String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        out.push_str(before);
        rest = after;
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
            continue;
        }
        let braced = rest.strip_prefix('{').and_then(|rest| rest.split_once('}'));
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
        let (name, after) = braced.unwrap_or_else(|| rest.split_at(end));
        match variables.get(name) {
            Some(value) => {
                out.push_str(value);
                rest = after;
            }
            None => out.push('$'),
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_put_in_and_dollars_stay_where_they_are_doubled() {
        let variables = BTreeMap::from([("dir".to_owned(), "/p".to_owned())]);
        assert_eq!(substitute("$dir/a ${dir}b $$(seq 1) $i $", &variables), "/p/a /pb $(seq 1) $i $");
    }

    #[test]
    fn a_marker_has_a_name_and_variables() {
        let found = markers("x [[tools dir=/p n=1]] y [[plain]] z [[ ]] [[not a marker]]");
        assert_eq!(found.len(), 2, "{found:?}");
        assert_eq!(
            (found[0].0.as_str(), found[0].1["n"].as_str(), found[1].0.as_str()),
            ("tools", "1", "plain")
        );
    }

    #[test]
    fn an_unknown_field_in_the_file_is_an_error() {
        let file = r#"{"title": "t", "default": "a", "scripts": {"a": [[{"txt": "x"}]]}}"#;
        assert!(Scenario::parse(file).unwrap_err().to_string().contains("txt"));
    }
}
