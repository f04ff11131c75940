//! A view as JSON: the answer of `GET …/view` (§4.3).

use serde::{Serialize, Serializer, ser::SerializeSeq};
use serde_json::{Value, json};

use super::{
    Answer, AnsweredAsk, Ask, Lifecycle, MessageView, Notice, NoticeBody, PartView, PendingAsk, SessionRef,
    SessionView,
};

impl Serialize for SessionView {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct;
        let mut out = serializer.serialize_struct("SessionView", 10)?;
        out.serialize_field("seq", &self.seq)?;
        out.serialize_field("time", &self.time)?;
        out.serialize_field("agent", &agent(self))?;
        out.serialize_field("usage", &self.usage())?;
        out.serialize_field("sessions", &self.sessions())?;
        out.serialize_field("pending", &self.pending())?;
        out.serialize_field("answered", &self.answered())?;
        out.serialize_field("notices", &self.notices)?;
        out.serialize_field("removed", &removed(self))?;
        out.serialize_field("malformed", &self.malformed())?;
        out.end()
    }
}

impl Serialize for SessionRef<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct;
        let mut out = serializer.serialize_struct("Session", 12)?;
        out.serialize_field("id", self.id())?;
        out.serialize_field("parent", &self.parent_id())?;
        out.serialize_field("info", &self.raw_info())?;
        out.serialize_field("status", self.status())?;
        out.serialize_field("turn_open", &self.is_turn_open())?;
        out.serialize_field("closed", &self.closed().map(|closed| &closed.reason))?;
        out.serialize_field("todos", self.todos())?;
        out.serialize_field("queued", self.queued())?;
        out.serialize_field("usage", &self.usage())?;
        out.serialize_field("total_usage", &self.total_usage())?;
        out.serialize_field("changed", &self.changed())?;
        out.serialize_field("messages", &self.messages())?;
        out.end()
    }
}

impl Serialize for MessageView {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct;
        let mut out = serializer.serialize_struct("Message", 4)?;
        out.serialize_field("id", self.id())?;
        out.serialize_field("info", &self.raw_info())?;
        out.serialize_field("changed", &self.changed())?;
        out.serialize_field("parts", &Parts(self))?;
        out.end()
    }
}

struct Parts<'v>(&'v MessageView);

impl Serialize for Parts<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut out = serializer.serialize_seq(Some(self.0.parts().len()))?;
        for part in self.0.parts() {
            out.serialize_element(part)?;
        }
        out.end()
    }
}

impl Serialize for PartView {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct;
        let mut out = serializer.serialize_struct("Part", 3)?;
        out.serialize_field("id", self.id())?;
        out.serialize_field("part", &self.to_json())?;
        out.serialize_field("changed", &self.changed())?;
        out.end()
    }
}

impl Serialize for PendingAsk {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let kind = match self.ask {
            Ask::Permission(_) => "permission",
            Ask::Question(_) => "question",
            Ask::Network(_) => "network",
        };
        let head = json!({ "type": kind, "id": &*self.id, "session": self.session, "seq": self.seq, "time": self.time });
        with(head, "ask", &self.raw).serialize(serializer)
    }
}

impl Serialize for AnsweredAsk {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (kind, answer) = match &self.answer {
            Answer::Permission(reply) => ("permission", json!(reply)),
            Answer::Question(answers) => ("question", json!(answers)),
            Answer::QuestionRejected => ("question", json!("rejected")),
            Answer::NetworkReplied => ("network", json!("replied")),
            Answer::NetworkRejected => ("network", json!("rejected")),
        };
        let head = json!({ "type": kind, "id": &*self.id, "session": self.session, "seq": self.seq, "time": self.time });
        with(with(head, "asked", &self.asked), "answer", &answer).serialize(serializer)
    }
}

/// What is asked, in the wire shape of the event that asks.
impl Serialize for Ask {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Permission(permission) => permission.serialize(serializer),
            Self::Question(question) => question.serialize(serializer),
            Self::Network(network) => network.serialize(serializer),
        }
    }
}

impl Serialize for Notice {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (kind, body) = match &self.body {
            NoticeBody::Error(error) => ("session.error", json!(error)),
            NoticeBody::Started(started) => ("agent.started", json!(started)),
            NoticeBody::Exited(exited) => ("agent.exited", json!(exited)),
            NoticeBody::Failed(failed) => ("agent.failed", json!(failed)),
            NoticeBody::Done(done) => ("agent.done", json!(done)),
            NoticeBody::Resumed(resumed) => ("wrapper.resumed", json!(resumed)),
            NoticeBody::SessionRecreated(recreated) => ("wrapper.session_recreated", json!(recreated)),
            NoticeBody::WorkspaceReady(ready) => ("wrapper.workspace.ready", json!(ready)),
            NoticeBody::AutoCommitStarted(started) => ("wrapper.auto_commit.started", json!(started)),
            NoticeBody::AutoCommitCompleted(done) => ("wrapper.auto_commit.completed", json!(done)),
            NoticeBody::AutoCommitSkipped(skipped) => ("wrapper.auto_commit.skipped", json!(skipped)),
            NoticeBody::AutoCommitFailed(failed) => ("wrapper.auto_commit.failed", json!(failed)),
            NoticeBody::CondenseStarted => ("wrapper.condense.started", json!({})),
            NoticeBody::CondenseCompleted => ("wrapper.condense.completed", json!({})),
            NoticeBody::CondenseSkipped(skipped) => ("wrapper.condense.skipped", json!(skipped)),
            NoticeBody::CondenseFailed(failed) => ("wrapper.condense.failed", json!(failed)),
            NoticeBody::Lost(lost) => ("wrapper.lost", json!(lost)),
            NoticeBody::EventsDropped(dropped) => ("wrapper.events_dropped", json!(dropped)),
            NoticeBody::Gap { from, to, reason } => {
                ("gap", json!({ "from": from, "to": to, "reason": reason }))
            }
            NoticeBody::Malformed { kind, reason } => {
                ("malformed", json!({ "type": kind, "reason": reason }))
            }
        };
        let head = json!({ "type": kind, "seq": self.seq, "time": self.time, "session": self.session });
        with(head, "data", &body).serialize(serializer)
    }
}

fn agent(view: &SessionView) -> Value {
    let agent = view.agent();
    let (state, more) = match &agent.lifecycle {
        Lifecycle::Running(state) => (json!(state), Value::Null),
        Lifecycle::Exited(exited) => (json!("exited"), json!(exited)),
        Lifecycle::Failed(failed) => (json!("failed"), json!(failed)),
    };
    json!({
        "state": state, "detail": agent.detail, "end": more, "started": agent.started, "usage": agent.usage,
        "changed": agent.changed,
    })
}

fn removed(view: &SessionView) -> Vec<Value> {
    view.removed().map(|(key, removed)| json!({ "key": key, "seq": removed.seq })).collect()
}

fn with(mut head: Value, name: &str, value: &impl Serialize) -> Value {
    head[name] = json!(value);
    head
}
