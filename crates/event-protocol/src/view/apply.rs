//! What each event does to a view. An event is looked at by its key, exactly as compaction does: that is what makes the
//! fold of a compacted log equal to the fold of everything.

use std::{collections::BTreeMap, sync::Arc};

use serde::{Deserialize, de::DeserializeOwned};
use serde_json::value::RawValue;

use super::{
    Answer, AnsweredAsk, Ask, Lifecycle, MessageView, Notice, NoticeBody, PartView, PendingAsk, Removed,
    SessionView, Stated, TurnClosed, ask::AskEntry, session::SessionEntry,
};
use crate::{
    Class, Event, Key, RawData, Seq,
    agent::{State, Status},
    model::{MessageError, PartBody},
};

impl SessionView {
    /// Folds one event in. An event at or below [`seq`](Self::seq) and a volatile one change nothing.
    pub fn apply(&mut self, event: &Event) {
        if event.seq <= self.seq || event.class() == Class::Volatile {
            return;
        }
        self.seq = event.seq;
        self.time = Some(event.time);
        match self.apply_to_entity(event) {
            Ok(()) => {}
            Err(reason) => {
                let kind = Arc::clone(&event.kind);
                self.notice(event, NoticeBody::Malformed { kind, reason });
            }
        }
    }

    fn apply_to_entity(&mut self, event: &Event) -> Result<(), String> {
        match &*event.kind {
            "session.created" | "session.updated" => {
                self.entry(id_in(event, "session")?, event.seq).info =
                    Some(stated(event, |p: InfoOf<'_>| p.info));
            }
            "session.deleted" => self.remove_session(event)?,
            "session.status" => self.apply_status(event)?,
            "session.turn.open" | "session.compacted" => {
                self.entry(id_in(event, "turn")?, event.seq).turn_open = true;
            }
            "session.idle" => self.entry(id_in(event, "turn")?, event.seq).turn_open = false,
            "session.turn.close" => self.apply_turn_close(event)?,
            "session.diff" => self.entry(id_in(event, "diff")?, event.seq).diff = Some(kept(event)),
            "session.queue.changed" => {
                self.entry(id_in(event, "queue")?, event.seq).queue =
                    Some(stated(event, |p: QueueOf<'_>| p.queued));
            }
            "todo.updated" => {
                self.entry(id_in(event, "todo")?, event.seq).todos =
                    Some(stated(event, |p: TodosOf<'_>| p.todos));
            }
            "message.updated" => {
                let message = self.message_entry(id_in(event, "message")?);
                message.session.clone_from(&event.session);
                message.info = Some(stated(event, |p: InfoOf<'_>| p.info));
            }
            "message.removed" => self.remove_message(event)?,
            "message.part.updated" => self.apply_part(event)?,
            "message.part.delta" => self.apply_delta(event)?,
            "message.part.removed" => self.remove_part(event)?,
            "permission.asked" => self.asked(event, "permission")?,
            "question.asked" => self.asked(event, "question")?,
            "session.network.asked" => self.asked(event, "network")?,
            "permission.replied" => {
                self.answered_by(event, "permission", |reply| Answer::Permission(reply.reply))?;
            }
            "question.replied" => {
                self.answered_by(event, "question", |reply| Answer::Question(reply.answers))?;
            }
            "question.rejected" => self.answered_by(event, "question", |_| Answer::QuestionRejected)?,
            "session.network.replied" => self.answered_by(event, "network", |_| Answer::NetworkReplied)?,
            "session.network.rejected" => self.answered_by(event, "network", |_| Answer::NetworkRejected)?,
            _ => self.apply_to_agent(event)?,
        }
        Ok(())
    }

    /// Gastown's own events, and errors. Whatever else there is says nothing that a view shows.
    fn apply_to_agent(&mut self, event: &Event) -> Result<(), String> {
        match &*event.kind {
            "session.error" => {
                let error = parse::<ErrorOf>(&event.data)?.error;
                self.notice(event, NoticeBody::Error(error));
            }
            "agent.status" => {
                let status = event.data.parse::<Status>();
                self.agent.status_malformed = status.is_err();
                let status = status.unwrap_or_default();
                self.live(event, Lifecycle::Running(status.state), status.detail);
            }
            "agent.usage" => {
                self.agent.usage = event.data.parse().ok();
                self.agent.usage_malformed = self.agent.usage.is_none();
                self.agent.changed = event.seq;
            }
            "agent.started" => {
                let started: crate::agent::Started = parse(&event.data)?;
                self.agent.started = Some(started.clone());
                self.live(event, Lifecycle::Running(State::Idle), None);
                self.notice(event, NoticeBody::Started(started));
            }
            "agent.exited" => {
                let exited: crate::agent::Exited = parse(&event.data)?;
                self.live(event, Lifecycle::Exited(exited.clone()), None);
                self.notice(event, NoticeBody::Exited(exited));
            }
            "agent.failed" => {
                let failed: crate::agent::Failed = parse(&event.data)?;
                self.live(event, Lifecycle::Failed(failed.clone()), None);
                self.notice(event, NoticeBody::Failed(failed));
            }
            "agent.done" => self.notice(event, NoticeBody::Done(parse(&event.data)?)),
            "wrapper.resumed" => self.notice(event, NoticeBody::Resumed(parse(&event.data)?)),
            "wrapper.lost" => self.notice(event, NoticeBody::Lost(parse(&event.data)?)),
            "wrapper.events_dropped" => self.notice(event, NoticeBody::EventsDropped(parse(&event.data)?)),
            _ => self.apply_to_work(event)?,
        }
        Ok(())
    }

    /// What a wrapper did for the agent: its work tree, its session, and what is done after a turn.
    fn apply_to_work(&mut self, event: &Event) -> Result<(), String> {
        let body = match &*event.kind {
            "wrapper.session_recreated" => NoticeBody::SessionRecreated(parse(&event.data)?),
            "wrapper.workspace.ready" => NoticeBody::WorkspaceReady(parse(&event.data)?),
            "wrapper.auto_commit.started" => NoticeBody::AutoCommitStarted(parse(&event.data)?),
            "wrapper.auto_commit.completed" => NoticeBody::AutoCommitCompleted(parse(&event.data)?),
            "wrapper.auto_commit.skipped" => NoticeBody::AutoCommitSkipped(parse(&event.data)?),
            "wrapper.auto_commit.failed" => NoticeBody::AutoCommitFailed(parse(&event.data)?),
            "wrapper.condense.started" => NoticeBody::CondenseStarted,
            "wrapper.condense.completed" => NoticeBody::CondenseCompleted,
            "wrapper.condense.skipped" => NoticeBody::CondenseSkipped(parse(&event.data)?),
            "wrapper.condense.failed" => NoticeBody::CondenseFailed(parse(&event.data)?),
            _ => return Ok(()),
        };
        self.notice(event, body);
        Ok(())
    }

    fn live(&mut self, event: &Event, lifecycle: Lifecycle, detail: Option<String>) {
        self.agent.lifecycle = lifecycle;
        self.agent.detail = detail;
        self.agent.changed = event.seq;
    }

    /// A session works or not by the last of its status, turn and close events: each of them survives compaction.
    fn apply_status(&mut self, event: &Event) -> Result<(), String> {
        let entry = self.entry(id_in(event, "status")?, event.seq);
        let status: Stated<crate::model::SessionStatus> = stated(event, |p: StatusOf<'_>| p.status);
        entry.turn_open = status.value.is_busy();
        entry.status = Some(status);
        Ok(())
    }

    fn apply_turn_close(&mut self, event: &Event) -> Result<(), String> {
        let session = event.session.as_deref().ok_or("it names no session")?;
        let closed: TurnClosed = parse(&event.data)?;
        let entry = self.entry(session, event.seq);
        entry.turn_open = false;
        entry.closed = Some(TurnClosed { seq: event.seq, time: event.time, ..closed });
        Ok(())
    }

    fn apply_part(&mut self, event: &Event) -> Result<(), String> {
        let (message, id) = part_in(event)?;
        let said: Stated<Option<PartBody>> = stated(event, |p: PartOf<'_>| p.part);
        let mut part = PartView::of_deltas(message, id, event.time);
        part.session.clone_from(&event.session);
        part.body = said.value.unwrap_or(PartBody::Unknown);
        part.raw = Some(said.raw);
        part.malformed = said.malformed;
        part.changed = event.seq;
        let key = Arc::clone(&part.id);
        self.message_entry(message).parts.insert(key, part);
        Ok(())
    }

    /// A delta of a part that was not there makes it: its first statement may have been pruned.
    fn apply_delta(&mut self, event: &Event) -> Result<(), String> {
        let (message, id) = part_in(event)?;
        let message_entry = self.message_entry(message);
        if !message_entry.parts.contains_key(id) {
            let part = PartView::of_deltas(message, id, event.time);
            message_entry.parts.insert(id.into(), part);
        }
        let part = message_entry.parts.get_mut(id).expect("it was made if it was not there");
        match event.data.parse::<Delta>() {
            Ok(Delta { field, delta }) => {
                if field != "text" || !part.body.push_text(&delta) {
                    part.appended.entry(field).or_default().push_str(&delta);
                }
            }
            Err(error) => part.malformed = Some(error.to_string()),
        }
        if event.session.is_some() {
            part.session.clone_from(&event.session);
        }
        part.changed = event.seq;
        part.time = event.time;
        Ok(())
    }

    fn remove_part(&mut self, event: &Event) -> Result<(), String> {
        let (message, id) = part_in(event)?;
        if let Some(entry) = self.messages.get_mut(message) {
            entry.parts.remove(id);
            if entry.parts.is_empty() && entry.info.is_none() {
                self.messages.remove(message);
            }
        }
        self.bury(event)
    }

    fn remove_message(&mut self, event: &Event) -> Result<(), String> {
        self.messages.remove(id_in(event, "message")?);
        self.bury(event)
    }

    /// Takes everything of the session with it, as compaction does: entities, asks, notices and tombstones.
    fn remove_session(&mut self, event: &Event) -> Result<(), String> {
        let id = id_in(event, "session")?;
        let of_it = |session: Option<&Arc<str>>| session.is_some_and(|session| &**session == id);
        self.sessions.remove(id);
        for message in self.messages.values_mut() {
            message.parts.retain(|_, part| !of_it(part.session.as_ref()));
            if of_it(message.session.as_ref()) {
                message.info = None;
                message.session = None;
            }
        }
        self.messages.retain(|_, message| message.info.is_some() || !message.parts.is_empty());
        self.asks.retain(|_, ask| !of_it(ask.session()));
        self.notices.retain(|notice| !of_it(notice.session.as_ref()));
        self.removed.retain(|_, removed| !of_it(removed.session.as_ref()));
        self.bury(event)
    }

    /// Leaves a tombstone, in the place of all that it covers.
    fn bury(&mut self, event: &Event) -> Result<(), String> {
        let key = event.key.as_ref().ok_or("it names nothing")?;
        self.removed.retain(|buried, _| !key.covers(buried));
        let removed = Removed { seq: event.seq, session: event.session.clone() };
        self.removed.insert(key.clone(), removed);
        Ok(())
    }

    fn asked(&mut self, event: &Event, kind: &str) -> Result<(), String> {
        let id = id_in(event, kind)?.into();
        let (ask, malformed) = match ask_of(kind, event.data.json()) {
            Ok(ask) => (ask, None),
            Err(error) => (empty_ask(kind), Some(error)),
        };
        let raw = event.data.clone();
        let session = event.session.clone();
        let ask = PendingAsk { id, session, seq: event.seq, time: event.time, ask, raw, malformed };
        self.keep_ask(event, AskEntry::Pending(ask))
    }

    fn answered_by(
        &mut self,
        event: &Event,
        kind: &str,
        answer: impl FnOnce(Reply) -> Answer,
    ) -> Result<(), String> {
        let id = id_in(event, kind)?.into();
        let (reply, malformed) = match parse::<Reply>(&event.data) {
            Ok(reply) => (reply, None),
            Err(error) => (Reply::default(), Some(error)),
        };
        let asked = reply.asked.as_ref().and_then(|asked| ask_of(kind, asked.get()).ok());
        let answer = answer(reply);
        let raw = event.data.clone();
        let session = event.session.clone();
        let ask =
            AnsweredAsk { id, session, seq: event.seq, time: event.time, asked, answer, raw, malformed };
        self.keep_ask(event, AskEntry::Answered(ask))
    }

    fn keep_ask(&mut self, event: &Event, entry: AskEntry) -> Result<(), String> {
        let key = event.key.as_ref().ok_or("it names nothing")?;
        self.asks.insert(key.clone(), entry);
        Ok(())
    }

    fn notice(&mut self, event: &Event, body: NoticeBody) {
        let session = event.session.clone();
        self.notices.push(Notice { seq: event.seq, time: event.time, session, body });
    }

    fn entry(&mut self, session: &str, seq: Seq) -> &mut SessionEntry {
        let entry = entry_of(&mut self.sessions, session, SessionEntry::default);
        entry.changed = seq;
        entry
    }

    fn message_entry(&mut self, message: &str) -> &mut MessageView {
        entry_of(&mut self.messages, message, || MessageView::new(message))
    }
}

/// The entry of this id, made if it is not there; the id is copied only then.
fn entry_of<'m, T>(map: &'m mut BTreeMap<Arc<str>, T>, id: &str, new: impl FnOnce() -> T) -> &'m mut T {
    if !map.contains_key(id) {
        map.insert(id.into(), new());
    }
    map.get_mut(id).expect("it was made if it was not there")
}

/// The id in the event's key, which is `<kind>/<id>`.
fn id_in<'e>(event: &'e Event, kind: &str) -> Result<&'e str, String> {
    match event.key.as_ref().map(Key::as_str).and_then(|key| key.split_once('/')) {
        Some((found, id)) if found == kind => Ok(id),
        Some(_) | None => Err("it names nothing that it could be about".to_owned()),
    }
}

/// The ids in the event's key, which is `part/<message>/<part>`.
fn part_in(event: &Event) -> Result<(&str, &str), String> {
    id_in(event, "part")?.split_once('/').ok_or_else(|| "it names no part".to_owned())
}

/// What an event says of its entity: the whole value, so that nothing before it counts.
fn stated<'e, P, T>(event: &'e Event, pick: impl FnOnce(P) -> &'e RawValue) -> Stated<T>
where
    P: Deserialize<'e>,
    T: DeserializeOwned + Default,
{
    let (raw, value, malformed) = match event.data.parse::<P>().map(pick) {
        Ok(raw) => match serde_json::from_str(raw.get()) {
            Ok(value) => (RawData::from(raw), value, None),
            Err(error) => (RawData::from(raw), T::default(), Some(error.to_string())),
        },
        Err(error) => (event.data.clone(), T::default(), Some(error.to_string())),
    };
    Stated { value, raw, seq: event.seq, time: event.time, malformed }
}

/// A payload that is kept as it is.
fn kept(event: &Event) -> Stated<()> {
    Stated { value: (), raw: event.data.clone(), seq: event.seq, time: event.time, malformed: None }
}

fn parse<T: DeserializeOwned>(raw: &RawData) -> Result<T, String> {
    raw.parse().map_err(|error| error.to_string())
}

fn ask_of(kind: &str, json: &str) -> Result<Ask, String> {
    let ask = match kind {
        "permission" => serde_json::from_str(json).map(Ask::Permission),
        "question" => serde_json::from_str(json).map(Ask::Question),
        _ => serde_json::from_str(json).map(Ask::Network),
    };
    ask.map_err(|error| error.to_string())
}

fn empty_ask(kind: &str) -> Ask {
    match kind {
        "permission" => Ask::Permission(crate::model::Permission::default()),
        "question" => Ask::Question(crate::model::Question::default()),
        _ => Ask::Network(crate::model::Network::default()),
    }
}

#[derive(Deserialize)]
struct InfoOf<'a> {
    #[serde(borrow)]
    info: &'a RawValue,
}

#[derive(Deserialize)]
struct PartOf<'a> {
    #[serde(borrow)]
    part: &'a RawValue,
}

#[derive(Deserialize)]
struct StatusOf<'a> {
    #[serde(borrow)]
    status: &'a RawValue,
}

#[derive(Deserialize)]
struct TodosOf<'a> {
    #[serde(borrow)]
    todos: &'a RawValue,
}

#[derive(Deserialize)]
struct QueueOf<'a> {
    #[serde(borrow)]
    queued: &'a RawValue,
}

#[derive(Deserialize)]
struct Delta {
    #[serde(default = "text")]
    field: String,
    delta: String,
}

fn text() -> String {
    "text".to_owned()
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Reply {
    reply: String,
    answers: Vec<Vec<String>>,
    /// What was asked, as the wrapper adds it (§3).
    asked: Option<Box<RawValue>>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct ErrorOf {
    error: MessageError,
}
