//! The rules of the ingest link from the wrapper's side (§6), pure: what to do when.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use protocol::{
    AgentId, Backoff, CloseCode, Command, CommandId, CommandResult, ErrorCode, ProducerId, Timestamp, TownId,
    config::SealedConfig,
    frame::{FromWrapper, IngestLimits, RuntimeInfo, ToWrapper, WrapperState},
    limits,
};

use super::LinkState;
use crate::{
    Moment,
    outbox::{Batch, Progress},
};

const HEARTBEAT: Duration = Duration::from_millis(limits::HEARTBEAT_MS);
const PING_AFTER: Duration = Duration::from_millis(limits::PING_AFTER_MS);
const PONG_WITHIN: Duration = Duration::from_millis(limits::PONG_WITHIN_MS);
/// A relay that lets the TCP or TLS handshake, or the `hello`, wait for longer is tried again.
const GREETING: Duration = Duration::from_secs(15);
/// A link that was live for so long was no failure.
const STABLE: Duration = Duration::from_secs(10);
/// A relay that does nothing but refuse for so long means it: a deployment may swap its key for a moment, and a lost link
/// never stops the agent.
const REFUSED_FOR: Duration = Duration::from_secs(60);
/// Commands whose results are remembered.
const REMEMBERED: usize = 1_024;
/// When a refused append is sent again, if the relay does not say.
const RETRY: Duration = Duration::from_secs(1);

/// What a link is to do next.
#[derive(Debug, PartialEq)]
pub(super) enum Action {
    /// Connect; the answer is [`Machine::handle_connected`] or [`Machine::handle_disconnected`].
    Connect,
    /// Send this frame.
    Send(FromWrapper),
    /// Send a WebSocket ping: the relay has been silent, and is there if it answers.
    Ping,
    /// Tell the outbox through which number the relay has everything; the answer is [`Machine::handle_resumed`].
    Resume { acked: u64 },
    /// Read the next events; the answer is [`Machine::handle_read`].
    Read { after: u64, max_events: usize, max_bytes: usize },
    /// Tell the outbox that these are committed.
    Ack { through: u64 },
    /// Tell the outbox that this event will never be taken.
    Replace { number: u64, reason: &'static str },
    /// Hand this to the wrapper; if it has no room, [`Machine::handle_result`] with a refusal.
    Deliver { id: CommandId, command: Command },
    /// This is the town's config.
    Configure(SealedConfig),
    /// Close the connection, with this code if it is still of use; nothing of it is handled any more.
    Close { code: CloseCode, reason: String },
}

/// Who speaks.
#[derive(Debug, Clone)]
pub(super) struct Identity {
    pub(super) agent: AgentId,
    pub(super) town: TownId,
    pub(super) producer: ProducerId,
    pub(super) generation: u64,
    pub(super) runtime: RuntimeInfo,
}

/// The link's machine: over any number of connections.
#[derive(Debug)]
pub(super) struct Machine {
    identity: Identity,
    phase: Phase,
    actions: VecDeque<Action>,
    outbox: Progress,
    presence: Option<(WrapperState, Timestamp)>,
    commands: Commands,
    backoff: Backoff,
    /// When there was no live link any more.
    down_since: Moment,
    /// Since then every attempt was refused.
    refused_since: Option<Moment>,
    heard_at: Moment,
    /// The relay was asked whether it is there, and has not answered.
    asked_at: Option<Moment>,
    spoke_at: Moment,
}

#[derive(Debug)]
enum Phase {
    /// There is no connection until then.
    Waiting {
        until: Moment,
    },
    /// A connection is being made, or greeted, or the outbox is told of it.
    Opening {
        give_up: Moment,
        limits: Option<IngestLimits>,
    },
    Live(Live),
    /// No more.
    Over(LinkState),
}

#[derive(Debug)]
struct Live {
    since: Moment,
    limits: IngestLimits,
    /// The last number sent on this connection, or committed before it.
    sent: u64,
    /// Appends that are not acked: last number, events, bytes.
    in_flight: VecDeque<(u64, usize, usize)>,
    reading: bool,
    /// A read that began before a refusal is not to be sent.
    stale_read: bool,
    hold_until: Option<Moment>,
    /// The relay refused from this number on, and takes nothing until it comes.
    owed: Option<u64>,
    /// The relay goes down: when to come back.
    draining: Option<Moment>,
}

/// What was asked, by id: each is carried out once.
#[derive(Debug, Default)]
struct Commands {
    results: BTreeMap<CommandId, Option<CommandResult>>,
    answered: VecDeque<CommandId>,
}

impl Machine {
    pub(super) fn new(identity: Identity, seed: u64, outbox: Progress, now: Moment) -> Self {
        Self {
            identity,
            phase: Phase::Waiting { until: now },
            actions: VecDeque::new(),
            outbox,
            presence: None,
            commands: Commands::default(),
            backoff: Backoff::new(seed),
            down_since: now,
            refused_since: None,
            heard_at: now,
            asked_at: None,
            spoke_at: now,
        }
    }

    pub(super) fn state(&self) -> LinkState {
        match &self.phase {
            Phase::Waiting { .. } | Phase::Opening { .. } => LinkState::Down { since: self.down_since },
            Phase::Live(live) if live.draining.is_some() => LinkState::Draining,
            Phase::Live(_) => LinkState::Live,
            Phase::Over(state) => state.clone(),
        }
    }

    /// Nothing follows but what [`Self::poll`] still yields.
    pub(super) fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Over(_))
    }

    /// When [`Self::poll`] is to be called again, if nothing else happens.
    pub(super) fn deadline(&self) -> Option<Moment> {
        match &self.phase {
            Phase::Waiting { until } => Some(*until),
            Phase::Opening { give_up, .. } => Some(*give_up),
            Phase::Live(live) => {
                let beat = (self.spoke_at + HEARTBEAT).min(self.silent_until());
                Some([live.hold_until, live.draining].into_iter().flatten().fold(beat, Moment::min))
            }
            Phase::Over(_) => None,
        }
    }

    /// What to do next; `None` until the next input or the deadline.
    pub(super) fn poll(&mut self, now: Moment) -> Option<Action> {
        if self.actions.is_empty() {
            self.act(now);
        }
        let action = self.actions.pop_front();
        if let Some(Action::Send(_)) = action {
            self.spoke_at = now;
        }
        action
    }

    /// The connection is there.
    pub(super) fn handle_connected(&mut self, now: Moment) {
        if !matches!(self.phase, Phase::Opening { .. }) {
            return;
        }
        self.hear(now);
        self.spoke_at = now;
        let Identity { agent, town, producer, generation, runtime } = self.identity.clone();
        let wrapper_version = env!("CARGO_PKG_VERSION").to_owned();
        // Of a producer that the relay does not know it takes this number first.
        let next = self.outbox.acked + 1;
        self.actions.push_back(Action::Send(FromWrapper::Hello {
            protocol: 1,
            wrapper_version,
            agent,
            town,
            producer,
            generation,
            runtime,
            next,
        }));
    }

    /// There is no connection any more, or none came about. The code is the peer's.
    pub(super) fn handle_disconnected(&mut self, now: Moment, close: Option<(CloseCode, String)>) {
        self.actions.retain(|action| {
            matches!(
                action,
                Action::Ack { .. } | Action::Replace { .. } | Action::Configure(_) | Action::Deliver { .. }
            )
        });
        let until = match &self.phase {
            Phase::Waiting { .. } | Phase::Over(_) => return,
            Phase::Live(Live { draining: Some(back), .. }) => Some(*back),
            Phase::Live(live) => {
                if now.since(live.since) >= STABLE {
                    self.backoff.reset();
                    self.refused_since = None;
                }
                None
            }
            Phase::Opening { .. } => None,
        };
        if matches!(self.phase, Phase::Live(_)) {
            self.down_since = now;
        }
        match close {
            Some((CloseCode::SUPERSEDED, _)) => return self.phase = Phase::Over(LinkState::Superseded),
            Some((
                code @ (CloseCode::BAD_REQUEST | CloseCode::UNAUTHENTICATED | CloseCode::FORBIDDEN),
                message,
            )) => {
                let since = *self.refused_since.get_or_insert(now);
                if now.since(since) >= REFUSED_FOR {
                    return self.phase = Phase::Over(LinkState::Refused { code, message });
                }
            }
            Some(_) | None => self.refused_since = None,
        }
        let until = until.unwrap_or_else(|| now + self.backoff.fail());
        self.phase = Phase::Waiting { until };
    }

    /// Something came from the relay that is no frame: a sign of life.
    pub(super) fn handle_sign_of_life(&mut self, now: Moment) {
        self.hear(now);
    }

    /// A frame came.
    pub(super) fn handle_frame(&mut self, now: Moment, frame: ToWrapper) {
        self.hear(now);
        match (frame, &mut self.phase) {
            (
                ToWrapper::Welcome { acked, limits, config, .. },
                Phase::Opening { limits: welcomed @ None, .. },
            ) => {
                *welcomed = Some(limits);
                self.actions.extend(config.map(Action::Configure));
                self.actions.push_back(Action::Resume { acked });
            }
            (ToWrapper::Ack { through, .. }, Phase::Live(live)) => {
                live.acked(through);
                self.refused_since = None;
                self.actions.push_back(Action::Ack { through });
            }
            (ToWrapper::Nack { first, code, retry_after_ms, .. }, Phase::Live(live)) => {
                live.refused_from(first);
                if code == ErrorCode::TooLarge {
                    self.actions.push_back(Action::Replace { number: first, reason: "too_large" });
                } else {
                    live.hold_until = Some(now + retry_after_ms.map_or(RETRY, Duration::from_millis));
                }
            }
            (ToWrapper::Command { id, command, config }, Phase::Live(_)) => match self.commands.ask(&id) {
                Asked::First => {
                    self.actions.extend(config.map(Action::Configure));
                    self.actions.push_back(Action::Deliver { id, command });
                }
                Asked::UnderWay => {}
                Asked::Answered(result) => self.say_result(result),
            },
            (ToWrapper::Draining { retry_after_ms }, Phase::Live(live)) => {
                live.draining = Some(now + Duration::from_millis(retry_after_ms));
            }
            (ToWrapper::Superseded, Phase::Live(_) | Phase::Opening { .. }) => {
                self.finish(LinkState::Superseded, CloseCode::NORMAL, "superseded");
            }
            // A heartbeat was heard, and that is all; and what a relay may not say yet, or twice, is no word to act on.
            (
                ToWrapper::Heartbeat
                | ToWrapper::Welcome { .. }
                | ToWrapper::Ack { .. }
                | ToWrapper::Nack { .. }
                | ToWrapper::Command { .. }
                | ToWrapper::Draining { .. }
                | ToWrapper::Superseded,
                _,
            ) => {}
            (_, _) => tracing::debug!("a frame of a newer relay is passed over"),
        }
    }

    /// The outbox knows how far the relay is.
    pub(super) fn handle_resumed(&mut self, now: Moment, acked: u64) {
        let Phase::Opening { limits: Some(limits), .. } = self.phase else { return };
        self.phase = Phase::Live(Live {
            since: now,
            limits,
            sent: acked,
            in_flight: VecDeque::new(),
            reading: false,
            stale_read: false,
            hold_until: None,
            owed: None,
            draining: None,
        });
        if let Some((state, last_activity)) = self.presence {
            self.actions.push_back(Action::Send(FromWrapper::Presence { state, last_activity }));
        }
    }

    /// How far the outbox is by now.
    pub(super) fn handle_progress(&mut self, outbox: Progress) {
        self.outbox = outbox;
    }

    /// What the outbox has after what was sent.
    pub(super) fn handle_read(&mut self, now: Moment, batch: Option<Batch>) {
        let Phase::Live(live) = &mut self.phase else { return };
        live.reading = false;
        if std::mem::take(&mut live.stale_read) {
            return;
        }
        let Some(Batch { first, events, bytes }) = batch else { return };
        if live.owed.take().is_some_and(|owed| first > owed) {
            // The refused event was dropped in the meantime. This relay waits for just that number; one that is
            // greeted again takes the notice.
            return self.cut(now, "what was refused is not there any more");
        }
        live.sent = first + events.len() as u64 - 1;
        live.in_flight.push_back((live.sent, events.len(), bytes));
        self.actions.push_back(Action::Send(FromWrapper::Append { first, events }));
    }

    /// The wrapper answers a command.
    pub(super) fn handle_result(&mut self, result: CommandResult) {
        self.commands.answer(&result);
        self.say_result(result);
    }

    /// How the wrapper is.
    pub(super) fn handle_presence(&mut self, state: WrapperState, last_activity: Timestamp) {
        self.presence = Some((state, last_activity));
        if matches!(self.phase, Phase::Live(_)) {
            self.actions.push_back(Action::Send(FromWrapper::Presence { state, last_activity }));
        }
    }

    /// The wrapper ends.
    pub(super) fn handle_bye(&mut self, reason: &str) {
        if matches!(self.phase, Phase::Live(_)) {
            self.actions.push_back(Action::Send(FromWrapper::Bye { reason: reason.to_owned() }));
        }
        let state = match &self.phase {
            Phase::Over(state) => state.clone(),
            Phase::Waiting { .. } | Phase::Opening { .. } | Phase::Live(_) => {
                LinkState::Down { since: self.down_since }
            }
        };
        self.finish(state, CloseCode::NORMAL, reason);
    }

    /// The outbox failed: the link begins anew.
    pub(super) fn handle_outbox_failed(&mut self, now: Moment) {
        self.cut(now, "the outbox failed");
    }

    fn act(&mut self, now: Moment) {
        let silent_until = self.silent_until();
        match &mut self.phase {
            Phase::Waiting { until } if now >= *until => {
                self.phase = Phase::Opening { give_up: now + GREETING, limits: None };
                self.actions.push_back(Action::Connect);
            }
            Phase::Opening { give_up, .. } if now >= *give_up => self.cut(now, "the relay did not answer"),
            Phase::Live(_) if now >= silent_until => match self.asked_at {
                None => {
                    self.asked_at = Some(now);
                    self.actions.push_back(Action::Ping);
                }
                Some(_) => self.cut(now, "the relay is silent, and answers no ping"),
            },
            Phase::Live(Live { draining: Some(back), .. }) if now >= *back => {
                self.cut(now, "the relay goes down")
            }
            Phase::Live(live) => {
                if live.hold_until.is_some_and(|until| now >= until) {
                    live.hold_until = None;
                }
                if let Some(read) = live.next_read(self.outbox.next) {
                    self.actions.push_back(read);
                } else if now >= self.spoke_at + HEARTBEAT {
                    self.actions.push_back(Action::Send(FromWrapper::Heartbeat));
                }
            }
            Phase::Waiting { .. } | Phase::Opening { .. } | Phase::Over(_) => {}
        }
    }

    fn hear(&mut self, now: Moment) {
        (self.heard_at, self.asked_at) = (now, None);
    }

    /// When the relay is to be asked whether it is there, or given up.
    fn silent_until(&self) -> Moment {
        match self.asked_at {
            None => self.heard_at + PING_AFTER,
            Some(asked) => asked + PONG_WITHIN,
        }
    }

    fn say_result(&mut self, CommandResult { id, ok, error, data }: CommandResult) {
        // Without a link it is only remembered: a relay that asks again gets it then.
        if matches!(self.phase, Phase::Live(_)) {
            self.actions.push_back(Action::Send(FromWrapper::Result { id, ok, error, data }));
        }
    }

    fn cut(&mut self, now: Moment, reason: &str) {
        self.handle_disconnected(now, None);
        self.actions.push_back(Action::Close { code: CloseCode::NORMAL, reason: reason.to_owned() });
    }

    fn finish(&mut self, state: LinkState, code: CloseCode, reason: &str) {
        let connected = matches!(self.phase, Phase::Live(_) | Phase::Opening { .. });
        self.phase = Phase::Over(state);
        if connected {
            self.actions.push_back(Action::Close { code, reason: reason.to_owned() });
        }
    }
}

impl Live {
    fn next_read(&mut self, next: u64) -> Option<Action> {
        let (events, bytes) =
            self.in_flight.iter().fold((0, 0), |(e, b), (_, events, bytes)| (e + events, b + bytes));
        let room = self.limits.window.max(1).saturating_sub(events);
        // The next batch may be one event of the hard size, whatever is asked for.
        let fits = bytes + limits::INGEST_FRAME_BYTES <= limits::INGEST_WINDOW_BYTES;
        let waits = self.reading || self.hold_until.is_some() || self.draining.is_some();
        if waits || room == 0 || !fits || self.sent + 1 >= next {
            return None;
        }
        self.reading = true;
        let max_events = room.min(self.limits.max_batch_events.clamp(1, limits::BATCH_EVENTS));
        Some(Action::Read { after: self.sent, max_events, max_bytes: limits::BATCH_BYTES })
    }

    fn acked(&mut self, through: u64) {
        self.sent = self.sent.max(through);
        while self.in_flight.front().is_some_and(|(last, ..)| *last <= through) {
            self.in_flight.pop_front();
        }
    }

    fn refused_from(&mut self, first: u64) {
        self.sent = self.sent.min(first.saturating_sub(1));
        self.in_flight.retain(|(last, ..)| *last < first);
        self.owed = Some(first);
        self.stale_read = self.reading;
    }
}

/// What an id is to the wrapper.
enum Asked {
    First,
    UnderWay,
    Answered(CommandResult),
}

impl Commands {
    fn ask(&mut self, id: &CommandId) -> Asked {
        match self.results.get(id) {
            Some(Some(result)) => Asked::Answered(result.clone()),
            Some(None) => Asked::UnderWay,
            None => {
                self.results.insert(id.clone(), None);
                Asked::First
            }
        }
    }

    /// The oldest answers are forgotten; what is under way never is.
    fn answer(&mut self, result: &CommandResult) {
        let Some(slot @ None) = self.results.get_mut(&result.id) else { return };
        *slot = Some(result.clone());
        self.answered.push_back(result.id.clone());
        if self.answered.len() > REMEMBERED
            && let Some(oldest) = self.answered.pop_front()
        {
            self.results.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests;
