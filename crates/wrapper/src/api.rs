//! The local HTTP API (§10): one agent's jobs, on loopback, with a bearer token.

use std::path::Path;

use protocol::{Command, Prompt};
use serde::Serialize;
use serde_json::Value;
use tokio::sync::{mpsc, oneshot, watch};

/// What the API asks of the wrapper. It is answered once.
#[derive(Debug)]
pub struct ApiRequest {
    /// What to do.
    pub ask: ApiAsk,
    /// Where the answer goes.
    pub answer: oneshot::Sender<Result<ApiAnswer, ApiError>>,
}

/// What the API asks for.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum ApiAsk {
    /// Queue a message; the answer is [`ApiAnswer::Accepted`] at once.
    Prompt {
        /// The message.
        prompt: Prompt,
        /// The config of this turn, as it came: `autoCommit`, `condenseOnComplete`, `upstreamBranch`, `variant`, `tools`.
        turn: serde_json::Map<String, Value>,
    },
    /// Carry out a command: `abort`, `permission`, `question`, `question_reject`, a slash command.
    Command(Command),
}

/// What came of it.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum ApiAnswer {
    /// The message has this id.
    Accepted {
        /// The id.
        message_id: String,
    },
    /// It was done; what the agent answered.
    Done(Option<Value>),
}

/// Why it was not done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ApiError {
    /// The request is wrong.
    #[error("{0}")]
    InvalidRequest(String),
    /// There is no session to do it in.
    #[error("there is no job: the agent has not started, or has ended")]
    NoJob,
    /// No such permission, question or message.
    #[error("{0}")]
    NotFound(String),
    /// It contradicts what is there.
    #[error("{0}")]
    Conflict(String),
    /// The agent server did not answer or refused.
    #[error("{0}")]
    AgentUnreachable(String),
    /// The wrapper failed.
    #[error("{0}")]
    Internal(String),
}

/// The answer of `GET /job/status`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct JobStatus {
    /// `starting`, `idle`, `busy`, `waiting`, `retrying`, `stopping`, `exited`, `failed`.
    pub state: String,
    /// The root session.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_id: Option<String>,
    /// The ids of the messages that were taken and are not through.
    pub inflight: Vec<String>,
    /// What waits for the relay.
    pub outbox: OutboxDepth,
    /// The last thing that went wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
}

/// What waits for the relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct OutboxDepth {
    /// Events.
    pub events: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// A running API.
#[derive(Debug)]
pub struct Api {
    address: std::net::SocketAddr,
}

impl Api {
    /// Listens on a port of the system's choice on loopback, and writes `{"port", "token"}` to `<state-dir>/api.json`
    /// with mode 0600. Requests go to `requests`; `status` is what `GET /job/status` shows.
    ///
    /// # Errors
    /// When it cannot listen or write.
    pub async fn start(
        state_dir: &Path,
        status: watch::Receiver<JobStatus>,
        requests: mpsc::Sender<ApiRequest>,
    ) -> std::io::Result<Self> {
        let _ = (state_dir, status, requests);
        todo!()
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> std::net::SocketAddr {
        self.address
    }

    /// Ends it: no more requests are taken, those under way get a second to end, and the file is removed.
    pub async fn close(self) {
        todo!()
    }
}
