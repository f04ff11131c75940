//! A run of events, encoded once and shared by everyone who reads them.

use std::sync::Arc;

use bytes::Bytes;
use protocol::{LogId, Seq};
use serde::Deserialize;
use store::{Bounds, Page, Record};

use crate::{filter::TypeFilter, websocket};

/// Consecutive events of one log with their `events` frame (§5), ready to be written to a WebSocket. The records'
/// envelopes are slices of the frame: the bytes are held once.
#[derive(Debug, Clone)]
pub struct Segment {
    records: Arc<[Record]>,
    frame: Bytes,
    last_word: Option<LastWord>,
}

/// What the agent last said of its own life.
#[derive(Debug, Clone)]
pub(crate) struct LastWord {
    pub(crate) seq: Seq,
    /// Why it ended; `None` if it started.
    pub(crate) ended: Option<Arc<str>>,
}

/// A page of the store, encoded: what is kept after a position.
#[derive(Debug, Clone)]
pub struct EncodedPage {
    /// The log's bounds at the time of the read.
    pub bounds: Bounds,
    /// Its events, if there are any.
    pub segment: Option<Segment>,
    /// There are events after the last one here.
    pub more: bool,
}

impl EncodedPage {
    /// Encodes a page, for everyone who reads on from the same position.
    #[must_use]
    pub fn of(log: &LogId, page: Page) -> Self {
        let Page { bounds, records, more } = page;
        Self { bounds, segment: Segment::encode(log, records), more }
    }

    /// The events.
    #[must_use]
    pub fn records(&self) -> &[Record] {
        self.segment.as_ref().map_or(&[], Segment::records)
    }
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
        let last_word = LastWord::among(&records);
        let text = protocol::frame::encode_events(log, records.iter().map(|record| &record.envelope));
        let frame = websocket::text(&text);
        // The frame ends in `…,"events":[e1,e2,…]}`: the envelopes lie before its last two bytes, a comma apart.
        let mut end = frame.len() - 2;
        let mut records = records;
        for record in records.iter_mut().rev() {
            let start = end - record.envelope.len();
            record.envelope = frame.slice(start..end);
            end = start.saturating_sub(1);
        }
        Some(Self { records: records.into(), frame, last_word })
    }

    /// What the agent last said of its own life, in these events.
    pub(crate) fn last_word(&self) -> Option<&LastWord> {
        self.last_word.as_ref()
    }

    /// The `events` frame, with the header that a WebSocket puts before it.
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
        if filter.is_all() && after < self.first() {
            return Some(self.clone());
        }
        let wanted = |record: &Record| record.seq > after && filter.passes(&record.kind);
        if self.records.iter().all(wanted) {
            return Some(self.clone());
        }
        Self::encode(log, self.records.iter().filter(|record| wanted(record)).cloned().collect())
    }
}

impl LastWord {
    fn among(records: &[Record]) -> Option<Self> {
        records.iter().rev().find_map(|record| match &*record.kind {
            "agent.exited" | "agent.failed" => Some(Self { seq: record.seq, ended: Some(reason_of(record)) }),
            "agent.started" => Some(Self { seq: record.seq, ended: None }),
            _ => None,
        })
    }
}

/// The reason that an `agent.exited` or `agent.failed` gives.
fn reason_of(record: &Record) -> Arc<str> {
    #[derive(Deserialize)]
    struct Envelope {
        data: Data,
    }
    #[derive(Deserialize)]
    struct Data {
        reason: Option<Arc<str>>,
        message: Option<Arc<str>>,
    }
    let data = serde_json::from_slice::<Envelope>(&record.envelope).ok().map(|envelope| envelope.data);
    data.and_then(|data| data.reason.or(data.message)).unwrap_or_else(|| record.kind.clone())
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
