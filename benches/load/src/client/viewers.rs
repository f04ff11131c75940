//! The viewers of one run.

use std::{
    cell::RefCell,
    future::pending,
    rc::Rc,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    thread::JoinHandle,
    time::Duration,
};

use anyhow::{Result, bail};
use hdrhistogram::Histogram;
use meter::clock::{now_ns, pause, seconds};
use tokio::{
    io::AsyncWriteExt as _,
    sync::{Semaphore, oneshot},
    task::LocalSet,
};

use super::{connect, latencies, read, runtime};
use crate::{
    event::Scanner,
    judge::{Judge, Verdict},
    peer::{Heard, Peer},
};

/// Bytes that one read takes.
const READ_BYTES: usize = 256 * 1024;
/// The receive buffer of a viewer that does not read, so that the server feels it early.
const STALLED_BUFFER: u32 = 4096;
/// How often a counter is looked at.
const TICK: Duration = Duration::from_millis(1);

/// What a viewer is to do.
#[derive(Debug, Clone)]
pub(crate) struct ViewerPlan {
    pub(crate) channel: String,
    /// Subscribe, then never read again.
    pub(crate) stalled: bool,
    /// Leave after this many different events.
    pub(crate) leave_after: Option<u64>,
}

impl ViewerPlan {
    /// One that reads this channel on and on.
    pub(crate) fn of(channel: &str) -> Self {
        Self { channel: channel.to_owned(), stalled: false, leave_after: None }
    }
}

/// What one viewer saw.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) channel: String,
    pub(crate) stalled: bool,
    pub(crate) judge: Judge,
    /// When it began to connect, was subscribed, and got its first and its last event; 0 for never.
    pub(crate) began: u64,
    pub(crate) ready_at: u64,
    pub(crate) last_at: u64,
    /// Gaps that the server named.
    pub(crate) gaps: u64,
}

/// What all of them saw.
#[derive(Debug)]
pub(crate) struct Watched {
    pub(crate) viewers: Vec<Seen>,
    /// From an event's sending to its arrival.
    pub(crate) latency: Histogram<u64>,
    /// How the first viewer that failed failed.
    pub(crate) error: Option<String>,
}

impl Watched {
    /// What is wrong with what those that read got, when each channel had this many events.
    pub(crate) fn verdict(&self, through: impl Fn(&str) -> u64) -> Verdict {
        let mut all = Verdict::default();
        for seen in self.viewers.iter().filter(|seen| !seen.stalled) {
            all += seen.judge.verdict(through(&seen.channel));
        }
        all
    }

    pub(crate) fn gaps(&self) -> u64 {
        self.viewers.iter().map(|seen| seen.gaps).sum()
    }
}

/// What the main thread sees of viewers that run.
#[derive(Debug, Default)]
struct Board {
    ready: AtomicUsize,
    failed: AtomicUsize,
    events: AtomicU64,
    last_at: AtomicU64,
    error: Mutex<Option<String>>,
}

/// Viewers that run.
#[derive(Debug)]
pub(crate) struct Viewers {
    board: Arc<Board>,
    count: usize,
    stop: oneshot::Sender<()>,
    thread: JoinHandle<Watched>,
}

impl Viewers {
    /// Connects all of them, at most `at_once` at a time.
    pub(crate) fn start(peer: &Arc<dyn Peer>, plans: Vec<ViewerPlan>, at_once: usize) -> Self {
        let (board, count) = (Arc::new(Board::default()), plans.len());
        let (stop, stopped) = oneshot::channel();
        let (peer, seen_by) = (Arc::clone(peer), Arc::clone(&board));
        let thread = std::thread::spawn(move || watch(&peer, plans, &seen_by, at_once, stopped));
        Self { board, count, stop, thread }
    }

    /// Waits until all are subscribed.
    pub(crate) fn wait_ready(&self, within: Duration) -> Result<()> {
        let began = now_ns();
        loop {
            let (ready, failed) = (self.board.ready.load(Relaxed), self.board.failed.load(Relaxed));
            if ready == self.count {
                return Ok(());
            }
            if ready + failed >= self.count || seconds(began, now_ns()) > within.as_secs_f64() {
                bail!(
                    "{ready} of {} viewers were subscribed, {failed} failed: {}",
                    self.count,
                    self.error().unwrap_or_default()
                );
            }
            pause(TICK);
        }
    }

    /// Waits until `total` events came to all together, or none came for `quiet`.
    pub(crate) fn drain(&self, total: u64, quiet: Duration) {
        let (mut seen, mut since) = (self.events(), now_ns());
        while seen < total && seconds(since, now_ns()) < quiet.as_secs_f64() {
            pause(TICK);
            let events = self.events();
            if events != seen {
                (seen, since) = (events, now_ns());
            }
        }
    }

    /// Events that came to all together.
    pub(crate) fn events(&self) -> u64 {
        self.board.events.load(Relaxed)
    }

    /// When the last one came.
    pub(crate) fn last_at(&self) -> u64 {
        self.board.last_at.load(Relaxed)
    }

    /// Disconnects them.
    pub(crate) fn finish(self) -> Watched {
        // If the thread has ended already, there is nobody to tell.
        let _ = self.stop.send(());
        self.thread.join().expect("viewers do not panic")
    }

    fn error(&self) -> Option<String> {
        self.board.error.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// What the viewers of a thread have in common.
struct Common {
    buffer: RefCell<Vec<u8>>,
    latency: RefCell<Histogram<u64>>,
    scanner: Scanner,
}

fn watch(
    peer: &Arc<dyn Peer>,
    plans: Vec<ViewerPlan>,
    board: &Arc<Board>,
    at_once: usize,
    stopped: oneshot::Receiver<()>,
) -> Watched {
    let (runtime, tasks) = (runtime(), LocalSet::new());
    let common = Rc::new(Common {
        buffer: RefCell::new(vec![0; READ_BYTES]),
        latency: RefCell::new(latencies()),
        scanner: Scanner::new(),
    });
    let gate = Rc::new(Semaphore::new(at_once));
    let mut all = Vec::new();
    for plan in plans {
        let seen = Rc::new(RefCell::new(Seen {
            channel: plan.channel.clone(),
            stalled: plan.stalled,
            judge: Judge::new(),
            began: 0,
            ready_at: 0,
            last_at: 0,
            gaps: 0,
        }));
        all.push(Rc::clone(&seen));
        let (peer, board, common, gate) =
            (Arc::clone(peer), Arc::clone(board), Rc::clone(&common), Rc::clone(&gate));
        tasks.spawn_local(async move {
            if let Err(error) = view(&*peer, &plan, &common, &board, &seen, &gate).await {
                board.failed.fetch_add(1, Relaxed);
                let mut first = board.error.lock().unwrap_or_else(PoisonError::into_inner);
                first.get_or_insert_with(|| format!("{error:#}"));
            }
        });
    }
    tasks.block_on(&runtime, async move {
        // The sender is dropped only with a panic of the main thread.
        let _ = stopped.await;
    });
    drop((tasks, runtime));
    let latency = common.latency.borrow().clone();
    let viewers =
        all.into_iter().map(|seen| Rc::into_inner(seen).expect("its task is gone").into_inner()).collect();
    let error = board.error.lock().unwrap_or_else(PoisonError::into_inner).clone();
    Watched { viewers, latency, error }
}

async fn view(
    peer: &dyn Peer,
    plan: &ViewerPlan,
    common: &Common,
    board: &Board,
    seen: &RefCell<Seen>,
    gate: &Semaphore,
) -> Result<()> {
    let mut permit = Some(gate.acquire().await?);
    seen.borrow_mut().began = now_ns();
    let mut codec = peer.viewer(&plan.channel);
    let mut stream = connect(peer.viewer_address(), plan.stalled.then_some(STALLED_BUFFER)).await?;
    stream.write_all(&codec.open()).await?;
    let (mut rest, mut was_ready) = (Vec::new(), false);
    loop {
        let (mut reply, mut ready, mut closed) = (Vec::new(), false, false);
        let read = read(&mut stream, &common.buffer, &mut rest, |bytes| {
            let (now, mut seen) = (now_ns(), seen.borrow_mut());
            let (mut latency, mut events) = (common.latency.borrow_mut(), 0);
            let judge = &mut seen.judge;
            let mut take = |payload: &[u8]| {
                common.scanner.scan(payload, |number, sent| {
                    events += 1;
                    judge.see(number);
                    latency.saturating_record(now.saturating_sub(sent));
                });
            };
            let mut heard =
                Heard { reply: Vec::new(), ready: false, closed: false, gaps: 0, events: &mut take };
            let used = codec.feed(bytes, &mut heard)?;
            let gaps = heard.gaps;
            (reply, ready, closed) = (heard.reply, heard.ready, heard.closed);
            seen.gaps += gaps;
            if events > 0 {
                seen.last_at = now;
                board.events.fetch_add(events, Relaxed);
                board.last_at.fetch_max(now, Relaxed);
            }
            Ok(used)
        })
        .await?;
        if !reply.is_empty() {
            stream.write_all(&reply).await?;
        }
        if ready && !was_ready {
            was_ready = true;
            seen.borrow_mut().ready_at = now_ns();
            board.ready.fetch_add(1, Relaxed);
            permit.take();
            if plan.stalled {
                pending::<()>().await;
            }
        }
        if was_ready && plan.leave_after.is_some_and(|events| seen.borrow().judge.distinct() >= events) {
            return Ok(());
        }
        if read == 0 || closed {
            bail!("the server ended a stream");
        }
    }
}
