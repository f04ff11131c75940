//! The rules of a log, pure: what an append is allowed to do and what it does. Every backend keeps one [`LogState`]
//! per open log, asks it what to write, and writes that.

mod index;
#[cfg(test)]
mod laws;
mod prepared;
mod producers;

use std::sync::Arc;

use protocol::{Effect, Epoch, LogId, Seq, Timestamp, limits};

pub(crate) use index::{Entry, Index};
pub(crate) use prepared::{Prepared, PreparedEvent};
pub(crate) use producers::Producers;

use crate::{AppendError, Appended, Bounds, LogSummary, ProducerState, Record, Retention};

/// What is known of one log, besides its events' bytes.
#[derive(Debug, Clone)]
pub(crate) struct LogState {
    epoch: Epoch,
    retention: Retention,
    floor: Seq,
    head: Seq,
    newest: Option<Timestamp>,
    producers: Producers,
    index: Index,
}

/// The part of a [`LogState`] that a durable backend keeps in one row, besides producers and events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) epoch: Epoch,
    pub(crate) floor: Seq,
    pub(crate) head: Seq,
    /// When the newest event happened.
    pub(crate) newest: Option<Timestamp>,
    /// Events kept, and their bytes.
    pub(crate) events: u64,
    pub(crate) bytes: u64,
}

impl Header {
    pub(crate) fn bounds(&self) -> Bounds {
        Bounds { epoch: self.epoch.clone(), floor: self.floor, head: self.head }
    }

    pub(crate) fn summary(&self, log: &LogId) -> LogSummary {
        LogSummary { log: log.clone(), bounds: self.bounds(), events: self.events, bytes: self.bytes }
    }

    /// Whether everything in the log has outlived its retention.
    pub(crate) fn is_idle(&self, retention: &Retention, now: Timestamp) -> bool {
        match (retention.idle, self.newest) {
            (Some(idle), Some(newest)) => self.events > 0 && now.since(newest) > idle,
            (None, _) | (_, None) => false,
        }
    }
}

/// An event to be written, with what compaction needs of it later.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stored {
    pub(crate) record: Record,
    pub(crate) session: Option<Arc<str>>,
    /// It removed its key.
    pub(crate) tombstone: bool,
}

impl Stored {
    /// What the index keeps of it.
    pub(crate) fn entry(&self) -> Entry {
        let Self { record, session, tombstone } = self;
        Entry {
            seq: record.seq,
            bytes: u32::try_from(record.envelope.len()).unwrap_or(u32::MAX),
            key: record.key.clone(),
            session: session.clone(),
            tombstone: *tombstone,
        }
    }
}

/// What one append changes: write `stored`, take away `obsolete` and everything up to `floor`.
#[derive(Debug)]
pub(crate) struct Change {
    /// Events to write, in order; those that the batch itself made obsolete are not among them.
    pub(crate) stored: Vec<Stored>,
    /// Positions written earlier that no read may return from this commit on.
    pub(crate) obsolete: Vec<Seq>,
    /// The floor after the append.
    pub(crate) floor: Seq,
    /// What the caller is told.
    pub(crate) appended: Appended,
    /// How many events the floor took.
    #[cfg_attr(not(feature = "sqlite"), expect(dead_code, reason = "only durable backends count them"))]
    pub(crate) pruned: u64,
    /// The newest producer, if it is other than before.
    #[cfg_attr(not(feature = "sqlite"), expect(dead_code, reason = "only durable backends write it"))]
    pub(crate) producer: Option<ProducerState>,
}

impl LogState {
    /// A log that has nothing yet.
    pub(crate) fn new(epoch: Epoch, retention: Retention) -> Self {
        Self {
            epoch,
            retention,
            floor: Seq::ZERO,
            head: Seq::ZERO,
            newest: None,
            producers: Producers::default(),
            index: Index::new(indexes_all(&retention)),
        }
    }

    #[cfg_attr(
        not(any(feature = "sqlite", test)),
        expect(dead_code, reason = "only durable backends restore")
    )]
    /// A log as it was kept: its row, its producers and its events above the floor, oldest first.
    pub(crate) fn restore(
        header: Header,
        retention: Retention,
        producers: Producers,
        entries: impl IntoIterator<Item = Entry>,
    ) -> Self {
        let mut index = Index::new(indexes_all(&retention));
        for entry in entries {
            index.push(entry);
        }
        let Header { epoch, floor, head, newest, events: _, bytes: _ } = header;
        Self { epoch, retention, floor, head, newest, producers, index }
    }

    pub(crate) fn header(&self) -> Header {
        Header {
            epoch: self.epoch.clone(),
            floor: self.floor,
            head: self.head,
            newest: self.newest,
            events: self.index.events(),
            bytes: self.index.bytes(),
        }
    }

    pub(crate) fn bounds(&self) -> Bounds {
        Bounds { epoch: self.epoch.clone(), floor: self.floor, head: self.head }
    }

    pub(crate) fn producers(&self) -> &Producers {
        &self.producers
    }

    /// Checks a batch and carries it out here; the backend then does the same with the bytes. An error changes nothing.
    pub(crate) fn append(&mut self, log: &LogId, batch: &Prepared) -> Result<Change, AppendError> {
        let Prepared { events, producer, expect } = batch;
        check_sizes(events)?;
        let (mut events, mut admitted) = (&events[..], None);
        if let Some(producer) = producer {
            let admission = self.producers.admit(log, producer, events)?;
            events = &events[admission.repeated..];
            admitted = Some(admission);
        }
        let is_repetition = events.is_empty() && admitted.as_ref().is_some_and(|a| a.repeated > 0);
        if let Some(expected) = *expect
            && expected != self.head
            && !is_repetition
        {
            return Err(AppendError::Conflict { log: log.clone(), expected, head: self.head });
        }
        let (acked, producer) = match (producer, admitted) {
            (Some(batch), Some(admission)) => {
                (admission.acked, self.producers.record(batch, admission.acked))
            }
            (None, _) | (_, None) => (0, None),
        };
        let (stored, obsolete) = self.push(events);
        let pruned = self.prune();
        let stored = stored.into_iter().filter(|s| s.record.seq > self.floor).collect();
        Ok(Change {
            stored,
            obsolete,
            floor: self.floor,
            pruned,
            appended: Appended { epoch: self.epoch.clone(), head: self.head, appended: events.len(), acked },
            producer,
        })
    }

    /// Lets go of everything; says how many events that were.
    pub(crate) fn empty(&mut self) -> u64 {
        let events = self.index.events();
        self.index.clear();
        self.floor = self.head;
        events
    }

    /// Gives the events their positions and finds out what they make obsolete, in earlier batches and in this one.
    fn push(&mut self, events: &[PreparedEvent]) -> (Vec<Stored>, Vec<Seq>) {
        let before = self.head;
        let mut stored: Vec<Stored> = Vec::with_capacity(events.len());
        let mut obsolete = Vec::new();
        for event in events {
            match (event.effect, &event.key) {
                (Effect::Replace, Some(key)) => self.index.take_replaced(key, &mut obsolete),
                (Effect::Remove, Some(key)) => self.index.take_removed(key, &mut obsolete),
                (Effect::Append, _) | (Effect::Replace | Effect::Remove, None) => {}
            }
            self.newest = Some(event.event().time);
            self.head = self.head.next();
            let mut one = event.at(self.head);
            one.record.key = self.index.push(one.entry());
            stored.push(one);
        }
        // What is obsolete before it was written is never written.
        obsolete.sort_unstable();
        let split = obsolete.partition_point(|seq| *seq <= before);
        let unwritten = obsolete.split_off(split);
        stored.retain(|s| unwritten.binary_search(&s.record.seq).is_err());
        (stored, obsolete)
    }

    /// Raises the floor until the log keeps to its retention; says how many events that took. The newest always stays.
    fn prune(&mut self) -> u64 {
        let before = self.index.events();
        let Retention { events, bytes, idle: _ } = self.retention;
        while self.index.events() > 1 && (self.index.events() > events || self.index.bytes() > bytes) {
            let Some(oldest) = self.index.pop_oldest() else { break };
            self.floor = oldest;
        }
        before - self.index.events()
    }
}

/// Without a bound nothing is ever pruned, and what has no key or session need not be in the index.
fn indexes_all(retention: &Retention) -> bool {
    retention.events != u64::MAX || retention.bytes != u64::MAX
}

fn check_sizes(events: &[PreparedEvent]) -> Result<(), AppendError> {
    let limit = limits::EVENT_DATA_HARD_BYTES;
    match events.iter().map(PreparedEvent::bytes).enumerate().find(|(_, len)| *len > limit) {
        Some((index, len)) => Err(AppendError::TooLarge { index, len, limit }),
        None => Ok(()),
    }
}
