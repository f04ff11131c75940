//! Messages: who said something, and what it cost.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{ModelInUse, Tokens, Usage, wire};
use crate::Timestamp;

/// A message as the agent server describes it (`info` of `message.updated`). Fields of one role only are absent in the
/// other.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Message {
    /// Its id.
    pub id: String,
    /// Its session.
    #[serde(rename = "sessionID")]
    pub session_id: String,
    /// Who said it.
    pub role: Role,
    /// When it was made and when it was complete.
    pub time: MessageTime,
    /// The mode that answers: `build`, `code`, `plan`, …
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
    /// User: the model that is to answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<ModelInUse>,
    /// User: files changed in its turn, told after the turn.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub summary: Option<Value>,
    /// Assistant: the user's message that it answers.
    #[serde(rename = "parentID", skip_serializing_if = "Option::is_none")]
    pub parent_id: Option<String>,
    /// Assistant: the model that answered.
    #[serde(rename = "modelID", skip_serializing_if = "Option::is_none")]
    pub model_id: Option<String>,
    /// Assistant: who served it.
    #[serde(rename = "providerID", skip_serializing_if = "Option::is_none")]
    pub provider_id: Option<String>,
    /// Assistant: the price in US dollars.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost: Option<f64>,
    /// Assistant: the tokens of its last model call.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens: Option<Tokens>,
    /// Assistant: how it ended: `stop`, `tool-calls`, …; absent while it runs and after an abort.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finish: Option<String>,
    /// Assistant: what went wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<MessageError>,
}

impl Message {
    /// What it cost.
    #[must_use]
    pub fn usage(&self) -> Usage {
        Usage { tokens: self.tokens.unwrap_or_default(), cost: self.cost.unwrap_or(0.0) }
    }

    /// The model's name, whoever's message it is.
    #[must_use]
    pub fn model_name(&self) -> Option<&str> {
        self.model_id.as_deref().or_else(|| self.model.as_ref().map(|model| model.id.as_str()))
    }

    /// Files changed in its turn, for a user's message; empty where the server does not say.
    #[must_use]
    pub fn diffs(&self) -> Vec<FileDiff> {
        let Some(summary) = &self.summary else { return Vec::new() };
        MessageSummary::deserialize(summary).map(|summary| summary.diffs).unwrap_or_default()
    }
}

/// Who said something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Role {
    /// A person, or Gastown in their place.
    User,
    /// The model.
    Assistant,
    /// A word of a newer server.
    #[default]
    #[serde(other)]
    Unknown,
}

/// Times of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct MessageTime {
    /// When it was made.
    #[serde(deserialize_with = "wire::read_time", serialize_with = "wire::write_time")]
    pub created: Option<Timestamp>,
    /// When it was complete.
    #[serde(
        deserialize_with = "wire::read_time",
        serialize_with = "wire::write_time",
        skip_serializing_if = "Option::is_none"
    )]
    pub completed: Option<Timestamp>,
}

/// What a turn changed.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct MessageSummary {
    /// Per file.
    pub diffs: Vec<FileDiff>,
}

/// What was changed in one file.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct FileDiff {
    /// The file, relative to the session's folder.
    pub file: String,
    /// The change as a patch; empty for binary files.
    pub patch: String,
    /// Lines added.
    #[serde(deserialize_with = "wire::count")]
    pub additions: u64,
    /// Lines removed.
    #[serde(deserialize_with = "wire::count")]
    pub deletions: u64,
    /// `added`, `deleted`, `modified`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
}

/// What went wrong: `{name, data: {message, …}}`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct MessageError {
    /// Which kind: `APIError`, `MessageAbortedError`, `UnknownError`, …
    pub name: String,
    /// The particulars.
    pub data: Value,
}

impl MessageError {
    /// What it says, for people.
    #[must_use]
    pub fn message(&self) -> &str {
        self.data.get("message").and_then(Value::as_str).unwrap_or(&self.name)
    }

    /// Whether somebody broke the turn off.
    #[must_use]
    pub fn is_abort(&self) -> bool {
        self.name == "MessageAbortedError"
    }
}
