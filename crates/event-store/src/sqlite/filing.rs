//! Keeping the journal short: what is oldest there is filed in segments, in the same transactions that append. By then
//! much of it is obsolete, and is never filed.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use protocol::Seq;
use rusqlite::Connection;

use super::{
    block::Block,
    live::{HotLimit, Kept, Live},
    tables::{
        journal,
        logs::{self, Filing, LogRow},
        obsolete,
        segments::{self, Segment},
    },
};

/// What the journal holds, append by append.
#[derive(Debug)]
pub(super) struct Backlog {
    /// Bytes of events beyond which the oldest are filed.
    limit: u64,
    bytes: u64,
    /// The number of the next append.
    next: i64,
    appends: VecDeque<Waiting>,
}

/// An append that is in the journal.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) live: Arc<Live>,
    /// The log's id: it may have been removed, and made again, since.
    pub(super) log: i64,
    /// The newest position in it.
    pub(super) last: Seq,
    pub(super) bytes: u64,
}

/// What a transaction filed: to be taken over once it is committed.
#[derive(Debug, Default)]
pub(super) struct Filed {
    /// By the logs' ids.
    drafts: BTreeMap<i64, Draft>,
    /// Appends that the journal need not have any more.
    appends: usize,
    /// Events that are in segments now.
    pub(super) events: u64,
}

/// How a log will be filed.
#[derive(Debug)]
struct Draft {
    live: Arc<Live>,
    filing: Filing,
    /// Nothing up to here is only in the journal.
    cleared: Seq,
    swept: Seq,
    /// Up to here segments were let go of.
    pruned: Option<Seq>,
    /// Of these positions no mark is left, after the one and up to the other.
    unmarked: Vec<(Seq, Seq)>,
}

impl Backlog {
    pub(super) fn new(limit: u64) -> Self {
        Self { limit, bytes: 0, next: 1, appends: VecDeque::new() }
    }

    /// The number of the oldest append.
    fn first(&self) -> i64 {
        self.next - i64::try_from(self.appends.len()).expect("they are far fewer")
    }

    /// The number that the next append gets.
    pub(super) fn next(&self) -> i64 {
        self.next
    }

    /// Takes note of the append with the next number.
    pub(super) fn push(&mut self, append: Waiting) {
        self.next += 1;
        self.bytes += append.bytes;
        self.appends.push_back(append);
    }

    /// The next append has this number, whatever is here.
    pub(super) fn go_on_from(&mut self, id: i64) {
        self.next = self.next.max(id);
    }

    /// Whether there is something to be filed.
    pub(super) fn is_too_long(&self) -> bool {
        self.bytes > self.limit
    }

    /// Files about so many events, if the journal is too long. Goes by what was committed before this transaction.
    pub(super) fn file(&self, conn: &Connection, events: usize) -> rusqlite::Result<Filed> {
        let mut filed = Filed::default();
        let (mut bytes, mut done, mut first_kept) = (self.bytes, 0, self.first());
        for (append, id) in self.appends.iter().zip(self.first()..) {
            while bytes > self.limit && done < events && filed.is_needed(append, id) {
                done += filed.advance(conn, append, self.next - 1)?;
            }
            if bytes <= self.limit || filed.is_needed(append, id) {
                break;
            }
            bytes -= append.bytes;
            filed.appends += 1;
            first_kept = id + 1;
        }
        if filed.appends > 0 {
            journal::delete_before(conn, first_kept)?;
        }
        filed.events = done as u64;
        for (id, draft) in &mut filed.drafts {
            draft.finish(conn, *id)?;
        }
        Ok(filed)
    }

    /// After the commit.
    pub(super) fn publish(&mut self, filed: Filed, hot: HotLimit) {
        self.bytes -= self.appends.drain(..filed.appends).map(|append| append.bytes).sum::<u64>();
        for (id, Draft { live, filing, cleared: _, swept, pruned: _, unmarked }) in filed.drafts {
            live.kept_mut(|kept| {
                if kept.id == id {
                    kept.file(filing, swept, &unmarked, hot);
                }
            });
        }
    }
}

impl Filed {
    /// How far a log is filed, if this transaction changed that.
    pub(super) fn filing(&self, log: i64) -> Option<Filing> {
        self.drafts.get(&log).map(|draft| draft.filing)
    }

    /// The logs of which segments were let go of, and up to which positions.
    pub(super) fn pruned(&self) -> impl Iterator<Item = (i64, Seq)> {
        self.drafts.iter().filter_map(|(id, draft)| Some((*id, draft.pruned?)))
    }

    /// Whether the journal must keep this append.
    fn is_needed(&self, append: &Waiting, id: i64) -> bool {
        match self.drafts.get(&append.log) {
            Some(draft) => append.last > draft.cleared || id > draft.filing.journaled,
            None => {
                append.live.kept(|kept| kept.id == append.log && kept.needs(append.last, id)).unwrap_or(false)
            }
        }
    }

    /// Files the next events of the append's log; says how many.
    fn advance(&mut self, conn: &Connection, append: &Waiting, newest: i64) -> rusqlite::Result<usize> {
        let step = append.live.kept(|kept| {
            let draft = self.drafts.entry(append.log).or_insert_with(|| Draft::of(kept, &append.live));
            // The header that is written with it is of after all appends that are there.
            draft.filing.journaled = newest;
            draft.file(conn, kept)
        });
        // Nothing is filed of a log that is gone, and the append is not needed then.
        step.unwrap_or(Ok(0))
    }
}

impl Draft {
    fn of(kept: &Kept, live: &Arc<Live>) -> Self {
        Self {
            live: Arc::clone(live),
            filing: kept.filing,
            cleared: kept.filing.filed,
            swept: kept.swept,
            pruned: None,
            unmarked: Vec::new(),
        }
    }

    /// Writes the next segment; says how many events are in it.
    fn file(&mut self, conn: &Connection, kept: &Kept) -> rusqlite::Result<usize> {
        let mut block = Block::default();
        let (mut events, mut next) = (0, None);
        for pending in kept.pending(self.filing.filed) {
            if events == segments::EVENTS || block.len() >= segments::BYTES {
                next = Some(pending.stored.record.seq);
                break;
            }
            block.push(kept.id, pending.stored, pending.is_damaged);
            events += 1;
        }
        // What lies before the next event is obsolete or pruned.
        self.cleared = next.map_or(kept.header.head, |next| Seq::new(next.get() - 1));
        if events > 0 {
            segments::put(conn, kept.id, self.filing.filed, self.cleared, &block)?;
            self.filing.filed = self.cleared;
        }
        Ok(events)
    }

    /// Lets go of segments that are not needed, and writes the log's row.
    fn finish(&mut self, conn: &Connection, id: i64) -> rusqlite::Result<()> {
        let live = Arc::clone(&self.live);
        let row = live.kept(|kept| -> rusqlite::Result<LogRow> {
            if let Some(through) = segments::prune(conn, id, kept.header.floor)? {
                self.filing.begins = through;
                self.pruned = Some(through);
                self.unmark(conn, kept, Seq::ZERO, through)?;
            }
            self.sweep(conn, kept)?;
            self.filing.filings += 1;
            let (header, producers) = (kept.header.clone(), kept.producers.clone());
            Ok(LogRow { id, log: kept.log.clone(), header, producers, filing: self.filing })
        });
        match row {
            Some(row) => logs::update(conn, &row?),
            None => Ok(()),
        }
    }

    /// Looks at the next segment that has obsolete events, and writes it anew if half of it is obsolete, or if what is
    /// left fits into the segment before it. One at a time: as many become obsolete as are filed, in the long run.
    fn sweep(&mut self, conn: &Connection, kept: &Kept) -> rusqlite::Result<()> {
        let begins = self.filing.begins;
        let next = kept.obsolete.range(self.swept.max(begins).next()..).next();
        let Some(mark) = next.or_else(|| kept.obsolete.range(begins.next()..).next()) else { return Ok(()) };
        self.swept = *mark;
        let Some(segment) = segments::covering(conn, kept.id, *mark)? else { return Ok(()) };
        self.swept = segment.last;
        let Some((rest, had)) = remains(&segment, kept) else { return Ok(()) };
        let before = match segment.after > begins {
            true => segments::covering(conn, kept.id, segment.after)?,
            false => None,
        };
        if let Some(before) = before
            && let Some((mut merged, _)) = remains(&before, kept)
            && merged.events + rest.events <= segments::EVENTS
            && merged.block.len() + rest.block.len() <= segments::BYTES
        {
            merged.block.append(rest.block);
            segments::delete(conn, kept.id, segment.after)?;
            segments::put(conn, kept.id, before.after, segment.last, &merged.block)?;
            self.unmark(conn, kept, before.after, segment.last)?;
        } else if rest.events * 2 <= had {
            segments::put(conn, kept.id, segment.after, segment.last, &rest.block)?;
            self.unmark(conn, kept, segment.after, segment.last)?;
        }
        Ok(())
    }

    fn unmark(&mut self, conn: &Connection, kept: &Kept, after: Seq, last: Seq) -> rusqlite::Result<()> {
        if kept.obsolete.range(after.next()..=last).next().is_some() {
            obsolete::delete(conn, kept.id, after, last)?;
            self.unmarked.push((after, last));
        }
        Ok(())
    }
}

/// What reads still return of a segment.
struct Remains {
    block: Block,
    events: usize,
}

/// What is left of a segment, and how many events it has; `None` if that is damaged, since then nobody knows.
fn remains(segment: &Segment, kept: &Kept) -> Option<(Remains, usize)> {
    let items = segment.items.as_ref()?;
    let mut left = Remains { block: Block::default(), events: 0 };
    for item in items.iter().filter(|item| kept.returns(item.stored.record.seq)) {
        left.block.push(kept.id, &item.stored, item.is_damaged);
        left.events += 1;
    }
    Some((left, items.len()))
}
