//! The payloads of Gastown's own events: what its wrappers say of an agent (§3.1).

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};

use crate::{Timestamp, model::Usage};

/// `agent.status`: what the agent does just now, its sub-agents included.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Status {
    /// What it does.
    pub state: State,
    /// More of it, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// What an agent does just now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum State {
    /// Its server is being started.
    Starting,
    /// It waits for a prompt.
    Idle,
    /// It works.
    Busy,
    /// It waits for a person: a permission, a question, the network.
    Waiting,
    /// A model call failed and is tried again.
    Retrying,
    /// It is being ended.
    Stopping,
    /// A word of a newer wrapper, or nothing was said yet.
    #[default]
    #[serde(other)]
    Unknown,
}

/// `agent.started`: the agent's server is up and its session is there.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Started {
    /// The wrapper's generation.
    pub generation: u64,
    /// `opencode`, `kilo`, `acp`, `scripted`, `replay`.
    pub runtime: String,
    /// The runtime's version, as it says itself.
    pub version: String,
    /// The root session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// The session was there before and goes on.
    #[serde(default)]
    pub resumed: bool,
    /// The folder it works in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub directory: Option<String>,
    /// How many tokens its models take at once, by the model's id, where its server says so.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub context_limits: BTreeMap<String, u64>,
}

/// `agent.exited`: the agent ended as it was meant to.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Exited {
    /// Why: `stopped`, `drained`, `superseded`, `finished`, …
    pub reason: String,
    /// The exit code of its server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<i32>,
}

/// `agent.failed`: the agent could not be started, or its server died.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Failed {
    /// What went wrong and what to do.
    pub message: String,
    /// The exit code of its server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// The last lines that its server wrote.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stderr: Vec<String>,
}

/// `agent.done`: the agent says that its work is done.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Done {
    /// What came of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub summary: Option<String>,
}

/// `agent.registered`, in a town's journal: there is an agent of this name.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Registered {
    /// Its name, for people.
    pub name: String,
    /// Its role: `mayor`, `polecat`, `refinery`, `witness`, `crew`.
    pub role: String,
    /// What runs it.
    pub runtime: String,
}

/// `agent.usage`: what the agent cost by now, where its runtime does not say so per message.
pub type AgentUsage = Usage;

/// `wrapper.resumed`: a wrapper took up an agent that an earlier one, or an earlier link, left.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Resumed {
    /// The wrapper's generation.
    pub generation: u64,
    /// What was left, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// `wrapper.session_recreated`: the agent's server no longer has the session that was to go on, so that a new one was begun. What was
/// said in the old one is told to it, shortened, before the first message (§10).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SessionRecreated {
    /// The session that is lost.
    pub lost: String,
    /// The one in its place.
    pub session: String,
    /// Whether anything of the old one is told to the new one.
    pub summarised: bool,
}

/// `wrapper.lost`: nothing was heard of the agent's wrapper for too long (§10).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lost {
    /// Since then.
    pub since: Timestamp,
}

/// `wrapper.events_dropped`: the wrapper could not keep these events (§6).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct EventsDropped {
    /// The first number (`pseq`) that is missing.
    pub from: u64,
    /// The last one.
    pub to: u64,
    /// Why.
    pub reason: String,
}

/// `wrapper.workspace.ready`: the agent's work tree is there (§10).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct WorkspaceReady {
    /// Its branch, `gt/<agent>/<bead>`.
    pub branch: String,
    /// The commit it stands on.
    pub commit: String,
    /// The branch of the remote that its branch was begun from, if it was begun now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<String>,
    /// The branch was there before and goes on.
    #[serde(default)]
    pub resumed: bool,
    /// Where what would have been lost was put away: references of the rig's mirror.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rescued: Vec<String>,
    /// Why the remote could not be asked, if it could not: the branch goes on from what was known of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stale: Option<String>,
}

/// `wrapper.auto_commit.started`: a turn is over, and what it changed is being committed (§10).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct AutoCommitStarted {
    /// The branch.
    pub branch: String,
    /// How many paths differ from its commit.
    pub paths: u64,
}

/// `wrapper.auto_commit.completed`: what a turn changed is committed.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct AutoCommitCompleted {
    /// The commit.
    pub hash: String,
    /// The branch.
    pub branch: String,
    /// The first line of its message.
    pub subject: String,
    /// Why the hooks of the repository were left out, if they were: what failed with them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hooks_skipped: Option<String>,
    /// Whether it is on the remote.
    pub pushed: bool,
    /// The remote and its branch, `origin/main`, if there is one to push to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upstream: Option<String>,
    /// Why it is not on the remote.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_pushed: Option<NotPushed>,
    /// What git said of that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

impl AutoCommitCompleted {
    /// The beginning of the hash, as people read it: seven characters.
    #[must_use]
    pub fn short_hash(&self) -> &str {
        &self.hash[..self.hash.floor_char_boundary(7)]
    }
}

/// Why a commit is not on the remote. Its `Display` is for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum NotPushed {
    /// The branch has no upstream.
    NoUpstream,
    /// The remote has commits that this branch lacks, or refuses it; it is never forced.
    Rejected,
    /// The remote could not be reached, or the push failed or took too long.
    #[default]
    #[serde(other)]
    Failed,
}

/// `wrapper.auto_commit.skipped` or `wrapper.condense.skipped`: nothing was to be done after a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Skipped {
    /// Why.
    pub reason: SkipReason,
}

/// Why nothing was done after a turn. Its `Display` is for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum SkipReason {
    /// The turn was aborted.
    Aborted,
    /// The turn ended with an error.
    TurnFailed,
    /// The work folder is in no repository.
    NoRepository,
    /// A merge, rebase, cherry-pick, revert or bisection is not finished, or paths are in conflict.
    Unfinished,
    /// The head is detached.
    DetachedHead,
    /// The branch is the repository's default one, and `upstreamBranch` does not name it.
    DefaultBranch,
    /// Nothing has changed.
    Clean,
    /// This kind of agent cannot do that.
    Unsupported,
    /// A reason of a newer wrapper.
    #[serde(other)]
    Unknown,
}

impl fmt::Display for NotPushed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoUpstream => "its branch has no upstream",
            Self::Rejected => "the remote refused it",
            Self::Failed => "the push failed",
        })
    }
}

impl fmt::Display for SkipReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Aborted => "the turn was stopped",
            Self::TurnFailed => "the turn failed",
            Self::NoRepository => "the folder is in no repository",
            Self::Unfinished => "a merge or the like is unfinished",
            Self::DetachedHead => "the head is detached",
            Self::DefaultBranch => "default branch",
            Self::Clean => "nothing has changed",
            Self::Unsupported => "this agent cannot do that",
            Self::Unknown => "the wrapper has a reason of its own",
        })
    }
}

/// `wrapper.auto_commit.failed` or `wrapper.condense.failed`: it was tried. The turn's outcome is what it is all the same.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct AfterTurnFailed {
    /// What went wrong.
    pub message: String,
}
