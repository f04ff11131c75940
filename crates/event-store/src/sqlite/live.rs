//! What every handle sees of the logs without SQL: their bounds, their newest events, and who waits for more.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};

use protocol::{LogId, Seq, Timestamp};

use crate::{
    Head, HeadFeed, LogSummary, Page, ProducerState, ReadError, ReadLimit, Record, RetentionPolicy,
    StoreError, Tail, rules::Header,
};

/// All logs of a store, as of their last commit. The writer changes it, after each commit; everybody reads it.
#[derive(Debug)]
pub(super) struct LiveLogs {
    hot: HotLimit,
    /// Keyed by name, so that listing is in order. A log that is only followed has nothing `kept`.
    by_name: Mutex<BTreeMap<LogId, Arc<Live>>>,
    /// Why the store is closed, once it is.
    closed: OnceLock<String>,
}

/// How many of a log's newest events are in memory.
#[derive(Debug, Clone, Copy)]
pub(super) struct HotLimit {
    pub(super) events: usize,
    pub(super) bytes: usize,
}

#[derive(Debug)]
struct Live {
    head: HeadFeed,
    kept: Mutex<Option<Kept>>,
}

#[derive(Debug)]
struct Kept {
    header: Header,
    producer: Option<ProducerState>,
    ring: Ring,
}

/// What one commit did to a log.
#[derive(Debug)]
pub(super) struct Published {
    pub(super) header: Header,
    pub(super) producer: Option<ProducerState>,
    /// Events written, in order.
    pub(super) records: Vec<Record>,
    /// Positions that are gone, ascending.
    pub(super) obsolete: Vec<Seq>,
}

impl LiveLogs {
    pub(super) fn new(hot: HotLimit) -> Self {
        Self { hot, by_name: Mutex::default(), closed: OnceLock::new() }
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
        self.kept(log, |kept| kept.producer.clone())
    }

    /// A page, if everything after the position is in memory.
    pub(super) fn page(&self, log: &LogId, after: Seq, limit: ReadLimit) -> Result<Option<Page>, ReadError> {
        self.kept(log, |kept| kept.page(after, limit))
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

    /// Shows what was committed, then wakes who waits for it.
    pub(super) fn publish(&self, log: &LogId, published: Published) {
        let live = lock(&self.by_name).entry(log.clone()).or_insert_with(Live::unknown).clone();
        let head = Head { epoch: published.header.epoch.clone(), seq: published.header.head };
        {
            let mut kept = lock(&live.kept);
            match kept.as_mut().filter(|kept| kept.header.epoch == head.epoch) {
                Some(kept) => kept.update(published, self.hot),
                None => *kept = Some(Kept::new(published, self.hot)),
            }
        }
        live.head.publish(Some(head));
    }

    /// Shows that a log is gone. Whoever follows it waits for its next incarnation.
    pub(super) fn removed(&self, log: &LogId) {
        let mut logs = lock(&self.by_name);
        if let Some(live) = logs.get(log) {
            *lock(&live.kept) = None;
            live.head.publish(None);
        }
        forget_unused(&mut logs);
    }

    /// Frees the newest events of a log; reads of them go to the database.
    pub(super) fn cool(&self, log: &LogId) {
        let live = lock(&self.by_name).get(log).cloned();
        if let Some(live) = live
            && let Some(kept) = lock(&live.kept).as_mut()
        {
            kept.ring = Ring::starting_at(kept.header.head);
        }
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
        let live = live.ok_or_else(unknown)?;
        let kept = lock(&live.kept);
        kept.as_ref().map(f).ok_or_else(unknown)
    }
}

impl Live {
    fn unknown() -> Arc<Self> {
        Arc::new(Self { head: HeadFeed::new(), kept: Mutex::new(None) })
    }
}

impl Kept {
    fn new(published: Published, hot: HotLimit) -> Self {
        let Published { header, producer, records, obsolete: _ } = published;
        // Of a log that was there before, earlier events are on disk only.
        let before = records.first().map_or(header.head, |first| Seq::new(first.seq.get() - 1));
        let mut ring = Ring::starting_at(before.max(header.floor));
        ring.push(records, hot);
        Self { header, producer, ring }
    }

    fn update(&mut self, published: Published, hot: HotLimit) {
        let Published { header, producer, records, obsolete } = published;
        self.ring.remove(&obsolete);
        self.ring.push(records, hot);
        self.ring.raise(header.floor);
        self.header = header;
        self.producer = producer;
    }

    fn page(&self, after: Seq, limit: ReadLimit) -> Option<Page> {
        let mut rest = self.ring.after(after.max(self.header.floor))?;
        Some(Page::collect(self.header.bounds(), limit, &mut rest))
    }
}

/// The newest events of a log.
#[derive(Debug)]
struct Ring {
    /// Every kept event above this is here.
    base: Seq,
    records: VecDeque<Record>,
    bytes: usize,
}

impl Ring {
    fn starting_at(base: Seq) -> Self {
        Self { base, records: VecDeque::new(), bytes: 0 }
    }

    fn after(&self, after: Seq) -> Option<impl Iterator<Item = &Record>> {
        let from = self.records.partition_point(|record| record.seq <= after);
        (after >= self.base).then(|| self.records.range(from..))
    }

    fn push(&mut self, records: Vec<Record>, hot: HotLimit) {
        for record in records {
            self.bytes += record.envelope.len();
            self.records.push_back(record);
        }
        while self.records.len() > hot.events || self.bytes > hot.bytes {
            self.pop();
        }
    }

    fn remove(&mut self, obsolete: &[Seq]) {
        if obsolete.last().is_none_or(|last| *last <= self.base) {
            return;
        }
        self.records.retain(|record| obsolete.binary_search(&record.seq).is_err());
        self.bytes = self.records.iter().map(|record| record.envelope.len()).sum();
    }

    fn raise(&mut self, floor: Seq) {
        while self.records.front().is_some_and(|record| record.seq <= floor) {
            self.pop();
        }
        self.base = self.base.max(floor);
    }

    fn pop(&mut self) {
        if let Some(oldest) = self.records.pop_front() {
            self.bytes -= oldest.envelope.len();
            self.base = oldest.seq;
        }
    }
}

/// Names that nobody keeps or follows do not add up.
fn forget_unused(logs: &mut BTreeMap<LogId, Arc<Live>>) {
    logs.retain(|_, live| lock(&live.kept).is_some() || live.head.is_followed());
}

/// Nothing panics while one of these locks is held, so a poisoned one still guards whole values.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
