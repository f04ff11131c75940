//! The one thread that writes: it takes what waits, up to a bound, and commits it in one transaction.

use std::{
    convert::Infallible,
    fs::File,
    io::{Read, Seek, SeekFrom},
    path::PathBuf,
    sync::Arc,
    thread,
    time::Duration,
};

use protocol::{LogId, Timestamp};
use rusqlite::{Connection, ErrorCode};
use tokio::sync::{mpsc, oneshot};

use super::{
    figures,
    file::CHECKPOINT_PAGES,
    group::{Group, Logs, Outcome},
    live::LiveLogs,
    search::Index,
};
use crate::{Append, AppendError, Appended, ReadError, Snapshot, StoreError};

/// Events in one commit at most, beyond its first job: enough to make the sync cheap, few enough to keep a commit short.
const GROUP_EVENTS: usize = 512;
/// Their bytes at most.
const GROUP_BYTES: usize = 1024 * 1024;
/// As many jobs in a commit make the next one wait for more of them
const MANY: usize = 16;
/// until none has come for so long: what a woken task needs to get going, and a fraction of a sync.
const MOMENT: Duration = Duration::from_micros(50);
/// How long a statement waits for a lock that another connection of this process has.
const BUSY: Duration = Duration::from_secs(5);

/// What the writer is asked to do.
#[derive(Debug)]
pub(super) enum Job {
    Append { log: LogId, batch: Append, reply: oneshot::Sender<Result<Appended, AppendError>> },
    PutSnapshot { log: LogId, snapshot: Snapshot, reply: oneshot::Sender<Result<(), ReadError>> },
    Remove { log: LogId, reply: oneshot::Sender<Result<(), StoreError>> },
    PruneIdle { now: Timestamp, reply: oneshot::Sender<Result<u64, StoreError>> },
}

impl Job {
    /// Events that it appends at most.
    fn appends(&self) -> usize {
        match self {
            Self::Append { batch, .. } => batch.events.len().max(1),
            Self::PutSnapshot { .. } | Self::Remove { .. } | Self::PruneIdle { .. } => 0,
        }
    }
}

/// The state of the writer thread.
#[derive(Debug)]
pub(super) struct Writer {
    pub(super) conn: Connection,
    pub(super) path: PathBuf,
    pub(super) live: Arc<LiveLogs>,
    pub(super) logs: Logs,
    index: Index,
    /// The index of the write-ahead log.
    wal_index: Option<File>,
    /// As many frames make the next checkpoint.
    checkpoint_at: u32,
}

/// What a failed transaction means for what comes after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Failure {
    /// There is no space: this commit is refused, later ones may succeed.
    Full,
    /// What was written before may not be on disk, and a second try would not tell: only recovery does.
    Fatal,
    /// Something is wrong with one of the jobs.
    Job,
}

impl Writer {
    pub(super) fn new(
        conn: Connection,
        path: PathBuf,
        live: Arc<LiveLogs>,
        logs: Logs,
        index: Index,
    ) -> Self {
        let mut wal_index = path.as_os_str().to_owned();
        wal_index.push("-shm");
        let wal_index = File::open(wal_index).ok();
        Self { conn, path, live, logs, index, wal_index, checkpoint_at: CHECKPOINT_PAGES }
    }

    /// Works until every handle is gone and all that was queued is done, or until the disk fails. Its connection closes after
    /// those of the `others`, who hold the sender of nothing for as long as they have one.
    pub(super) fn run(
        mut self,
        mut jobs: mpsc::Receiver<Job>,
        others: &std::sync::mpsc::Receiver<Infallible>,
    ) {
        let mut answered = 0;
        while let Some(first) = jobs.blocking_recv() {
            let waiting = gather(first, &mut jobs, answered);
            answered = waiting.len();
            if let Err(error) = self.commit(waiting) {
                tracing::error!(%error, path = %self.path.display(), "the event store failed and is closed");
                self.live.close("the disk failed; open it again");
                // Jobs that still wait, and those of this group, learn it from their dropped replies.
                return;
            }
        }
        self.live.close("it was closed");
        while others.recv().is_ok() {}
        // So that a closed store is one file. If it fails the write-ahead log stays, and the next opener takes it over.
        let checkpoint = self.conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
        if let Err(error) = checkpoint {
            tracing::warn!(%error, path = %self.path.display(), "the write-ahead log could not be emptied");
        }
    }

    /// Commits the jobs together. An error is fatal.
    fn commit(&mut self, jobs: Vec<Job>) -> rusqlite::Result<()> {
        let error = match self.transact(&jobs) {
            Ok(outcomes) => {
                for (job, outcome) in jobs.into_iter().zip(outcomes) {
                    reply(job, Ok(outcome));
                }
                return self.check_wal();
            }
            Err(error) => error,
        };
        let failure = Failure::of(&error);
        if failure == Failure::Fatal {
            return Err(error);
        }
        if jobs.len() > 1 {
            // One of them does not go: the others must not fail with it. A removal goes where an append finds no space.
            for job in jobs {
                self.commit(vec![job])?;
            }
            return Ok(());
        }
        for job in jobs {
            let source = error.to_string().into();
            let refused = match failure {
                Failure::Full => StoreError::Full { source: Some(source) },
                Failure::Fatal | Failure::Job => StoreError::Backend { doing: "write", source },
            };
            reply(job, Err(refused));
        }
        Ok(())
    }

    /// One transaction; shows its effects once it is committed, and leaves no trace if it is not.
    fn transact(&mut self, jobs: &[Job]) -> rusqlite::Result<Vec<Outcome>> {
        let events = jobs.iter().map(Job::appends).sum();
        let mut group = Group::new(&self.conn, &self.live, &mut self.logs);
        let done = group.begin(events).and_then(|()| {
            let outcomes =
                jobs.iter().map(|job| group.carry_out(job)).collect::<rusqlite::Result<Vec<_>>>()?;
            group.commit(&mut self.index)?;
            Ok(outcomes)
        });
        match done {
            Ok(outcomes) => {
                group.publish();
                Ok(outcomes)
            }
            Err(error) => {
                group.abandon();
                // Some failures have rolled it back already.
                if !self.conn.is_autocommit() {
                    self.conn.execute_batch("ROLLBACK")?;
                }
                Err(error)
            }
        }
    }

    /// Copies the write-ahead log into the database once it is long, after the commit was answered. It is started over at
    /// the same time if nobody is reading from it; nobody is waited for, since a reader may be a backup that takes its time.
    fn check_wal(&mut self) -> rusqlite::Result<()> {
        let frames = self.wal_frames();
        if frames < CHECKPOINT_PAGES {
            self.checkpoint_at = CHECKPOINT_PAGES;
        }
        if frames < self.checkpoint_at {
            return Ok(());
        }
        let begun = figures::now();
        self.conn.busy_timeout(Duration::ZERO)?;
        // That somebody was reading is in its answer, and no error.
        self.conn.query_row("PRAGMA wal_checkpoint(RESTART)", [], |_| Ok(()))?;
        self.conn.busy_timeout(BUSY)?;
        self.live.counts.checkpointed(begun);
        self.checkpoint_at = frames + CHECKPOINT_PAGES / 4;
        Ok(())
    }

    /// Frames in the write-ahead log: `mxFrame` of the index that SQLite keeps of it (its file format, 2.2).
    fn wal_frames(&self) -> u32 {
        const MX_FRAME_AT: u64 = 16;
        let mut frames = [0; 4];
        let read = self.wal_index.as_ref().map(|mut file| {
            file.seek(SeekFrom::Start(MX_FRAME_AT)).and_then(|_| file.read_exact(&mut frames))
        });
        // Without it the bound that SQLite keeps by itself remains.
        if matches!(read, Some(Ok(()))) { u32::from_ne_bytes(frames) } else { 0 }
    }
}

impl Failure {
    fn of(error: &rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Self::Full,
            Some(ErrorCode::SystemIoFailure) => Self::Fatal,
            Some(_) | None => Self::Job,
        }
    }
}

/// Takes what waits, as far as there is room. Who was answered just now often has the next job at once: if those were
/// many, they are given a moment to hand it in, or else they would take turns in two halves, with a sync for each.
fn gather(first: Job, jobs: &mut mpsc::Receiver<Job>, answered: usize) -> Vec<Job> {
    let mut size = Size::of(&first);
    let mut waiting = vec![first];
    let expected = if answered >= MANY { jobs.len() + answered } else { 0 };
    let mut newest = figures::now();
    while size.has_room() {
        match jobs.try_recv() {
            Ok(job) => {
                size.add(&Size::of(&job));
                waiting.push(job);
                newest = figures::now();
            }
            Err(_) if waiting.len() < expected && figures::now().duration_since(newest) < MOMENT => {
                thread::yield_now()
            }
            Err(_) => break,
        }
    }
    waiting
}

/// How much of a group's room something takes.
#[derive(Debug)]
struct Size {
    events: usize,
    bytes: usize,
}

impl Size {
    fn of(job: &Job) -> Self {
        match job {
            Job::Append { batch, .. } => {
                let bytes = batch.events.iter().map(|event| event.data.json().len()).sum();
                Self { events: job.appends(), bytes }
            }
            Job::PutSnapshot { snapshot, .. } => Self { events: 1, bytes: snapshot.data.len() },
            Job::Remove { .. } | Job::PruneIdle { .. } => Self { events: 1, bytes: 0 },
        }
    }

    fn add(&mut self, other: &Self) {
        self.events += other.events;
        self.bytes += other.bytes;
    }

    fn has_room(&self) -> bool {
        self.events < GROUP_EVENTS && self.bytes < GROUP_BYTES
    }
}

/// Answers a job. Who asked may be gone: what was committed stays committed.
fn reply(job: Job, outcome: Result<Outcome, StoreError>) {
    match (job, outcome) {
        (Job::Append { reply, .. }, Ok(Outcome::Append(result))) => drop(reply.send(result)),
        (Job::Append { reply, .. }, Err(error)) => drop(reply.send(Err(error.into()))),
        (Job::PutSnapshot { reply, .. }, Ok(Outcome::PutSnapshot(result))) => drop(reply.send(result)),
        (Job::PutSnapshot { reply, .. }, Err(error)) => drop(reply.send(Err(error.into()))),
        (Job::Remove { reply, .. }, Ok(Outcome::Removed)) => drop(reply.send(Ok(()))),
        (Job::Remove { reply, .. }, Err(error)) => drop(reply.send(Err(error))),
        (Job::PruneIdle { reply, .. }, Ok(Outcome::Pruned(count))) => drop(reply.send(Ok(count))),
        (Job::PruneIdle { reply, .. }, Err(error)) => drop(reply.send(Err(error))),
        (job, Ok(outcome)) => unreachable!("{job:?} has the outcome of another job: {outcome:?}"),
    }
}

#[cfg(test)]
mod tests {
    use rusqlite::ffi;

    use super::*;

    #[test]
    fn a_full_disk_is_not_fatal_and_a_failed_sync_is() {
        assert_eq!(of(ffi::SQLITE_FULL), Failure::Full);
        assert_eq!(of(ffi::SQLITE_IOERR_FSYNC), Failure::Fatal);
        assert_eq!(of(ffi::SQLITE_IOERR_WRITE), Failure::Fatal);
        assert_eq!(of(ffi::SQLITE_CORRUPT), Failure::Job);
    }

    fn of(code: i32) -> Failure {
        Failure::of(&rusqlite::Error::SqliteFailure(ffi::Error::new(code), None))
    }
}
