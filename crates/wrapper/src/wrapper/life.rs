//! The life of one agent: one task that takes what happens, asks the pure rules what to do, and does it.
//!
//! Nothing that waits for the agent is awaited here: starting it, commands and stopping it are tasks whose ends come back as
//! [`Done`]. What is awaited is the outbox, which is what slows the agent's stream down (§6).

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use protocol::{
    Key, NewEvent, Timestamp,
    agent::{Exited, Failed, Started, State, Status},
    frame::WrapperState,
    model::SessionStatus,
    view::SessionView,
};
use tokio::{
    sync::{mpsc, watch},
    task::{AbortHandle, JoinSet},
    time::sleep_until,
};

use super::{Book, RunError, StateDir, after_turn::Afterwards, commands::AnswerTo, user_messages};
use crate::{
    Clock, Exit, Moment, Options, Shutdown, ShutdownLevel,
    api::{ApiRequest, JobStatus, OutboxDepth},
    coalesce::Coalescer,
    link::{Link, LinkHandle, LinkState},
    recovery,
    runtime::{
        AgentControl, AgentRuntime, CommandError, Ended, RunningAgent, SIGNALS, Signal, Start,
        shape::ids::Ids,
    },
    session_tree::SessionTree,
    supervisor::{Phase, SIGNAL_GRACE, Supervisor},
    turn::{PromptNumber, TurnOutput, Turns},
};

/// How long stopping an agent may take. Past it the agent is given up: its guard ends what is left.
const STOP_PATIENCE: Duration = Duration::from_secs(15);
/// How long the loop sleeps when nothing is due.
const NOTHING_DUE: Duration = Duration::from_secs(3600);

/// What a life begins with.
#[derive(Debug)]
pub(super) struct Setup {
    pub(super) options: Options,
    pub(super) runtime: Arc<dyn AgentRuntime>,
    pub(super) directory: PathBuf,
    pub(super) state: StateDir,
    pub(super) generation: u64,
    pub(super) clock: Clock,
    pub(super) status: watch::Sender<JobStatus>,
}

/// One agent's life.
#[derive(Debug)]
pub(super) struct Life {
    pub(super) setup: Setup,
    pub(super) clock: Clock,
    pub(super) book: Book,
    pub(super) link: LinkHandle,
    link_state: watch::Receiver<LinkState>,
    shutdown: Shutdown,
    level: ShutdownLevel,
    pub(super) supervisor: Supervisor,
    pub(super) turns: Turns,
    /// What is done after a turn, and what waits for it.
    pub(super) after: Afterwards,
    pub(super) coalescer: Coalescer,
    /// What the coalescer gave and is to be said.
    pub(super) out: Vec<NewEvent>,
    tree: Option<SessionTree>,
    pub(super) agent: Option<Agent>,
    /// The session to go on with.
    pub(super) session: Option<String>,
    starting: Option<AbortHandle>,
    pub(super) tasks: JoinSet<Done>,
    /// Who waits for which prompt.
    pub(super) prompts: BTreeMap<PromptNumber, AnswerTo>,
    /// Asks whose answer is on its way to the agent.
    pub(super) answering: BTreeSet<Key>,
    pub(super) ids: Ids,
    state: Option<State>,
    presence: Option<WrapperState>,
    last_activity: Timestamp,
    pub(super) last_error: Option<String>,
}

/// A running agent.
#[derive(Debug)]
pub(super) struct Agent {
    pub(super) control: Arc<dyn AgentControl>,
    signals: mpsc::Receiver<Signal>,
    stopping: bool,
}

/// What a task of a life ended with.
#[derive(Debug)]
pub(super) enum Done {
    Started(Result<RunningAgent, Failed>),
    Stopped,
    Prompt(PromptNumber, Result<Option<serde_json::Value>, CommandError>),
    Command(AnswerTo, Option<Key>, Result<Option<serde_json::Value>, CommandError>),
}

impl Life {
    pub(super) fn new(
        setup: Setup,
        book: Book,
        link: LinkHandle,
        shutdown: Shutdown,
    ) -> Result<Self, RunError> {
        let session = match &setup.options.session_id {
            Some(session) => Some(session.clone()),
            None => setup.state.session()?,
        };
        // Recordings tell no user's message for a step.
        let paced = setup.runtime.name() != "replay";
        let turns = Turns::new(session.as_deref().unwrap_or_default(), paced, user_messages(book.view()));
        let clock = setup.clock;
        Ok(Self {
            link_state: link.state(),
            level: ShutdownLevel::None,
            supervisor: Supervisor::new(),
            after: Afterwards::default(),
            coalescer: Coalescer::default(),
            out: Vec::new(),
            tree: None,
            agent: None,
            starting: None,
            tasks: JoinSet::new(),
            prompts: BTreeMap::new(),
            answering: BTreeSet::new(),
            ids: Ids::new(rand::random()),
            state: None,
            presence: None,
            last_activity: clock.timestamp(),
            last_error: None,
            setup,
            clock,
            book,
            link,
            shutdown,
            turns,
            session,
        })
    }

    /// Lives until the agent is gone for good. Gives the link back, which still has to say goodbye.
    pub(super) async fn live(
        mut self,
        mut link: Link,
        mut requests: mpsc::Receiver<ApiRequest>,
    ) -> (Exit, Link) {
        self.link_changed();
        loop {
            self.settle().await;
            if self.supervisor.phase() == Phase::Over && self.agent.is_none() && self.starting.is_none() {
                break;
            }
            let wake = self.clock.instant(self.due().unwrap_or_else(|| self.clock.now() + NOTHING_DUE));
            let level = self.level;
            let listens = self.agent.is_some() && !self.book.is_stuck() && !self.is_held_back();
            tokio::select! {
                signal = next_signal(self.agent.as_mut()), if listens => self.signals(signal).await,
                said = self.after.next() => self.after_turn_said(said).await,
                Some(done) = self.tasks.join_next() => if let Ok(done) = done { self.done(done).await },
                Some((id, command, _config)) = link.commands.recv() => self.command(AnswerTo::Link(id), command).await,
                Some(request) = requests.recv() => self.request(request).await,
                Ok(()) = self.link_state.changed() => self.link_changed(),
                level = self.shutdown.above(level) => self.asked_to_end(level),
                () = sleep_until(wake) => self.timeout().await,
            }
        }
        self.refuse_all("the agent has ended").await;
        self.tasks.shutdown().await;
        (self.supervisor.exit(), link)
    }

    /// Does what follows from what happened: passes events on, moves the agent to where it is to be, says how it is.
    async fn settle(&mut self) {
        self.pass_on().await;
        while let Some(output) = self.turns.poll() {
            self.turn(output).await;
        }
        match self.supervisor.phase() {
            Phase::Starting => self.start(),
            Phase::Draining { .. } => {
                self.drop_queue("the agent ends after this turn").await;
                if !self.turns.is_busy() {
                    self.supervisor.turn_over();
                    self.stop().await;
                }
            }
            Phase::Stopping => self.stop().await,
            Phase::Running | Phase::Resting { .. } | Phase::Over => {}
        }
        self.say_state().await;
    }

    /// Passes the coalescer's events on.
    pub(super) async fn pass_on(&mut self) {
        let events = std::mem::take(&mut self.out);
        if !events.is_empty() {
            self.book.emit(events).await;
        }
    }

    async fn signals(&mut self, first: Option<Signal>) {
        self.last_activity = self.clock.timestamp();
        self.signal(first).await;
        // What has piled up is pushed together: one write to the disk.
        for _ in 0..SIGNALS {
            match self.agent.as_mut().and_then(|agent| agent.signals.try_recv().ok()) {
                Some(signal) => self.signal(Some(signal)).await,
                None => break,
            }
        }
    }

    async fn signal(&mut self, signal: Option<Signal>) {
        match signal {
            Some(Signal::Event(event)) => self.event(event),
            Some(Signal::Alive) => {}
            Some(Signal::CaughtUp(state)) => {
                self.coalescer.flush(&mut self.out);
                self.pass_on().await;
                let Some(tree) = &mut self.tree else { return };
                let missed = recovery::catch_up(self.book.view(), &state, tree, self.clock.timestamp());
                missed.into_iter().for_each(|event| self.event(event));
            }
            Some(Signal::Ended(ended)) => self.ended(ended).await,
            None => {
                let message = "the agent's stream ended without a word".to_owned();
                self.ended(Ended::Died(Failed { message, exit_code: None, stderr: Vec::new() })).await;
            }
        }
    }

    pub(super) fn event(&mut self, event: NewEvent) {
        if self.is_held_back() {
            return self.after.wait(event);
        }
        let event = self.with_session(event);
        if self.tree.as_mut().is_some_and(|tree| tree.admit(&event)) {
            let now = self.clock.now();
            self.turns.event(now, &event);
            if self.turns.is_settling() && self.turns.closes(&event) {
                return self.after.withhold(event);
            }
            self.after.note(self.turns.is_settling(), self.session.as_deref(), &event);
            self.coalescer.push(now, event, &mut self.out);
        }
    }

    /// Fills in the session of a message's event, where the server does not say it (§2).
    fn with_session(&self, mut event: NewEvent) -> NewEvent {
        if event.session.is_none()
            && event.kind.starts_with("message.")
            && let Some(key) = event.classify().key
            && let Some(message) = key.as_str().split('/').nth(1)
        {
            event.session = self.book.view().message(message).and_then(|message| message.session().cloned());
        }
        event
    }

    async fn ended(&mut self, ended: Ended) {
        self.give_up_after_turn("the agent has ended").await;
        self.coalescer.flush(&mut self.out);
        self.pass_on().await;
        self.coalescer.clear();
        self.agent = None;
        self.tree = None;
        self.answering.clear();
        self.state = None;
        self.book.emit(recovery::broken_off(self.book.view(), self.clock.timestamp())).await;
        let stopping = self.supervisor.phase() == Phase::Stopping;
        match ended {
            Ended::Died(failed) if !stopping => {
                self.last_error = Some(failed.message.clone());
                self.book.say("agent.failed", &failed).await;
                self.supervisor.died(self.clock.now(), &failed);
            }
            Ended::Died(failed) => self.exited(self.supervisor.reason().to_owned(), failed.exit_code).await,
            Ended::Exited { code, .. } if stopping => {
                self.exited(self.supervisor.reason().to_owned(), code).await
            }
            Ended::Exited { reason, code } => self.exited(reason, code).await,
        }
        let root = self.session.clone().unwrap_or_default();
        self.turns.reset(&root);
    }

    async fn exited(&mut self, reason: String, code: Option<i32>) {
        self.book.say("agent.exited", &Exited { reason, code }).await;
        self.supervisor.exited();
    }

    fn start(&mut self) {
        if self.starting.is_some() || self.agent.is_some() {
            return;
        }
        let runtime = Arc::clone(&self.setup.runtime);
        let start = Start {
            agent: self.setup.options.agent.clone(),
            directory: self.setup.directory.clone(),
            state_dir: self.setup.state.path().to_owned(),
            resume: self.session.clone(),
            clock: self.clock,
        };
        self.starting = Some(self.tasks.spawn(async move { Done::Started(runtime.start(start).await) }));
    }

    async fn started(&mut self, running: Result<RunningAgent, Failed>) {
        self.starting = None;
        let running = match running {
            Ok(running) => running,
            Err(failed) => {
                self.state = None;
                self.last_error = Some(failed.message.clone());
                self.book.say("agent.failed", &failed).await;
                return self.supervisor.died(self.clock.now(), &failed);
            }
        };
        let RunningAgent { info, session, resumed, context_limits, signals, control } = running;
        if let Err(error) = self.setup.state.keep_session(&session) {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "the session cannot be kept for the next run"
            );
        }
        self.tree = Some(tree_of(&session, self.book.view()));
        self.agent = Some(Agent { control, signals, stopping: false });
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
        self.state = None;
        self.supervisor.started();
        self.turns.reset(&session);
        self.turns.resume(self.clock.now());
        self.session = Some(session);
    }

    /// Stops the agent, or gives its start up.
    async fn stop(&mut self) {
        self.give_up_after_turn("the agent is being ended").await;
        if let Some(starting) = self.starting.take() {
            starting.abort();
            self.exited(self.supervisor.reason().to_owned(), None).await;
        }
        match &mut self.agent {
            Some(agent) if !agent.stopping => {
                agent.stopping = true;
                let control = Arc::clone(&agent.control);
                self.tasks.spawn(async move {
                    if tokio::time::timeout(STOP_PATIENCE, control.stop()).await.is_err() {
                        tracing::warn!("the agent does not stop: it is given up");
                    }
                    Done::Stopped
                });
            }
            Some(_) => {}
            None => self.supervisor.exited(),
        }
    }

    async fn done(&mut self, done: Done) {
        match done {
            Done::Started(running) => self.started(running).await,
            Done::Stopped => {
                // What it said last is still in its stream.
                while let Some(agent) = &mut self.agent {
                    match agent.signals.try_recv() {
                        Ok(signal) => self.signal(Some(signal)).await,
                        Err(_) => {
                            self.ended(Ended::Exited { reason: "stopped".to_owned(), code: None }).await
                        }
                    }
                }
            }
            Done::Prompt(number, result) => {
                self.turns.taken(self.clock.now(), number, result.is_ok());
                if let Some(to) = self.prompts.remove(&number) {
                    self.answer(to, result).await;
                }
            }
            Done::Command(to, ask, result) => self.command_done(to, ask, result).await,
        }
    }

    async fn turn(&mut self, output: TurnOutput) {
        match output {
            TurnOutput::Send(number, prompt) => self.send_prompt(number, prompt),
            TurnOutput::Abort => self.send(AnswerTo::Nobody, None, protocol::Command::Abort).await,
            TurnOutput::Dropped(number) => self.refuse_prompt(number, "the turn was aborted").await,
            TurnOutput::Over { aborted } => {
                if aborted {
                    self.coalescer.flush(&mut self.out);
                    self.pass_on().await;
                    // Agent servers leave the asks of an aborted turn open, and nobody waits for them any more.
                    let cancelled = recovery::cancelled_asks(self.book.view(), self.clock.timestamp());
                    self.book.emit(cancelled).await;
                }
                self.turn_over(aborted).await;
            }
        }
    }

    fn link_changed(&mut self) {
        let now = self.clock.now();
        let state = self.link_state.borrow_and_update().clone();
        match state {
            LinkState::Down { .. } | LinkState::Live | LinkState::Draining => {}
            LinkState::Superseded => self.supervisor.stop(now, "superseded", Exit::Superseded, None),
            LinkState::Refused { code, message } => {
                tracing::error!(code = code.0, message, "the relay refuses this wrapper");
                self.supervisor.stop(now, "refused", Exit::Refused, None);
            }
        }
    }

    fn asked_to_end(&mut self, level: ShutdownLevel) {
        self.level = level;
        let (reason, grace) = match level {
            ShutdownLevel::None => return,
            ShutdownLevel::Drain => ("drained", Some(SIGNAL_GRACE)),
            ShutdownLevel::Now => ("stopped", None),
        };
        self.supervisor.stop(self.clock.now(), reason, Exit::Done, grace);
    }

    fn due(&self) -> Option<Moment> {
        [
            self.coalescer.deadline(),
            self.turns.due(),
            self.supervisor.due(),
            self.book.due(),
            self.give_up_at(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// When the link has been down for too long.
    fn give_up_at(&self) -> Option<Moment> {
        if matches!(self.supervisor.phase(), Phase::Stopping | Phase::Over) {
            return None;
        }
        match &*self.link_state.borrow() {
            LinkState::Down { since } => Some(*since + self.setup.options.give_up_after()?),
            LinkState::Live | LinkState::Draining | LinkState::Superseded | LinkState::Refused { .. } => None,
        }
    }

    async fn timeout(&mut self) {
        // A timer may fire within the last millisecond before its time.
        let now = self.due().map_or(self.clock.now(), |due| due.max(self.clock.now()));
        if self.coalescer.deadline().is_some_and(|due| due <= now) {
            self.coalescer.flush(&mut self.out);
        }
        self.turns.handle_timeout(now);
        self.supervisor.handle_timeout(now);
        if self.give_up_at().is_some_and(|due| due <= now) {
            self.supervisor.stop(now, "the link was down for too long", Exit::GaveUp, None);
        }
        self.book.handle_timeout(now).await;
    }

    /// Says what the agent does, to the log where it changed, to the relay and to the local API.
    async fn say_state(&mut self) {
        let state = self.doing();
        if state != self.state
            && let Some(state) = state
        {
            self.book.say("agent.status", &Status { state, detail: None }).await;
        }
        self.state = state;
        let presence = self.supervisor.presence(self.turns.is_busy());
        if self.presence != Some(presence) {
            self.presence = Some(presence);
            self.link.presence(presence, self.last_activity).await;
        }
        self.say_job(state);
    }

    fn say_job(&self, state: Option<State>) {
        let word = |state: State| serde_json::to_value(state).ok()?.as_str().map(ToOwned::to_owned);
        let (events, bytes) = self.book.depth();
        let job = JobStatus {
            state: state.and_then(word).unwrap_or_else(|| "exited".to_owned()),
            session_id: self.session.clone(),
            inflight: Vec::new(),
            outbox: OutboxDepth { events, bytes },
            last_error: self.last_error.clone(),
        };
        self.setup.status.send_if_modified(|said| {
            let changed = *said != job;
            *said = job;
            changed
        });
    }

    /// What the agent does; nothing can be said of one that is gone.
    fn doing(&self) -> Option<State> {
        match self.supervisor.phase() {
            Phase::Starting => return Some(State::Starting),
            Phase::Stopping => return Some(State::Stopping),
            Phase::Resting { .. } | Phase::Over => return None,
            Phase::Running | Phase::Draining { .. } => {}
        }
        let view = self.book.view();
        let root = self.tree.as_ref().and_then(SessionTree::root).and_then(|root| view.session(root));
        Some(if !view.pending().is_empty() {
            State::Waiting
        } else if root.is_some_and(|root| is_retrying(root.status())) {
            State::Retrying
        } else if self.turns.is_busy() {
            State::Busy
        } else {
            State::Idle
        })
    }
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

async fn next_signal(agent: Option<&mut Agent>) -> Option<Signal> {
    match agent {
        Some(agent) => agent.signals.recv().await,
        None => std::future::pending().await,
    }
}

fn is_retrying(status: &SessionStatus) -> bool {
    matches!(status, SessionStatus::Retry { .. } | SessionStatus::Offline { .. })
}
