//! Steering: what a viewer or the control plane may ask of an agent (§7).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{ErrorCode, IdError};

/// Names one command, so that it is carried out at most once: 1 to 64 bytes of `[A-Za-z0-9_-]`.
#[derive(
    Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(try_from = "String", into = "String")]
pub struct CommandId(String);

impl CommandId {
    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for CommandId {
    type Error = IdError;

    fn try_from(text: String) -> Result<Self, IdError> {
        text.parse::<crate::ProducerId>().map(|_| Self(text))
    }
}

impl std::str::FromStr for CommandId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        Self::try_from(text.to_owned())
    }
}

impl From<CommandId> for String {
    fn from(id: CommandId) -> Self {
        id.0
    }
}

impl std::fmt::Display for CommandId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// What an agent is asked to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Command {
    /// Take this message.
    Prompt(Prompt),
    /// End the turn that runs.
    Abort,
    /// Answer a permission.
    Permission {
        /// The permission asked for.
        id: String,
        /// The answer.
        reply: PermissionReply,
        /// What to do instead, told to the model with a rejection.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        message: Option<String>,
    },
    /// Answer a question.
    Question(Answer),
    /// Decline a question.
    QuestionReject {
        /// The question asked.
        id: String,
    },
    /// A slash command of the agent.
    #[serde(rename = "command")]
    Slash {
        /// Its name, without the slash.
        name: String,
        /// The rest of the line.
        #[serde(default)]
        arguments: String,
    },
    /// Take the session and its files back to before a message.
    Revert {
        /// That message.
        message_id: String,
    },
    /// Take back the last revert, as long as nothing was said since.
    Unrevert,
    /// Begin another session like the agent's own, which goes on as it is. The result's data is `{"sessionId"}`: a wrapper
    /// that is started with it (`--session-id`) goes on from there.
    Fork {
        /// As it was before this message; without it, as it is.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        message_id: Option<String>,
    },
    /// Go on: the network is there again.
    Network {
        /// What the agent asked.
        id: String,
    },
    /// Do not wait for the network: the turn ends.
    NetworkReject {
        /// What the agent asked.
        id: String,
    },
    /// End the agent.
    Stop {
        /// Let the turn that runs end first.
        #[serde(default)]
        drain: bool,
    },
    /// Show what the wrapper and the agent's server wrote last to their logs.
    Logs {
        /// At most so many lines of each; all that are kept (200), without it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        lines: Option<u32>,
    },
    /// Is anyone there?
    Ping,
}

/// A message for the agent.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Prompt {
    /// The message, where it is plain text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// The message as parts in the agent's own shape, where it is more than text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parts: Option<Vec<Value>>,
    /// When the agent is to take it, if a turn runs.
    #[serde(default)]
    pub delivery: Delivery,
    /// Which model is to answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<ModelRef>,
    /// Which of the agent server's own agents (modes) is to answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
    /// The id the message shall have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message_id: Option<String>,
    /// More instructions for this turn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system: Option<String>,
    /// The variant of the model, such as its effort.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    /// Which tools the agent has in this turn, by name; those that are not named stay as they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tools: Option<BTreeMap<String, bool>>,
}

/// When a prompt is taken while a turn runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Delivery {
    /// After this turn.
    #[default]
    Queue,
    /// At the next step of this turn.
    Boundary,
    /// At once: the turn that runs is aborted first.
    Interrupt,
}

/// A model, as agent servers name it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct ModelRef {
    /// Who serves it.
    #[serde(rename = "providerID")]
    pub provider_id: String,
    /// Its name there.
    #[serde(rename = "modelID")]
    pub model_id: String,
}

impl ModelRef {
    /// Reads `{providerID, modelID}`, or `"provider/model"`.
    #[must_use]
    pub fn from_json(value: Value) -> Option<Self> {
        let Value::String(name) = value else { return serde_json::from_value(value).ok() };
        let (provider, model) = name.split_once('/')?;
        let named = !provider.is_empty() && !model.is_empty();
        named.then(|| Self { provider_id: provider.to_owned(), model_id: model.to_owned() })
    }
}

/// The answer to a permission.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PermissionReply {
    /// This time.
    Once,
    /// This and everything like it, for the session.
    Always,
    /// No.
    Reject,
}

/// The answers to a question: for each of its questions the labels chosen, or own words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Answer {
    /// The question asked.
    pub id: String,
    /// One list per question.
    pub answers: Vec<Vec<String>>,
}

/// What became of a command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct CommandResult {
    /// The command.
    pub id: CommandId,
    /// It was taken.
    pub ok: bool,
    /// Why it was not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<crate::ErrorDetail>,
    /// What the agent answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<Value>,
}

impl CommandResult {
    /// It was taken.
    #[must_use]
    pub fn ok(id: CommandId) -> Self {
        Self { id, ok: true, error: None, data: None }
    }

    /// It was not taken.
    #[must_use]
    pub fn refused(id: CommandId, code: ErrorCode, message: impl Into<String>) -> Self {
        Self { id, ok: false, error: Some(crate::ErrorDetail::new(code, message)), data: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_have_the_words_of_the_document() {
        let read = |text: &str| serde_json::from_str::<Command>(text);
        assert_eq!(read(r#"{"type":"abort"}"#).unwrap(), Command::Abort);
        assert_eq!(read(r#"{"type":"stop"}"#).unwrap(), Command::Stop { drain: false });
        let slash = Command::Slash { name: "init".into(), arguments: String::new() };
        assert_eq!(read(r#"{"type":"command","name":"init"}"#).unwrap(), slash);
        let Command::Prompt(prompt) = read(r#"{"type":"prompt","text":"hi"}"#).unwrap() else {
            panic!("a prompt")
        };
        assert_eq!(prompt.delivery, Delivery::Queue, "a prompt waits for the turn that runs");
        let reply = read(r#"{"type":"permission","id":"per_1","reply":"always"}"#).unwrap();
        assert_eq!(
            reply,
            Command::Permission { id: "per_1".into(), reply: PermissionReply::Always, message: None }
        );
        assert_eq!(read(r#"{"type":"fork"}"#).unwrap(), Command::Fork { message_id: None });
        assert_eq!(
            read(r#"{"type":"network_reject","id":"net_1"}"#).unwrap(),
            Command::NetworkReject { id: "net_1".into() }
        );
        assert!(read(r#"{"type":"permission","id":"per_1","reply":"perhaps"}"#).is_err());
        assert!(read(r#"{"type":"dance"}"#).is_err());
    }

    #[test]
    fn a_command_id_is_checked_like_every_id() {
        assert_eq!("c-1".parse::<CommandId>().unwrap().as_str(), "c-1");
        for refused in ["", "a b", &"a".repeat(65)] {
            assert!(refused.parse::<CommandId>().is_err(), "{refused}");
            assert!(serde_json::from_value::<CommandId>(refused.into()).is_err(), "{refused}");
        }
    }

    #[test]
    fn a_result_says_why_it_was_refused() {
        let result = CommandResult::refused(
            "c-1".parse().unwrap(),
            ErrorCode::AgentOffline,
            "no wrapper is connected",
        );
        let json = serde_json::to_value(&result).unwrap();
        assert_eq!(json["error"]["code"], "agent_offline");
        assert_eq!(serde_json::from_value::<CommandResult>(json).unwrap(), result);
    }
}
