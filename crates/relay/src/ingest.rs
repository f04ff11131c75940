//! One wrapper's link (§6): hello, resume, dedupe, ack after commit, fencing, commands.
//!
//! The machine appends one batch at a time; what comes meanwhile is merged into the next one, within the window. It acks
//! only what the store has said is committed.

use std::{
    collections::{BTreeSet, VecDeque},
    time::{Duration, Instant},
};

use bytes::Bytes;
use protocol::{
    AgentId, CloseCode, Command, CommandId, CommandResult, ErrorCode, ErrorDetail, NewEvent, ProducerId, Seq,
    Timestamp, TownId,
    codec::Frame,
    config::SealedConfig,
    frame::{FromWrapper, IngestLimits, RuntimeInfo, ToWrapper, WrapperState},
    limits,
};
use store::{Append, AppendError, Appended, ProducerBatch};

use crate::{viewer::close_reason, websocket::Fault};

/// When that is to be sent again which a store without space refused.
pub(crate) const RETRY_FULL_MS: u64 = 1_000;

/// What an ingest link is to do next.
#[derive(Debug)]
pub enum Action {
    /// Send this text frame.
    Send(Bytes),
    /// May this wrapper bring in events, and through which of its numbers are they committed? Register its generation.
    /// The answer is [`Ingest::handle_opened`] or [`Ingest::handle_refused`].
    Open(Hello),
    /// A wrapper of another protocol is turned away: whoever launched it is to know.
    TurnAway(Hello),
    /// Commit these; the answer is [`Ingest::handle_appended`] or [`Ingest::handle_append_failed`].
    Append(Append),
    /// The wrapper said how it is.
    Presence {
        /// Its state.
        state: WrapperState,
        /// When its agent last gave a sign of life.
        last_activity: Timestamp,
    },
    /// The wrapper answered a command.
    Result(CommandResult),
    /// Close the link: nothing follows.
    Close {
        /// With this code.
        code: CloseCode,
        /// And this reason.
        reason: String,
    },
}

/// Who speaks on a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// The agent it owns.
    pub agent: AgentId,
    /// Its town.
    pub town: TownId,
    /// Who numbers the events.
    pub producer: ProducerId,
    /// Its generation.
    pub generation: u64,
    /// What it runs.
    pub runtime: RuntimeInfo,
    /// The wrapper's build.
    pub wrapper_version: String,
    /// The version of the protocol it speaks.
    pub protocol: u32,
    /// The number its next event will have.
    pub next: u64,
}

/// The protocol machine of one ingest link.
#[derive(Debug)]
pub struct Ingest {
    state: State,
    out: VecDeque<Bytes>,
    asks: VecDeque<Action>,
    /// Commands given to this link and not yet answered.
    commands: BTreeSet<CommandId>,
    heard_at: Instant,
    spoke_at: Instant,
    /// The wrapper said that it ends.
    said_bye: bool,
    closing: Closing,
}

#[derive(Debug)]
enum State {
    /// Nothing was said.
    Silent,
    /// `hello` was said, and the store is asked.
    Opening(Hello),
    Live(Live),
}

#[derive(Debug)]
struct Live {
    hello: Hello,
    /// Through which number events are committed, and the head of the log then.
    acked: u64,
    head: Seq,
    /// The number that the next event must have.
    expected: u64,
    /// What waits for the append before it.
    queue: VecDeque<Batch>,
    /// The first number of the append that is under way.
    appending: Option<u64>,
    /// Events were refused: what was sent after them is ignored until they are sent again.
    rejecting: bool,
}

/// Events with consecutive numbers, for one append.
#[derive(Debug)]
struct Batch {
    first: u64,
    events: Vec<NewEvent>,
    bytes: usize,
}

#[derive(Debug)]
enum Closing {
    No,
    /// When everything was said.
    Soon(CloseCode, String),
    Closed,
}

impl Ingest {
    /// A link that was just accepted.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self {
            state: State::Silent,
            out: VecDeque::new(),
            asks: VecDeque::new(),
            commands: BTreeSet::new(),
            heard_at: now,
            spoke_at: now,
            said_bye: false,
            closing: Closing::No,
        }
    }

    /// Who speaks, once it is known and was let in.
    #[must_use]
    pub fn hello(&self) -> Option<&Hello> {
        match &self.state {
            State::Silent | State::Opening(_) => None,
            State::Live(live) => Some(&live.hello),
        }
    }

    /// Whether the wrapper ended by its own will: its silence is then no loss.
    #[must_use]
    pub fn said_bye(&self) -> bool {
        self.said_bye
    }

    /// Whether more frames may be read. While it is false the network holds the wrapper back.
    #[must_use]
    pub fn wants_input(&self) -> bool {
        match &self.state {
            State::Silent => true,
            State::Opening(_) => false,
            State::Live(live) => {
                let (events, bytes) = live.queue.iter().fold((0, 0), |(events, bytes), batch| {
                    (events + batch.events.len(), bytes + batch.bytes)
                });
                events < limits::INGEST_WINDOW_EVENTS && bytes < limits::INGEST_WINDOW_BYTES
            }
        }
    }

    /// When [`Ingest::handle_time`] is due.
    #[must_use]
    pub fn deadline(&self) -> Instant {
        (self.heard_at + DEAD).min(self.spoke_at + HEARTBEAT)
    }

    /// What to do next; `None` until the next input.
    pub fn poll(&mut self, now: Instant) -> Option<Action> {
        if matches!(self.closing, Closing::Closed) {
            return None;
        }
        if let Some(frame) = self.out.pop_front() {
            self.spoke_at = now;
            return Some(Action::Send(frame));
        }
        if let Some(ask) = self.asks.pop_front() {
            return Some(ask);
        }
        if let Closing::Soon(code, reason) = std::mem::replace(&mut self.closing, Closing::Closed) {
            return Some(Action::Close { code, reason });
        }
        self.closing = Closing::No;
        match &mut self.state {
            State::Live(live) => live.next_append().map(Action::Append),
            State::Silent | State::Opening(_) => None,
        }
    }

    /// A text frame of the wrapper came.
    pub fn handle_text(&mut self, now: Instant, text: &[u8]) {
        self.heard_at = now;
        if !matches!(self.closing, Closing::No) {
            return;
        }
        match FromWrapper::decode(text) {
            Ok(frame) => self.handle_frame(frame),
            Err(error) => self.fail(error.code(), &error.to_string()),
        }
    }

    /// A binary message came: nobody sends any here.
    pub fn handle_binary(&mut self) {
        self.close(CloseCode(1003), "frames are text");
    }

    /// The wrapper broke the protocol below the frames.
    pub fn handle_fault(&mut self, fault: &Fault) {
        let code = match fault {
            Fault::TooLarge { .. } => CloseCode::TOO_LARGE,
            Fault::Protocol(_) | Fault::NotUtf8 => CloseCode(fault.close_code()),
        };
        self.close(code, &fault.to_string());
    }

    /// The wrapper has closed the link, and was answered.
    pub fn handle_closed(&mut self) {
        self.close(CloseCode::NORMAL, "the wrapper closed the link");
    }

    /// Something else of the wrapper came: a sign of life.
    pub fn handle_sign_of_life(&mut self, now: Instant) {
        self.heard_at = now;
    }

    /// The wrapper is let in, and its generation is registered: `registered` says through which of its numbers events are
    /// committed. The config, if there is one, is told it.
    pub fn handle_opened(&mut self, registered: &Appended, config: Option<SealedConfig>) {
        let hello = match std::mem::replace(&mut self.state, State::Silent) {
            State::Opening(hello) => hello,
            state @ (State::Silent | State::Live(_)) => {
                self.state = state;
                return;
            }
        };
        // The first number of a producer that the log does not know is taken as it is.
        let &Appended { acked, head, .. } = registered;
        let expected = if acked == 0 { hello.next.max(1) } else { acked + 1 };
        let queue = VecDeque::new();
        self.state =
            State::Live(Live { hello, acked, head, expected, queue, appending: None, rejecting: false });
        let limits = IngestLimits::default();
        self.say(&ToWrapper::Welcome { protocol: protocol::PROTOCOL, acked, limits, config });
    }

    /// The wrapper is not let in.
    pub fn handle_refused(&mut self, why: &ErrorDetail) {
        self.fail(why.code, &why.message);
    }

    /// The batch is committed: it is acked.
    pub fn handle_appended(&mut self, appended: &Appended) {
        let State::Live(live) = &mut self.state else { return };
        live.appending = None;
        (live.acked, live.head) = (appended.acked, appended.head);
        self.say(&ToWrapper::Ack { through: appended.acked, seq: appended.head });
    }

    /// The batch is not committed.
    pub fn handle_append_failed(&mut self, error: &AppendError) {
        let State::Live(live) = &mut self.state else { return };
        let Some(first) = live.appending.take() else { return };
        let (first, code, retry_after_ms) = match error {
            AppendError::Fenced { .. } => return self.handle_superseded(),
            AppendError::Hole { .. } => return self.fail(ErrorCode::BadRequest, &error.to_string()),
            AppendError::TooLarge { index, .. } => (first + *index as u64, ErrorCode::TooLarge, None),
            AppendError::Store(store) if store.is_retryable() => {
                (first, ErrorCode::StoreFull, Some(RETRY_FULL_MS))
            }
            AppendError::Conflict { .. } | AppendError::Store(_) | _ => {
                return self.fail(ErrorCode::Internal, "the store failed: the relay's log says why");
            }
        };
        live.reject_from(first);
        self.say(&ToWrapper::Nack { first, code, message: error.to_string(), retry_after_ms });
    }

    /// The agent is to do this, with this config from its next turn on. False if this link gave it already.
    pub fn handle_command(&mut self, id: &CommandId, command: Command, config: Option<SealedConfig>) -> bool {
        let fresh = self.commands.insert(id.clone());
        if fresh {
            self.say(&ToWrapper::Command { id: id.clone(), command, config });
        }
        fresh
    }

    /// A newer generation has the agent.
    pub fn handle_superseded(&mut self) {
        self.say(&ToWrapper::Superseded);
        self.close(CloseCode::SUPERSEDED, "a newer generation has the agent");
    }

    /// The same wrapper came back on another link.
    pub fn handle_replaced(&mut self) {
        self.close(CloseCode::NORMAL, "the wrapper came back on another link");
    }

    /// The relay goes down.
    pub fn handle_drain(&mut self, retry_after_ms: u64) {
        self.say(&ToWrapper::Draining { retry_after_ms });
        self.close(CloseCode::DRAINING, "the relay goes down: come back");
    }

    /// The time of [`Ingest::deadline`] has come.
    pub fn handle_time(&mut self, now: Instant) {
        if now >= self.heard_at + DEAD {
            self.close(CloseCode::STALLED, "nothing was heard for 45 s");
        } else if now >= self.spoke_at + HEARTBEAT {
            self.spoke_at = now;
            self.say(&ToWrapper::Heartbeat);
        }
    }

    /// The link cannot go on.
    pub fn fail(&mut self, code: ErrorCode, message: &str) {
        self.close(code.close(), message);
    }

    fn handle_frame(&mut self, frame: FromWrapper) {
        match (frame, &mut self.state) {
            (
                FromWrapper::Hello {
                    protocol,
                    wrapper_version,
                    agent,
                    town,
                    producer,
                    generation,
                    runtime,
                    next,
                },
                State::Silent,
            ) => {
                let hello =
                    Hello { agent, town, producer, generation, runtime, wrapper_version, protocol, next };
                if protocol != protocol::PROTOCOL {
                    self.asks.push_back(Action::TurnAway(hello));
                    return self.fail(ErrorCode::BadRequest, "this relay speaks protocol 1");
                }
                self.state = State::Opening(hello.clone());
                self.asks.push_back(Action::Open(hello));
            }
            (_, State::Silent | State::Opening(_)) => self.fail(ErrorCode::BadRequest, "`hello` comes first"),
            (FromWrapper::Hello { .. }, State::Live(_)) => {
                self.fail(ErrorCode::BadRequest, "`hello` comes once");
            }
            (FromWrapper::Append { first, events }, State::Live(_)) => self.handle_append(first, events),
            (FromWrapper::Presence { state, last_activity }, State::Live(_)) => {
                self.asks.push_back(Action::Presence { state, last_activity });
            }
            (FromWrapper::Result { id, ok, error, data }, State::Live(_)) => {
                // What was not asked, or was answered, is nobody's answer.
                if self.commands.remove(&id) {
                    self.asks.push_back(Action::Result(CommandResult { id, ok, error, data }));
                }
            }
            (FromWrapper::Heartbeat, State::Live(_)) => {}
            (FromWrapper::Bye { .. }, State::Live(_)) => {
                self.said_bye = true;
                self.close(CloseCode::NORMAL, "bye");
            }
            (_, State::Live(_)) => self.fail(ErrorCode::BadRequest, "this relay knows no such frame"),
        }
    }

    fn handle_append(&mut self, first: u64, mut events: Vec<NewEvent>) {
        let State::Live(live) = &mut self.state else { return };
        let Some(end) = first.checked_add(events.len() as u64).filter(|_| first > 0) else {
            return self.fail(ErrorCode::BadRequest, "events are numbered from 1");
        };
        if events.len() > limits::BATCH_EVENTS {
            let message = format!("at most {} events in one append", limits::BATCH_EVENTS);
            return self.fail(ErrorCode::TooLarge, &message);
        }
        if first > live.expected {
            // A wrapper that lost events says so in the first event it has again, and its numbers go on from there.
            let named = events.first().is_some_and(|event| &*event.kind == "wrapper.events_dropped");
            if live.rejecting {
                // It was sent before the wrapper knew.
                return;
            }
            if !named {
                let message = format!("event {} is missing: the batch begins at {first}", live.expected);
                return self.fail(ErrorCode::BadRequest, &message);
            }
            live.expected = first;
        }
        live.rejecting = false;
        if end <= live.expected {
            if let Some(ack) = live.ack_again() {
                self.say(&ack);
            }
            return;
        }
        events.drain(..usize::try_from(live.expected - first).expect("it is less than the length"));
        let too_large =
            events.iter().position(|event| event.data.json().len() > limits::EVENT_DATA_HARD_BYTES);
        events.truncate(too_large.unwrap_or(events.len()));
        live.push(events);
        if too_large.is_some() {
            live.rejecting = true;
            let first = live.expected;
            let message = format!("an event's data has at most {} bytes", limits::EVENT_DATA_HARD_BYTES);
            self.say(&ToWrapper::Nack { first, code: ErrorCode::TooLarge, message, retry_after_ms: None });
        }
    }

    fn say(&mut self, frame: &ToWrapper) {
        if matches!(self.closing, Closing::No) {
            self.out.push_back(frame.encode());
        }
    }

    fn close(&mut self, code: CloseCode, reason: &str) {
        if matches!(self.closing, Closing::No) {
            self.closing = Closing::Soon(code, close_reason(reason));
        }
    }
}

impl Live {
    /// Takes events that have the expected numbers.
    fn push(&mut self, mut events: Vec<NewEvent>) {
        if events.is_empty() {
            return;
        }
        let first = self.expected;
        let bytes = events.iter().map(|event| event.data.json().len()).sum::<usize>();
        self.expected += events.len() as u64;
        match self.queue.back_mut() {
            Some(last)
                if last.end() == first
                    && last.events.len() + events.len() <= APPEND_EVENTS
                    && last.bytes + bytes <= limits::BATCH_BYTES =>
            {
                last.events.append(&mut events);
                last.bytes += bytes;
            }
            _ => self.queue.push_back(Batch { first, events, bytes }),
        }
    }

    fn next_append(&mut self) -> Option<Append> {
        if self.appending.is_some() {
            return None;
        }
        let Batch { first, events, .. } = self.queue.pop_front()?;
        self.appending = Some(first);
        let producer = self.hello.producer.clone();
        Some(Append::of(events).from_producer(ProducerBatch {
            producer,
            generation: self.hello.generation,
            first,
        }))
    }

    /// Nothing from this number on was taken: the wrapper sends it again.
    fn reject_from(&mut self, first: u64) {
        self.queue.clear();
        self.expected = first;
        self.rejecting = true;
    }

    /// The ack that a repetition is answered with; none while a later one is on its way.
    fn ack_again(&self) -> Option<ToWrapper> {
        let idle = self.appending.is_none() && self.queue.is_empty();
        (idle && self.acked > 0).then_some(ToWrapper::Ack { through: self.acked, seq: self.head })
    }
}

impl Batch {
    /// The number after its last event.
    fn end(&self) -> u64 {
        self.first + self.events.len() as u64
    }
}

/// Events in one append, at most: a larger commit keeps everyone waiting for it.
const APPEND_EVENTS: usize = 2 * limits::BATCH_EVENTS;
const DEAD: Duration = Duration::from_millis(limits::DEAD_MS);
const HEARTBEAT: Duration = Duration::from_millis(limits::HEARTBEAT_MS);

#[cfg(test)]
mod tests;
