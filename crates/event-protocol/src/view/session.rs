//! Sessions of a view.

use std::{collections::BTreeSet, sync::Arc};

use serde::Deserialize;

use super::{MessageView, SessionView, Stated};
use crate::{
    RawData, Seq, Timestamp,
    model::{Session, SessionStatus, Todo, Usage},
};

/// One session of a view: a cheap handle.
#[derive(Debug, Clone, Copy)]
pub struct SessionRef<'v> {
    view: &'v SessionView,
    id: &'v Arc<str>,
    /// Absent if the log holds nothing but messages of it.
    entry: Option<&'v SessionEntry>,
}

/// What is known of a session beside its messages.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct SessionEntry {
    pub(super) info: Option<Stated<Session>>,
    pub(super) status: Option<Stated<SessionStatus>>,
    pub(super) turn_open: bool,
    pub(super) closed: Option<TurnClosed>,
    pub(super) todos: Option<Stated<Vec<Todo>>>,
    pub(super) queue: Option<Stated<Vec<String>>>,
    pub(super) diff: Option<Stated<()>>,
    pub(super) changed: Seq,
    /// What the messages cost that the view has let go of.
    pub(super) let_go: Usage,
}

/// How the last turn ended (`session.turn.close`, kilo).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct TurnClosed {
    /// `completed`, `interrupted`, `error`.
    #[serde(default)]
    pub reason: String,
    /// The position of the event.
    #[serde(skip)]
    pub seq: Seq,
    /// The time of the event.
    #[serde(skip)]
    pub time: Timestamp,
}

/// Every session, oldest first.
pub(super) fn all(view: &SessionView) -> Vec<SessionRef<'_>> {
    let ids: BTreeSet<&Arc<str>> =
        view.sessions.keys().chain(view.messages.values().filter_map(MessageView::session)).collect();
    let mut all: Vec<_> =
        ids.into_iter().map(|id| SessionRef { view, id, entry: view.sessions.get(id) }).collect();
    all.sort_by(|a, b| a.order().cmp(&b.order()));
    all
}

/// One session.
pub(super) fn one<'v>(view: &'v SessionView, id: &str) -> Option<SessionRef<'v>> {
    if let Some((id, entry)) = view.sessions.get_key_value(id) {
        return Some(SessionRef { view, id, entry: Some(entry) });
    }
    let id = view.messages.values().filter_map(MessageView::session).find(|session| &***session == id)?;
    Some(SessionRef { view, id, entry: None })
}

impl<'v> SessionRef<'v> {
    /// Its id.
    #[must_use]
    pub fn id(&self) -> &'v Arc<str> {
        self.id
    }

    /// How the server describes it; absent until it did.
    #[must_use]
    pub fn info(&self) -> Option<&'v Session> {
        self.entry?.info.as_ref().map(|info| &info.value)
    }

    /// The same as the server wrote it.
    #[must_use]
    pub fn raw_info(&self) -> Option<&'v RawData> {
        self.entry?.info.as_ref().map(|info| &info.raw)
    }

    /// The session that started it as a sub-agent, whether it is in this log or not.
    #[must_use]
    pub fn parent_id(&self) -> Option<&'v str> {
        self.info()?.parent_id.as_deref()
    }

    /// Whether it has no parent in this log.
    #[must_use]
    pub fn is_root(&self) -> bool {
        self.parent_id().is_none_or(|parent| parent == &**self.id || !self.view.sessions.contains_key(parent))
    }

    /// The sessions it started, oldest first.
    #[must_use]
    pub fn children(&self) -> Vec<Self> {
        let is_child = |session: &Self| session.parent_id() == Some(&**self.id) && session.id != self.id;
        all(self.view).into_iter().filter(is_child).collect()
    }

    /// Its messages, oldest first: by the time they were made, then by id, as the servers list them.
    #[must_use]
    pub fn messages(&self) -> Vec<&'v MessageView> {
        let mut messages: Vec<_> =
            self.view.messages.values().filter(|message| message.session() == Some(self.id)).collect();
        messages.sort_by(|a, b| a.order().cmp(&b.order()));
        messages
    }

    /// What it does just now; idle if nothing was said.
    #[must_use]
    pub fn status(&self) -> &'v SessionStatus {
        self.entry
            .and_then(|entry| entry.status.as_ref())
            .map_or(&SessionStatus::Idle, |status| &status.value)
    }

    /// Whether a turn runs: it was opened, or work was reported, and it has neither been closed nor gone idle since.
    #[must_use]
    pub fn is_turn_open(&self) -> bool {
        self.entry.is_some_and(|entry| entry.turn_open)
    }

    /// How its last turn ended, on servers that say so.
    #[must_use]
    pub fn closed(&self) -> Option<&'v TurnClosed> {
        self.entry?.closed.as_ref()
    }

    /// Its to-do list.
    #[must_use]
    pub fn todos(&self) -> &'v [Todo] {
        self.entry.and_then(|entry| entry.todos.as_ref()).map_or(&[], |todos| &todos.value)
    }

    /// The position of the last `todo.updated`; zero if there was none.
    #[must_use]
    pub fn todos_changed(&self) -> Seq {
        self.entry.and_then(|entry| entry.todos.as_ref()).map_or(Seq::ZERO, |todos| todos.seq)
    }

    /// The messages that wait for the turn to end, by id, next first (`session.queue.changed`, kilo).
    #[must_use]
    pub fn queued(&self) -> &'v [String] {
        self.entry.and_then(|entry| entry.queue.as_ref()).map_or(&[], |queue| &queue.value)
    }

    /// What its turn changed in the files, as the server says it (`session.diff`); empty on all servers seen.
    #[must_use]
    pub fn diff(&self) -> Option<&'v RawData> {
        self.entry?.diff.as_ref().map(|diff| &diff.raw)
    }

    /// The position of the last event that speaks of the session itself; zero if there was none.
    #[must_use]
    pub fn changed(&self) -> Seq {
        self.entry.map_or(Seq::ZERO, |entry| entry.changed)
    }

    /// What it cost, without its children: what the server says, else the sum of its messages.
    #[must_use]
    pub fn usage(&self) -> Usage {
        if let Some(Session { tokens: Some(tokens), cost, .. }) = self.info() {
            return Usage { tokens: *tokens, cost: cost.unwrap_or(0.0) };
        }
        let mut sum = self.entry.map_or_else(Usage::default, |entry| entry.let_go);
        for message in self.messages() {
            sum += message.info().map(crate::model::Message::usage).unwrap_or_default();
        }
        sum
    }

    /// What it cost, with its children and theirs.
    #[must_use]
    pub fn total_usage(&self) -> Usage {
        let mut sum = Usage::default();
        for session in self.with_descendants() {
            sum += session.usage();
        }
        sum
    }

    /// How full the model's context is: the tokens of the newest message that was answered; zero before the first.
    #[must_use]
    pub fn context_tokens(&self) -> u64 {
        let used = |message: &&MessageView| message.info().map_or(0, |info| info.usage().tokens.total());
        self.messages().iter().rev().map(used).find(|tokens| *tokens > 0).unwrap_or(0)
    }

    /// This session, its children, theirs, and so on, each once even if parents form a ring.
    #[must_use]
    pub fn with_descendants(&self) -> Vec<Self> {
        let all = all(self.view);
        let mut found = vec![*self];
        let mut next = 0;
        while next < found.len() {
            let parent = Some(&**found[next].id);
            for session in &all {
                if session.parent_id() == parent && found.iter().all(|known| known.id != session.id) {
                    found.push(*session);
                }
            }
            next += 1;
        }
        found
    }

    /// By the time it was made, those that do not say last; then by id.
    fn order(&self) -> (bool, Option<Timestamp>, &'v Arc<str>) {
        let created = self.info().and_then(|info| info.time.created);
        (created.is_none(), created, self.id)
    }
}

impl SessionEntry {
    /// How many statements of it were not understood.
    pub(super) fn malformed(&self) -> usize {
        [
            self.info.as_ref().is_some_and(Stated::is_malformed),
            self.status.as_ref().is_some_and(Stated::is_malformed),
            self.todos.as_ref().is_some_and(Stated::is_malformed),
            self.queue.as_ref().is_some_and(Stated::is_malformed),
        ]
        .into_iter()
        .filter(|malformed| *malformed)
        .count()
    }
}

impl<T> Stated<T> {
    /// Whether it was not understood.
    #[must_use]
    pub fn is_malformed(&self) -> bool {
        self.malformed.is_some()
    }
}
