//! Runs any agent that speaks the Agent Client Protocol (<https://agentclientprotocol.com>, version 1) on its stdin and stdout:
//! `opencode acp`, `kilo acp`, `claude-code-acp`, `gemini --experimental-acp`.
//!
//! What the agent says becomes messages and parts in the shape of agent servers (`conversation`), so that everything
//! after the wrapper is the same for all agents. It is given files (`files`) and terminals (`terminals`) of its work folder.
//! The messages' types are read leniently by hand: the official crate's types drop fields they do not know, and it turns on a
//! feature of `serde_json` that changes every map in the workspace.
//!
//! | ACP | here |
//! |---|---|
//! | `agent_message_chunk`, `agent_thought_chunk` | a text or reasoning part that streams; another `messageId` begins another message |
//! | `tool_call`, `tool_call_update` | a tool part; `diff` contents are its diff, `terminal` contents its output |
//! | `plan` | `todo.updated` |
//! | `session/request_permission` | `permission.asked`; once, always, reject choose `allow_once`, `allow_always`, `reject_once` |
//! | `usage_update`, the turn's `usage` | tokens and cost of the message |
//! | the answer to `session/prompt` | the end of the turn; `cancelled` is an abort, a refusal and an error are one |
//! | a cost in another currency than dollars | an event `acp.usage_update` with it, and no cost of the message |
//! | text, thoughts, tools, permissions outside of a turn | a message that is complete from its beginning, which opens no turn |
//! | any other update | an event `acp.<update>` with it |
//!
//! What it cannot: take files back (ACP has no such thing), take a second prompt while one is answered (it waits until the turn is
//! over).

mod content;
mod conversation;
mod driver;
mod files;
mod handshake;
mod pipe;
mod rpc;
mod terminals;
mod tool;

use std::{
    collections::BTreeMap,
    ffi::OsString,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use protocol::{agent::Failed, frame::RuntimeInfo};
use serde_json::json;
use tokio::{sync::mpsc, task::JoinSet, time::timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::{
    conversation::Conversation,
    driver::{Driver, Open},
    handshake::{Ready, shake_hands},
    pipe::Pipe,
    terminals::Terminals,
};
use super::{
    AgentRuntime, RunningAgent, SIGNALS, Start,
    control::Control,
    exposed, failed, mcp,
    process::{AgentProcess, Launch},
    record::Record,
};
use crate::{Options, OptionsError};

/// How long an agent may take until its session is there: one that is started by npx, on a busy machine.
const START_DEADLINE: Duration = Duration::from_secs(90);

/// What the guard leaves the agent between TERM and KILL.
const GRACE: Duration = Duration::from_secs(3);

/// News of terminals that may wait for the driver.
const WAITING: usize = 64;

/// Runs an ACP agent.
#[derive(Debug)]
pub struct Acp {
    command: Vec<OsString>,
    guard: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
    mcp_servers: Option<PathBuf>,
}

impl Acp {
    /// The agent that this command runs, under the guard that that one runs (its words; the guard's arguments are appended).
    #[must_use]
    pub fn new(command: Vec<OsString>, guard: Vec<OsString>) -> Self {
        Self { command, guard, environment: Vec::new(), mcp_servers: None }
    }

    /// From a wrapper's options.
    ///
    /// # Errors
    /// When `--agent-command` is missing.
    pub fn from_options(options: &Options) -> Result<Self, OptionsError> {
        if options.agent_command.is_empty() {
            return Err(OptionsError::Missing { runtime: "acp", option: "--agent-command" });
        }
        let command = options.agent_command.iter().map(OsString::from).collect();
        let mcp_servers = options.mcp_servers.clone();
        Ok(Self { mcp_servers, ..Self::new(command, options.guard_command("acp")?) })
    }

    /// With this variable in the agent's environment, besides those of this process.
    #[must_use]
    pub fn with_env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// With the MCP servers in this file: a JSON array as `session/new` takes it.
    #[must_use]
    pub fn with_mcp_servers(self, file: impl Into<PathBuf>) -> Self {
        Self { mcp_servers: Some(file.into()), ..self }
    }
}

#[async_trait]
impl AgentRuntime for Acp {
    fn name(&self) -> &'static str {
        "acp"
    }

    async fn start(&self, start: Start) -> Result<RunningAgent, Failed> {
        let folder = start.directory.canonicalize().map_err(|error| {
            failed(format!("the work folder {} cannot be used: {error}", start.directory.display()))
        })?;
        let servers = json!(mcp::read(self.mcp_servers.as_deref()).await?);
        Record::end_what_is_left(&start.state_dir, GRACE).await;
        let fifo = start.state_dir.join("agent-stdin");
        let (stdin, mut pipe) = Pipe::open(&fifo)
            .map_err(|error| failed(format!("{} cannot be made: {error}", fifo.display())))?;
        let environment = self.environment_with(&start);
        let launch = Launch {
            guard: &self.guard,
            command: &self.command,
            stdin: Some(&fifo),
            directory: &folder,
            environment: &environment,
            grace: GRACE,
        };
        let mut process = AgentProcess::start(&launch, |stdout| pipe.read(stdout))?;
        let gone = process.gone();
        let tasks = TaskTracker::new();
        tasks.spawn(stdin.write());
        let name = self.command.first().map_or_else(String::new, |word| {
            Path::new(word).file_name().unwrap_or(word).to_string_lossy().into_owned()
        });
        let ready = tokio::select! {
            ready = timeout(START_DEADLINE, shake_hands(&mut pipe, &folder, &servers, start.resume.as_deref())) => {
                ready.unwrap_or_else(|_| Err(format!("it was not ready within {} s", START_DEADLINE.as_secs())))
            }
            () = gone.cancelled() => Err("it ended before it was ready".to_owned()),
        };
        match ready {
            Ok(ready) => {
                process.find_agent();
                Ok(self.run(ready, process, pipe, &folder, &start, &tasks))
            }
            Err(why) => {
                process.stop().await;
                Err(process.failed(format!("the ACP agent {name}: {why}")))
            }
        }
    }
}

impl Acp {
    /// The agent's environment, besides this process's own.
    fn environment_with(&self, start: &Start) -> Vec<(OsString, OsString)> {
        self.environment.iter().cloned().chain(exposed(&start.env)).collect()
    }

    fn run(
        &self,
        ready: Ready,
        process: AgentProcess,
        pipe: Pipe,
        folder: &Path,
        start: &Start,
        tasks: &TaskTracker,
    ) -> RunningAgent {
        let Ready { info, session, resumed, settings, can } = ready;
        let record = Record::write(&start.state_dir, &process, &session, &json!({}));
        let (signals, receiver) = mpsc::channel(SIGNALS);
        let last = signals.clone().try_reserve_owned().expect("nothing was sent yet");
        let (news, newspaper) = mpsc::channel(WAITING);
        let stop = CancellationToken::new();
        let (control, inbox) = Control::new(stop.clone(), tasks.clone());
        let directory = folder.display().to_string();
        let agent = info.clone();
        let mut conversation =
            Conversation::new(rand::random(), start.clock.timestamp(), &session, &directory, &agent, resumed);
        if let Some(model) = settings.model() {
            conversation.model(model);
        }
        let driver = Driver {
            conversation,
            clock: start.clock,
            session: session.clone(),
            folder: folder.to_owned(),
            settings,
            can,
            pipe,
            terminals: Terminals::new(self.guard.clone(), folder, self.environment_with(start), news),
            process,
            signals,
            stop,
            open: Open::default(),
            pause: None,
            files: JoinSet::new(),
        };
        tasks.spawn(driver.run(inbox, newspaper, last, record));
        tasks.close();
        RunningAgent {
            info: RuntimeInfo { name: "acp".to_owned(), version: info },
            session,
            resumed,
            context_limits: BTreeMap::new(),
            signals: receiver,
            control: Arc::new(control),
        }
    }
}
