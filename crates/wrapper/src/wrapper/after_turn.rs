//! What a life does between the end of a turn and its outcome (§10): the event that closes a turn is told when that is done.

use std::{collections::VecDeque, time::Duration};

use protocol::{
    ModelRef, NewEvent,
    agent::SkipReason,
    model::Role,
    view::{MessageView, SessionView},
};
use serde::Deserialize;

use super::life::Life;
use crate::{
    after_turn::{AfterTurn, CommitJob, Job, Said},
    git::Git,
};

/// The work after a turn, and what waits for it.
#[derive(Debug, Default)]
pub(super) struct Afterwards {
    work: Option<AfterTurn>,
    /// The event that closed the turn, and those that close what the agent does after it.
    closing: Vec<NewEvent>,
    /// What came after it and was read with it.
    backlog: VecDeque<NewEvent>,
    /// The turn ended with an error.
    failed: bool,
}

impl Afterwards {
    /// The next event of the work; `None` when it is done. Never, while there is none.
    pub(super) async fn next(&mut self) -> Option<Said> {
        match &mut self.work {
            Some(work) => work.next().await,
            None => std::future::pending().await,
        }
    }

    /// Keeps an event that closes a turn.
    pub(super) fn withhold(&mut self, event: NewEvent) {
        if self.closing.first().is_some_and(|first| first.kind == event.kind)
            && let Some(work) = &self.work
        {
            work.closed();
        }
        if closes_badly(&event) && self.work.is_none() {
            self.failed = true;
        }
        self.closing.push(event);
    }

    /// Keeps an event that may not be told before the turn's outcome.
    pub(super) fn wait(&mut self, event: NewEvent) {
        self.backlog.push_back(event);
    }

    /// Takes note of an error of the root session, if its turn is not over yet.
    pub(super) fn note(&mut self, settling: bool, root: Option<&str>, event: &NewEvent) {
        if !settling && &*event.kind == "session.error" && event.session.as_deref() == root {
            self.failed = true;
        }
    }
}

impl Life {
    /// Whether the agent's events wait: its turn is over, and what is done after it shows nothing in its stream.
    pub(super) fn is_held_back(&self) -> bool {
        self.turns.is_settling() && !self.after.work.as_ref().is_some_and(AfterTurn::reads_on)
    }

    /// Begins what is to be done after a turn; a turn without such work is settled at once.
    pub(super) async fn turn_over(&mut self, aborted: bool) {
        if self.after.work.is_some() || !self.turns.is_settling() {
            return;
        }
        match self.job(aborted) {
            Some(job) => {
                self.coalescer.flush(&mut self.out);
                self.pass_on().await;
                self.after.work = Some(AfterTurn::begin(job));
            }
            None => self.turn_settled().await,
        }
    }

    /// Says what the work after a turn says, and the turn's outcome at its end.
    pub(super) async fn after_turn_said(&mut self, said: Option<Said>) {
        match said {
            Some(said) => {
                self.coalescer.flush(&mut self.out);
                self.pass_on().await;
                self.book.say(said.kind, &said.data).await;
            }
            None => self.turn_settled().await,
        }
    }

    /// Ends the work after a turn, if there is any: the outcome of a turn that is over comes all the same.
    pub(super) async fn give_up_after_turn(&mut self, why: &str) {
        if let Some(work) = self.after.work.take() {
            for said in work.give_up(why).await {
                self.after_turn_said(Some(said)).await;
            }
        }
        if self.turns.is_settling() {
            self.turn_settled().await;
        }
    }

    async fn turn_settled(&mut self) {
        let now = self.clock.now();
        let after = std::mem::take(&mut self.after);
        for event in after.closing {
            self.coalescer.push(now, event, &mut self.out);
        }
        self.coalescer.flush(&mut self.out);
        self.pass_on().await;
        self.turns.settled(now);
        after.backlog.into_iter().for_each(|event| self.event(event));
    }

    /// What is to be done after the turn that just ended, if anything.
    fn job(&mut self, aborted: bool) -> Option<Job> {
        let turn = self.configs.end_turn();
        let wanted = &self.setup.options.after_turn;
        let (commits, condenses) = (
            turn.auto_commit.unwrap_or(wanted.auto_commit),
            turn.condense_on_complete.unwrap_or(wanted.condense_on_complete),
        );
        let upstream = turn.upstream_branch.or_else(|| wanted.upstream_branch.clone());
        let control = self.agent.as_ref()?.control.clone();
        let session = self.session.clone().unwrap_or_default();
        let commit = commits.then(|| self.commit_job(&session, upstream)).flatten();
        let condense = condenses.then(|| model(self.book.view(), &session));
        if commit.is_none() && condense.is_none() {
            return None;
        }
        let spoilt = match (aborted, self.after.failed) {
            (true, _) => Some(SkipReason::Aborted),
            (false, true) => Some(SkipReason::TurnFailed),
            (false, false) => None,
        };
        Some(Job { commit, condense, spoilt, control })
    }

    pub(super) fn commit_job(&self, session: &str, upstream_branch: Option<String>) -> Option<CommitJob> {
        let options = &self.setup.options;
        let guard = options.guard_command("auto-commit").inspect_err(|error| {
            tracing::error!(%error, "no commit can be made");
        });
        Some(CommitJob {
            git: Git::new(guard.ok()?, &self.setup.directory),
            agent: options.agent.clone(),
            session: session.to_owned(),
            prompt: prompt(self.book.view(), session),
            upstream_branch,
            leave_out: options.keep_output.clone(),
            hook_limit: Duration::from_secs(options.after_turn.hook_limit),
            wip: false,
        })
    }
}

/// What a session was asked for last.
fn prompt(view: &SessionView, session: &str) -> Option<String> {
    let message = newest(view, session, Role::User)?;
    let text = message.parts().find_map(|part| {
        part.body().text_part().filter(|text| text.synthetic != Some(true) && !text.text.trim().is_empty())
    });
    text.map(|text| text.text.clone())
}

/// The model that answered in a session last.
fn model(view: &SessionView, session: &str) -> Option<ModelRef> {
    let info = newest(view, session, Role::Assistant)?.info()?;
    Some(ModelRef { provider_id: info.provider_id.clone()?, model_id: info.model_id.clone()? })
}

fn newest<'v>(view: &'v SessionView, session: &str, role: Role) -> Option<&'v MessageView> {
    let messages = view.session(session)?.messages();
    messages.into_iter().rev().find(|message| message.info().is_some_and(|info| info.role == role))
}

/// Whether a closing event says itself that the turn did not go well (kilo's do).
fn closes_badly(event: &NewEvent) -> bool {
    #[derive(Deserialize)]
    struct Closed {
        reason: Option<String>,
    }
    let closed = event.data.parse::<Closed>().ok();
    closed.and_then(|closed| closed.reason).is_some_and(|reason| reason != "completed")
}
