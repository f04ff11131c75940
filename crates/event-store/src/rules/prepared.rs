//! What can be done with an append before it has a place: whoever asks for it does that, not the one thread that writes.

use std::sync::Arc;

use protocol::{Classified, Effect, Key, NewEvent, Seq, Unplaced};

use super::Stored;
use crate::{Append, ProducerBatch, Record};

/// An append whose events are classified and encoded.
#[derive(Debug, Clone)]
pub(crate) struct Prepared {
    pub(crate) events: Vec<PreparedEvent>,
    pub(crate) producer: Option<ProducerBatch>,
    pub(crate) expect: Option<Seq>,
}

/// An event that has everything but its position.
#[derive(Debug, Clone)]
pub(crate) struct PreparedEvent {
    pub(crate) key: Option<Key>,
    /// What it does to earlier events with that key.
    pub(crate) effect: Effect,
    event: NewEvent,
    envelope: Unplaced,
}

impl Prepared {
    pub(crate) fn of(append: Append) -> Self {
        let Append { events, producer, expect } = append;
        Self { events: events.into_iter().map(PreparedEvent::of).collect(), producer, expect }
    }

    /// Bytes of the events' payloads.
    #[cfg_attr(not(feature = "sqlite"), expect(dead_code, reason = "only a writer of groups goes by it"))]
    pub(crate) fn bytes(&self) -> usize {
        self.events.iter().map(PreparedEvent::bytes).sum()
    }
}

impl PreparedEvent {
    pub(crate) fn of(event: NewEvent) -> Self {
        let Classified { key, effect, class: _ } = event.classify();
        let envelope = Unplaced::of(&event, key.as_ref());
        Self { key, effect, event, envelope }
    }

    /// The event as its producer sent it.
    pub(crate) fn event(&self) -> &NewEvent {
        &self.event
    }

    /// Bytes of its payload.
    pub(crate) fn bytes(&self) -> usize {
        self.event.data.json().len()
    }

    /// The event at its position.
    pub(crate) fn at(&self, seq: Seq) -> Stored {
        let Self { key, effect, event, envelope } = self;
        let (kind, session) = (Arc::clone(&event.kind), event.session.clone());
        let record = Record { seq, kind, key: key.clone(), envelope: envelope.at(seq) };
        Stored { record, session, tombstone: *effect == Effect::Remove }
    }
}
