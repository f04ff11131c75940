//! Wrappers as child processes on this machine.

use std::{
    ffi::OsString,
    fs::{File, OpenOptions},
    io::{self, Read as _, Seek as _, SeekFrom},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use async_trait::async_trait;
use protocol::AgentId;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open, pidfd_send_signal};
use tokio::{io::unix::AsyncFd, process::Child};
use town::WrapperExit;

use super::{
    Adoption, LaunchError, LaunchSpec, Launcher, WrapperProcess,
    lock::{Attempt, Holder, Lock},
};
use crate::limits::{LAST_WORDS_BYTES, LAST_WORDS_CHARS, WRAPPER_LOG_BYTES};

/// How long an older wrapper of the same agent may take to end, before and after it is killed.
const OUST_GRACE: Duration = Duration::from_secs(10);

/// Runs wrappers as child processes: a process group of their own (Ctrl-C in the terminal reaches the worker only, which
/// ends them in order), the token in the environment, output appended to `<agents>/<id>/wrapper.log`.
#[derive(Debug, Clone)]
pub struct LocalLauncher {
    command: Vec<OsString>,
    agents: PathBuf,
    /// The mirrors of the repositories that agents work on.
    rigs: PathBuf,
}

impl LocalLauncher {
    /// Wrappers of this command line (the options follow it), with their files below `agents`, and the mirrors of repositories in
    /// `rigs` beside it.
    ///
    /// # Panics
    /// When the command line is empty.
    #[must_use]
    pub fn new(command: Vec<OsString>, agents: PathBuf) -> Self {
        assert!(!command.is_empty(), "the wrapper command has at least a program");
        let rigs = agents.with_file_name("rigs");
        Self { command, agents, rigs }
    }

    fn folder(&self, agent: &AgentId) -> PathBuf {
        self.agents.join(agent.as_str())
    }

    fn command(&self, spec: &LaunchSpec, folder: &Path) -> tokio::process::Command {
        let mut command = tokio::process::Command::new(&self.command[0]);
        command.args(&self.command[1..]);
        command.args(arguments(spec, folder, &self.rigs));
        // The agent may need what is in the environment; the worker's own settings and credentials are not for it.
        for (name, _) in std::env::vars_os() {
            if name.as_encoded_bytes().starts_with(b"GASTOWN_") && name != "GASTOWN_LOG" {
                command.env_remove(name);
            }
        }
        command.env("GASTOWN_WRAPPER_TOKEN", spec.token.expose());
        if let Ok(config) = serde_json::to_string(&spec.config.seal()) {
            command.env("GASTOWN_TOWN_CONFIG", config);
        }
        command.process_group(0);
        command
    }

    /// Takes the agent's lock; a wrapper that has it is ended first.
    async fn take_lock(&self, agent: &AgentId) -> Result<Lock, LaunchError> {
        let path = self.folder(agent).join("wrapper.lock");
        let failed = |source| LaunchError::Folder { path: path.clone(), source };
        let attempt = Lock::attempt(&path).map_err(failed)?;
        let holder = match attempt {
            Attempt::Taken(lock) => return Ok(lock),
            Attempt::Held(holder) => holder,
        };
        if let Some(mut older) = holder.and_then(|holder| Adopted::open(holder, self.log_path(agent))) {
            tracing::warn!(%agent, pid = older.pid, "an older wrapper still runs: it is ended first");
            older.terminate().await;
            if tokio::time::timeout(OUST_GRACE, older.wait()).await.is_err() {
                older.kill().await;
                let _ = tokio::time::timeout(OUST_GRACE, older.wait()).await;
            }
        }
        match Lock::attempt(&path).map_err(failed)? {
            Attempt::Taken(lock) => Ok(lock),
            Attempt::Held(holder) => Err(LaunchError::Occupied {
                agent: agent.clone(),
                pid: holder.map_or(0, |holder| holder.pid),
            }),
        }
    }

    fn log_path(&self, agent: &AgentId) -> PathBuf {
        self.folder(agent).join("wrapper.log")
    }
}

#[async_trait]
impl Launcher for LocalLauncher {
    async fn launch(&self, spec: LaunchSpec) -> Result<Box<dyn WrapperProcess>, LaunchError> {
        let agent = &spec.agent.id;
        let folder = self.folder(agent);
        make_folder(&folder).map_err(|source| LaunchError::Folder { path: folder.clone(), source })?;
        let mut lock = self.take_lock(agent).await?;
        let log_path = self.log_path(agent);
        let in_log = |source| LaunchError::Folder { path: log_path.clone(), source };
        let log = open_log(&log_path).map_err(in_log)?;
        let mut command = self.command(&spec, &folder);
        command.stdin(Stdio::from(lock.share().map_err(in_log)?));
        command.stdout(Stdio::from(log.try_clone().map_err(in_log)?));
        command.stderr(Stdio::from(log));
        let child = command
            .spawn()
            .map_err(|source| LaunchError::Spawn { command: PathBuf::from(&self.command[0]), source })?;
        if let Some(pid) = child.id() {
            lock.name(Holder { pid, generation: spec.generation }).map_err(in_log)?;
        }
        Ok(Box::new(Spawned { child, log: log_path }))
    }

    async fn adopt(&self, agent: &AgentId, generation: u64) -> Adoption {
        match Lock::attempt(&self.folder(agent).join("wrapper.lock")) {
            Ok(Attempt::Taken(_)) => Adoption::Gone,
            Ok(Attempt::Held(Some(holder))) if holder.generation == generation => {
                match Adopted::open(holder, self.log_path(agent)) {
                    Some(adopted) => Adoption::Found(Box::new(adopted)),
                    None => Adoption::Gone,
                }
            }
            // Another generation: the launch of the next one ends it.
            Ok(Attempt::Held(_)) => Adoption::Gone,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Adoption::Gone,
            Err(error) => {
                tracing::warn!(%agent, %error, "the wrapper's lock cannot be read");
                Adoption::Unknown
            }
        }
    }

    async fn forget(&self, agent: &AgentId) -> io::Result<()> {
        match tokio::fs::remove_dir_all(self.folder(agent)).await {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }
}

/// A wrapper that this worker made.
#[derive(Debug)]
struct Spawned {
    child: Child,
    log: PathBuf,
}

#[async_trait]
impl WrapperProcess for Spawned {
    async fn wait(&mut self) -> WrapperExit {
        match self.child.wait().await {
            Ok(status) => meaning(status, &self.log),
            Err(error) => WrapperExit::Crashed { reason: format!("its end could not be learnt: {error}") },
        }
    }

    async fn terminate(&mut self) {
        // The id is gone once the child was waited for, so that no other process can be hit.
        if let Some(pid) = self.child.id().and_then(as_pid) {
            let _ = kill_process(pid, Signal::TERM);
        }
    }

    async fn kill(&mut self) {
        let _ = self.child.start_kill();
    }
}

/// A wrapper that an earlier worker made: no child of this process, so that its exit code cannot be learnt.
#[derive(Debug)]
struct Adopted {
    pid: u32,
    process: AsyncFd<rustix::fd::OwnedFd>,
    log: PathBuf,
}

impl Adopted {
    /// `None` if it has ended meanwhile.
    fn open(holder: Holder, log: PathBuf) -> Option<Self> {
        let process = pidfd_open(as_pid(holder.pid)?, PidfdFlags::empty()).ok()?;
        // Whether the process behind the descriptor is the wrapper: it is, as long as the lock is still held.
        let lock = log.with_file_name("wrapper.lock");
        match Lock::attempt(&lock) {
            Ok(Attempt::Held(Some(still))) if still == holder => {}
            Ok(_) | Err(_) => return None,
        }
        #[expect(
            deprecated,
            reason = "its successor is unsafe for what is no owned descriptor, and this is one"
        )]
        let process = AsyncFd::new(process).ok()?;
        Some(Self { pid: holder.pid, process, log })
    }
}

#[async_trait]
impl WrapperProcess for Adopted {
    async fn wait(&mut self) -> WrapperExit {
        // A pidfd becomes readable when its process ends, and stays so.
        let _ = self.process.readable().await;
        let words = last_words(&self.log).unwrap_or_default();
        WrapperExit::Crashed {
            reason: format!("it ended, with a code only its earlier worker could learn{words}"),
        }
    }

    async fn terminate(&mut self) {
        let _ = pidfd_send_signal(self.process.get_ref(), Signal::TERM);
    }

    async fn kill(&mut self) {
        let _ = pidfd_send_signal(self.process.get_ref(), Signal::KILL);
    }
}

/// The options of a wrapper (`docs/protocol.md` §10).
fn arguments(spec: &LaunchSpec, folder: &Path, rigs: &Path) -> Vec<OsString> {
    let agent = &spec.agent;
    let mut arguments: Vec<OsString> = Vec::new();
    let mut option = |name: &str, value: &std::ffi::OsStr| {
        arguments.push(name.into());
        arguments.push(value.into());
    };
    option("--town", spec.town.as_str().as_ref());
    option("--agent", agent.id.as_str().as_ref());
    option("--generation", spec.generation.to_string().as_ref());
    option("--relay", spec.relay.as_ref());
    option("--runtime", agent.runtime.kind.as_str().as_ref());
    option("--dir", agent.directory.as_ref());
    option("--state-dir", folder.as_os_str());
    let runtime = &agent.runtime;
    for (name, value) in [
        ("--agent-bin", &runtime.agent_bin),
        ("--mcp-servers", &runtime.mcp_servers),
        ("--scenario", &runtime.scenario),
        ("--recording", &runtime.recording),
        ("--speed", &runtime.speed),
    ] {
        if let Some(value) = value {
            option(name, value.as_ref());
        }
    }
    if let Some(repository) = &agent.repository {
        option("--git", repository.url.as_ref());
        // Agents of one repository share its mirror.
        option("--rigs", rigs.as_ref());
        for (name, value) in
            [("--base-branch", &repository.branch), ("--git-token-file", &repository.token_file)]
        {
            if let Some(value) = value {
                option(name, value.as_ref());
            }
        }
        // The branch is the agent's own, and what it commits is how its work gets out of its work tree.
        arguments.push("--auto-commit".into());
    }
    if runtime.repeat {
        arguments.push("--repeat".into());
    }
    if !runtime.command.is_empty() {
        arguments.push("--agent-command".into());
        arguments.extend(runtime.command.iter().map(OsString::from));
        arguments.push(";".into());
    }
    arguments
}

/// What a wrapper's exit code means.
fn meaning(status: ExitStatus, log: &Path) -> WrapperExit {
    match status.code() {
        Some(exit_code::OK) => WrapperExit::Finished,
        Some(exit_code::SUPERSEDED) => WrapperExit::Superseded,
        Some(exit_code::USAGE | exit_code::AGENT_FAILED | exit_code::REFUSED) => {
            let words = last_words(log).unwrap_or_else(|| format!(": see {}", log.display()));
            WrapperExit::Unusable { reason: format!("the wrapper cannot run this agent{words}") }
        }
        Some(_) | None => {
            let words = last_words(log).unwrap_or_default();
            WrapperExit::Crashed { reason: format!("the wrapper ended with {status}{words}") }
        }
    }
}

/// The exit codes of a wrapper that mean more to its launcher than that it crashed.
mod exit_code {
    /// The agent ended, or it was told to stop.
    pub(super) const OK: i32 = 0;
    /// Its arguments are no good.
    pub(super) const USAGE: i32 = 2;
    /// The agent cannot be started, or failed too often: the wrapper has said why in the agent's log.
    pub(super) const AGENT_FAILED: i32 = 20;
    /// A newer generation has the agent.
    pub(super) const SUPERSEDED: i32 = 21;
    /// The relay refuses it for good.
    pub(super) const REFUSED: i32 = 22;
}

/// The last line of a log, for people who look at the town and not at files.
fn last_words(log: &Path) -> Option<String> {
    let mut file = File::open(log).ok()?;
    let len = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(len.saturating_sub(LAST_WORDS_BYTES))).ok()?;
    let mut end = Vec::new();
    file.take(LAST_WORDS_BYTES).read_to_end(&mut end).ok()?;
    let text = String::from_utf8_lossy(&end);
    let line = text.lines().rev().map(str::trim).find(|line| !line.is_empty())?;
    let words: String = line.chars().filter(|c| !c.is_control()).take(LAST_WORDS_CHARS).collect();
    Some(format!(": {words}"))
}

fn make_folder(folder: &Path) -> io::Result<()> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

/// Opens a wrapper's log to append to; one that has grown too long is set aside first.
fn open_log(path: &Path) -> io::Result<File> {
    if std::fs::metadata(path).is_ok_and(|log| log.len() > WRAPPER_LOG_BYTES) {
        std::fs::rename(path, path.with_extension("log.1"))?;
    }
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}

fn as_pid(pid: u32) -> Option<Pid> {
    i32::try_from(pid).ok().and_then(Pid::from_raw)
}
