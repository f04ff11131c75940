//! What an agent is run with: the trait, and its implementations.

pub mod acp;
mod control;
mod mcp;
pub mod opencode;
mod output;
mod process;
mod record;
pub mod replay;
pub mod scripted;
pub(crate) mod shape;

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    fmt,
    path::PathBuf,
    sync::Arc,
};

use async_trait::async_trait;
use protocol::{
    AgentId, Command, ModelRef, NewEvent,
    agent::Failed,
    config::{EnvName, Secret},
    frame::RuntimeInfo,
};
use serde_json::Value;
use tokio::sync::mpsc;

use crate::{Clock, Options, OptionsError};

/// Signals a runtime may have in hand that the wrapper has not taken yet. Small: a full outbox is to slow the agent's
/// stream down, not to fill memory (§6).
pub const SIGNALS: usize = 256;

/// Runs one kind of agent.
///
/// # Clauses
/// 1. *Start.* [`start`](Self::start) returns when the agent takes prompts: its server is up, its stream is followed, its
///    root session is there (the one to resume, if the server still has it). A start that fails leaves nothing running.
/// 2. *Stream.* [`RunningAgent::signals`] yields what happens, in order, in the agent's own event types; it is bounded,
///    and a full stream slows the agent down. The last signal is [`Signal::Ended`]; a stream that closes without it
///    counts as a death.
/// 3. *Raw.* Events of all sessions may come, volatile ones too, deltas as the agent made them: which of them are
///    forwarded and how is the wrapper's concern.
/// 4. *Commands.* [`AgentControl::command`] returns once the agent has accepted it; what comes of it is in the stream.
///    Prompts come one at a time, and the next one only after the user message of the last one was in the stream, or
///    its turn is over.
/// 5. *Stop.* [`AgentControl::stop`] ends the agent with every process it began, then the stream ends.
///    Dropping the control does the same without waiting.
#[async_trait]
pub trait AgentRuntime: Send + Sync + fmt::Debug + 'static {
    /// `opencode`, `kilo`, `acp`, `scripted`, `replay`.
    fn name(&self) -> &'static str;

    /// Starts the agent.
    ///
    /// # Errors
    /// [`Failed`] says what went wrong and what to do, as `agent.failed` will.
    async fn start(&self, start: Start) -> Result<RunningAgent, Failed>;
}

/// How an agent is to be started.
#[derive(Debug, Clone)]
pub struct Start {
    /// The agent's id.
    pub agent: AgentId,
    /// The folder it works in: absolute, and there.
    pub directory: PathBuf,
    /// Where the runtime may keep files of its own: there, and this agent's alone.
    pub state_dir: PathBuf,
    /// The session to go on with.
    pub resume: Option<String>,
    /// Variables of the agent's environment, besides those of this process.
    pub env: BTreeMap<EnvName, Secret>,
    /// The clock that events get their time from.
    pub clock: Clock,
}

/// An agent that takes prompts.
#[derive(Debug)]
pub struct RunningAgent {
    /// What runs it, with the version it says itself.
    pub info: RuntimeInfo,
    /// The root session.
    pub session: String,
    /// The session was there before.
    pub resumed: bool,
    /// How many tokens its models take at once, by the model's id; empty where the runtime does not know.
    pub context_limits: BTreeMap<String, u64>,
    /// What happens. Made with [`mpsc::channel`]`(`[`SIGNALS`]`)`.
    pub signals: mpsc::Receiver<Signal>,
    /// How it is steered.
    pub control: Arc<dyn AgentControl>,
}

/// What a running agent says.
#[derive(Debug)]
#[non_exhaustive]
pub enum Signal {
    /// An event in the agent's own types; `session` as §2 says.
    Event(NewEvent),
    /// A sign of life without an event.
    Alive,
    /// The stream broke off and was taken up again, or a session goes on after a start: what the agent says by now, for whoever lost
    /// something between.
    /// The wrapper compares it with what it knows and emits the differences.
    CaughtUp(Box<ServerState>),
    /// A slash command that the agent took has failed since, and the agent's stream does not say so.
    CommandFailed {
        /// Which one, and what the agent says.
        message: String,
    },
    /// The agent is no more. The last signal.
    Ended(Ended),
}

/// What an agent server says of its sessions when it is asked, in the shapes of its HTTP API.
#[derive(Debug, Clone, Default)]
pub struct ServerState {
    /// Sessions, parents before children.
    pub sessions: Vec<Value>,
    /// `{info, parts}` per message, oldest first within its session, of all those sessions: the newest ones.
    pub messages: Vec<Value>,
    /// Sessions that have older messages than those.
    pub cut: BTreeSet<String>,
    /// Status by session id; a session that is not named is idle.
    pub status: serde_json::Map<String, Value>,
    /// Permissions that wait.
    pub permissions: Vec<Value>,
    /// Questions that wait.
    pub questions: Vec<Value>,
    /// Whether to wait for a network that was lost: asks that wait.
    pub networks: Vec<Value>,
}

/// How an agent ended.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ended {
    /// As it was asked to, or because its work is done (a recording or scenario that is through): `reason` is
    /// `stopped` or `finished`.
    Exited {
        /// Why.
        reason: String,
        /// The exit code of its server.
        code: Option<i32>,
    },
    /// It died.
    Died(Failed),
}

/// Steers a running agent.
#[async_trait]
pub trait AgentControl: Send + Sync + fmt::Debug {
    /// Hands a command to the agent: `prompt`, `abort`, `permission`, `question`, `question_reject`, `command`, `revert`, `unrevert`, `fork`,
    /// `network`, `network_reject`.
    /// `stop` and `ping` never get here. Returns what the agent answered, if that says anything.
    ///
    /// # Errors
    /// When the agent did not take it.
    async fn command(&self, command: Command) -> Result<Option<Value>, CommandError>;

    /// Has the agent write a message for what is staged in its work folder. Not every kind of agent can.
    ///
    /// # Errors
    /// When it cannot, or did not.
    async fn commit_message(&self) -> Result<String, CommandError> {
        Err(CommandError::Unsupported { what: "write the message of a commit" })
    }

    /// Has the agent condense its session, with this model where it does not choose one itself. Returns when that is done; what the
    /// agent does meanwhile is in the stream. Not every kind of agent can.
    ///
    /// # Errors
    /// When it cannot, or did not.
    async fn condense(&self, _model: Option<ModelRef>) -> Result<(), CommandError> {
        Err(CommandError::Unsupported { what: "condense its session" })
    }

    /// Has the agent say once more how things are: a [`Signal::CaughtUp`] comes, as if the stream had broken off. An agent of which
    /// nothing else is known than what it says itself does nothing.
    fn say_again(&self) {}

    /// Ends the agent with every process it began. Returns when it is gone.
    async fn stop(&self);
}

/// Why an agent did not take a command.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CommandError {
    /// There is no such permission, question or message, or it was answered already.
    #[error("{what} is not there")]
    NotFound {
        /// What was named.
        what: String,
    },
    /// The agent server no longer has the session: whoever deleted it deleted it there.
    #[error("the session is not there any more")]
    SessionGone,
    /// This kind of agent cannot do that.
    #[error("this agent cannot {what}")]
    Unsupported {
        /// What was asked.
        what: &'static str,
    },
    /// The agent server refused it.
    #[error("the agent server refused: {message}")]
    Refused {
        /// What it said.
        message: String,
    },
    /// The agent server did not answer, or is gone.
    #[error("the agent server does not answer: {message}")]
    Unreachable {
        /// What the system says.
        message: String,
    },
}

/// As a process gets them.
fn exposed(env: &BTreeMap<EnvName, Secret>) -> impl Iterator<Item = (OsString, OsString)> {
    env.iter().map(|(name, value)| (name.as_str().into(), value.expose().into()))
}

/// What `agent.failed` says of a start that failed before there was a process.
fn failed(message: String) -> Failed {
    Failed { message, ..Failed::default() }
}

/// Which runtime.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, clap::ValueEnum)]
#[non_exhaustive]
pub enum RuntimeKind {
    /// `opencode serve`.
    Opencode,
    /// `kilo serve`.
    Kilo,
    /// Any agent that speaks the Agent Client Protocol on its stdin and stdout.
    Acp,
    /// A scenario file; tools really run.
    Scripted,
    /// A recording.
    Replay,
}

impl RuntimeKind {
    /// Its name in events and arguments.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Opencode => "opencode",
            Self::Kilo => "kilo",
            Self::Acp => "acp",
            Self::Scripted => "scripted",
            Self::Replay => "replay",
        }
    }

    /// The runtime, made from a wrapper's options.
    ///
    /// # Errors
    /// When an option it needs is missing or wrong.
    pub fn build(self, options: &Options) -> Result<Arc<dyn AgentRuntime>, OptionsError> {
        match self {
            Self::Opencode => {
                Ok(Arc::new(opencode::AgentServer::from_options(opencode::Flavour::Opencode, options)?))
            }
            Self::Kilo => {
                Ok(Arc::new(opencode::AgentServer::from_options(opencode::Flavour::Kilo, options)?))
            }
            Self::Acp => Ok(Arc::new(acp::Acp::from_options(options)?)),
            Self::Scripted => Ok(Arc::new(scripted::Scripted::from_options(options)?)),
            Self::Replay => Ok(Arc::new(replay::Replay::from_options(options)?)),
        }
    }
}
