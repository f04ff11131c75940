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
        let from = self.slots.partition_point(|slot| slot.stored.record.seq <= after);
        let alive = self.slots.range(from..).filter(|slot| slot.is_alive);
        alive.map(|Slot { stored, is_damaged, .. }| Pending { stored, is_damaged: *is_damaged })
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
