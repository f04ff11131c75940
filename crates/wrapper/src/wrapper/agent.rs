//! The agent in its wrapper's life: how it is started, what is said when it is there, and what is set right when it is gone.

use std::{io, sync::Arc, time::Duration};

use protocol::{
    agent::{Exited, Failed, SessionRecreated, Started},
    view::SessionView,
};
use tokio::{sync::mpsc, time::timeout};

use super::life::{Done, Life};
use crate::{
    recovery,
    runtime::{AgentControl, Ended, RunningAgent, Signal, Start},
    session_tree::SessionTree,
    supervisor::Phase,
};

/// How long a start may take whose runtime sets no limits of its own, or does not keep them.
const START_LIMIT: Duration = Duration::from_secs(300);
/// How long stopping an agent may take. Past it the agent is given up: its guard ends what is left.
const STOP_PATIENCE: Duration = Duration::from_secs(15);

/// What is said of an agent whose session was deleted. With the next start a new one is begun, and told what was said in this one.
pub(super) const SESSION_GONE: &str = "the agent's session was deleted on the agent server";

/// A running agent.
#[derive(Debug)]
pub(super) struct Agent {
    pub(super) control: Arc<dyn AgentControl>,
    pub(super) signals: mpsc::Receiver<Signal>,
    stopping: bool,
    /// Why it is being ended, if that is because it hangs.
    hangs: Option<String>,
}

impl Life {
    /// Starts the agent, unless it is there or on its way.
    pub(super) fn start(&mut self) {
        if self.starting.is_some() || self.agent.is_some() || self.prepare_workspace() {
            return;
        }
        let runtime = Arc::clone(&self.setup.runtime);
        let start = Start {
            agent: self.setup.options.agent.clone(),
            directory: self.setup.directory.clone(),
            state_dir: self.setup.state.path().to_owned(),
            resume: self.session.clone(),
            env: self.configs.env().clone(),
            clock: self.clock,
        };
        self.starting = Some(self.tasks.spawn(async move {
            Done::Started(timeout(START_LIMIT, runtime.start(start)).await.map_err(|_| START_LIMIT))
        }));
    }

    /// A start came to its end; the error is the time within which it did not.
    pub(super) async fn started(&mut self, started: Result<Result<RunningAgent, Failed>, Duration>) {
        self.starting = None;
        if self.supervisor.phase() != Phase::Starting {
            // It was given up meanwhile. Dropping the agent ends it.
            return;
        }
        match started {
            Ok(Ok(running)) => self.begin(running).await,
            Ok(Err(failed)) => self.cannot_start(failed).await,
            Err(limit) => {
                let message = format!("the agent did not start within {} s", limit.as_secs());
                self.died(Failed { message, ..Failed::default() }).await;
            }
        }
    }

    /// A start failed: it is tried again within the restart budget, if that may help.
    pub(super) async fn cannot_start(&mut self, failed: Failed) {
        if is_for_good(&failed) {
            self.say_failed(&failed).await;
            self.supervisor.cannot_start(&failed.message);
        } else {
            self.died(failed).await;
        }
    }

    async fn begin(&mut self, running: RunningAgent) {
        self.starts += 1;
        let RunningAgent { info, session, resumed, context_limits, signals, control } = running;
        self.keep("session", self.setup.state.keep_session(&session));
        self.tree = Some(tree_of(&session, self.book.view()));
        self.agent = Some(Agent { control, signals, stopping: false, hangs: None });
        let started = Started {
            generation: self.setup.generation,
            runtime: info.name,
            version: info.version,
            session: Some(session.clone()),
            resumed,
            directory: Some(self.setup.directory.display().to_string()),
            context_limits,
        };
        self.book.say("agent.started", &started).await;
        let lost = self.session.take().filter(|kept| !resumed && *kept != session);
        if let Some(lost) = lost {
            self.recreated(lost, &session).await;
        }
        self.state = None;
        self.supervisor.started();
        self.turns.reset(&session);
        self.turns.resume(self.clock.now());
        self.session = Some(session);
    }

    /// The server no longer has the session that was to go on: the new one is told what the log has of it.
    async fn recreated(&mut self, lost: String, session: &str) {
        // A new session that heard nothing yet may be lost as well: what it was to hear stays.
        let summary = recovery::summary(self.book.view(), &lost).or(self.context.take());
        let summarised = summary.is_some();
        self.keep("context", self.setup.state.keep_context(summary.as_deref()));
        self.context = summary;
        let recreated = SessionRecreated { lost, session: session.to_owned(), summarised };
        self.book.say("wrapper.session_recreated", &recreated).await;
    }

    /// A run goes on without what it cannot keep for the next one.
    pub(super) fn keep(&self, what: &'static str, kept: io::Result<()>) {
        if let Err(error) = kept {
            tracing::warn!(
                what,
                error = &error as &dyn std::error::Error,
                "it cannot be kept for the next run"
            );
        }
    }

    /// The agent does not do what it is told, though it lives: it is ended, and started again within the restart budget.
    pub(super) fn hangs(&mut self, why: &str) {
        self.supervisor.hangs(why);
        self.turns.pause();
        if let Some(agent) = &mut self.agent {
            agent.hangs.get_or_insert_with(|| why.to_owned());
        }
    }

    /// Ends the agent, or gives its start up.
    pub(super) async fn stop(&mut self) {
        if self.parts().await {
            return;
        }
        self.give_up_after_turn("the agent is being ended").await;
        if let Some(starting) = self.starting.take() {
            starting.abort();
            return self.part(None).await;
        }
        match &mut self.agent {
            Some(agent) if !agent.stopping => {
                agent.stopping = true;
                let control = Arc::clone(&agent.control);
                self.tasks.spawn(async move {
                    if timeout(STOP_PATIENCE, control.stop()).await.is_err() {
                        tracing::warn!("the agent does not stop: it is given up");
                    }
                    Done::Stopped
                });
            }
            Some(_) => {}
            None => self.supervisor.exited(self.supervisor.reason()),
        }
    }

    /// The agent is no more: closes what it left open, and says how it ended.
    pub(super) async fn ended(&mut self, ended: Ended) {
        self.give_up_after_turn("the agent has ended").await;
        self.coalescer.flush(&mut self.out);
        self.pass_on().await;
        self.coalescer.clear();
        let hangs = self.agent.take().and_then(|agent| agent.hangs);
        self.tree = None;
        self.answering.clear();
        self.state = None;
        self.book.emit(recovery::broken_off(self.book.view(), self.clock.timestamp())).await;
        let phase = self.supervisor.phase();
        match (ended, hangs) {
            (Ended::Died(Failed { exit_code: code, .. }) | Ended::Exited { code, .. }, _)
                if phase == Phase::Stopping =>
            {
                self.part(code).await;
            }
            (Ended::Died(failed), _) if matches!(phase, Phase::Draining { .. }) => {
                let code = failed.exit_code;
                self.died(failed).await;
                self.part(code).await;
            }
            (Ended::Died(failed), _) => self.died(failed).await,
            (Ended::Exited { code, .. }, Some(message)) => {
                self.died(Failed { message, exit_code: code, stderr: Vec::new() }).await;
            }
            (Ended::Exited { reason, code }, None) => self.exited(reason, code).await,
        }
        let root = self.session.clone().unwrap_or_default();
        self.turns.reset(&root);
    }

    async fn died(&mut self, failed: Failed) {
        self.say_failed(&failed).await;
        self.supervisor.died(self.clock.now(), &failed.message);
    }

    async fn say_failed(&mut self, failed: &Failed) {
        self.state = None;
        self.last_error = Some(failed.message.clone());
        self.book.say("agent.failed", failed).await;
    }

    pub(super) async fn exited(&mut self, reason: String, code: Option<i32>) {
        self.supervisor.exited(&reason);
        self.book.say("agent.exited", &Exited { reason, code }).await;
    }
}

/// Nothing ran, so nothing would the next time: a binary or a file that is not there.
fn is_for_good(failed: &Failed) -> bool {
    failed.exit_code.is_none() && failed.stderr.is_empty()
}

/// The tree of this root, with the children that are known of it already.
fn tree_of(root: &str, view: &SessionView) -> SessionTree {
    let mut tree = SessionTree::of_root(root);
    let known = view.session(root).map(|session| session.with_descendants()).unwrap_or_default();
    for session in known {
        tree.learn(session.id(), session.parent_id());
    }
    tree
}
