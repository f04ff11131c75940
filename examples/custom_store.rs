//! A store of your own: anything that keeps the sixteen clauses of `EventStore` can stand under a relay.
//!
//! This one keeps its events in memory and counts what is asked of it. A real one would write to a database of yours,
//! and run the conformance suite of `gastown-event-store` (feature `conformance`) in its tests.
//!
//! Run it: `cargo run --example custom_store`

#![expect(clippy::print_stdout, reason = "an example prints what it sees")]

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use async_trait::async_trait;
use gastown::{
    protocol::{LogId, NewEvent, Seq, Timestamp},
    store::{
        Append, AppendError, Appended, Bounds, EventStore, LogSummary, MemoryStore, Page, ProducerState,
        ReadError, ReadLimit, RetentionPolicy, Snapshot, StoreError, Tail,
    },
};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let store = Arc::new(CountingStore::default());
    let log: LogId = "agent/toast".parse()?;

    // Whoever waits for more holds a tail; it says when there is something to read.
    let mut tail = store.tail(&log);
    let writer = {
        let (store, log) = (store.clone(), log.clone());
        async move {
            for n in 1..=3 {
                let event =
                    NewEvent::of(Timestamp::from_unix_ms(n), "agent.note", &serde_json::json!({ "n": n }))?;
                store.append(&log, Append::of(vec![event])).await?;
            }
            Ok::<_, Box<dyn std::error::Error>>(())
        }
    };
    let reader = async {
        let mut after = Seq::ZERO;
        while after < Seq::new(3) {
            tail.changed().await.ok_or("the store is gone")?;
            for record in store.read(&log, after, ReadLimit::default()).await?.records {
                let event = record.event()?;
                println!("{} {} {:?}", event.seq, event.kind, event.data);
                after = event.seq;
            }
        }
        Ok(())
    };
    tokio::try_join!(writer, reader)?;

    println!("{} appends", store.appends.load(Ordering::Relaxed));
    Ok(())
}

/// A [`MemoryStore`] that counts.
#[derive(Debug)]
struct CountingStore {
    inner: MemoryStore,
    appends: AtomicU64,
}

impl Default for CountingStore {
    fn default() -> Self {
        Self { inner: MemoryStore::new(RetentionPolicy::default()), appends: AtomicU64::new(0) }
    }
}

#[async_trait]
impl EventStore for CountingStore {
    async fn append(&self, log: &LogId, batch: Append) -> Result<Appended, AppendError> {
        let appended = self.inner.append(log, batch).await?;
        self.appends.fetch_add(1, Ordering::Relaxed);
        Ok(appended)
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
