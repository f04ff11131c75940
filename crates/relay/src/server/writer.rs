//! The tasks that write to viewers: each owns thousands of them.
//!
//! A commit makes a log *dirty*. The writer then makes its *pass*: it offers every viewer of the log what is new, as far as
//! the viewer's socket takes it, in one write per viewer however many events there are. When the pass is over it says so,
//! and whoever waits for it to append more goes on ([`super::feed::Feeds::shown`]): producers are as fast as the viewers
//! that read.
//!
//! What a viewer needs beside that (a read of the store, a command) is done by a task of its own, which brings its answer
//! back here: the writer waits for nobody.

mod conn;

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::Wake as WakeTask,
    time::Instant,
};

use protocol::{
    AgentId, Command, CommandId, CommandResult, Epoch, ErrorCode, ErrorDetail, LogId, Seq, Timestamp,
    frame::WrapperPresence,
};
use store::Bounds;
use tokio::{
    sync::Notify,
    task::{JoinSet, yield_now},
};
use tracing::{Instrument as _, Span};

use self::conn::{Ask, Conn, Turn};
use super::{
    Relay, clock,
    feed::{Feed, Wake, WriterId, lock},
    metrics::Metrics,
    socket::Io,
};
use crate::{
    EncodedPage, RelayApi as _,
    auth::{Capability, Grant},
    viewer::Viewer,
    wheel::Wheel,
};

/// Viewers with much to catch up on that are served between two looks at what is new.
const CATCHING_UP: usize = 8;

/// The writers of one relay: half as many as there are processors, since the store, the links and the system have work
/// to do as well.
#[derive(Debug)]
pub(super) struct Writers {
    inboxes: Vec<Arc<Inbox>>,
    next: AtomicUsize,
}

/// What a writer is told from outside. A writer runs while it has viewers.
#[derive(Debug, Default)]
struct Inbox {
    state: Mutex<State>,
    notify: Notify,
}

#[derive(Debug, Default)]
struct State {
    runs: bool,
    arrivals: Vec<Arrival>,
    /// Viewers whose sockets can be read or written again.
    ready: Vec<ViewerId>,
}

/// A viewer that was just upgraded.
#[derive(Debug)]
struct Arrival {
    io: Io,
    viewer: Viewer,
    grant: Grant,
    /// The connection that it came by.
    span: Span,
}

/// Names one viewer of a writer; never used again.
type ViewerId = u64;

impl Writers {
    pub(super) fn new() -> Self {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let inboxes = (0..processors.div_ceil(2)).map(|_| Arc::default()).collect();
        Self { inboxes, next: AtomicUsize::new(0) }
    }

    /// Hands a viewer to a writer: to each in turn, so that a log with many viewers has them everywhere.
    pub(super) fn serve(&self, relay: &Relay, io: Io, viewer: Viewer, grant: Grant) {
        let span = tracing::debug_span!("viewer", subject = grant.subject);
        let id = self.next.fetch_add(1, Ordering::Relaxed) % self.inboxes.len();
        let inbox = &self.inboxes[id];
        let starts = {
            let mut state = lock(&inbox.state);
            state.arrivals.push(Arrival { io, viewer, grant, span });
            !std::mem::replace(&mut state.runs, true)
        };
        if starts {
            let writer = Writer::new(relay.clone(), id, inbox.clone());
            // It yields after each pass: the budget that tokio gives a task would end a pass in the midst of it.
            relay.tracker().spawn(tokio::task::unconstrained(writer.run()));
        } else {
            inbox.notify.notify_one();
        }
    }
}

/// Tells the writer that a viewer's socket is ready.
#[derive(Debug)]
struct Ready {
    id: ViewerId,
    told: AtomicBool,
    inbox: Arc<Inbox>,
}

impl WakeTask for Ready {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.told.swap(true, Ordering::AcqRel) {
            lock(&self.inbox.state).ready.push(self.id);
            self.inbox.notify.notify_one();
        }
    }
}

/// What a task that was asked for brings back.
#[derive(Debug)]
enum Answer {
    Opened(ViewerId, LogId, Result<Bounds, ErrorDetail>),
    Read(ViewerId, LogId, (Epoch, Seq), Result<EncodedPage, ErrorDetail>),
    Result(ViewerId, CommandResult),
    /// The lease of its credentials has ended.
    Ended(ViewerId),
}

struct Writer {
    relay: Relay,
    id: WriterId,
    inbox: Arc<Inbox>,
    wake: Arc<Wake>,
    next_id: ViewerId,
    viewers: HashMap<ViewerId, Conn>,
    logs: HashMap<LogId, Watched>,
    /// Viewers with more to send than one turn.
    catching_up: VecDeque<ViewerId>,
    answers: JoinSet<Answer>,
    wheel: Wheel<(ViewerId, Instant)>,
    asks: Vec<(ViewerId, Ask)>,
}

/// A log that viewers of this writer read.
struct Watched {
    feed: Arc<Feed>,
    viewers: Vec<ViewerId>,
    /// What they were told of the wrapper.
    presence: Option<(WrapperPresence, Timestamp)>,
    /// Up to where they were offered events.
    offered: Seq,
}

impl Writer {
    fn new(relay: Relay, id: WriterId, inbox: Arc<Inbox>) -> Self {
        Self {
            relay,
            id,
            inbox,
            wake: Arc::default(),
            next_id: 0,
            viewers: HashMap::new(),
            logs: HashMap::new(),
            catching_up: VecDeque::new(),
            answers: JoinSet::new(),
            wheel: Wheel::new(clock::instant()),
            asks: Vec::new(),
        }
    }

    /// Serves viewers until there are none.
    async fn run(mut self) {
        let draining = self.relay.draining().clone();
        let mut drained = false;
        loop {
            self.look_around();
            if draining.is_cancelled() && !std::mem::replace(&mut drained, true) {
                self.drain();
            }
            if self.is_over() {
                return;
            }
            if !self.catching_up.is_empty() {
                yield_now().await;
                continue;
            }
            let next = self.wheel.next();
            let due = async {
                match next {
                    Some(next) => clock::sleep_until(next).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = self.wake.wait() => {}
                () = self.inbox.notify.notified() => {}
                Some(answer) = self.answers.join_next() => self.take(answer.ok()),
                () = due => {}
                () = draining.cancelled(), if !drained => {}
            }
            // Whoever appends runs before the next pass: what comes together is written together.
            yield_now().await;
        }
    }

    /// Does everything that can be done without waiting.
    fn look_around(&mut self) {
        let State { arrivals, ready, .. } = {
            let mut state = lock(&self.inbox.state);
            let runs = state.runs;
            std::mem::replace(&mut *state, State { runs, ..State::default() })
        };
        for arrival in arrivals {
            self.admit(arrival);
        }
        while let Some(answer) = self.answers.try_join_next() {
            self.take(answer.ok());
        }
        for log in self.wake.take() {
            self.pass(&log);
        }
        for id in ready {
            self.serve(id, Conn::socket_ready);
        }
        for _ in 0..CATCHING_UP.min(self.catching_up.len()) {
            if let Some(id) = self.catching_up.pop_front() {
                self.serve(id, |_, _| {});
            }
        }
        let now = clock::instant();
        while let Some(due) = self.wheel.take_due(now) {
            for (id, at) in due {
                if self.viewers.get(&id).is_some_and(|conn| conn.is_scheduled_at(at)) {
                    self.serve(id, Conn::time);
                }
            }
        }
    }

    /// Whether the last viewer has gone and none has come.
    fn is_over(&self) -> bool {
        if !self.viewers.is_empty() {
            return false;
        }
        let mut state = lock(&self.inbox.state);
        state.runs = !state.arrivals.is_empty();
        !state.runs
    }

    fn admit(&mut self, arrival: Arrival) {
        let Arrival { io, viewer, grant, span } = arrival;
        let id = self.next_id;
        self.next_id += 1;
        let ready = Arc::new(Ready { id, told: AtomicBool::new(false), inbox: self.inbox.clone() });
        let lease = grant.lease.is_limited().then(|| {
            let lease = grant.lease.clone();
            self.answers.spawn(async move {
                lease.ended().await;
                Answer::Ended(id)
            })
        });
        self.viewers.insert(id, Conn::new(io, viewer, grant, lease, ready, span));
        self.relay.metrics().viewers.fetch_add(1, Ordering::Relaxed);
        let draining = self.relay.draining().is_cancelled().then(|| self.relay.retry_after_ms());
        self.serve(id, |conn, turn| {
            if let Some(retry_after_ms) = draining {
                conn.viewer.handle_drain(retry_after_ms);
            }
            conn.socket_ready(turn);
        });
    }

    fn drain(&mut self) {
        let mut viewers = self.viewers.keys().copied().collect::<Vec<_>>();
        // In the order in which they came, so that a simulation that is repeated is the same.
        viewers.sort_unstable();
        for id in viewers {
            let retry_after_ms = self.relay.retry_after_ms();
            self.serve(id, |conn, _| conn.viewer.handle_drain(retry_after_ms));
        }
    }

    /// Offers every viewer of a log what is new.
    fn pass(&mut self, log: &LogId) {
        let Some(watched) = self.logs.get_mut(log) else { return };
        let (head, fed_at) = watched.feed.head();
        if let Some(agent) = log.agent() {
            let presence = self.relay.links().presence(agent);
            watched.presence = Some((presence.wrapper, presence.since));
        }
        let presence = watched.presence;
        let offered = std::mem::replace(&mut watched.offered, head);
        let viewers = std::mem::take(&mut watched.viewers);
        let now = clock::instant();
        let mut turn = Turn::new(&self.relay, now, &mut self.asks);
        let mut gone = Vec::new();
        for id in &viewers {
            let Some(conn) = self.viewers.get_mut(id) else { continue };
            conn.look(log, presence);
            match conn.turn(*id, &mut turn) {
                conn::State::Quiet => {}
                conn::State::HasMore => self.catching_up.push_back(*id),
                conn::State::Over => gone.push(*id),
            }
            if let Some(at) = conn.next_look(now) {
                self.wheel.schedule((*id, at), at);
            }
        }
        turn.count();
        if head > offered && !viewers.is_empty() {
            self.relay.metrics().delivered(clock::instant() - fed_at);
        }
        if let Some(watched) = self.logs.get_mut(log) {
            watched.viewers = viewers;
            watched.feed.passed(self.id, head);
        }
        for id in gone {
            self.remove(id);
        }
        self.do_asks();
    }

    /// Does something with a viewer, then everything that follows from it.
    fn serve(&mut self, id: ViewerId, what: impl FnOnce(&mut Conn, &mut Turn<'_>)) {
        let Some(conn) = self.viewers.get_mut(&id) else { return };
        let now = clock::instant();
        let mut turn = Turn::new(&self.relay, now, &mut self.asks);
        what(conn, &mut turn);
        let state = conn.turn(id, &mut turn);
        if let Some(at) = conn.next_look(now) {
            self.wheel.schedule((id, at), at);
        }
        turn.count();
        match state {
            conn::State::Quiet => {}
            conn::State::HasMore => self.catching_up.push_back(id),
            conn::State::Over => self.remove(id),
        }
        self.do_asks();
    }

    fn remove(&mut self, id: ViewerId) {
        let Some(conn) = self.viewers.remove(&id) else { return };
        for log in conn.logs() {
            self.unwatch(id, log);
        }
        self.relay.metrics().viewers.fetch_sub(1, Ordering::Relaxed);
    }

    fn do_asks(&mut self) {
        while let Some((id, ask)) = self.asks.pop() {
            match ask {
                Ask::Open(log) => self.open(id, log),
                Ask::Leave(log) => {
                    if let Some(conn) = self.viewers.get_mut(&id) {
                        conn.leave(&log);
                        self.unwatch(id, &log);
                    }
                }
                Ask::Read { log, epoch, after } => {
                    Metrics::add(&self.relay.metrics().behind, 1);
                    let relay = self.relay.clone();
                    let span = self.viewers.get(&id).map_or_else(Span::none, |conn| conn.subscription(&log));
                    let reading = async move {
                        let _catching_up = Metrics::hold(&relay.metrics().catching_up);
                        let read = relay.feeds().read(&log, after).await;
                        Answer::Read(id, log, (epoch, after), read)
                    };
                    self.answers.spawn(reading.instrument(span));
                }
                Ask::Command { id: command_id, agent, command } => {
                    self.command(id, command_id, agent, command)
                }
            }
        }
    }

    /// Has a viewer watch a log, from before the time of the bounds that it will be told.
    fn open(&mut self, id: ViewerId, log: LogId) {
        let Some(conn) = self.viewers.get_mut(&id) else { return };
        let seat = if conn.grant.allows(Capability::Read, &log) {
            self.relay.feeds().seat(&log)
        } else {
            Err(ErrorDetail::new(ErrorCode::Forbidden, format!("the credentials do not reach {log}")))
        };
        let seat = match seat {
            Ok(seat) => seat,
            Err(why) => return self.serve(id, |conn, _| conn.viewer.handle_refused(&log, why)),
        };
        let watched = self.logs.entry(log.clone()).or_insert_with(|| {
            seat.feed().watch(&self.wake);
            seat.feed().join(self.id);
            let feed = seat.feed().clone();
            Watched { feed, viewers: Vec::new(), presence: None, offered: Seq::ZERO }
        });
        watched.viewers.push(id);
        conn.sit(log.clone(), seat);
        let (feeds, span) = (self.relay.feeds().clone(), conn.subscription(&log));
        let opening = async move {
            let bounds = feeds.bounds(&log).await;
            Answer::Opened(id, log, bounds)
        };
        self.answers.spawn(opening.instrument(span));
    }

    fn command(&mut self, id: ViewerId, command_id: CommandId, agent: AgentId, command: Command) {
        let Some(conn) = self.viewers.get(&id) else { return };
        if !conn.grant.allows(Capability::Steer, &LogId::Agent(agent.clone())) {
            let message = "the credentials do not let you steer this agent";
            let refused = CommandResult::refused(command_id, ErrorCode::Forbidden, message);
            return self.serve(id, |conn, _| conn.viewer.handle_result(refused));
        }
        let relay = self.relay.clone();
        self.answers.spawn(async move {
            let result = relay.command(&agent, command_id.clone(), command).await;
            let result = result.unwrap_or_else(|error| {
                let code = error.code().unwrap_or(ErrorCode::Internal);
                CommandResult::refused(command_id, code, error.to_string())
            });
            Answer::Result(id, result)
        });
    }

    fn unwatch(&mut self, id: ViewerId, log: &LogId) {
        let Some(watched) = self.logs.get_mut(log) else { return };
        if let Some(place) = watched.viewers.iter().position(|viewer| *viewer == id) {
            watched.viewers.swap_remove(place);
        }
        if watched.viewers.is_empty() {
            watched.feed.unwatch(&self.wake);
            watched.feed.part(self.id);
            self.logs.remove(log);
        }
    }

    /// What a task brings; nothing, if it was aborted.
    fn take(&mut self, answer: Option<Answer>) {
        match answer {
            Some(Answer::Opened(id, log, opened)) => self.serve(id, |conn, turn| match opened {
                Ok(bounds) => conn.opened(&log, bounds, turn),
                Err(why) => conn.viewer.handle_refused(&log, why),
            }),
            Some(Answer::Read(id, log, at, read)) => {
                self.serve(id, |conn, turn| conn.read(&log, &at, read, turn))
            }
            Some(Answer::Result(id, result)) => self.serve(id, |conn, _| conn.viewer.handle_result(result)),
            // It looks at its lease at every turn.
            Some(Answer::Ended(id)) => self.serve(id, |_, _| {}),
            None => {}
        }
    }
}
