//! Events in the shape agent servers give them: one function per event, the state of sessions and messages they speak of.

use std::{collections::VecDeque, sync::Arc};

use protocol::{NewEvent, Prompt, RawData, Timestamp};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{diff::Patch, ids::Ids};

/// What goes out, in order: events, and whatever else a runtime puts between them; and the ids in them.
#[derive(Debug)]
pub(crate) struct Emit<Output = NewEvent> {
    pub(crate) outputs: VecDeque<Output>,
    pub(crate) ids: Ids,
    pub(crate) now: Timestamp,
}

impl<Output: From<NewEvent>> Emit<Output> {
    /// Nothing yet. The same seed gives the same ids.
    pub(crate) fn new(seed: u64, now: Timestamp) -> Self {
        Self { outputs: VecDeque::new(), ids: Ids::new(seed), now }
    }

    pub(crate) fn id(&mut self, prefix: &str) -> String {
        self.ids.next(prefix, self.now.unix_ms())
    }

    pub(crate) fn event(&mut self, kind: &str, session: Option<&str>, data: &Value) {
        let event = NewEvent {
            time: self.now,
            kind: kind.into(),
            session: session.map(Arc::from),
            data: RawData::of(data).expect("a JSON value serialises"),
        };
        self.outputs.push_back(event.into());
    }

    pub(crate) fn status(&mut self, session: &Session, status: &Value) {
        self.event(
            "session.status",
            Some(&session.id),
            &json!({ "sessionID": session.id, "status": status }),
        );
    }

    pub(crate) fn busy(&mut self, session: &Session) {
        self.status(session, &json!({ "type": "busy" }));
    }

    /// The session says that nothing runs.
    pub(crate) fn idle(&mut self, session: &Session) {
        self.status(session, &json!({ "type": "idle" }));
        self.event("session.idle", Some(&session.id), &json!({ "sessionID": session.id }));
    }

    pub(crate) fn turn_close(&mut self, session: &Session, reason: &str) {
        self.event(
            "session.turn.close",
            Some(&session.id),
            &json!({ "sessionID": session.id, "reason": reason }),
        );
    }

    pub(crate) fn session(&mut self, kind: &str, session: &Session) {
        self.event(kind, Some(&session.id), &json!({ "sessionID": session.id, "info": session.info() }));
    }

    pub(crate) fn session_updated(&mut self, session: &mut Session) {
        session.updated = self.now;
        self.session("session.updated", session);
    }

    pub(crate) fn user(&mut self, session: &Session, message: &User) {
        self.event(
            "message.updated",
            Some(&session.id),
            &json!({ "sessionID": session.id, "info": message.info(session) }),
        );
    }

    pub(crate) fn assistant(&mut self, session: &Session, message: &Assistant) {
        self.event(
            "message.updated",
            Some(&session.id),
            &json!({ "sessionID": session.id, "info": message.info(session) }),
        );
    }

    /// A part as a whole; `body` is what its type adds to the ids.
    pub(crate) fn part(&mut self, session: &Session, message: &str, part: &str, mut body: Value) {
        body["id"] = json!(part);
        body["messageID"] = json!(message);
        body["sessionID"] = json!(session.id);
        let data = json!({ "sessionID": session.id, "part": body, "time": self.now.unix_ms() });
        self.event("message.part.updated", Some(&session.id), &data);
    }

    pub(crate) fn delta(&mut self, session: &Session, message: &str, part: &str, delta: &str) {
        let data = json!({ "sessionID": session.id, "messageID": message, "partID": part, "field": "text", "delta": delta });
        self.event("message.part.delta", Some(&session.id), &data);
    }
}

/// The model that an agent says it uses.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Model {
    #[serde(rename = "providerID")]
    pub(crate) provider_id: String,
    #[serde(rename = "modelID")]
    pub(crate) model_id: String,
}

/// Tokens of one step, as agent servers count them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Tokens {
    pub(crate) input: u64,
    pub(crate) output: u64,
    pub(crate) reasoning: u64,
    pub(crate) cache_read: u64,
    pub(crate) cache_write: u64,
}

/// A session: that of the agent, or that of a sub-agent.
#[derive(Debug, Clone)]
pub(crate) struct Session {
    /// What runs the agent: agent servers name a project here.
    pub(crate) runtime: &'static str,
    pub(crate) id: String,
    pub(crate) parent: Option<String>,
    pub(crate) title: String,
    pub(crate) agent: String,
    pub(crate) model: Model,
    pub(crate) directory: String,
    pub(crate) created: Timestamp,
    pub(crate) updated: Timestamp,
    pub(crate) tokens: Tokens,
    pub(crate) cost_micros: u64,
    /// Lines added and removed, and files changed, by the latest turn.
    pub(crate) summary: Option<(usize, usize, usize)>,
}

impl Session {
    fn info(&self) -> Value {
        let mut info = json!({
            "id": self.id, "slug": self.runtime, "version": env!("CARGO_PKG_VERSION"), "projectID": self.runtime,
            "directory": self.directory, "path": "", "title": self.title, "agent": self.agent,
            "model": { "id": self.model.model_id, "providerID": self.model.provider_id, "variant": "default" },
            "cost": dollars(self.cost_micros), "tokens": tokens(self.tokens, false),
            "time": { "created": self.created.unix_ms(), "updated": self.updated.unix_ms() },
        });
        if let Some(parent) = &self.parent {
            info["parentID"] = json!(parent);
        }
        if let Some((additions, deletions, files)) = self.summary {
            info["summary"] = json!({ "additions": additions, "deletions": deletions, "files": files });
        }
        info
    }
}

/// A message of the user.
#[derive(Debug, Clone)]
pub(crate) struct User {
    pub(crate) id: String,
    pub(crate) created: Timestamp,
    pub(crate) agent: String,
    pub(crate) model: Model,
    /// What the turn changed, once it is known.
    pub(crate) diffs: Option<Vec<Patch>>,
}

impl User {
    fn info(&self, session: &Session) -> Value {
        let mut info = json!({
            "id": self.id, "role": "user", "sessionID": session.id, "agent": self.agent,
            "model": { "providerID": self.model.provider_id, "modelID": self.model.model_id },
            "time": { "created": self.created.unix_ms() },
        });
        if let Some(diffs) = &self.diffs {
            info["summary"] = json!({ "diffs": diffs });
        }
        info
    }
}

/// A message of the agent: one step of a turn.
#[derive(Debug, Clone)]
pub(crate) struct Assistant {
    pub(crate) id: String,
    /// The user's message it answers.
    pub(crate) parent: String,
    pub(crate) created: Timestamp,
    pub(crate) completed: Option<Timestamp>,
    pub(crate) agent: String,
    pub(crate) model: Model,
    /// It is the summary that a compaction leaves.
    pub(crate) summary: bool,
    pub(crate) tokens: Option<Tokens>,
    pub(crate) cost_micros: u64,
    pub(crate) finish: Option<&'static str>,
    pub(crate) error: Option<Value>,
}

impl Assistant {
    fn info(&self, session: &Session) -> Value {
        let mut info = json!({
            "id": self.id, "parentID": self.parent, "role": "assistant", "mode": self.agent, "agent": self.agent,
            "path": { "cwd": session.directory, "root": session.directory },
            "cost": dollars(self.cost_micros),
            "tokens": tokens(self.tokens.unwrap_or_default(), self.tokens.is_some()),
            "modelID": self.model.model_id, "providerID": self.model.provider_id, "sessionID": session.id,
            "time": { "created": self.created.unix_ms() },
        });
        if let Some(completed) = self.completed {
            info["time"]["completed"] = json!(completed.unix_ms());
        }
        if let Some(finish) = self.finish {
            info["finish"] = json!(finish);
        }
        if let Some(error) = &self.error {
            info["error"] = error.clone();
        }
        if self.summary {
            info["summary"] = json!(true);
        }
        info
    }
}

/// Tokens as agent servers count them; the total is there once a step is over.
pub(crate) fn tokens(tokens: Tokens, with_total: bool) -> Value {
    let mut value = json!({
        "input": tokens.input, "output": tokens.output, "reasoning": tokens.reasoning,
        "cache": { "read": tokens.cache_read, "write": tokens.cache_write },
    });
    if with_total {
        let total = tokens.input + tokens.output + tokens.reasoning + tokens.cache_read + tokens.cache_write;
        value["total"] = json!(total);
    }
    value
}

/// Millionths of a dollar as dollars.
pub(crate) fn dollars(micros: u64) -> Value {
    #[expect(clippy::cast_precision_loss, reason = "a cost below 2^53 millionths is exact")]
    let dollars = micros as f64 / 1e6;
    json!(dollars)
}

/// The parts of a prompt: those it has, or its text as one.
pub(crate) fn parts_of(prompt: &Prompt) -> Vec<Value> {
    let parts = prompt.parts.iter().flatten().filter(|part| part.is_object()).map(|part| {
        let mut part = part.clone();
        if part["type"].is_null() {
            part["type"] = json!("text");
        }
        part
    });
    prompt.text.iter().map(|text| json!({ "type": "text", "text": text })).chain(parts).collect()
}
