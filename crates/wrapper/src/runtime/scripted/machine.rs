//! The interpreter of a scenario, pure: what happens goes in with the time, events and orders to the driver come out.
//!
//! Invariant: after every call, [`Machine::poll_output`] yields what follows from it, in order, and
//! [`Machine::poll_timeout`] says when [`Machine::handle_timeout`] is next due.

use std::{collections::VecDeque, sync::Arc};

use protocol::{Answer, Delivery, NewEvent, PermissionReply, Prompt, Timestamp};
use serde_json::{Value, json};

use super::{
    play::Play,
    scenario::{Scenario, Script},
    tool::{Call, Outcome},
};
use crate::runtime::shape::{
    diff::FileChange,
    emit::{self, Model, Session, Tokens, User, parts_of},
};

/// What the interpreter says its events with.
pub(crate) type Emit = emit::Emit<Output>;

/// What comes out of the interpreter.
#[derive(Debug)]
pub(crate) enum Output {
    /// Something happened.
    Event(NewEvent),
    /// Run this tool and say what comes of it ([`Machine::tool_output`], [`Machine::tool_done`]).
    Run(Call),
    /// End the tool of this number; nothing more is to be said of it.
    Cancel(u64),
}

impl From<NewEvent> for Output {
    fn from(event: NewEvent) -> Self {
        Self::Event(event)
    }
}

/// Why a reply was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("nothing of this id waits for an answer")]
pub(crate) struct NothingWaits;

/// A prompt that is in the transcript and was not taken up yet.
#[derive(Debug)]
struct Waiting {
    user: User,
    text: String,
    /// It is taken at the next step of the turn that runs.
    at_boundary: bool,
}

/// The interpreter.
#[derive(Debug)]
pub(crate) struct Machine {
    scenario: Arc<Scenario>,
    pub(super) emit: Emit,
    root: Session,
    /// The turn that runs.
    play: Option<Play>,
    waiting: VecDeque<Waiting>,
    /// Viewers were told of prompts that wait.
    queue_shown: bool,
    /// Turns begun so far.
    played: usize,
    /// Free turns begun so far.
    freely: usize,
    /// The turn that comes next where nothing chooses one.
    next: usize,
    /// How many turns of `start` have begun, and when the next one is due.
    started: usize,
    start_at: Option<Timestamp>,
    /// Permissions that were granted for ever.
    always: Vec<String>,
    /// Everything takes this part of its time.
    pace: Pace,
}

/// How fast a scenario is played.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace(f64);

impl Pace {
    /// `speed` times as fast as the scenario says; infinity plays without any pause.
    pub(crate) fn new(speed: f64) -> Self {
        Self(speed)
    }

    /// The moment `ms` milliseconds of the scenario after `now`.
    pub(crate) fn after(self, now: Timestamp, ms: u64) -> Timestamp {
        now.after(std::time::Duration::from_millis(ms).div_f64(self.0.max(0.001)))
    }
}

impl Machine {
    /// An agent that has not said anything. `resume` is the session to go on with.
    pub(crate) fn new(
        scenario: Arc<Scenario>,
        directory: String,
        seed: u64,
        pace: Pace,
        resume: Option<String>,
        now: Timestamp,
    ) -> Self {
        let mut emit = Emit::new(seed, now);
        let script = scenario.script();
        let kind = if resume.is_some() { "session.updated" } else { "session.created" };
        let root = Session {
            runtime: "scripted",
            id: resume.unwrap_or_else(|| emit.id("ses")),
            parent: None,
            title: script.title.clone(),
            agent: script.agent.clone(),
            model: script.model.clone(),
            directory,
            created: now,
            updated: now,
            tokens: Tokens::default(),
            cost_micros: 0,
            summary: None,
        };
        emit.session(kind, &root);
        let start_at = script.start.is_some().then_some(now);
        Self {
            scenario,
            emit,
            root,
            play: None,
            waiting: VecDeque::new(),
            queue_shown: false,
            played: 0,
            freely: 0,
            next: 0,
            started: 0,
            start_at,
            always: Vec::new(),
            pace,
        }
    }

    /// The session of the agent.
    pub(crate) fn session(&self) -> &str {
        &self.root.id
    }

    /// Whether nothing runs.
    #[cfg(test)]
    pub(crate) fn is_idle(&self) -> bool {
        self.play.is_none()
    }

    /// What comes out next.
    pub(crate) fn poll_output(&mut self) -> Option<Output> {
        self.emit.outputs.pop_front()
    }

    /// When [`handle_timeout`](Self::handle_timeout) is next due.
    pub(crate) fn poll_timeout(&self) -> Option<Timestamp> {
        match &self.play {
            Some(play) => play.deadline(),
            None => self.start_at,
        }
    }

    /// Time has passed.
    pub(crate) fn handle_timeout(&mut self, now: Timestamp) {
        self.at(now);
        if self.play.is_none() && self.start_at.is_some_and(|at| at <= now) {
            self.start_by_itself();
        }
        self.advance();
    }

    /// The user says something. Returns the id of the message.
    pub(crate) fn prompt(&mut self, now: Timestamp, prompt: &Prompt) -> String {
        self.at(now);
        let parts = parts_of(prompt);
        let model = prompt.model.as_ref().map_or_else(
            || self.root.model.clone(),
            |model| Model { provider_id: model.provider_id.clone(), model_id: model.model_id.clone() },
        );
        let user = self.say(parts.clone(), prompt.message_id.clone(), prompt.agent.clone(), model);
        let id = user.id.clone();
        let said = parts.iter().filter_map(|part| part["text"].as_str().or(part["filename"].as_str()));
        let text = said.collect::<Vec<_>>().join("\n");
        let waiting = Waiting { user, text, at_boundary: prompt.delivery == Delivery::Boundary };
        if prompt.delivery == Delivery::Interrupt {
            self.waiting.push_front(waiting);
        } else {
            self.waiting.push_back(waiting);
        }
        if self.play.is_some() {
            self.queue_changed();
        }
        if prompt.delivery == Delivery::Interrupt {
            self.end_turn_early();
        }
        self.advance();
        id
    }

    /// The turn that runs is to end. With none, the session says that it is idle, as agent servers do.
    pub(crate) fn abort(&mut self, now: Timestamp) {
        self.at(now);
        if self.play.is_none() {
            self.emit.idle(&self.root);
        }
        self.end_turn_early();
        self.advance();
    }

    /// A permission is answered; `message` says with a rejection what to do instead.
    pub(crate) fn permission(
        &mut self,
        now: Timestamp,
        id: &str,
        reply: PermissionReply,
        message: Option<&str>,
    ) -> Result<(), NothingWaits> {
        self.at(now);
        let play = self.play.as_mut().ok_or(NothingWaits)?;
        let granted = play.permission(&mut self.emit, &self.root, id, reply, message).ok_or(NothingWaits)?;
        self.always.extend(granted);
        self.advance();
        Ok(())
    }

    /// A question is answered, or declined with `None`.
    pub(crate) fn question(
        &mut self,
        now: Timestamp,
        id: &str,
        answer: Option<&Answer>,
    ) -> Result<(), NothingWaits> {
        self.at(now);
        let play = self.play.as_mut().ok_or(NothingWaits)?;
        if !play.question(&mut self.emit, &self.root, id, answer) {
            return Err(NothingWaits);
        }
        self.advance();
        Ok(())
    }

    /// What a tool that runs has written so far, as a whole.
    pub(crate) fn tool_output(&mut self, now: Timestamp, call: u64, output: String) {
        self.at(now);
        if let Some(play) = &mut self.play {
            play.tool_output(&mut self.emit, &self.root, call, output);
        }
    }

    /// A tool ended.
    pub(crate) fn tool_done(
        &mut self,
        now: Timestamp,
        call: u64,
        outcome: Outcome,
        change: Option<FileChange>,
    ) {
        self.at(now);
        if let Some(play) = &mut self.play {
            play.tool_done(&mut self.emit, &self.root, call, outcome, change);
        }
        self.advance();
    }

    /// Time does not go back in the events of one agent, whatever the clock does.
    fn at(&mut self, now: Timestamp) {
        self.emit.now = self.emit.now.max(now);
    }

    /// Plays on until something has to be waited for.
    fn advance(&mut self) {
        loop {
            let Some(play) = &mut self.play else {
                let Some(waiting) = self.waiting.pop_front() else { return };
                let turn = choose(self.scenario.script(), &waiting.text, &mut self.next, &mut self.freely);
                self.begin(waiting.user, &waiting.text, turn);
                continue;
            };
            if play.at_step_end()
                && let Some(place) = self.waiting.iter().position(|waiting| waiting.at_boundary)
                && let Some(waiting) = self.waiting.remove(place)
            {
                let script = self.scenario.script();
                let turn = choose(script, &waiting.text, &mut self.next, &mut self.freely);
                play.insert(waiting.user, first_line(&waiting.text), &script.turns[turn].steps);
                self.queue_changed();
                continue;
            }
            if !play.advance(&mut self.emit, &mut self.root, self.pace, &self.always) {
                if play.is_over() {
                    self.play = None;
                    self.rest();
                    continue;
                }
                return;
            }
        }
    }

    /// Puts a message of the user into the transcript.
    fn say(&mut self, parts: Vec<Value>, id: Option<String>, agent: Option<String>, model: Model) -> User {
        let id = id.unwrap_or_else(|| self.emit.id("msg"));
        let agent = agent.unwrap_or_else(|| self.root.agent.clone());
        let user = User { id, created: self.emit.now, agent, model, diffs: None };
        self.emit.user(&self.root, &user);
        for part in parts {
            let id = self.emit.id("prt");
            self.emit.part(&self.root, &user.id, &id, part);
        }
        self.emit.session_updated(&mut self.root);
        user
    }

    fn begin(&mut self, user: User, text: &str, turn: usize) {
        if self.queue_shown {
            self.queue_changed();
        }
        let steps = &self.scenario.script().turns[turn].steps;
        self.played += 1;
        self.start_at = None;
        self.play = Some(Play::new(&mut self.emit, &self.root, user, first_line(text), steps, self.played));
    }

    /// The next turn of `start` begins.
    fn start_by_itself(&mut self) {
        let scenario = Arc::clone(&self.scenario);
        let script = scenario.script();
        let Some(start) = &script.start else { return };
        let name = &start.turns[self.started % start.turns.len()];
        let turn = script
            .turns
            .iter()
            .position(|turn| turn.name == *name)
            .expect("checked when the scenario was read");
        let prompt = script.turns[turn].prompt.as_ref().expect("checked when the scenario was read");
        self.started += 1;
        let text = prompt.0.trim_end();
        let parts = vec![json!({ "type": "text", "text": text })];
        let user = self.say(parts, None, None, self.root.model.clone());
        self.begin(user, text, turn);
    }

    /// Nothing runs: says when the next turn begins by itself.
    fn rest(&mut self) {
        let Some(start) = &self.scenario.script().start else { return };
        if start.repeat || self.started < start.turns.len() {
            self.start_at = Some(self.pace.after(self.emit.now, start.pause_ms));
        }
    }

    fn end_turn_early(&mut self) {
        if let Some(mut play) = self.play.take() {
            play.abort(&mut self.emit, &mut self.root);
            self.rest();
        }
    }

    fn queue_changed(&mut self) {
        let queued: Vec<&str> = self.waiting.iter().map(|waiting| waiting.user.id.as_str()).collect();
        let data = json!({ "sessionID": self.root.id, "queued": queued });
        self.queue_shown = !queued.is_empty();
        self.emit.event("session.queue.changed", Some(&self.root.id), &data);
    }
}

/// The turn that answers a prompt: the one it marks with `[[name]]`, one of whose keywords it has, a free one, the next one.
fn choose(script: &Script, text: &str, next: &mut usize, freely: &mut usize) -> usize {
    let marked = script.turns.iter().position(|turn| text.contains(&format!("[[{}]]", turn.name)));
    let lower = text.to_lowercase();
    let named = || {
        script
            .turns
            .iter()
            .position(|turn| turn.keywords.iter().any(|word| lower.contains(&word.to_lowercase())))
    };
    if let Some(turn) = marked.or_else(named) {
        return turn;
    }
    let free: Vec<usize> = (0..script.turns.len()).filter(|turn| script.turns[*turn].free).collect();
    if free.is_empty() {
        *next += 1;
        return (*next - 1) % script.turns.len();
    }
    *freely += 1;
    free[(*freely - 1) % free.len()]
}

/// The first line of a prompt, at most 160 characters of it: what `${prompt}` in a text stands for.
fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().chars().take(160).collect()
}
