//! Parts: what a message is made of.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use serde_json::Value;

use super::{MessageError, ModelInUse, Tokens, ToolPart, wire};
use crate::Timestamp;

/// A part of a message: its ids, and what it is.
#[derive(Debug, Clone, PartialEq)]
pub struct Part {
    /// Its id; parts of a message are in the order of their ids.
    pub id: String,
    /// Its message.
    pub message_id: String,
    /// Its session.
    pub session_id: String,
    /// What it is.
    pub body: PartBody,
}

/// What a part is (`type`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum PartBody {
    /// What was said.
    Text(TextPart),
    /// What the model thought.
    Reasoning(TextPart),
    /// A tool call.
    Tool(ToolPart),
    /// A file that belongs to the prompt.
    File(FilePart),
    /// A model call begins.
    StepStart(StepStartPart),
    /// A model call ended.
    StepFinish(StepFinishPart),
    /// Files were changed.
    Patch(PatchPart),
    /// The state of the files was kept.
    Snapshot(SnapshotPart),
    /// The prompt names one of the server's agents.
    Agent(AgentPart),
    /// A model call is tried again.
    Retry(RetryPart),
    /// The prompt starts a sub-agent.
    Subtask(SubtaskPart),
    /// The session was condensed.
    Compaction(CompactionPart),
    /// A type of a newer server.
    #[serde(other)]
    Unknown,
}

/// Text or reasoning.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct TextPart {
    /// The text: Markdown.
    pub text: String,
    /// Not written by the one whose message it is, but by the server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub synthetic: Option<bool>,
    /// Not shown to the model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ignored: Option<bool>,
    /// When it began and ended; without an end it is still being written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time: Option<PartTime>,
    /// What the server or Gastown says beside it: `interrupted: true` if it was broken off.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Value>,
}

impl TextPart {
    /// Whether the agent server went away while it was being written (§3).
    #[must_use]
    pub fn is_interrupted(&self) -> bool {
        self.metadata.as_ref().and_then(|m| m.get("interrupted")).and_then(Value::as_bool) == Some(true)
    }
}

/// When something began and ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct PartTime {
    /// When it began.
    #[serde(
        deserialize_with = "wire::read_time",
        serialize_with = "wire::write_time",
        skip_serializing_if = "Option::is_none"
    )]
    pub start: Option<Timestamp>,
    /// When it ended.
    #[serde(
        deserialize_with = "wire::read_time",
        serialize_with = "wire::write_time",
        skip_serializing_if = "Option::is_none"
    )]
    pub end: Option<Timestamp>,
}

/// A file.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct FilePart {
    /// Its media type.
    pub mime: String,
    /// Its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub filename: Option<String>,
    /// Where it is: `file:`, `data:` or `https:`.
    pub url: String,
    /// What part of which file it shows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<Value>,
}

/// A model call begins.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct StepStartPart {
    /// The state of the files.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<String>,
}

/// A model call ended.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct StepFinishPart {
    /// Why: `stop`, `tool-calls`, `length`, …
    pub reason: String,
    /// The state of the files.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<String>,
    /// The price in US dollars.
    #[serde(deserialize_with = "wire::amount")]
    pub cost: f64,
    /// The tokens.
    pub tokens: Tokens,
}

/// Files were changed.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct PatchPart {
    /// The state of the files before.
    pub hash: String,
    /// Absolute paths.
    pub files: Vec<String>,
}

/// The state of the files.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct SnapshotPart {
    /// Its name.
    pub snapshot: String,
}

/// One of the server's agents.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct AgentPart {
    /// Its name.
    pub name: String,
}

/// A model call is tried again.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct RetryPart {
    /// Which try this was, from 1.
    #[serde(deserialize_with = "wire::count")]
    pub attempt: u64,
    /// What went wrong.
    pub error: MessageError,
}

/// A sub-agent that the prompt starts.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct SubtaskPart {
    /// Its prompt.
    pub prompt: String,
    /// What it is about, in a few words.
    pub description: String,
    /// Which of the server's agents it is.
    pub agent: String,
    /// The model that answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<ModelInUse>,
}

/// The session was condensed.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct CompactionPart {
    /// By the server, because the context was full.
    pub auto: bool,
}

impl PartBody {
    /// The text, of text and reasoning.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        self.text_part().map(|part| part.text.as_str())
    }

    /// Text and reasoning alike.
    #[must_use]
    pub fn text_part(&self) -> Option<&TextPart> {
        match self {
            Self::Text(part) | Self::Reasoning(part) => Some(part),
            Self::Tool(_)
            | Self::File(_)
            | Self::StepStart(_)
            | Self::StepFinish(_)
            | Self::Patch(_)
            | Self::Snapshot(_)
            | Self::Agent(_)
            | Self::Retry(_)
            | Self::Subtask(_)
            | Self::Compaction(_)
            | Self::Unknown => None,
        }
    }

    /// The tool call, if it is one.
    #[must_use]
    pub fn tool(&self) -> Option<&ToolPart> {
        if let Self::Tool(tool) = self { Some(tool) } else { None }
    }

    /// Adds to the text; says whether this is something that has one.
    pub(crate) fn push_text(&mut self, delta: &str) -> bool {
        if let Self::Text(part) | Self::Reasoning(part) = self {
            part.text.push_str(delta);
            return true;
        }
        false
    }
}

/// The ids of a part.
#[derive(Serialize, Deserialize, Default)]
#[serde(default)]
struct Ids {
    id: String,
    #[serde(rename = "messageID")]
    message_id: String,
    #[serde(rename = "sessionID")]
    session_id: String,
}

impl<'de> Deserialize<'de> for Part {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        let ids = Ids::deserialize(&value).map_err(D::Error::custom)?;
        let body = PartBody::deserialize(value).map_err(D::Error::custom)?;
        Ok(Self { id: ids.id, message_id: ids.message_id, session_id: ids.session_id, body })
    }
}

impl Serialize for Part {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::Error as _;
        let mut value = serde_json::to_value(&self.body).map_err(S::Error::custom)?;
        let fields = value.as_object_mut().ok_or_else(|| S::Error::custom("a part is an object"))?;
        fields.insert("id".to_owned(), self.id.as_str().into());
        fields.insert("messageID".to_owned(), self.message_id.as_str().into());
        fields.insert("sessionID".to_owned(), self.session_id.as_str().into());
        value.serialize(serializer)
    }
}
