//! A store that refuses for a while.

use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use protocol::{LogId, Seq, Timestamp};
use store::{
    Append, AppendError, Appended, Bounds, EventStore, LogSummary, MemoryStore, Page, ProducerState,
    ReadError, ReadLimit, Snapshot, StoreError, Tail,
};

/// A store whose next appends fail.
#[derive(Debug)]
pub(super) struct FlakyStore {
    pub(super) inner: MemoryStore,
    /// How many.
    pub(super) failures: AtomicUsize,
}

#[async_trait]
impl EventStore for FlakyStore {
    async fn append(&self, log: &LogId, batch: Append) -> Result<Appended, AppendError> {
        let fails = |left: usize| left.checked_sub(1);
        if self.failures.fetch_update(Ordering::SeqCst, Ordering::SeqCst, fails).is_ok() {
            return Err(StoreError::Full { source: None }.into());
        }
        self.inner.append(log, batch).await
    }

    async fn read(&self, log: &LogId, after: Seq, limit: ReadLimit) -> Result<Page, ReadError> {
        self.inner.read(log, after, limit).await
    }

    async fn bounds(&self, log: &LogId) -> Result<Bounds, ReadError> {
        self.inner.bounds(log).await
    }

    fn tail(&self, log: &LogId) -> Tail {
        self.inner.tail(log)
    }

    async fn producer(&self, log: &LogId) -> Result<Option<ProducerState>, ReadError> {
        self.inner.producer(log).await
    }

    async fn snapshot(&self, log: &LogId) -> Result<Option<Snapshot>, ReadError> {
        self.inner.snapshot(log).await
    }

    async fn put_snapshot(&self, log: &LogId, snapshot: Snapshot) -> Result<(), ReadError> {
        self.inner.put_snapshot(log, snapshot).await
    }

    async fn remove(&self, log: &LogId) -> Result<(), StoreError> {
        self.inner.remove(log).await
    }

    async fn list(&self) -> Result<Vec<LogSummary>, StoreError> {
        self.inner.list().await
    }

    async fn prune_idle(&self, now: Timestamp) -> Result<u64, StoreError> {
        self.inner.prune_idle(now).await
    }
}
