//! The one thread that writes: it takes what waits, up to a bound, and commits it in one transaction.

use std::{convert::Infallible, path::PathBuf, sync::Arc, thread, time::Duration};

use protocol::{LogId, Timestamp};
use rusqlite::{Connection, ErrorCode};
use tokio::sync::{mpsc, oneshot};

use super::{
    checkpoint::Checkpoints,
    figures,
    filing::Filed,
    group::{Group, Logs, Outcome},
    live::LiveLogs,
    search::Index,
};
use crate::{AppendError, Appended, ReadError, Snapshot, StoreError, rules::Prepared};

/// Events in one commit at most, beyond its first job: enough to make the sync cheap, few enough to keep a commit short.
const GROUP_EVENTS: usize = 512;
/// Their bytes at most.
const GROUP_BYTES: usize = 1024 * 1024;
/// As many jobs in a commit make the next one wait for more of them
const MANY: usize = 16;
/// until none has come for so long. Callers that were woken together come back that close one after the other if they do
/// nothing else; those that write to sockets meanwhile do not, and are better served by the next commit.
const MOMENT: Duration = Duration::from_micros(5);

/// What the writer is asked to do.
#[derive(Debug)]
pub(super) enum Job {
    Append { log: LogId, batch: Prepared, reply: oneshot::Sender<Result<Appended, AppendError>> },
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
    checkpoints: Checkpoints,
    /// What was filed in the transaction that is open, ahead of the jobs that it will carry out.
    ahead: Option<Filed>,
    jobs: mpsc::Receiver<Job>,
    /// As many jobs are worth a moment's wait: those that came during the last commit, and the next ones of whoever was
    /// answered then.
    expected: usize,
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
        checkpoints: Checkpoints,
        jobs: mpsc::Receiver<Job>,
    ) -> Self {
        Self { conn, path, live, logs, index, checkpoints, ahead: None, jobs, expected: 0 }
    }

    /// Works until every handle is gone and all that was queued is done, or until the disk fails. Its connection closes after
    /// those of the `others`, who hold the sender of nothing for as long as they have one.
    pub(super) fn run(mut self, others: &std::sync::mpsc::Receiver<Infallible>) {
        while let Some(first) = self.jobs.blocking_recv() {
            let waiting = self.gather(first);
            if let Err(error) = self.serve(waiting) {
                tracing::error!(%error, path = %self.path.display(), "the event store failed and is closed");
                self.live.close("the disk failed; open it again");
                // Jobs that still wait, and those of this group, learn it from their dropped replies.
                return;
            }
        }
        self.live.close("it was closed");
        let Self { conn, path, checkpoints, .. } = self;
        let wal_index = checkpoints.end();
        while others.recv().is_ok() {}
        // So that a closed store is one file. If it fails the write-ahead log stays, and the next opener takes it over.
        let emptied =
            roll_back(&conn).and_then(|()| conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())));
        if let Err(error) = emptied {
            tracing::warn!(%error, path = %path.display(), "the write-ahead log could not be emptied");
        }
        drop(conn);
        // Whoever closes a file gives up all the locks that his process has on it: not before SQLite has.
        drop(wal_index);
    }

    /// Takes what waits, as far as there is room. Who was answered just now often has the next job at once: if those were
    /// many, they are given a moment to hand it in, or else they would take turns in two halves, with a sync for each.
    fn gather(&mut self, first: Job) -> Vec<Job> {
        let mut size = Size::of(&first);
        let mut waiting = vec![first];
        let mut newest = figures::now();
        while size.has_room() {
            match self.jobs.try_recv() {
                Ok(job) => {
                    size.add(&Size::of(&job));
                    waiting.push(job);
                    newest = figures::now();
                }
                Err(_) if waiting.len() < self.expected && figures::now().duration_since(newest) < MOMENT => {
                    thread::yield_now();
                }
                Err(_) => break,
            }
        }
        waiting
    }

    /// Commits the jobs, then does what is better done while those who were answered get going again.
    fn serve(&mut self, jobs: Vec<Job>) -> rusqlite::Result<()> {
        let events = jobs.iter().map(Job::appends).sum();
        self.commit(jobs)?;
        let done =
            self.checkpoints.go_on(&self.conn, &self.live.counts).and_then(|()| self.file_ahead(events));
        match done {
            Err(error) if Failure::of(&error) == Failure::Fatal => Err(error),
            // Whoever appends next is told if it does not go then either.
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Commits the jobs together. An error is fatal.
    fn commit(&mut self, jobs: Vec<Job>) -> rusqlite::Result<()> {
        let has_filed = self.ahead.is_some();
        let error = match self.transact(&jobs) {
            Ok(outcomes) => {
                self.expected = if jobs.len() < MANY { 0 } else { self.jobs.len() + jobs.len() };
                for (job, outcome) in jobs.into_iter().zip(outcomes) {
                    reply(job, Ok(outcome));
                }
                return Ok(());
            }
            Err(error) => error,
        };
        let failure = Failure::of(&error);
        if failure == Failure::Fatal {
            return Err(error);
        }
        if jobs.len() > 1 || has_filed {
            // One of them does not go: the others must not fail with it. A removal goes where an append, or what was filed
            // ahead, finds no space.
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
        let filed = match self.ahead.take() {
            Some(filed) => filed,
            None => self.begin(jobs.iter().map(Job::appends).sum())?,
        };
        let mut group = Group::new(&self.conn, &self.live, &mut self.logs, filed);
        let done = jobs.iter().map(|job| group.carry_out(job)).collect::<rusqlite::Result<Vec<_>>>();
        let done = done.and_then(|outcomes| group.commit(&mut self.index).map(|()| outcomes));
        match done {
            Ok(_) => group.publish(),
            Err(_) => {
                group.abandon();
                roll_back(&self.conn)?;
            }
        }
        done
    }

    /// Begins a transaction, and files about twice as many events as it will append, so that the journal cannot grow.
    fn begin(&mut self, events: usize) -> rusqlite::Result<Filed> {
        let begun = self.conn.prepare_cached("BEGIN IMMEDIATE").and_then(|mut begin| begin.execute([]));
        let filed = begun.and_then(|_| self.logs.backlog.file(&self.conn, events * 2));
        if filed.is_err() {
            roll_back(&self.conn)?;
        }
        filed
    }

    /// Begins the next transaction if there is something to be filed, for as many events as the last one had.
    fn file_ahead(&mut self, events: usize) -> rusqlite::Result<()> {
        if self.logs.backlog.is_too_long() {
            self.ahead = Some(self.begin(events)?);
        }
        Ok(())
    }
}

/// Some failures have done that already.
fn roll_back(conn: &Connection) -> rusqlite::Result<()> {
    if conn.is_autocommit() { Ok(()) } else { conn.execute_batch("ROLLBACK") }
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

/// How much of a group's room something takes.
#[derive(Debug)]
struct Size {
    events: usize,
    bytes: usize,
}

impl Size {
    fn of(job: &Job) -> Self {
        match job {
            Job::Append { batch, .. } => Self { events: job.appends(), bytes: batch.bytes() },
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
