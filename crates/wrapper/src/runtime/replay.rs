//! Plays a recording of an agent as an agent: for the demo, for tests, for looking at a run again.
//!
//! A recording is a text file with one JSON object per line, `{"t_ms": 12.5, "event": {"type": …, "properties": …}}`: the
//! milliseconds at which an event came and the event as the agent's server sent it. Lines without an `event` are passed over.
//! Events keep their payloads byte for byte; their time is that of the replay. One that is repeated is played as if it happened
//! now: the times in its payloads are moved as well, and from the second round on its ids. So it is at the next start, which goes on in
//! the same session with another round. [`Recorder`] makes such a file of an agent's log
//! (`gastown record`); a file of what a server said, unfiltered, is one too.
//!
//! What people said is in it as the server told it: prompts as messages of the user, answers as `permission.replied` and the like.
//! Nobody thinks behind a recording: it takes no prompt and no answer, and says so. With [`Speed::Step`] a prompt plays the next
//! event, or as many as it says (`"25"`).

mod recorder;
mod recording;

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    str::FromStr,
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use protocol::{Command, NewEvent, Prompt, Timestamp, agent::Failed, frame::RuntimeInfo};
use serde_json::{Value, json};
use tokio::{sync::mpsc, time::sleep_until};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{AgentControl, AgentRuntime, CommandError, Ended, RunningAgent, SIGNALS, Signal, Start, failed};
use crate::{Clock, Moment, Options, OptionsError};

use recording::Round;

pub use recorder::Recorder;
pub use recording::{Recording, RecordingError};

/// Rest before a recording that is repeated begins again.
const BETWEEN_ROUNDS: Duration = Duration::from_secs(15);

/// Where the state folder has the number of the round that is played, from the second one on.
const ROUND_FILE: &str = "replay-round";

/// How fast a recording is played.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Speed {
    /// So many times as fast as it was.
    Times(f64),
    /// Without any pause.
    Max,
    /// An event per prompt.
    Step,
}

/// A text is no speed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{found:?} is no speed: give a factor such as 4, `max` or `step`")]
pub struct SpeedError {
    found: String,
}

impl FromStr for Speed {
    type Err = SpeedError;

    fn from_str(text: &str) -> Result<Self, SpeedError> {
        match text {
            "max" => Ok(Self::Max),
            "step" => Ok(Self::Step),
            _ => match text.parse() {
                Ok(times) if times > 0.0 && f64::is_finite(times) => Ok(Self::Times(times)),
                Ok(_) | Err(_) => Err(SpeedError { found: text.chars().take(40).collect() }),
            },
        }
    }
}

/// Plays a recording file.
#[derive(Debug)]
pub struct Replay {
    file: PathBuf,
    speed: Speed,
    repeat: bool,
}

impl Replay {
    /// Plays this file once, at its own speed.
    pub fn new(file: impl Into<PathBuf>) -> Self {
        Self { file: file.into(), speed: Speed::Times(1.0), repeat: false }
    }

    /// From a wrapper's options.
    ///
    /// # Errors
    /// When `--recording` is missing, or `--speed` is not understood.
    pub fn from_options(options: &Options) -> Result<Self, OptionsError> {
        let file = options
            .recording
            .clone()
            .ok_or(OptionsError::Missing { runtime: "replay", option: "--recording" })?;
        let speed = options.speed.parse().map_err(|SpeedError { found }| OptionsError::Invalid {
            option: "--speed",
            value: found,
            expected: "give a factor such as 4, `max` or `step`",
        })?;
        Ok(Self::new(file).with_speed(speed).with_repeat(options.repeat))
    }

    /// Plays it at this speed.
    #[must_use]
    pub fn with_speed(self, speed: Speed) -> Self {
        Self { speed, ..self }
    }

    /// Begins again when it is through, each time as if it happened then.
    #[must_use]
    pub fn with_repeat(self, repeat: bool) -> Self {
        Self { repeat, ..self }
    }
}

#[async_trait]
impl AgentRuntime for Replay {
    fn name(&self) -> &'static str {
        "replay"
    }

    async fn start(&self, start: Start) -> Result<RunningAgent, Failed> {
        let text = tokio::fs::read_to_string(&self.file).await.map_err(|error| {
            failed(format!("the recording {} cannot be read: {error}", self.file.display()))
        })?;
        let recording = Recording::parse(&text).map_err(|error| {
            let cause =
                std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
            failed(format!("{}: {error}{cause}", self.file.display()))
        })?;
        let session = recording.root().to_owned();
        let (signals, receiver) = mpsc::channel(SIGNALS);
        let last = signals.clone().reserve_owned().await.expect("the receiver is in this function");
        let (steps, more) = mpsc::channel(16);
        let (stop, agent) = (CancellationToken::new(), TaskTracker::new());
        let began = start.clock.now();
        let resumed = start.resume.as_deref() == Some(session.as_str());
        let round_file = start.state_dir.join(ROUND_FILE);
        let round = if resumed { another_round(&round_file).await? } else { 0 };
        let player = Player::new(recording, self.speed, self.repeat, began).at_round(round);
        let driver = Driver { player, round_file, clock: start.clock, signals, stop: stop.clone() };
        agent.spawn(async move {
            let reason = driver.run(more).await.to_owned();
            last.send(Signal::Ended(Ended::Exited { reason, code: None }));
        });
        agent.close();
        Ok(RunningAgent {
            info: RuntimeInfo { name: "replay".to_owned(), version: env!("CARGO_PKG_VERSION").to_owned() },
            resumed,
            session,
            context_limits: BTreeMap::new(),
            signals: receiver,
            control: Arc::new(Control { steps: (self.speed == Speed::Step).then_some(steps), stop, agent }),
        })
    }
}

/// Which event is next, and when. Pure.
#[derive(Debug)]
struct Player {
    recording: Recording,
    speed: Speed,
    repeat: bool,
    /// The event that comes next, in which round, and when the round began.
    next: usize,
    round: u64,
    began: Moment,
    /// The same on the clock, once its first event was taken.
    began_at: Timestamp,
    /// Events that steps have asked for.
    asked: u64,
}

impl Player {
    fn new(recording: Recording, speed: Speed, repeat: bool, began: Moment) -> Self {
        Self { recording, speed, repeat, next: 0, round: 0, began, began_at: Timestamp::default(), asked: 0 }
    }

    /// Begins with this round.
    fn at_round(self, round: u64) -> Self {
        Self { round, ..self }
    }

    /// When the next event is due: `None` if it waits for a step, or if there is none.
    fn due(&self) -> Option<Moment> {
        let at = Duration::from_micros(self.recording.at_us(self.next)?);
        match self.speed {
            Speed::Times(times) => Some(self.began + at.div_f64(times)),
            Speed::Max => Some(self.began),
            Speed::Step => (self.asked > 0).then_some(self.began),
        }
    }

    /// The next event, if it is due.
    fn take(&mut self, now: Moment, time: Timestamp) -> Option<NewEvent> {
        if self.due()? > now {
            return None;
        }
        if self.next == 0 {
            self.began_at = time;
        }
        let event = if self.repeat || self.round > 0 {
            self.recording.event_of_round(self.next, self.round(), time)?
        } else {
            self.recording.event(self.next, time)?
        };
        self.asked = self.asked.saturating_sub(1);
        self.next += 1;
        if self.repeat && self.next == self.recording.len() {
            self.next = 0;
            self.round += 1;
            let rest = match self.speed {
                Speed::Times(times) => BETWEEN_ROUNDS.div_f64(times),
                Speed::Max | Speed::Step => Duration::ZERO,
            };
            self.began = now + rest;
        }
        Some(event)
    }

    fn round(&self) -> Round {
        let speed = match self.speed {
            Speed::Times(times) => times,
            Speed::Max | Speed::Step => 1.0,
        };
        Round { number: self.round, began: self.began_at, speed }
    }

    fn is_through(&self) -> bool {
        self.next == self.recording.len()
    }
}

#[derive(Debug)]
struct Driver {
    player: Player,
    round_file: PathBuf,
    clock: Clock,
    signals: mpsc::Sender<Signal>,
    stop: CancellationToken,
}

impl Driver {
    /// Plays to the end, or until it is stopped. Returns why it ended.
    async fn run(mut self, mut more: mpsc::Receiver<u64>) -> &'static str {
        let stop = self.stop.clone();
        let stepwise = self.player.speed == Speed::Step;
        while !self.player.is_through() {
            let due = self.player.due();
            tokio::select! {
                () = stop.cancelled() => return "stopped",
                steps = more.recv(), if stepwise => match steps {
                    Some(steps) => self.player.asked = self.player.asked.saturating_add(steps),
                    None => return "stopped",
                },
                () = sleep_until(self.clock.instant(due.unwrap_or_default())), if due.is_some() => {
                    let now = self.clock.now().max(due.unwrap_or_default());
                    let round = self.player.round;
                    let Some(event) = self.player.take(now, self.clock.timestamp()) else { continue };
                    tokio::select! {
                        () = stop.cancelled() => return "stopped",
                        sent = self.signals.send(Signal::Event(event)) => if sent.is_err() { return "stopped" },
                    }
                    if self.player.round > round
                        && let Err(error) = keep_round(&self.round_file, self.player.round).await
                    {
                        tracing::warn!(%error, "the round cannot be kept: the next start repeats its ids");
                    }
                }
            }
        }
        "finished"
    }
}

#[derive(Debug)]
struct Control {
    /// Where steps are asked for, if it is played stepwise.
    steps: Option<mpsc::Sender<u64>>,
    stop: CancellationToken,
    agent: TaskTracker,
}

#[async_trait]
impl AgentControl for Control {
    async fn command(&self, command: Command) -> Result<Option<Value>, CommandError> {
        let unsupported = |what| Err(CommandError::Unsupported { what });
        match command {
            Command::Prompt(prompt) => {
                let Some(steps) = &self.steps else { return unsupported("take prompts: it is a recording") };
                let events = steps_of(&prompt);
                let through =
                    |_| CommandError::Unreachable { message: "the recording is through".to_owned() };
                steps.send(events).await.map_err(through)?;
                Ok(Some(json!({ "events": events })))
            }
            Command::Abort => unsupported("be aborted: it is a recording"),
            Command::Permission { .. }
            | Command::Question(_)
            | Command::QuestionReject { .. }
            | Command::Network { .. }
            | Command::NetworkReject { .. } => unsupported("be answered: the answer is in the recording"),
            Command::Slash { .. }
            | Command::Revert { .. }
            | Command::Unrevert
            | Command::Fork { .. }
            | Command::Stop { .. }
            | Command::Ping
            | _ => unsupported("do that: it is a recording"),
        }
    }

    async fn stop(&self) {
        self.stop.cancel();
        self.agent.wait().await;
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// The round of a start that goes on with a session. It is kept before it is played: no two have the same ids.
async fn another_round(file: &Path) -> Result<u64, Failed> {
    let failed = |error: io::Error| failed(format!("{} cannot be kept: {error}", file.display()));
    let last = match tokio::fs::read_to_string(file).await {
        Ok(text) => text.trim().parse().map_err(|error| failed(io::Error::other(error)))?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
        Err(error) => return Err(failed(error)),
    };
    keep_round(file, last + 1).await.map_err(failed)?;
    Ok(last + 1)
}

/// Whole or not at all: a wrapper may die at any time.
async fn keep_round(file: &Path, round: u64) -> io::Result<()> {
    let draft = file.with_extension("new");
    tokio::fs::write(&draft, round.to_string()).await?;
    tokio::fs::rename(draft, file).await
}

/// How many events a prompt asks for: the number it says, or one.
fn steps_of(prompt: &Prompt) -> u64 {
    prompt.text.as_deref().and_then(|text| text.trim().parse().ok()).filter(|steps| *steps > 0).unwrap_or(1)
}

#[cfg(test)]
mod tests;
