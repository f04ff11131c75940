//! What an agent waits for a person to say.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::wire;
use crate::Timestamp;

/// May I? (`permission.asked`)
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Permission {
    /// Its id.
    pub id: String,
    /// The session that asks.
    #[serde(rename = "sessionID")]
    pub session_id: String,
    /// What for: `bash`, `edit`, `external_directory`, …
    pub permission: String,
    /// What exactly: commands, paths.
    pub patterns: Vec<String>,
    /// The patterns that `always` would allow.
    pub always: Vec<String>,
    /// More of it: `command`, `description`, `diff`, …; `{}` in kilo 7.0.
    pub metadata: Value,
    /// The tool call that waits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool: Option<ToolCall>,
}

/// The tool call that waits for an answer.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ToolCall {
    /// The message it is in.
    #[serde(rename = "messageID")]
    pub message_id: String,
    /// The model's id for the call.
    #[serde(rename = "callID")]
    pub call_id: String,
}

/// What do you want? (`question.asked`)
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Question {
    /// Its id.
    pub id: String,
    /// The session that asks.
    #[serde(rename = "sessionID")]
    pub session_id: String,
    /// One or more questions, each with its answers.
    pub questions: Vec<QuestionInfo>,
    /// The tool call that waits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool: Option<ToolCall>,
}

/// One question.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct QuestionInfo {
    /// The question.
    pub question: String,
    /// The same in a word or two.
    pub header: String,
    /// Answers to choose from; own words are always allowed.
    pub options: Vec<QuestionOption>,
    /// More than one may be chosen.
    pub multiple: bool,
}

/// One answer to choose.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct QuestionOption {
    /// The answer.
    pub label: String,
    /// What it means.
    pub description: String,
}

/// The provider cannot be reached: go on? (`session.network.asked`, kilo)
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Network {
    /// Its id.
    pub id: String,
    /// The session that waits.
    #[serde(rename = "sessionID")]
    pub session_id: String,
    /// What failed.
    pub message: String,
    /// The network is back.
    pub restored: bool,
    /// When it failed.
    #[serde(rename = "time")]
    pub since: AskedAt,
}

/// When something was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct AskedAt {
    /// At this time.
    #[serde(deserialize_with = "wire::read_time", serialize_with = "wire::write_time")]
    pub created: Option<Timestamp>,
}
