//! A conversation in tests.

use protocol::{
    Seq,
    model::{Message, Role},
    view::{MessageView, PartView, SessionView},
};

use super::*;

/// A conversation and what a viewer makes of it.
pub(super) struct Talk {
    pub(super) conversation: Conversation,
    pub(super) view: SessionView,
    events: Vec<NewEvent>,
    ms: i64,
}

impl Talk {
    pub(super) fn begin() -> Self {
        let conversation =
            Conversation::new(1, Timestamp::from_unix_ms(0), SESSION, "/w", "OpenCode 1.18", false);
        let mut talk = Self { conversation, view: SessionView::default(), events: Vec::new(), ms: 0 };
        talk.take();
        talk
    }

    pub(super) fn tick(&mut self) -> Timestamp {
        self.ms += 10;
        Timestamp::from_unix_ms(self.ms)
    }

    pub(super) fn take(&mut self) {
        while let Some(event) = self.conversation.poll() {
            let seq = Seq::new(self.events.len() as u64 + 1);
            self.view.apply(&event.clone().at(seq));
            self.events.push(event);
        }
    }

    pub(super) fn prompt(&mut self, text: &str) -> Option<Give> {
        let now = self.tick();
        let prompt = Prompt { text: Some(text.to_owned()), ..Prompt::default() };
        let (_, give) = self.conversation.prompt(now, &prompt, PromptCapabilities::default());
        self.take();
        give
    }

    /// The latest prompt opened a turn.
    pub(super) fn fresh(&self) -> bool {
        self.conversation.waiting.is_empty()
    }

    pub(super) fn update(&mut self, update: &Value) {
        let now = self.tick();
        self.conversation.update(now, update);
        self.take();
    }

    pub(super) fn ask(&mut self, request: Value) -> Option<Outcome> {
        let now = self.tick();
        let option = |id: &str, kind: &str| json!({ "optionId": id, "kind": kind, "name": id });
        let options =
            [option("once", "allow_once"), option("always", "allow_always"), option("reject", "reject_once")];
        let call = json!({ "toolCallId": "c9", "title": "rm a", "kind": "execute", "rawInput": { "command": "rm a" } });
        let outcome = self.conversation.ask(now, request, &json!({ "toolCall": call, "options": options }));
        self.take();
        outcome
    }

    pub(super) fn finish(&mut self, reason: &str) -> Option<Give> {
        let now = self.tick();
        let give = self.conversation.finished(now, Ok(Stopped { reason: reason.to_owned(), usage: None }));
        self.take();
        give
    }

    pub(super) fn parts(&self) -> Vec<Value> {
        let session = self.view.session(SESSION).expect("the session is there");
        session.messages().iter().flat_map(|message| message.parts()).map(PartView::to_json).collect()
    }

    pub(super) fn kinds(&self) -> Vec<String> {
        self.parts().iter().map(|part| part["type"].as_str().unwrap().to_owned()).collect()
    }

    pub(super) fn said(&self) -> Vec<String> {
        let texts = self.parts().into_iter().filter(|part| part["type"] == "text");
        texts.map(|part| part["text"].as_str().unwrap().to_owned()).collect()
    }

    pub(super) fn tools(&self) -> Vec<Value> {
        self.parts().into_iter().filter(|part| part["type"] == "tool").collect()
    }

    pub(super) fn tool(&self) -> Value {
        self.tools().last().expect("a tool was called")["state"].clone()
    }

    /// Messages of the agent that are not complete: a turn that runs has one.
    pub(super) fn open_messages(&self) -> usize {
        let session = self.view.session(SESSION).expect("the session is there");
        let is_open = |info: &&Message| info.role == Role::Assistant && info.time.completed.is_none();
        session.messages().into_iter().filter_map(MessageView::info).filter(is_open).count()
    }

    pub(super) fn count(&self, kind: &str) -> usize {
        self.events.iter().filter(|event| &*event.kind == kind).count()
    }

    pub(super) fn last(&self, kind: &str) -> String {
        let event =
            self.events.iter().rev().find(|event| &*event.kind == kind).expect("there is such an event");
        event.data.json().to_owned()
    }

    pub(super) fn closed(&self) -> Vec<String> {
        let closes = self.events.iter().filter(|event| &*event.kind == "session.turn.close");
        closes
            .map(|event| event.data.parse::<Value>().unwrap()["reason"].as_str().unwrap().to_owned())
            .collect()
    }
}
