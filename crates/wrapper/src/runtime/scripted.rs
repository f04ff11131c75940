//! Plays a scenario as an agent: for the demo, for tests, for trying a viewer without any model.
//!
//! The agent behaves as an opencode or kilo server does: the same event types, order and payloads, told from those only by its
//! words. What it says comes from the file; its tools really run in the work folder, as the user the wrapper runs as.
//! What it does not do: it calls no model and needs no network, no git, nothing but a POSIX shell.
//!
//! The interpreter (`machine`, `play`) is pure: time, answers and the ends of tools go in, events come out; the same seed and
//! the same inputs give the same events. This file is its driver: timers, processes, channels.
//!
//! # The scenario file
//!
//! JSON; an unknown field is an error that names its line. A *text* is a string or a list of lines.
//!
//! ```json
//! { "title": "Add a rate limiter",
//!   "agent": "build",
//!   "model": { "providerID": "anthropic", "modelID": "claude-sonnet-4-5" },
//!   "start": { "turns": ["implement"], "pause_ms": 20000, "repeat": true },
//!   "turns": [
//!     { "name": "implement",
//!       "prompt": "Add a rate limiter to the client.",
//!       "steps": [
//!         { "tokens": { "input": 1200, "output": 80 }, "cost_micros": 4800,
//!           "actions": [ { "text": { "text": "I will look around first." } },
//!                        { "bash": { "command": "ls -la", "description": "List files" } } ] },
//!         { "actions": [ { "text": { "text": ["# Done", "", "- one file"] } } ] } ] },
//!     { "name": "answer", "free": true,
//!       "steps": [ { "actions": [ { "text": { "text": "You said: ${prompt}" } } ] } ] } ] }
//! ```
//!
//! - `start`: turns that begin by themselves, each with its `prompt` as the user's message; `pause_ms` of rest before each but the
//!   first, from the beginning again with `repeat`.
//! - *Which turn answers a prompt*: the one that it marks with `[[name]]`; else the first one of whose `keywords` it contains;
//!   else the next one that is `free`; else the next one in the file. Of what is attached, it is given the names, after the text.
//! - A *step* is one assistant message: `actions`, `latency_ms` until its first word, `tokens`
//!   (`input`, `output`, `reasoning`, `cache_read`, `cache_write`), `cost_micros` (millionths of a dollar).
//!
//! | action | fields |
//! |---|---|
//! | `text`, `reasoning` | `text` (`${prompt}`, `${answer}` and `${turn}` stand for the prompt's first line, the latest answer to a question and the number of the turn), `chunk` characters of a piece, `delay_ms` between pieces |
//! | `bash` | `command`, `description`, `timeout_ms`, `ask` |
//! | `write` | `path` below the work folder, `content`, `ask` |
//! | `edit` | `path`, `old`, `new`, `ask` |
//! | `read`, `grep`, `glob` | `path`; `pattern` (a text, letter by letter), `path`; `pattern` (`*`, `?`, `**`) |
//! | `todo` | `todos`: `content`, `status`, `priority` |
//! | `question` | `questions`: `question`, `header`, `options` (`label`, `description`), `multiple`; `rejected`: steps instead of the rest |
//! | `task` | a sub-agent with a session of its own: `description`, `prompt`, `agent`, `steps` |
//! | `retry` | the provider refuses: `message`, `delays_ms` until each next try |
//! | `error` | the turn (or the sub-agent) ends with it: `name`, `message`, `status_code` |
//! | `compact` | a summary replaces what was said: as `text` |
//! | `pause` | `ms` |
//! | `choose` | `of`: lists of actions, one of which is played, by the number of the turn |
//!
//! `ask` makes a tool wait for a permission: `always` (the patterns that "always" allows), `rejected` (steps that follow a rejection
//! instead of the rest of the turn; without them a rejection ends the turn, unless it says what to do instead).

mod doing;
mod frame;
mod machine;
mod play;
mod scenario;
mod tool;
mod work_folder;

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use async_trait::async_trait;
use protocol::{Command, PermissionReply, Timestamp, agent::Failed, frame::RuntimeInfo};
use serde_json::{Value, json};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::{
    machine::{Machine, NothingWaits, Output, Pace},
    work_folder::News,
};
use super::{
    AgentRuntime, CommandError, Ended, RunningAgent, SIGNALS, Signal, Start,
    control::{Control, Request},
    failed,
};
use crate::{Clock, Options, OptionsError};

pub use self::scenario::{Scenario, ScenarioError};

/// Plays a scenario file.
#[derive(Debug)]
pub struct Scripted {
    file: PathBuf,
    speed: f64,
}

impl Scripted {
    /// Plays this file at its own speed.
    pub fn new(file: impl Into<PathBuf>) -> Self {
        Self { file: file.into(), speed: 1.0 }
    }

    /// From a wrapper's options.
    ///
    /// # Errors
    /// When `--scenario` is missing, or `--speed` is no factor.
    pub fn from_options(options: &Options) -> Result<Self, OptionsError> {
        let file = options
            .scenario
            .clone()
            .ok_or(OptionsError::Missing { runtime: "scripted", option: "--scenario" })?;
        let speed = match options.speed.as_str() {
            "max" => f64::INFINITY,
            text => text.parse().ok().filter(|speed: &f64| *speed > 0.0 && speed.is_finite()).ok_or_else(
                || OptionsError::Invalid {
                    option: "--speed",
                    value: text.to_owned(),
                    expected: "a scenario is played with a factor such as 4, or `max`",
                },
            )?,
        };
        Ok(Self { file, speed })
    }

    /// Plays it `speed` times as fast; infinity plays without any pause.
    #[must_use]
    pub fn with_speed(self, speed: f64) -> Self {
        Self { speed, ..self }
    }
}

#[async_trait]
impl AgentRuntime for Scripted {
    fn name(&self) -> &'static str {
        "scripted"
    }

    async fn start(&self, start: Start) -> Result<RunningAgent, Failed> {
        let scenario = tokio::fs::read_to_string(&self.file).await.map_err(|error| {
            failed(format!("the scenario {} cannot be read: {error}", self.file.display()))
        })?;
        let scenario = Scenario::parse(&scenario).map_err(|error| {
            let cause =
                std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
            failed(format!("{}: {error}{cause}", self.file.display()))
        })?;
        let wall = Wall { began: start.clock.timestamp(), clock: start.clock };
        let seed = seed_of(&start, wall.began);
        let directory = start.directory.display().to_string();
        let resumed = start.resume.is_some();
        let pace = Pace::new(self.speed);
        let machine = Machine::new(Arc::new(scenario), directory, seed, pace, start.resume, wall.began);
        let session = machine.session().to_owned();
        let (signals, receiver) = mpsc::channel(SIGNALS);
        let last = signals.clone().reserve_owned().await.expect("the receiver is in this function");
        let stop = CancellationToken::new();
        let agent = TaskTracker::new();
        let (control, inbox) = Control::new(stop.clone(), agent.clone());
        let driver = Driver {
            machine,
            wall,
            directory: start.directory,
            signals,
            last,
            tools: TaskTracker::new(),
            running: BTreeMap::new(),
            stop,
        };
        agent.spawn(driver.run(inbox));
        agent.close();
        Ok(RunningAgent {
            info: RuntimeInfo { name: "scripted".to_owned(), version: env!("CARGO_PKG_VERSION").to_owned() },
            session,
            resumed,
            context_limits: BTreeMap::new(),
            signals: receiver,
            control: Arc::new(control),
        })
    }
}

/// Two agents, and two runs of one agent, are to have different ids (FNV-1a of the agent's name and the time).
fn seed_of(start: &Start, now: Timestamp) -> u64 {
    let bytes = start.agent.as_str().bytes().chain(now.unix_ms().to_le_bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// Wall-clock time that goes on as the monotonic clock does.
#[derive(Debug, Clone, Copy)]
struct Wall {
    began: Timestamp,
    clock: Clock,
}

impl Wall {
    fn now(&self) -> Timestamp {
        self.began.after(self.clock.now().since(crate::Moment::START))
    }
}

/// Timers, processes and channels around the interpreter.
#[derive(Debug)]
struct Driver {
    machine: Machine,
    wall: Wall,
    directory: PathBuf,
    signals: mpsc::Sender<Signal>,
    /// Room for the last signal, so that the end never waits for a wrapper that does not read.
    last: mpsc::OwnedPermit<Signal>,
    tools: TaskTracker,
    /// Tools that run, by the number of their call.
    running: BTreeMap<u64, CancellationToken>,
    stop: CancellationToken,
}

impl Driver {
    async fn run(mut self, mut inbox: mpsc::Receiver<Request>) {
        let (news, mut newspaper) = mpsc::channel(64);
        let stop = self.stop.clone();
        loop {
            tokio::select! {
                // What the interpreter says goes out before anything else comes in.
                flowing = self.flush(&news) => if !flowing { break },
                () = stop.cancelled() => break,
            }
            let due = self.machine.poll_timeout();
            let wait = due.map(|due| Instant::now() + due.since(self.wall.now()));
            tokio::select! {
                () = stop.cancelled() => break,
                request = inbox.recv() => match request {
                    Some(Request { command, answer }) => {
                        // Who asked may not wait for the answer.
                        let _ = answer.send(self.command(command));
                    }
                    None => break,
                },
                Some(news) = newspaper.recv() => self.news(news),
                () = sleep_until(wait.unwrap_or_else(|| Instant::now() + Duration::from_secs(3600))) => {
                    // A timer may fire within the last millisecond before its time.
                    let now = self.wall.now();
                    self.machine.handle_timeout(due.map_or(now, |due| due.max(now)));
                }
            }
        }
        for (_, cancelled) in std::mem::take(&mut self.running) {
            cancelled.cancel();
        }
        self.tools.close();
        // Tools say how they ended: nobody listens any more, and their channel must not hold them up.
        drop(newspaper);
        self.tools.wait().await;
        let ended = Ended::Exited { reason: "stopped".to_owned(), code: None };
        self.last.send(Signal::Ended(ended));
    }

    /// Hands on what the interpreter says. Returns whether the wrapper still listens.
    async fn flush(&mut self, news: &mpsc::Sender<News>) -> bool {
        loop {
            // Room first: an output that is taken is then also delivered, wherever this is given up.
            let Ok(room) = self.signals.reserve().await else { return false };
            match self.machine.poll_output() {
                None => return true,
                Some(Output::Event(event)) => room.send(Signal::Event(event)),
                Some(Output::Run(call)) => {
                    let cancelled = CancellationToken::new();
                    self.running.insert(call.number, cancelled.clone());
                    self.tools.spawn(work_folder::run(self.directory.clone(), call, news.clone(), cancelled));
                }
                Some(Output::Cancel(call)) => {
                    if let Some(cancelled) = self.running.remove(&call) {
                        cancelled.cancel();
                    }
                }
            }
        }
    }

    fn news(&mut self, news: News) {
        let now = self.wall.now();
        match news {
            News::Output { call, output } => self.machine.tool_output(now, call, output),
            News::Done { call, outcome, change } => {
                self.running.remove(&call);
                self.machine.tool_done(now, call, outcome, change);
            }
        }
    }

    fn command(&mut self, command: Command) -> Result<Option<Value>, CommandError> {
        let now = self.wall.now();
        let waits = |what: String| move |NothingWaits| CommandError::NotFound { what };
        match command {
            Command::Prompt(prompt) => {
                let message = self.machine.prompt(now, &prompt);
                return Ok(Some(json!({ "messageId": message })));
            }
            Command::Abort => self.machine.abort(now),
            Command::Permission { id, reply, message } => {
                let message = message.filter(|_| reply == PermissionReply::Reject);
                self.machine
                    .permission(now, &id, reply, message.as_deref())
                    .map_err(waits(format!("the permission {id}")))?;
            }
            Command::Question(answer) => {
                let what = format!("the question {}", answer.id);
                self.machine.question(now, &answer.id, Some(&answer)).map_err(waits(what))?;
            }
            Command::QuestionReject { id } => {
                self.machine.question(now, &id, None).map_err(waits(format!("the question {id}")))?;
            }
            Command::Slash { .. } => return Err(CommandError::Unsupported { what: "take slash commands" }),
            Command::Revert { .. } | Command::Unrevert => {
                return Err(CommandError::Unsupported { what: "take files back" });
            }
            Command::Fork { .. } => return Err(CommandError::Unsupported { what: "fork its session" }),
            Command::Network { id } | Command::NetworkReject { id } => {
                return Err(CommandError::NotFound { what: format!("the network request {id}") });
            }
            Command::Stop { .. } | Command::Ping | _ => {
                return Err(CommandError::Unsupported { what: "do that" });
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests;
