//! What every handle sees of the logs without SQL: their bounds, their newest events, and who waits for more.

mod kept;
mod ring;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};

use protocol::{LogId, Seq, Timestamp};

pub(super) use self::{kept::Kept, ring::HotLimit};
use super::{figures::Counts, tables::logs::Filing};
use crate::{
    Head, HeadFeed, LogSummary, Page, ProducerState, ReadError, ReadLimit, RetentionPolicy, StoreError, Tail,
    rules::{Header, Stored},
};

/// All logs of a store, as of their last commit. The writer changes it, after each commit; everybody reads it.
#[derive(Debug)]
pub(super) struct LiveLogs {
    pub(super) hot: HotLimit,
    pub(super) counts: Counts,
    /// Keyed by name, so that listing is in order. A log that is only followed has nothing `kept`.
    by_name: Mutex<BTreeMap<LogId, Arc<Live>>>,
    /// Why the store is closed, once it is.
    closed: OnceLock<String>,
}

/// One log.
#[derive(Debug)]
pub(super) struct Live {
    head: HeadFeed,
    kept: Mutex<Option<Kept>>,
}

/// What one commit did to a log.
#[derive(Debug)]
pub(super) struct Published {
    /// The log and its id, if this commit made it.
    pub(super) created: Option<(i64, LogId)>,
    pub(super) header: Header,
    /// The newest producer, if it is another than before.
    pub(super) producer: Option<ProducerState>,
    /// Events written, in order.
    pub(super) stored: Vec<Stored>,
    /// Positions that are gone.
    pub(super) obsolete: Vec<Seq>,
}

/// Where the next events of a log are.
#[derive(Debug)]
pub(super) enum Found {
    /// In memory, all of them.
    Page(Page),
    /// The first of them are in segments.
    Filed(Arc<Live>, i64, Filing),
}

impl LiveLogs {
    pub(super) fn new(hot: HotLimit) -> Self {
        Self { hot, counts: Counts::default(), by_name: Mutex::default(), closed: OnceLock::new() }
    }

    /// Follows a log, whether it is there or not.
    pub(super) fn tail(&self, log: &LogId) -> Tail {
        let mut logs = lock(&self.by_name);
        if self.closed.get().is_some() {
            return HeadFeed::new().tail();
        }
        if logs.len().is_power_of_two() {
            forget_unused(&mut logs);
        }
        logs.entry(log.clone()).or_insert_with(Live::unknown).head.tail()
    }

    pub(super) fn header(&self, log: &LogId) -> Result<Header, ReadError> {
        self.kept(log, |kept| kept.header.clone())
    }

    pub(super) fn producer(&self, log: &LogId) -> Result<Option<ProducerState>, ReadError> {
        self.kept(log, |kept| kept.producers.newest().cloned())
    }

    /// The number of a log in the database.
    pub(super) fn id(&self, log: &LogId) -> Result<i64, ReadError> {
        self.kept(log, |kept| kept.id)
    }

    /// A page, if everything after the position is in memory, or where it is.
    pub(super) fn find(&self, log: &LogId, after: Seq, limit: ReadLimit) -> Result<Found, ReadError> {
        self.check_open()?;
        let unknown = || ReadError::UnknownLog { log: log.clone() };
        let live = lock(&self.by_name).get(log).cloned().ok_or_else(unknown)?;
        let kept = lock(&live.kept);
        let kept_log = kept.as_ref().ok_or_else(unknown)?;
        match kept_log.page(after, limit) {
            Some(Ok(page)) => Ok(Found::Page(page)),
            Some(Err(seq)) => {
                self.counts.found_damage();
                Err(ReadError::Corrupt { log: log.clone(), seq })
            }
            None => {
                let (id, filing) = (kept_log.id, kept_log.filing);
                drop(kept);
                Ok(Found::Filed(live, id, filing))
            }
        }
    }

    pub(super) fn list(&self) -> Vec<LogSummary> {
        let logs = lock(&self.by_name);
        let summary =
            |(log, live): (&LogId, &Arc<Live>)| Some(lock(&live.kept).as_ref()?.header.summary(log));
        logs.iter().filter_map(summary).collect()
    }

    /// Logs whose newest event has outlived their retention.
    pub(super) fn idle(&self, policy: &RetentionPolicy, now: Timestamp) -> Vec<LogId> {
        let logs = lock(&self.by_name);
        let is_idle = |log: &LogId, live: &Live| {
            lock(&live.kept).as_ref().is_some_and(|kept| kept.header.is_idle(&policy.of(log), now))
        };
        logs.iter().filter(|(log, live)| is_idle(log, live)).map(|(log, _)| log.clone()).collect()
    }

    /// The place of a log, for the writer.
    pub(super) fn entry(&self, log: &LogId) -> Arc<Live> {
        Arc::clone(lock(&self.by_name).entry(log.clone()).or_insert_with(Live::unknown))
    }

    /// Shows a log as it was found in the database.
    pub(super) fn restore(&self, kept: Kept) -> Arc<Live> {
        let live = self.entry(&kept.log);
        let head = Head { epoch: kept.header.epoch.clone(), seq: kept.header.head };
        *lock(&live.kept) = Some(kept);
        live.head.publish(Some(head));
        live
    }

    /// The place of logs that are not there any more.
    pub(super) fn gone() -> Arc<Live> {
        Live::unknown()
    }

    /// Lets go of a log that was removed. Whoever follows it waits for its next incarnation.
    pub(super) fn removed(&self, live: &Live) {
        *lock(&live.kept) = None;
        live.head.publish(None);
        forget_unused(&mut lock(&self.by_name));
    }

    /// Ends all tails, and every later call fails. The first reason stays.
    pub(super) fn close(&self, reason: &str) {
        let mut logs = lock(&self.by_name);
        self.closed.get_or_init(|| reason.to_owned());
        logs.clear();
    }

    pub(super) fn closed(&self) -> StoreError {
        let reason = self.closed.get().map_or("it was dropped", String::as_str);
        StoreError::Closed { reason: reason.to_owned() }
    }

    pub(super) fn check_open(&self) -> Result<(), StoreError> {
        match self.closed.get() {
            Some(_) => Err(self.closed()),
            None => Ok(()),
        }
    }

    fn kept<T>(&self, log: &LogId, f: impl FnOnce(&Kept) -> T) -> Result<T, ReadError> {
        self.check_open()?;
        let live = lock(&self.by_name).get(log).cloned();
        let unknown = || ReadError::UnknownLog { log: log.clone() };
        live.and_then(|live| live.kept(f)).ok_or_else(unknown)
    }
}

impl Live {
    /// What is kept of the log, if it is there.
    pub(super) fn kept<T>(&self, f: impl FnOnce(&Kept) -> T) -> Option<T> {
        lock(&self.kept).as_ref().map(f)
    }

    /// The same, for the writer.
    pub(super) fn kept_mut<T>(&self, f: impl FnOnce(&mut Kept) -> T) -> Option<T> {
        lock(&self.kept).as_mut().map(f)
    }

    /// Shows what was committed, then wakes who waits for it.
    pub(super) fn publish(&self, published: Published, hot: HotLimit) {
        let head = Head { epoch: published.header.epoch.clone(), seq: published.header.head };
        {
            let mut kept = lock(&self.kept);
            if let Some((id, log)) = published.created.clone() {
                *kept = Some(Kept::new(id, log, published.header.clone()));
            }
            if let Some(kept) = kept.as_mut() {
                kept.update(published, hot);
            }
        }
        self.head.publish(Some(head));
    }

    fn unknown() -> Arc<Self> {
        Arc::new(Self { head: HeadFeed::new(), kept: Mutex::new(None) })
    }
}

/// Names that nobody keeps or follows do not add up. One that the writer is about to publish is held by it.
fn forget_unused(logs: &mut BTreeMap<LogId, Arc<Live>>) {
    logs.retain(|_, live| {
        Arc::strong_count(live) > 1 || lock(&live.kept).is_some() || live.head.is_followed()
    });
}

/// Nothing panics while one of these locks is held, so a poisoned one still guards whole values.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
