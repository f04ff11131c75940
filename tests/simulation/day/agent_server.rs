//! An agent server that only exists in the simulation: what it holds outlives its processes, and each process answers prompts,
//! streams, runs tools, and may die, freeze, lose its stream or not start.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use protocol::{Command, NewEvent, Prompt, agent::Failed, frame::RuntimeInfo};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde_json::Value;
use tokio::{
    sync::{Notify, mpsc, oneshot, watch},
    task::JoinHandle,
    time::{Instant, sleep, sleep_until},
};
use wrapper::{
    Clock,
    runtime::{
        AgentControl, AgentRuntime, CommandError, Ended, RunningAgent, SIGNALS, ServerState, Signal, Start,
    },
};

use super::{
    held::Held,
    turn::{self, Step},
};

/// The one root session.
pub(super) const SESSION: &str = "ses_day";
/// A server says something so often.
const HEARTBEAT: Duration = Duration::from_secs(10);
/// A server that answers nothing for so long is ended by whoever runs it.
const HUNG: Duration = Duration::from_secs(45);
/// A stream that is silent for so long is taken up again.
const SILENCE: Duration = Duration::from_secs(15);

/// What befalls a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// SIGKILL.
    Dies,
    /// SIGSTOP: it does and says nothing.
    Freezes,
    /// Its stream breaks: what happens meanwhile nobody is told.
    StreamBreaks,
    /// That is over.
    Recovers,
    /// It does not start, so many times.
    DoesNotStart { times: u32 },
    /// The model says nothing more in this turn: the server is well.
    ModelFallsSilent,
}

/// The server, over all its processes. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct AgentServer {
    pub(super) held: Arc<Mutex<Held>>,
    condition: watch::Sender<Condition>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Condition {
    is_frozen: bool,
    is_cut: bool,
    deaths: u64,
    silenced: u64,
}

impl AgentServer {
    pub(crate) fn new(seed: u64) -> Self {
        let condition = Condition { is_frozen: false, is_cut: false, deaths: 0, silenced: 0 };
        Self {
            held: Arc::new(Mutex::new(Held::new(StdRng::seed_from_u64(seed)))),
            condition: watch::Sender::new(condition),
        }
    }

    pub(crate) fn befall(&self, trouble: Trouble) {
        self.condition.send_modify(|condition| match trouble {
            Trouble::Dies => condition.deaths += 1,
            Trouble::Freezes => condition.is_frozen = true,
            Trouble::StreamBreaks => condition.is_cut = true,
            Trouble::Recovers => (condition.is_frozen, condition.is_cut) = (false, false),
            Trouble::DoesNotStart { times } => self.held().failing_starts = times,
            Trouble::ModelFallsSilent => condition.silenced += 1,
        });
    }

    /// Whatever ails it is over.
    pub(crate) fn heal(&self) {
        self.befall(Trouble::Recovers);
        self.befall(Trouble::DoesNotStart { times: 0 });
    }

    pub(super) fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl AgentRuntime for AgentServer {
    fn name(&self) -> &'static str {
        "simulated"
    }

    async fn start(&self, start: Start) -> Result<RunningAgent, Failed> {
        let (fails, takes_ms) = {
            let mut held = self.held();
            let now = turmoil::sim_elapsed().unwrap_or_default();
            held.starts.push(now);
            let fails = held.failing_starts > 0;
            held.failing_starts = held.failing_starts.saturating_sub(1);
            (fails, held.random.random_range(500..5_000))
        };
        sleep(Duration::from_millis(takes_ms)).await;
        if fails {
            let stderr = vec!["the port is taken".to_owned()];
            let message = "the server ended before it listened".to_owned();
            return Err(Failed { message, exit_code: Some(1), stderr });
        }
        let (signals, receiver) = mpsc::channel(SIGNALS);
        let (commands, inbox) = mpsc::channel(8);
        let again = Arc::new(Notify::new());
        let resumed = start.resume.as_deref() == Some(SESSION);
        let process = Process {
            server: self.clone(),
            condition: self.condition.subscribe(),
            clock: start.clock,
            signals,
            commands: inbox,
            again: again.clone(),
            turn: VecDeque::new(),
            step_at: None,
            beat_at: Instant::now() + HEARTBEAT,
            ill_since: None,
        };
        let task = tokio::spawn(process.live(resumed));
        Ok(RunningAgent {
            info: RuntimeInfo { name: "simulated".to_owned(), version: "1".to_owned() },
            session: SESSION.to_owned(),
            resumed,
            context_limits: BTreeMap::new(),
            signals: receiver,
            control: Arc::new(Control { commands, again, task: Mutex::new(Some(task)) }),
        })
    }
}

/// A command, and where its answer goes.
type Asked = (Command, oneshot::Sender<()>);

#[derive(Debug)]
struct Control {
    commands: mpsc::Sender<Asked>,
    again: Arc<Notify>,
    task: Mutex<Option<JoinHandle<()>>>,
}

#[async_trait]
impl AgentControl for Control {
    async fn command(&self, command: Command) -> Result<Option<Value>, CommandError> {
        let gone = || CommandError::Unreachable { message: "the server does not answer".to_owned() };
        let (answer, answered) = oneshot::channel();
        self.commands.send((command, answer)).await.map_err(|_| gone())?;
        // As long as the real one waits.
        let answered = tokio::time::timeout(Duration::from_secs(30), answered).await;
        answered.map_err(|_| gone())?.map_err(|_| gone())?;
        Ok(None)
    }

    fn say_again(&self) {
        self.again.notify_one();
    }

    async fn stop(&self) {
        let task = self.task.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(task) = task {
            task.abort();
            let _ = task.await;
        }
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        if let Some(task) = self.task.lock().unwrap_or_else(PoisonError::into_inner).take() {
            task.abort();
        }
    }
}

/// One life of the server.
struct Process {
    server: AgentServer,
    condition: watch::Receiver<Condition>,
    clock: Clock,
    signals: mpsc::Sender<Signal>,
    commands: mpsc::Receiver<Asked>,
    again: Arc<Notify>,
    /// What is still to be done in the turn that runs, each after a while.
    turn: VecDeque<(Duration, Step)>,
    step_at: Option<Instant>,
    beat_at: Instant,
    ill_since: Option<Instant>,
}

/// Nobody listens any more.
struct Unheard;

impl Process {
    async fn live(mut self, resumed: bool) {
        let deaths = self.condition.borrow_and_update().deaths;
        let mut silenced = self.condition.borrow().silenced;
        self.server.held().turn_was_broken(false);
        if resumed && self.catch_up().await.is_err() {
            return;
        }
        loop {
            let Condition { is_frozen, is_cut, deaths: died, silenced: mute } = *self.condition.borrow();
            if died > deaths {
                return self.die("the agent server died", 137).await;
            }
            if mute > silenced {
                silenced = mute;
                self.step_at = None;
                self.turn.clear();
            }
            let done = match (is_frozen || is_cut, self.ill_since) {
                (true, None) => {
                    self.ill_since = Some(Instant::now());
                    Ok(())
                }
                (true, Some(since)) if since.elapsed() >= HUNG => {
                    return self.die("the agent server does not answer", 137).await;
                }
                (false, Some(since)) => {
                    self.ill_since = None;
                    self.beat_at = Instant::now() + HEARTBEAT;
                    if self.server.held().has_missed || since.elapsed() >= SILENCE {
                        self.catch_up().await
                    } else {
                        Ok(())
                    }
                }
                (true, Some(_)) | (false, None) => Ok(()),
            };
            if done.is_err() || self.wait(is_frozen, is_cut).await.is_err() {
                return;
            }
        }
    }

    /// Until something happened.
    async fn wait(&mut self, is_frozen: bool, is_cut: bool) -> Result<(), Unheard> {
        let hung_at = self.ill_since.map(|since| since + HUNG);
        tokio::select! {
            biased;
            _ = self.condition.changed() => Ok(()),
            () = at(hung_at) => Ok(()),
            () = self.again.notified(), if !is_frozen && !is_cut => self.catch_up().await,
            asked = self.commands.recv(), if !is_frozen => {
                let (command, answer) = asked.ok_or(Unheard)?;
                self.carry_out(command);
                let _ = answer.send(());
                Ok(())
            }
            () = at(self.step_at), if !is_frozen => self.step(is_cut).await,
            () = sleep_until(self.beat_at), if !is_frozen && !is_cut => {
                self.beat_at = Instant::now() + HEARTBEAT;
                self.signals.send(Signal::Alive).await.map_err(|_| Unheard)
            }
        }
    }

    fn carry_out(&mut self, command: Command) {
        if let Command::Prompt(Prompt { text, .. }) = command {
            let steps = self.server.held().begin_turn(&text.unwrap_or_default());
            self.turn.extend(steps);
        } else if command == Command::Abort {
            self.turn = turn::aborted(&mut self.server.held());
        }
        self.step_at = None;
        self.set_step();
    }

    fn set_step(&mut self) {
        if self.step_at.is_none() {
            self.step_at = self.turn.front().map(|(after, _)| Instant::now() + *after);
        }
    }

    async fn step(&mut self, is_cut: bool) -> Result<(), Unheard> {
        self.step_at = None;
        if let Some((_, Step { kind, data })) = self.turn.pop_front() {
            let event = NewEvent::of(self.clock.timestamp(), kind, &data).expect("JSON serialises");
            let event = NewEvent { session: Some(SESSION.into()), ..event };
            self.server.held().store(kind, &data, !is_cut);
            if !is_cut {
                self.signals.send(Signal::Event(event)).await.map_err(|_| Unheard)?;
            }
        }
        self.set_step();
        Ok(())
    }

    /// What the server says when it is asked.
    async fn catch_up(&mut self) -> Result<(), Unheard> {
        let state: ServerState = {
            let mut held = self.server.held();
            held.has_missed = false;
            held.state()
        };
        self.signals.send(Signal::CaughtUp(Box::new(state))).await.map_err(|_| Unheard)
    }

    async fn die(self, message: &str, code: i32) {
        self.server.held().turn_was_broken(true);
        let failed = Failed { message: message.to_owned(), exit_code: Some(code), stderr: Vec::new() };
        let _ = self.signals.send(Signal::Ended(Ended::Died(failed))).await;
    }
}

async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}
