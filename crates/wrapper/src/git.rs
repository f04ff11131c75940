//! Runs the system's `git`: each call is one process under a guard, with a time limit and bounded output.
//!
//! Hooks and helpers are whatever the repository says, and an agent may have written them. So nothing a call begins outlives it, or
//! this wrapper; nobody is asked for a password; variables of this process that would lead `git` elsewhere, or that hold a
//! credential, do not reach it. What this does not do: it decides nothing, and knows no repository by itself.

mod lock;
mod status;

use std::{
    ffi::{OsStr, OsString},
    io,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use protocol::AgentId;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _},
    process::{Child, Command},
    time::timeout,
};

pub(crate) use self::status::Status;
use crate::process_tree::Tree;

/// A call that asks nobody else: the status of a large work tree, a commit without hooks.
pub(crate) const LOCAL: Duration = Duration::from_secs(60);

/// What the guard leaves `git` and its hooks between TERM and KILL.
const GRACE: Duration = Duration::from_secs(1);
/// How much longer than its grace a guard may take, before it is killed and its work is done here.
const GUARD_SLACK: Duration = Duration::from_secs(5);
/// Bytes of an answer that are kept.
const ANSWER_BYTES: usize = 1 << 20;
/// Bytes of what is said on stderr that are kept.
const WORDS_BYTES: usize = 16 << 10;
/// Lines of it that an error tells, the last ones.
const WORDS_LINES: usize = 10;

/// Variables of git's own that reach it all the same: who commits, and how it connects.
const KEPT: &[&str] = &[
    "GIT_AUTHOR_EMAIL",
    "GIT_AUTHOR_NAME",
    "GIT_COMMITTER_EMAIL",
    "GIT_COMMITTER_NAME",
    "GIT_CONFIG_GLOBAL",
    "GIT_CONFIG_NOSYSTEM",
    "GIT_CONFIG_SYSTEM",
    "GIT_PROXY_COMMAND",
    "GIT_SSH",
    "GIT_SSH_COMMAND",
    "GIT_SSL_CAINFO",
    "GIT_SSL_CAPATH",
];

/// Settings of every call: no daemon is left behind, no program is run to look at files.
const SETTINGS: &[&str] =
    &["gc.auto=0", "maintenance.auto=false", "core.fsmonitor=false", "advice.detachedHead=false"];

/// `git` in one folder.
#[derive(Debug, Clone)]
pub(crate) struct Git {
    guard: Vec<OsString>,
    directory: PathBuf,
    settings: Vec<String>,
    environment: Vec<(OsString, OsString)>,
}

/// Why a call of `git` has no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum GitError {
    /// Its guard could not be started, or read from.
    #[error("git cannot be run")]
    Run {
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// It took too long, and was ended with all that it began.
    #[error("git {call} took longer than {} s", .limit.as_secs())]
    TimedOut {
        /// Its subcommand.
        call: String,
        /// What it was given.
        limit: Duration,
    },
    /// It said no.
    #[error("git {call} failed: {said}")]
    Failed {
        /// Its subcommand.
        call: String,
        /// Its exit code; 128 and the signal's number if one ended it.
        code: Option<i32>,
        /// The last lines that it said.
        said: String,
    },
}

impl Git {
    /// `git` in this folder, under the guard that this command runs (its words; the guard's arguments are appended).
    pub(crate) fn new(guard: Vec<OsString>, directory: impl Into<PathBuf>) -> Self {
        Self { guard, directory: directory.into(), settings: Vec::new(), environment: Vec::new() }
    }

    /// The same in another folder.
    pub(crate) fn at(&self, directory: impl Into<PathBuf>) -> Self {
        Self { directory: directory.into(), ..self.clone() }
    }

    /// The folder it works in.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// With this setting, `name=value`.
    pub(crate) fn with_setting(mut self, setting: impl Into<String>) -> Self {
        self.settings.push(setting.into());
        self
    }

    /// With this variable in its environment.
    pub(crate) fn with_env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// With commits in an agent's name.
    pub(crate) fn in_the_name_of(self, agent: &AgentId) -> Self {
        let email = format!("{agent}@gastown.invalid");
        self.with_env("GIT_AUTHOR_NAME", agent.as_str())
            .with_env("GIT_AUTHOR_EMAIL", &email)
            .with_env("GIT_COMMITTER_NAME", agent.as_str())
            .with_env("GIT_COMMITTER_EMAIL", &email)
    }

    /// Without the hooks of the repository.
    pub(crate) fn without_hooks(self) -> Self {
        self.with_setting("core.hooksPath=/dev/null")
    }

    /// Runs it and gives its answer, without the line's end. The first argument is the subcommand.
    ///
    /// # Errors
    /// When it fails, or takes longer than `limit`.
    pub(crate) async fn run<A: AsRef<OsStr>>(
        &self,
        limit: Duration,
        arguments: &[A],
    ) -> Result<String, GitError> {
        let answer = self.bytes(limit, arguments).await?;
        Ok(String::from_utf8_lossy(&answer).trim_end().to_owned())
    }

    /// The same where a failure is an answer too: there is no such thing.
    ///
    /// # Errors
    /// When it cannot be run, or takes too long.
    pub(crate) async fn find<A: AsRef<OsStr>>(&self, arguments: &[A]) -> Result<Option<String>, GitError> {
        match self.run(LOCAL, arguments).await {
            Ok(found) => Ok(Some(found)),
            Err(GitError::Failed { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// What its work tree is like.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub(crate) async fn status(&self, pathspec: &[String]) -> Result<Status, GitError> {
        let mut arguments = vec!["status", "--porcelain=v2", "--branch", "-z", "--"];
        arguments.extend(pathspec.iter().map(String::as_str));
        // Without taking the lock of the index, which is the agent's.
        let git = self.clone().with_env("GIT_OPTIONAL_LOCKS", "0");
        Ok(Status::parse(&git.bytes(LOCAL, &arguments).await?))
    }

    async fn bytes<A: AsRef<OsStr>>(&self, limit: Duration, arguments: &[A]) -> Result<Vec<u8>, GitError> {
        let call =
            arguments.first().map(|word| word.as_ref().to_string_lossy().into_owned()).unwrap_or_default();
        let mark = uuid::Uuid::new_v4().simple().to_string();
        let run = |source| GitError::Run { source };
        let mut child =
            self.command(&mark, arguments).and_then(|mut command| command.spawn()).map_err(run)?;
        // The guard ends what it runs when this closes: when the call is over, given up, or this process is gone.
        let lifeline = child.stdin.take();
        let answered = timeout(limit, answer(&mut child)).await;
        drop(lifeline);
        let Ok(answered) = answered else {
            end(child, mark).await;
            return Err(GitError::TimedOut { call, limit });
        };
        let Answer { code, stdout, stderr } = answered.map_err(run)?;
        match code {
            Some(0) => Ok(stdout),
            code => Err(GitError::Failed { call, code, said: last_words(&stderr) }),
        }
    }

    fn command<A: AsRef<OsStr>>(&self, mark: &str, arguments: &[A]) -> io::Result<Command> {
        let (program, words) =
            self.guard.split_first().ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        let mut command = Command::new(program);
        command.args(words).args(["--grace-ms", &GRACE.as_millis().to_string(), "--mark", mark, "--"]);
        command.args(["git", "--no-pager"]);
        for setting in SETTINGS.iter().copied().chain(self.settings.iter().map(String::as_str)) {
            command.args(["-c", setting]);
        }
        command.args(arguments).current_dir(&self.directory);
        for (name, _) in std::env::vars_os().filter(|(name, _)| is_scrubbed(&name.to_string_lossy())) {
            command.env_remove(name);
        }
        // What it says is read by programs, and nobody is there to be asked.
        command.env("LC_ALL", "C").env("GIT_EDITOR", "true").env("GIT_TERMINAL_PROMPT", "0");
        command.env("GIT_ASKPASS", "true").env("SSH_ASKPASS_REQUIRE", "never");
        command.env("GIT_ALLOW_PROTOCOL", "file:git:http:https:ssh");
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        Ok(command)
    }
}

/// What a call said, and its exit code.
struct Answer {
    code: Option<i32>,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
}

async fn answer(child: &mut Child) -> io::Result<Answer> {
    let stdout = child.stdout.take().expect("stdout is piped");
    let stderr = child.stderr.take().expect("stderr is piped");
    let (stdout, stderr) = tokio::try_join!(first(stdout, ANSWER_BYTES), first(stderr, WORDS_BYTES))?;
    let status = child.wait().await?;
    Ok(Answer { code: status.code(), stdout, stderr })
}

/// The first bytes of a pipe, which is read to its end.
async fn first(mut pipe: impl AsyncRead + Unpin, limit: usize) -> io::Result<Vec<u8>> {
    let mut kept = Vec::new();
    let mut bytes = vec![0; 8192];
    loop {
        let read = pipe.read(&mut bytes).await?;
        if read == 0 {
            return Ok(kept);
        }
        let room = limit.saturating_sub(kept.len()).min(read);
        kept.extend_from_slice(&bytes[..room]);
    }
}

/// Sees to the end of a guard whose lifeline is closed.
async fn end(mut child: Child, mark: String) {
    if timeout(GRACE * 2 + GUARD_SLACK, child.wait()).await.is_err() {
        tracing::warn!("the guard of a git that took too long does not end: it is killed");
        // It may have ended this moment.
        let _ = child.kill().await;
        Tree::new(None, Some(mark)).end(GRACE).await;
    }
}

/// Whether a variable is none of git's business, or would lead it to another repository.
fn is_scrubbed(name: &str) -> bool {
    name.starts_with("GASTOWN_")
        || name == "SSH_ASKPASS"
        || (name.starts_with("GIT_") && !KEPT.contains(&name))
}

/// The last lines of what was said, without control characters.
fn last_words(said: &[u8]) -> String {
    let text = String::from_utf8_lossy(said);
    let lines: Vec<&str> = text.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
    let last = lines[lines.len().saturating_sub(WORDS_LINES)..].join("\n");
    last.chars().filter(|c| *c == '\n' || !c.is_control()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_that_lead_elsewhere_and_credentials_do_not_reach_git() {
        for name in ["GIT_DIR", "GIT_INDEX_FILE", "GIT_CONFIG_COUNT", "GASTOWN_WRAPPER_TOKEN", "SSH_ASKPASS"]
        {
            assert!(is_scrubbed(name), "{name}");
        }
        for name in ["PATH", "HOME", "SSH_AUTH_SOCK", "GIT_AUTHOR_NAME", "GIT_SSH_COMMAND"] {
            assert!(!is_scrubbed(name), "{name}");
        }
    }

    #[test]
    fn an_error_tells_the_last_lines_and_no_control_characters() {
        let said: String = (0..20).map(|line| format!("\u{1b}[31mline {line}\r\n\n")).collect();
        let told = last_words(said.as_bytes());
        assert_eq!(told.lines().count(), WORDS_LINES);
        assert!(told.ends_with("[31mline 19"), "{told:?}");
        assert_eq!(last_words(b""), "");
    }

    #[tokio::test]
    async fn more_than_is_kept_is_read_all_the_same() {
        let kept = first(std::io::Cursor::new(vec![7; 100_000]), 10).await.expect("it is read");
        assert_eq!(kept, [7; 10]);
    }
}
