//! The hot end of one log: what was committed last, encoded once, shared by all viewers that are near the head.
//!
//! A viewer is a position in it. One that has fallen behind its beginning reads the store, off the hot path.

use std::collections::VecDeque;

use protocol::{Epoch, LogId, Seq};
use store::Page;

use crate::Segment;

/// How much of the hot end is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TailLimits {
    /// Segments: one per commit that was seen.
    pub segments: usize,
    /// Bytes of their frames. The newest segment is kept whatever its size.
    pub bytes: usize,
}

impl Default for TailLimits {
    fn default() -> Self {
        // What one log with live traffic may hold (promises P12); the store has the rest.
        Self { segments: 256, bytes: 192 * 1024 }
    }
}

/// The hot end of one log.
#[derive(Debug)]
pub struct Tail {
    log: LogId,
    limits: TailLimits,
    epoch: Epoch,
    /// Everything after this, up to `head`, is in the segments, but for what compaction took.
    start: Seq,
    head: Seq,
    /// In order, none empty; each holds what was committed after the one before it.
    segments: VecDeque<Segment>,
    bytes: usize,
}

/// What a tail has after a position.
#[derive(Debug, Clone)]
pub enum After {
    /// These events come next, and others may follow.
    Segment(Segment),
    /// These events come next, and they are the newest.
    Newest(Segment),
    /// Nothing: the position is the head, or above it.
    Nothing,
    /// The tail does not reach down to the position, or is that of another incarnation: read the store.
    Behind,
}

impl Tail {
    /// An empty tail of a log whose head is `head`.
    #[must_use]
    pub fn new(log: LogId, epoch: Epoch, head: Seq, limits: TailLimits) -> Self {
        Self { log, limits, epoch, start: head, head, segments: VecDeque::new(), bytes: 0 }
    }

    /// The incarnation of the log that this is the end of.
    #[must_use]
    pub fn epoch(&self) -> &Epoch {
        &self.epoch
    }

    /// Everything up to this has been seen.
    #[must_use]
    pub fn head(&self) -> Seq {
        self.head
    }

    /// Bytes held.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds what the store has after [`Tail::head`]. A page of another incarnation starts the tail anew.
    pub fn push(&mut self, page: Page) {
        let Page { bounds, records, more } = page;
        if bounds.epoch != self.epoch {
            *self = Self::new(self.log.clone(), bounds.epoch, Seq::ZERO, self.limits);
        }
        if bounds.floor > self.head {
            // Pruning was faster than this: what is between is gone, and nobody may step over it unawares.
            self.segments.clear();
            self.bytes = 0;
            self.start = bounds.floor;
            self.head = bounds.floor;
        }
        let records = records.into_iter().filter(|record| record.seq > self.head).collect::<Vec<_>>();
        if let Some(segment) = Segment::encode(&self.log, records) {
            self.head = segment.last();
            self.bytes += segment.frame().len();
            self.segments.push_back(segment);
        }
        if !more {
            self.head = self.head.max(bounds.head);
        }
        self.trim();
    }

    /// What comes after a position of an incarnation.
    #[must_use]
    pub fn after(&self, epoch: &Epoch, position: Seq) -> After {
        if position < self.start || *epoch != self.epoch {
            return After::Behind;
        }
        // Most readers have all but the newest: the others are not looked at for them.
        let Some(newest) = self.segments.back().filter(|newest| newest.last() > position) else {
            return After::Nothing;
        };
        if self.segments.iter().nth_back(1).is_none_or(|before| before.last() <= position) {
            return After::Newest(newest.clone());
        }
        let next = self.segments.partition_point(|segment| segment.last() <= position);
        After::Segment(self.segments[next].clone())
    }

    fn trim(&mut self) {
        while self.segments.len() > 1
            && (self.segments.len() > self.limits.segments || self.bytes > self.limits.bytes)
        {
            let Some(oldest) = self.segments.pop_front() else { return };
            self.bytes -= oldest.frame().len();
            self.start = oldest.last();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use protocol::{NewEvent, Timestamp};
    use store::{Bounds, Record};

    use super::*;

    #[test]
    fn a_position_in_the_tail_gets_the_segment_that_follows() {
        let mut tail = tail(10);
        tail.push(page(&[11, 12], 12));
        tail.push(page(&[15], 15));
        assert_eq!(seqs(&tail.after(&epoch(), Seq::new(10))), [11, 12]);
        assert_eq!(
            seqs(&tail.after(&epoch(), Seq::new(11))),
            [11, 12],
            "the reader narrows what it has begun"
        );
        assert_eq!(seqs(&tail.after(&epoch(), Seq::new(12))), [15]);
        assert!(matches!(tail.after(&epoch(), Seq::new(15)), After::Nothing));
    }

    #[test]
    fn only_the_newest_segment_says_that_nothing_follows() {
        let mut tail = tail(0);
        tail.push(page(&[1], 1));
        assert!(matches!(tail.after(&epoch(), Seq::ZERO), After::Newest(_)));
        tail.push(page(&[2], 2));
        assert!(matches!(tail.after(&epoch(), Seq::ZERO), After::Segment(_)));
        assert!(matches!(tail.after(&epoch(), Seq::new(1)), After::Newest(_)));
    }

    #[test]
    fn a_position_below_the_tail_reads_the_store() {
        let mut tail = tail(10);
        tail.push(page(&[11], 11));
        assert!(matches!(tail.after(&epoch(), Seq::new(9)), After::Behind));
    }

    #[test]
    fn readers_of_one_segment_share_its_bytes() {
        let mut tail = tail(0);
        tail.push(page(&[1, 2], 2));
        let (After::Newest(a), After::Newest(b)) =
            (tail.after(&epoch(), Seq::ZERO), tail.after(&epoch(), Seq::ZERO))
        else {
            panic!("the segment is there")
        };
        assert_eq!(a.frame().as_ptr(), b.frame().as_ptr());
    }

    #[test]
    fn it_is_bounded_in_count_and_in_bytes() {
        let mut tail = Tail::new(log(), epoch(), Seq::ZERO, TailLimits { segments: 3, bytes: 1 << 20 });
        (1..=5).for_each(|seq| tail.push(page(&[seq], seq)));
        assert!(matches!(tail.after(&epoch(), Seq::new(1)), After::Behind));
        assert_eq!(seqs(&tail.after(&epoch(), Seq::new(2))), [3]);

        let mut tail = Tail::new(log(), epoch(), Seq::ZERO, TailLimits { segments: 100, bytes: 1 });
        (1..=5).for_each(|seq| tail.push(page(&[seq], seq)));
        assert_eq!(seqs(&tail.after(&epoch(), Seq::new(4))), [5], "the newest is kept whatever its size");
        assert!(matches!(tail.after(&epoch(), Seq::new(3)), After::Behind));
    }

    #[test]
    fn p3_pruning_that_overtakes_the_tail_sends_readers_to_the_store() {
        let mut tail = tail(10);
        let mut jump = page(&[31], 31);
        jump.bounds.floor = Seq::new(30);
        tail.push(jump);
        assert!(
            matches!(tail.after(&epoch(), Seq::new(10)), After::Behind),
            "the store tells that reader of its gap"
        );
        assert_eq!(seqs(&tail.after(&epoch(), Seq::new(30))), [31]);
    }

    #[test]
    fn another_incarnation_starts_anew() {
        let mut tail = tail(10);
        let mut other = page(&[1], 1);
        other.bounds.epoch = Epoch::new("e2");
        tail.push(other);
        assert_eq!((tail.epoch(), tail.head()), (&Epoch::new("e2"), Seq::new(1)));
        assert!(
            matches!(tail.after(&epoch(), Seq::new(10)), After::Behind),
            "the store tells that reader of its gap"
        );
    }

    proptest! {
        /// From any position a reader of the tail sees everything after it exactly once, or is told to read the store.
        #[test]
        fn p2_a_reader_of_the_tail_sees_each_event_once(
            batches in prop::collection::vec(prop::collection::vec(1_u64..4, 0..4), 1..20),
            from in 0_u64..40,
            segments in 1_usize..6,
        ) {
            let mut tail = Tail::new(log(), epoch(), Seq::ZERO, TailLimits { segments, bytes: 1 << 20 });
            let (mut head, mut all) = (0_u64, Vec::<u64>::new());
            for steps in batches {
                let seqs = steps.iter().map(|step| { head += step; head }).collect::<Vec<_>>();
                all.extend(&seqs);
                tail.push(page(&seqs, head));
            }
            let mut position = Seq::new(from);
            let mut seen = Vec::new();
            loop {
                match tail.after(&epoch(), position) {
                    After::Segment(segment) | After::Newest(segment) => {
                        seen.extend(segment.records().iter().map(|r| r.seq).filter(|seq| *seq > position).map(Seq::get));
                        position = segment.last();
                    }
                    After::Nothing => break,
                    After::Behind => {
                        prop_assert!(seen.is_empty(), "a reader in the tail stays in it");
                        return Ok(());
                    }
                }
            }
            prop_assert_eq!(seen, all.into_iter().filter(|seq| *seq > from).collect::<Vec<_>>());
        }
    }

    fn log() -> LogId {
        "agent/a1".parse().unwrap()
    }

    fn epoch() -> Epoch {
        Epoch::new("e1")
    }

    fn tail(head: u64) -> Tail {
        Tail::new(log(), epoch(), Seq::new(head), TailLimits::default())
    }

    fn page(seqs: &[u64], head: u64) -> Page {
        let record = |seq: &u64| {
            let event = NewEvent::of(Timestamp::from_unix_ms(0), "x", &seq).unwrap().at(Seq::new(*seq));
            Record { seq: event.seq, kind: event.kind.clone(), key: None, envelope: event.encode() }
        };
        Page {
            bounds: Bounds { epoch: epoch(), floor: Seq::ZERO, head: Seq::new(head) },
            records: seqs.iter().map(record).collect(),
            more: false,
        }
    }

    fn seqs(after: &After) -> Vec<u64> {
        match after {
            After::Segment(segment) | After::Newest(segment) => {
                segment.records().iter().map(|record| record.seq.get()).collect()
            }
            After::Nothing | After::Behind => panic!("no segment: {after:?}"),
        }
    }
}
