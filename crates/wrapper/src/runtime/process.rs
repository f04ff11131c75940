//! An agent's process under its guard.

use std::{
    ffi::OsString,
    io,
    path::Path,
    process::{ExitStatus, Stdio},
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};

use protocol::agent::Failed;
use tokio::{
    process::{Child, ChildStdin, ChildStdout, Command},
    task::JoinSet,
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    failed,
    output::{self, Tail},
};
use crate::process_tree::{Process, Tree};

/// How much longer than its grace a guard may take, before it is killed and its work is done here.
const GUARD_SLACK: Duration = Duration::from_secs(10);

/// How long the last output may take to be read when all its writers are gone.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// How an agent is started.
#[derive(Debug)]
pub(super) struct Launch<'a> {
    /// The guard's command; its arguments are appended.
    pub(super) guard: &'a [OsString],
    /// The agent's command.
    pub(super) command: &'a [OsString],
    /// A FIFO that is to be the agent's stdin; without it, it has none.
    pub(super) stdin: Option<&'a Path>,
    pub(super) directory: &'a Path,
    /// Variables besides those of this process.
    pub(super) environment: &'a [(OsString, OsString)],
    /// What the guard leaves the agent between TERM and KILL.
    pub(super) grace: Duration,
}

/// An agent's process that was started. Dropping it ends it, without waiting.
#[derive(Debug)]
pub(super) struct AgentProcess {
    /// The guard ends the tree when this closes.
    lifeline: Option<ChildStdin>,
    guard_pid: i32,
    agent: Arc<OnceLock<Process>>,
    mark: String,
    grace: Duration,
    stderr: Arc<Mutex<Tail>>,
    status: Arc<OnceLock<ExitStatus>>,
    gone: CancellationToken,
    kill: CancellationToken,
    tasks: TaskTracker,
}

impl AgentProcess {
    /// Starts it. `read` reads what it writes to stdout, to its end.
    pub(super) fn start<R>(launch: &Launch<'_>, read: impl FnOnce(ChildStdout) -> R) -> Result<Self, Failed>
    where
        R: Future<Output = io::Result<()>> + Send + 'static,
    {
        let mark = uuid::Uuid::new_v4().simple().to_string();
        let mut child = command(launch, &mark)?.spawn().map_err(|error| {
            failed(format!("the guard {} cannot be started: {error}", launch.guard[0].display()))
        })?;
        let mut pipes = JoinSet::new();
        pipes.spawn(read(child.stdout.take().expect("stdout is piped")));
        let process = Self {
            lifeline: child.stdin.take(),
            guard_pid: child.id().map_or(0, u32::cast_signed),
            agent: Arc::default(),
            mark,
            grace: launch.grace,
            stderr: Arc::default(),
            status: Arc::default(),
            gone: CancellationToken::new(),
            kill: CancellationToken::new(),
            tasks: TaskTracker::new(),
        };
        process.tasks.spawn(Watch::new(&process, child, pipes).run());
        process.tasks.close();
        Ok(process)
    }

    /// Remembers which process the agent's own is, once it has shown that it runs.
    pub(super) fn find_agent(&self) {
        if let Some(agent) = Process::find(self.guard_pid).and_then(Process::first_child) {
            // The first one found stays.
            let _ = self.agent.set(agent);
        }
    }

    /// Cancelled when the agent and everything it began are gone.
    pub(super) fn gone(&self) -> CancellationToken {
        self.gone.clone()
    }

    pub(super) fn guard_pid(&self) -> i32 {
        self.guard_pid
    }

    /// The agent's own pid, if it was [found](Self::find_agent).
    pub(super) fn pid(&self) -> Option<i32> {
        self.agent.get().map(|agent| agent.pid())
    }

    pub(super) fn mark(&self) -> &str {
        &self.mark
    }

    /// Begins to end it.
    pub(super) fn end(&mut self) {
        drop(self.lifeline.take());
    }

    /// Ends it, if it still runs, and waits until it is gone with everything it began.
    pub(super) async fn stop(&mut self) {
        self.end();
        if timeout(self.grace * 2 + GUARD_SLACK, self.gone.cancelled()).await.is_err() {
            tracing::warn!(pid = self.guard_pid, "the guard does not end: it is killed");
            self.kill.cancel();
        }
        self.tasks.wait().await;
    }

    /// The agent's exit code, as its guard passed it on: 128 and the signal's number if one ended it.
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
        launch.guard.split_first().ok_or_else(|| failed("the guard's command is empty".to_owned()))?;
    let mut command = Command::new(program);
    command.args(words).args(["--grace-ms", &launch.grace.as_millis().to_string(), "--mark", mark]);
    if let Some(fifo) = launch.stdin {
        command.arg("--stdin").arg(fifo);
    }
    command.arg("--").args(launch.command);
    command.current_dir(launch.directory);
    // The wrapper's own variables hold its token, which is none of the agent's business.
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("GASTOWN_")) {
        command.env_remove(name);
    }
    command.envs(launch.environment.iter().map(|(name, value)| (name, value)));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    // A Ctrl-C in the wrapper's terminal is for the wrapper, which then ends the agent in order.
    command.process_group(0);
    Ok(command)
}

/// Reads what an agent says of its troubles and waits for its end.
struct Watch {
    child: Child,
    pipes: JoinSet<io::Result<()>>,
    agent: Arc<OnceLock<Process>>,
    mark: String,
    grace: Duration,
    stderr: Arc<Mutex<Tail>>,
    status: Arc<OnceLock<ExitStatus>>,
    gone: CancellationToken,
    kill: CancellationToken,
}

impl Watch {
    fn new(process: &AgentProcess, child: Child, pipes: JoinSet<io::Result<()>>) -> Self {
        Self {
            child,
            pipes,
            agent: process.agent.clone(),
            mark: process.mark.clone(),
            grace: process.grace,
            stderr: process.stderr.clone(),
            status: process.status.clone(),
            gone: process.gone.clone(),
            kill: process.kill.clone(),
        }
    }

    async fn run(mut self) {
        let stderr = self.child.stderr.take().expect("stderr is piped");
        let tail = self.stderr.clone();
        self.pipes.spawn(output::drain(stderr, move |line| {
            tracing::debug!(target: "agent", "{line}");
            tail.lock().unwrap_or_else(PoisonError::into_inner).push(line);
        }));
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
        Tree::new(self.agent.get().copied(), Some(self.mark)).end(self.grace).await;
        let read = async { while self.pipes.join_next().await.is_some() {} };
        if timeout(LAST_WORDS, read).await.is_err() {
            tracing::debug!("somebody outside the agent's tree holds its output open");
        }
        self.gone.cancel();
    }
}
