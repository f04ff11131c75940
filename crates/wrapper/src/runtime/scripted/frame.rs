//! Who takes steps in a turn, and the step that is open. What moves them on is in [`super::play`].

use std::collections::VecDeque;

use serde_json::json;

use super::{
    doing::{Doing, ToolPart},
    machine::{Emit, Pace},
    scenario::{Action, Step, Task, TodoStatus, Todos},
};
use crate::runtime::shape::{
    diff::FileChange,
    emit::{Assistant, Session, Tokens, User},
};

/// Someone who takes steps.
#[derive(Debug)]
pub(super) struct Frame {
    pub(super) kind: Kind,
    pub(super) user: User,
    pub(super) steps: VecDeque<Step>,
    pub(super) open: Option<Open>,
    /// What its tools changed: per file from before the first change to after the last.
    pub(super) changes: Vec<FileChange>,
    /// The latest text that was said whole.
    pub(super) said: String,
}

#[derive(Debug)]
pub(super) enum Kind {
    Turn,
    /// A sub-agent, with its session.
    Task(Box<Session>),
    /// The summary that replaces what was said.
    Compaction,
}

/// A step that has begun.
#[derive(Debug)]
pub(super) struct Open {
    pub(super) message: Assistant,
    pub(super) actions: VecDeque<Action>,
    pub(super) doing: Option<Doing>,
    pub(super) tokens: Tokens,
    pub(super) cost_micros: u64,
    /// The name of the work folder's state before the step.
    pub(super) snapshot: String,
    /// Files changed in it.
    pub(super) files: Vec<String>,
}

impl Frame {
    pub(super) fn new(kind: Kind, user: User, steps: &[Step]) -> Self {
        Self {
            kind,
            user,
            steps: steps.iter().cloned().collect(),
            open: None,
            changes: Vec::new(),
            said: String::new(),
        }
    }

    /// The rest of the turn is replaced.
    pub(super) fn go_on_with(&mut self, steps: Vec<Step>) {
        self.steps = steps.into();
        if let Some(open) = &mut self.open {
            open.doing = None;
            open.actions.clear();
        }
    }

    pub(super) fn changed(&mut self, change: FileChange) {
        match self.changes.iter_mut().find(|earlier| earlier.path == change.path) {
            Some(earlier) => earlier.after = change.after,
            None => self.changes.push(change),
        }
    }
}

impl Open {
    pub(super) fn begin(
        emit: &mut Emit,
        session: &Session,
        user: &User,
        step: Step,
        pace: Pace,
        summary: bool,
    ) -> Self {
        let agent = if summary { "compaction".to_owned() } else { user.agent.clone() };
        let message = Assistant {
            id: emit.id("msg"),
            parent: user.id.clone(),
            created: emit.now,
            completed: None,
            agent,
            model: user.model.clone(),
            summary,
            tokens: None,
            cost_micros: 0,
            finish: None,
            error: None,
        };
        emit.assistant(session, &message);
        let until = pace.after(emit.now, step.latency_ms);
        Self {
            message,
            actions: step.actions.into(),
            doing: Some(Doing::Latency(until)),
            tokens: step.tokens,
            cost_micros: step.cost_micros,
            snapshot: emit.ids.snapshot(),
            files: Vec::new(),
        }
    }
}

/// The session that a frame speaks in: its own if it is a sub-agent, else that of whoever is below.
pub(super) fn session<'a>(
    kind: &'a mut Kind,
    below: &'a mut [Frame],
    root: &'a mut Session,
) -> &'a mut Session {
    if let Kind::Task(session) = kind {
        return session;
    }
    below
        .iter_mut()
        .rev()
        .find_map(|frame| match &mut frame.kind {
            Kind::Task(session) => Some(session.as_mut()),
            Kind::Turn | Kind::Compaction => None,
        })
        .unwrap_or(root)
}

/// The list of todos is a tool that ends at once.
pub(super) fn set_todos(emit: &mut Emit, session: &Session, message: &str, todos: &Todos) {
    let open = todos.todos.iter().filter(|todo| todo.status != TodoStatus::Completed).count();
    let input = json!({ "todos": todos.todos });
    let part = ToolPart::begin(emit, session, message, "todowrite", input.clone(), &format!("{open} todos"));
    part.running(emit, session);
    let data = json!({ "sessionID": session.id, "todos": todos.todos });
    emit.event("todo.updated", Some(&session.id), &data);
    let output = serde_json::to_string_pretty(&todos.todos).expect("todos serialise");
    part.completed(emit, session, &output, &json!({ "todos": todos.todos, "truncated": false }));
}

/// A sub-agent begins: its session, its prompt, and the tool part that stands for it.
pub(super) fn delegate(emit: &mut Emit, session: &Session, message: &str, task: &Task) -> (Frame, ToolPart) {
    let prompt = task.prompt.0.trim_end();
    let input = json!({ "description": task.description, "prompt": prompt, "subagent_type": task.agent });
    let mut part = ToolPart::begin(emit, session, message, "task", input, &task.description);
    let child = Session {
        id: emit.id("ses"),
        parent: Some(session.id.clone()),
        title: format!("{} (@{} subagent)", task.description, task.agent),
        agent: task.agent.clone(),
        created: emit.now,
        updated: emit.now,
        tokens: Tokens::default(),
        cost_micros: 0,
        summary: None,
        ..session.clone()
    };
    emit.session("session.created", &child);
    part.metadata = Some(json!({
        "parentSessionId": session.id, "sessionId": child.id,
        "model": { "providerID": child.model.provider_id, "modelID": child.model.model_id },
    }));
    part.running(emit, session);
    let user = User {
        id: emit.id("msg"),
        created: emit.now,
        agent: task.agent.clone(),
        model: child.model.clone(),
        diffs: None,
    };
    emit.user(&child, &user);
    let id = emit.id("prt");
    emit.part(&child, &user.id, &id, json!({ "type": "text", "text": prompt }));
    emit.event("session.turn.open", Some(&child.id), &json!({ "sessionID": child.id }));
    emit.busy(&child);
    (Frame::new(Kind::Task(Box::new(child)), user, &task.steps), part)
}
