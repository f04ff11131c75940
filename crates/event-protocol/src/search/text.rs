//! Which events have a text, and which text that is.

use serde::Deserialize;
use serde_json::Value;

use super::{Field, TextKind};
use crate::{
    agent::{Done, Failed},
    limits,
    model::{MessageError, Part, PartBody, Permission, Question, Session, TextPart, ToolPart, ToolState},
};

/// What of an event can be found.
///
/// Only what is finished has one: text and reasoning that have ended, tool calls that are over. What they were on the
/// way, deltas above all, would be found a hundred times over and be obsolete a moment later.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text {
    /// What it is.
    pub kind: TextKind,
    /// The tool, of a tool call.
    pub tool: Option<String>,
    /// The texts, each with what it is: together at most [`limits::SEARCH_TEXT_BYTES`], none of them empty.
    pub fields: Vec<(Field, String)>,
}

impl Text {
    /// The text of an event of this type with this payload, if there is something to find.
    ///
    /// | event | text |
    /// |---|---|
    /// | `message.part.updated` of text | `prompt` or `text`: by whom it is, the payload tells (a prompt has no `time`) |
    /// | … of reasoning, of a tool call, of a patch, of a subtask | `reasoning`; `tool`: name, title, input, output; `patch`: paths; `prompt` |
    /// | `session.error`, `agent.failed` | `error` |
    /// | `question.asked`, `permission.asked`, and the answers to them, which say what was asked | `question`, `permission` |
    /// | `session.created`, `session.updated` | `session`: the title |
    /// | `agent.done` | `done` |
    #[must_use]
    pub fn of(kind: &str, data: &str) -> Option<Self> {
        if !Self::may_be_in(kind) {
            return None;
        }
        let mut text = match kind {
            "message.part.updated" => of_part(read::<PartUpdated>(data)?.part)?,
            "session.error" => of_error(read::<Failure>(data)?.error?.message().to_owned()),
            "session.created" | "session.updated" => {
                Self::new(TextKind::Session, [(Field::Title, read::<SessionInfo>(data)?.info.title)])
            }
            "question.asked" => of_question(read(data)?),
            "permission.asked" => of_permission(read(data)?),
            "question.replied" | "question.rejected" => of_answer(read(data)?)?,
            "permission.replied" => of_permission(read::<Reply<Permission>>(data)?.asked?),
            "agent.failed" => of_failed(read(data)?),
            "agent.done" => Self::new(TextKind::Done, [(Field::Text, read::<Done>(data)?.summary?)]),
            _ => return None,
        };
        text.fields.retain(|(_, text)| !text.trim().is_empty());
        text.bound();
        (!text.fields.is_empty()).then_some(text)
    }

    /// Whether an event of this type may have a text: if not, its payload need not be read.
    #[must_use]
    pub fn may_be_in(kind: &str) -> bool {
        TYPES.contains(&kind)
    }

    /// What it is about, in a few words.
    #[must_use]
    pub fn title(&self) -> Option<&str> {
        self.fields.iter().find(|(field, _)| *field == Field::Title).map(|(_, text)| text.as_str())
    }

    fn new(kind: TextKind, fields: impl IntoIterator<Item = (Field, String)>) -> Self {
        Self { kind, tool: None, fields: fields.into_iter().collect() }
    }

    /// Cuts what is too long. No field but the last takes more than half of what is left, so that a long input leaves
    /// something of the output.
    fn bound(&mut self) {
        let mut left = limits::SEARCH_TEXT_BYTES;
        let last = self.fields.len().saturating_sub(1);
        for (i, (_, text)) in self.fields.iter_mut().enumerate() {
            let room = if i == last { left } else { left / 2 };
            text.truncate(text.floor_char_boundary(room));
            left -= text.len();
        }
    }
}

/// The types whose events may have one.
const TYPES: &[&str] = &[
    "message.part.updated",
    "session.error",
    "session.created",
    "session.updated",
    "question.asked",
    "question.replied",
    "question.rejected",
    "permission.asked",
    "permission.replied",
    "agent.failed",
    "agent.done",
];

#[derive(Deserialize)]
struct PartUpdated {
    part: Part,
}

#[derive(Deserialize)]
struct Failure {
    error: Option<MessageError>,
}

#[derive(Deserialize)]
struct SessionInfo {
    info: Session,
}

/// An answer, with what was asked.
#[derive(Deserialize)]
struct Reply<T> {
    asked: Option<T>,
    #[serde(default)]
    answers: Vec<Vec<String>>,
}

/// A payload of another shape has no text: that is no error, the event is kept as it is.
fn read<'a, T: Deserialize<'a>>(data: &'a str) -> Option<T> {
    serde_json::from_str(data).ok()
}

fn of_part(part: Part) -> Option<Text> {
    match part.body {
        PartBody::Text(part) => {
            let kind = if part.time.is_none() { TextKind::Prompt } else { TextKind::Text };
            of_prose(kind, part)
        }
        PartBody::Reasoning(part) => of_prose(TextKind::Reasoning, part),
        PartBody::Tool(part) => of_tool(part),
        PartBody::Patch(part) => Some(Text::new(TextKind::Patch, [(Field::Text, part.files.join("\n"))])),
        PartBody::Subtask(part) => {
            Some(Text::new(TextKind::Prompt, [(Field::Title, part.description), (Field::Text, part.prompt)]))
        }
        PartBody::Retry(part) => Some(of_error(part.error.message().to_owned())),
        PartBody::File(_)
        | PartBody::StepStart(_)
        | PartBody::StepFinish(_)
        | PartBody::Snapshot(_)
        | PartBody::Agent(_)
        | PartBody::Compaction(_)
        | PartBody::Unknown => None,
    }
}

/// Text that has ended or was broken off, and was written by somebody.
fn of_prose(kind: TextKind, part: TextPart) -> Option<Text> {
    let has_ended = part.is_interrupted() || part.time.is_none_or(|time| time.end.is_some());
    let is_said = part.synthetic != Some(true);
    (has_ended && is_said).then(|| Text::new(kind, [(Field::Text, part.text)]))
}

fn of_tool(part: ToolPart) -> Option<Text> {
    let (input, title, output) = match part.state {
        ToolState::Completed(state) => (state.input, state.title, (Field::Output, state.output)),
        ToolState::Error(state) => (state.input, String::new(), (Field::Error, state.error)),
        ToolState::Pending(_) | ToolState::Running(_) | ToolState::Unknown => return None,
    };
    // The tool's name is found too, and stands where a reader sees it.
    let title = if title.is_empty() { part.tool.clone() } else { format!("{}: {title}", part.tool) };
    let fields = [(Field::Title, title), (Field::Input, leaves(&input)), output];
    Some(Text { tool: Some(part.tool), ..Text::new(TextKind::Tool, fields) })
}

fn of_error(message: String) -> Text {
    Text::new(TextKind::Error, [(Field::Error, message)])
}

fn of_failed(failed: Failed) -> Text {
    let fields = [(Field::Error, failed.message), (Field::Output, failed.stderr.join("\n"))];
    Text::new(TextKind::Error, fields)
}

fn of_question(question: Question) -> Text {
    let lines = question.questions.into_iter().flat_map(|question| {
        let options = question.options.into_iter().flat_map(|option| [option.label, option.description]);
        [question.header, question.question].into_iter().chain(options)
    });
    Text::new(TextKind::Question, [(Field::Text, joined(lines))])
}

fn of_answer(reply: Reply<Question>) -> Option<Text> {
    let mut text = of_question(reply.asked?);
    text.fields.push((Field::Output, joined(reply.answers.into_iter().flatten())));
    Some(text)
}

fn of_permission(ask: Permission) -> Text {
    let lines = [ask.permission].into_iter().chain(ask.patterns).chain([leaves(&ask.metadata)]);
    Text::new(TextKind::Permission, [(Field::Text, joined(lines))])
}

fn joined(lines: impl Iterator<Item = String>) -> String {
    lines.filter(|line| !line.is_empty()).collect::<Vec<_>>().join("\n")
}

/// What a person would read of a tool's arguments: the values without their names, one per line.
fn leaves(value: &Value) -> String {
    let mut text = String::new();
    push_leaves(value, &mut text);
    text
}

fn push_leaves(value: &Value, text: &mut String) {
    if text.len() > limits::SEARCH_TEXT_BYTES {
        return;
    }
    match value {
        Value::Null | Value::Bool(_) => {}
        Value::Number(number) => push_line(&number.to_string(), text),
        Value::String(line) => push_line(line, text),
        Value::Array(values) => values.iter().for_each(|value| push_leaves(value, text)),
        Value::Object(fields) => fields.values().for_each(|value| push_leaves(value, text)),
    }
}

fn push_line(line: &str, text: &mut String) {
    if !text.is_empty() {
        text.push('\n');
    }
    text.push_str(line);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn who_said_a_text_is_told_by_its_time() {
        let text = |mut part: Value| {
            part["type"] = json!("text");
            part["text"] = json!("hello");
            Text::of("message.part.updated", &json!({ "part": part }).to_string()).map(|text| text.kind)
        };
        assert_eq!(text(json!({})), Some(TextKind::Prompt));
        assert_eq!(text(json!({ "time": { "start": 1, "end": 2 } })), Some(TextKind::Text));
        assert_eq!(text(json!({ "time": { "start": 1 } })), None, "it is still being written");
        let broken_off = json!({ "time": { "start": 1 }, "metadata": { "interrupted": true } });
        assert_eq!(text(broken_off), Some(TextKind::Text));
        assert_eq!(text(json!({ "synthetic": true })), None, "nobody said it");
    }

    #[test]
    fn a_tool_call_has_a_text_when_it_is_over() {
        let tool = |state: Value| {
            let part = json!({ "type": "tool", "tool": "bash", "state": state });
            Text::of("message.part.updated", &json!({ "part": part }).to_string())
        };
        let input = json!({ "command": "ls -l", "timeout": 5, "nested": [{ "deep": "x" }, null, true] });
        assert_eq!(tool(json!({ "status": "pending", "input": input })), None);
        assert_eq!(tool(json!({ "status": "running", "input": input })), None);
        let done =
            tool(json!({ "status": "completed", "input": input, "output": "total 0", "title": "List" }));
        let done = done.unwrap();
        assert_eq!((done.kind, done.tool.as_deref()), (TextKind::Tool, Some("bash")));
        assert_eq!(done.title(), Some("bash: List"));
        assert_eq!(
            done.fields[1..],
            [(Field::Input, "ls -l\nx\n5".to_owned()), (Field::Output, "total 0".to_owned())]
        );
        let failed = tool(json!({ "status": "error", "input": {}, "error": "no such file" })).unwrap();
        assert_eq!(
            failed.fields,
            [(Field::Title, "bash".to_owned()), (Field::Error, "no such file".to_owned())]
        );
    }

    #[test]
    fn errors_asks_titles_and_results_have_a_text() {
        let cases = [
            (
                "session.error",
                json!({ "error": { "name": "X", "data": { "message": "quota" } } }),
                TextKind::Error,
            ),
            ("agent.failed", json!({ "message": "no binary", "stderr": ["quota"] }), TextKind::Error),
            (
                "question.asked",
                json!({ "questions": [{ "options": [{ "label": "quota" }] }] }),
                TextKind::Question,
            ),
            (
                "permission.asked",
                json!({ "permission": "bash", "patterns": ["quota"] }),
                TextKind::Permission,
            ),
            ("session.updated", json!({ "info": { "id": "s", "title": "quota" } }), TextKind::Session),
            ("agent.done", json!({ "summary": "quota" }), TextKind::Done),
            (
                "message.part.updated",
                json!({ "part": { "type": "patch", "files": ["/quota"] } }),
                TextKind::Patch,
            ),
            (
                "message.part.updated",
                json!({ "part": { "type": "subtask", "prompt": "quota" } }),
                TextKind::Prompt,
            ),
            (
                "message.part.updated",
                json!({ "part": { "type": "retry", "error": { "data": { "message": "quota" } } } }),
                TextKind::Error,
            ),
        ];
        for (kind, data, expected) in cases {
            let text = Text::of(kind, &data.to_string()).unwrap_or_else(|| panic!("{kind} {data}"));
            assert_eq!(text.kind, expected, "{kind} {data}");
            assert!(text.fields.iter().any(|(_, text)| text.contains("quota")), "{kind} {data}");
        }
    }

    #[test]
    fn an_answer_has_the_text_of_what_was_asked() {
        let cases = [
            (
                "question.replied",
                json!({ "asked": { "questions": [] }, "answers": [["quota"]] }),
                TextKind::Question,
            ),
            (
                "question.rejected",
                json!({ "asked": { "questions": [{ "header": "quota" }] } }),
                TextKind::Question,
            ),
            ("permission.replied", json!({ "asked": { "patterns": ["quota"] } }), TextKind::Permission),
        ];
        for (kind, data, expected) in cases {
            let text = Text::of(kind, &data.to_string()).unwrap();
            assert_eq!((text.kind, text.fields.last().unwrap().1.as_str()), (expected, "quota"), "{kind}");
            assert_eq!(Text::of(kind, "{}"), None, "of an older wrapper");
        }
    }

    #[test]
    fn deltas_status_and_what_is_malformed_have_none() {
        assert_eq!(Text::of("message.part.delta", r#"{"delta":"hello"}"#), None);
        assert_eq!(Text::of("session.status", r#"{"status":{"type":"busy"}}"#), None);
        assert_eq!(Text::of("agent.done", "{}"), None);
        assert_eq!(Text::of("agent.done", r#"{"summary":"  "}"#), None);
        assert_eq!(Text::of("message.part.updated", r#"{"part":7}"#), None);
        assert_eq!(Text::of("message.part.updated", "not json"), None);
    }

    #[test]
    fn a_text_is_cut_at_its_limit_and_leaves_room_for_what_follows() {
        let long = "ä".repeat(limits::SEARCH_TEXT_BYTES);
        let state =
            json!({ "status": "completed", "input": { "content": long }, "output": long, "title": "t" });
        let part = json!({ "part": { "type": "tool", "tool": "write", "state": state } });
        let text = Text::of("message.part.updated", &part.to_string()).unwrap();
        let bytes = |i: usize| text.fields[i].1.len();
        assert!(bytes(0) + bytes(1) + bytes(2) <= limits::SEARCH_TEXT_BYTES);
        assert!(bytes(1) > limits::SEARCH_TEXT_BYTES / 3 && bytes(2) > limits::SEARCH_TEXT_BYTES / 3);
        let exact = "x".repeat(limits::SEARCH_TEXT_BYTES);
        let whole = Text::of("agent.done", &json!({ "summary": exact }).to_string()).unwrap();
        assert_eq!(whole.fields[0].1.len(), limits::SEARCH_TEXT_BYTES);
        let more = Text::of("agent.done", &json!({ "summary": exact + "x" }).to_string()).unwrap();
        assert_eq!(more.fields[0].1.len(), limits::SEARCH_TEXT_BYTES);
    }

    proptest! {
        #[test]
        fn no_payload_makes_it_panic(data in r#"[\[\]{}":,a-z0-9. -]{0,60}"#) {
            for kind in ["message.part.updated", "session.error", "question.asked", "session.updated"] {
                let _ = Text::of(kind, &data);
            }
        }
    }
}
