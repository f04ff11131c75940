//! One task per log that somebody reads: it follows the store and feeds the log's hot tail.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use protocol::{Epoch, ErrorCode, ErrorDetail, LogId, Seq};
use store::{Bounds, EventStore, Page, ReadError, ReadLimit};
use tokio::sync::Notify;
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};

use super::problem;
use crate::{
    Segment,
    tail::{After, Tail, TailLimits},
};

/// What one read of a viewer that is behind takes from the store: what it may hold.
const BEHIND: ReadLimit = ReadLimit { events: 256, bytes: 128 * 1024 };

/// The logs that somebody reads.
#[derive(Debug)]
pub(super) struct Feeds {
    store: Arc<dyn EventStore>,
    tracker: TaskTracker,
    stopped: CancellationToken,
    viewers_per_log: usize,
    open: Mutex<BTreeMap<LogId, Weak<Feed>>>,
}

/// The hot end of one log, and who waits for more of it. Its task ends with its last reader.
#[derive(Debug)]
pub(super) struct Feed {
    /// Absent until the task has found the log, and after it failed to read it.
    tail: Mutex<Option<Tail>>,
    watchers: Mutex<Vec<Arc<Wake>>>,
    _task: DropGuard,
}

/// Wakes one reader of any number of logs, and says for which of them.
#[derive(Debug, Default)]
pub(super) struct Wake {
    notify: Notify,
    dirty: Mutex<BTreeSet<LogId>>,
}

/// One reader: it watches the logs it has open, and stops with its end.
#[derive(Debug)]
pub(super) struct Reader {
    feeds: Arc<Feeds>,
    wake: Arc<Wake>,
    open: BTreeMap<LogId, Arc<Feed>>,
}

/// What comes after a position.
#[derive(Debug)]
pub(super) enum Next {
    /// Of the hot tail.
    Segment(Segment),
    /// Of the store.
    Page(Page),
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
        Arc::new(Self { store, tracker, stopped, viewers_per_log, open: Mutex::default() })
    }

    /// Wakes everyone who reads a log: something about it has changed.
    pub(super) fn wake(&self, log: &LogId) {
        let feed = lock(&self.open).get(log).and_then(Weak::upgrade);
        if let Some(feed) = feed {
            feed.wake_all(log);
        }
    }

    fn feed(self: &Arc<Self>, log: &LogId) -> Arc<Feed> {
        let mut open = lock(&self.open);
        if let Some(feed) = open.get(log).and_then(Weak::upgrade) {
            return feed;
        }
        open.retain(|_, feed| feed.strong_count() > 0);
        let cancel = self.stopped.child_token();
        let task = cancel.clone().drop_guard();
        let feed = Arc::new(Feed { tail: Mutex::default(), watchers: Mutex::default(), _task: task });
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
    let position = lock(&feed.upgrade()?.tail).as_ref().map(Tail::head);
    let read = match position {
        Some(head) => store.read(log, head, ReadLimit::default()).await.map(Read::Page),
        None => store.bounds(log).await.map(Read::Bounds),
    };
    let feed = feed.upgrade()?;
    let more = match read {
        Ok(read) => feed.take(log, read),
        Err(ReadError::UnknownLog { .. }) if position.is_none() => return None,
        Err(error) => {
            // Readers go to the store themselves, and tell their viewers what they are told there.
            tracing::warn!(%log, %error, "the hot tail cannot be read");
            lock(&feed.tail).take();
            false
        }
    };
    feed.wake_all(log);
    Some(more)
}

enum Read {
    Page(Page),
    Bounds(Bounds),
}

impl Feed {
    fn take(&self, log: &LogId, read: Read) -> bool {
        let mut tail = lock(&self.tail);
        match (read, &mut *tail) {
            (Read::Page(page), Some(tail)) => {
                // A page of another incarnation was read after a position of this one: read again, from its beginning.
                let more = page.more || page.bounds.epoch != *tail.epoch();
                if page.bounds.epoch == *tail.epoch() {
                    tail.push(page);
                } else {
                    *tail =
                        Tail::new(log.clone(), page.bounds.epoch, page.bounds.floor, TailLimits::default());
                }
                more
            }
            (Read::Page(_), None) => true,
            (Read::Bounds(bounds), tail) => {
                *tail = Some(Tail::new(log.clone(), bounds.epoch, bounds.head, TailLimits::default()));
                // What was committed between the bounds and the first wait is not to be waited for.
                true
            }
        }
    }

    fn wake_all(&self, log: &LogId) {
        for watcher in lock(&self.watchers).iter() {
            watcher.mark(log);
        }
    }
}

impl Wake {
    fn mark(&self, log: &LogId) {
        lock(&self.dirty).insert(log.clone());
        self.notify.notify_one();
    }

    /// Waits for logs about which something has changed. Cancel-safe.
    pub(super) async fn wait(&self) -> BTreeSet<LogId> {
        loop {
            let dirty = std::mem::take(&mut *lock(&self.dirty));
            if !dirty.is_empty() {
                return dirty;
            }
            self.notify.notified().await;
        }
    }
}

impl Reader {
    pub(super) fn new(feeds: Arc<Feeds>) -> Self {
        Self { feeds, wake: Arc::default(), open: BTreeMap::new() }
    }

    /// Wakes this reader.
    pub(super) fn wake(&self) -> Arc<Wake> {
        self.wake.clone()
    }

    /// Watches a log from before the time of the bounds that are returned.
    pub(super) async fn open(&mut self, log: &LogId) -> Result<Bounds, ErrorDetail> {
        let feed = self.feeds.feed(log);
        {
            let mut watchers = lock(&feed.watchers);
            if watchers.len() >= self.feeds.viewers_per_log {
                let message = format!("{log} has {} viewers already", watchers.len());
                return Err(ErrorDetail {
                    retry_after_ms: Some(5_000),
                    ..ErrorDetail::new(ErrorCode::RateLimited, message)
                });
            }
            watchers.push(self.wake.clone());
        }
        if let Some(before) = self.open.insert(log.clone(), feed) {
            before.unwatch(&self.wake);
        }
        match self.feeds.store.bounds(log).await {
            Ok(bounds) => Ok(bounds),
            Err(error) => {
                self.leave(log);
                Err(problem::of_read(&error))
            }
        }
    }

    /// Watches a log no longer.
    pub(super) fn leave(&mut self, log: &LogId) {
        if let Some(feed) = self.open.remove(log) {
            feed.unwatch(&self.wake);
        }
    }

    /// What comes after a position of an open log, and whether it was the store that had it.
    pub(super) async fn next(&self, log: &LogId, epoch: &Epoch, after: Seq) -> Result<Next, ErrorDetail> {
        let hot = self
            .open
            .get(log)
            .and_then(|feed| lock(&feed.tail).as_ref().map(|tail| tail.after(epoch, after)));
        match hot {
            Some(After::Segment(segment)) => Ok(Next::Segment(segment)),
            Some(After::Nothing) => Ok(Next::Nothing),
            Some(After::Behind) | None => {
                let page = self.feeds.store.read(log, after, BEHIND).await;
                page.map(Next::Page).map_err(|error| problem::of_read(&error))
            }
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        for feed in self.open.values() {
            feed.unwatch(&self.wake);
        }
    }
}

impl Feed {
    /// Takes one watch of this reader away.
    fn unwatch(&self, wake: &Arc<Wake>) {
        let mut watchers = lock(&self.watchers);
        if let Some(index) = watchers.iter().position(|watcher| Arc::ptr_eq(watcher, wake)) {
            watchers.swap_remove(index);
        }
    }
}

/// Every change under these locks is whole before anything can panic.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
