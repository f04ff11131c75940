//! The server's process under its guard.

use std::{
    ffi::OsString,
    path::Path,
    process::{ExitStatus, Stdio},
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};

use protocol::agent::Failed;
use tokio::{
    process::{Child, ChildStdin, Command},
    sync::oneshot,
    task::JoinSet,
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    Flavour,
    api::Login,
    output::{self, Tail},
};
use crate::process_tree::{Process, Tree};

/// How much longer than its grace a guard may take, before it is killed and its work is done here.
const GUARD_SLACK: Duration = Duration::from_secs(10);

/// How long the last output may take to be read when all its writers are gone.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// How a server is started.
pub(super) struct Launch<'a> {
    pub(super) guard: &'a [OsString],
    pub(super) flavour: Flavour,
    pub(super) binary: &'a Path,
    pub(super) directory: &'a Path,
    pub(super) environment: &'a [(OsString, OsString)],
    pub(super) login: &'a Login,
    pub(super) grace: Duration,
}

/// A server that was started. Dropping it ends it, without waiting.
#[derive(Debug)]
pub(super) struct ServerProcess {
    /// The guard ends the tree when this closes.
    lifeline: Option<ChildStdin>,
    guard_pid: i32,
    server: Arc<OnceLock<Process>>,
    mark: String,
    grace: Duration,
    listening: Option<oneshot::Receiver<String>>,
    stderr: Arc<Mutex<Tail>>,
    status: Arc<OnceLock<ExitStatus>>,
    gone: CancellationToken,
    kill: CancellationToken,
    tasks: TaskTracker,
}

impl ServerProcess {
    pub(super) fn start(launch: &Launch<'_>) -> Result<Self, Failed> {
        let mark = uuid::Uuid::new_v4().simple().to_string();
        let mut child = command(launch, &mark)?.spawn().map_err(|error| {
            super::failed(format!("the guard {} cannot be started: {error}", launch.guard[0].display()))
        })?;
        let (said, listening) = oneshot::channel();
        let process = Self {
            lifeline: child.stdin.take(),
            guard_pid: child.id().map_or(0, u32::cast_signed),
            server: Arc::default(),
            mark,
            grace: launch.grace,
            listening: Some(listening),
            stderr: Arc::default(),
            status: Arc::default(),
            gone: CancellationToken::new(),
            kill: CancellationToken::new(),
            tasks: TaskTracker::new(),
        };
        process.tasks.spawn(Watch::new(&process, child, said).run());
        process.tasks.close();
        Ok(process)
    }

    /// The URL, once the server says that it listens; nothing if it ends before.
    pub(super) async fn listening(&mut self) -> Option<String> {
        let url = self.listening.take()?.await.ok()?;
        if let Some(server) = Process::find(self.guard_pid).and_then(Process::first_child) {
            // Set once: this is called once.
            let _ = self.server.set(server);
        }
        Some(url)
    }

    /// Cancelled when the server and everything it began are gone.
    pub(super) fn gone(&self) -> CancellationToken {
        self.gone.clone()
    }

    pub(super) fn guard_pid(&self) -> i32 {
        self.guard_pid
    }

    /// The server's own pid, known from when it listens.
    pub(super) fn pid(&self) -> Option<i32> {
        self.server.get().map(|server| server.pid())
    }

    pub(super) fn mark(&self) -> &str {
        &self.mark
    }

    /// Ends it, if it still runs, and waits until it is gone with everything it began.
    pub(super) async fn stop(&mut self) {
        drop(self.lifeline.take());
        if timeout(self.grace * 2 + GUARD_SLACK, self.gone.cancelled()).await.is_err() {
            tracing::warn!(pid = self.guard_pid, "the guard does not end: it is killed");
            self.kill.cancel();
        }
        self.tasks.wait().await;
    }

    /// The server's exit code, as its guard passed it on: 128 and the signal's number if one ended it.
    pub(super) fn exit_code(&self) -> Option<i32> {
        use std::os::unix::process::ExitStatusExt as _;
        let status = self.status.get()?;
        status.code().or_else(|| status.signal().map(|signal| 128 + signal))
    }

    /// What `agent.failed` says of its end.
    pub(super) fn failed(&self, message: String) -> Failed {
        let stderr = self.stderr.lock().unwrap_or_else(PoisonError::into_inner).lines();
        Failed { message, exit_code: self.exit_code(), stderr }
    }
}

fn command(launch: &Launch<'_>, mark: &str) -> Result<Command, Failed> {
    let (program, words) =
        launch.guard.split_first().ok_or_else(|| super::failed("the guard's command is empty".to_owned()))?;
    let mut command = Command::new(program);
    command.args(words).args(["--grace-ms", &launch.grace.as_millis().to_string(), "--mark", mark, "--"]);
    command.arg(launch.binary).args(["serve", "--port", "0", "--hostname", "127.0.0.1"]);
    command.current_dir(launch.directory);
    // The wrapper's own variables hold its token, which is none of the agent's business.
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("GASTOWN_")) {
        command.env_remove(name);
    }
    for suffix in ["DISABLE_AUTOUPDATE", "ENABLE_QUESTION_TOOL"] {
        let name = launch.flavour.variable(suffix);
        if std::env::var_os(&name).is_none() {
            command.env(name, "1");
        }
    }
    command.envs(launch.environment.iter().map(|(name, value)| (name, value)));
    command.env(launch.flavour.variable("SERVER_USERNAME"), &launch.login.username);
    command.env(launch.flavour.variable("SERVER_PASSWORD"), &launch.login.password);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    // A Ctrl-C in the wrapper's terminal is for the wrapper, which then ends the agent in order.
    command.process_group(0);
    Ok(command)
}

/// Reads what a server writes and waits for its end.
struct Watch {
    child: Child,
    said: oneshot::Sender<String>,
    server: Arc<OnceLock<Process>>,
    mark: String,
    grace: Duration,
    stderr: Arc<Mutex<Tail>>,
    status: Arc<OnceLock<ExitStatus>>,
    gone: CancellationToken,
    kill: CancellationToken,
}

impl Watch {
    fn new(process: &ServerProcess, child: Child, said: oneshot::Sender<String>) -> Self {
        Self {
            child,
            said,
            server: process.server.clone(),
            mark: process.mark.clone(),
            grace: process.grace,
            stderr: process.stderr.clone(),
            status: process.status.clone(),
            gone: process.gone.clone(),
            kill: process.kill.clone(),
        }
    }

    async fn run(mut self) {
        let mut pipes = JoinSet::new();
        let mut said = Some(self.said);
        if let Some(stdout) = self.child.stdout.take() {
            pipes.spawn(output::drain(stdout, move |line| {
                if let Some(url) = output::listening(&line)
                    && let Some(said) = said.take()
                {
                    // Nobody waits any more when the start was given up.
                    let _ = said.send(url);
                }
                tracing::debug!(target: "agent", "{line}");
            }));
        }
        if let Some(stderr) = self.child.stderr.take() {
            let tail = self.stderr.clone();
            pipes.spawn(output::drain(stderr, move |line| {
                tracing::debug!(target: "agent", "{line}");
                tail.lock().unwrap_or_else(PoisonError::into_inner).push(line);
            }));
        }
        let status = tokio::select! {
            status = self.child.wait() => status,
            () = self.kill.cancelled() => {
                let _ = self.child.start_kill();
                self.child.wait().await
            }
        };
        if let Ok(status) = status {
            let _ = self.status.set(status);
        }
        // After a guard that did its work there is nobody; after one that was killed this does it.
        Tree::new(self.server.get().copied(), Some(self.mark)).end(self.grace).await;
        let read = async { while pipes.join_next().await.is_some() {} };
        if timeout(LAST_WORDS, read).await.is_err() {
            tracing::debug!("somebody outside the agent's tree holds its output open");
        }
        self.gone.cancel();
    }
}
