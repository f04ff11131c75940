//! One viewer of a writer: its machine and its socket.

use std::{
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll, Waker},
    time::Instant,
};

use protocol::{
    AgentId, Command, CommandId, Epoch, ErrorDetail, LogId, Seq, Timestamp, frame::WrapperPresence, limits,
};
use store::Bounds;
use tokio::task::AbortHandle;
use tracing::Span;

use super::{Ready, ViewerId};
use crate::{
    EncodedPage,
    auth::{AuthError, Grant},
    server::{
        Relay, clock,
        feed::Seat,
        metrics::Metrics,
        socket::{CLOSE_WITHIN, Gone, Io, PIECES, Socket},
    },
    tail::After,
    viewer::{Action, Given, Viewer},
    websocket::Incoming,
};

/// Bytes taken from the machine at once: what a viewer that stalls holds on to, and the last frame of them (P8).
const GATHER_BYTES: usize = 128 * 1024;
/// Times that a viewer is written to before the others have their turn.
const WRITES: usize = 4;
/// Times that it is read before the others have theirs.
const READS: usize = 4;

/// A viewer and its socket.
pub(super) struct Conn {
    pub(super) viewer: Viewer,
    pub(super) grant: Grant,
    /// Who waits for the end of a lease that has one.
    lease: Option<AbortHandle>,
    socket: Socket,
    /// Parent of its subscriptions' spans; none, unless spans of that level are recorded.
    span: Span,
    /// By log, each with its span.
    seats: Vec<(LogId, Seat, Span)>,
    ready: Arc<Ready>,
    waker: Waker,
    /// The socket takes no more at present.
    blocked: bool,
    /// The stream has ended, or failed.
    gone: bool,
    /// Everything was said: the other side has until then to close.
    ends_at: Option<Instant>,
    /// When the wheel has it looked at.
    scheduled: Option<Instant>,
}

/// How a viewer is left after its turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// Something must happen before there is more to do.
    Quiet,
    /// There is more to send, and it was the others' turn.
    HasMore,
    /// It is gone.
    Over,
}

/// What a viewer needs that takes time, or concerns the writer.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "it is handled at once: none is kept")]
pub(super) enum Ask {
    Open(LogId),
    Leave(LogId),
    Read { log: LogId, epoch: Epoch, after: Seq },
    Command { id: CommandId, agent: AgentId, command: Command },
}

/// What the turns of one pass share.
pub(super) struct Turn<'a> {
    relay: &'a Relay,
    now: Instant,
    asks: &'a mut Vec<(ViewerId, Ask)>,
    given: Given,
    bytes: usize,
}

impl<'a> Turn<'a> {
    pub(super) fn new(relay: &'a Relay, now: Instant, asks: &'a mut Vec<(ViewerId, Ask)>) -> Self {
        Self { relay, now, asks, given: Given::default(), bytes: 0 }
    }

    /// Counts what was done in it.
    pub(super) fn count(self) {
        let metrics = self.relay.metrics();
        Metrics::add(&metrics.events_out, self.given.events);
        Metrics::add(&metrics.bytes_out, self.bytes);
        Metrics::add(&metrics.gaps, self.given.gaps);
    }

    fn gave(&mut self, given: Given) {
        self.given.events += given.events;
        self.given.gaps += given.gaps;
    }
}

impl Conn {
    pub(super) fn new(
        io: Io,
        viewer: Viewer,
        grant: Grant,
        lease: Option<AbortHandle>,
        ready: Arc<Ready>,
        span: Span,
    ) -> Self {
        Self {
            span,
            viewer,
            grant,
            lease,
            socket: Socket::new(io, limits::VIEWER_FRAME_BYTES),
            seats: Vec::new(),
            waker: ready.clone().into(),
            ready,
            blocked: false,
            gone: false,
            ends_at: None,
            scheduled: None,
        }
    }

    /// The logs at which it has a place.
    pub(super) fn logs(&self) -> impl Iterator<Item = &LogId> {
        self.seats.iter().map(|(log, ..)| log)
    }

    pub(super) fn sit(&mut self, log: LogId, seat: Seat) {
        if let Err(place) = self.find(&log) {
            self.seats.reserve_exact(1);
            let span =
                tracing::debug_span!(parent: &self.span, "subscription", transport = "websocket", %log);
            self.seats.insert(place, (log, seat, span));
        }
    }

    pub(super) fn leave(&mut self, log: &LogId) {
        if let Ok(place) = self.find(log) {
            self.seats.remove(place);
        }
    }

    /// The span of a subscription.
    pub(super) fn subscription(&self, log: &LogId) -> Span {
        self.find(log).map_or_else(|_| Span::none(), |place| self.seats[place].2.clone())
    }

    /// Something about a log has changed.
    pub(super) fn look(&mut self, log: &LogId, presence: Option<(WrapperPresence, Timestamp)>) {
        if let Some((wrapper, since)) = presence {
            self.viewer.handle_presence(log, wrapper, since);
        }
        self.viewer.handle_head(log);
    }

    /// A log that was asked for has these bounds.
    pub(super) fn opened(&mut self, log: &LogId, bounds: Bounds, turn: &mut Turn<'_>) {
        // The answer may be for an earlier subscription to the same log.
        if self.viewer.position(log).is_some() || self.find(log).is_err() {
            return;
        }
        turn.gave(self.viewer.handle_opened(log, bounds));
        let presence = log.agent().map(|agent| turn.relay.links().presence(agent));
        self.look(log, presence.map(|presence| (presence.wrapper, presence.since)));
    }

    /// The store has this after a position.
    pub(super) fn read(
        &mut self,
        log: &LogId,
        (epoch, after): &(Epoch, Seq),
        read: Result<EncodedPage, ErrorDetail>,
        turn: &mut Turn<'_>,
    ) {
        // So may this one.
        if self.viewer.position(log) != Some((epoch, *after)) {
            return;
        }
        match read {
            Ok(page) => {
                let is_all = !page.more && page.bounds.epoch == *epoch;
                turn.gave(self.viewer.handle_page(log, &page));
                if is_all {
                    // What is committed after this read makes the log dirty, which is watched since before it.
                    self.viewer.handle_nothing(log);
                }
            }
            Err(why) => self.viewer.handle_refused(log, why),
        }
    }

    /// The socket can be read, or written again.
    pub(super) fn socket_ready(&mut self, turn: &mut Turn<'_>) {
        self.ready.told.store(false, Ordering::Release);
        self.blocked = false;
        let Self { viewer, socket, waker, gone, ends_at, .. } = self;
        let mut context = Context::from_waker(waker);
        for _ in 0..READS {
            let received = socket.poll_receive(&mut context, |incoming| match incoming {
                Incoming::Text(text) => viewer.handle_text(turn.now, text.as_bytes()),
                Incoming::Binary(_) => viewer.handle_binary(),
                Incoming::SignOfLife => viewer.handle_sign_of_life(),
                Incoming::Fault(fault) => viewer.handle_fault(&fault),
                Incoming::Closed => *ends_at = Some(turn.now + CLOSE_WITHIN),
            });
            match received {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(Gone)) => {
                    *gone = true;
                    return;
                }
                Poll::Pending => return,
            }
        }
        self.waker.wake_by_ref();
    }

    /// A time has come at which it was to be looked at.
    pub(super) fn time(&mut self, turn: &mut Turn<'_>) {
        match self.ends_at {
            Some(ends_at) => self.gone |= turn.now >= ends_at,
            None => self.viewer.handle_time(turn.now, clock::now()),
        }
    }

    /// Whether this is the time at which it was to be looked at.
    pub(super) fn is_scheduled_at(&self, at: Instant) -> bool {
        self.scheduled == Some(at)
    }

    /// When it is to be looked at, if that is not arranged for. A deadline that was put off is found out about when the
    /// earlier one has come.
    pub(super) fn next_look(&mut self, now: Instant) -> Option<Instant> {
        let at = self.ends_at.unwrap_or_else(|| self.viewer.deadline());
        if self.scheduled.is_some_and(|scheduled| now < scheduled && scheduled <= at) {
            return None;
        }
        Some(*self.scheduled.insert(at))
    }

    /// Says what there is to say, as far as the socket takes it.
    pub(super) fn turn(&mut self, id: ViewerId, turn: &mut Turn<'_>) -> State {
        if self.grant.lease.is_over() {
            let over = AuthError::Revoked;
            self.viewer.fail(ErrorDetail::new(over.code(), over.to_string()));
        }
        for _ in 0..WRITES {
            if self.viewer.is_closing() {
                self.socket.frames.clear_unsent();
                self.blocked = false;
            }
            if self.gone {
                return State::Over;
            }
            if self.blocked {
                return State::Quiet;
            }
            let has_more = self.gather(id, turn);
            match self.send(turn) {
                Poll::Ready(Ok(())) => self.viewer.handle_sent(),
                Poll::Ready(Err(Gone)) => return State::Over,
                Poll::Pending => {
                    self.blocked = true;
                    return State::Quiet;
                }
            }
            if self.socket.frames.is_over() {
                return self.end();
            }
            if !has_more {
                return State::Quiet;
            }
        }
        State::HasMore
    }

    /// Takes what the machine has to say, once everything before it has left; whether it may have more.
    fn gather(&mut self, id: ViewerId, turn: &mut Turn<'_>) -> bool {
        if self.ends_at.is_some() {
            return false;
        }
        if !self.socket.frames.is_all_sent() && !self.viewer.is_closing() {
            return true;
        }
        let (mut bytes, mut pieces) = (0, 0);
        while bytes < GATHER_BYTES && pieces < PIECES {
            match self.viewer.poll(turn.now) {
                None => return false,
                Some(Action::Send(frame)) => {
                    bytes += frame.len();
                    pieces += 1;
                    self.socket.frames.send(frame);
                }
                Some(Action::Read { log, epoch, after }) => self.next(id, log, epoch, after, turn),
                Some(Action::Open(log)) => turn.asks.push((id, Ask::Open(log))),
                Some(Action::Leave(log)) => turn.asks.push((id, Ask::Leave(log))),
                Some(Action::Command { id: command_id, agent, command }) => {
                    turn.asks.push((id, Ask::Command { id: command_id, agent, command }));
                }
                Some(Action::Close { code, reason }) => {
                    turn.relay.metrics().closed(code.0);
                    self.socket.frames.close(code.0, &reason);
                    self.ends_at = Some(turn.now + CLOSE_WITHIN);
                    return false;
                }
            }
        }
        true
    }

    /// Gives the machine what is in memory after a position, or asks for it to be read.
    fn next(&mut self, id: ViewerId, log: LogId, epoch: Epoch, after: Seq, turn: &mut Turn<'_>) {
        let Ok(place) = self.find(&log) else { return self.viewer.handle_nothing(&log) };
        match turn.relay.feeds().hot(self.seats[place].1.feed(), &epoch, after) {
            After::Segment(segment) => turn.gave(self.viewer.handle_segment(&log, &segment)),
            After::Newest(segment) => {
                turn.gave(self.viewer.handle_segment(&log, &segment));
                self.viewer.handle_nothing(&log);
            }
            After::Nothing => self.viewer.handle_nothing(&log),
            After::Behind => turn.asks.push((id, Ask::Read { log, epoch, after })),
        }
    }

    fn send(&mut self, turn: &mut Turn<'_>) -> Poll<Result<(), Gone>> {
        let mut bytes = 0;
        let sent = self.socket.poll_send(&mut Context::from_waker(&self.waker), &mut bytes);
        turn.bytes += bytes;
        if bytes > 0 {
            self.viewer.handle_progress(turn.now);
        }
        sent
    }

    /// Both sides have closed: the stream ends when the other side has seen the end of this half.
    fn end(&mut self) -> State {
        let mut context = Context::from_waker(&self.waker);
        match self.socket.poll_shutdown(&mut context) {
            Poll::Ready(Err(_)) => State::Over,
            Poll::Ready(Ok(())) | Poll::Pending => State::Quiet,
        }
    }

    fn find(&self, log: &LogId) -> Result<usize, usize> {
        self.seats.binary_search_by(|(seat, ..)| seat.cmp(log))
    }
}

impl Drop for Conn {
    fn drop(&mut self) {
        if let Some(lease) = &self.lease {
            lease.abort();
        }
    }
}
