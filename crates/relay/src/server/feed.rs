//! One task per log that somebody reads: it follows the store and feeds the log's hot tail.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::{Duration, Instant},
};

use protocol::{Epoch, ErrorCode, ErrorDetail, LogId, Seq};
use store::{Bounds, EventStore, Page, ReadError, ReadLimit};
use tokio::sync::{Notify, Semaphore};
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};

use super::{clock, problem};
use crate::{
    EncodedPage, Segment,
    history::History,
    tail::{After, Tail, TailLimits},
};

/// What one read takes from the store: a viewer that stalls holds what it read last (P8).
const READ: ReadLimit = ReadLimit { events: 256, bytes: 128 * 1024 };
/// Reads of readers that are behind the hot tail, at once: a herd waits its turn, in order.
const READS_AT_ONCE: usize = 16;
/// Bytes of pages that are kept for others who are behind.
const HISTORY_BYTES: usize = 8 * 1024 * 1024;
/// How long an append waits for the writers: their pass takes milliseconds, unless the machine stands still.
const SHOWN_WITHIN: Duration = Duration::from_secs(1);

/// The logs that somebody reads.
#[derive(Debug)]
pub(super) struct Feeds {
    store: Arc<dyn EventStore>,
    tracker: TaskTracker,
    stopped: CancellationToken,
    viewers_per_log: usize,
    open: Mutex<HashMap<LogId, Weak<Feed>>>,
    history: Mutex<History>,
    admission: Semaphore,
}

/// The hot end of one log, and who waits for more of it. Its task ends with its last reader.
#[derive(Debug)]
pub(super) struct Feed {
    log: LogId,
    hot: Mutex<Hot>,
    watchers: Mutex<Vec<Arc<Wake>>>,
    seats: Mutex<usize>,
    passes: Mutex<BTreeMap<WriterId, Seq>>,
    passed: Notify,
    _task: DropGuard,
}

#[derive(Debug)]
struct Hot {
    /// Absent until the task has found the log, and after it failed to read it.
    tail: Option<Tail>,
    /// When the newest events came.
    fed_at: Instant,
}

/// Names a task that writes to viewers.
pub(super) type WriterId = usize;

/// One viewer's place at a log: there is a number of them.
#[derive(Debug)]
pub(super) struct Seat(Arc<Feed>);

/// Wakes one reader of any number of logs, and says for which of them.
#[derive(Debug, Default)]
pub(super) struct Wake {
    notify: Notify,
    dirty: Mutex<BTreeSet<LogId>>,
}

/// One reader of one log: it watches it once it has opened it, until its own end.
#[derive(Debug)]
pub(super) struct Reader {
    feeds: Arc<Feeds>,
    wake: Arc<Wake>,
    log: LogId,
    seat: Option<Seat>,
}

/// What comes after a position.
#[derive(Debug)]
pub(super) enum Next {
    /// Of the hot tail, or of what others have read.
    Segment(Segment),
    /// Of the store.
    Page(EncodedPage),
    /// Nothing, until the reader is woken.
    Nothing,
}

impl Feeds {
    /// Their tasks run in `tracker` until `stopped`.
    pub(super) fn new(
        store: Arc<dyn EventStore>,
        tracker: TaskTracker,
        stopped: CancellationToken,
        viewers_per_log: usize,
    ) -> Arc<Self> {
        Arc::new(Self {
            store,
            tracker,
            stopped,
            viewers_per_log,
            open: Mutex::default(),
            history: Mutex::new(History::new(HISTORY_BYTES)),
            admission: Semaphore::new(READS_AT_ONCE),
        })
    }

    /// Wakes everyone who reads a log: something about it has changed.
    pub(super) fn wake(&self, log: &LogId) {
        if let Some(feed) = self.find(log) {
            feed.wake_all();
        }
    }

    /// Waits until every writer has offered its viewers what the log has up to `head`. Whose socket is full does not
    /// count, so that no slow viewer holds a producer back; the others are kept up with.
    pub(super) async fn shown(&self, log: &LogId, head: Seq) {
        let Some(feed) = self.find(log) else { return };
        if tokio::time::timeout(SHOWN_WITHIN, feed.shown(head)).await.is_err() {
            tracing::warn!(%log, %head, "the viewers of a log were not served in time");
        }
    }

    /// A place at a log for one more viewer, whether the log is there or not.
    pub(super) fn seat(self: &Arc<Self>, log: &LogId) -> Result<Seat, ErrorDetail> {
        let feed = self.feed(log);
        let mut seats = lock(&feed.seats);
        if *seats >= self.viewers_per_log {
            let message = format!("{log} has {seats} viewers already");
            return Err(ErrorDetail {
                retry_after_ms: Some(5_000),
                ..ErrorDetail::new(ErrorCode::RateLimited, message)
            });
        }
        *seats += 1;
        drop(seats);
        Ok(Seat(feed))
    }

    /// Where a log begins and ends.
    pub(super) async fn bounds(&self, log: &LogId) -> Result<Bounds, ErrorDetail> {
        self.store.bounds(log).await.map_err(|error| problem::of_read(&error))
    }

    /// What is kept in memory after a position; [`After::Behind`] if only the store has it.
    pub(super) fn hot(&self, feed: &Feed, epoch: &Epoch, after: Seq) -> After {
        match lock(&feed.hot).tail.as_ref().map(|tail| tail.after(epoch, after)) {
            Some(found @ (After::Segment(_) | After::Newest(_) | After::Nothing)) => found,
            Some(After::Behind) | None => {
                let history = lock(&self.history).after(&feed.log, epoch, after);
                history.map_or(After::Behind, After::Segment)
            }
        }
    }

    /// Reads what the store has after a position, and keeps it for others who are there.
    pub(super) async fn read(&self, log: &LogId, after: Seq) -> Result<EncodedPage, ErrorDetail> {
        // It is never closed.
        let _admitted = self.admission.acquire().await;
        let page = self.store.read(log, after, READ).await.map_err(|error| problem::of_read(&error))?;
        let page = EncodedPage::of(log, page);
        if let Some(segment) = page.segment.as_ref().filter(|_| page.more) {
            lock(&self.history).keep(log, &page.bounds.epoch, after.max(page.bounds.floor), segment);
        }
        Ok(page)
    }

    fn find(&self, log: &LogId) -> Option<Arc<Feed>> {
        lock(&self.open).get(log).and_then(Weak::upgrade)
    }

    fn feed(self: &Arc<Self>, log: &LogId) -> Arc<Feed> {
        let mut open = lock(&self.open);
        if let Some(feed) = open.get(log).and_then(Weak::upgrade) {
            return feed;
        }
        if open.len().is_power_of_two() {
            open.retain(|_, feed| feed.strong_count() > 0);
        }
        let cancel = self.stopped.child_token();
        let feed = Arc::new(Feed {
            log: log.clone(),
            hot: Mutex::new(Hot { tail: None, fed_at: clock::instant() }),
            watchers: Mutex::default(),
            seats: Mutex::default(),
            passes: Mutex::default(),
            passed: Notify::new(),
            _task: cancel.clone().drop_guard(),
        });
        open.insert(log.clone(), Arc::downgrade(&feed));
        let (store, log, weak) = (self.store.clone(), log.clone(), Arc::downgrade(&feed));
        self.tracker.spawn(async move {
            cancel.run_until_cancelled(follow(&*store, &log, &weak)).await;
        });
        feed
    }
}

/// Brings what is committed to the hot tail, until the store is gone.
async fn follow(store: &dyn EventStore, log: &LogId, feed: &Weak<Feed>) {
    let mut head = store.tail(log);
    loop {
        while let Some(more) = advance(store, log, feed).await {
            if !more {
                break;
            }
        }
        if head.changed().await.is_none() {
            return;
        }
    }
}

/// Reads on from the tail's head, and says whether there is more; `None` if there is nothing to be had.
async fn advance(store: &dyn EventStore, log: &LogId, feed: &Weak<Feed>) -> Option<bool> {
    let position = lock(&feed.upgrade()?.hot).tail.as_ref().map(Tail::head);
    let read = match position {
        Some(head) => store.read(log, head, READ).await.map(Read::Page),
        None => store.bounds(log).await.map(Read::Bounds),
    };
    let feed = feed.upgrade()?;
    let more = match read {
        Ok(read) => feed.take(read),
        Err(ReadError::UnknownLog { .. }) if position.is_none() => return None,
        Err(error) => {
            // Readers go to the store themselves, and tell their viewers what they are told there.
            tracing::warn!(%log, %error, "the hot tail cannot be read");
            lock(&feed.hot).tail.take();
            false
        }
    };
    feed.wake_all();
    Some(more)
}

enum Read {
    Page(Page),
    Bounds(Bounds),
}

impl Feed {
    fn take(&self, read: Read) -> bool {
        let mut hot = lock(&self.hot);
        match (read, &mut hot.tail) {
            (Read::Page(page), Some(tail)) => {
                // A page of another incarnation was read after a position of this one: read again, from its beginning.
                let more = page.more || page.bounds.epoch != *tail.epoch();
                if page.bounds.epoch == *tail.epoch() {
                    tail.push(page);
                } else {
                    let Bounds { epoch, floor, .. } = page.bounds;
                    *tail = Tail::new(self.log.clone(), epoch, floor, TailLimits::default());
                }
                hot.fed_at = clock::instant();
                more
            }
            (Read::Page(_), None) => true,
            (Read::Bounds(bounds), tail) => {
                *tail = Some(Tail::new(self.log.clone(), bounds.epoch, bounds.head, TailLimits::default()));
                // What was committed between the bounds and the first wait is not to be waited for.
                true
            }
        }
    }

    fn wake_all(&self) {
        for watcher in lock(&self.watchers).iter() {
            watcher.mark(&self.log);
        }
    }

    /// Wakes this reader when something about the log has changed.
    pub(super) fn watch(&self, wake: &Arc<Wake>) {
        lock(&self.watchers).push(wake.clone());
    }

    /// Takes one watch of this reader away.
    pub(super) fn unwatch(&self, wake: &Arc<Wake>) {
        let mut watchers = lock(&self.watchers);
        if let Some(index) = watchers.iter().position(|watcher| Arc::ptr_eq(watcher, wake)) {
            watchers.swap_remove(index);
        }
    }

    /// The newest position that can be read here, and when it came.
    pub(super) fn head(&self) -> (Seq, Instant) {
        let hot = lock(&self.hot);
        (hot.tail.as_ref().map_or(Seq::ZERO, Tail::head), hot.fed_at)
    }

    /// A writer has viewers of this log: appends wait for its passes from here on.
    pub(super) fn join(&self, writer: WriterId) {
        let (head, _) = self.head();
        lock(&self.passes).insert(writer, head);
    }

    /// A writer has offered all its viewers what there was up to `head`.
    pub(super) fn passed(&self, writer: WriterId, head: Seq) {
        if let Some(passed) = lock(&self.passes).get_mut(&writer) {
            *passed = head;
        }
        self.passed.notify_waiters();
    }

    /// A writer has no viewer of this log any more.
    pub(super) fn part(&self, writer: WriterId) {
        lock(&self.passes).remove(&writer);
        self.passed.notify_waiters();
    }

    async fn shown(&self, head: Seq) {
        loop {
            let mut passed = std::pin::pin!(self.passed.notified());
            passed.as_mut().enable();
            if lock(&self.passes).values().all(|passed| *passed >= head) {
                return;
            }
            passed.await;
        }
    }
}

impl Seat {
    pub(super) fn feed(&self) -> &Arc<Feed> {
        &self.0
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        *lock(&self.0.seats) -= 1;
    }
}

impl Wake {
    fn mark(&self, log: &LogId) {
        let is_first = {
            let mut dirty = lock(&self.dirty);
            dirty.insert(log.clone()) && dirty.len() == 1
        };
        if is_first {
            self.notify.notify_one();
        }
    }

    /// The logs about which something has changed since the last call.
    pub(super) fn take(&self) -> BTreeSet<LogId> {
        std::mem::take(&mut *lock(&self.dirty))
    }

    /// Waits for logs about which something has changed. Cancel-safe.
    pub(super) async fn wait(&self) {
        while lock(&self.dirty).is_empty() {
            self.notify.notified().await;
        }
    }
}

impl Reader {
    pub(super) fn new(feeds: Arc<Feeds>, log: LogId) -> Self {
        Self { feeds, wake: Arc::default(), log, seat: None }
    }

    /// Waits until something about the log has changed. Cancel-safe.
    pub(super) async fn woken(&self) {
        self.wake.wait().await;
        self.wake.take();
    }

    /// Watches the log from before the time of the bounds that are returned.
    pub(super) async fn open(&mut self) -> Result<Bounds, ErrorDetail> {
        self.leave();
        let seat = self.feeds.seat(&self.log)?;
        seat.feed().watch(&self.wake);
        self.seat = Some(seat);
        let bounds = self.feeds.bounds(&self.log).await;
        if bounds.is_err() {
            self.leave();
        }
        bounds
    }

    /// What comes after a position of the open log.
    pub(super) async fn next(&self, epoch: &Epoch, after: Seq) -> Result<Next, ErrorDetail> {
        let hot = self.seat.as_ref().map_or(After::Behind, |seat| self.feeds.hot(seat.feed(), epoch, after));
        match hot {
            After::Segment(segment) | After::Newest(segment) => Ok(Next::Segment(segment)),
            After::Nothing => Ok(Next::Nothing),
            After::Behind => self.feeds.read(&self.log, after).await.map(Next::Page),
        }
    }

    fn leave(&mut self) {
        if let Some(seat) = self.seat.take() {
            seat.feed().unwatch(&self.wake);
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.leave();
    }
}

/// Every change under these locks is whole before anything can panic.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
