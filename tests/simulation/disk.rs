//! A store over a disk that forgets what was not synced: appends are committed by groups after a sync that takes its
//! virtual time, and may be slow, fail, or find the disk full.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use protocol::{Event, LogId, Seq, Timestamp};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use store::{
    Append, AppendError, Appended, Bounds, EventStore, LogSummary, MemoryStore, Page, ProducerState,
    ReadError, ReadLimit, RetentionPolicy, Snapshot, StoreError, Tail,
};
use tokio::sync::{mpsc, oneshot, watch};

use crate::seeds::Planted;

/// Appends that wait for the writer; more wait for these.
const WAITING: usize = 256;
/// Appends that one sync takes at most.
const GROUP: usize = 64;

/// What outlives the relay's process: everything synced, and what a crash may take.
#[derive(Debug, Clone)]
pub(crate) struct Disk(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    policy: RetentionPolicy,
    planted: Option<Planted>,
    seed: u64,
    random: StdRng,
    synced: Vec<(LogId, Append)>,
    unsynced: Vec<(LogId, Append)>,
    /// How long a sync takes at most.
    sync_ms: u64,
    is_full: bool,
    next_sync_fails: bool,
}

impl Disk {
    pub(crate) fn new(policy: RetentionPolicy, planted: Option<Planted>, seed: u64) -> Self {
        Self(Arc::new(Mutex::new(State {
            policy,
            planted,
            seed,
            random: StdRng::seed_from_u64(seed),
            synced: Vec::new(),
            unsynced: Vec::new(),
            sync_ms: 10,
            is_full: false,
            next_sync_fails: false,
        })))
    }

    /// The power goes: of what was not synced, some prefix had reached the disk by itself.
    pub(crate) fn lose_power(&self) {
        let mut state = self.lock();
        let unsynced = std::mem::take(&mut state.unsynced);
        let kept = state.random.random_range(0..=unsynced.len());
        state.synced.extend(unsynced.into_iter().take(kept));
    }

    pub(crate) fn set_full(&self, is_full: bool) {
        self.lock().is_full = is_full;
    }

    pub(crate) fn set_sync_ms(&self, sync_ms: u64) {
        self.lock().sync_ms = sync_ms;
    }

    pub(crate) fn fail_next_sync(&self) {
        self.lock().next_sync_fails = true;
    }

    pub(crate) fn heal(&self) {
        let mut state = self.lock();
        (state.sync_ms, state.is_full, state.next_sync_fails) = (10, false, false);
    }

    /// What a store that is opened on this disk holds, and all that it ever committed.
    pub(crate) async fn read_back(&self) -> (MemoryStore, BTreeMap<LogId, Vec<Event>>) {
        let (policy, seed, synced) = {
            let state = self.lock();
            (state.policy, state.seed, state.synced.clone())
        };
        let (store, mut committed) = (MemoryStore::seeded(policy, seed), BTreeMap::new());
        for (log, batch) in synced {
            // What was refused when it was written is refused again.
            if let Ok(appended) = store.append(&log, batch.clone()).await {
                committed.entry(log).or_insert_with(Vec::new).extend(placed(&batch, &appended));
            }
        }
        (store, committed)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn between_ms(&self, least: u64, most: u64) -> Duration {
        Duration::from_millis(self.lock().random.random_range(least..=most.max(least)))
    }
}

/// What an append committed, at its positions.
fn placed(batch: &Append, appended: &Appended) -> impl Iterator<Item = Event> {
    let repeated = batch.events.len() - appended.appended;
    let before = appended.head.get() - appended.appended as u64;
    let events = batch.events[repeated..].iter().cloned().zip(before + 1..);
    events.map(|(event, seq)| event.at(Seq::new(seq)))
}

/// A store on a [`Disk`]: the contract, kept by a [`MemoryStore`] that learns of an append when it is synced.
#[derive(Debug)]
pub(crate) struct SimStore {
    disk: Disk,
    committed: Arc<MemoryStore>,
    writes: mpsc::Sender<Write>,
    failed: watch::Receiver<bool>,
}

#[derive(Debug)]
struct Write {
    log: LogId,
    batch: Append,
    answer: oneshot::Sender<Result<Appended, AppendError>>,
}

impl SimStore {
    /// Opens the disk, in a task of this runtime.
    pub(crate) async fn open(disk: &Disk) -> Self {
        let (committed, _) = disk.read_back().await;
        let committed = Arc::new(committed);
        let (writes, queue) = mpsc::channel(WAITING);
        let (fail, failed) = watch::channel(false);
        let writer = Writer { disk: disk.clone(), committed: committed.clone(), queue, fail };
        tokio::spawn(writer.run());
        Self { disk: disk.clone(), committed, writes, failed }
    }

    /// Comes when a sync has failed: the store is of no more use, and is to be opened again.
    pub(crate) fn failed(&self) -> impl Future<Output = ()> + use<> {
        let mut failed = self.failed.clone();
        async move {
            let _ = failed.wait_for(|failed| *failed).await;
        }
    }

    async fn seek(&self) {
        tokio::time::sleep(self.disk.between_ms(0, 3)).await;
    }
}

struct Writer {
    disk: Disk,
    committed: Arc<MemoryStore>,
    queue: mpsc::Receiver<Write>,
    fail: watch::Sender<bool>,
}

impl Writer {
    async fn run(mut self) {
        let mut group = Vec::new();
        while self.queue.recv_many(&mut group, GROUP).await > 0 {
            if self.disk.lock().planted == Some(Planted::NoDedupe) {
                for write in &mut group {
                    self.take_as_new(write).await;
                }
            }
            let writes = group.iter().map(|write| (write.log.clone(), write.batch.clone())).collect();
            let sync_ms = {
                let mut state = self.disk.lock();
                if state.is_full {
                    drop(state);
                    group.drain(..).for_each(|write| refuse(write, full()));
                    continue;
                }
                state.unsynced = writes;
                state.sync_ms
            };
            tokio::time::sleep(self.disk.between_ms(0, sync_ms)).await;
            let fails = std::mem::take(&mut self.disk.lock().next_sync_fails);
            if fails {
                // What is on the disk by now nobody knows, so nobody is told that it is.
                self.disk.lose_power();
                self.fail.send_replace(true);
                self.queue.close();
                group.drain(..).for_each(|write| refuse(write, closed()));
                while let Some(write) = self.queue.recv().await {
                    refuse(write, closed());
                }
                return;
            }
            {
                let mut state = self.disk.lock();
                let written = std::mem::take(&mut state.unsynced);
                state.synced.extend(written);
            }
            for Write { log, batch, answer } in group.drain(..) {
                let done = self.committed.append(&log, batch).await;
                // Whoever has gone does not hear of it; it is committed all the same.
                let _ = answer.send(done);
            }
        }
    }

    /// The planted fault: what was committed before is taken as if it came next.
    async fn take_as_new(&self, write: &mut Write) {
        let Ok(Some(known)) = self.committed.producer(&write.log).await else { return };
        if let Some(says) = &mut write.batch.producer
            && (&says.producer, says.generation) == (&known.producer, known.generation)
        {
            // Nothing comes again in a batch without events, which only asks for what is known.
            let is_old = says.first <= known.acked && !write.batch.events.is_empty();
            says.first = if is_old { known.acked + 1 } else { says.first };
        }
    }
}

fn refuse(write: Write, error: StoreError) {
    let _ = write.answer.send(Err(error.into()));
}

fn full() -> StoreError {
    StoreError::Full { source: None }
}

fn closed() -> StoreError {
    StoreError::Closed { reason: "a sync failed".to_owned() }
}

#[async_trait]
impl EventStore for SimStore {
    async fn append(&self, log: &LogId, batch: Append) -> Result<Appended, AppendError> {
        let (answer, answered) = oneshot::channel();
        let write = Write { log: log.clone(), batch, answer };
        self.writes.send(write).await.map_err(|_| closed())?;
        answered.await.map_err(|_| closed())?
    }

    async fn read(&self, log: &LogId, after: Seq, limit: ReadLimit) -> Result<Page, ReadError> {
        self.seek().await;
        self.committed.read(log, after, limit).await
    }

    async fn bounds(&self, log: &LogId) -> Result<Bounds, ReadError> {
        self.seek().await;
        self.committed.bounds(log).await
    }

    fn tail(&self, log: &LogId) -> Tail {
        self.committed.tail(log)
    }

    async fn producer(&self, log: &LogId) -> Result<Option<ProducerState>, ReadError> {
        self.seek().await;
        self.committed.producer(log).await
    }

    async fn snapshot(&self, log: &LogId) -> Result<Option<Snapshot>, ReadError> {
        self.committed.snapshot(log).await
    }

    async fn put_snapshot(&self, log: &LogId, snapshot: Snapshot) -> Result<(), ReadError> {
        self.committed.put_snapshot(log, snapshot).await
    }

    async fn remove(&self, log: &LogId) -> Result<(), StoreError> {
        self.committed.remove(log).await
    }

    async fn list(&self) -> Result<Vec<LogSummary>, StoreError> {
        self.committed.list().await
    }

    async fn prune_idle(&self, now: Timestamp) -> Result<u64, StoreError> {
        self.committed.prune_idle(now).await
    }
}
