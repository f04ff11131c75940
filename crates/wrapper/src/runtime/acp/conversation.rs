//! One ACP session as a conversation of messages and parts, pure: what the agent says goes in, events in the shape of agent
//! servers come out.
//!
//! Invariant: after every call [`Conversation::poll`] yields what follows from it, in order. A turn that was opened is closed
//! exactly once, with everything that was open in it.

mod ask;
mod step;

use std::{
    collections::{BTreeMap, VecDeque},
    mem,
};

use protocol::{NewEvent, PermissionReply, Prompt, Timestamp};
use serde_json::{Value, json};

pub(super) use self::ask::Outcome;
use self::{ask::Ask, step::Step};
use super::{
    content::{self, PromptCapabilities},
    rpc::RpcError,
    tool::Tool,
};
use crate::runtime::shape::emit::{Emit, Model, Session, Tokens, User, dollars, parts_of, tokens};

/// The conversation.
#[derive(Debug)]
pub(super) struct Conversation {
    emit: Emit,
    session: Session,
    turn: Option<Turn>,
    /// What the agent says outside of a turn.
    aside: Option<Step>,
    /// Who was answered last.
    user: User,
    /// The tool calls of the turn, and of the one before it those that it left open.
    tools: BTreeMap<String, Tool>,
    /// Prompts that are in the transcript and that the agent was not given yet.
    waiting: VecDeque<Waiting>,
    queue_shown: bool,
    asks: BTreeMap<String, Ask>,
    /// What the session has cost so far, as the agent says.
    cost_micros: u64,
}

/// A prompt that the agent is to be given: the content of `session/prompt`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Give {
    /// The user's message.
    pub(super) message: String,
    /// ACP content blocks.
    pub(super) content: Vec<Value>,
}

/// How the agent ended a prompt, if it did not refuse it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Stopped {
    /// `end_turn`, `max_tokens`, `max_turn_requests`, `refusal`, `cancelled`.
    pub(super) reason: String,
    /// The tokens of the turn, where the agent counts them.
    pub(super) usage: Option<Tokens>,
}

#[derive(Debug)]
struct Waiting {
    user: User,
    content: Vec<Value>,
}

#[derive(Debug)]
struct Turn {
    step: Option<Step>,
    cancelled: bool,
}

impl Conversation {
    /// The session `id`, new or taken up again.
    pub(super) fn new(
        seed: u64,
        now: Timestamp,
        id: &str,
        directory: &str,
        agent: &str,
        resumed: bool,
    ) -> Self {
        let mut emit = Emit::new(seed, now);
        let session = Session {
            runtime: "acp",
            id: id.to_owned(),
            parent: None,
            title: agent.to_owned(),
            agent: agent.to_owned(),
            model: Model { provider_id: "acp".to_owned(), model_id: agent.to_owned() },
            directory: directory.to_owned(),
            created: now,
            updated: now,
            tokens: Tokens::default(),
            cost_micros: 0,
            summary: None,
        };
        let user = User {
            id: String::new(),
            created: now,
            agent: session.agent.clone(),
            model: session.model.clone(),
            diffs: None,
        };
        emit.session(if resumed { "session.updated" } else { "session.created" }, &session);
        Self {
            emit,
            session,
            turn: None,
            aside: None,
            user,
            tools: BTreeMap::new(),
            waiting: VecDeque::new(),
            queue_shown: false,
            asks: BTreeMap::new(),
            cost_micros: 0,
        }
    }

    /// What happens next, oldest first.
    pub(super) fn poll(&mut self) -> Option<NewEvent> {
        self.emit.outputs.pop_front()
    }

    /// The agent says which model (`provider/model`, or a name of its own) answers.
    pub(super) fn model(&mut self, name: &str) {
        if name == self.session.model.model_id {
            // Whoever chose it by this name said whose it is.
            return;
        }
        let (provider, model) = name.split_once('/').unwrap_or(("acp", name));
        self.session.model = Model { provider_id: provider.to_owned(), model_id: model.to_owned() };
    }

    /// The agent took the model and the mode of the prompt that it is given, and stays with them.
    pub(super) fn stay(&mut self) {
        self.session.model = self.user.model.clone();
        self.session.agent.clone_from(&self.user.agent);
    }

    /// A tool whose output is that of a terminal.
    pub(super) fn terminal_output(&mut self, now: Timestamp, terminal: &str, output: &str) {
        self.emit.now = now;
        for tool in self.tools.values_mut().filter(|tool| tool.shows(terminal)) {
            tool.terminal_output(&mut self.emit, &self.session, output);
        }
    }

    /// The user says something. What comes back is to be given to the agent now; while it answers another prompt, nothing: it
    /// takes one at a time, and this one is its next.
    pub(super) fn prompt(
        &mut self,
        now: Timestamp,
        prompt: &Prompt,
        can: PromptCapabilities,
    ) -> (String, Option<Give>) {
        self.emit.now = now;
        let parts = parts_of(prompt);
        // The protocol has no place of its own for instructions: they go before what the user says, who is not shown them.
        let system = prompt.system.as_ref().map(|system| json!({ "type": "text", "text": system }));
        let content = system.into_iter().chain(parts.iter().map(|part| content::block(part, can))).collect();
        let model = prompt.model.as_ref().map_or_else(
            || self.session.model.clone(),
            |model| Model { provider_id: model.provider_id.clone(), model_id: model.model_id.clone() },
        );
        let user = User {
            id: prompt.message_id.clone().unwrap_or_else(|| self.emit.id("msg")),
            created: now,
            agent: prompt.agent.clone().unwrap_or_else(|| self.session.agent.clone()),
            model,
            diffs: None,
        };
        let id = user.id.clone();
        self.emit.user(&self.session, &user);
        for part in parts {
            let part_id = self.emit.id("prt");
            self.emit.part(&self.session, &id, &part_id, part);
        }
        self.waiting.push_back(Waiting { user, content });
        if self.turn.is_some() {
            self.queue_changed();
            return (id, None);
        }
        (id, self.open_turn())
    }

    /// The agent's `session/update`.
    pub(super) fn update(&mut self, now: Timestamp, update: &Value) {
        self.emit.now = now;
        match update["sessionUpdate"].as_str().unwrap_or_default() {
            "agent_message_chunk" => self.say("text", update),
            "agent_thought_chunk" => self.say("reasoning", update),
            "tool_call" | "tool_call_update" => self.tool(update),
            "plan" => {
                let data = json!({ "sessionID": self.session.id, "todos": content::todos(update) });
                self.emit.event("todo.updated", Some(&self.session.id), &data);
            }
            "usage_update" => self.usage(update),
            "session_info_update" => {
                if let Some(title) = update["title"].as_str() {
                    title.clone_into(&mut self.session.title);
                    self.emit.session_updated(&mut self.session);
                }
            }
            "current_mode_update" => {
                if let Some(mode) = update["currentModeId"].as_str() {
                    mode.clone_into(&mut self.session.agent);
                    self.emit.session_updated(&mut self.session);
                }
            }
            // The user's own words are in the transcript since they were said; the commands are the driver's.
            "user_message_chunk" | "available_commands_update" => {}
            _ => self.pass_on(update),
        }
    }

    /// Whether the agent says something outside of a turn, which is over when it pauses.
    pub(super) fn is_speaking_aside(&self) -> bool {
        self.aside.is_some()
    }

    /// What the agent said outside of a turn is whole.
    pub(super) fn pause(&mut self, now: Timestamp) {
        self.emit.now = now;
        self.close_aside();
    }

    /// The agent's `session/request_permission`, in a turn or outside of one. Returns its answer if nobody is to be asked: the turn is
    /// aborted, or it is for no call.
    pub(super) fn ask(&mut self, now: Timestamp, request: Value, params: &Value) -> Option<Outcome> {
        self.emit.now = now;
        let ask = Ask::new(request, params);
        if self.turn.as_ref().is_some_and(|turn| turn.cancelled) {
            return Some(ask.cancelled());
        }
        let call = &params["toolCall"];
        let Some(call_id) = call["toolCallId"].as_str() else { return Some(ask.cancelled()) };
        self.begin_tool(call_id);
        self.tool(call);
        let tool = self.tools.get(call_id)?;
        let id = self.emit.id("per");
        let patterns = [tool.pattern()];
        let always: &[String] = if ask.offers("allow_always") { &patterns } else { &[] };
        let data = json!({
            "id": id, "sessionID": self.session.id, "permission": tool.name(), "patterns": patterns,
            "metadata": tool.input(), "always": always,
            "tool": { "messageID": tool.message(), "callID": call_id },
        });
        self.emit.event("permission.asked", Some(&self.session.id), &data);
        self.asks.insert(id, ask);
        None
    }

    /// A person answers a permission; nothing if none of this id waits.
    pub(super) fn answer(&mut self, now: Timestamp, id: &str, reply: PermissionReply) -> Option<Outcome> {
        self.emit.now = now;
        let ask = self.asks.remove(id)?;
        self.replied(id, reply);
        Some(ask.answered(reply))
    }

    /// The turn is to end. Returns the answers that open permissions get, also those outside of a turn, and whether a turn runs, so that
    /// the agent is to be told, too.
    pub(super) fn cancel(&mut self, now: Timestamp) -> (Vec<Outcome>, bool) {
        self.emit.now = now;
        let asks = mem::take(&mut self.asks);
        for id in asks.keys() {
            self.replied(id, PermissionReply::Reject);
        }
        let runs = self.turn.as_mut().map(|turn| turn.cancelled = true).is_some();
        // Somebody who says stop does not mean "and then go on with the next".
        self.lose_waiting("since the turn before it was aborted");
        (asks.into_values().map(Ask::cancelled).collect(), runs)
    }

    /// The agent has answered `session/prompt`. Returns what it is to be given next.
    pub(super) fn finished(&mut self, now: Timestamp, result: Result<Stopped, RpcError>) -> Option<Give> {
        self.emit.now = now;
        let was_cancelled = self.turn.as_ref()?.cancelled;
        let (finish, error, reason) = match result {
            Ok(stopped) => {
                let (step, ..) = self.step();
                step.tokens = stopped.usage.unwrap_or(step.tokens);
                match stopped.reason.as_str() {
                    "cancelled" => (None, Some(aborted()), "interrupted"),
                    "max_tokens" => (Some("length"), None, "completed"),
                    "refusal" => {
                        (Some("content-filter"), Some(provider_error("the model refused to answer")), "error")
                    }
                    "max_turn_requests" => (
                        Some("length"),
                        Some(provider_error("the agent took as many steps as a turn may have")),
                        "error",
                    ),
                    _ => (Some("stop"), None, "completed"),
                }
            }
            Err(_) if was_cancelled => (None, Some(aborted()), "interrupted"),
            Err(error) => (None, Some(provider_error(&error.reason())), "error"),
        };
        let broke_off = was_cancelled || error.is_some();
        self.close_prompt(finish, error);
        if !broke_off && !self.waiting.is_empty() {
            return self.give_next();
        }
        self.emit.session_updated(&mut self.session);
        self.emit.idle(&self.session);
        self.emit.turn_close(&self.session, reason);
        // A turn that broke off is over as such; what waited behind it has one of its own.
        if self.waiting.is_empty() { None } else { self.open_turn() }
    }

    /// The agent is gone: what was open ends here. Nothing is said of the end itself, which is the wrapper's to say.
    pub(super) fn gone(&mut self, now: Timestamp) {
        self.emit.now = now;
        for id in mem::take(&mut self.asks).into_keys() {
            self.replied(&id, PermissionReply::Reject);
        }
        self.lose_waiting("before it ended");
        self.close_aside();
    }

    fn open_turn(&mut self) -> Option<Give> {
        let data = json!({ "sessionID": self.session.id });
        self.emit.event("session.turn.open", Some(&self.session.id), &data);
        self.give_next()
    }

    fn give_next(&mut self) -> Option<Give> {
        let Waiting { user, content } = self.waiting.pop_front()?;
        self.close_aside();
        let message = user.id.clone();
        self.user = user;
        // Another turn may call its tools the same.
        self.tools.retain(|_, tool| !tool.is_over());
        self.turn = Some(Turn { step: None, cancelled: false });
        self.emit.busy(&self.session);
        if self.queue_shown {
            self.queue_changed();
        }
        Some(Give { message, content })
    }

    /// What the prompt came to is over: its tools, and the message that is open.
    fn close_prompt(&mut self, finish: Option<&'static str>, error: Option<Value>) {
        if let Some(error) = &error {
            let data = json!({ "sessionID": self.session.id, "error": error });
            self.emit.event("session.error", Some(&self.session.id), &data);
        }
        // Some go on without the turn: what is said of those later is still heard.
        self.tools.retain(|_, tool| tool.is_open());
        for tool in self.tools.values_mut() {
            tool.broken_off(&mut self.emit, &self.session);
        }
        if error.is_some() {
            self.step();
        }
        if let Some(step) = self.turn.take().and_then(|turn| turn.step) {
            self.close_step(step, finish, error);
        }
    }

    fn close_step(&mut self, mut step: Step, finish: Option<&'static str>, error: Option<Value>) {
        step.hush(&mut self.emit, &self.session);
        let cost = self.cost_micros.saturating_sub(self.session.cost_micros);
        if let Some(finish) = finish {
            let id = self.emit.id("prt");
            let body = json!({
                "type": "step-finish", "reason": finish, "tokens": tokens(step.tokens, true), "cost": dollars(cost),
            });
            self.emit.part(&self.session, &step.message.id, &id, body);
        }
        step.message.tokens = Some(step.tokens);
        step.message.cost_micros = cost;
        step.message.finish = finish;
        step.message.error = error;
        step.message.completed = Some(self.emit.now);
        self.emit.assistant(&self.session, &step.message);
        self.session.cost_micros += cost;
        if step.tokens != Tokens::default() {
            self.session.tokens = step.tokens;
        }
    }

    /// What was said outside of a turn is over.
    fn close_aside(&mut self) {
        if let Some(step) = self.aside.take() {
            self.close_step(step, Some("stop"), None);
        }
    }

    /// The message that is open, with what tells of it: that of the turn, or outside of one another, whose end nobody says. It is
    /// opened if there is none.
    fn step(&mut self) -> (&mut Step, &mut Emit, &Session) {
        let Self { emit, session, turn, aside, user, .. } = self;
        let completed = turn.is_none().then_some(emit.now);
        let open = turn.as_mut().map_or(aside, |turn| &mut turn.step);
        let step = open.get_or_insert_with(|| Step::begin(emit, session, user, completed));
        (step, emit, session)
    }

    fn say(&mut self, kind: &'static str, update: &Value) {
        let text = content::text(&update["content"]);
        if kind == "text"
            && let Some(name) = update["messageId"].as_str()
            && !self.step().0.takes(name)
        {
            let turn = self.turn.as_mut();
            match turn.map_or_else(|| self.aside.take(), |turn| turn.step.take()) {
                Some(step) if self.turn.is_some() => self.close_step(step, Some("tool-calls"), None),
                Some(step) => self.close_step(step, Some("stop"), None),
                None => {}
            }
            self.step().0.takes(name);
        }
        let (step, emit, session) = self.step();
        step.say(emit, session, kind, &text);
    }

    fn tool(&mut self, update: &Value) {
        let Some(call) = update["toolCallId"].as_str() else { return };
        let begins = update["sessionUpdate"] == "tool_call";
        if begins && self.tools.get(call).is_some_and(Tool::is_broken_off) {
            // The call of this id was another turn's.
            self.tools.remove(call);
        }
        if self.turn.is_none() && !begins && !self.tools.contains_key(call) {
            // Nothing is known of the call but what changed.
            return self.pass_on(update);
        }
        self.begin_tool(call);
        let open = self.turn.as_mut().map_or(&mut self.aside, |turn| &mut turn.step);
        if let Some(step) = open {
            step.hush(&mut self.emit, &self.session);
        }
        if let Some(tool) = self.tools.get_mut(call) {
            tool.update(&mut self.emit, &self.session, update);
        }
    }

    /// The call is known from here on.
    fn begin_tool(&mut self, call: &str) {
        if !self.tools.contains_key(call) {
            let (step, emit, _) = self.step();
            let tool = Tool::begin(emit, &step.message.id, call);
            self.tools.insert(call.to_owned(), tool);
        }
    }

    /// An update that has no event of its own.
    fn pass_on(&mut self, update: &Value) {
        let kind = update["sessionUpdate"].as_str().unwrap_or_default();
        let data = json!({ "sessionID": self.session.id, "update": update });
        self.emit.event(&format!("acp.{kind}"), Some(&self.session.id), &data);
    }

    fn usage(&mut self, update: &Value) {
        let cost = &update["cost"];
        if cost.is_object() && cost["currency"] != "USD" {
            // All costs here are in dollars, and nobody here knows what another currency is worth.
            self.pass_on(update);
        } else if let Some(cost) = cost["amount"].as_f64() {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a cost is small, and what is below zero becomes zero"
            )]
            let micros = (cost * 1e6).round() as u64;
            self.cost_micros = self.cost_micros.max(micros);
        }
        let used = update["used"].as_u64();
        if let (Some(used), Some(Turn { step: Some(step), .. })) = (used, &mut self.turn) {
            // What fills the context; agents that count more say so at the end of the turn.
            step.tokens = Tokens { input: used, ..Tokens::default() };
        }
    }

    fn replied(&mut self, id: &str, reply: PermissionReply) {
        let data = json!({ "sessionID": self.session.id, "requestID": id, "reply": reply });
        self.emit.event("permission.replied", Some(&self.session.id), &data);
    }

    /// The agent is not given what waits any more: the log says so of each.
    fn lose_waiting(&mut self, why: &str) {
        for Waiting { user, .. } in mem::take(&mut self.waiting) {
            let message = format!("the agent was not given the message {} {why}: it is lost", user.id);
            let error = json!({ "name": "PromptLostError", "data": { "message": message } });
            let data = json!({ "sessionID": self.session.id, "error": error });
            self.emit.event("session.error", Some(&self.session.id), &data);
        }
        if self.queue_shown {
            self.queue_changed();
        }
    }

    fn queue_changed(&mut self) {
        let queued: Vec<&str> = self.waiting.iter().map(|waiting| waiting.user.id.as_str()).collect();
        self.queue_shown = !queued.is_empty();
        let data = json!({ "sessionID": self.session.id, "queued": queued });
        self.emit.event("session.queue.changed", Some(&self.session.id), &data);
    }
}

fn aborted() -> Value {
    json!({ "name": "MessageAbortedError", "data": { "message": "Aborted" } })
}

fn provider_error(message: &str) -> Value {
    json!({ "name": "APIError", "data": { "message": message, "isRetryable": false } })
}

#[cfg(test)]
mod tests;
