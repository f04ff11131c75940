//! The backend that keeps everything in memory: for tests, demos and simulations.

mod search;

use std::{
    collections::BTreeMap,
    fmt,
    ops::Bound,
    sync::{Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use protocol::{LogId, Seq, Timestamp, search::Position};

use crate::{
    Append, AppendError, Appended, Bounds, EventStore, Head, HeadFeed, LogSummary, Page, ProducerState,
    ReadError, ReadLimit, Record, RetentionPolicy, Snapshot, StoreError, Tail, TextSearch,
    epochs::Epochs,
    rules::{LogState, Prepared},
};

/// Event logs in memory. Keeps every clause but durability: what it holds ends with it.
pub struct MemoryStore {
    policy: RetentionPolicy,
    logs: Mutex<Logs>,
}

struct Logs {
    epochs: Epochs,
    /// Events written so far, to all logs.
    written: u64,
    /// Keyed by name, so that listing is in order. A log that is only followed has no `kept`.
    by_name: BTreeMap<LogId, Log>,
}

struct Log {
    kept: Option<Kept>,
    head: HeadFeed,
}

struct Kept {
    state: LogState,
    /// Keyed by position: what reads return, and its place among the events of all logs.
    records: BTreeMap<Seq, (Position, Record)>,
    snapshot: Option<Snapshot>,
}

impl MemoryStore {
    /// An empty store.
    #[must_use]
    pub fn new(policy: RetentionPolicy) -> Self {
        Self::with_epochs(policy, Epochs::Random)
    }

    /// An empty store whose logs have the same epochs for the same seed, so that a simulation can be repeated.
    #[must_use]
    pub fn seeded(policy: RetentionPolicy, seed: u64) -> Self {
        Self::with_epochs(policy, Epochs::Seeded { state: seed })
    }

    fn with_epochs(policy: RetentionPolicy, epochs: Epochs) -> Self {
        Self { policy, logs: Mutex::new(Logs { epochs, written: 0, by_name: BTreeMap::new() }) }
    }

    /// Nothing panics while the lock is held, so a poisoned one still guards whole logs.
    fn lock(&self) -> MutexGuard<'_, Logs> {
        self.logs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with_log<T>(&self, log: &LogId, f: impl FnOnce(&mut Kept) -> T) -> Result<T, ReadError> {
        let mut logs = self.lock();
        match logs.by_name.get_mut(log).and_then(|log| log.kept.as_mut()) {
            Some(kept) => Ok(f(kept)),
            None => Err(ReadError::UnknownLog { log: log.clone() }),
        }
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStore").field("policy", &self.policy).finish_non_exhaustive()
    }
}

#[async_trait]
impl EventStore for MemoryStore {
    async fn append(&self, log: &LogId, batch: Append) -> Result<Appended, AppendError> {
        let (retention, batch) = (self.policy.of(log), Prepared::of(batch));
        let mut logs = self.lock();
        let Logs { epochs, written, by_name } = &mut *logs;
        if by_name.get(log).is_none_or(|log| log.kept.is_none()) {
            // A refused batch makes no log.
            let mut kept = Kept::new(LogState::new(epochs.next(), retention));
            let appended = kept.append(log, &batch, written)?;
            let entry = by_name.entry(log.clone()).or_insert_with(Log::unknown);
            entry.kept = Some(kept);
            entry.publish(&appended);
            return Ok(appended);
        }
        let entry = by_name.get_mut(log).expect("it was there under the same lock");
        let kept = entry.kept.as_mut().expect("it was kept under the same lock");
        let appended = kept.append(log, &batch, written)?;
        entry.publish(&appended);
        Ok(appended)
    }

    async fn read(&self, log: &LogId, after: Seq, limit: ReadLimit) -> Result<Page, ReadError> {
        self.with_log(log, |kept| {
            let range = kept.records.range((Bound::Excluded(after), Bound::Unbounded));
            let mut rest = range.map(|(_, (_, record))| Ok(record));
            Page::collect(kept.state.bounds(), limit, &mut rest).expect("memory is not damaged")
        })
    }

    async fn bounds(&self, log: &LogId) -> Result<Bounds, ReadError> {
        self.with_log(log, |kept| kept.state.bounds())
    }

    fn tail(&self, log: &LogId) -> Tail {
        let by_name = &mut self.lock().by_name;
        if by_name.len().is_power_of_two() {
            forget_unused(by_name);
        }
        by_name.entry(log.clone()).or_insert_with(Log::unknown).head.tail()
    }

    async fn producer(&self, log: &LogId) -> Result<Option<ProducerState>, ReadError> {
        self.with_log(log, |kept| kept.state.producers().newest().cloned())
    }

    async fn snapshot(&self, log: &LogId) -> Result<Option<Snapshot>, ReadError> {
        self.with_log(log, |kept| kept.snapshot.clone())
    }

    async fn put_snapshot(&self, log: &LogId, snapshot: Snapshot) -> Result<(), ReadError> {
        self.with_log(log, |kept| kept.snapshot = Some(snapshot))
    }

    async fn remove(&self, log: &LogId) -> Result<(), StoreError> {
        let mut logs = self.lock();
        if let Some(entry) = logs.by_name.get_mut(log) {
            entry.kept = None;
            entry.head.publish(None);
        }
        forget_unused(&mut logs.by_name);
        Ok(())
    }

    async fn list(&self) -> Result<Vec<LogSummary>, StoreError> {
        let logs = self.lock();
        let kept = logs.by_name.iter().filter_map(|(name, log)| Some((name, log.kept.as_ref()?)));
        Ok(kept.map(|(name, kept)| kept.state.header().summary(name)).collect())
    }

    async fn prune_idle(&self, now: Timestamp) -> Result<u64, StoreError> {
        let mut logs = self.lock();
        let mut pruned = 0;
        for (name, log) in &mut logs.by_name {
            let Some(kept) = log.kept.as_mut() else { continue };
            if kept.state.header().is_idle(&self.policy.of(name), now) {
                pruned += kept.state.empty();
                kept.records.clear();
            }
        }
        Ok(pruned)
    }

    fn text_search(&self) -> Option<&dyn TextSearch> {
        Some(self)
    }
}

/// Names that nobody keeps or follows do not add up.
fn forget_unused(logs: &mut BTreeMap<LogId, Log>) {
    logs.retain(|_, log| log.kept.is_some() || log.head.is_followed());
}

impl Log {
    fn unknown() -> Self {
        Self { kept: None, head: HeadFeed::new() }
    }

    fn publish(&self, appended: &Appended) {
        let head = Head { epoch: appended.epoch.clone(), seq: appended.head };
        self.head.publish(Some(head));
    }
}

impl Kept {
    fn new(state: LogState) -> Self {
        Self { state, records: BTreeMap::new(), snapshot: None }
    }

    fn append(&mut self, log: &LogId, batch: &Prepared, written: &mut u64) -> Result<Appended, AppendError> {
        let change = self.state.append(log, batch)?;
        for seq in &change.obsolete {
            self.records.remove(seq);
        }
        for stored in change.stored {
            *written += 1;
            self.records.insert(stored.record.seq, (Position::new(*written), stored.record));
        }
        while let Some(oldest) = self.records.first_entry()
            && *oldest.key() <= change.floor
        {
            oldest.remove();
        }
        Ok(change.appended)
    }
}
