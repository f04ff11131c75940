//! Asks of a view: what waits for a person, and what a person said.

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    Key, RawData, Seq, Timestamp,
    model::{Network, Permission, Question},
};

/// Something that waits for a person.
#[derive(Debug, Clone, PartialEq)]
pub struct PendingAsk {
    /// Its id.
    pub id: Arc<str>,
    /// The session that asks.
    pub session: Option<Arc<str>>,
    /// The position of the event that asked.
    pub seq: Seq,
    /// The time of that event.
    pub time: Timestamp,
    /// What is asked.
    pub ask: Ask,
    /// The event's payload.
    pub raw: RawData,
    /// Why it was not understood; the ask is empty then.
    pub malformed: Option<String>,
}

/// What is asked.
#[derive(Debug, Clone, PartialEq)]
pub enum Ask {
    /// May I?
    Permission(Permission),
    /// What do you want?
    Question(Question),
    /// The provider cannot be reached: go on?
    Network(Network),
}

/// Something that a person was asked and answered.
#[derive(Debug, Clone, PartialEq)]
pub struct AnsweredAsk {
    /// Its id.
    pub id: Arc<str>,
    /// The session that asked.
    pub session: Option<Arc<str>>,
    /// The position of the event that said so.
    pub seq: Seq,
    /// The time of that event.
    pub time: Timestamp,
    /// What was asked, where the answer's event says so: wrappers put it there, since the answer makes the question's own
    /// event obsolete (§3).
    pub asked: Option<Ask>,
    /// What was answered.
    pub answer: Answer,
    /// The event's payload.
    pub raw: RawData,
    /// Why it was not understood; the answer is empty then.
    pub malformed: Option<String>,
}

/// What was answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// A permission: `once`, `always`, `reject`, or another word of a newer server.
    Permission(String),
    /// A question: for each of its questions the answers.
    Question(Vec<Vec<String>>),
    /// A question was declined.
    QuestionRejected,
    /// The session tries the provider again.
    NetworkReplied,
    /// The session gives the provider up.
    NetworkRejected,
}

/// One of the two.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum AskEntry {
    Pending(PendingAsk),
    Answered(AnsweredAsk),
}

impl AskEntry {
    pub(super) fn pending(&self) -> Option<&PendingAsk> {
        if let Self::Pending(ask) = self { Some(ask) } else { None }
    }

    pub(super) fn answered(&self) -> Option<&AnsweredAsk> {
        if let Self::Answered(ask) = self { Some(ask) } else { None }
    }

    pub(super) fn session(&self) -> Option<&Arc<str>> {
        match self {
            Self::Pending(ask) => ask.session.as_ref(),
            Self::Answered(ask) => ask.session.as_ref(),
        }
    }

    pub(super) fn is_malformed(&self) -> bool {
        match self {
            Self::Pending(ask) => ask.malformed.is_some(),
            Self::Answered(ask) => ask.malformed.is_some(),
        }
    }
}

impl PendingAsk {
    /// The permission, if it is one.
    #[must_use]
    pub fn permission(&self) -> Option<&Permission> {
        if let Ask::Permission(permission) = &self.ask { Some(permission) } else { None }
    }

    /// The question, if it is one.
    #[must_use]
    pub fn question(&self) -> Option<&Question> {
        if let Ask::Question(question) = &self.ask { Some(question) } else { None }
    }

    /// The network ask, if it is one.
    #[must_use]
    pub fn network(&self) -> Option<&Network> {
        if let Ask::Network(network) = &self.ask { Some(network) } else { None }
    }

    /// Its key in the log.
    #[must_use]
    pub fn key(&self) -> Key {
        let kind = match self.ask {
            Ask::Permission(_) => "permission",
            Ask::Question(_) => "question",
            Ask::Network(_) => "network",
        };
        Key::new(&format!("{kind}/{}", self.id))
    }
}

pub(super) fn pending(asks: &BTreeMap<Key, AskEntry>) -> Vec<&PendingAsk> {
    let mut pending: Vec<_> = asks.values().filter_map(AskEntry::pending).collect();
    pending.sort_by_key(|ask| ask.seq);
    pending
}

pub(super) fn answered(asks: &BTreeMap<Key, AskEntry>) -> Vec<&AnsweredAsk> {
    let mut answered: Vec<_> = asks.values().filter_map(AskEntry::answered).collect();
    answered.sort_by_key(|ask| ask.seq);
    answered
}
