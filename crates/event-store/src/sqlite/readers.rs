//! Threads that read what is not in memory, each on its own connection.

use std::sync::{Mutex, PoisonError};

use protocol::{LogId, Seq};
use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

use super::{
    live::{Found, LiveLogs},
    tables::{
        logs,
        segments::{self, Broken},
        snapshots,
    },
};
use crate::{Page, ReadError, ReadLimit, Record, Snapshot, StoreError};

/// What a reader is asked for.
#[derive(Debug)]
pub(super) enum ReadJob {
    Page { log: LogId, after: Seq, limit: ReadLimit, reply: oneshot::Sender<Result<Page, ReadError>> },
    Snapshot { log: LogId, reply: oneshot::Sender<Result<Option<Snapshot>, ReadError>> },
}

/// Works until every handle is gone. The readers share the queue: whoever is free takes the next.
pub(super) fn run(conn: &Connection, live: &LiveLogs, jobs: &Mutex<mpsc::Receiver<ReadJob>>) {
    loop {
        let next = jobs.lock().unwrap_or_else(PoisonError::into_inner).blocking_recv();
        match next {
            Some(ReadJob::Page { log, after, limit, reply }) if !reply.is_closed() => {
                drop(reply.send(page(conn, live, &log, after, limit)));
            }
            Some(ReadJob::Snapshot { log, reply }) if !reply.is_closed() => {
                drop(reply.send(snapshot(conn, live, &log)));
            }
            // Nobody waits for it any more.
            Some(ReadJob::Page { .. } | ReadJob::Snapshot { .. }) => {}
            None => return,
        }
    }
}

/// A page of a log as of one commit: what is filed from the database, and what is not from memory.
pub(super) fn page(
    conn: &Connection,
    live: &LiveLogs,
    log: &LogId,
    after: Seq,
    limit: ReadLimit,
) -> Result<Page, ReadError> {
    let mut from = after;
    loop {
        let (found, id, filing) = match live.find(log, from, limit)? {
            Found::Page(page) => return Ok(page),
            Found::Filed(found, id, filing) => (found, id, filing),
        };
        let mut filed = Filed { events: Vec::new(), bytes: 0, limit, through: from };
        let floor = found.kept(|kept| kept.header.floor).unwrap_or_default();
        let seen = in_snapshot(conn, || {
            let row = match logs::find(conn, id).map_err(reading)? {
                Some(Ok(row)) => row,
                Some(Err(logs::Damaged)) => return Err(ReadError::Store(damaged_log(log))),
                None => return Ok(None),
            };
            if row.filing != filing {
                return Ok(None);
            }
            let from = from.max(floor);
            let walked = segments::walk(conn, id, filing, from, |segment| {
                found.kept(|kept| filed.take(segment, from, |seq| kept.returns(seq))).unwrap_or(false)
            });
            let has_more =
                walked.map_err(reading)?.map_err(|Broken| ReadError::Store(incomplete_log(log)))?;
            Ok(Some(has_more))
        })?;
        // A log that was removed or filed between the two looks is looked at again.
        let Some(has_more) = seen else { continue };
        let page = found.kept(|kept| {
            (kept.id == id && kept.filing == filing).then(|| kept.page_from(&filed.events, has_more, limit))
        });
        match page.flatten() {
            Some(Ok(page)) if page.records.is_empty() && has_more => {
                // All that was looked at became obsolete meanwhile.
                from = filed.through;
            }
            Some(Ok(page)) => return Ok(page),
            Some(Err(seq)) => {
                live.counts.found_damage();
                return Err(ReadError::Corrupt { log: log.clone(), seq });
            }
            None => {}
        }
    }
}

/// Events of segments: of a damaged one, its position.
struct Filed {
    events: Vec<Result<Record, Seq>>,
    bytes: usize,
    limit: ReadLimit,
    /// Everything up to here was looked at.
    through: Seq,
}

impl Filed {
    /// Takes what reads return of a segment; says whether there is room for more.
    fn take(&mut self, segment: segments::Segment, after: Seq, returns: impl Fn(Seq) -> bool) -> bool {
        self.through = segment.last;
        let Some(items) = segment.items else {
            // Which of its positions have an event is not known; the reader goes on after each.
            let covered = segment.after.max(after).next().get()..=segment.last.get();
            self.events.extend(covered.map(Seq::new).find(|seq| returns(*seq)).map(Err));
            return false;
        };
        for item in items {
            let record = item.stored.record;
            if record.seq <= after || !returns(record.seq) {
                continue;
            }
            self.bytes += record.envelope.len();
            self.events.push(if item.is_damaged { Err(record.seq) } else { Ok(record) });
        }
        // One more than asked for, so that it is known whether there is more.
        self.events.len() <= self.limit.events && self.bytes <= self.limit.bytes
    }
}

fn snapshot(conn: &Connection, live: &LiveLogs, log: &LogId) -> Result<Option<Snapshot>, ReadError> {
    let id = live.id(log)?;
    let found = snapshots::find(conn, id).map_err(reading)?;
    found.map_err(|snapshots::Damaged { seq }| ReadError::Corrupt { log: log.clone(), seq })
}

/// Runs statements that see the same state of the database.
fn in_snapshot<T>(conn: &Connection, read: impl FnOnce() -> Result<T, ReadError>) -> Result<T, ReadError> {
    if !conn.is_autocommit() {
        // The caller holds one for longer.
        return read();
    }
    let transaction = conn.unchecked_transaction().map_err(reading)?;
    let result = read();
    // Nothing was written: ending it only gives the snapshot back.
    transaction.finish().map_err(reading)?;
    result
}

/// A log's own row is damaged: neither bounds nor dedupe can be trusted.
pub(super) fn damaged_log(log: &LogId) -> StoreError {
    let what = format!("the row of {log} does not match its checksum");
    StoreError::Backend { doing: "read a log's row", source: what.into() }
}

/// Events of a log are gone, and nobody can tell which: it must be restored or removed.
pub(super) fn incomplete_log(log: &LogId) -> StoreError {
    let what = format!("events of {log} are missing from the database");
    StoreError::Backend { doing: "find all events of a log", source: what.into() }
}

fn reading(source: rusqlite::Error) -> ReadError {
    ReadError::Store(StoreError::Backend { doing: "read", source: source.into() })
}
