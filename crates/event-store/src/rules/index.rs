//! Which events a log keeps, by position and by key: what compaction and pruning go by.

use std::{
    collections::{BTreeSet, HashMap, VecDeque, hash_map::Entry as MapEntry},
    sync::Arc,
};

use protocol::{Key, Seq};

/// One kept event, without its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) seq: Seq,
    /// Bytes of its envelope.
    pub(crate) bytes: u32,
    pub(crate) key: Option<Key>,
    pub(crate) session: Option<Arc<str>>,
    /// It removed its key.
    pub(crate) tombstone: bool,
}

/// The kept events of one log.
///
/// `entries` is keyed by position (ascending); events that compaction took are left in it as dead until as many are
/// dead as alive. `by_key` leads from a key to the positions that its next `replace` makes obsolete; it may still name
/// pruned positions, which are swept before they are half of what is here.
#[derive(Debug, Clone)]
pub(crate) struct Index {
    entries: VecDeque<Slot>,
    by_key: HashMap<Key, Vec<Seq>>,
    events: u64,
    bytes: u64,
    dead: usize,
    /// Whether events that compaction can never take are in `entries` too, for pruning.
    all: bool,
    since_sweep: usize,
}

#[derive(Debug, Clone)]
struct Slot {
    entry: Entry,
    alive: bool,
}

impl Index {
    pub(crate) fn new(all: bool) -> Self {
        Self {
            entries: VecDeque::new(),
            by_key: HashMap::new(),
            events: 0,
            bytes: 0,
            dead: 0,
            all,
            since_sweep: 0,
        }
    }

    /// Events kept.
    pub(crate) fn events(&self) -> u64 {
        self.events
    }

    /// Bytes of their envelopes.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Adds an event above all others; gives its key, whose text is shared with the index where it is known there.
    pub(crate) fn push(&mut self, mut entry: Entry) -> Option<Key> {
        self.events += 1;
        self.bytes += u64::from(entry.bytes);
        if !self.all && entry.key.is_none() && entry.session.is_none() {
            return None;
        }
        // Only a removal makes a tombstone obsolete: it covers more than its own key, and a reader whose cursor is
        // before it still has to hear of the rest.
        if let Some(key) = entry.key.take_if(|_| !entry.tombstone) {
            entry.key = Some(match self.by_key.entry(key) {
                MapEntry::Occupied(mut known) => {
                    known.get_mut().push(entry.seq);
                    known.key().clone()
                }
                MapEntry::Vacant(unknown) => {
                    let key = unknown.key().clone();
                    unknown.insert(vec![entry.seq]);
                    key
                }
            });
        }
        if let Some(last) = self.entries.back()
            && last.entry.session == entry.session
        {
            entry.session = last.entry.session.clone();
        }
        let key = entry.key.clone();
        self.entries.push_back(Slot { entry, alive: true });
        self.since_sweep += 1;
        if self.since_sweep > self.entries.len() / 2 + 64 {
            self.sweep();
        }
        key
    }

    /// Takes what a `replace` of `key` makes obsolete.
    pub(crate) fn take_replaced(&mut self, key: &Key, obsolete: &mut Vec<Seq>) {
        for seq in self.by_key.remove(key).unwrap_or_default() {
            if let Ok(at) = self.entries.binary_search_by_key(&seq, |slot| slot.entry.seq) {
                self.kill(at, obsolete);
            }
        }
        self.drop_dead();
    }

    /// Takes what a `remove` of `key` makes obsolete: the key, what it covers and, of a session, all of its events.
    pub(crate) fn take_removed(&mut self, key: &Key, obsolete: &mut Vec<Seq>) {
        let session = key.as_str().strip_prefix("session/");
        let mut keys = BTreeSet::new();
        for at in 0..self.entries.len() {
            let entry = &self.entries[at].entry;
            let is_covered = entry.key.as_ref().is_some_and(|other| key.covers(other));
            if is_covered || (session.is_some() && entry.session.as_deref() == session) {
                keys.extend(entry.key.clone());
                self.kill(at, obsolete);
            }
        }
        for key in keys {
            self.forget_dead(key);
        }
        self.drop_dead();
    }

    /// Takes the oldest event.
    pub(crate) fn pop_oldest(&mut self) -> Option<Seq> {
        while let Some(slot) = self.entries.pop_front() {
            if slot.alive {
                self.events -= 1;
                self.bytes -= u64::from(slot.entry.bytes);
                return Some(slot.entry.seq);
            }
            self.dead -= 1;
        }
        None
    }

    /// Takes everything.
    pub(crate) fn clear(&mut self) {
        *self = Self::new(self.all);
    }

    fn kill(&mut self, at: usize, obsolete: &mut Vec<Seq>) {
        let slot = &mut self.entries[at];
        if slot.alive {
            slot.alive = false;
            self.dead += 1;
            self.events -= 1;
            self.bytes -= u64::from(slot.entry.bytes);
            obsolete.push(slot.entry.seq);
        }
    }

    /// Lets go of a key's positions that are gone.
    fn forget_dead(&mut self, key: Key) {
        let Self { entries, by_key, .. } = self;
        if let MapEntry::Occupied(mut known) = by_key.entry(key) {
            known.get_mut().retain(|seq| {
                entries.binary_search_by_key(seq, |slot| slot.entry.seq).is_ok_and(|at| entries[at].alive)
            });
            if known.get().is_empty() {
                known.remove();
            }
        }
    }

    /// Lets go of dead entries once they are the larger part.
    fn drop_dead(&mut self) {
        if self.dead > 64 && self.dead * 2 > self.entries.len() {
            self.entries.retain(|slot| slot.alive);
            self.dead = 0;
        }
    }

    /// Lets go of pruned positions, and of keys of which nothing is left.
    fn sweep(&mut self) {
        self.since_sweep = 0;
        let oldest = self.entries.front().map_or(Seq::ZERO, |slot| slot.entry.seq);
        self.by_key.retain(|_, seqs| {
            seqs.drain(..seqs.partition_point(|seq| *seq < oldest));
            !seqs.is_empty()
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEPT: u64 = 100;

    #[test]
    fn one_text_that_goes_on_for_ever_takes_no_more_memory_than_what_is_kept_of_it() {
        let mut index = Index::new(true);
        for seq in 1..100 * KEPT {
            index.push(piece(seq, "part/p", "s"));
            if index.events() > KEPT {
                index.pop_oldest();
            }
        }
        assert!(index.positions() <= 3 * KEPT, "{}", index.positions());
        let mut obsolete = Vec::new();
        index.take_replaced(&Key::new("part/p"), &mut obsolete);
        assert_eq!(obsolete.len() as u64, KEPT);
    }

    #[test]
    fn sessions_that_come_and_go_leave_no_key_behind_the_first_event() {
        let mut index = Index::new(false);
        index.push(piece(1, "config", "first"));
        for n in 1..100 {
            let (session, seq) = (format!("s{n}"), n * 3);
            index.push(piece(seq, &format!("session/{session}/part/p"), &session));
            index.push(piece(seq + 1, &format!("usage/{n}"), &session));
            index.take_removed(&Key::new(&format!("session/{session}")), &mut Vec::new());
        }
        assert_eq!(index.positions(), 1);
    }

    impl Index {
        /// What `by_key` leads to.
        fn positions(&self) -> u64 {
            self.by_key.values().map(|seqs| seqs.len() as u64).sum()
        }
    }

    fn piece(seq: u64, key: &str, session: &str) -> Entry {
        let (seq, key, session) = (Seq::new(seq), Some(Key::new(key)), Some(session.into()));
        Entry { seq, bytes: 10, key, session, tombstone: false }
    }
}
