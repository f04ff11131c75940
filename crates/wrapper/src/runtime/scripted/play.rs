//! One turn as it is played: a stack of frames, the lowest the turn itself, above it sub-agents and compactions.

use protocol::{Answer, PermissionReply, Timestamp};
use serde_json::{Value, json};

use super::{
    doing::{ABORTED, Answered, Asking, Doing, Running, Streaming},
    frame::{Frame, Kind, Open, delegate, session, set_todos},
    machine::{Emit, Pace},
    scenario::{Action, Failure, Step},
    tool::{Outcome, Tool},
};
use crate::runtime::shape::{
    diff::{FileChange, Patch},
    emit::{Session, Tokens, User, dollars, tokens},
};

/// A turn that runs.
#[derive(Debug)]
pub(crate) struct Play {
    frames: Vec<Frame>,
    /// How many turns there were with this one: what `${turn}` stands for.
    number: usize,
    /// What `${prompt}` and `${answer}` stand for.
    prompt: String,
    answer: String,
    /// Tool calls so far.
    calls: u64,
    /// A step has ended: from here on a prompt can come between two steps.
    stepped: bool,
}

impl Play {
    /// The turn that answers a message of the user.
    pub(crate) fn new(
        emit: &mut Emit,
        root: &Session,
        user: User,
        prompt: String,
        steps: &[Step],
        number: usize,
    ) -> Self {
        emit.event("session.turn.open", Some(&root.id), &json!({ "sessionID": root.id }));
        emit.busy(root);
        // Call numbers of all turns differ: a tool of an aborted turn may still end while the next one runs.
        let calls = (number as u64) << 32;
        let frames = vec![Frame::new(Kind::Turn, user, steps)];
        Self { frames, number, prompt, answer: String::new(), calls, stepped: false }
    }

    /// Whether there is nothing left to play.
    pub(crate) fn is_over(&self) -> bool {
        self.frames.is_empty()
    }

    /// Whether the turn is between two of its own steps.
    pub(crate) fn at_step_end(&self) -> bool {
        self.stepped && matches!(self.frames.as_slice(), [frame] if frame.open.is_none())
    }

    /// A message of the user comes between two steps: its steps come next.
    pub(crate) fn insert(&mut self, user: User, prompt: String, steps: &[Step]) {
        if let [frame] = self.frames.as_mut_slice() {
            frame.user = user;
            for step in steps.iter().rev() {
                frame.steps.push_front(step.clone());
            }
            self.prompt = prompt;
            self.stepped = false;
        }
    }

    /// When there is something to do next, if only time has to pass.
    pub(crate) fn deadline(&self) -> Option<Timestamp> {
        match self.frames.last()?.open.as_ref()?.doing.as_ref()? {
            Doing::Latency(until) | Doing::Pause(until) | Doing::Retry { until, .. } => Some(*until),
            Doing::Stream(stream) => Some(stream.next),
            Doing::Tool(running) => running.report_at(),
            Doing::Question(_) | Doing::Task(_) | Doing::Compacting => None,
        }
    }

    /// Does the next thing that can be done at this time. Returns whether there was one.
    pub(crate) fn advance(
        &mut self,
        emit: &mut Emit,
        root: &mut Session,
        pace: Pace,
        always: &[String],
    ) -> bool {
        let Some((frame, below)) = self.frames.split_last_mut() else { return false };
        let session = session(&mut frame.kind, below, root);
        let Some(open) = &mut frame.open else {
            match frame.steps.pop_front() {
                Some(step) => {
                    let summary = matches!(frame.kind, Kind::Compaction);
                    let session = super::frame::session(&mut frame.kind, below, root);
                    frame.open = Some(Open::begin(emit, session, &frame.user, step, pace, summary));
                }
                None => self.finish(emit, root),
            }
            return true;
        };
        let Some(doing) = &mut open.doing else {
            match open.actions.pop_front() {
                Some(action) => self.act(emit, root, action, pace, always),
                None => self.close_step(emit, root),
            }
            return true;
        };
        match doing {
            Doing::Latency(until) if *until <= emit.now => {
                emit.busy(session);
                let id = emit.id("prt");
                let body = json!({ "type": "step-start", "snapshot": open.snapshot });
                emit.part(session, &open.message.id, &id, body);
                open.doing = None;
            }
            Doing::Pause(until) if *until <= emit.now => open.doing = None,
            Doing::Stream(stream) if stream.next <= emit.now => {
                if stream.advance(emit, session, pace) {
                    frame.said.clone_from(&stream.text);
                    open.doing = None;
                }
            }
            Doing::Tool(running) if running.report_at().is_some_and(|at| at <= emit.now) => {
                running.report(emit, session);
            }
            Doing::Retry { retry, attempt, until } if *until <= emit.now => {
                match retry.delays_ms.get(*attempt) {
                    Some(delay) => {
                        *attempt += 1;
                        *until = pace.after(emit.now, *delay);
                        let next = until.unix_ms();
                        let (attempt, message) = (*attempt, &retry.message);
                        emit.status(
                            session,
                            &json!({ "type": "retry", "attempt": attempt, "message": message, "next": next }),
                        );
                    }
                    None => {
                        emit.busy(session);
                        open.doing = None;
                    }
                }
            }
            Doing::Latency(_)
            | Doing::Pause(_)
            | Doing::Stream(_)
            | Doing::Tool(_)
            | Doing::Retry { .. }
            | Doing::Question(_)
            | Doing::Task(_)
            | Doing::Compacting => return false,
        }
        true
    }

    /// The permission of this id is answered. Returns what is allowed for ever; nothing if none of this id waits.
    pub(crate) fn permission(
        &mut self,
        emit: &mut Emit,
        root: &Session,
        id: &str,
        reply: PermissionReply,
        message: Option<&str>,
    ) -> Option<Vec<String>> {
        let (session, frame) = self.top(root)?;
        let open = frame.open.as_mut()?;
        let Some(Doing::Tool(running)) = &mut open.doing else { return None };
        if running.waits_for() != Some(id) {
            return None;
        }
        match running.answered(emit, &session, reply, message) {
            Answered::GoOn { always, runs } => {
                if !runs {
                    open.doing = None;
                }
                Some(always)
            }
            Answered::Instead(steps) => {
                frame.go_on_with(steps);
                Some(Vec::new())
            }
        }
    }

    /// The question of this id is answered, or declined with `None`. Returns whether one of this id waits.
    pub(crate) fn question(
        &mut self,
        emit: &mut Emit,
        root: &Session,
        id: &str,
        answer: Option<&Answer>,
    ) -> bool {
        let Some((session, frame)) = self.top(root) else { return false };
        let Some(open) = &mut frame.open else { return false };
        let Some(Doing::Question(asking)) = &mut open.doing else { return false };
        if asking.id != id {
            return false;
        }
        match answer {
            Some(answer) => {
                let said = asking.answered(emit, &session, &answer.answers);
                open.doing = None;
                self.answer = said;
            }
            None => match asking.rejected(emit, &session, "The user dismissed this question") {
                Some(steps) => frame.go_on_with(steps),
                None => open.doing = None,
            },
        }
        true
    }

    /// What a tool has written so far.
    pub(crate) fn tool_output(&mut self, emit: &mut Emit, root: &Session, call: u64, output: String) {
        if let Some((session, frame)) = self.top(root)
            && let Some(Open { doing: Some(Doing::Tool(running)), .. }) = &mut frame.open
            && running.runs() == Some(call)
        {
            running.output(emit, &session, output);
        }
    }

    /// A tool ended.
    pub(crate) fn tool_done(
        &mut self,
        emit: &mut Emit,
        root: &Session,
        call: u64,
        outcome: Outcome,
        change: Option<FileChange>,
    ) {
        let Some((session, frame)) = self.top(root) else { return };
        let Some(open) = &mut frame.open else { return };
        let Some(Doing::Tool(running)) = &mut open.doing else { return };
        if running.runs() != Some(call) {
            return;
        }
        running.done(emit, &session, outcome, change.as_ref());
        open.doing = None;
        if let Some(change) = change {
            open.files.push(format!("{}/{}", session.directory, change.path));
            frame.changed(change);
        }
    }

    /// The turn ends here, with everything in it.
    pub(crate) fn abort(&mut self, emit: &mut Emit, root: &mut Session) {
        let error = json!({ "name": "MessageAbortedError", "data": { "message": "Aborted" } });
        while !self.frames.is_empty() {
            self.break_off(emit, root, &error, "interrupted");
        }
    }

    /// The frame that takes steps just now, and a copy of its session.
    fn top(&mut self, root: &Session) -> Option<(Session, &mut Frame)> {
        let mut root = root.clone();
        let (frame, below) = self.frames.split_last_mut()?;
        let session = session(&mut frame.kind, below, &mut root).clone();
        Some((session, frame))
    }

    /// Begins an action of the open step.
    fn act(&mut self, emit: &mut Emit, root: &mut Session, action: Action, pace: Pace, always: &[String]) {
        let (number, calls) = (self.number, self.calls);
        let fill = |text: &str, prompt: &str, answer: &str| {
            text.replace("${prompt}", prompt)
                .replace("${answer}", answer)
                .replace("${turn}", &number.to_string())
        };
        let Some((frame, below)) = self.frames.split_last_mut() else { return };
        let session = session(&mut frame.kind, below, root);
        let Some(open) = &mut frame.open else { return };
        let message = open.message.id.clone();
        if let Some(tool) = Tool::of(&action) {
            self.calls += 1;
            open.doing = Some(Doing::Tool(Running::begin(emit, session, &message, calls, tool, always)));
            return;
        }
        match action {
            Action::Text(stream) => {
                let text = fill(&stream.text.0, &self.prompt, &self.answer);
                open.doing =
                    Some(Doing::Stream(Streaming::begin(emit, session, &message, "text", &stream, text)));
            }
            Action::Reasoning(stream) => {
                let text = fill(&stream.text.0, &self.prompt, &self.answer);
                open.doing = Some(Doing::Stream(Streaming::begin(
                    emit,
                    session,
                    &message,
                    "reasoning",
                    &stream,
                    text,
                )));
            }
            Action::Todo(todos) => set_todos(emit, session, &message, &todos),
            Action::Question(question) => {
                open.doing = Some(Doing::Question(Asking::begin(emit, session, &message, question)));
            }
            Action::Pause(pause) => open.doing = Some(Doing::Pause(pace.after(emit.now, pause.ms))),
            Action::Retry(retry) => open.doing = Some(Doing::Retry { retry, attempt: 0, until: emit.now }),
            Action::Choose(mut choose) => {
                let chosen = choose.of.swap_remove((number - 1) % choose.of.len());
                for action in chosen.into_iter().rev() {
                    open.actions.push_front(action);
                }
            }
            Action::Task(task) => {
                let (frame, doing) = delegate(emit, session, &message, &task);
                open.doing = Some(Doing::Task(doing));
                self.frames.push(frame);
            }
            Action::Compact(stream) => {
                open.doing = Some(Doing::Compacting);
                let user = User { id: emit.id("msg"), created: emit.now, diffs: None, ..frame.user.clone() };
                emit.user(session, &user);
                let id = emit.id("prt");
                emit.part(session, &user.id, &id, json!({ "type": "compaction", "auto": true }));
                let step = Step {
                    actions: vec![Action::Text(stream)],
                    latency_ms: 700,
                    tokens: Tokens::default(),
                    cost_micros: 0,
                };
                self.frames.push(Frame::new(Kind::Compaction, user, &[step]));
            }
            Action::Error(failure) => self.break_off(emit, root, &error_of(&failure), "error"),
            Action::Bash(_)
            | Action::Write(_)
            | Action::Edit(_)
            | Action::Read(_)
            | Action::Grep(_)
            | Action::Glob(_) => {
                unreachable!("Tool::of knows every tool")
            }
        }
    }

    /// The open step has nothing left to do.
    fn close_step(&mut self, emit: &mut Emit, root: &mut Session) {
        let Some((frame, below)) = self.frames.split_last_mut() else { return };
        let session = session(&mut frame.kind, below, root);
        let Some(mut open) = frame.open.take() else { return };
        let reason = if frame.steps.is_empty() { "stop" } else { "tool-calls" };
        let id = emit.id("prt");
        let after = if open.files.is_empty() { open.snapshot.clone() } else { emit.ids.snapshot() };
        let body = json!({
            "type": "step-finish", "reason": reason, "snapshot": after,
            "tokens": tokens(open.tokens, true), "cost": dollars(open.cost_micros),
        });
        emit.part(session, &open.message.id, &id, body);
        open.message.tokens = Some(open.tokens);
        open.message.cost_micros = open.cost_micros;
        open.message.finish = Some(reason);
        emit.assistant(session, &open.message);
        if !open.files.is_empty() {
            let id = emit.id("prt");
            open.files.dedup();
            let body = json!({ "type": "patch", "hash": open.snapshot, "files": open.files });
            emit.part(session, &open.message.id, &id, body);
        }
        open.message.completed = Some(emit.now);
        emit.assistant(session, &open.message);
        add(&mut session.tokens, open.tokens);
        session.cost_micros += open.cost_micros;
        emit.session_updated(session);
        self.stepped = true;
    }

    /// The top frame has taken its last step.
    fn finish(&mut self, emit: &mut Emit, root: &mut Session) {
        let Some(mut frame) = self.frames.pop() else { return };
        match frame.kind {
            Kind::Turn => {
                close(emit, root, "completed");
                let diffs: Vec<Patch> =
                    frame.changes.iter().map(|change| Patch::of(change, &change.path)).collect();
                let sum = |lines: fn(&Patch) -> usize| diffs.iter().map(lines).sum();
                root.summary =
                    Some((sum(|patch| patch.additions), sum(|patch| patch.deletions), diffs.len()));
                emit.session_updated(root);
                emit.event("session.diff", Some(&root.id), &json!({ "sessionID": root.id, "diff": [] }));
                frame.user.diffs = Some(diffs);
                emit.user(root, &frame.user);
            }
            Kind::Task(child) => {
                close(emit, &child, "completed");
                let Some((below, rest)) = self.frames.split_last_mut() else { return };
                let session = session(&mut below.kind, rest, root);
                if let Some(Open { doing, .. }) = &mut below.open
                    && let Some(Doing::Task(part)) = doing.take()
                {
                    let said = frame.said.trim_end();
                    let output = format!(
                        "<task id=\"{}\" state=\"completed\">\n<task_result>\n{said}\n</task_result>\n</task>",
                        child.id
                    );
                    let metadata = part.metadata.clone().unwrap_or_default();
                    part.completed(emit, session, &output, &metadata);
                }
                for change in frame.changes {
                    below.changed(change);
                }
            }
            Kind::Compaction => {
                let Some((below, rest)) = self.frames.split_last_mut() else { return };
                let session = session(&mut below.kind, rest, root);
                emit.event("session.compacted", Some(&session.id), &json!({ "sessionID": session.id }));
                if let Some(open) = &mut below.open {
                    open.doing = None;
                }
            }
        }
    }

    /// Ends the top frame in the middle, as agent servers do: the error first, then what was open, then idle once more.
    fn break_off(&mut self, emit: &mut Emit, root: &mut Session, error: &Value, reason: &str) {
        let Some(mut frame) = self.frames.pop() else { return };
        let whole = !matches!(frame.kind, Kind::Compaction);
        let session = session(&mut frame.kind, &mut self.frames, root);
        if whole {
            emit.event(
                "session.error",
                Some(&session.id),
                &json!({ "sessionID": session.id, "error": error }),
            );
            emit.idle(session);
        }
        if let Some(mut open) = frame.open.take() {
            match open.doing.take() {
                Some(Doing::Stream(stream)) => stream.end(emit, session),
                Some(Doing::Tool(running)) => running.abort(emit, session),
                Some(Doing::Question(mut asking)) => drop(asking.rejected(emit, session, ABORTED)),
                Some(Doing::Task(part)) => part.failed(emit, session, ABORTED),
                Some(Doing::Latency(_) | Doing::Pause(_) | Doing::Compacting | Doing::Retry { .. })
                | None => {}
            }
            open.message.error = Some(error.clone());
            open.message.completed = Some(emit.now);
            emit.assistant(session, &open.message);
        }
        if !whole {
            return;
        }
        emit.turn_close(session, reason);
        emit.idle(session);
        // The one who delegated goes on without the sub-agent's answer, unless it is ended next.
        if let Some((below, rest)) = self.frames.split_last_mut()
            && let Some(open) = &mut below.open
            && let Some(Doing::Task(part)) = open.doing.take()
        {
            let message = error["data"]["message"].as_str().unwrap_or(ABORTED).to_owned();
            let session = super::frame::session(&mut below.kind, rest, root);
            part.failed(emit, session, &message);
        }
    }
}

fn close(emit: &mut Emit, session: &Session, reason: &str) {
    emit.busy(session);
    emit.idle(session);
    emit.turn_close(session, reason);
}

fn add(sum: &mut Tokens, more: Tokens) {
    sum.input += more.input;
    sum.output += more.output;
    sum.reasoning += more.reasoning;
    sum.cache_read += more.cache_read;
    sum.cache_write += more.cache_write;
}

fn error_of(failure: &Failure) -> Value {
    let mut error = json!({ "name": failure.name, "data": { "message": failure.message } });
    if let Some(status) = failure.status_code {
        error["data"]["statusCode"] = json!(status);
        error["data"]["isRetryable"] = json!(status == 429 || status >= 500);
    }
    error
}
