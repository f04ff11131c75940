//! Tool calls and what became of them.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::PartTime;

/// A tool call.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ToolPart {
    /// The tool: `bash`, `edit`, `write`, `read`, `grep`, `todowrite`, `task`, `question`, `<mcp server>_<tool>`, …
    pub tool: String,
    /// The model's id for this call.
    #[serde(rename = "callID")]
    pub call_id: String,
    /// How far it is.
    pub state: ToolState,
    /// What the server says beside it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Value>,
}

/// How far a tool call is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "status", rename_all = "snake_case")]
#[non_exhaustive]
pub enum ToolState {
    /// The model is still writing the call.
    Pending(ToolStatePending),
    /// It runs.
    Running(ToolStateRunning),
    /// It is done.
    Completed(ToolStateCompleted),
    /// It failed, was refused or was broken off.
    Error(ToolStateError),
    /// A word of a newer server.
    #[serde(other)]
    Unknown,
}

/// A call that the model is still writing.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ToolStatePending {
    /// The arguments, as far as they are known: `{}` on all servers seen.
    pub input: Value,
    /// The same, as text.
    pub raw: String,
}

/// A call that runs.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ToolStateRunning {
    /// The arguments.
    pub input: Value,
    /// What it does, in a few words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// What the tool says of itself: `output` so far (whole each time), `sessionId` of a sub-agent, …
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Value>,
    /// When it began.
    pub time: PartTime,
}

/// A call that is done.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ToolStateCompleted {
    /// The arguments.
    pub input: Value,
    /// What the model is told.
    pub output: String,
    /// What it did, in a few words.
    pub title: String,
    /// What the tool says of itself: `exit`, `diff`, `todos`, `sessionId`, …
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Value>,
    /// When it began and ended.
    pub time: PartTime,
    /// Files it gave back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attachments: Option<Vec<Value>>,
}

/// A call that failed.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ToolStateError {
    /// The arguments.
    pub input: Value,
    /// What went wrong.
    pub error: String,
    /// What the tool says of itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Value>,
    /// When it began and ended.
    pub time: PartTime,
}

impl Default for ToolState {
    fn default() -> Self {
        Self::Pending(ToolStatePending::default())
    }
}

impl ToolState {
    /// The wire's word for it.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Pending(_) => "pending",
            Self::Running(_) => "running",
            Self::Completed(_) => "completed",
            Self::Error(_) => "error",
            Self::Unknown => "unknown",
        }
    }

    /// The arguments; `null` for a state that is not known.
    #[must_use]
    pub fn input(&self) -> &Value {
        match self {
            Self::Pending(state) => &state.input,
            Self::Running(state) => &state.input,
            Self::Completed(state) => &state.input,
            Self::Error(state) => &state.input,
            Self::Unknown => &Value::Null,
        }
    }

    /// What it does, in a few words, where the tool says so.
    #[must_use]
    pub fn title(&self) -> Option<&str> {
        match self {
            Self::Running(state) => state.title.as_deref(),
            Self::Completed(state) => Some(state.title.as_str()),
            Self::Pending(_) | Self::Error(_) | Self::Unknown => None,
        }
        .filter(|title| !title.is_empty())
    }

    /// What the tool says of itself.
    #[must_use]
    pub fn metadata(&self) -> Option<&Value> {
        match self {
            Self::Running(state) => state.metadata.as_ref(),
            Self::Completed(state) => state.metadata.as_ref(),
            Self::Error(state) => state.metadata.as_ref(),
            Self::Pending(_) | Self::Unknown => None,
        }
    }

    /// What it put out: the whole when it is done, what there is while it runs, nothing otherwise.
    #[must_use]
    pub fn output(&self) -> Option<&str> {
        match self {
            Self::Completed(state) => Some(&state.output),
            Self::Running(_) | Self::Error(_) => self.metadata()?.get("output")?.as_str(),
            Self::Pending(_) | Self::Unknown => None,
        }
    }

    /// The exit code, for tools that run a process.
    #[must_use]
    pub fn exit_code(&self) -> Option<i64> {
        self.metadata()?.get("exit")?.as_i64()
    }

    /// The session of the sub-agent that a `task` call started.
    #[must_use]
    pub fn child_session(&self) -> Option<&str> {
        self.metadata()?.get("sessionId")?.as_str()
    }

    /// When it began and ended.
    #[must_use]
    pub fn time(&self) -> PartTime {
        match self {
            Self::Running(state) => state.time,
            Self::Completed(state) => state.time,
            Self::Error(state) => state.time,
            Self::Pending(_) | Self::Unknown => PartTime::default(),
        }
    }

    /// Whether it is over, well or not.
    #[must_use]
    pub fn is_over(&self) -> bool {
        matches!(self, Self::Completed(_) | Self::Error(_))
    }
}
