//! The rules of an outbox, pure: numbers, acks, the bound, and what is dropped when it is reached (§6).

use std::collections::VecDeque;

use protocol::{Class, NewEvent, Timestamp, agent::EventsDropped};

/// The type of the event that names a loss.
const DROPPED: &str = "wrapper.events_dropped";
/// What a notice of a loss counts for; its text is never longer.
const NOTICE_BYTES: u64 = 224;

/// What an event is to the bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Dropped first.
    Delta,
    /// Dropped when no delta is left.
    State,
    /// Never dropped.
    Outcome,
    /// Names the loss of the numbers from `from` to its own; never dropped, but two that touch become one.
    Notice {
        /// The first of them.
        from: u64,
        /// Why.
        reason: &'static str,
    },
}

/// One event that waits for an ack. `P` is where it is kept.
#[derive(Debug, Clone)]
pub(crate) struct Entry<P> {
    pub(crate) number: u64,
    pub(crate) kind: Kind,
    pub(crate) time: Timestamp,
    pub(crate) bytes: u64,
    /// Absent for a notice that was not written yet.
    pub(crate) place: Option<P>,
}

/// What waits, by number.
///
/// Invariant: the first entry's numbers begin at `acked + 1` or before, each entry's begin after the last one's, and
/// nothing is missing between them: a number above `acked` is either here or named by a notice that is here.
#[derive(Debug)]
pub(crate) struct Ledger<P> {
    entries: VecDeque<Entry<P>>,
    next: u64,
    acked: u64,
    bytes: u64,
    /// The highest number that a relay can know: those that an earlier run left, and those handed out to be sent.
    claimed: u64,
}

impl Kind {
    /// What an event is, by its class (§3).
    pub(crate) fn of(event: &NewEvent) -> Self {
        if &*event.kind == DROPPED
            && let Ok(dropped) = event.data.parse::<EventsDropped>()
        {
            return Self::Notice { from: dropped.from, reason: known_reason(&dropped.reason) };
        }
        match Class::of(&event.kind) {
            Class::Delta => Self::Delta,
            Class::State | Class::Volatile => Self::State,
            Class::Outcome => Self::Outcome,
        }
    }
}

impl<P> Entry<P> {
    /// The first number that it speaks for.
    pub(crate) fn from(&self) -> u64 {
        match self.kind {
            Kind::Notice { from, .. } => from,
            Kind::Delta | Kind::State | Kind::Outcome => self.number,
        }
    }

    /// The event that names a loss; `None` where the event itself is there.
    pub(crate) fn notice(&self) -> Option<NewEvent> {
        match self.kind {
            Kind::Notice { from, reason } if self.place.is_none() => {
                let data = EventsDropped { from, to: self.number, reason: reason.to_owned() };
                Some(
                    NewEvent::of(self.time, DROPPED, &data)
                        .expect("a notice serialises: it is numbers and a word"),
                )
            }
            Kind::Notice { .. } | Kind::Delta | Kind::State | Kind::Outcome => None,
        }
    }

    fn is_notice(&self) -> bool {
        matches!(self.kind, Kind::Notice { .. })
    }
}

impl<P> Ledger<P> {
    /// An outbox whose next event has this number, and whose earlier ones are all acked.
    pub(crate) fn new(next: u64) -> Self {
        Self { entries: VecDeque::new(), next, acked: next - 1, bytes: 0, claimed: next - 1 }
    }

    pub(crate) fn next(&self) -> u64 {
        self.next
    }

    pub(crate) fn acked(&self) -> u64 {
        self.acked
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(crate) fn entries(&self) -> &VecDeque<Entry<P>> {
        &self.entries
    }

    /// Where the entries are, after they were all written elsewhere.
    pub(crate) fn entries_mut(&mut self) -> impl Iterator<Item = &mut Entry<P>> {
        self.entries.iter_mut()
    }

    /// Takes the next event. Its number is that of [`Self::next`] before.
    pub(crate) fn push(&mut self, kind: Kind, time: Timestamp, bytes: u64, place: Option<P>) {
        // What comes in as a notice of the caller's own names numbers of its own choice; it is kept as any outcome.
        let strange = matches!(kind, Kind::Notice { from, .. } if from > self.next || from == 0);
        let kind = if strange { Kind::Outcome } else { kind };
        self.entries.push_back(Entry { number: self.next, kind, time, bytes, place });
        self.bytes += bytes;
        self.next += 1;
    }

    /// Numbers up to and not including `next` are lost: they are named.
    pub(crate) fn lose_until(&mut self, next: u64, time: Timestamp, reason: &'static str) {
        if next <= self.next {
            return;
        }
        let kind = Kind::Notice { from: self.next, reason };
        self.entries.push_back(Entry { number: next - 1, kind, time, bytes: NOTICE_BYTES, place: None });
        self.bytes += NOTICE_BYTES;
        self.next = next;
    }

    /// The next event, a notice that is read from disk, has this number.
    pub(crate) fn skip_to(&mut self, number: u64) {
        self.next = self.next.max(number);
    }

    /// What was there when the disk was read is what an earlier run can have sent.
    pub(crate) fn claim_all(&mut self) {
        self.claimed = self.next - 1;
    }

    /// Everything through this number is committed.
    pub(crate) fn ack(&mut self, through: u64) {
        self.acked = self.acked.max(through.min(self.next - 1));
        while let Some(first) = self.entries.front() {
            if first.number > self.acked {
                return;
            }
            self.bytes -= first.bytes;
            self.entries.pop_front();
        }
    }

    /// A relay says through which number it has everything. Returns whether entries changed, so that what is on disk is
    /// to be written again.
    pub(crate) fn resume(&mut self, acked: u64) -> bool {
        if acked > self.claimed {
            // The relay has numbers that this disk forgot (a power loss): what was never sent gets numbers after them.
            let (claimed, shift) = (self.claimed, acked - self.claimed);
            self.ack(claimed);
            for entry in &mut self.entries {
                entry.number += shift;
                if let Kind::Notice { from, .. } = &mut entry.kind {
                    *from += shift;
                }
            }
            self.next += shift;
            (self.acked, self.claimed) = (acked, acked);
            return true;
        }
        if acked > 0 && acked < self.acked {
            // The relay forgot what it had acked (an old backup): it is gone, and is named. A relay that knows nothing of
            // this producer takes its first number as it is.
            let (number, kind) = (self.acked, Kind::Notice { from: acked + 1, reason: "lost_by_relay" });
            let time = self.entries.front().map_or(Timestamp::from_unix_ms(0), |first| first.time);
            self.entries.push_front(Entry { number, kind, time, bytes: NOTICE_BYTES, place: None });
            self.bytes += NOTICE_BYTES;
            self.acked = acked;
            return true;
        }
        self.ack(acked);
        false
    }

    /// The relay takes nothing of this number: it is named as lost. False if it is not there any more.
    pub(crate) fn replace(&mut self, number: u64, reason: &'static str) -> bool {
        let Ok(index) = self.entries.binary_search_by_key(&number, |entry| entry.number) else {
            return false;
        };
        let entry = &mut self.entries[index];
        if entry.is_notice() {
            return false;
        }
        self.bytes = self.bytes - entry.bytes + NOTICE_BYTES;
        (entry.kind, entry.bytes, entry.place) = (Kind::Notice { from: number, reason }, NOTICE_BYTES, None);
        true
    }

    /// Drops the oldest deltas, then the oldest state, until at most so many bytes are left or only outcomes are. Returns how
    /// many events were dropped.
    pub(crate) fn make_room(&mut self, target: u64) -> u64 {
        let mut bytes = self.bytes;
        let mut dropped = 0;
        for class in [Kind::Delta, Kind::State] {
            for index in 0..self.entries.len() {
                if bytes <= target {
                    break;
                }
                if self.entries[index].kind != class {
                    continue;
                }
                let before = index.checked_sub(1).is_some_and(|before| self.entries[before].is_notice());
                let after = self.entries.get(index + 1).is_some_and(Entry::is_notice);
                let entry = &mut self.entries[index];
                bytes -= entry.bytes;
                bytes += NOTICE_BYTES;
                bytes -= NOTICE_BYTES * (u64::from(before) + u64::from(after));
                let kind = Kind::Notice { from: entry.number, reason: "outbox_full" };
                (entry.kind, entry.bytes, entry.place) = (kind, NOTICE_BYTES, None);
                dropped += 1;
            }
        }
        if dropped > 0 {
            self.join_notices();
        }
        dropped
    }

    /// The entries after this number that fit into one append: a notice of numbers that were not sent comes first or not
    /// at all (§6, rule 3). They count as known to the relay from then on.
    pub(crate) fn claim_after(&mut self, after: u64, max_events: usize, max_bytes: u64) -> Vec<&Entry<P>> {
        let start = self.entries.partition_point(|entry| entry.number <= after);
        let mut bytes = 0;
        let mut claimed = Vec::new();
        for entry in self.entries.range(start..) {
            let hole = entry.from() < entry.number;
            let first = claimed.is_empty();
            if claimed.len() >= max_events.max(1) || !first && (hole || bytes + entry.bytes > max_bytes) {
                break;
            }
            bytes += entry.bytes;
            self.claimed = self.claimed.max(entry.number);
            claimed.push(entry);
        }
        claimed
    }

    /// Two notices that touch become one, with the later one's number.
    fn join_notices(&mut self) {
        let mut joined: VecDeque<Entry<P>> = VecDeque::with_capacity(self.entries.len());
        for mut entry in self.entries.drain(..) {
            if let (Kind::Notice { from: last_from, .. }, Kind::Notice { from, .. }) =
                (joined.back().map_or(Kind::Outcome, |last| last.kind), &mut entry.kind)
            {
                *from = last_from;
                (entry.place, entry.bytes) = (None, NOTICE_BYTES);
                joined.pop_back();
            }
            joined.push_back(entry);
        }
        self.bytes = joined.iter().map(|entry| entry.bytes).sum();
        self.entries = joined;
    }
}

/// The reasons that are ever written; another one can only come from another build.
fn known_reason(reason: &str) -> &'static str {
    ["outbox_full", "too_large", "too_deep", "damaged", "lost_by_relay"]
        .into_iter()
        .find(|known| *known == reason)
        .unwrap_or("other")
}

#[cfg(test)]
mod tests;
