//! What takes time within a step: streams, tools, questions, waiting.

use protocol::Timestamp;
use serde_json::{Value, json};

use super::{
    machine::{Emit, Output, Pace},
    scenario::{Ask, Question, Retry, Step, Stream},
    tool::{Call, Outcome, Tool},
};
use crate::runtime::shape::{
    diff::{FileChange, Patch},
    emit::Session,
};

/// Shortest time between two reports of what a running command has written.
const REPORT_MS: i64 = 100;

/// What a step does just now.
#[derive(Debug)]
pub(crate) enum Doing {
    /// The model has not said anything yet.
    Latency(Timestamp),
    /// Nothing, for a while.
    Pause(Timestamp),
    /// A text or a thought comes in pieces.
    Stream(Streaming),
    /// A tool of the work folder.
    Tool(Running),
    /// A question waits for the user.
    Question(Asking),
    /// A sub-agent works; it is the frame above.
    Task(ToolPart),
    /// What was said is summarised; that is the frame above.
    Compacting,
    /// The provider refused; `attempt` tries were announced.
    Retry { retry: Retry, attempt: usize, until: Timestamp },
}

/// A tool part on its way from pending to its end.
#[derive(Debug)]
pub(crate) struct ToolPart {
    pub(crate) message: String,
    pub(crate) part: String,
    pub(crate) call: String,
    pub(crate) name: &'static str,
    pub(crate) input: Value,
    pub(crate) title: String,
    pub(crate) start: Timestamp,
    /// Metadata that it has while it runs and keeps.
    pub(crate) metadata: Option<Value>,
}

impl ToolPart {
    /// Shows the part as pending. Its input is not known to viewers yet.
    pub(crate) fn begin(
        emit: &mut Emit,
        session: &Session,
        message: &str,
        name: &'static str,
        input: Value,
        title: &str,
    ) -> Self {
        let tool = Self {
            message: message.to_owned(),
            part: emit.id("prt"),
            call: emit.ids.call(),
            name,
            input,
            title: title.to_owned(),
            start: emit.now,
            metadata: None,
        };
        tool.show(emit, session, &json!({ "status": "pending", "input": {}, "raw": "" }));
        tool
    }

    pub(crate) fn running(&self, emit: &mut Emit, session: &Session) {
        let mut state =
            json!({ "status": "running", "input": self.input, "time": { "start": self.start.unix_ms() } });
        if let Some(metadata) = &self.metadata {
            state["metadata"] = metadata.clone();
            state["title"] = json!(self.title);
        }
        self.show(emit, session, &state);
    }

    pub(crate) fn completed(&self, emit: &mut Emit, session: &Session, output: &str, metadata: &Value) {
        let state = json!({
            "status": "completed", "input": self.input, "output": output, "metadata": metadata, "title": self.title,
            "time": { "start": self.start.unix_ms(), "end": emit.now.unix_ms() },
        });
        self.show(emit, session, &state);
    }

    pub(crate) fn failed(&self, emit: &mut Emit, session: &Session, error: &str) {
        let mut state = json!({
            "status": "error", "input": self.input, "error": error,
            "time": { "start": self.start.unix_ms(), "end": emit.now.unix_ms() },
        });
        if let Some(metadata) = &self.metadata {
            state["metadata"] = metadata.clone();
        }
        self.show(emit, session, &state);
    }

    fn show(&self, emit: &mut Emit, session: &Session, state: &Value) {
        let body = json!({ "type": "tool", "tool": self.name, "callID": self.call, "state": state });
        emit.part(session, &self.message, &self.part, body);
    }
}

/// A text or a thought that comes in pieces.
#[derive(Debug)]
pub(crate) struct Streaming {
    message: String,
    part: String,
    kind: &'static str,
    pub(crate) text: String,
    sent: usize,
    chunk: usize,
    delay_ms: u64,
    start: Timestamp,
    pub(crate) next: Timestamp,
}

impl Streaming {
    /// Shows an empty part of this kind (`text`, `reasoning`).
    pub(crate) fn begin(
        emit: &mut Emit,
        session: &Session,
        message: &str,
        kind: &'static str,
        stream: &Stream,
        text: String,
    ) -> Self {
        let streaming = Self {
            message: message.to_owned(),
            part: emit.id("prt"),
            kind,
            text,
            sent: 0,
            chunk: stream.chunk,
            delay_ms: stream.delay_ms,
            start: emit.now,
            next: emit.now,
        };
        let body = json!({ "type": kind, "text": "", "time": { "start": emit.now.unix_ms() } });
        emit.part(session, message, &streaming.part, body);
        streaming
    }

    /// Sends the next piece, if its time has come; after the last one the part as a whole. Returns whether it is over.
    pub(crate) fn advance(&mut self, emit: &mut Emit, session: &Session, pace: Pace) -> bool {
        if self.sent == self.text.len() {
            self.end(emit, session);
            return true;
        }
        let end = self.sent + piece(&self.text[self.sent..], self.chunk);
        emit.delta(session, &self.message, &self.part, &self.text[self.sent..end]);
        self.sent = end;
        self.next = pace.after(self.next, self.delay_ms);
        false
    }

    /// Shows the part whole, as far as it came.
    pub(crate) fn end(&self, emit: &mut Emit, session: &Session) {
        let time = json!({ "start": self.start.unix_ms(), "end": emit.now.unix_ms() });
        let body = json!({ "type": self.kind, "text": self.text[..self.sent], "time": time });
        emit.part(session, &self.message, &self.part, body);
    }
}

/// Bytes of the next piece: at least `chunk` characters, then to the end of the word, at most four times as many.
fn piece(text: &str, chunk: usize) -> usize {
    let mut characters = text.char_indices().skip(chunk);
    let end =
        characters.by_ref().take(chunk * 3).find(|(_, c)| c.is_whitespace()).map(|(at, c)| at + c.len_utf8());
    end.or_else(|| characters.next().map(|(at, _)| at)).unwrap_or(text.len())
}

/// A tool of the work folder, waiting for its permission or running.
#[derive(Debug)]
pub(crate) struct Running {
    part: ToolPart,
    tool: Tool,
    number: u64,
    /// The permission that it waits for.
    asks: Option<(String, Ask)>,
    output: String,
    /// When `output` was shown, and whether there is more by now.
    shown: Timestamp,
    more: bool,
}

/// What follows from an answer of the user.
#[derive(Debug)]
pub(crate) enum Answered {
    /// The tool runs, or the turn goes on.
    GoOn {
        /// What is allowed for ever from here on.
        always: Vec<String>,
        /// The tool still has to run.
        runs: bool,
    },
    /// These steps follow instead of the rest of the turn.
    Instead(Vec<Step>),
}

impl Running {
    /// Shows the tool and either runs it or asks first.
    pub(crate) fn begin(
        emit: &mut Emit,
        session: &Session,
        message: &str,
        number: u64,
        (tool, ask): (Tool, Option<Ask>),
        always: &[String],
    ) -> Self {
        let input = tool.input(&session.directory);
        let part = ToolPart::begin(emit, session, message, tool.name(), input, tool.title());
        part.running(emit, session);
        let asks = ask.filter(|ask| !ask.always.iter().all(|pattern| always.contains(pattern)));
        let asks = asks.map(|ask| (emit.id("per"), ask));
        let shown = emit.now;
        let running = Self { part, tool, number, asks, output: String::new(), shown, more: false };
        match &running.asks {
            Some((id, ask)) => running.ask(emit, session, id, ask),
            None => running.run(emit),
        }
        running
    }

    fn ask(&self, emit: &mut Emit, session: &Session, id: &str, ask: &Ask) {
        let (permission, patterns, metadata) = self.tool.permission(&session.directory);
        let data = json!({
            "id": id, "sessionID": session.id, "permission": permission, "patterns": patterns, "metadata": metadata,
            "always": ask.always, "tool": { "messageID": self.part.message, "callID": self.part.call },
        });
        emit.event("permission.asked", Some(&session.id), &data);
    }

    fn run(&self, emit: &mut Emit) {
        emit.outputs.push_back(Output::Run(Call { number: self.number, tool: self.tool.clone() }));
    }

    /// The permission it waits for.
    pub(crate) fn waits_for(&self) -> Option<&str> {
        self.asks.as_ref().map(|(id, _)| id.as_str())
    }

    /// Its number, if it runs.
    pub(crate) fn runs(&self) -> Option<u64> {
        self.asks.is_none().then_some(self.number)
    }

    /// Its permission was answered.
    pub(crate) fn answered(
        &mut self,
        emit: &mut Emit,
        session: &Session,
        reply: protocol::PermissionReply,
        message: Option<&str>,
    ) -> Answered {
        let Some((id, ask)) = self.asks.take() else {
            return Answered::GoOn { always: Vec::new(), runs: true };
        };
        let data = json!({ "sessionID": session.id, "requestID": id, "reply": reply });
        emit.event("permission.replied", Some(&session.id), &data);
        let always = match reply {
            protocol::PermissionReply::Once => Vec::new(),
            protocol::PermissionReply::Always => ask.always,
            protocol::PermissionReply::Reject => {
                let mut error = "The user rejected permission to use this specific tool call".to_owned();
                match message {
                    Some(message) => error.push_str(&format!(" with the following feedback: {message}")),
                    None => error.push('.'),
                }
                self.part.failed(emit, session, &error);
                return match (ask.rejected, message) {
                    (Some(steps), _) => Answered::Instead(steps),
                    (None, Some(_)) => Answered::GoOn { always: Vec::new(), runs: false },
                    (None, None) => Answered::Instead(Vec::new()),
                };
            }
        };
        self.part.running(emit, session);
        self.run(emit);
        Answered::GoOn { always, runs: true }
    }

    /// What it has written so far, as a whole.
    pub(crate) fn output(&mut self, emit: &mut Emit, session: &Session, output: String) {
        self.output = output;
        self.more = true;
        if self.report_at().is_some_and(|at| at <= emit.now) {
            self.report(emit, session);
        }
    }

    /// When what it has written is to be shown.
    pub(crate) fn report_at(&self) -> Option<Timestamp> {
        self.more.then(|| Timestamp::from_unix_ms(self.shown.unix_ms() + REPORT_MS))
    }

    /// Shows what it has written.
    pub(crate) fn report(&mut self, emit: &mut Emit, session: &Session) {
        self.part.metadata = Some(json!({ "output": self.output, "description": self.part.title }));
        self.part.running(emit, session);
        self.shown = emit.now;
        self.more = false;
    }

    /// It ended. Says which file it changed.
    pub(crate) fn done(
        &mut self,
        emit: &mut Emit,
        session: &Session,
        outcome: Outcome,
        change: Option<&FileChange>,
    ) {
        self.part.metadata = None;
        if let Some(change) = change {
            let file = format!("{}/{}", session.directory, change.path);
            emit.event("file.edited", None, &json!({ "file": file }));
        }
        match outcome {
            Outcome::Completed { output, mut metadata } => {
                if let (Tool::Edit { .. }, Some(change)) = (&self.tool, change) {
                    let file = format!("{}/{}", session.directory, change.path);
                    let patch = Patch::of(change, &file);
                    metadata["diff"] = json!(patch.patch);
                    metadata["filediff"] = json!({
                        "file": file, "patch": patch.patch, "additions": patch.additions, "deletions": patch.deletions,
                    });
                }
                self.part.completed(emit, session, &output, &metadata);
            }
            Outcome::Failed(error) => self.part.failed(emit, session, &error),
        }
    }

    /// The turn ends under it.
    pub(crate) fn abort(&self, emit: &mut Emit, session: &Session) {
        if let Some((id, _)) = &self.asks {
            let data = json!({ "sessionID": session.id, "requestID": id, "reply": "reject" });
            emit.event("permission.replied", Some(&session.id), &data);
            self.part.failed(emit, session, ABORTED);
            return;
        }
        emit.outputs.push_back(Output::Cancel(self.number));
        if matches!(self.tool, Tool::Bash { .. }) {
            let output =
                format!("{}\n\n<shell_metadata>\nUser aborted the command\n</shell_metadata>", self.output);
            let metadata = json!({ "output": output, "exit": null, "truncated": false });
            self.part.completed(emit, session, &output, &metadata);
        } else {
            self.part.failed(emit, session, ABORTED);
        }
    }
}

/// What a tool says when the turn ended under it.
pub(crate) const ABORTED: &str = "Tool execution aborted";

/// A question that waits for the user.
#[derive(Debug)]
pub(crate) struct Asking {
    part: ToolPart,
    pub(crate) id: String,
    question: Question,
}

impl Asking {
    pub(crate) fn begin(emit: &mut Emit, session: &Session, message: &str, question: Question) -> Self {
        let input = json!({ "questions": question.questions });
        let title = match question.questions.len() {
            1 => "Asked 1 question".to_owned(),
            many => format!("Asked {many} questions"),
        };
        let part = ToolPart::begin(emit, session, message, "question", input, &title);
        part.running(emit, session);
        let id = emit.id("que");
        let data = json!({
            "id": id, "sessionID": session.id, "questions": question.questions,
            "tool": { "messageID": part.message, "callID": part.call },
        });
        emit.event("question.asked", Some(&session.id), &data);
        Self { part, id, question }
    }

    /// The user answered. Returns the answers as one text.
    pub(crate) fn answered(&self, emit: &mut Emit, session: &Session, answers: &[Vec<String>]) -> String {
        let data = json!({ "sessionID": session.id, "requestID": self.id, "answers": answers });
        emit.event("question.replied", Some(&session.id), &data);
        let said = |answer: Option<&Vec<String>>| match answer {
            Some(labels) if !labels.is_empty() => labels.join(", "),
            Some(_) | None => "Unanswered".to_owned(),
        };
        let pairs: Vec<String> = (0..)
            .zip(&self.question.questions)
            .map(|(at, asked)| format!("{:?}={:?}", asked.question, said(answers.get(at))))
            .collect();
        let output = format!(
            "User has answered your questions: {}. You can now continue with the user's answers in mind.",
            pairs.join(", ")
        );
        self.part.completed(emit, session, &output, &json!({ "answers": answers, "truncated": false }));
        answers.iter().map(|answer| said(Some(answer))).collect::<Vec<_>>().join("; ")
    }

    /// The user declined.
    pub(crate) fn rejected(&mut self, emit: &mut Emit, session: &Session, error: &str) -> Option<Vec<Step>> {
        let data = json!({ "sessionID": session.id, "requestID": self.id });
        emit.event("question.rejected", Some(&session.id), &data);
        self.part.failed(emit, session, error);
        self.question.rejected.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_end_with_a_word_and_make_the_text() {
        let text = "The wrapper owns the agent server – 日本語 – and nothing else does.";
        let mut pieces = Vec::new();
        let mut at = 0;
        while at < text.len() {
            let end = at + piece(&text[at..], 6);
            pieces.push(&text[at..end]);
            at = end;
        }
        assert_eq!(pieces.concat(), text);
        assert_eq!(pieces[0], "The wrapper ");
        assert_eq!(piece("aaaaaaaaaaaaaaaa", 2), 8, "a word without an end is cut");
    }
}
