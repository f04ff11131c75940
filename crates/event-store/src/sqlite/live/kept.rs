//! One log as of its last commit.

use std::collections::BTreeSet;

use protocol::{LogId, Seq};

use super::{
    HotLimit, Published,
    ring::{Pending, Ring},
};
use crate::{
    Page, ReadLimit, Record,
    rules::{Header, Producers},
    sqlite::tables::{
        journal::Journaled,
        logs::{Filing, LogRow},
    },
};

/// What is known of a log, and its newest events: those that are not filed, and some of those that are.
#[derive(Debug)]
pub(in crate::sqlite) struct Kept {
    pub(in crate::sqlite) id: i64,
    pub(in crate::sqlite) log: LogId,
    pub(in crate::sqlite) header: Header,
    pub(in crate::sqlite) producers: Producers,
    pub(in crate::sqlite) filing: Filing,
    /// Filed events that no read returns.
    pub(in crate::sqlite) obsolete: BTreeSet<Seq>,
    /// Where the search for segments that are worth writing anew goes on.
    pub(in crate::sqlite) swept: Seq,
    ring: Ring,
}

impl Kept {
    /// A log that has nothing.
    pub(super) fn new(id: i64, log: LogId, header: Header) -> Self {
        Self::of(LogRow { id, log, header, producers: Producers::default(), filing: Filing::default() })
    }

    /// A log as of its last filing.
    pub(in crate::sqlite) fn of(row: LogRow) -> Self {
        let LogRow { id, log, header, producers, filing } = row;
        let ring = Ring::starting_at(filing.filed);
        Self { id, log, header, producers, filing, obsolete: BTreeSet::new(), swept: Seq::ZERO, ring }
    }

    /// Brings it up to date by an append of the journal.
    pub(in crate::sqlite) fn replay(&mut self, append: Journaled) {
        for item in append.items {
            if item.stored.record.seq > self.filing.filed {
                self.ring.push(item.stored, item.is_damaged);
            }
        }
        self.ring.remove(&append.obsolete);
        if append.id > self.filing.journaled {
            let epoch = self.header.epoch.clone();
            self.header = Header { epoch, ..append.header };
            if let Some(newest) = append.producer {
                self.producers.put(newest);
            }
        }
        self.ring.raise(self.header.floor);
    }

    pub(super) fn update(&mut self, published: Published, hot: HotLimit) {
        let Published { created: _, header, producer, stored, obsolete } = published;
        self.ring.remove(&obsolete);
        self.obsolete.extend(obsolete.into_iter().filter(|seq| *seq <= self.filing.filed));
        for stored in stored {
            self.ring.push(stored, false);
        }
        self.ring.raise(header.floor);
        self.ring.trim(hot, self.filing.filed);
        self.header = header;
        if let Some(newest) = producer {
            self.producers.put(newest);
        }
    }

    /// Takes over that events were filed, and that segments were written anew or deleted.
    pub(in crate::sqlite) fn file(
        &mut self,
        filing: Filing,
        swept: Seq,
        unmarked: &[(Seq, Seq)],
        hot: HotLimit,
    ) {
        self.filing = filing;
        self.swept = swept;
        self.ring.trim(hot, filing.filed);
        for (after, last) in unmarked {
            let marks: Vec<Seq> = self.obsolete.range(after.next()..=*last).copied().collect();
            for mark in marks {
                self.obsolete.remove(&mark);
            }
        }
    }

    /// Frees the newest events, as far as they are filed.
    pub(in crate::sqlite) fn cool(&mut self) {
        self.ring.trim(HotLimit { events: 0, bytes: 0 }, self.filing.filed);
    }

    /// Events after this position that are not filed.
    pub(in crate::sqlite) fn pending(&self, after: Seq) -> impl Iterator<Item = Pending<'_>> {
        self.ring.after(after.max(self.filing.filed))
    }

    /// Whether an append of this number, with events up to this position, has anything that is only in the journal.
    pub(in crate::sqlite) fn needs(&self, last: Seq, append: i64) -> bool {
        let next = || self.pending(Seq::ZERO).next().map_or(Seq::MAX, |next| next.stored.record.seq);
        append > self.filing.journaled || (last > self.filing.filed && last >= next())
    }

    /// Whether reads return a filed event of this position.
    pub(in crate::sqlite) fn returns(&self, seq: Seq) -> bool {
        seq > self.header.floor && !self.obsolete.contains(&seq)
    }

    /// A page, if everything after the position is in memory; the position of a damaged event if that is the first.
    pub(super) fn page(&self, after: Seq, limit: ReadLimit) -> Option<Result<Page, Seq>> {
        let after = after.max(self.header.floor);
        let mut rest = self.records_after(after)?;
        Some(Page::collect(self.header.bounds(), limit, &mut rest))
    }

    /// A page that begins with events that were read from segments: all that there are after a position, or, if
    /// `has_more`, the first of them.
    pub(in crate::sqlite) fn page_from(
        &self,
        filed: &[Result<Record, Seq>],
        has_more: bool,
        limit: ReadLimit,
    ) -> Result<Page, Seq> {
        let returned = |event: &&Result<Record, Seq>| match event {
            Ok(record) => self.returns(record.seq),
            Err(damaged) => self.returns(*damaged),
        };
        let filed = filed.iter().filter(returned).map(|event| event.as_ref().map_err(|seq| *seq));
        let pending = (!has_more).then(|| self.records_after(self.filing.filed)).flatten();
        let mut page =
            Page::collect(self.header.bounds(), limit, &mut filed.chain(pending.into_iter().flatten()))?;
        page.more |= has_more;
        Ok(page)
    }

    fn records_after(&self, after: Seq) -> Option<impl Iterator<Item = Result<&Record, Seq>>> {
        (after >= self.ring.base()).then(|| {
            self.ring.after(after).map(
                |Pending { stored, is_damaged }| {
                    if is_damaged { Err(stored.record.seq) } else { Ok(&stored.record) }
                },
            )
        })
    }
}
