//! Sessions: what one conversation is, and how it is doing.

use serde::{Deserialize, Serialize};

use super::{Tokens, wire};
use crate::Timestamp;

/// A session as the agent server describes it (`info` of `session.created` and `session.updated`).
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Session {
    /// Its id.
    pub id: String,
    /// The session that started it as a sub-agent.
    #[serde(rename = "parentID", skip_serializing_if = "Option::is_none")]
    pub parent_id: Option<String>,
    /// What it is about, in a few words.
    pub title: String,
    /// The folder it works in.
    pub directory: String,
    /// The project that folder belongs to.
    #[serde(rename = "projectID")]
    pub project_id: String,
    /// The server's version when the session was made.
    pub version: String,
    /// The mode that answers: `build`, `code`, `plan`, …
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
    /// The model that answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<ModelInUse>,
    /// Its times.
    pub time: SessionTime,
    /// Files changed, where the server counts them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub summary: Option<SessionSummary>,
    /// Set while messages are taken back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revert: Option<Revert>,
    /// What it cost by now, without its children; kilo 7.0 does not say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost: Option<f64>,
    /// The tokens it took by now, without its children; kilo 7.0 does not say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens: Option<Tokens>,
}

/// A model, as a session names it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ModelInUse {
    /// Its name at its provider (`id` in a session, `modelID` in a message).
    #[serde(alias = "modelID")]
    pub id: String,
    /// Who serves it.
    #[serde(rename = "providerID")]
    pub provider_id: String,
    /// Its effort or flavour.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

/// Times of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct SessionTime {
    /// When it was made.
    #[serde(deserialize_with = "wire::read_time", serialize_with = "wire::write_time")]
    pub created: Option<Timestamp>,
    /// When it changed last.
    #[serde(deserialize_with = "wire::read_time", serialize_with = "wire::write_time")]
    pub updated: Option<Timestamp>,
    /// When it was put away.
    #[serde(
        deserialize_with = "wire::read_time",
        serialize_with = "wire::write_time",
        skip_serializing_if = "Option::is_none"
    )]
    pub archived: Option<Timestamp>,
}

/// Files a session changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct SessionSummary {
    /// Lines added.
    #[serde(deserialize_with = "wire::count")]
    pub additions: u64,
    /// Lines removed.
    #[serde(deserialize_with = "wire::count")]
    pub deletions: u64,
    /// Files touched.
    #[serde(deserialize_with = "wire::count")]
    pub files: u64,
}

/// How far a session was taken back.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Revert {
    /// The first message taken back.
    #[serde(rename = "messageID")]
    pub message_id: String,
    /// The part of it from which on, if not all of it.
    #[serde(rename = "partID", skip_serializing_if = "Option::is_none")]
    pub part_id: Option<String>,
    /// The files' state before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<String>,
    /// What taking back changed in the files, as a patch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub diff: Option<String>,
}

/// What a session does just now (`status` of `session.status`).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
#[non_exhaustive]
pub enum SessionStatus {
    /// Nothing.
    #[default]
    Idle,
    /// It works.
    Busy,
    /// A model call failed and is tried again.
    Retry {
        /// Which try this was, from 1.
        #[serde(default, deserialize_with = "wire::count")]
        attempt: u64,
        /// What the provider said.
        #[serde(default)]
        message: String,
        /// When the next try is.
        #[serde(default, deserialize_with = "wire::read_time", serialize_with = "wire::write_time")]
        next: Option<Timestamp>,
    },
    /// The provider cannot be reached, and a person is asked what to do (kilo).
    Offline {
        /// What failed.
        #[serde(default)]
        message: String,
        /// The [`super::Network`] ask that waits.
        #[serde(default, rename = "requestID", skip_serializing_if = "Option::is_none")]
        request_id: Option<String>,
    },
    /// A word of a newer server.
    #[serde(other)]
    Unknown,
}

impl SessionStatus {
    /// Whether a turn runs: anything but idle.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        !matches!(self, Self::Idle)
    }
}

/// One line of a session's to-do list.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Todo {
    /// Its id, where the server gives one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// What is to be done.
    pub content: String,
    /// `pending`, `in_progress`, `completed`, `cancelled`.
    pub status: String,
    /// `high`, `medium`, `low`.
    pub priority: String,
}
