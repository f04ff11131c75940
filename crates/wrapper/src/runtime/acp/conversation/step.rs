//! One message of the agent while it is open: what it says streams into parts.

use protocol::Timestamp;
use serde_json::json;

use crate::runtime::shape::emit::{Assistant, Emit, Session, Tokens, User};

/// An assistant's message that is open.
#[derive(Debug)]
pub(super) struct Step {
    pub(super) message: Assistant,
    /// The text or the thought that is being said.
    saying: Option<Saying>,
    /// Its text came from a message of this name: another one begins another message.
    said_in: Option<String>,
    pub(super) tokens: Tokens,
}

#[derive(Debug)]
struct Saying {
    kind: &'static str,
    part: String,
    text: String,
    start: Timestamp,
}

impl Step {
    /// A message that answers what this user said. One that has no end of its own is complete from its beginning.
    pub(super) fn begin(
        emit: &mut Emit,
        session: &Session,
        user: &User,
        completed: Option<Timestamp>,
    ) -> Self {
        let message = Assistant {
            id: emit.id("msg"),
            parent: user.id.clone(),
            created: emit.now,
            completed,
            agent: user.agent.clone(),
            model: user.model.clone(),
            summary: false,
            tokens: None,
            cost_micros: 0,
            finish: None,
            error: None,
        };
        emit.assistant(session, &message);
        let id = emit.id("prt");
        emit.part(session, &message.id, &id, json!({ "type": "step-start" }));
        Self { message, saying: None, said_in: None, tokens: Tokens::default() }
    }

    /// Whether text of the agent's message of this name goes here.
    pub(super) fn takes(&mut self, name: &str) -> bool {
        self.said_in.get_or_insert_with(|| name.to_owned()) == name
    }

    /// Says more of a text or a thought.
    pub(super) fn say(&mut self, emit: &mut Emit, session: &Session, kind: &'static str, text: &str) {
        if self.saying.as_ref().is_some_and(|saying| saying.kind != kind) {
            self.hush(emit, session);
        }
        let message = &self.message.id;
        let saying = self.saying.get_or_insert_with(|| {
            let saying = Saying { kind, part: emit.id("prt"), text: String::new(), start: emit.now };
            let body = json!({ "type": kind, "text": "", "time": { "start": emit.now.unix_ms() } });
            emit.part(session, message, &saying.part, body);
            saying
        });
        saying.text.push_str(text);
        emit.delta(session, message, &saying.part, text);
    }

    /// What was being said is whole.
    pub(super) fn hush(&mut self, emit: &mut Emit, session: &Session) {
        if let Some(Saying { kind, part, text, start }) = self.saying.take() {
            let time = json!({ "start": start.unix_ms(), "end": emit.now.unix_ms() });
            emit.part(session, &self.message.id, &part, json!({ "type": kind, "text": text, "time": time }));
        }
    }
}
