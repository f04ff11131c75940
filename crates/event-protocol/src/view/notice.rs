//! Notices of a view: what happened, rather than what is.

use std::sync::Arc;

use crate::{
    Seq, Timestamp,
    agent::{
        AfterTurnFailed, AutoCommitCompleted, AutoCommitStarted, Done, EventsDropped, Exited, Failed, Lost,
        Resumed, SessionRecreated, Skipped, Started, WorkspaceReady,
    },
    frame::GapReason,
    model::MessageError,
};

/// Something that happened, at its place in the log.
#[derive(Debug, Clone, PartialEq)]
pub struct Notice {
    /// The position of its event; of a gap: the last position before it.
    pub seq: Seq,
    /// The time of its event.
    pub time: Timestamp,
    /// The session it concerns.
    pub session: Option<Arc<str>>,
    /// What happened.
    pub body: NoticeBody,
}

/// What happened.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum NoticeBody {
    /// A session reported an error (`session.error`); an abort is one too.
    Error(MessageError),
    /// The agent's server is up.
    Started(Started),
    /// The agent ended as it was meant to.
    Exited(Exited),
    /// The agent could not start, or its server died.
    Failed(Failed),
    /// The agent says that its work is done.
    Done(Done),
    /// A wrapper took the agent up again.
    Resumed(Resumed),
    /// The session that was to go on was gone; another one is in its place.
    SessionRecreated(SessionRecreated),
    /// The agent's work tree is there.
    WorkspaceReady(WorkspaceReady),
    /// What a turn changed is being committed.
    AutoCommitStarted(AutoCommitStarted),
    /// It is committed.
    AutoCommitCompleted(AutoCommitCompleted),
    /// There was nothing to commit, or it was not to be.
    AutoCommitSkipped(Skipped),
    /// It could not be committed.
    AutoCommitFailed(AfterTurnFailed),
    /// The agent condenses its session.
    CondenseStarted,
    /// The session is condensed.
    CondenseCompleted,
    /// The session was not to be condensed.
    CondenseSkipped(Skipped),
    /// The session could not be condensed.
    CondenseFailed(AfterTurnFailed),
    /// Nothing was heard of the wrapper for too long.
    Lost(Lost),
    /// The wrapper could not keep events.
    EventsDropped(EventsDropped),
    /// Events that can no longer be had.
    Gap {
        /// The first position lost, where it is known.
        from: Option<Seq>,
        /// The last position lost, where it is known.
        to: Option<Seq>,
        /// Why.
        reason: GapReason,
    },
    /// A payload that was not understood and speaks of nothing in particular.
    Malformed {
        /// The event's type.
        kind: Arc<str>,
        /// What is wrong with it.
        reason: String,
    },
}

impl NoticeBody {
    /// Whether this is the end of what `begun` says was begun.
    #[must_use]
    pub fn ends(&self, begun: &Self) -> bool {
        matches!(
            (begun, self),
            (
                Self::AutoCommitStarted(_),
                Self::AutoCommitCompleted(_) | Self::AutoCommitSkipped(_) | Self::AutoCommitFailed(_)
            ) | (
                Self::CondenseStarted,
                Self::CondenseCompleted | Self::CondenseSkipped(_) | Self::CondenseFailed(_)
            )
        )
    }
}

impl Notice {
    pub(super) fn is_malformed(&self) -> bool {
        matches!(self.body, NoticeBody::Malformed { .. })
    }
}
