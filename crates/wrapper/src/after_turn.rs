//! What is done after a turn and before its outcome is told: a commit of what it changed, and a summary of its session (§10). When
//! an agent was drained, what it left is committed as work in progress before its exit is told.
//!
//! [`AfterTurn`] is that work while it runs: it says events, of which the last one is always a `completed`, `skipped` or `failed`.
//! Each step has a limit, so that it ends whatever `git`, a hook or the agent server does. What it does not do: it holds no event
//! of the agent's back; that is the concern of whoever waits for it.

mod commit;
mod condense;
mod message;
mod plan;

use std::{path::PathBuf, sync::Arc, time::Duration};

use protocol::{
    AgentId, ModelRef,
    agent::{AfterTurnFailed, SkipReason, Skipped},
};
use serde::Serialize;
use serde_json::Value;
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
    time::timeout,
};

use crate::{git::Git, runtime::AgentControl};

/// Events of this work that may wait to be said: more than there are.
const SAID: usize = 8;
/// How long the commit and push of what a drained agent left may take.
pub(crate) const LEAVE: Duration = Duration::from_secs(60);

/// What is done after a turn whose own config does not say.
#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
#[non_exhaustive]
pub struct AfterTurnArgs {
    /// Commit what a turn changed, and push it if its branch has an upstream
    #[arg(long)]
    pub auto_commit: bool,
    /// Have the agent condense its session after each turn
    #[arg(long)]
    pub condense_on_complete: bool,
    /// The remote's branch that commits are pushed to; naming the default branch allows commits on it
    #[arg(long, value_name = "BRANCH")]
    pub upstream_branch: Option<String>,
    /// How long a commit or a push, with the repository's hooks, may take
    #[arg(long, value_name = "SECONDS", default_value_t = 120)]
    pub hook_limit: u64,
}

impl Default for AfterTurnArgs {
    fn default() -> Self {
        Self { auto_commit: false, condense_on_complete: false, upstream_branch: None, hook_limit: 120 }
    }
}

/// What is to be done after a turn.
#[derive(Debug)]
pub(crate) struct Job {
    /// The commit, if one is wanted.
    pub(crate) commit: Option<CommitJob>,
    /// The model that condenses the session, if that is wanted; `None` leaves it to the agent.
    pub(crate) condense: Option<Option<ModelRef>>,
    /// How the turn ended, if not well: then nothing is done, and that is said.
    pub(crate) spoilt: Option<SkipReason>,
    pub(crate) control: Arc<dyn AgentControl>,
}

/// The commit of what a turn changed.
#[derive(Debug, Clone)]
pub(crate) struct CommitJob {
    /// In the work folder.
    pub(crate) git: Git,
    pub(crate) agent: AgentId,
    pub(crate) session: String,
    /// What was asked for in this turn.
    pub(crate) prompt: Option<String>,
    pub(crate) upstream_branch: Option<String>,
    /// A folder of the work folder that is the wrapper's own.
    pub(crate) leave_out: Option<PathBuf>,
    /// How long what runs hooks may take.
    pub(crate) hook_limit: Duration,
    /// The agent was ended in the middle of it: it is committed as work in progress, without hooks, and nothing is said if there
    /// is nothing.
    pub(crate) wip: bool,
}

/// The work after a turn, while it is done. Dropping it gives it up: what it runs is ended.
#[derive(Debug)]
pub(crate) struct AfterTurn {
    said: mpsc::Receiver<Said>,
    closes: watch::Sender<u64>,
    /// What was begun and did not end yet.
    open: Option<Part>,
    task: JoinHandle<()>,
}

/// A part of this work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    Commit,
    Condense,
}

/// An event to be said.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Said {
    pub(crate) kind: &'static str,
    pub(crate) data: Value,
    /// What it leaves open.
    open: Option<Part>,
}

impl AfterTurn {
    /// Begins it.
    pub(crate) fn begin(job: Job) -> Self {
        let (say, said) = mpsc::channel(SAID);
        let (closes, seen) = watch::channel(0);
        let task = tokio::spawn(work(job, Voice(say), seen));
        Self { said, closes, open: None, task }
    }

    /// Commits what an agent that is gone left behind.
    pub(crate) fn leave(commit: CommitJob) -> Self {
        let (say, said) = mpsc::channel(SAID);
        let (closes, _) = watch::channel(0);
        let task = tokio::spawn(async move {
            let voice = Voice(say);
            if timeout(LEAVE, commit.run(None, &voice)).await.is_err() {
                let message = format!("it took longer than {} s", LEAVE.as_secs());
                voice.say(Said::failed(Part::Commit, message)).await;
            }
        });
        Self { said, closes, open: None, task }
    }

    /// The next event; `None` when the work is done. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Option<Said> {
        let said = self.said.recv().await?;
        self.open = said.open;
        Some(said)
    }

    /// Whether the agent's events are to be read meanwhile: while it condenses, what it does is in its stream. While a commit is
    /// made they wait, since nothing that comes after the turn may be told before its outcome.
    pub(crate) fn reads_on(&self) -> bool {
        self.open == Some(Part::Condense)
    }

    /// The agent closed a turn of its own, the condensing one.
    pub(crate) fn closed(&self) {
        self.closes.send_modify(|closes| *closes += 1);
    }

    /// Gives it up. Returns what is left to say.
    pub(crate) async fn give_up(mut self, why: &str) -> Vec<Said> {
        self.task.abort();
        // Either it was done, or it is not any more.
        let _ = (&mut self.task).await;
        let mut left = Vec::new();
        while let Some(said) = self.next().await {
            left.push(said);
        }
        left.extend(self.open.take().map(|part| Said::failed(part, why.to_owned())));
        left
    }
}

impl Drop for AfterTurn {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Said {
    fn new(kind: &'static str, data: &impl Serialize, open: Option<Part>) -> Self {
        let data = serde_json::to_value(data).expect("payloads of the wrapper's own serialise");
        Self { kind, data, open }
    }

    fn skipped(part: Part, reason: SkipReason) -> Self {
        let kind = match part {
            Part::Commit => "wrapper.auto_commit.skipped",
            Part::Condense => "wrapper.condense.skipped",
        };
        Self::new(kind, &Skipped { reason }, None)
    }

    fn failed(part: Part, message: String) -> Self {
        let kind = match part {
            Part::Commit => "wrapper.auto_commit.failed",
            Part::Condense => "wrapper.condense.failed",
        };
        Self::new(kind, &AfterTurnFailed { message }, None)
    }
}

/// Where this work says its events.
#[derive(Debug)]
struct Voice(mpsc::Sender<Said>);

impl Voice {
    async fn say(&self, said: Said) {
        // Nobody listens any more when the work was given up, and then this does not run on.
        let _ = self.0.send(said).await;
    }
}

async fn work(job: Job, voice: Voice, closes: watch::Receiver<u64>) {
    let Job { commit, condense, spoilt, control } = job;
    if let Some(commit) = commit {
        match spoilt {
            Some(reason) => voice.say(Said::skipped(Part::Commit, reason)).await,
            None => commit.run(Some(&*control), &voice).await,
        }
    }
    if let Some(model) = condense {
        match spoilt {
            Some(reason) => voice.say(Said::skipped(Part::Condense, reason)).await,
            None => condense::run(&*control, model, closes, &voice).await,
        }
    }
}
