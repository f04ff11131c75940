//! The difference between what an agent server says by now and what was emitted.

use std::collections::{BTreeMap, BTreeSet};

use protocol::{
    NewEvent, Timestamp,
    view::{MessageView, PartView, SessionView},
};
use serde_json::{Value, json};

use super::{cancelled, event, idle_status, is_unfinished, unfinished};
use crate::{runtime::ServerState, session_tree::SessionTree};

/// What a fold knows of the past.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Known {
    /// What the log has.
    Log,
    /// What was said since this run of the wrapper began: the log could not be read yet.
    ThisRun,
}

/// The events that bring the fold to what the server says: what is new or different, then what is gone, then asks, then what was
/// broken off, then status.
///
/// A server stores a text only when it ends. A text that was streamed and has not ended there is therefore never replaced by the
/// shorter one that the server has, nor is an empty one told where nothing runs that could go on with it. And it does not know that
/// what its death broke off has ended: that is not opened again.
///
/// Events come in the order in which things happen, so what was missed is newer than whatever was heard. What is older and not in the
/// fold was told long ago, and the log has let go of it: it is not told again, which would push newer things out.
pub(crate) fn catch_up(
    view: &SessionView,
    known: Known,
    state: &ServerState,
    tree: &mut SessionTree,
    time: Timestamp,
) -> Vec<NewEvent> {
    for info in &state.sessions {
        text(info, "id").into_iter().for_each(|id| tree.learn(id, text(info, "parentID")));
    }
    let now = Comparison::of(view, known, state, tree, time);
    let mut events = now.sessions();
    events.extend(now.removed_sessions());
    let mut there = BTreeSet::new();
    for (place, message) in state.messages.iter().enumerate() {
        events.extend(now.message_and_parts(place, message, &mut there));
    }
    events.extend(removed_messages(view, state, tree, time, &there));
    events.extend(asks(view, state, tree, time));
    let mut view = with(view.clone(), &events);
    // Nothing goes on in an idle session: what is unfinished there was broken off by the death of a server, unheard.
    let broken = unfinished(&view, time, |session, _| is_told(state, session) && is_idle(state, session));
    view = with(view, &broken);
    events.extend(broken);
    events.extend(statuses(&view, state, tree, time));
    events
}

/// A fold, and what the server says by now.
struct Comparison<'c> {
    view: &'c SessionView,
    known: Known,
    state: &'c ServerState,
    tree: &'c SessionTree,
    time: Timestamp,
    /// The place of each session's last message that the fold knows.
    last: BTreeMap<&'c str, usize>,
    /// When the newest message of the root session was made that the fold knows.
    newest: Option<i64>,
}

/// Whether the newest message of a session is no user's that waits for an answer.
pub(crate) fn is_answered(state: &ServerState, session: &str) -> bool {
    let of_session = |message: &&Value| text(&message["info"], "sessionID") == Some(session);
    let newest = state.messages.iter().rfind(of_session);
    newest.is_none_or(|message| text(&message["info"], "role") != Some("user"))
}

/// The fold with these as well.
fn with(mut view: SessionView, events: &[NewEvent]) -> SessionView {
    for event in events {
        view.apply(&event.clone().at(view.seq().next()));
    }
    view
}

/// Whether the server has a session.
pub(crate) fn is_told(state: &ServerState, session: &str) -> bool {
    state.sessions.iter().any(|info| text(info, "id") == Some(session))
}

/// Whether the server says that nothing runs in a session.
pub(crate) fn is_idle(state: &ServerState, session: &str) -> bool {
    state.status.get(session).is_none_or(|status| text(status, "type") == Some("idle"))
}

impl<'c> Comparison<'c> {
    fn of(
        view: &'c SessionView,
        known: Known,
        state: &'c ServerState,
        tree: &'c SessionTree,
        time: Timestamp,
    ) -> Self {
        let infos = state.messages.iter().map(|message| &message["info"]).enumerate();
        let last = infos
            .filter(|(_, info)| text(info, "id").is_some_and(|id| view.message(id).is_some()))
            .filter_map(|(place, info)| Some((text(info, "sessionID")?, place)))
            .collect();
        let root = tree.root().and_then(|root| view.session(root));
        let of_root = root.map(|root| root.messages()).unwrap_or_default();
        let newest = of_root.into_iter().filter_map(created).max();
        Self { view, known, state, tree, time, last, newest }
    }

    fn sessions(&self) -> Vec<NewEvent> {
        let mut events = Vec::new();
        for info in &self.state.sessions {
            let Some(id) = text(info, "id").filter(|id| self.tree.holds(id)) else { continue };
            let known = self.view.session(id).and_then(|session| session.raw_info());
            let is_told = known.is_some() || self.tree.root() == Some(id) || self.last.contains_key(id);
            if (is_told || self.is_newest(info)) && !same(known, info) {
                let kind = if known.is_some() { "session.updated" } else { "session.created" };
                events.push(event(self.time, kind, id, &json!({ "sessionID": id, "info": info })));
            }
        }
        events
    }

    /// Sub-agents that the server no longer has.
    fn removed_sessions(&self) -> Vec<NewEvent> {
        let of_agent = self.view.sessions().into_iter().filter(|session| self.tree.holds(session.id()));
        let gone = of_agent.filter(|session| !is_told(self.state, session.id()));
        gone.map(|session| {
            let id = &**session.id();
            let info = session.raw_info().and_then(|info| info.parse::<Value>().ok());
            let info = info.unwrap_or_else(|| json!({ "id": id }));
            event(self.time, "session.deleted", id, &json!({ "sessionID": id, "info": info }))
        })
        .collect()
    }

    fn message_and_parts(
        &self,
        place: usize,
        message: &Value,
        there: &mut BTreeSet<String>,
    ) -> Vec<NewEvent> {
        let mut events = Vec::new();
        let info = &message["info"];
        let (Some(id), Some(session)) = (text(info, "id"), text(info, "sessionID")) else { return events };
        if !self.tree.holds(session) {
            return events;
        }
        there.insert(id.to_owned());
        let known = self.view.message(id);
        if known.is_none() && !self.is_new(place, session, info) {
            return events;
        }
        let was_ended = known.and_then(MessageView::info).is_some_and(|known| known.time.completed.is_some());
        let is_opened_again = was_ended && info["time"]["completed"].is_null();
        if !same(known.and_then(MessageView::raw_info), info) && !is_opened_again {
            let data = json!({ "sessionID": session, "info": info });
            events.push(event(self.time, "message.updated", session, &data));
        }
        let has_new_parts =
            known.is_none_or(|known| is_unfinished(known) || self.last.get(session) == Some(&place));
        let no_parts = Vec::new();
        let parts = message["parts"].as_array().unwrap_or(&no_parts);
        for part in parts {
            let Some(part_id) = text(part, "id") else { continue };
            let is_news = match known.and_then(|known| known.part(part_id)) {
                Some(known) => is_news(known, part),
                None => has_new_parts && !(is_begun_text(part) && is_idle(self.state, session)),
            };
            if is_news {
                let data = json!({ "sessionID": session, "part": part });
                events.push(event(self.time, "message.part.updated", session, &data));
            }
        }
        let gone = |known: &&PartView| parts.iter().all(|part| text(part, "id") != Some(known.id()));
        for part in known.into_iter().flat_map(MessageView::parts).filter(gone) {
            let data = json!({ "sessionID": session, "messageID": id, "partID": &**part.id() });
            events.push(event(self.time, "message.part.removed", session, &data));
        }
        events
    }

    /// Whether a message that the fold does not know was never told.
    fn is_new(&self, place: usize, session: &str, info: &Value) -> bool {
        self.last.get(session).map_or_else(|| self.is_newest(info), |last| place > *last)
    }

    /// Whether a message or a session is newer than whatever the fold knows of the root session.
    fn is_newest(&self, info: &Value) -> bool {
        match (self.newest, info["time"]["created"].as_i64()) {
            (Some(newest), Some(created)) => created >= newest,
            (Some(_), None) => true,
            // An unread log may have all of it.
            (None, _) => self.known == Known::Log,
        }
    }
}

fn created(message: &MessageView) -> Option<i64> {
    message.raw_info()?.parse::<Value>().ok()?["time"]["created"].as_i64()
}

/// Whether a part is a text of which the server has nothing but its beginning.
fn is_begun_text(part: &Value) -> bool {
    matches!(text(part, "type"), Some("text" | "reasoning"))
        && text(part, "text").unwrap_or_default().is_empty()
        && part["time"]["end"].is_null()
}

/// Whether the server's part says something that was not emitted.
fn is_news(known: &PartView, part: &Value) -> bool {
    if let Some(streamed) = known.body().text_part() {
        let ended = !part["time"]["end"].is_null();
        let stored = text(part, "text").unwrap_or_default();
        if !ended && stored.len() <= streamed.text.len() {
            return false;
        }
    }
    if let Some(tool) = known.body().tool() {
        let is_open = |status: &str| matches!(status, "pending" | "running");
        if !is_open(tool.state.word()) && text(&part["state"], "status").is_some_and(is_open) {
            return false;
        }
    }
    known.to_json() != *part
}

/// Messages of sessions that the server tells of, but which it no longer has.
fn removed_messages(
    view: &SessionView,
    state: &ServerState,
    tree: &SessionTree,
    time: Timestamp,
    there: &BTreeSet<String>,
) -> Vec<NewEvent> {
    let told: BTreeSet<&str> = state.sessions.iter().filter_map(|info| text(info, "id")).collect();
    let mut events = Vec::new();
    for session in view.sessions() {
        if !told.contains(&**session.id()) || !tree.holds(session.id()) {
            continue;
        }
        let of_session = |message: &&Value| text(&message["info"], "sessionID") == Some(&**session.id());
        let oldest = state.messages.iter().find(of_session);
        let oldest = oldest.and_then(|message| message["info"]["time"]["created"].as_i64());
        for message in session.messages() {
            let is_older = state.cut.contains(&**session.id()) && created(message) < oldest;
            if !is_older && !there.contains(&**message.id()) {
                let data = json!({ "sessionID": &**session.id(), "messageID": &**message.id() });
                events.push(event(time, "message.removed", session.id(), &data));
            }
        }
    }
    events
}

fn asks(view: &SessionView, state: &ServerState, tree: &SessionTree, time: Timestamp) -> Vec<NewEvent> {
    let mut events = Vec::new();
    let known: BTreeSet<String> = view.pending().iter().map(|ask| ask.key().as_str().to_owned()).collect();
    let mut open = BTreeSet::new();
    for (kind, name, asks) in [
        ("permission.asked", "permission", &state.permissions),
        ("question.asked", "question", &state.questions),
        ("session.network.asked", "network", &state.networks),
    ] {
        for ask in asks {
            let (Some(id), Some(session)) = (text(ask, "id"), text(ask, "sessionID")) else { continue };
            if !tree.holds(session) {
                continue;
            }
            let key = format!("{name}/{id}");
            if !known.contains(&key) {
                events.push(event(time, kind, session, ask));
            }
            open.insert(key);
        }
    }
    for ask in view.pending() {
        if !open.contains(ask.key().as_str()) {
            events.push(cancelled(ask, time));
        }
    }
    events
}

fn statuses(view: &SessionView, state: &ServerState, tree: &SessionTree, time: Timestamp) -> Vec<NewEvent> {
    let mut events = Vec::new();
    for (id, status) in &state.status {
        let known =
            view.session(id).map(|session| serde_json::to_value(session.status()).unwrap_or_default());
        if tree.holds(id) && known.as_ref() != Some(status) {
            events.push(event(time, "session.status", id, &json!({ "sessionID": id, "status": status })));
        }
    }
    for session in view.sessions() {
        if is_idle(state, session.id())
            && tree.holds(session.id())
            && (session.is_turn_open() || session.status().is_busy())
        {
            events.push(idle_status(session.id(), time));
            events.push(event(time, "session.idle", session.id(), &json!({ "sessionID": &**session.id() })));
        }
    }
    events
}

fn same(known: Option<&protocol::RawData>, now: &Value) -> bool {
    known.is_some_and(|known| known.parse::<Value>().is_ok_and(|known| known == *now))
}

fn text<'v>(value: &'v Value, field: &str) -> Option<&'v str> {
    value.get(field)?.as_str()
}
