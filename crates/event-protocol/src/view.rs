//! The one fold, from events to what they are about: sessions, messages, parts, asks, usage, notices.
//!
//! Dashboard, terminal, export, search and tests all use it. Three things hold for it:
//! - It is total: no event makes it panic. A payload that is not understood stays as raw JSON, and is counted
//!   ([`SessionView::malformed`]).
//! - It is deterministic, and it keeps what the *last* event of each entity says. Order never comes from the place of
//!   an event in the log, but from ids and times that the agent server gave. Folding a compacted log so gives the same
//!   view as folding everything that was appended (promise P10).
//! - An event applied twice, or one from before what is folded already, changes nothing.

mod apply;
mod ask;
mod bound;
mod json;
mod message;
mod notice;
mod session;

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    Key, RawData, Seq, Timestamp,
    agent::{Exited, Failed, Started, State},
    model::Usage,
};

pub use ask::{Answer, AnsweredAsk, Ask, PendingAsk};
pub use message::{MessageView, PartView};
pub use notice::{Notice, NoticeBody};
pub use session::{SessionRef, TurnClosed};

/// What the events of one log say by now. Read it as a tree: [`roots`](Self::roots) →
/// [`messages`](SessionRef::messages) → [`parts`](MessageView::parts).
///
/// ```
/// use protocol::{NewEvent, Seq, Timestamp, view::SessionView};
/// # use gastown_event_protocol as protocol;
/// let delta = NewEvent {
///     time: Timestamp::from_unix_ms(0),
///     kind: "message.part.delta".into(),
///     session: Some("ses_1".into()),
///     data: protocol::RawData::from_json(
///         r#"{"sessionID":"ses_1","messageID":"msg_1","partID":"prt_1","field":"text","delta":"Hello"}"#,
///     )?,
/// };
/// let mut view = SessionView::default();
/// view.apply(&delta.at(Seq::new(1)));
/// let part = view.part("msg_1", "prt_1").expect("the delta made it");
/// assert_eq!(part.body().text(), Some("Hello"));
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Default)]
pub struct SessionView {
    seq: Seq,
    time: Option<Timestamp>,
    agent: AgentView,
    /// By session id.
    sessions: BTreeMap<Arc<str>, session::SessionEntry>,
    /// By message id, of all sessions: an event of a part names its message, but a tombstone need not name its session.
    messages: BTreeMap<Arc<str>, MessageView>,
    /// By key: `permission/<id>`, `question/<id>`, `network/<id>`.
    asks: BTreeMap<Key, ask::AskEntry>,
    /// By the key that was removed.
    removed: BTreeMap<Key, Removed>,
    /// In the order of the log.
    notices: Vec<Notice>,
}

/// What the wrapper says of the agent.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct AgentView {
    /// How it is.
    pub lifecycle: Lifecycle,
    /// More of its state, for people.
    pub detail: Option<String>,
    /// Its newest start.
    pub started: Option<Started>,
    /// What it cost, where the runtime says so of the whole agent.
    pub usage: Option<Usage>,
    /// The position of the last event that is in here.
    pub changed: Seq,
    /// Its newest status was not understood.
    status_malformed: bool,
    /// Its newest usage was not understood.
    usage_malformed: bool,
}

/// How an agent is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lifecycle {
    /// It has a server, or is about to get one.
    Running(State),
    /// It ended as it was meant to.
    Exited(Exited),
    /// It could not start, or its server died.
    Failed(Failed),
}

impl Default for Lifecycle {
    fn default() -> Self {
        Self::Running(State::Unknown)
    }
}

/// A newest statement: what one `replace` event said of an entity.
#[derive(Debug, Clone, PartialEq)]
pub struct Stated<T> {
    /// What was understood; the default if it is malformed.
    pub value: T,
    /// The JSON it was read from, byte for byte.
    pub raw: RawData,
    /// The position of the event.
    pub seq: Seq,
    /// The time of the event.
    pub time: Timestamp,
    /// Why it was not understood.
    pub malformed: Option<String>,
}

/// A tombstone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Removed {
    /// The position of the removal.
    pub seq: Seq,
    /// The session that what was removed belonged to.
    pub session: Option<Arc<str>>,
}

impl SessionView {
    /// The position of the last event folded; volatile events do not count.
    #[must_use]
    pub fn seq(&self) -> Seq {
        self.seq
    }

    /// The time of that event.
    #[must_use]
    pub fn time(&self) -> Option<Timestamp> {
        self.time
    }

    /// What the wrapper says of the agent.
    #[must_use]
    pub fn agent(&self) -> &AgentView {
        &self.agent
    }

    /// Every session, oldest first.
    #[must_use]
    pub fn sessions(&self) -> Vec<SessionRef<'_>> {
        session::all(self)
    }

    /// The sessions whose parent is not in this log, oldest first: the agent's own, as a rule one.
    #[must_use]
    pub fn roots(&self) -> Vec<SessionRef<'_>> {
        self.sessions().into_iter().filter(SessionRef::is_root).collect()
    }

    /// One session.
    #[must_use]
    pub fn session(&self, id: &str) -> Option<SessionRef<'_>> {
        session::one(self, id)
    }

    /// One message, of whichever session.
    #[must_use]
    pub fn message(&self, id: &str) -> Option<&MessageView> {
        self.messages.get(id)
    }

    /// One part.
    #[must_use]
    pub fn part(&self, message: &str, part: &str) -> Option<&PartView> {
        self.messages.get(message)?.part(part)
    }

    /// What waits for a person, oldest first.
    #[must_use]
    pub fn pending(&self) -> Vec<&PendingAsk> {
        ask::pending(&self.asks)
    }

    /// What a person was asked and answered, oldest answer first. What the question was comes from the answer's own event,
    /// which makes the question's obsolete.
    #[must_use]
    pub fn answered(&self) -> Vec<&AnsweredAsk> {
        ask::answered(&self.asks)
    }

    /// Whether an ask of this id waits: `permission/<id>`, `question/<id>`, `network/<id>`.
    #[must_use]
    pub fn ask(&self, key: &Key) -> Option<&PendingAsk> {
        self.asks.get(key).and_then(ask::AskEntry::pending)
    }

    /// Errors, starts, ends, losses, gaps and what a wrapper did for its agent, in the order of the log. A retry is not
    /// among them: it is the session's status for as long as it lasts.
    #[must_use]
    pub fn notices(&self) -> &[Notice] {
        &self.notices
    }

    /// The notice that tells the end of what this one says was begun, if it is there.
    #[must_use]
    pub fn end_of(&self, begun: &Notice) -> Option<&Notice> {
        let mut later = self.notices.iter().skip_while(|notice| *notice != begun);
        later.find(|later| later.body.ends(&begun.body))
    }

    /// What was removed, by key. What lies below a removed key has no tombstone of its own.
    pub fn removed(&self) -> impl Iterator<Item = (&Key, &Removed)> {
        self.removed.iter()
    }

    /// What all sessions cost together, or what the runtime says of the whole agent.
    #[must_use]
    pub fn usage(&self) -> Usage {
        self.agent.usage.unwrap_or_else(|| {
            let mut sum = Usage::default();
            for session in self.sessions() {
                sum += session.usage();
            }
            sum
        })
    }

    /// How many payloads were not understood.
    #[must_use]
    pub fn malformed(&self) -> usize {
        let sessions: usize = self.sessions.values().map(session::SessionEntry::malformed).sum();
        let messages: usize = self.messages.values().map(MessageView::malformed).sum();
        let asks = self.asks.values().filter(|entry| entry.is_malformed()).count();
        let notices = self.notices.iter().filter(|notice| notice.is_malformed()).count();
        let agent = usize::from(self.agent.status_malformed) + usize::from(self.agent.usage_malformed);
        sessions + messages + asks + notices + agent
    }

    /// Begins anew after a gap, which it notes: what was folded may rest on events that are lost (§5).
    pub fn restart_after_gap(&mut self, gap: NoticeBody, time: Timestamp) {
        let notice = Notice { seq: self.seq, time, session: None, body: gap };
        *self = Self { notices: vec![notice], ..Self::default() };
    }
}

#[cfg(test)]
mod tests;
