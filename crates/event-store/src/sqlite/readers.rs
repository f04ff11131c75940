//! Threads that read what is not in memory, each on its own connection.

use std::sync::{Mutex, PoisonError};

use protocol::{LogId, Seq};
use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

use super::{rows, sound::Sound};
use crate::{Page, ReadError, ReadLimit, Snapshot};

/// What a reader is asked for.
#[derive(Debug)]
pub(super) enum ReadJob {
    Page { log: LogId, after: Seq, limit: ReadLimit, reply: oneshot::Sender<Result<Page, ReadError>> },
    Snapshot { log: LogId, reply: oneshot::Sender<Result<Option<Snapshot>, ReadError>> },
}

/// Works until every handle is gone. The readers share the queue: whoever is free takes the next.
pub(super) fn run(conn: &Connection, sound: &Sound, jobs: &Mutex<mpsc::Receiver<ReadJob>>) {
    loop {
        let next = jobs.lock().unwrap_or_else(PoisonError::into_inner).blocking_recv();
        match next {
            Some(ReadJob::Page { log, after, limit, reply }) if !reply.is_closed() => {
                drop(reply.send(in_snapshot(conn, || rows::read_page(conn, sound, &log, after, limit))));
            }
            Some(ReadJob::Snapshot { log, reply }) if !reply.is_closed() => {
                drop(reply.send(in_snapshot(conn, || rows::load_snapshot(conn, &log))));
            }
            // Nobody waits for it any more.
            Some(ReadJob::Page { .. } | ReadJob::Snapshot { .. }) => {}
            None => return,
        }
    }
}

/// Runs statements that see the same state of the database: bounds and events must fit together.
fn in_snapshot<T>(conn: &Connection, read: impl FnOnce() -> Result<T, ReadError>) -> Result<T, ReadError> {
    let transaction = conn.unchecked_transaction().map_err(rows::reading)?;
    let result = read();
    // Nothing was written: ending it only gives the snapshot back.
    transaction.finish().map_err(rows::reading)?;
    result
}
