//! Which events a log keeps, by position and by key: what compaction and pruning go by.

use std::{
    collections::{HashMap, VecDeque},
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
/// pruned positions, which are swept together with the dead.
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

    /// The same key, sharing its text with the index where it is known there.
    pub(crate) fn interned(&self, key: Key) -> Key {
        self.by_key.get_key_value(&key).map_or(key, |(known, _)| known.clone())
    }

    /// Adds an event above all others.
    pub(crate) fn push(&mut self, mut entry: Entry) {
        self.events += 1;
        self.bytes += u64::from(entry.bytes);
        if !self.all && entry.key.is_none() && entry.session.is_none() {
            return;
        }
        if let Some(key) = entry.key.take() {
            let key = self.interned(key);
            // Only a removal makes a tombstone obsolete: it covers more than its own key, and a reader whose cursor is
            // before it still has to hear of the rest.
            if !entry.tombstone {
                self.by_key.entry(key.clone()).or_default().push(entry.seq);
            }
            entry.key = Some(key);
        }
        if let Some(last) = self.entries.back()
            && last.entry.session == entry.session
        {
            entry.session = last.entry.session.clone();
        }
        self.entries.push_back(Slot { entry, alive: true });
        self.since_sweep += 1;
        if self.since_sweep > self.entries.len() / 2 + 64 {
            self.sweep();
        }
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
        for at in 0..self.entries.len() {
            let entry = &self.entries[at].entry;
            let is_covered = entry.key.as_ref().is_some_and(|other| key.covers(other));
            if is_covered || (session.is_some() && entry.session.as_deref() == session) {
                self.kill(at, obsolete);
            }
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

    /// Lets go of dead entries once they are the larger part.
    fn drop_dead(&mut self) {
        if self.dead > 64 && self.dead * 2 > self.entries.len() {
            self.entries.retain(|slot| slot.alive);
            self.dead = 0;
        }
    }

    /// Lets go of keys of which nothing is left.
    fn sweep(&mut self) {
        self.since_sweep = 0;
        let oldest = self.entries.front().map_or(Seq::ZERO, |slot| slot.entry.seq);
        self.by_key.retain(|_, seqs| seqs.last().is_some_and(|last| *last >= oldest));
    }
}
