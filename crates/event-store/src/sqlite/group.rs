//! One transaction: carries out jobs on the open logs and on the database alike.

use std::collections::{BTreeMap, HashMap};

use protocol::{LogId, Seq};
use rusqlite::Connection;

use super::{
    live::{LiveLogs, Published},
    rows::{self, Damaged, LogRow},
    writer::Job,
};
use crate::{
    Append, AppendError, Appended, ReadError, Record, Retention, RetentionPolicy, StoreError,
    epochs::Epochs,
    rules::{Change, Header, LogState},
};

/// Pruned events that may stay on disk before they are deleted, so that a full log does not delete at each append.
const GARBAGE_EVENTS: u64 = 256;
/// Their bytes.
const GARBAGE_BYTES: u64 = 4 * 1024 * 1024;

/// The logs whose state is in memory, and what is needed to make new ones.
#[derive(Debug)]
pub(super) struct Logs {
    pub(super) policy: RetentionPolicy,
    pub(super) epochs: Epochs,
    /// More than this are not kept open.
    pub(super) limit: usize,
    /// Keyed by name. Each is as the last transaction left it; one that a failed transaction changed is taken out.
    pub(super) open: HashMap<LogId, OpenLog>,
    /// Counts transactions, for [`OpenLog::used`].
    pub(super) tick: u64,
}

/// A log that the writer has in memory.
#[derive(Debug)]
pub(super) struct OpenLog {
    /// Names its table.
    id: i64,
    state: LogState,
    /// Events up to here are not on disk any more.
    cleared: Seq,
    /// Bytes below the floor that still are.
    garbage_bytes: u64,
    /// The transaction that last wrote to it.
    used: u64,
}

/// What became of a job.
#[derive(Debug)]
pub(super) enum Outcome {
    Append(Result<Appended, AppendError>),
    PutSnapshot(Result<(), ReadError>),
    Removed,
    Pruned(u64),
}

/// A transaction in the making.
#[derive(Debug)]
pub(super) struct Group<'a> {
    conn: &'a Connection,
    live: &'a LiveLogs,
    logs: &'a mut Logs,
    /// Keyed by name: what is to be shown after the commit.
    touched: BTreeMap<LogId, Touched>,
}

/// What this transaction did to a log.
#[derive(Debug, Default)]
struct Touched {
    /// An incarnation of it was removed before whatever else is here.
    removed: bool,
    records: Vec<Record>,
    obsolete: Vec<Seq>,
}

impl<'a> Group<'a> {
    pub(super) fn new(conn: &'a Connection, live: &'a LiveLogs, logs: &'a mut Logs) -> Self {
        logs.tick += 1;
        Self { conn, live, logs, touched: BTreeMap::new() }
    }

    pub(super) fn begin(&mut self) -> rusqlite::Result<()> {
        self.conn.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
        Ok(())
    }

    /// Does one job. An error is one of the database; what a job may not do is in its outcome.
    pub(super) fn carry_out(&mut self, job: &Job) -> rusqlite::Result<Outcome> {
        Ok(match job {
            Job::Append { log, batch, .. } => Outcome::Append(self.append(log, batch)?),
            Job::PutSnapshot { log, snapshot, .. } => {
                Outcome::PutSnapshot(match rows::load_log(self.conn, log)? {
                    Some(Ok(row)) => {
                        rows::put_snapshot(self.conn, row.id, snapshot)?;
                        Ok(())
                    }
                    Some(Err(Damaged)) => Err(ReadError::Store(rows::damaged_log(log))),
                    None => Err(ReadError::UnknownLog { log: log.clone() }),
                })
            }
            Job::Remove { log, .. } => {
                self.remove(log)?;
                Outcome::Removed
            }
            Job::PruneIdle { now, .. } => {
                let mut pruned = 0;
                for log in self.live.idle(&self.logs.policy, *now) {
                    pruned += self.empty(&log)?;
                }
                Outcome::Pruned(pruned)
            }
        })
    }

    /// Writes the row of every log that changed: once, however many batches it got.
    pub(super) fn write_headers(&mut self) -> rusqlite::Result<()> {
        for log in self.touched.keys() {
            if let Some(open) = self.logs.open.get(log) {
                rows::update_log(self.conn, open.id, log, &open.state.header())?;
            }
        }
        Ok(())
    }

    /// After the commit: shows everybody what is there.
    pub(super) fn publish(self) {
        for (log, Touched { removed, records, mut obsolete }) in self.touched {
            if removed {
                self.live.removed(&log);
            }
            let Some(open) = self.logs.open.get(&log) else { continue };
            obsolete.sort_unstable();
            let producer = open.state.producers().newest().cloned();
            self.live.publish(&log, Published { header: open.state.header(), producer, records, obsolete });
        }
        for log in self.logs.surplus() {
            self.live.cool(&log);
        }
    }

    /// After a failure: the database holds what was there before, and memory must not differ.
    pub(super) fn abandon(self) {
        for log in self.touched.keys() {
            self.logs.open.remove(log);
        }
    }

    fn append(&mut self, log: &LogId, batch: &Append) -> rusqlite::Result<Result<Appended, AppendError>> {
        let batch = batch.clone();
        let is_known = match self.load(log)? {
            Ok(is_known) => is_known,
            Err(error) => return Ok(Err(error.into())),
        };
        if !is_known {
            let mut state = LogState::new(self.logs.epochs.next(), self.logs.policy.of(log));
            // A refused batch makes no log.
            let change = match state.append(log, batch) {
                Ok(change) => change,
                Err(error) => return Ok(Err(error)),
            };
            self.touched.entry(log.clone()).or_default();
            let id = rows::insert_log(self.conn, log, &state.header())?;
            let open = OpenLog { id, state, cleared: Seq::ZERO, garbage_bytes: 0, used: 0 };
            self.logs.open.insert(log.clone(), open);
            return self.write(log, change).map(Ok);
        }
        let open = self.logs.open.get_mut(log).expect("it was just loaded");
        match open.state.append(log, batch) {
            Ok(change) => self.write(log, change).map(Ok),
            Err(error) => Ok(Err(error)),
        }
    }

    /// Does to the database what the rules did to the state.
    fn write(&mut self, log: &LogId, change: Change) -> rusqlite::Result<Appended> {
        let touched = self.touched.entry(log.clone()).or_default();
        let open = self.logs.open.get_mut(log).expect("a log that is written is open");
        open.used = self.logs.tick;
        for stored in &change.stored {
            rows::insert_event(self.conn, open.id, stored)?;
        }
        for seq in &change.obsolete {
            rows::delete_event(self.conn, open.id, *seq)?;
        }
        if let Some(producer) = &change.producer {
            rows::change_producer(self.conn, open.id, producer)?;
        }
        open.garbage_bytes += change.pruned_bytes;
        if open.has_garbage(self.logs.policy.of(log)) {
            open.clear(self.conn)?;
        }
        touched.records.retain(|record| change.obsolete.binary_search(&record.seq).is_err());
        touched.records.extend(change.stored.into_iter().map(|stored| stored.record));
        touched.obsolete.extend(change.obsolete);
        Ok(change.appended)
    }

    fn remove(&mut self, log: &LogId) -> rusqlite::Result<()> {
        // A row that is damaged is removed by its name's id all the same.
        let Some(id) = rows::find_id(self.conn, log)? else { return Ok(()) };
        self.touched.insert(log.clone(), Touched { removed: true, ..Touched::default() });
        self.logs.open.remove(log);
        rows::delete_log(self.conn, id)
    }

    /// Prunes all that a log has.
    fn empty(&mut self, log: &LogId) -> rusqlite::Result<u64> {
        if !self.load(log)?.unwrap_or(false) {
            return Ok(0);
        }
        self.touched.entry(log.clone()).or_default();
        let open = self.logs.open.get_mut(log).expect("it was just loaded");
        let pruned = open.state.empty();
        open.clear(self.conn)?;
        Ok(pruned)
    }

    /// Takes a log into memory; says whether there is one.
    fn load(&mut self, log: &LogId) -> rusqlite::Result<Result<bool, StoreError>> {
        if self.logs.open.contains_key(log) {
            return Ok(Ok(true));
        }
        let (LogRow { id, header, .. }, producers) = match rows::load_log(self.conn, log)? {
            None => return Ok(Ok(false)),
            Some(Err(Damaged)) => return Ok(Err(rows::damaged_log(log))),
            Some(Ok(row)) => match rows::load_producers(self.conn, row.id)? {
                Ok(producers) => (row, producers),
                Err(Damaged) => return Ok(Err(rows::damaged_log(log))),
            },
        };
        let (entries, has_pruned) = rows::load_entries(self.conn, id, header.floor)?;
        let Header { floor, head, events, .. } = header;
        let highest = entries.last().map_or(floor, |entry| entry.seq);
        let is_ordered = entries.is_sorted_by(|one, next| one.seq < next.seq);
        if entries.len() as u64 != events || highest > head || !is_ordered {
            return Ok(Err(rows::incomplete_log(log)));
        }
        let state = LogState::restore(header, self.logs.policy.of(log), producers, entries);
        let open = OpenLog {
            id,
            state,
            cleared: if has_pruned { Seq::ZERO } else { floor },
            garbage_bytes: 0,
            used: self.logs.tick,
        };
        self.logs.open.insert(log.clone(), open);
        Ok(Ok(true))
    }
}

impl OpenLog {
    fn has_garbage(&self, retention: Retention) -> bool {
        let events = self.state.bounds().floor.get() - self.cleared.get();
        events > GARBAGE_EVENTS.min(retention.events / 4)
            || self.garbage_bytes > GARBAGE_BYTES.min(retention.bytes / 4)
    }

    /// Deletes what is below the floor.
    fn clear(&mut self, conn: &Connection) -> rusqlite::Result<()> {
        let floor = self.state.bounds().floor;
        rows::delete_events_through(conn, self.id, floor)?;
        self.cleared = floor;
        self.garbage_bytes = 0;
        Ok(())
    }
}

impl Logs {
    /// Lets go of the least recently written logs if there are too many: of a quarter at a time, so that finding them
    /// is rare.
    fn surplus(&mut self) -> Vec<LogId> {
        if self.open.len() <= self.limit {
            return Vec::new();
        }
        let mut by_use: Vec<_> = self.open.iter().map(|(log, open)| (open.used, log.clone())).collect();
        by_use.sort_unstable();
        by_use.truncate(self.open.len() - self.limit + self.limit / 4);
        let surplus: Vec<_> = by_use.into_iter().map(|(_, log)| log).collect();
        for log in &surplus {
            self.open.remove(log);
        }
        surplus
    }
}
