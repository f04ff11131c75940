//! What is left open when an agent server dies, when a wrapper died before, or when a stream broke off for a while, and the events
//! that set it right (§3, broken-off text). Pure: a fold in, events out.

mod catch_up;
mod summary;

use protocol::{
    NewEvent, RawData, Timestamp,
    agent::AfterTurnFailed,
    model::{PartBody, Role, ToolState},
    view::{Ask, MessageView, NoticeBody, PartView, PendingAsk, SessionView},
};
use serde_json::{Map, Value, json};

pub(crate) use catch_up::{Known, catch_up, is_answered, is_idle, is_told};
pub(crate) use summary::summary;

/// What is said of work after a turn that its wrapper did not outlive.
const GIVEN_UP: &str =
    "the wrapper ended before this did: how far it came is not known, and the next turn's takes up the rest";

/// The events that close what the death of an agent server left open, in the order of §3: texts whole, tools as errors, their
/// messages as complete, asks as cancelled, then the work after a turn as failed, sessions as idle.
pub(crate) fn broken_off(view: &SessionView, time: Timestamp) -> Vec<NewEvent> {
    let mut events = unfinished(view, time, |_, _| true);
    events.append(&mut cancelled_asks(view, time));
    let mut given_up = given_up(view, time);
    // The event that closes the turn waited for that work; its status may have been told before.
    let closes_root = !given_up.is_empty();
    events.append(&mut given_up);
    for session in view.sessions() {
        let waits = closes_root && session.parent_id().is_none();
        if waits || session.is_turn_open() || session.status().is_busy() {
            events.push(idle_status(session.id(), time));
            events.push(event(time, "session.idle", session.id(), &json!({ "sessionID": session.id() })));
        }
    }
    events
}

/// The events that close what an earlier run left open, where that is known only while the next one goes on: `before` is the fold of
/// what was said until this run began. What this run began itself is left alone; sessions become idle by what the agent says of them.
pub(crate) fn left_open(view: &SessionView, before: &SessionView, time: Timestamp) -> Vec<NewEvent> {
    let mut events = unfinished(view, time, |_, message| before.message(message.id()).is_some());
    let left = view.pending().into_iter().filter(|ask| before.ask(&ask.key()).is_some());
    events.extend(left.map(|ask| cancelled(ask, time)));
    events.append(&mut given_up(before, time));
    events
}

/// The events that close work after a turn that was begun and whose end was never told (§10).
fn given_up(view: &SessionView, time: Timestamp) -> Vec<NewEvent> {
    let is_open = |begun: fn(&NoticeBody) -> bool| {
        let newest = view.notices().iter().rfind(|notice| begun(&notice.body));
        newest.is_some_and(|notice| view.end_of(notice).is_none())
    };
    let data = AfterTurnFailed { message: GIVEN_UP.to_owned() };
    let failed = |kind: &str| NewEvent::of(time, kind, &data).expect("a text serialises");
    let commit = is_open(|body| matches!(body, NoticeBody::AutoCommitStarted(_)));
    let condense = is_open(|body| matches!(body, NoticeBody::CondenseStarted));
    let kinds = [(commit, "wrapper.auto_commit.failed"), (condense, "wrapper.condense.failed")];
    kinds.into_iter().filter(|(is_open, _)| *is_open).map(|(_, kind)| failed(kind)).collect()
}

/// The events that close what is unfinished of these messages, each named with its session: texts whole, tools as errors, then the
/// messages as complete.
fn unfinished(
    view: &SessionView,
    time: Timestamp,
    is_over: impl Fn(&str, &MessageView) -> bool,
) -> Vec<NewEvent> {
    let mut texts = Vec::new();
    let mut tools = Vec::new();
    let mut messages = Vec::new();
    for session in view.sessions() {
        for message in session.messages() {
            if !is_unfinished(message) || !is_over(session.id(), message) {
                continue;
            }
            for part in message.parts() {
                texts.extend(broken_text(part, message, time));
                tools.extend(broken_tool(part, message, time));
            }
            messages.extend(broken_message(message, time));
        }
    }
    [texts, tools, messages].concat()
}

/// The events that cancel every ask that waits: nobody waits for its answer any more.
pub(crate) fn cancelled_asks(view: &SessionView, time: Timestamp) -> Vec<NewEvent> {
    view.pending().into_iter().map(|ask| cancelled(ask, time)).collect()
}

/// `session.status` idle.
fn idle_status(session: &str, time: Timestamp) -> NewEvent {
    event(time, "session.status", session, &json!({ "sessionID": session, "status": { "type": "idle" } }))
}

fn is_unfinished(message: &MessageView) -> bool {
    message.info().is_none_or(|info| info.role != Role::User && info.time.completed.is_none())
}

fn broken_text(part: &PartView, message: &MessageView, time: Timestamp) -> Option<NewEvent> {
    let text = part.body().text_part()?;
    if text.time.as_ref().is_some_and(|time| time.end.is_some()) || text.is_interrupted() {
        return None;
    }
    let mut whole = part.to_json();
    let fields = whole.as_object_mut()?;
    object_in(fields, "metadata").insert("interrupted".to_owned(), true.into());
    object_in(fields, "time").insert("end".to_owned(), time.unix_ms().into());
    Some(part_event(part, message, time, whole))
}

fn broken_tool(part: &PartView, message: &MessageView, time: Timestamp) -> Option<NewEvent> {
    let PartBody::Tool(tool) = part.body() else { return None };
    if !matches!(tool.state, ToolState::Pending(_) | ToolState::Running(_)) {
        return None;
    }
    let mut whole = part.to_json();
    let state = object_in(whole.as_object_mut()?, "state");
    state.insert("status".to_owned(), "error".into());
    state.insert("error".to_owned(), "interrupted".into());
    state.remove("raw");
    let times = object_in(state, "time");
    times.entry("start").or_insert_with(|| time.unix_ms().into());
    times.insert("end".to_owned(), time.unix_ms().into());
    Some(part_event(part, message, time, whole))
}

fn broken_message(message: &MessageView, time: Timestamp) -> Option<NewEvent> {
    let session = message.session()?;
    let mut info: Value = message.raw_info()?.parse().ok()?;
    let fields = info.as_object_mut()?;
    object_in(fields, "time").insert("completed".to_owned(), time.unix_ms().into());
    let error = json!({ "name": "MessageAbortedError", "data": { "message": "interrupted" } });
    fields.entry("error").or_insert(error);
    Some(event(time, "message.updated", session, &json!({ "sessionID": session, "info": info })))
}

fn cancelled(ask: &PendingAsk, time: Timestamp) -> NewEvent {
    let mut data = json!({ "requestID": ask.id, "cancelled": true });
    if let Some(session) = &ask.session {
        data["sessionID"] = (**session).into();
    }
    let kind = match &ask.ask {
        Ask::Permission(_) => {
            data["reply"] = "reject".into();
            "permission.replied"
        }
        Ask::Question(_) => "question.rejected",
        Ask::Network(_) => "session.network.rejected",
    };
    NewEvent { session: ask.session.clone(), ..event(time, kind, "", &data) }
}

fn part_event(part: &PartView, message: &MessageView, time: Timestamp, mut whole: Value) -> NewEvent {
    let session = part.session().or_else(|| message.session()).cloned();
    if let (Some(session), Some(fields)) = (&session, whole.as_object_mut()) {
        fields.entry("sessionID").or_insert_with(|| (**session).into());
    }
    let id = session.as_deref().unwrap_or_default();
    let event = event(time, "message.part.updated", id, &json!({ "sessionID": id, "part": whole }));
    NewEvent { session, ..event }
}

fn event(time: Timestamp, kind: &str, session: &str, data: &Value) -> NewEvent {
    let data = RawData::of(data).expect("a JSON value serialises");
    NewEvent { time, kind: kind.into(), session: Some(session.into()), data }
}

/// The object under this name, made if there is none.
fn object_in<'o>(fields: &'o mut Map<String, Value>, name: &str) -> &'o mut Map<String, Value> {
    let value = fields.entry(name).or_insert_with(|| json!({}));
    if !value.is_object() {
        *value = json!({});
    }
    value.as_object_mut().expect("it was just made one")
}

#[cfg(test)]
mod tests;
