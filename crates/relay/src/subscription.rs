//! Following one log from a cursor: the rules of §5, whichever transport carries it.
//!
//! A subscription holds a position and no events. Its driver opens it with the log's bounds, then brings it what comes
//! after [`Subscription::position`], from the hot tail or from the store, and passes on the [`Item`]s it gets back.

use std::sync::Arc;

use protocol::{
    Epoch, LogId, Seq,
    frame::{GapReason, StartAt},
};
use store::Bounds;

use crate::{EncodedPage, Segment, filter::TypeFilter};

/// One reader of one log.
#[derive(Debug)]
pub struct Subscription {
    log: LogId,
    filter: TypeFilter,
    state: State,
    /// Why the agent ended, if that was its last word so far: said when the reader has caught up.
    ended: Option<Arc<str>>,
}

#[derive(Debug)]
enum State {
    Opening(Option<StartAt>),
    Following {
        epoch: Epoch,
        /// Everything up to this has been delivered.
        position: Seq,
        /// The head at subscribe time, until `live` has been said.
        live_at: Option<Seq>,
    },
}

/// What a reader is to be told next.
#[derive(Debug, Clone)]
pub enum Item {
    /// The subscription begins.
    Subscribed(Bounds),
    /// Events that can no longer be had.
    Gap {
        /// First position lost.
        from: Option<Seq>,
        /// Last position lost.
        to: Option<Seq>,
        /// Why.
        reason: GapReason,
    },
    /// Events.
    Events(Segment),
    /// History has been delivered up to this head.
    Live(Seq),
    /// The agent has ended.
    Ended(Arc<str>),
}

impl Subscription {
    /// A reader of `log`: after a cursor, from the head on, or (`None`) from the beginning of what is kept.
    #[must_use]
    pub fn new(log: LogId, from: Option<StartAt>, filter: TypeFilter) -> Self {
        Self { log, filter, state: State::Opening(from), ended: None }
    }

    /// The log.
    #[must_use]
    pub fn log(&self) -> &LogId {
        &self.log
    }

    /// Everything up to this has been delivered; `None` before it is open.
    #[must_use]
    pub fn position(&self) -> Option<(&Epoch, Seq)> {
        match &self.state {
            State::Opening(_) => None,
            State::Following { epoch, position, .. } => Some((epoch, *position)),
        }
    }

    /// The log is there, with these bounds.
    ///
    /// # Panics
    /// When it is open already.
    pub fn open(&mut self, bounds: Bounds) -> Vec<Item> {
        let State::Opening(from) = &mut self.state else { panic!("a subscription is opened once") };
        let (position, gap) = start(from.take(), &bounds);
        let mut items = vec![Item::Subscribed(bounds.clone())];
        items.extend(gap);
        self.state = State::Following { epoch: bounds.epoch, position, live_at: Some(bounds.head) };
        items.extend(self.caught_up());
        items
    }

    /// What the store has after the position.
    ///
    /// # Panics
    /// When it is not open.
    pub fn page(&mut self, page: &EncodedPage) -> Vec<Item> {
        let EncodedPage { bounds, segment, more } = page;
        if let Some(gap) = self.recreated(bounds) {
            // The page was read after a position of the other incarnation: it is read again from the beginning.
            return vec![gap];
        }
        let mut items = Vec::new();
        let State::Following { position, .. } = &mut self.state else { panic!("{NOT_OPEN}") };
        if bounds.floor > *position {
            items.push(pruned(*position, bounds.floor));
            *position = bounds.floor;
        }
        let after = *position;
        let upto = if *more { segment.as_ref().map_or(after, Segment::last) } else { bounds.head };
        if let Some(segment) = segment {
            self.deliver(segment, after, &mut items);
        }
        self.advance(upto, &mut items);
        items
    }

    /// What the hot tail has after the position (see [`crate::tail::Tail::after`]).
    ///
    /// # Panics
    /// When it is not open.
    pub fn segment(&mut self, segment: &Segment) -> Vec<Item> {
        let mut items = Vec::new();
        let State::Following { position, .. } = &self.state else { panic!("{NOT_OPEN}") };
        self.deliver(segment, *position, &mut items);
        self.advance(segment.last(), &mut items);
        items
    }

    /// The log was removed and made again: nothing of what the reader has is true of it.
    fn recreated(&mut self, found: &Bounds) -> Option<Item> {
        let State::Following { epoch, position, .. } = &mut self.state else { panic!("{NOT_OPEN}") };
        if *epoch == found.epoch {
            return None;
        }
        *epoch = found.epoch.clone();
        *position = found.floor;
        self.ended = None;
        Some(Item::Gap { from: None, to: None, reason: GapReason::Epoch })
    }

    fn deliver(&mut self, segment: &Segment, after: Seq, items: &mut Vec<Item>) {
        if let Some(word) = segment.last_word().filter(|word| word.seq > after) {
            self.ended.clone_from(&word.ended);
        }
        items.extend(segment.narrowed(&self.log, after, &self.filter).map(Item::Events));
    }

    fn advance(&mut self, upto: Seq, items: &mut Vec<Item>) {
        let State::Following { position, .. } = &mut self.state else { panic!("{NOT_OPEN}") };
        *position = upto.max(*position);
        items.extend(self.caught_up());
    }

    fn caught_up(&mut self) -> Vec<Item> {
        let mut items = Vec::new();
        let State::Following { position, live_at, .. } = &mut self.state else { panic!("{NOT_OPEN}") };
        if live_at.is_some_and(|head| *position >= head) {
            items.extend(live_at.take().map(Item::Live));
        }
        if live_at.is_none() {
            items.extend(self.ended.take().map(Item::Ended));
        }
        items
    }
}

const NOT_OPEN: &str = "a subscription is opened before it is fed";

/// Where a reader starts, and the gap before that.
fn start(from: Option<StartAt>, bounds: &Bounds) -> (Seq, Option<Item>) {
    match from {
        None => (bounds.floor, None),
        Some(StartAt::Head) => (bounds.head, None),
        Some(StartAt::After(cursor)) if cursor.epoch != bounds.epoch => {
            (bounds.floor, Some(Item::Gap { from: None, to: None, reason: GapReason::Epoch }))
        }
        Some(StartAt::After(cursor)) if cursor.seq > bounds.head => {
            let (from, to) = (Some(bounds.head.next()), Some(cursor.seq));
            (bounds.floor, Some(Item::Gap { from, to, reason: GapReason::Ahead }))
        }
        Some(StartAt::After(cursor)) if cursor.seq < bounds.floor => {
            (bounds.floor, Some(pruned(cursor.seq, bounds.floor)))
        }
        Some(StartAt::After(cursor)) => (cursor.seq, None),
    }
}

fn pruned(position: Seq, floor: Seq) -> Item {
    Item::Gap { from: Some(position.next()), to: Some(floor), reason: GapReason::Pruned }
}

#[cfg(test)]
mod tests;
