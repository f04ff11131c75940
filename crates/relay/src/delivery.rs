//! What a reader of one log is told, whichever way it reads.

use std::sync::Arc;

use protocol::{
    Epoch, Event, Seq, Timestamp,
    frame::{GapReason, WrapperPresence},
};

/// One step of following a log: the frames of the viewer stream (§5), less the log's name.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Delivery {
    /// The subscription begins, or begins again after a reconnect.
    Subscribed {
        /// The log's incarnation.
        epoch: Epoch,
        /// What lies at or below this was pruned.
        floor: Seq,
        /// The newest position.
        head: Seq,
    },
    /// The next event.
    Event(Arc<Event>),
    /// Events that can no longer be had: drop what was folded so far, and go on from the events that follow.
    Gap {
        /// First position lost; `None` for [`GapReason::Epoch`].
        from: Option<Seq>,
        /// Last position lost; `None` for [`GapReason::Epoch`].
        to: Option<Seq>,
        /// Why.
        reason: GapReason,
    },
    /// Once: history has been delivered up to the head at subscribe time.
    Live {
        /// That head.
        head: Seq,
    },
    /// Whether a wrapper is connected. Not part of the log.
    Presence {
        /// The wrapper's link.
        wrapper: WrapperPresence,
        /// Since when.
        since: Timestamp,
    },
    /// The agent has ended; the log stays readable, and may go on.
    Ended {
        /// Why, as the agent's last outcome says.
        reason: String,
    },
}
