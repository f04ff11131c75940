//! One transaction: carries out jobs on the open logs and on the database alike.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Instant,
};

use protocol::{LogId, Seq};
use rusqlite::Connection;

use super::{
    figures::{self, Commit},
    filing::{Backlog, Filed, Waiting},
    live::{Kept, Live, LiveLogs, Published},
    readers, search,
    tables::{
        LAST_POSITION,
        journal::{Appending, Appendings},
        logs, obsolete,
        segments::{self, Broken},
        snapshots,
    },
    writer::Job,
};
use crate::{
    Append, AppendError, Appended, ReadError, RetentionPolicy, StoreError,
    epochs::Epochs,
    rules::{Change, LogState, Prepared, Stored},
};

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
    /// What is in the journal, as of the last transaction.
    pub(super) backlog: Backlog,
}

/// A log that the writer has in memory.
#[derive(Debug)]
pub(super) struct OpenLog {
    /// Names it in the database.
    id: i64,
    state: LogState,
    live: Arc<Live>,
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
    filed: Filed,
    /// Keyed by name: what is to be shown after the commit.
    touched: BTreeMap<LogId, Touched>,
    /// What it adds to the journal.
    journal: Appendings,
    /// The same, as it is filed later.
    appends: Vec<Waiting>,
    /// What becomes of the search index.
    index: search::Changes,
    begun: Instant,
    commit: Commit,
}

/// What this transaction did to a log.
#[derive(Debug, Default)]
struct Touched {
    /// An incarnation of it was removed before whatever else is here.
    removed: Option<Arc<Live>>,
    /// The id of the incarnation that was made.
    created: Option<i64>,
    stored: Vec<Stored>,
    obsolete: Vec<Seq>,
    producer: Option<crate::ProducerState>,
}

impl<'a> Group<'a> {
    /// In a transaction that has begun, and has filed this.
    pub(super) fn new(conn: &'a Connection, live: &'a LiveLogs, logs: &'a mut Logs, filed: Filed) -> Self {
        logs.tick += 1;
        let commit = Commit { filed: filed.events, ..Commit::default() };
        let mut index = search::Changes::default();
        for (log, through) in filed.pruned() {
            index.forget_through(log, through);
        }
        Self {
            conn,
            live,
            logs,
            filed,
            touched: BTreeMap::new(),
            journal: Appendings::default(),
            appends: Vec::new(),
            index,
            begun: figures::now(),
            commit,
        }
    }

    /// Does one job. An error is one of the database; what a job may not do is in its outcome.
    pub(super) fn carry_out(&mut self, job: &Job) -> rusqlite::Result<Outcome> {
        Ok(match job {
            Job::Append { log, batch, .. } => Outcome::Append(self.append(log, batch)?),
            Job::PutSnapshot { log, snapshot, .. } => Outcome::PutSnapshot(match self.id(log) {
                Some(id) => Ok(snapshots::put(self.conn, id, snapshot)?),
                None => Err(ReadError::UnknownLog { log: log.clone() }),
            }),
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

    /// Ends it.
    pub(super) fn commit(&self, index: &mut search::Index) -> rusqlite::Result<()> {
        let last =
            self.logs.backlog.next() - 1 + i64::try_from(self.appends.len()).expect("a group is small");
        self.journal.insert(self.conn, last)?;
        index.apply(self.conn, &self.index)?;
        self.conn.prepare_cached("COMMIT")?.execute([])?;
        Ok(())
    }

    /// After the commit: shows everybody what is there.
    pub(super) fn publish(self) {
        let Self { live, logs, filed, touched, appends, begun, commit, .. } = self;
        live.counts.committed(commit, begun);
        logs.backlog.publish(filed, live.hot);
        for (log, Touched { removed, created, stored, obsolete, producer }) in touched {
            if let Some(removed) = removed {
                live.removed(&removed);
            }
            let Some(open) = logs.open.get(&log) else { continue };
            let created = created.map(|id| (id, log));
            let header = open.state.header();
            open.live.publish(Published { created, header, producer, stored, obsolete }, live.hot);
        }
        for append in appends {
            logs.backlog.push(append);
        }
        logs.close_surplus();
    }

    /// After a failure: the database holds what was there before, and memory must not differ.
    pub(super) fn abandon(self) {
        for log in self.touched.keys() {
            self.logs.open.remove(log);
        }
    }

    fn append(&mut self, log: &LogId, batch: &Prepared) -> rusqlite::Result<Result<Appended, AppendError>> {
        let is_known = match self.load(log)? {
            Ok(is_known) => is_known,
            Err(error) => return Ok(Err(error.into())),
        };
        if is_known {
            let open = self.logs.open.get_mut(log).expect("it was just loaded");
            if let Err(error) = check_position(open.state.bounds().head, batch) {
                return Ok(Err(error.into()));
            }
            return match open.state.append(log, batch) {
                Ok(change) => self.write(log, change).map(Ok),
                Err(error) => Ok(Err(error)),
            };
        }
        let mut state = LogState::new(self.logs.epochs.next(), self.logs.policy.of(log));
        let header = state.header();
        // A refused batch makes no log.
        let change = match state.append(log, batch) {
            Ok(change) => change,
            Err(error) => return Ok(Err(error)),
        };
        let touched = self.touched.entry(log.clone()).or_default();
        let Some(id) = logs::insert(self.conn, log, &header)? else {
            return Ok(Err(AppendError::Store(exhausted("make a log"))));
        };
        touched.created = Some(id);
        let live = self.live.entry(log);
        self.logs.open.insert(log.clone(), OpenLog { id, state, live, used: 0 });
        self.write(log, change).map(Ok)
    }

    /// Does to the database what the rules did to the state.
    fn write(&mut self, log: &LogId, change: Change) -> rusqlite::Result<Appended> {
        let Change { stored, obsolete: gone, floor: _, pruned, appended, producer } = change;
        self.commit.appended += appended.appended as u64;
        self.commit.compacted += gone.len() as u64;
        self.commit.pruned += pruned;
        let touched = self.touched.entry(log.clone()).or_default();
        let open = self.logs.open.get_mut(log).expect("a log that is written is open");
        open.used = self.logs.tick;
        let mut filed = Seq::ZERO;
        if !gone.is_empty() {
            let before = || open.live.kept(|kept| kept.filing.filed).unwrap_or_default();
            filed = self.filed.filing(open.id).map_or_else(before, |filing| filing.filed);
        }
        let (marked, pending) = gone.split_at(gone.partition_point(|seq| *seq <= filed));
        for seq in marked {
            obsolete::insert(self.conn, open.id, *seq)?;
        }
        for stored in &stored {
            self.index.add(open.id, &stored.record);
        }
        let bytes = self.journal.push(&Appending {
            log: open.id,
            header: &open.state.header(),
            producer: producer.as_ref(),
            obsolete: pending,
            stored: &stored,
        });
        self.index.forget(open.id, &gone);
        let last = stored.last().map_or(Seq::ZERO, |stored| stored.record.seq);
        let live = Arc::clone(&open.live);
        self.appends.push(Waiting { live, log: open.id, last, bytes });
        if !gone.is_empty() {
            touched.stored.retain(|stored| gone.binary_search(&stored.record.seq).is_err());
        }
        touched.stored.extend(stored);
        touched.obsolete.extend(gone);
        touched.producer = producer.or(touched.producer.take());
        Ok(appended)
    }

    fn remove(&mut self, log: &LogId) -> rusqlite::Result<()> {
        let Some(id) = self.id(log) else { return Ok(()) };
        let live = self.live.entry(log);
        self.touched.insert(log.clone(), Touched { removed: Some(live), ..Touched::default() });
        self.logs.open.remove(log);
        self.index.forget_log(id);
        segments::clear(self.conn, id)?;
        obsolete::clear(self.conn, id)?;
        snapshots::delete(self.conn, id)?;
        logs::delete(self.conn, id)
    }

    /// Prunes all that a log has.
    fn empty(&mut self, log: &LogId) -> rusqlite::Result<u64> {
        if !self.load(log)?.unwrap_or(false) {
            return Ok(0);
        }
        let open = self.logs.open.get_mut(log).expect("it was just loaded");
        let pruned = open.state.empty();
        self.commit.pruned += pruned;
        self.index.forget_through(open.id, open.state.bounds().floor);
        let change = open
            .state
            .append(log, &Prepared::of(Append::default()))
            .expect("nothing can be wrong with nothing");
        self.write(log, change)?;
        Ok(pruned)
    }

    /// The number of a log, if there is one by now.
    fn id(&self, log: &LogId) -> Option<i64> {
        match (self.logs.open.get(log), self.touched.get(log)) {
            (Some(open), _) => Some(open.id),
            (None, Some(Touched { removed: Some(_), .. })) => None,
            (None, _) => self.live.id(log).ok(),
        }
    }

    /// Takes a log into memory; says whether there is one.
    fn load(&mut self, log: &LogId) -> rusqlite::Result<Result<bool, StoreError>> {
        if self.logs.open.contains_key(log) {
            return Ok(Ok(true));
        }
        if self.id(log).is_none() {
            return Ok(Ok(false));
        }
        let live = self.live.entry(log);
        let Some((id, state)) = live.kept(|kept| (kept.id, self.restore(log, kept))) else {
            return Ok(Ok(false));
        };
        Ok(match state? {
            Ok(state) => {
                let used = self.logs.tick;
                self.logs.open.insert(log.clone(), OpenLog { id, state, live, used });
                Ok(true)
            }
            Err(error) => Err(error),
        })
    }

    /// The state of a log from its segments and from what is not filed.
    fn restore(&self, log: &LogId, kept: &Kept) -> rusqlite::Result<Result<LogState, StoreError>> {
        let filing = self.filed.filing(kept.id).unwrap_or(kept.filing);
        let entries = match segments::entries(self.conn, kept.id, filing)? {
            Ok(entries) => entries,
            Err(Broken) => return Ok(Err(readers::incomplete_log(log))),
        };
        // What this transaction has filed is among them already.
        let pending = kept.pending(filing.filed).map(|pending| pending.stored.entry());
        let entries = entries.into_iter().filter(|entry| kept.returns(entry.seq)).chain(pending);
        let (header, producers) = (kept.header.clone(), kept.producers.clone());
        Ok(Ok(LogState::restore(header, self.logs.policy.of(log), producers, entries)))
    }
}

impl Logs {
    /// Lets go of the least recently written logs if there are too many: of a quarter at a time, so that finding them
    /// is rare.
    fn close_surplus(&mut self) {
        if self.open.len() <= self.limit {
            return;
        }
        let mut by_use: Vec<_> = self.open.iter().map(|(log, open)| (open.used, log.clone())).collect();
        by_use.sort_unstable();
        by_use.truncate(self.open.len() - self.limit + self.limit / 4);
        for (_, log) in by_use {
            if let Some(open) = self.open.remove(&log) {
                open.live.kept_mut(Kept::cool);
            }
        }
    }
}

/// Whether the batch leaves the log below the last position that this backend can tell apart.
fn check_position(head: Seq, batch: &Prepared) -> Result<(), StoreError> {
    if head.get() + batch.events.len() as u64 > LAST_POSITION.get() {
        return Err(exhausted("give an event a position"));
    }
    Ok(())
}

fn exhausted(doing: &'static str) -> StoreError {
    StoreError::Backend { doing, source: "there are no more numbers".into() }
}
