//! One viewer's socket (§5): many subscriptions, one protocol.
//!
//! The machine holds no events beyond the one read whose frames are being sent. It asks for more ([`Action::Read`]) only
//! when everything it had to say was taken, so a slow viewer costs a socket and a cursor.

use std::{
    collections::{BTreeSet, VecDeque},
    time::{Duration, Instant},
};

use bytes::Bytes;
use protocol::{
    AgentId, CloseCode, Command, CommandId, CommandResult, Epoch, ErrorCode, ErrorDetail, LogId, Seq,
    Timestamp,
    codec::Frame,
    frame::{FromViewer, StartAt, ToViewer, WrapperPresence},
    limits,
};
use store::Bounds;

use crate::{
    EncodedPage, Segment,
    filter::TypeFilter,
    subscription::{Item, Subscription},
    websocket::{self, Fault},
};

/// Commands of one socket that wait for their results.
const COMMANDS_IN_FLIGHT: usize = 32;
/// Heartbeats that may go unanswered: with the third the viewer counts as dead.
const HEARTBEATS_UNANSWERED: u32 = 3;

/// What a viewer's socket is to do next.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "it is handled at once: none is kept")]
pub enum Action {
    /// Write this WebSocket frame, and say [`Viewer::handle_sent`] when everything was taken.
    Send(Bytes),
    /// A log is subscribed to: may this viewer read it, and where does it begin and end? The answer is
    /// [`Viewer::handle_opened`] or [`Viewer::handle_refused`].
    Open(LogId),
    /// What comes after this position? The answer is [`Viewer::handle_segment`], [`Viewer::handle_page`],
    /// [`Viewer::handle_nothing`] or [`Viewer::handle_refused`].
    Read {
        /// The log.
        log: LogId,
        /// The incarnation the position is of.
        epoch: Epoch,
        /// The position.
        after: Seq,
    },
    /// The log is of no more interest.
    Leave(LogId),
    /// Steer an agent; the answer is [`Viewer::handle_result`].
    Command {
        /// Names the command.
        id: CommandId,
        /// Who is to do it.
        agent: AgentId,
        /// What.
        command: Command,
    },
    /// Close the socket: nothing follows.
    Close {
        /// With this code.
        code: CloseCode,
        /// And this reason.
        reason: String,
    },
}

/// How much of a log a viewer was given at once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Given {
    /// Events.
    pub events: usize,
    /// Gaps it was told of.
    pub gaps: usize,
}

/// The protocol machine of one viewer.
#[derive(Debug)]
pub struct Viewer {
    /// The log of a socket that is for one log: it is closed when that log cannot be had.
    only: Option<LogId>,
    /// By log. A list and no map: most viewers have one, and there are thousands of viewers.
    slots: Vec<Slot>,
    /// Where the search for the next read begins, so that each has its turn.
    turn: usize,
    /// A read whose answer is awaited.
    reading: Option<LogId>,
    /// What is said before anything is read: the frames of at most one read.
    out: VecDeque<Bytes>,
    /// What is asked of the driver: bounded by the rate of frames.
    asks: VecDeque<Action>,
    commands: BTreeSet<CommandId>,
    rate: Rate,
    heartbeat_at: Instant,
    unanswered: u32,
    /// A frame was given out at this time and is not yet taken.
    sending_since: Option<Instant>,
    closing: Closing,
}

#[derive(Debug)]
struct Slot {
    subscription: Subscription,
    /// There may be something after the position.
    ready: bool,
    /// What was last said of the wrapper.
    presence: Option<(WrapperPresence, Timestamp)>,
}

#[derive(Debug)]
enum Closing {
    No,
    /// When everything was said.
    Soon(CloseCode, String),
    Closed,
}

impl Viewer {
    /// A socket for many logs: `hello` comes first, subscriptions come in frames.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        let mut viewer = Self {
            only: None,
            slots: Vec::new(),
            turn: 0,
            reading: None,
            out: VecDeque::new(),
            asks: VecDeque::new(),
            commands: BTreeSet::new(),
            rate: Rate::full(now),
            heartbeat_at: now + HEARTBEAT,
            unanswered: 0,
            sending_since: None,
            closing: Closing::No,
        };
        viewer.say(&ToViewer::Hello {
            protocol: 1,
            heartbeat_ms: limits::HEARTBEAT_MS,
            server: concat!("gastown/", env!("CARGO_PKG_VERSION")).to_owned(),
        });
        viewer
    }

    /// A socket for one log, subscribed to from the start.
    #[must_use]
    pub fn of_one_log(now: Instant, log: LogId, from: Option<StartAt>, filter: TypeFilter) -> Self {
        let mut viewer = Self::new(now);
        viewer.only = Some(log.clone());
        viewer.subscribe(log, from, filter);
        viewer
    }

    /// When [`Viewer::handle_time`] is due.
    #[must_use]
    pub fn deadline(&self) -> Instant {
        match self.sending_since {
            Some(since) => since + STALLED,
            None => self.heartbeat_at,
        }
    }

    /// What to do next; `None` until the next input.
    pub fn poll(&mut self, now: Instant) -> Option<Action> {
        if matches!(self.closing, Closing::Closed) {
            return None;
        }
        if let Some(frame) = self.out.pop_front() {
            if self.out.is_empty() {
                self.out = VecDeque::new();
            }
            self.sending_since.get_or_insert(now);
            self.heartbeat_at = now + HEARTBEAT;
            return Some(Action::Send(frame));
        }
        if let Closing::Soon(code, reason) = std::mem::replace(&mut self.closing, Closing::Closed) {
            return Some(Action::Close { code, reason });
        }
        self.closing = Closing::No;
        match self.asks.pop_front() {
            Some(ask) => {
                if self.asks.is_empty() {
                    self.asks = VecDeque::new();
                }
                Some(ask)
            }
            None => self.next_read(),
        }
    }

    /// A text frame of the viewer came.
    pub fn handle_text(&mut self, now: Instant, text: &[u8]) {
        self.unanswered = 0;
        if !self.rate.take(now) {
            let message = format!("at most {} frames per second", limits::VIEWER_FRAMES_PER_SECOND);
            return self
                .fail(ErrorDetail { retry_after_ms: Some(1000), ..detail(ErrorCode::RateLimited, message) });
        }
        match FromViewer::decode(text) {
            Ok(FromViewer::Subscribe { log, cursor, types }) => match TypeFilter::new(types) {
                Ok(filter) => self.subscribe(log, cursor, filter),
                Err(error) => self.refuse(Some(log), detail(ErrorCode::BadRequest, error.to_string())),
            },
            Ok(FromViewer::Unsubscribe { log }) => self.unsubscribe(&log),
            Ok(FromViewer::Command { id, agent, command }) => self.command(id, agent, command),
            Ok(FromViewer::Pong) => {}
            Ok(_) => self.fail(detail(ErrorCode::BadRequest, "this relay knows no such frame")),
            Err(error) => self.fail(detail(error.code(), error.to_string())),
        }
    }

    /// Something else of the viewer came: a sign of life.
    pub fn handle_sign_of_life(&mut self) {
        self.unanswered = 0;
    }

    /// A binary message came: nobody sends any here.
    pub fn handle_binary(&mut self) {
        self.refuse_socket(detail(ErrorCode::BadRequest, "frames are text"), CloseCode(1003));
    }

    /// The viewer broke the protocol below the frames: it is told in their words, and closed with RFC 6455's.
    pub fn handle_fault(&mut self, fault: &Fault) {
        let (code, close) = match fault {
            Fault::TooLarge { .. } => (ErrorCode::TooLarge, CloseCode::TOO_LARGE),
            Fault::Protocol(_) | Fault::NotUtf8 => (ErrorCode::BadRequest, CloseCode(fault.close_code())),
        };
        self.refuse_socket(detail(code, fault.to_string()), close);
    }

    /// Whether nothing follows but the close.
    #[must_use]
    pub fn is_closing(&self) -> bool {
        matches!(self.closing, Closing::Soon(..))
    }

    /// What was given out was taken.
    pub fn handle_sent(&mut self) {
        self.sending_since = None;
    }

    /// Part of what was given out was taken: it is slow, but it is not stalled.
    pub fn handle_progress(&mut self, now: Instant) {
        if let Some(since) = &mut self.sending_since {
            *since = now;
        }
    }

    /// The time of [`Viewer::deadline`] has come; `clock` is what a heartbeat says.
    pub fn handle_time(&mut self, now: Instant, clock: Timestamp) {
        if let Some(since) = self.sending_since {
            if now >= since + STALLED {
                // Nothing more can be said to it.
                self.out.clear();
                self.close(CloseCode::STALLED, "no byte was taken for 60 s");
            }
        } else if now >= self.heartbeat_at {
            if self.unanswered >= HEARTBEATS_UNANSWERED {
                return self.close(CloseCode::STALLED, "three heartbeats were not answered");
            }
            self.unanswered += 1;
            self.heartbeat_at = now + HEARTBEAT;
            self.say(&ToViewer::Heartbeat { time: clock });
        }
    }

    /// The viewer may read this log, which has these bounds.
    pub fn handle_opened(&mut self, log: &LogId, bounds: Bounds) -> Given {
        let Some(slot) = self.slot(log) else { return Given::default() };
        slot.ready = true;
        let items = slot.subscription.open(bounds);
        self.pass_on(log, items)
    }

    /// The viewer cannot have this log, or no longer.
    pub fn handle_refused(&mut self, log: &LogId, why: ErrorDetail) {
        self.read_done(log);
        if self.remove(log) {
            self.asks.push_back(Action::Leave(log.clone()));
            self.refuse(Some(log.clone()), why);
        }
    }

    /// There may be something after the position in this log.
    pub fn handle_head(&mut self, log: &LogId) {
        if let Some(slot) = self.slot(log) {
            slot.ready = true;
        }
    }

    /// Where a subscription stands: `None` if there is none of this log, or it is not open. An answer to a read of
    /// another position is for a subscription that is no more.
    #[must_use]
    pub fn position(&self, log: &LogId) -> Option<(&Epoch, Seq)> {
        self.find(log).ok().and_then(|place| self.slots[place].subscription.position())
    }

    /// The hot tail, or what others have read, has this.
    pub fn handle_segment(&mut self, log: &LogId, segment: &Segment) -> Given {
        self.read_done(log);
        let Some(slot) = self.slot(log) else { return Given::default() };
        let items = slot.subscription.segment(segment);
        self.pass_on(log, items)
    }

    /// The store has this.
    pub fn handle_page(&mut self, log: &LogId, page: &EncodedPage) -> Given {
        self.read_done(log);
        let Some(slot) = self.slot(log) else { return Given::default() };
        let items = slot.subscription.page(page);
        self.pass_on(log, items)
    }

    /// There is nothing after the position until [`Viewer::handle_head`] says so.
    pub fn handle_nothing(&mut self, log: &LogId) {
        self.read_done(log);
        if let Some(slot) = self.slot(log) {
            slot.ready = false;
        }
    }

    /// Whether the log's wrapper is connected; said if it is another state than was said last.
    pub fn handle_presence(&mut self, log: &LogId, wrapper: WrapperPresence, since: Timestamp) {
        let Some(slot) = self.slot(log) else { return };
        if slot.presence.replace((wrapper, since)) != Some((wrapper, since)) {
            self.say(&ToViewer::Presence { log: log.clone(), wrapper, since });
        }
    }

    /// What became of a command.
    pub fn handle_result(&mut self, result: CommandResult) {
        self.commands.remove(&result.id);
        let CommandResult { id, ok, error, data } = result;
        self.say(&ToViewer::Result { id, ok, error, data });
    }

    /// The relay goes down.
    pub fn handle_drain(&mut self, retry_after_ms: u64) {
        let message = "the relay goes down: come back with the cursor";
        self.fail(ErrorDetail {
            retry_after_ms: Some(retry_after_ms),
            ..detail(ErrorCode::Draining, message)
        });
    }

    /// The viewer may not be served any further.
    pub fn fail(&mut self, why: ErrorDetail) {
        let code = why.code.close();
        self.refuse_socket(why, code);
    }

    fn subscribe(&mut self, log: LogId, from: Option<StartAt>, filter: TypeFilter) {
        let Err(place) = self.find(&log) else {
            return self.refuse(Some(log), detail(ErrorCode::BadRequest, "this socket has that log already"));
        };
        if self.slots.len() >= limits::SUBSCRIPTIONS_PER_SOCKET {
            let message = format!("at most {} logs on one socket", limits::SUBSCRIPTIONS_PER_SOCKET);
            return self.refuse(Some(log), detail(ErrorCode::RateLimited, message));
        }
        let subscription = Subscription::new(log.clone(), from, filter);
        self.slots.reserve_exact(1);
        self.slots.insert(place, Slot { subscription, ready: false, presence: None });
        self.asks.push_back(Action::Open(log));
    }

    fn unsubscribe(&mut self, log: &LogId) {
        if self.remove(log) {
            self.read_done(log);
            self.asks.push_back(Action::Leave(log.clone()));
        }
    }

    fn command(&mut self, id: CommandId, agent: AgentId, command: Command) {
        if self.commands.len() >= COMMANDS_IN_FLIGHT {
            let message = format!("{COMMANDS_IN_FLIGHT} commands of this socket wait for their results");
            return self.handle_result(CommandResult::refused(id, ErrorCode::RateLimited, message));
        }
        self.commands.insert(id.clone());
        self.asks.push_back(Action::Command { id, agent, command });
    }

    /// The next subscription, after the one served last, that may have something.
    fn next_read(&mut self) -> Option<Action> {
        if self.reading.is_some() {
            return None;
        }
        let count = self.slots.len();
        let place = (0..count).map(|n| (self.turn + n) % count).find(|n| self.slots[*n].ready)?;
        let subscription = &self.slots[place].subscription;
        let (epoch, position) = subscription.position()?;
        let log = subscription.log().clone();
        let read = Action::Read { log: log.clone(), epoch: epoch.clone(), after: position };
        self.reading = Some(log);
        self.turn = place + 1;
        Some(read)
    }

    fn find(&self, log: &LogId) -> Result<usize, usize> {
        self.slots.binary_search_by(|slot| slot.subscription.log().cmp(log))
    }

    fn slot(&mut self, log: &LogId) -> Option<&mut Slot> {
        self.find(log).ok().map(|place| &mut self.slots[place])
    }

    fn remove(&mut self, log: &LogId) -> bool {
        self.find(log).map(|place| self.slots.remove(place)).is_ok()
    }

    fn read_done(&mut self, log: &LogId) {
        self.reading.take_if(|reading| reading == log);
    }

    fn pass_on(&mut self, log: &LogId, items: Vec<Item>) -> Given {
        let mut given = Given::default();
        for item in items {
            match item {
                Item::Events(segment) => {
                    given.events += segment.records().len();
                    self.out.push_back(segment.frame().clone());
                }
                Item::Subscribed(Bounds { epoch, floor, head }) => {
                    self.say(&ToViewer::Subscribed { log: log.clone(), epoch, floor, head });
                }
                Item::Gap { from, to, reason } => {
                    given.gaps += 1;
                    self.say(&ToViewer::Gap { log: log.clone(), from, to, reason });
                }
                Item::Live(head) => self.say(&ToViewer::Live { log: log.clone(), head }),
                Item::Ended(reason) => {
                    self.say(&ToViewer::Ended { log: log.clone(), reason: reason.to_string() });
                }
            }
        }
        given
    }

    fn refuse_socket(&mut self, why: ErrorDetail, code: CloseCode) {
        let reason = why.message.clone();
        self.say_error(None, why);
        self.close(code, &reason);
    }

    /// Refuses a log: the socket stays open, unless it is there for that log.
    fn refuse(&mut self, log: Option<LogId>, why: ErrorDetail) {
        if log.is_some() && log == self.only && log.as_ref().is_some_and(|log| self.find(log).is_err()) {
            return self.fail(why);
        }
        self.say_error(log, why);
    }

    fn say_error(&mut self, log: Option<LogId>, why: ErrorDetail) {
        let ErrorDetail { code, message, retry_after_ms } = why;
        self.say(&ToViewer::Error { code, message, log, retry_after_ms });
    }

    fn say(&mut self, frame: &ToViewer) {
        if matches!(self.closing, Closing::No) {
            self.out.push_back(websocket::text(&frame.encode()));
        }
    }

    fn close(&mut self, code: CloseCode, reason: &str) {
        if matches!(self.closing, Closing::No) {
            self.closing = Closing::Soon(code, close_reason(reason));
        }
    }
}

const HEARTBEAT: Duration = Duration::from_millis(limits::HEARTBEAT_MS);
const STALLED: Duration = Duration::from_millis(limits::STALLED_MS);

/// A close frame's reason has at most 123 bytes (RFC 6455 §5.5).
pub(crate) fn close_reason(text: &str) -> String {
    text[..text.floor_char_boundary(123)].to_owned()
}

fn detail(code: ErrorCode, message: impl Into<String>) -> ErrorDetail {
    ErrorDetail::new(code, message)
}

/// A bucket of [`limits::VIEWER_FRAMES_PER_SECOND`] that fills in one second.
#[derive(Debug)]
struct Rate {
    left: u32,
    filled_at: Instant,
}

impl Rate {
    const EVERY: Duration = Duration::from_millis(1000 / limits::VIEWER_FRAMES_PER_SECOND as u64);

    fn full(now: Instant) -> Self {
        Self { left: limits::VIEWER_FRAMES_PER_SECOND, filled_at: now }
    }

    fn take(&mut self, now: Instant) -> bool {
        let elapsed = now.saturating_duration_since(self.filled_at);
        let fresh = u32::try_from(elapsed.as_millis() / Self::EVERY.as_millis()).unwrap_or(u32::MAX);
        if fresh > 0 {
            self.left = self.left.saturating_add(fresh).min(limits::VIEWER_FRAMES_PER_SECOND);
            self.filled_at += Self::EVERY * fresh;
        }
        let taken = self.left > 0;
        self.left = self.left.saturating_sub(1);
        taken
    }
}

#[cfg(test)]
mod tests;
