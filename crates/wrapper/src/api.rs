//! The local HTTP API (§10): one agent's jobs, on loopback, with a bearer token.

mod routes;
mod serve;

use std::{
    io::Write as _,
    net::SocketAddr,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use protocol::{
    Command, Prompt,
    config::{TownConfig, TurnConfig},
    frame::WrapperState,
};
use serde::Serialize;
use serde_json::Value;
use tokio::{
    net::TcpListener,
    sync::{mpsc, oneshot, watch},
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use crate::{
    LogTail,
    link::{LinkHandle, Token},
};

/// How long the requests under way have to end.
const CLOSE: Duration = Duration::from_secs(1);

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
        /// What it says of its turn.
        turn: TurnConfig,
    },
    /// The town's config is this from the next turn on.
    Configure(TownConfig),
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
    /// There is no agent to do it, or there soon will not be.
    #[error("{0}")]
    NoJob(String),
    /// No such permission, question or message.
    #[error("{0}")]
    NotFound(String),
    /// It contradicts what is there.
    #[error("{0}")]
    Conflict(String),
    /// Too much waits already.
    #[error("{0}")]
    TooMany(String),
    /// This kind of agent cannot do that.
    #[error("{0}")]
    Unsupported(String),
    /// The agent server refused.
    #[error("{0}")]
    AgentRefused(String),
    /// The agent server did not answer.
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
    /// What was taken and is not through, in order: the messages' ids, or those of the commands that brought messages without.
    pub inflight: Vec<String>,
    /// What waits for the relay.
    pub outbox: OutboxDepth,
    /// How often the agent server was started again.
    pub restarts: u64,
    /// The last thing that went wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
    /// Where the wrapper is in its life, as the relay is told it; it is what `GET /health` shows.
    #[serde(skip)]
    pub wrapper: Option<WrapperState>,
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
    address: SocketAddr,
    file: PathBuf,
    stop: CancellationToken,
    server: AbortOnDropHandle<()>,
}

impl Api {
    /// Serves on a listener, which is to be one of loopback, and writes `{"port", "token"}` to `<state-dir>/api.json` with
    /// mode 0600. Requests go to `requests`, its token into no line of `log`; `status` is what `GET /job/status` shows, and with `link` `GET /health`. It needs a tokio runtime.
    ///
    /// # Errors
    /// When it cannot write.
    pub fn start(
        listener: TcpListener,
        state_dir: &Path,
        status: watch::Receiver<JobStatus>,
        link: LinkHandle,
        requests: mpsc::Sender<ApiRequest>,
        log: &LogTail,
    ) -> std::io::Result<Self> {
        let address = listener.local_addr()?;
        let secret = BASE64_URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>());
        log.secrets().hide(&secret);
        let file = state_dir.join("api.json");
        publish(&file, &serde_json::json!({ "port": address.port(), "token": secret }))?;
        let stop = CancellationToken::new();
        let router = routes::router(Token::new(secret), status, link, requests);
        let server = AbortOnDropHandle::new(tokio::spawn(serve::serve(listener, router, stop.clone())));
        Ok(Self { address, file, stop, server })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends it: no more requests are taken, those under way get a second to end, and the file is removed.
    pub async fn close(self) {
        self.stop.cancel();
        // Who holds a connection open and says nothing is cut off.
        let _ = timeout(CLOSE, self.server).await;
        if let Err(error) = std::fs::remove_file(&self.file) {
            tracing::debug!(%error, file = %self.file.display(), "the API's file is not removed");
        }
    }
}

/// Whole or not there, and the owner's alone.
fn publish(file: &Path, content: &Value) -> std::io::Result<()> {
    let draft = file.with_extension("draft");
    let _ = std::fs::remove_file(&draft);
    let mut out = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
    out.write_all(content.to_string().as_bytes())?;
    std::fs::rename(draft, file)
}

#[cfg(test)]
mod tests;
