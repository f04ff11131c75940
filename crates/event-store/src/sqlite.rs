//! The durable backend: one SQLite database, one writer thread, some reader threads.

mod backup;
mod block;
mod checkpoint;
mod checksum;
mod figures;
mod file;
mod filing;
mod group;
mod live;
mod migrate;
mod options;
mod readers;
mod recover;
mod search;
mod tables;
mod verify;
mod writer;

use std::{
    collections::HashMap,
    convert::Infallible,
    fmt,
    fs::File,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    thread::{self, JoinHandle},
};

use async_trait::async_trait;
use protocol::{LogId, Seq, Timestamp};
use tokio::sync::{mpsc, oneshot, watch};

pub use self::{
    backup::{backup, restore},
    file::OpenError,
    options::{Durability, SqliteOptions},
    search::forget_search_index,
    verify::{Finding, Report, verify},
};
use self::{
    group::Logs,
    live::{Found, HotLimit, LiveLogs},
    readers::ReadJob,
    search::SearchJob,
    writer::{Job, Writer},
};
use crate::{
    Append, AppendError, Appended, Bounds, EventStore, LogSummary, Page, ProducerState, ReadError, ReadLimit,
    Snapshot, StoreError, StoreFigures, Tail, TextSearch, epochs::Epochs, rules::Prepared,
};

/// Appends that may wait for the writer before callers wait to hand theirs in: two full commits of single events.
const WRITE_QUEUE: usize = 1024;
/// Reads that may wait for a reader.
const READ_QUEUE: usize = 256;
/// Searches that may wait for the one that runs.
const SEARCH_QUEUE: usize = 64;

/// Event logs in one SQLite database, which one process at a time may open.
///
/// Appends of all callers are committed in groups by one thread: a commit takes whatever waits while the one before it
/// is being synced, so many callers share one sync. Newest events are read from memory, older ones by reader threads.
/// Dropping a future of this store does not undo what it asked for.
///
/// An error of the disk (not: a full one) closes the handle, since nobody can tell then what a second try would find:
/// every call fails with [`StoreError::Closed`] and every tail ends. Opening the store again recovers what is on disk.
pub struct SqliteStore {
    path: PathBuf,
    live: Arc<LiveLogs>,
    /// `None` once closed.
    queues: Mutex<Option<Queues>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    /// Has no sender any more when all threads have ended.
    ended: watch::Receiver<()>,
    /// Unlocked when the threads have ended.
    lock: Mutex<Option<File>>,
}

#[derive(Clone)]
struct Queues {
    writes: mpsc::Sender<Job>,
    reads: mpsc::Sender<ReadJob>,
    searches: mpsc::Sender<SearchJob>,
}

impl SqliteStore {
    /// Opens a database, or makes it where there is none. Blocks while it recovers from a crash: up to about a second.
    ///
    /// # Errors
    /// When it is locked, no event store, of a newer schema, damaged, or cannot be read or written.
    pub fn open(path: impl AsRef<Path>, options: SqliteOptions) -> Result<Self, OpenError> {
        let file::Opened { path, writer: conn, readers, lock } = file::open(path.as_ref(), &options)?;
        let hot = HotLimit { events: options.hot_events, bytes: options.hot_bytes };
        let live = Arc::new(LiveLogs::new(hot));
        let backlog = recover::recover(&path, &conn, &live, options.journal_bytes)?;
        let searcher = file::connect_reader(&path).map_err(|source| file::refine(&path, source))?;
        let index = search::Index::open(&conn, &searcher, &live);
        let logs = Logs {
            policy: options.retention,
            epochs: Epochs::Random,
            limit: options.open_logs.max(1),
            open: HashMap::new(),
            tick: 0,
            backlog,
        };
        let (writes, write_jobs) = mpsc::channel(WRITE_QUEUE);
        let (reads, read_jobs) = mpsc::channel(READ_QUEUE);
        let (searches, search_jobs) = mpsc::channel(SEARCH_QUEUE);
        let (alive, ended) = watch::channel(());
        let store = Self {
            path: path.clone(),
            live: Arc::clone(&live),
            queues: Mutex::new(Some(Queues { writes, reads, searches })),
            threads: Mutex::default(),
            ended,
            lock: Mutex::new(Some(lock)),
        };
        let copying = file::connect(&path).map_err(|source| file::refine(&path, source))?;
        let (checkpoints, copier) = checkpoint::checkpoints(&path);
        let writer = Writer::new(conn, path, Arc::clone(&live), logs, index, checkpoints, write_jobs);
        // The last connection to close takes the write-ahead log away: of two that close at once, neither may be the last.
        let (reads_on, others_gone) = std::sync::mpsc::channel::<Infallible>();
        let guard = alive.clone();
        store.spawn("event-store-writer", move || {
            writer.run(&others_gone);
            drop(guard);
        })?;
        let guards = (reads_on.clone(), alive.clone());
        store.spawn("event-store-copier", move || {
            copier.run(&copying);
            drop(copying);
            drop(guards);
        })?;
        // On a thread of its own, so that no read waits for a search.
        let guards = (reads_on.clone(), alive.clone());
        store.spawn("event-store-searcher", move || {
            search::run(&searcher, search_jobs);
            drop(searcher);
            drop(guards);
        })?;
        let read_jobs = Arc::new(Mutex::new(read_jobs));
        for conn in readers {
            let (live, jobs) = (Arc::clone(&live), Arc::clone(&read_jobs));
            let guards = (reads_on.clone(), alive.clone());
            store.spawn("event-store-reader", move || {
                readers::run(&conn, &live, &jobs);
                drop(conn);
                drop(guards);
            })?;
        }
        Ok(store)
    }

    /// Finishes what is queued and closes the database. Later calls fail; dropping the store does the same, but blocks.
    pub async fn close(&self) {
        drop(locked(&self.queues).take());
        let mut ended = self.ended.clone();
        // Fails when the last thread has dropped its end, which is what is waited for.
        while ended.changed().await.is_ok() {}
        self.join();
    }

    fn spawn(&self, name: &str, work: impl FnOnce() + Send + 'static) -> Result<(), OpenError> {
        let spawned = thread::Builder::new().name(name.to_owned()).spawn(work);
        let thread = spawned.map_err(|source| OpenError::Io { path: self.path.clone(), source })?;
        locked(&self.threads).push(thread);
        Ok(())
    }

    fn join(&self) {
        for thread in locked(&self.threads).drain(..) {
            if thread.join().is_err() {
                tracing::error!(path = %self.path.display(), "a thread of the event store panicked");
            }
        }
        self.live.close("it was closed");
        // Dropping the file would leave the lock to a child that was forked and has not called exec yet.
        if let Some(lock) = locked(&self.lock).take()
            && let Err(error) = lock.unlock()
        {
            tracing::warn!(%error, path = %self.path.display(), "the event store could not be unlocked");
        }
    }

    fn queues(&self) -> Result<Queues, StoreError> {
        self.live.check_open()?;
        locked(&self.queues).clone().ok_or_else(|| self.live.closed())
    }

    async fn write<T, E: From<StoreError>>(
        &self,
        job: impl FnOnce(oneshot::Sender<Result<T, E>>) -> Job + Send,
    ) -> Result<T, E> {
        let (reply, answer) = oneshot::channel();
        let writes = self.queues()?.writes;
        writes.send(job(reply)).await.map_err(|_| self.live.closed())?;
        drop(writes);
        answer.await.map_err(|_| self.live.closed())?
    }

    async fn read_from_disk<T>(
        &self,
        job: impl FnOnce(oneshot::Sender<Result<T, ReadError>>) -> ReadJob + Send,
    ) -> Result<T, ReadError> {
        let (reply, answer) = oneshot::channel();
        let reads = self.queues()?.reads;
        reads.send(job(reply)).await.map_err(|_| self.live.closed())?;
        drop(reads);
        answer.await.map_err(|_| self.live.closed())?
    }
}

#[async_trait]
impl EventStore for SqliteStore {
    async fn append(&self, log: &LogId, batch: Append) -> Result<Appended, AppendError> {
        let (log, batch) = (log.clone(), Prepared::of(batch));
        self.write(|reply| Job::Append { log, batch, reply }).await
    }

    async fn read(&self, log: &LogId, after: Seq, limit: ReadLimit) -> Result<Page, ReadError> {
        if let Found::Page(page) = self.live.find(log, after, limit)? {
            return Ok(page);
        }
        let log = log.clone();
        self.read_from_disk(|reply| ReadJob::Page { log, after, limit, reply }).await
    }

    async fn bounds(&self, log: &LogId) -> Result<Bounds, ReadError> {
        Ok(self.live.header(log)?.bounds())
    }

    fn tail(&self, log: &LogId) -> Tail {
        self.live.tail(log)
    }

    async fn producer(&self, log: &LogId) -> Result<Option<ProducerState>, ReadError> {
        self.live.producer(log)
    }

    async fn snapshot(&self, log: &LogId) -> Result<Option<Snapshot>, ReadError> {
        let log = log.clone();
        self.read_from_disk(|reply| ReadJob::Snapshot { log, reply }).await
    }

    async fn put_snapshot(&self, log: &LogId, snapshot: Snapshot) -> Result<(), ReadError> {
        let log = log.clone();
        self.write(|reply| Job::PutSnapshot { log, snapshot, reply }).await
    }

    async fn remove(&self, log: &LogId) -> Result<(), StoreError> {
        let log = log.clone();
        self.write(|reply| Job::Remove { log, reply }).await
    }

    async fn list(&self) -> Result<Vec<LogSummary>, StoreError> {
        self.live.check_open()?;
        Ok(self.live.list())
    }

    async fn prune_idle(&self, now: Timestamp) -> Result<u64, StoreError> {
        self.write(|reply| Job::PruneIdle { now, reply }).await
    }

    fn figures(&self) -> StoreFigures {
        self.live.counts.figures(&self.path, &self.live.list())
    }

    fn text_search(&self) -> Option<&dyn TextSearch> {
        Some(self)
    }
}

impl Drop for SqliteStore {
    fn drop(&mut self) {
        drop(locked(&self.queues).take());
        self.join();
    }
}

impl fmt::Debug for SqliteStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteStore").field("path", &self.path).finish_non_exhaustive()
    }
}

/// Nothing panics while one of these locks is held, so a poisoned one still guards a whole value.
fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
