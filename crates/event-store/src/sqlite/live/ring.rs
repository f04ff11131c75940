//! The newest events of a log, in memory.

use std::collections::VecDeque;

use protocol::Seq;

use crate::rules::Stored;

/// How many of a log's newest events are in memory beyond those that are not filed.
#[derive(Debug, Clone, Copy)]
pub(in crate::sqlite) struct HotLimit {
    pub(in crate::sqlite) events: usize,
    pub(in crate::sqlite) bytes: usize,
}

/// Every kept event above [`base`](Self::base).
#[derive(Debug)]
pub(super) struct Ring {
    base: Seq,
    /// Ascending. Events that are gone are left in it as dead until as many are dead as alive.
    slots: VecDeque<Slot>,
    dead: usize,
    /// Of the envelopes of all slots.
    bytes: usize,
}

#[derive(Debug)]
struct Slot {
    stored: Stored,
    is_damaged: bool,
    is_alive: bool,
}

/// An event that is in memory.
#[derive(Debug, Clone, Copy)]
pub(in crate::sqlite) struct Pending<'a> {
    pub(in crate::sqlite) stored: &'a Stored,
    /// It was found damaged in the journal, and its envelope is empty.
    pub(in crate::sqlite) is_damaged: bool,
}

impl Ring {
    pub(super) fn starting_at(base: Seq) -> Self {
        Self { base, slots: VecDeque::new(), dead: 0, bytes: 0 }
    }

    pub(super) fn base(&self) -> Seq {
        self.base
    }

    /// What is here above this position.
    pub(super) fn after(&self, after: Seq) -> impl Iterator<Item = Pending<'_>> {
        let alive = self.slots.range(self.place_after(after)..).filter(|slot| slot.is_alive);
        alive.map(|Slot { stored, is_damaged, .. }| Pending { stored, is_damaged: *is_damaged })
    }

    /// The first slot above a position. It is sought from the newest on, in steps that double: most readers are close to
    /// it, and what is looked at less often is in no cache.
    fn place_after(&self, after: Seq) -> usize {
        let is_above = |place: usize| self.slots[place].stored.record.seq > after;
        let (mut low, mut high, mut step) = (self.slots.len(), self.slots.len(), 1);
        while low > 0 && is_above(low - 1) {
            high = low - 1;
            low = high.saturating_sub(step);
            step *= 2;
        }
        while low < high {
            let middle = low.midpoint(high);
            if is_above(middle) { high = middle } else { low = middle + 1 }
        }
        low
    }

    pub(super) fn push(&mut self, stored: Stored, is_damaged: bool) {
        self.bytes += stored.record.envelope.len();
        self.slots.push_back(Slot { stored, is_damaged, is_alive: true });
    }

    pub(super) fn remove(&mut self, gone: &[Seq]) {
        for seq in gone {
            let Ok(at) = self.slots.binary_search_by_key(seq, |slot| slot.stored.record.seq) else {
                continue;
            };
            if self.slots[at].is_alive {
                self.slots[at].is_alive = false;
                self.dead += 1;
            }
        }
        if self.dead > 64 && self.dead * 2 > self.slots.len() {
            self.slots.retain(|slot| slot.is_alive);
            self.slots.shrink_to(self.slots.len() * 2);
            self.bytes = self.slots.iter().map(|slot| slot.stored.record.envelope.len()).sum();
            self.dead = 0;
        }
    }

    /// Lets go of what is at or below the floor.
    pub(super) fn raise(&mut self, floor: Seq) {
        while self.slots.front().is_some_and(|slot| slot.stored.record.seq <= floor) {
            self.pop();
        }
        self.base = self.base.max(floor);
    }

    /// Lets go of the oldest events that are filed, as far as there are more than the limit.
    pub(super) fn trim(&mut self, hot: HotLimit, filed: Seq) {
        while (self.slots.len() > hot.events || self.bytes > hot.bytes)
            && self.slots.front().is_some_and(|slot| slot.stored.record.seq <= filed)
        {
            self.pop();
        }
    }

    fn pop(&mut self) {
        if let Some(Slot { stored, is_alive, .. }) = self.slots.pop_front() {
            self.bytes -= stored.record.envelope.len();
            self.dead -= usize::from(!is_alive);
            self.base = stored.record.seq;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;
    use crate::Record;

    proptest! {
        #[test]
        fn what_is_above_a_position_is_found_wherever_it_begins(steps in prop::collection::vec(1_u64..4, 0..80), after in 0_u64..200) {
            let mut ring = Ring::starting_at(Seq::ZERO);
            let mut head = 0;
            let all: Vec<u64> = steps.iter().map(|step| { head += step; head }).collect();
            all.iter().for_each(|seq| ring.push(stored(*seq), false));
            let found: Vec<u64> = ring.after(Seq::new(after)).map(|pending| pending.stored.record.seq.get()).collect();
            prop_assert_eq!(found, all.into_iter().filter(|seq| *seq > after).collect::<Vec<_>>());
        }
    }

    fn stored(seq: u64) -> Stored {
        let record = Record { seq: Seq::new(seq), kind: Arc::from("x"), key: None, envelope: Bytes::new() };
        Stored { record, session: None, tombstone: false }
    }
}
