//! A run of events, encoded once and shared by everyone who reads them.

use std::sync::Arc;

use bytes::Bytes;
use protocol::{LogId, Seq};
use store::Record;

use crate::filter::TypeFilter;

/// Consecutive events of one log with their `events` frame (§5). The records' envelopes are slices of the frame: the
/// bytes are held once.
#[derive(Debug, Clone)]
pub struct Segment {
    records: Arc<[Record]>,
    frame: Bytes,
}

impl Segment {
    /// Encodes a run of events; `None` of none.
    ///
    /// # Panics
    /// When the records are not in order.
    #[must_use]
    pub fn encode(log: &LogId, records: Vec<Record>) -> Option<Self> {
        assert!(records.is_sorted_by(|a, b| a.seq < b.seq), "the events of a segment are in order");
        if records.is_empty() {
            return None;
        }
        let frame = protocol::frame::encode_events(log, records.iter().map(|record| &record.envelope));
        // The frame is `{…,"events":[e1,e2,…]}`: the envelopes lie before its last two bytes, a comma apart.
        let mut end = frame.len() - 2;
        let mut records = records;
        for record in records.iter_mut().rev() {
            let start = end - record.envelope.len();
            record.envelope = frame.slice(start..end);
            end = start.saturating_sub(1);
        }
        Some(Self { records: records.into(), frame })
    }

    /// The `events` frame.
    #[must_use]
    pub fn frame(&self) -> &Bytes {
        &self.frame
    }

    /// The events, strictly increasing.
    #[must_use]
    pub fn records(&self) -> &[Record] {
        &self.records
    }

    /// The position of the first event.
    #[must_use]
    pub fn first(&self) -> Seq {
        self.records[0].seq
    }

    /// The position of the last event.
    #[must_use]
    pub fn last(&self) -> Seq {
        self.records[self.records.len() - 1].seq
    }

    /// The part of it that lies after `seq` and passes the filter: itself, where that is all of it.
    #[must_use]
    pub fn narrowed(&self, log: &LogId, after: Seq, filter: &TypeFilter) -> Option<Self> {
        let wanted = |record: &Record| record.seq > after && filter.passes(&record.kind);
        if self.records.iter().all(wanted) {
            return Some(self.clone());
        }
        Self::encode(log, self.records.iter().filter(|record| wanted(record)).cloned().collect())
    }
}

#[cfg(test)]
mod tests {
    use protocol::{NewEvent, Timestamp};

    use super::*;

    #[test]
    fn p9_envelopes_are_slices_of_the_frame_with_the_same_bytes() {
        let records = vec![record(3, "a"), record(5, "message.updated"), record(9, "b")];
        let segment = Segment::encode(&log(), records.clone()).unwrap();
        assert_eq!(segment.records(), records);
        let frame = segment.frame().as_ptr_range();
        for record in segment.records() {
            let envelope = record.envelope.as_ptr_range();
            assert!(frame.start <= envelope.start && envelope.end <= frame.end, "{record:?} is a copy");
        }
        assert_eq!((segment.first(), segment.last()), (Seq::new(3), Seq::new(9)));
    }

    #[test]
    fn narrowing_shares_the_frame_when_all_is_wanted() {
        let segment = Segment::encode(&log(), vec![record(3, "a"), record(5, "b")]).unwrap();
        let same = segment.narrowed(&log(), Seq::new(2), &TypeFilter::default()).unwrap();
        assert_eq!(same.frame().as_ptr(), segment.frame().as_ptr());
        let rest = segment.narrowed(&log(), Seq::new(3), &TypeFilter::default()).unwrap();
        assert_eq!(rest.records(), &segment.records()[1..]);
        assert!(segment.narrowed(&log(), Seq::ZERO, &TypeFilter::parse("c").unwrap()).is_none());
    }

    #[test]
    fn nothing_is_no_segment() {
        assert!(Segment::encode(&log(), Vec::new()).is_none());
    }

    fn log() -> LogId {
        "agent/a1".parse().unwrap()
    }

    fn record(seq: u64, kind: &str) -> Record {
        let event = NewEvent::of(Timestamp::from_unix_ms(0), kind, &serde_json::json!({ "n": seq })).unwrap();
        let event = event.at(Seq::new(seq));
        Record { seq: event.seq, kind: event.kind.clone(), key: None, envelope: event.encode() }
    }
}
