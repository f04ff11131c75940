//! Pages of history that many readers want at about the same time: read once, encoded once, shared.
//!
//! Whoever joins, or comes back after a restart, reads on from a position far below the hot tail. Thousands do so within
//! a second, from a few positions. What the first of them read is kept for the others, as long as there is room.

use std::{
    collections::{BTreeMap, VecDeque},
    ops::Bound,
};

use protocol::{Epoch, LogId, Seq};

use crate::Segment;

/// Segments of any logs, the newest reads of them, up to a number of bytes.
#[derive(Debug)]
pub struct History {
    limit: usize,
    bytes: usize,
    /// By log and by the position after which a page begins: it holds everything from there to its last event.
    pages: BTreeMap<(LogId, Seq), Kept>,
    /// Oldest first.
    order: VecDeque<(LogId, Seq)>,
}

#[derive(Debug)]
struct Kept {
    epoch: Epoch,
    segment: Segment,
}

impl History {
    /// An empty one for `limit` bytes of frames.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self { limit, bytes: 0, pages: BTreeMap::new(), order: VecDeque::new() }
    }

    /// The page that holds what comes next after a position; the reader narrows what it has begun.
    #[must_use]
    pub fn after(&self, log: &LogId, epoch: &Epoch, position: Seq) -> Option<Segment> {
        let (first, last) = ((log.clone(), Seq::ZERO), (log.clone(), position));
        let (_, kept) = self.pages.range((Bound::Included(first), Bound::Included(last))).next_back()?;
        (kept.epoch == *epoch && kept.segment.last() > position).then(|| kept.segment.clone())
    }

    /// Keeps a page: everything that the log has after `from`, up to the last of these events.
    pub fn keep(&mut self, log: &LogId, epoch: &Epoch, from: Seq, segment: &Segment) {
        let place = (log.clone(), from);
        let kept = Kept { epoch: epoch.clone(), segment: segment.clone() };
        self.bytes += segment.frame().len();
        match self.pages.insert(place.clone(), kept) {
            Some(before) => self.bytes -= before.segment.frame().len(),
            None => self.order.push_back(place),
        }
        while self.bytes > self.limit {
            let Some(oldest) = self.order.pop_front().and_then(|place| self.pages.remove(&place)) else {
                return;
            };
            self.bytes -= oldest.segment.frame().len();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use protocol::{NewEvent, Timestamp};
    use store::Record;

    use super::*;

    #[test]
    fn a_reader_within_a_page_gets_the_page_and_one_outside_gets_none() {
        let mut history = History::new(1 << 20);
        history.keep(&log(), &epoch(), Seq::new(10), &segment(&[12, 15]));
        for position in [10, 11, 12, 14] {
            assert!(history.after(&log(), &epoch(), Seq::new(position)).is_some(), "{position}");
        }
        for position in [9, 15, 16] {
            assert!(history.after(&log(), &epoch(), Seq::new(position)).is_none(), "{position}");
        }
    }

    #[test]
    fn pages_of_another_log_or_incarnation_are_nobodys() {
        let mut history = History::new(1 << 20);
        history.keep(&log(), &epoch(), Seq::new(10), &segment(&[12]));
        assert!(history.after(&log(), &Epoch::new("e2"), Seq::new(10)).is_none());
        assert!(history.after(&"agent/a2".parse().unwrap(), &epoch(), Seq::new(10)).is_none());
    }

    #[test]
    fn the_oldest_pages_make_room() {
        let one = segment(&[1]).frame().len();
        let mut history = History::new(2 * one + 1);
        for seq in 1..=3 {
            history.keep(&log(), &epoch(), Seq::new(seq - 1), &segment(&[seq]));
        }
        assert!(history.after(&log(), &epoch(), Seq::ZERO).is_none());
        assert!(history.after(&log(), &epoch(), Seq::new(1)).is_some());
        history.keep(&log(), &epoch(), Seq::new(3), &segment(&[4]));
        history.keep(&log(), &epoch(), Seq::new(3), &segment(&[4]));
        assert!(
            history.after(&log(), &epoch(), Seq::new(2)).is_some(),
            "one that is kept again takes no more room"
        );
    }

    proptest! {
        /// Whatever is kept and forgotten, a page that is found holds exactly what the log has after the position.
        #[test]
        fn p2_a_page_that_is_found_leaves_nothing_out(
            steps in prop::collection::vec(1_u64..4, 1..60),
            reads in prop::collection::vec((0_usize..60, 1_usize..9), 1..30),
            limit in 100_usize..4000,
            position in 0_u64..160,
        ) {
            let mut seq = 0;
            let all = steps.iter().map(|step| { seq += step; seq }).collect::<Vec<_>>();
            let mut history = History::new(limit);
            for (start, count) in reads {
                let from = if start == 0 { 0 } else { all[(start - 1).min(all.len() - 1)] };
                let page = all.iter().copied().filter(|seq| *seq > from).take(count).collect::<Vec<_>>();
                if !page.is_empty() {
                    history.keep(&log(), &epoch(), Seq::new(from), &segment(&page));
                }
                prop_assert!(history.bytes <= limit);
            }
            if let Some(found) = history.after(&log(), &epoch(), Seq::new(position)) {
                let found = found.records().iter().map(|record| record.seq.get()).filter(|seq| *seq > position);
                let found = found.collect::<Vec<_>>();
                let wanted = all.into_iter().filter(|seq| *seq > position).take(found.len()).collect::<Vec<_>>();
                prop_assert!(!found.is_empty());
                prop_assert_eq!(found, wanted);
            }
        }
    }

    fn log() -> LogId {
        "agent/a1".parse().unwrap()
    }

    fn epoch() -> Epoch {
        Epoch::new("e1")
    }

    fn segment(seqs: &[u64]) -> Segment {
        let record = |seq: &u64| {
            let event = NewEvent::of(Timestamp::from_unix_ms(0), "x", &seq).unwrap().at(Seq::new(*seq));
            Record { seq: event.seq, kind: event.kind.clone(), key: None, envelope: event.encode() }
        };
        Segment::encode(&log(), seqs.iter().map(record).collect()).unwrap()
    }
}
