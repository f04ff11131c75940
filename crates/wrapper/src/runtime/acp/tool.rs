//! A tool call of an ACP agent as a tool part: its state is put together from updates that name only what changed.

use protocol::Timestamp;
use serde_json::{Value, json};

use super::content;
use crate::runtime::shape::{
    diff::{FileChange, Patch},
    emit::{Emit, Session},
};

/// A tool call.
#[derive(Debug)]
pub(super) struct Tool {
    message: String,
    part: String,
    call: String,
    title: String,
    own_name: Option<String>,
    kind: String,
    status: Status,
    input: Value,
    raw_output: Value,
    content: Vec<Value>,
    locations: Vec<Value>,
    /// What its terminal has written.
    terminal: Option<String>,
    start: Timestamp,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Status {
    Pending,
    Running,
    Completed,
    Failed,
    /// Its turn ended under it.
    BrokenOff,
}

impl Tool {
    /// A call that nothing is known of but its id.
    pub(super) fn begin(emit: &mut Emit, message: &str, call: &str) -> Self {
        Self {
            message: message.to_owned(),
            part: emit.id("prt"),
            call: call.to_owned(),
            title: String::new(),
            own_name: None,
            kind: "other".to_owned(),
            status: Status::Pending,
            input: json!({}),
            raw_output: Value::Null,
            content: Vec::new(),
            locations: Vec::new(),
            terminal: None,
            start: emit.now,
        }
    }

    /// Takes what a `tool_call` or a `tool_call_update` says, and shows the call anew.
    pub(super) fn update(&mut self, emit: &mut Emit, session: &Session, update: &Value) {
        if self.is_over() {
            return;
        }
        if let Some(title) = update["title"].as_str() {
            // An agent's own tool is called by its name first, later by what it does.
            let is_name = self.title.is_empty() && !title.contains(char::is_whitespace);
            if is_name {
                self.own_name = Some(title.to_owned());
            }
            title.clone_into(&mut self.title);
        }
        if let Some(kind) = update["kind"].as_str() {
            kind.clone_into(&mut self.kind);
        }
        if update["rawInput"].is_object() {
            self.input = update["rawInput"].clone();
        }
        if !update["rawOutput"].is_null() {
            self.raw_output = update["rawOutput"].clone();
        }
        if let Some(content) = update["content"].as_array() {
            self.content.clone_from(content);
        }
        if let Some(locations) = update["locations"].as_array() {
            self.locations.clone_from(locations);
        }
        self.status = match update["status"].as_str() {
            Some("pending") => Status::Pending,
            Some("in_progress") => Status::Running,
            Some("completed") => Status::Completed,
            Some("failed") => Status::Failed,
            Some(_) | None => self.status,
        };
        self.show(emit, session);
        if self.status == Status::Completed {
            for file in self.diffs().filter_map(|diff| diff["path"].as_str()) {
                emit.event("file.edited", None, &json!({ "file": file }));
            }
        }
    }

    /// What its terminal has written so far. Once it is over it takes none that comes later.
    pub(super) fn terminal_output(&mut self, emit: &mut Emit, session: &Session, output: &str) {
        if self.is_open() || self.terminal.is_none() {
            self.terminal = Some(output.to_owned());
            self.show(emit, session);
        }
    }

    /// The turn ends under it. What the agent says of it later is taken all the same.
    pub(super) fn broken_off(&mut self, emit: &mut Emit, session: &Session) {
        if self.is_open() {
            self.status = Status::BrokenOff;
            self.show(emit, session);
        }
    }

    /// Whether its turn ended under it.
    pub(super) fn is_broken_off(&self) -> bool {
        self.status == Status::BrokenOff
    }

    /// Whether it is still at work.
    pub(super) fn is_open(&self) -> bool {
        matches!(self.status, Status::Pending | Status::Running)
    }

    /// Whether its output is that of this terminal.
    pub(super) fn shows(&self, terminal: &str) -> bool {
        self.content.iter().any(|content| content["terminalId"] == terminal)
    }

    /// The message it belongs to.
    pub(super) fn message(&self) -> &str {
        &self.message
    }

    /// Its input, as the model gave it.
    pub(super) fn input(&self) -> &Value {
        &self.input
    }

    /// What a permission for it is for.
    pub(super) fn pattern(&self) -> String {
        let named = ["command", "filePath", "file_path", "path", "url"];
        let input = named.iter().find_map(|name| self.input[name].as_str());
        input.unwrap_or(&self.title).to_owned()
    }

    /// The name agent servers give such a tool: viewers know what its card looks like by it.
    pub(super) fn name(&self) -> &str {
        match self.kind.as_str() {
            "read" => "read",
            "edit" if self.input["content"].is_string() => "write",
            "edit" => "edit",
            "search" => "grep",
            "execute" => "bash",
            "fetch" => "webfetch",
            "delete" => "delete",
            "move" => "move",
            "think" => "think",
            _ => self.own_name.as_deref().unwrap_or("tool"),
        }
    }

    /// Whether the agent said how it ended.
    pub(super) fn is_over(&self) -> bool {
        matches!(self.status, Status::Completed | Status::Failed)
    }

    fn show(&self, emit: &mut Emit, session: &Session) {
        let start = self.start.unix_ms();
        let ended = json!({ "start": start, "end": emit.now.unix_ms() });
        let input = self.input_in_servers_words();
        let state = match self.status {
            Status::Pending => json!({ "status": "pending", "input": input, "raw": "" }),
            Status::Running => json!({
                "status": "running", "input": input, "title": self.title, "metadata": self.metadata(session),
                "time": { "start": start },
            }),
            Status::Completed => json!({
                "status": "completed", "input": input, "output": self.output(), "title": self.title,
                "metadata": self.metadata(session), "time": ended,
            }),
            Status::Failed => json!({
                "status": "error", "input": input, "error": self.reason(), "metadata": self.metadata(session),
                "time": ended,
            }),
            Status::BrokenOff => json!({
                "status": "error", "input": input, "error": "Tool execution aborted",
                "metadata": self.metadata(session), "time": ended,
            }),
        };
        let body = json!({ "type": "tool", "tool": self.name(), "callID": self.call, "state": state });
        emit.part(session, &self.message, &self.part, body);
    }

    /// The input, with a file's path under the name that agent servers use.
    fn input_in_servers_words(&self) -> Value {
        let mut input = self.input.as_object().cloned().unwrap_or_default();
        if !input.contains_key("filePath")
            && let Some(path) =
                input.get("file_path").or_else(|| self.locations.first().map(|at| &at["path"]))
            && matches!(self.kind.as_str(), "read" | "edit" | "delete" | "move")
        {
            let path = path.clone();
            input.insert("filePath".to_owned(), path);
        }
        Value::Object(input)
    }

    fn metadata(&self, session: &Session) -> Value {
        let mut metadata = self.raw_output["metadata"].as_object().cloned().unwrap_or_default();
        // An output may be long, and is said once: by the state that has a place for it, else here.
        metadata.remove("output");
        if self.kind == "execute" {
            if self.has_output_besides() {
                metadata.insert("output".to_owned(), json!(self.output()));
            }
            if let Some(code) = self.exit_code() {
                metadata.insert("exit".to_owned(), json!(code));
            }
        }
        let patches: Vec<(String, Patch)> =
            self.diffs().filter_map(|diff| patch(diff, &session.directory)).collect();
        if let [(file, patch), ..] = patches.as_slice() {
            let whole: String = patches.iter().map(|(_, patch)| patch.patch.as_str()).collect();
            metadata.insert("diff".to_owned(), json!(whole));
            metadata.insert(
                "filediff".to_owned(),
                json!({ "file": file, "patch": patch.patch, "additions": patch.additions, "deletions": patch.deletions }),
            );
        }
        if !self.locations.is_empty() {
            metadata.insert("locations".to_owned(), json!(self.locations));
        }
        Value::Object(metadata)
    }

    /// What it changes; nothing, if nobody knows whether it did.
    fn diffs(&self) -> impl Iterator<Item = &Value> {
        let known = if self.is_broken_off() { &[] } else { self.content.as_slice() };
        known.iter().filter(|content| content["type"] == "diff")
    }

    /// Its output is not what its state says.
    fn has_output_besides(&self) -> bool {
        match self.status {
            Status::Running | Status::BrokenOff => true,
            Status::Failed => self.terminal.is_some(),
            Status::Pending | Status::Completed => false,
        }
    }

    fn exit_code(&self) -> Option<i64> {
        self.raw_output["exitCode"].as_i64().or_else(|| self.raw_output["exit_code"].as_i64())
    }

    /// Why it failed: what it says, but for a command in a terminal, whose output has a place of its own.
    fn reason(&self) -> String {
        if self.kind != "execute" || self.terminal.is_none() {
            return self.output();
        }
        match (self.raw_output["error"].as_str(), self.exit_code()) {
            (Some(error), _) => error.to_owned(),
            (None, Some(code)) => format!("the command ended with exit code {code}"),
            (None, None) => "the command failed".to_owned(),
        }
    }

    /// What it says: its content, else what it gives raw.
    fn output(&self) -> String {
        if let Some(output) = &self.terminal {
            return output.clone();
        }
        // What a command wrote comes raw, and again marked up for people.
        if self.kind == "execute"
            && let Some(raw) = self.raw_output.as_str()
        {
            return raw.to_owned();
        }
        let said: Vec<String> = self
            .content
            .iter()
            .filter(|content| content["type"] == "content")
            .map(|content| content::text(&content["content"]))
            .filter(|text| !text.is_empty())
            .collect();
        if !said.is_empty() {
            return said.join("\n");
        }
        let raw = &self.raw_output;
        let text = raw.as_str().or_else(|| raw["output"].as_str()).or_else(|| raw["error"].as_str());
        match text {
            Some(text) => text.to_owned(),
            None if raw.is_null() => String::new(),
            None => raw.to_string(),
        }
    }
}

/// What a `diff` content did to its file, and the file's full path.
fn patch(diff: &Value, directory: &str) -> Option<(String, Patch)> {
    let file = diff["path"].as_str()?;
    let below = file.strip_prefix(directory).map_or(file, |path| path.trim_start_matches('/'));
    let change = FileChange {
        path: below.to_owned(),
        before: diff["oldText"].as_str().map(str::to_owned),
        after: diff["newText"].as_str()?.to_owned(),
    };
    Some((file.to_owned(), Patch::of(&change, file)))
}
