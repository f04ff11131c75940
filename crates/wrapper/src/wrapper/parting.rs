//! The end of an agent that is drained: it is told, and what it leaves in its work tree is committed before its exit is (§10).

use protocol::{Command, Delivery, Prompt, agent::State, config::TurnConfig};
use serde_json::json;

use super::{commands::AnswerTo, life::Life};
use crate::after_turn::{AfterTurn, CommitJob, Said};

/// What an agent is told whose turn is waited for.
const TOLD: &str = "You are about to be stopped: in 9 minutes at the latest, and earlier when this turn is over. Bring the step \
that you are at to a good end and begin nothing new. What is in no commit then is committed as work in progress, and pushed.";

/// What is done between the end of an agent and the word of it.
#[derive(Debug)]
pub(super) struct Parting {
    work: AfterTurn,
    code: Option<i32>,
}

impl Parting {
    /// The next event of the work; `None` when it is done. Never, while there is none.
    pub(super) async fn next(parting: Option<&mut Self>) -> Option<Said> {
        match parting {
            Some(parting) => parting.work.next().await,
            None => std::future::pending().await,
        }
    }
}

impl Life {
    /// Tells an agent whose turn runs that it ends after it.
    pub(super) async fn announce_drain(&mut self) {
        if self.has_work_tree() && self.turns.is_open() && !self.supervisor.drains() {
            let text = json!({ "type": "text", "text": TOLD, "synthetic": true });
            let prompt =
                Prompt { parts: Some(vec![text]), delivery: Delivery::Boundary, ..Prompt::default() };
            let told = self.queue(AnswerTo::Nobody, Command::Prompt(prompt), TurnConfig::default());
            if let Err((to, error)) = told {
                self.reply(to, Err(error)).await;
            }
        }
    }

    /// The agent is gone as it was meant to: what it left is committed if it was drained, and then its exit is told.
    pub(super) async fn part(&mut self, code: Option<i32>) {
        let session = self.session.clone().unwrap_or_default();
        let upstream = self.configs.end_turn().upstream_branch;
        let upstream = upstream.or_else(|| self.setup.options.after_turn.upstream_branch.clone());
        let commits = self.supervisor.drains() && self.has_work_tree();
        match commits.then(|| self.commit_job(&session, upstream)).flatten() {
            Some(job) => {
                self.state = Some(State::Stopping);
                self.parting = Some(Parting { work: AfterTurn::leave(CommitJob { wip: true, ..job }), code });
            }
            None => self.exited(self.supervisor.reason().to_owned(), code).await,
        }
    }

    /// Says what that work says, and the exit when it is done.
    pub(super) async fn parting_said(&mut self, said: Option<Said>) {
        match said {
            Some(said) => self.book.say(said.kind, &said.data).await,
            None => {
                if let Some(Parting { code, .. }) = self.parting.take() {
                    self.exited(self.supervisor.reason().to_owned(), code).await;
                }
            }
        }
    }

    /// Whether there is such work. It is given up if the wrapper is to end at once by now.
    pub(super) async fn parts(&mut self) -> bool {
        if self.supervisor.drains() {
            return self.parting.is_some();
        }
        let Some(Parting { work, code }) = self.parting.take() else { return false };
        for said in work.give_up("the agent is to end at once").await {
            self.book.say(said.kind, &said.data).await;
        }
        self.exited(self.supervisor.reason().to_owned(), code).await;
        true
    }

    /// Whether the agent has a work tree that was made for it.
    fn has_work_tree(&self) -> bool {
        self.setup.options.workspace.git.is_some() && self.setup.workspace.is_none()
    }
}
