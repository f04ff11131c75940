//! Runs `opencode serve` or `kilo serve`: its process, its HTTP API, its event stream.
//!
//! The two servers speak one API; a [`Flavour`] holds what differs. What this does not do: it keeps no view of the session and
//! decides nothing about its events, which go on as the server made them.
//!
//! While the server runs, `<state-dir>/agent-server.json` (mode 0600) says where it is and how to log in, for an operator who wants
//! to attach to it: `{"url", "username", "password", "pid", "guard_pid", "session", "mark"}`.

mod api;
mod commands;
mod flavour;
mod follow;
mod health;
mod patience;
mod server_state;

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use protocol::{agent::Failed, frame::RuntimeInfo};
use serde_json::{Value, json};
use tokio::{
    sync::{Notify, mpsc, oneshot},
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::{
    api::{Api, ApiError, EventStream, Login},
    commands::Control,
    follow::{Follow, Over},
    health::Health,
};
use super::{
    AgentRuntime, Ended, RunningAgent, SIGNALS, ServerState, Signal, Start, exposed, failed, mcp, output,
    process::{AgentProcess, Launch},
    record::Record,
};
use crate::{Options, OptionsError, redact::Redactor};

pub use self::{flavour::Flavour, patience::Patience};

/// What the guard leaves the server between TERM and KILL.
const GRACE: Duration = Duration::from_secs(3);

/// How long a server that is told to end is heard: it is gone by then.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// Between two tries of a server that listens but does not answer yet.
const READY_RETRY: Duration = Duration::from_millis(100);
/// Models whose windows are told on: a provider lists hundreds.
const CONTEXT_LIMITS: usize = 256;

/// Runs an agent server of one flavour.
#[derive(Debug)]
pub struct AgentServer {
    flavour: Flavour,
    binary: Option<PathBuf>,
    guard: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
    mcp_servers: Option<PathBuf>,
    /// What is said nowhere: its password too.
    secrets: Redactor,
    patience: Patience,
}

impl AgentServer {
    /// A server from `PATH`, under the guard that this command runs (its words; the guard's arguments are appended).
    #[must_use]
    pub fn new(flavour: Flavour, guard: Vec<OsString>) -> Self {
        let (environment, patience) = (Vec::new(), Patience::default());
        Self {
            flavour,
            binary: None,
            guard,
            environment,
            mcp_servers: None,
            secrets: Redactor::default(),
            patience,
        }
    }

    /// From a wrapper's options; the guard is this program's own `guard` subcommand, unless the options name another.
    ///
    /// # Errors
    /// When this program's own path cannot be found out.
    pub fn from_options(flavour: Flavour, options: &Options) -> Result<Self, OptionsError> {
        let guard = options.guard_command(flavour.name())?;
        let (binary, mcp_servers) = (options.agent_bin.clone(), options.mcp_servers.clone());
        let secrets = options.log.secrets().clone();
        Ok(Self { binary, mcp_servers, secrets, ..Self::new(flavour, guard) })
    }

    /// With this binary, or the one in the `node_modules` of this folder.
    #[must_use]
    pub fn with_binary(self, binary: impl Into<PathBuf>) -> Self {
        Self { binary: Some(binary.into()), ..self }
    }

    /// With this variable in the server's environment, besides those of this process.
    #[must_use]
    pub fn with_env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// With the MCP servers in this file: a JSON array as the Agent Client Protocol's `session/new` takes it.
    #[must_use]
    pub fn with_mcp_servers(self, file: impl Into<PathBuf>) -> Self {
        Self { mcp_servers: Some(file.into()), ..self }
    }

    /// With this patience.
    #[must_use]
    pub fn with_patience(self, patience: Patience) -> Self {
        Self { patience, ..self }
    }

    /// A variable of the server's environment.
    fn variable(&self, name: &str) -> Option<String> {
        let own = self.environment.iter().rev().find(|(key, _)| key == name).map(|(_, value)| value.clone());
        own.or_else(|| std::env::var_os(name))?.into_string().ok().filter(|value| !value.is_empty())
    }

    /// The server's environment, besides this process's own.
    fn environment_with(&self, start: &Start, login: &Login) -> Vec<(OsString, OsString)> {
        let mut environment: Vec<(OsString, OsString)> = ["DISABLE_AUTOUPDATE", "ENABLE_QUESTION_TOOL"]
            .map(|suffix| self.flavour.variable(suffix))
            .into_iter()
            .filter(|name| std::env::var_os(name).is_none())
            .map(|name| (name.into(), "1".into()))
            .collect();
        environment.extend(self.environment.iter().cloned());
        environment.extend(exposed(&start.env));
        environment.push((self.flavour.variable("SERVER_USERNAME").into(), login.username.clone().into()));
        environment.push((self.flavour.variable("SERVER_PASSWORD").into(), login.password.clone().into()));
        environment
    }

    fn login(&self) -> Login {
        let variable = |suffix: &str| self.variable(&self.flavour.variable(suffix));
        Login {
            username: variable("SERVER_USERNAME").unwrap_or_else(|| self.flavour.name().to_owned()),
            password: variable("SERVER_PASSWORD")
                .unwrap_or_else(|| uuid::Uuid::new_v4().simple().to_string()),
        }
    }
}

#[async_trait]
impl AgentRuntime for AgentServer {
    fn name(&self) -> &'static str {
        self.flavour.name()
    }

    async fn start(&self, start: Start) -> Result<RunningAgent, Failed> {
        let binary = self.flavour.find_binary(self.binary.as_deref(), self.variable("PATH").as_deref())?;
        let directory = start.directory.canonicalize().map_err(|error| {
            failed(format!("the work folder {} cannot be used: {error}", start.directory.display()))
        })?;
        let mcp_servers = mcp::read(self.mcp_servers.as_deref()).await?;
        let mcp_servers: Result<Vec<Value>, String> = mcp_servers.iter().map(mcp::for_agent_server).collect();
        let mcp_servers = mcp_servers.map_err(|why| failed(format!("the MCP servers: {why}")))?;
        Record::end_what_is_left(&start.state_dir, GRACE).await;
        let login = self.login();
        self.secrets.hide(&login.password);
        let command = [
            binary.as_os_str(),
            "serve".as_ref(),
            "--port".as_ref(),
            "0".as_ref(),
            "--hostname".as_ref(),
            "127.0.0.1".as_ref(),
        ]
        .map(OsStr::to_owned);
        let (said, listening) = oneshot::channel();
        let launch = Launch {
            guard: &self.guard,
            command: &command,
            stdin: None,
            directory: &directory,
            environment: &self.environment_with(&start, &login),
            grace: GRACE,
        };
        let mut process = AgentProcess::start(&launch, |stdout| output::drain(stdout, tell_url(said)))?;
        match self
            .make_ready(&process, listening, &directory, login, mcp_servers, start.resume.as_deref())
            .await
        {
            Ok(ready) => Ok(self.run(ready, process, &start)),
            Err(message) => {
                process.stop().await;
                Err(process.failed(message))
            }
        }
    }
}

/// A server whose session is there and whose events are followed.
struct Ready {
    api: Api,
    url: String,
    login: Login,
    version: String,
    stream: EventStream,
    session: String,
    resumed: bool,
    /// What it says of a session that goes on.
    state: Option<ServerState>,
    context_limits: BTreeMap<String, u64>,
}

impl AgentServer {
    /// Waits until the server takes prompts. The error says what it did not do in time.
    async fn make_ready(
        &self,
        process: &AgentProcess,
        listening: oneshot::Receiver<String>,
        directory: &std::path::Path,
        login: Login,
        mcp_servers: Vec<Value>,
        resume: Option<&str>,
    ) -> Result<Ready, String> {
        let name = self.flavour.name();
        let Patience { listen, health, answer, session: opened, .. } = self.patience;
        let gone = process.gone();
        let ready = async {
            let url = within(listen, listening)
                .await
                .map_err(|late| format!("{name} did not say where it listens {late}"))?
                .map_err(|_| format!("{name} ended before it listened"))?;
            process.find_agent();
            let api = Api::new(&url, &login, directory).map_err(|error| error.to_string())?;
            let version = healthy(&api, health).await.map_err(|why| format!("{name} {why}"))?;
            let no_events = |why: String| format!("{name} gives no events: {why}");
            let stream = within(answer, api.subscribe())
                .await
                .map_err(|late| no_events(format!("the stream did not begin {late}")))?
                .map_err(|error| no_events(error.to_string()))?;
            connect_mcp_servers(&api, &mcp_servers).await;
            let no_session = |why: String| format!("{name} gives no session: {why}");
            let (session, resumed) = within(opened, open_session(&api, resume))
                .await
                .map_err(|late| no_session(format!("there was none {late}")))?
                .map_err(|error| no_session(error.to_string()))?;
            // What it stored while nobody followed it: it may have been killed in the middle of a turn.
            let state = if resumed {
                let state = within(opened, server_state::fetch(&api, self.flavour, &session))
                    .await
                    .map_err(|late| no_session(format!("its messages did not come {late}")))?;
                Some(state.map_err(|error| no_session(error.to_string()))?)
            } else {
                None
            };
            // A server that does not tell them is no worse for it.
            let context_limits = within(answer, context_limits(&api)).await.unwrap_or_default();
            Ok(Ready { api, url, login, version, stream, session, resumed, state, context_limits })
        };
        tokio::select! {
            ready = ready => ready,
            () = gone.cancelled() => Err(format!("{name} ended before it was ready")),
        }
    }

    fn run(&self, ready: Ready, process: AgentProcess, start: &Start) -> RunningAgent {
        let Ready { api, url, login, version, stream, session, resumed, state, context_limits } = ready;
        let reach = json!({ "url": url, "username": login.username, "password": login.password });
        let record = Record::write(&start.state_dir, &process, &session, &reach);
        let (signals, receiver) = mpsc::channel(SIGNALS);
        let stop = CancellationToken::new();
        let tasks = TaskTracker::new();
        let again = Arc::new(Notify::new());
        let follow = Follow {
            api: api.clone(),
            flavour: self.flavour,
            session: session.clone(),
            signals: signals.clone(),
            clock: start.clock,
            health: Health::new(start.clock.now(), self.patience),
            gone: process.gone(),
            again: again.clone(),
        };
        if let Some(state) = state {
            signals.try_send(Signal::CaughtUp(Box::new(state))).expect("nothing was sent yet");
        }
        let later = signals.downgrade();
        let last = signals.try_reserve_owned().expect("there is room for more than one");
        tasks.spawn(drive(self.flavour.name(), follow, stream, last, process, record, stop.clone()));
        let info = RuntimeInfo { name: self.flavour.name().to_owned(), version };
        let control = Arc::new(Control {
            api,
            flavour: self.flavour,
            session: session.clone(),
            stop,
            tasks,
            signals: later,
            at_once: self.patience.at_once,
            again,
        });
        RunningAgent { info, session, resumed, context_limits, signals: receiver, control }
    }
}

/// Gives the server its MCP servers. One that does not come up is told of in the log, and the agent goes without it, as it does with
/// those of its own configuration.
async fn connect_mcp_servers(api: &Api, servers: &[Value]) {
    for server in servers {
        let name = &server["name"];
        match api.post(&["mcp"], server).await {
            Ok(answer) => {
                let status =
                    name.as_str().map(|name| &answer[name]).filter(|status| status["status"] != "connected");
                if let Some(status) = status {
                    tracing::warn!(%name, %status, "an MCP server is not connected");
                }
            }
            Err(error) => tracing::warn!(%name, %error, "the agent server does not take an MCP server"),
        }
    }
}

/// The windows of the models that the server is set up with. The answer has the providers' keys in it as well: nothing
/// but these numbers is taken from it. A server that does not say so is no worse for it.
async fn context_limits(api: &Api) -> BTreeMap<String, u64> {
    let Ok(answer) = api.get(&["config", "providers"]).await else { return BTreeMap::new() };
    let providers = answer["providers"].as_array().map(Vec::as_slice).unwrap_or_default();
    let models = providers.iter().filter_map(|provider| provider["models"].as_object()).flatten();
    let limits = models.filter_map(|(id, model)| Some((id.clone(), model["limit"]["context"].as_u64()?)));
    limits.filter(|(_, limit)| *limit > 0).take(CONTEXT_LIMITS).collect()
}

/// Follows the events until the server is gone, hangs or is to go, and sees to its end.
async fn drive(
    name: &'static str,
    follow: Follow,
    stream: EventStream,
    // Room for the last signal, so that the end never waits for a wrapper that does not read.
    last: mpsc::OwnedPermit<Signal>,
    mut process: AgentProcess,
    record: Option<Record>,
    stop: CancellationToken,
) {
    let following = follow.run(stream);
    tokio::pin!(following);
    let died = tokio::select! {
        biased;
        () = stop.cancelled() => {
            // A server that is told to end closes its turn itself, and says so.
            let last_words = timeout(LAST_WORDS, &mut following);
            let _ = tokio::join!(process.stop(), last_words);
            None
        }
        (over, health) = &mut following => match over {
            Over::Gone => Some("the agent server died".to_owned()),
            Over::Hung => Some(health.verdict(name)),
            Over::Unheard => None,
        },
    };
    process.stop().await;
    drop(record);
    let ended = match died {
        Some(why) => Ended::Died(process.failed(why)),
        None => Ended::Exited { reason: "stopped".to_owned(), code: process.exit_code() },
    };
    last.send(Signal::Ended(ended));
}

/// Says where a server listens, as soon as it says so itself.
fn tell_url(said: oneshot::Sender<String>) -> impl FnMut(String) + Send {
    let mut said = Some(said);
    move |line| {
        if let Some(url) = output::listening(&line)
            && let Some(said) = said.take()
        {
            // Nobody waits any more when the start was given up.
            let _ = said.send(url);
        }
        tracing::debug!(target: "agent", "{line}");
    }
}

/// Waits until the server says that it is well. Returns its version; the error says what it said last.
async fn healthy(api: &Api, limit: Duration) -> Result<String, String> {
    let mut last = "it did not answer".to_owned();
    let asked = within(limit, async {
        loop {
            match api.health().await {
                Ok(version) => return version,
                Err(error) => last = error.to_string(),
            }
            sleep(READY_RETRY).await;
        }
    })
    .await;
    asked.map_err(|late| format!("listens, but did not say that it is well {late}: {last}"))
}

/// What comes of it; the error says how long that took, as the end of a sentence.
async fn within<F: Future>(limit: Duration, doing: F) -> Result<F::Output, String> {
    timeout(limit, doing).await.map_err(|_| format!("within {} s", limit.as_secs_f32()))
}

/// The session to go on with, if the server still has it, else a new one; and whether it was there.
async fn open_session(api: &Api, resume: Option<&str>) -> Result<(String, bool), ApiError> {
    if let Some(id) = resume {
        match api.get(&["session", id]).await {
            // Events come by folder: a session of another one would stay silent.
            Ok(session) if session["directory"] == api.directory() => return Ok((id.to_owned(), true)),
            Ok(_) => {
                tracing::warn!(session = id, "the session belongs to another folder: a new one is begun")
            }
            Err(ApiError::Status { status: 400 | 404, .. }) => {
                tracing::warn!(session = id, "the session is not there any more: a new one is begun");
            }
            Err(error) => return Err(error),
        }
    }
    let session = api.post(&["session"], &json!({})).await?;
    let id = session["id"].as_str().ok_or(ApiError::Shape { what: "a session without an id" })?;
    Ok((id.to_owned(), false))
}
