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
    agent::{Failed, State, Status, WorkspaceReady},
    config::ConfigError,
    frame::WrapperState,
    model::SessionStatus,
};
use tokio::{
    sync::{mpsc, watch},
    task::{AbortHandle, JoinSet},
    time::sleep_until,
};

use super::{
    Book, RunError, StateDir,
    after_turn::Afterwards,
    agent::Agent,
    carried_out::CarriedOut,
    commands::{AnswerTo, HandedOn},
    history::Unread,
    parting::Parting,
    user_messages,
};
use crate::{
    Clock, Exit, Moment, Options, Shutdown, ShutdownLevel,
    api::{ApiRequest, JobStatus, OutboxDepth},
    coalesce::Coalescer,
    config::Configs,
    link::{Link, LinkHandle, LinkState, Past},
    recovery,
    runtime::{AgentRuntime, CommandError, Ended, RunningAgent, SIGNALS, Signal, shape::ids::Ids},
    session_tree::SessionTree,
    supervisor::{Phase, SIGNAL_GRACE, Supervisor, Transition},
    turn::{PromptNumber, Takes, TurnOutput, Turns, Watch},
    workspace::{Workspace, WorkspaceError},
};

/// How long the loop sleeps when nothing is due.
const NOTHING_DUE: Duration = Duration::from_secs(3600);

/// What a life begins with.
#[derive(Debug)]
pub(super) struct Setup {
    pub(super) options: Options,
    pub(super) runtime: Arc<dyn AgentRuntime>,
    pub(super) directory: PathBuf,
    /// The work tree that is to be made there before the agent is started.
    pub(super) workspace: Option<Workspace>,
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
    pub(super) watch: Watch,
    /// What turns are run with.
    pub(super) configs: Configs,
    /// Why the town's last config was not taken: until there is another one, no prompt of the relay's is.
    pub(super) config_error: Option<ConfigError>,
    /// What is done after a turn, and what waits for it.
    pub(super) after: Afterwards,
    /// What is done when the agent is gone, and before that is told.
    pub(super) parting: Option<Parting>,
    pub(super) coalescer: Coalescer,
    /// What the coalescer gave and is to be said.
    pub(super) out: Vec<NewEvent>,
    pub(super) tree: Option<SessionTree>,
    pub(super) agent: Option<Agent>,
    /// The session to go on with.
    pub(super) session: Option<String>,
    /// The log, as long as it could not be read.
    pub(super) unread: Option<Unread>,
    pub(super) starting: Option<AbortHandle>,
    pub(super) tasks: JoinSet<Done>,
    /// What the session is to be told with its first message.
    pub(super) context: Option<String>,
    pub(super) carried_out: CarriedOut,
    /// Who waits for which prompt.
    pub(super) prompts: BTreeMap<PromptNumber, AnswerTo>,
    /// What prompts are called to those who ask what is in flight.
    pub(super) prompt_names: BTreeMap<PromptNumber, String>,
    /// Asks whose answer is on its way to the agent.
    pub(super) answering: BTreeSet<Key>,
    pub(super) ids: Ids,
    pub(super) state: Option<State>,
    presence: Option<WrapperState>,
    last_activity: Timestamp,
    pub(super) last_error: Option<String>,
    /// How often an agent began to take prompts.
    pub(super) starts: u64,
}

/// What a task of a life ended with.
#[derive(Debug)]
pub(super) enum Done {
    Started(Result<Result<RunningAgent, Failed>, Duration>),
    Workspace(Box<Result<WorkspaceReady, WorkspaceError>>),
    Stopped,
    /// Whether the relay could be reached, of which the log is to be read.
    Reached(bool),
    Recalled(Option<Box<Past>>),
    Prompt(HandedOn, Result<Option<serde_json::Value>, CommandError>),
    Command(AnswerTo, Option<Key>, Result<Option<serde_json::Value>, CommandError>),
    Abort(AnswerTo, Result<Option<serde_json::Value>, CommandError>),
}

impl Life {
    pub(super) fn new(
        setup: Setup,
        book: Book,
        unread: Option<Unread>,
        link: LinkHandle,
        shutdown: Shutdown,
    ) -> Result<Self, RunError> {
        let session = match &setup.options.session_id {
            Some(session) => Some(session.clone()),
            None => setup.state.session()?,
        };
        let carried_out = CarriedOut::open(setup.state.path())
            .map_err(|source| RunError::StateDir { doing: "read which commands were carried out", source })?;
        let takes = match setup.runtime.name() {
            // Recordings tell no user's message for a step.
            "replay" => Takes::Always,
            "acp" => Takes::BetweenTurns,
            _ => Takes::AtSteps,
        };
        let turns = Turns::new(
            session.as_deref().unwrap_or_default(),
            takes,
            &setup.options.turn_limits,
            user_messages(book.view()),
        );
        let clock = setup.clock;
        let config = Options::town_config()?;
        config.env.values().for_each(|secret| setup.options.log.secrets().hide(secret.expose()));
        Ok(Self {
            link_state: link.state(),
            level: ShutdownLevel::None,
            supervisor: Supervisor::new(),
            watch: Watch::new(&setup.options.turn_limits),
            configs: Configs::of(config),
            config_error: None,
            after: Afterwards::default(),
            parting: None,
            coalescer: Coalescer::default(),
            out: Vec::new(),
            tree: None,
            agent: None,
            starting: None,
            tasks: JoinSet::new(),
            context: setup.state.context()?,
            carried_out,
            prompts: BTreeMap::new(),
            prompt_names: BTreeMap::new(),
            answering: BTreeSet::new(),
            ids: Ids::new(rand::random()),
            state: None,
            presence: None,
            last_activity: clock.timestamp(),
            last_error: None,
            starts: 0,
            setup,
            clock,
            book,
            link,
            shutdown,
            turns,
            session,
            unread,
        })
    }

    /// Lives until the agent is gone for good. Gives the link back, which still has to say goodbye.
    pub(super) async fn live(
        mut self,
        mut link: Link,
        mut requests: mpsc::Receiver<ApiRequest>,
    ) -> (Exit, Link) {
        self.link_changed();
        self.await_relay();
        loop {
            self.settle().await;
            if self.supervisor.phase().is_over() && self.agent.is_none() && self.starting.is_none() {
                break;
            }
            let wake = self.clock.instant(self.due().unwrap_or_else(|| self.clock.now() + NOTHING_DUE));
            let level = self.level;
            let listens =
                self.agent.is_some() && !self.book.is_stuck() && !self.is_held_back() && !self.is_recalling();
            tokio::select! {
                signal = next_signal(self.agent.as_mut()), if listens => self.signals(signal).await,
                said = self.after.next() => self.after_turn_said(said).await,
                said = Parting::next(self.parting.as_mut()) => self.parting_said(said).await,
                Some(done) = self.tasks.join_next() => if let Ok(done) = done { self.done(done).await },
                Some((id, command)) = link.commands.recv() => {
                    // The config that came with it, or with the greeting before it.
                    if link.config.has_changed().unwrap_or(false) {
                        self.configure(link.config.borrow_and_update().clone());
                    }
                    self.command(AnswerTo::Link(id), command).await;
                }
                Ok(()) = link.config.changed() => self.configure(link.config.borrow_and_update().clone()),
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
        self.supervisor.turns(self.turns.is_busy());
        self.watch.turn(self.clock.now(), self.turns.runs());
        match self.supervisor.phase() {
            Phase::Starting => self.start(),
            Phase::Draining { .. } => self.drop_queue("the agent ends after this turn").await,
            Phase::Hung | Phase::Stopping => self.stop().await,
            Phase::Idle | Phase::Active | Phase::Resting { .. } | Phase::Stopped | Phase::Failed => {}
        }
        while let Some(Transition { from, to, reason }) = self.supervisor.poll() {
            tracing::info!(from = from.name(), to = to.name(), reason, "the agent's state changed");
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
            Some(Signal::CommandFailed { message }) => self.command_failed(&message).await,
            Some(Signal::CaughtUp(state)) => self.caught_up(&state).await,
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
            self.watch.event(now);
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

    async fn done(&mut self, done: Done) {
        match done {
            Done::Started(started) => self.started(started).await,
            Done::Workspace(prepared) => self.workspace_prepared(*prepared).await,
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
            Done::Reached(reached) => self.reached(reached).await,
            Done::Recalled(past) => self.recalled(past).await,
            Done::Prompt(handed_on, result) => self.prompt_done(handed_on, result).await,
            Done::Command(to, ask, result) => self.command_done(to, ask, result).await,
            Done::Abort(to, result) => self.abort_done(to, result).await,
        }
    }

    async fn turn(&mut self, output: TurnOutput) {
        match output {
            TurnOutput::Send(number, command) => self.begin_turn(number, *command).await,
            TurnOutput::Abort => self.send_abort(AnswerTo::Nobody).await,
            TurnOutput::Unanswered(number) => self.unanswered(number).await,
            TurnOutput::Hung => self.hangs("the agent did not end its turn when it was told to"),
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
            self.watch.due(),
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
        if self.supervisor.phase() == Phase::Stopping || self.supervisor.phase().is_over() {
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
        self.watch_turn(now).await;
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
        let presence = self.supervisor.presence();
        if self.presence != Some(presence) {
            self.presence = Some(presence);
            self.link.presence(presence, self.last_activity).await;
        }
        self.say_job(state);
    }

    fn say_job(&mut self, state: Option<State>) {
        let inflight: Vec<PromptNumber> = self.turns.inflight().collect();
        self.prompt_names.retain(|number, _| inflight.contains(number));
        let word = |state: State| serde_json::to_value(state).ok()?.as_str().map(ToOwned::to_owned);
        let (events, bytes) = self.book.depth();
        let job = JobStatus {
            state: state.and_then(word).unwrap_or_else(|| match self.supervisor.phase() {
                Phase::Resting { .. } => "starting".to_owned(),
                Phase::Failed => "failed".to_owned(),
                Phase::Starting
                | Phase::Idle
                | Phase::Active
                | Phase::Hung
                | Phase::Draining { .. }
                | Phase::Stopping
                | Phase::Stopped => "exited".to_owned(),
            }),
            session_id: self.session.clone(),
            inflight: inflight.iter().filter_map(|number| self.prompt_names.get(number)).cloned().collect(),
            outbox: OutboxDepth { events, bytes },
            restarts: self.starts.saturating_sub(1),
            last_error: self
                .last_error
                .as_deref()
                .map(|error| self.setup.options.log.secrets().text(error).into()),
            wrapper: Some(self.supervisor.presence()),
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
            Phase::Hung | Phase::Stopping => return Some(State::Stopping),
            Phase::Resting { .. } | Phase::Stopped | Phase::Failed => return None,
            Phase::Idle | Phase::Active | Phase::Draining { .. } => {}
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

async fn next_signal(agent: Option<&mut Agent>) -> Option<Signal> {
    match agent {
        Some(agent) => agent.signals.recv().await,
        None => std::future::pending().await,
    }
}

fn is_retrying(status: &SessionStatus) -> bool {
    matches!(status, SessionStatus::Retry { .. } | SessionStatus::Offline { .. })
}
