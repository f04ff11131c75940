//! One subscription over as many WebSockets as it takes, as a state machine (§5, §8).
//!
//! Time and everything that happens come in through the `handle_*` methods, each with `now`; what is to be done comes
//! out of [`Session::poll`], which is called until it has nothing more. [`Session::deadline`] says when
//! [`Session::handle_timeout`] is due. The machine holds the cursor: what it delivered once it never delivers again.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use protocol::{
    Backoff, CloseCode, Cursor, Epoch, ErrorCode, Event, LogId, Seq,
    frame::{FromViewer, GapReason, StartAt, ToViewer},
    limits,
};

use super::FollowError;
use crate::Delivery;

/// How long a connection may take to come about, name look-up and TLS included.
const CONNECT: Duration = Duration::from_secs(15);
/// How long to wait for a log that is not there yet before asking again, on average: an agent's log comes with its
/// wrapper's first event, seconds after its start.
const LOG_TO_COME: Duration = Duration::from_secs(1);
/// How long to wait after a 4429 that does not say.
const RATE_LIMITED: Duration = Duration::from_secs(5);
/// Closes in a row that say the follower is at fault, after which it is: bytes that were damaged on the way give the
/// same codes, and a fresh connection carries others.
const REFUSALS: u32 = 3;
/// A connection that served for so long understood its follower.
const STABLE: Duration = Duration::from_secs(60);

/// What the driver is to do.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "it is handled at once: none is kept")]
pub(super) enum Action {
    /// Get fresh credentials and open a WebSocket; then call [`Session::handle_connected`] or [`Session::handle_lost`].
    Connect,
    /// Send this on the WebSocket.
    Send(FromViewer),
    /// Send a WebSocket ping: the server has been silent, and is there if it answers.
    Ping,
    /// Close the WebSocket with this code. Nothing is to be reported of it any more.
    Disconnect(CloseCode),
    /// Give this to whoever follows the log.
    Deliver(Delivery),
    /// It is over: by request, or for this reason. Nothing comes after it.
    End(Option<FollowError>),
}

/// How a connection was lost, or did not come about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Loss {
    /// The server closed it with a code.
    Closed(CloseCode, String),
    /// The network did, or the server was not there.
    Network(String),
}

/// How a follower is connected, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Connection {
    /// A connection is being made.
    Connecting,
    /// The relay serves the log.
    Up,
    /// The connection was lost or did not come about.
    Waiting {
        /// The wait before the next attempt.
        retry_in: Duration,
        /// Attempts that failed in a row.
        failures: u32,
        /// What went wrong.
        reason: String,
    },
    /// No further attempt will be made.
    Over,
}

/// Where the machine is.
#[derive(Debug)]
enum State {
    /// The driver is connecting.
    Connecting { until: Instant },
    /// Connected; the server has not confirmed the subscription.
    Subscribing,
    /// The server serves this incarnation of the log.
    Following { epoch: Epoch, since: Instant },
    /// Between two attempts.
    Waiting { until: Instant, retry_in: Duration, reason: String },
    /// Nothing will happen any more.
    Over,
}

/// What an `error` frame said before the close that follows it.
#[derive(Debug)]
struct Said {
    message: String,
    retry_after: Option<Duration>,
}

/// The machine.
#[derive(Debug)]
pub(super) struct Session {
    log: LogId,
    /// A log that is not there yet is waited for.
    waits_for_log: bool,
    /// Where the next subscription starts. A cursor as soon as one event was delivered.
    from: Option<StartAt>,
    state: State,
    /// When the server was last heard.
    heard: Instant,
    /// It was asked whether it is there, and has not answered.
    asked: Option<Instant>,
    /// How often it says something, at least.
    heartbeat: Duration,
    backoff: Backoff,
    /// The credentials were refused since the server last served: the next refusal is final.
    unauthenticated: bool,
    /// Closes that said the follower is at fault, since a connection was stable.
    refusals: u32,
    said: Option<Said>,
    /// The position at which the agent's end was passed on, so that a reconnect does not repeat it.
    ended_at: Option<Seq>,
    actions: VecDeque<Action>,
}

impl Session {
    /// A subscription that connects at once.
    pub(super) fn new(log: LogId, from: Option<StartAt>, seed: u64, now: Instant) -> Self {
        let mut session = Self {
            log,
            waits_for_log: false,
            from,
            state: State::Over,
            heard: now,
            asked: None,
            heartbeat: HEARTBEAT,
            backoff: Backoff::new(seed),
            unauthenticated: false,
            refusals: 0,
            said: None,
            ended_at: None,
            actions: VecDeque::new(),
        };
        session.connect(now);
        session
    }

    /// The same, waiting for a log that is not there yet.
    pub(super) fn waiting_for_log(mut self) -> Self {
        self.waits_for_log = true;
        self
    }

    /// The next thing to do.
    pub(super) fn poll(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When [`Self::handle_timeout`] is due.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match &self.state {
            State::Connecting { until } | State::Waiting { until, .. } => Some(*until),
            State::Subscribing | State::Following { .. } => Some(match self.asked {
                None => self.heard + self.part_of_heartbeat(limits::PING_AFTER_MS),
                Some(asked) => asked + self.part_of_heartbeat(limits::PONG_WITHIN_MS),
            }),
            State::Over => None,
        }
    }

    /// How things stand.
    pub(super) fn connection(&self) -> Connection {
        match &self.state {
            State::Connecting { .. } | State::Subscribing => Connection::Connecting,
            State::Following { .. } => Connection::Up,
            State::Waiting { retry_in, reason, .. } => Connection::Waiting {
                retry_in: *retry_in,
                failures: self.backoff.failures(),
                reason: reason.clone(),
            },
            State::Over => Connection::Over,
        }
    }

    /// The WebSocket is open.
    pub(super) fn handle_connected(&mut self, now: Instant) {
        if !matches!(self.state, State::Connecting { .. }) {
            return;
        }
        self.hear(now);
        self.said = None;
        self.state = State::Subscribing;
        self.actions.push_back(Action::Send(FromViewer::Subscribe {
            log: self.log.clone(),
            cursor: self.from.clone(),
            types: Vec::new(),
        }));
    }

    /// Something came in that is no frame: a ping, a pong, or a frame of a type this client does not know.
    pub(super) fn handle_sign_of_life(&mut self, now: Instant) {
        self.hear(now);
    }

    /// A frame came in.
    pub(super) fn handle_frame(&mut self, now: Instant, frame: ToViewer) {
        if !matches!(self.state, State::Subscribing | State::Following { .. }) {
            return;
        }
        self.hear(now);
        if log_of(&frame).is_some_and(|log| *log != self.log) {
            return;
        }
        match frame {
            ToViewer::Hello { heartbeat_ms, .. } => self.heartbeat = heartbeat(heartbeat_ms),
            ToViewer::Heartbeat { .. } => self.actions.push_back(Action::Send(FromViewer::Pong)),
            ToViewer::Subscribed { epoch, floor, head, .. } => self.subscribed(now, epoch, floor, head),
            ToViewer::Events { events, .. } => self.events(now, events),
            ToViewer::Gap { from, to, reason, .. } => self.gap(from, to, reason),
            ToViewer::Live { head, .. } => self.deliver(Delivery::Live { head }),
            ToViewer::Presence { wrapper, since, .. } => self.deliver(Delivery::Presence { wrapper, since }),
            ToViewer::Ended { reason, .. } => self.ended(reason),
            ToViewer::Error { code, message, log, retry_after_ms } => {
                self.error(now, code, message, log.is_some(), retry_after_ms);
            }
            // Pages' patches, and answers to commands, which this client sends over HTTP.
            ToViewer::Patch { .. } | ToViewer::Result { .. } => {}
            // A later protocol's frames.
            _ => {}
        }
    }

    /// A frame came in that should have moved the cursor and could not be read: nothing after it may be trusted.
    pub(super) fn handle_unreadable(&mut self, now: Instant, reason: String) {
        if matches!(self.state, State::Subscribing | State::Following { .. }) {
            self.actions.push_back(Action::Disconnect(CloseCode::BAD_REQUEST));
            self.retry(now, reason);
        }
    }

    /// The connection is gone, or did not come about.
    pub(super) fn handle_lost(&mut self, now: Instant, loss: Loss) {
        if !matches!(self.state, State::Connecting { .. } | State::Subscribing | State::Following { .. }) {
            return;
        }
        match loss {
            Loss::Network(reason) => self.retry(now, reason),
            Loss::Closed(code, reason) => self.closed(now, code, reason),
        }
    }

    /// No credentials could be had, and asking again will not help.
    pub(super) fn handle_no_credentials(&mut self, error: FollowError) {
        self.end(Some(error));
    }

    /// The deadline has passed.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        if self.deadline().is_none_or(|deadline| now < deadline) {
            return;
        }
        match &self.state {
            State::Waiting { .. } => self.connect(now),
            State::Connecting { .. } => self.retry(now, "no connection came about in time".to_owned()),
            State::Subscribing | State::Following { .. } if self.asked.is_none() => {
                self.asked = Some(now);
                self.actions.push_back(Action::Ping);
            }
            State::Subscribing | State::Following { .. } => {
                self.actions.push_back(Action::Disconnect(CloseCode::NORMAL));
                let silence = now.saturating_duration_since(self.heard).as_secs();
                self.retry(now, format!("nothing was heard for {silence} s"));
            }
            State::Over => {}
        }
    }

    fn hear(&mut self, now: Instant) {
        (self.heard, self.asked) = (now, None);
    }

    /// A time of §11, which is given for the protocol's own heartbeat, at the heartbeat of this server.
    fn part_of_heartbeat(&self, ms: u64) -> Duration {
        self.heartbeat.mul_f64(ms as f64 / limits::HEARTBEAT_MS as f64)
    }

    fn connect(&mut self, now: Instant) {
        self.state = State::Connecting { until: now + CONNECT };
        self.actions.push_back(Action::Connect);
    }

    fn deliver(&mut self, delivery: Delivery) {
        self.actions.push_back(Action::Deliver(delivery));
    }

    fn subscribed(&mut self, now: Instant, epoch: Epoch, floor: Seq, head: Seq) {
        self.backoff.reset();
        self.unauthenticated = false;
        if self.from == Some(StartAt::Head) {
            self.from = Some(StartAt::After(Cursor { epoch: epoch.clone(), seq: head }));
        }
        self.state = State::Following { epoch: epoch.clone(), since: now };
        self.deliver(Delivery::Subscribed { epoch, floor, head });
    }

    fn events(&mut self, now: Instant, events: Vec<Event>) {
        let State::Following { epoch, .. } = &self.state else {
            return self
                .handle_unreadable(now, "events came before the subscription was confirmed".to_owned());
        };
        let epoch = epoch.clone();
        if self.cursor().is_some_and(|cursor| cursor.epoch != epoch) {
            // The server should have said so. Without a gap the positions of two incarnations would be compared.
            self.gap(None, None, GapReason::Epoch);
        }
        for event in events {
            if self.cursor().is_some_and(|cursor| event.seq <= cursor.seq) {
                continue;
            }
            self.from = Some(StartAt::After(Cursor { epoch: epoch.clone(), seq: event.seq }));
            self.deliver(Delivery::Event(Arc::new(event)));
        }
    }

    fn gap(&mut self, from: Option<Seq>, to: Option<Seq>, reason: GapReason) {
        match reason {
            // Positions below the old cursor are to come: those of another incarnation, or of one that lost its end.
            GapReason::Epoch | GapReason::Ahead => self.from = None,
            GapReason::Pruned => {
                if let (Some(StartAt::After(cursor)), Some(to)) = (&mut self.from, to) {
                    cursor.seq = cursor.seq.max(to);
                }
            }
        }
        self.deliver(Delivery::Gap { from, to, reason });
    }

    fn ended(&mut self, reason: String) {
        let at = Some(self.cursor().map_or(Seq::ZERO, |cursor| cursor.seq));
        if self.ended_at != at {
            self.ended_at = at;
            self.deliver(Delivery::Ended { reason });
        }
    }

    /// An error that names the log means that it is not served; any other explains the close that follows.
    fn error(
        &mut self,
        now: Instant,
        code: ErrorCode,
        message: String,
        names_log: bool,
        retry_after_ms: Option<u64>,
    ) {
        self.said =
            Some(Said { message: message.clone(), retry_after: retry_after_ms.map(Duration::from_millis) });
        if names_log {
            self.actions.push_back(Action::Disconnect(CloseCode::NORMAL));
            match code.close() {
                // What was asked was understood: it was not damaged on its way.
                code @ (CloseCode::BAD_REQUEST | CloseCode::TOO_LARGE) => self.refuse(code, message),
                code => self.closed(now, code, message),
            }
        }
    }

    /// The server ended the connection, with a code of §8.
    fn closed(&mut self, now: Instant, code: CloseCode, reason: String) {
        let said = self.said.take();
        let retry_after = said.as_ref().and_then(|said| said.retry_after);
        let message = said.map_or(reason, |said| said.message);
        let log = self.log.clone();
        match code {
            CloseCode::NORMAL => self.end(None),
            CloseCode::BAD_REQUEST | CloseCode::TOO_LARGE | CloseCode(1002 | 1003 | 1007 | 1009) => {
                if matches!(self.state, State::Following { since, .. } if now >= since + STABLE) {
                    self.refusals = 0;
                }
                self.refusals += 1;
                if self.refusals < REFUSALS {
                    return self.retry(now, message);
                }
                self.refuse(code, message);
            }
            CloseCode::UNAUTHENTICATED if self.unauthenticated => {
                self.end(Some(FollowError::Unauthenticated { log, message }));
            }
            CloseCode::UNAUTHENTICATED => {
                self.unauthenticated = true;
                self.connect(now);
            }
            CloseCode::FORBIDDEN => self.end(Some(FollowError::Forbidden { log, message })),
            CloseCode::UNKNOWN_LOG if self.waits_for_log => {
                let wait = self.backoff.spread(LOG_TO_COME);
                self.wait(now, wait, message);
            }
            CloseCode::UNKNOWN_LOG => self.end(Some(FollowError::UnknownLog { log })),
            CloseCode::SUPERSEDED => self.end(Some(FollowError::Superseded { log })),
            CloseCode::RATE_LIMITED => {
                let wait = self.backoff.asked(retry_after.unwrap_or(RATE_LIMITED));
                self.wait(now, wait, message);
            }
            _ => match retry_after {
                Some(wait) => {
                    let wait = self.backoff.asked(wait);
                    self.wait(now, wait, message);
                }
                None => self.retry(now, message),
            },
        }
    }

    fn retry(&mut self, now: Instant, reason: String) {
        let wait = self.backoff.fail();
        self.wait(now, wait, reason);
    }

    fn wait(&mut self, now: Instant, retry_in: Duration, reason: String) {
        self.said = None;
        self.state = State::Waiting { until: now + retry_in, retry_in, reason };
    }

    fn refuse(&mut self, code: CloseCode, message: String) {
        self.end(Some(FollowError::Refused { log: self.log.clone(), code: code.0, message }));
    }

    fn end(&mut self, error: Option<FollowError>) {
        self.state = State::Over;
        self.actions.push_back(Action::End(error));
    }

    /// What has been delivered, if anything that a reconnect could ask for.
    fn cursor(&self) -> Option<&Cursor> {
        match &self.from {
            Some(StartAt::After(cursor)) => Some(cursor),
            Some(StartAt::Head) | None => None,
        }
    }
}

/// The log that a frame speaks of.
fn log_of(frame: &ToViewer) -> Option<&LogId> {
    match frame {
        ToViewer::Subscribed { log, .. }
        | ToViewer::Events { log, .. }
        | ToViewer::Live { log, .. }
        | ToViewer::Gap { log, .. }
        | ToViewer::Presence { log, .. }
        | ToViewer::Patch { log, .. }
        | ToViewer::Ended { log, .. } => Some(log),
        ToViewer::Error { log, .. } => log.as_ref(),
        ToViewer::Hello { .. } | ToViewer::Heartbeat { .. } | ToViewer::Result { .. } => None,
        _ => None,
    }
}

const HEARTBEAT: Duration = Duration::from_millis(limits::HEARTBEAT_MS);

/// A server's heartbeat; of one that announces nonsense, the protocol's own.
fn heartbeat(ms: u64) -> Duration {
    if ms == 0 { HEARTBEAT } else { Duration::from_millis(ms).min(10 * HEARTBEAT) }
}

#[cfg(test)]
mod tests;
