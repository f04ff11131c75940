//! What kind of tool a call is: its icon, its name, and what stands in its one line.

use protocol::model::{ToolPart, ToolState};
use serde_json::Value;

use super::Scope;
use crate::dashboard::{element, figures};

/// The kinds that have a card of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A command.
    Bash,
    /// A file is written.
    Write,
    /// A file is changed.
    Edit,
    /// A file or folder is read.
    Read,
    /// Files are searched.
    Search,
    /// The to-do list.
    Todo,
    /// A sub-agent.
    Task,
    /// Something is fetched from the network.
    Web,
    /// A person is asked.
    Question,
    /// A tool of an MCP server, or one that nobody knows.
    Other,
}

impl Kind {
    /// The kind of a tool by its name, as opencode, kilo and their relatives call it.
    pub(crate) fn of(tool: &str) -> Self {
        match tool {
            "bash" | "shell" | "execute" | "background_process" => Self::Bash,
            "write" => Self::Write,
            "edit" | "multiedit" | "patch" | "apply_patch" => Self::Edit,
            "read" | "list" | "ls" => Self::Read,
            "grep" | "glob" | "search" | "codesearch" => Self::Search,
            "todowrite" | "todoread" | "todo" => Self::Todo,
            "task" | "agent" => Self::Task,
            "webfetch" | "websearch" | "fetch" => Self::Web,
            "question" => Self::Question,
            _ => Self::Other,
        }
    }

    /// The icon's name.
    pub(crate) fn icon(self) -> &'static str {
        match self {
            Self::Bash => "bash",
            Self::Write => "write",
            Self::Edit => "edit",
            Self::Read => "read",
            Self::Search => "grep",
            Self::Todo => "todo",
            Self::Task => "task",
            Self::Web => "web",
            Self::Question => "question",
            Self::Other => "mcp",
        }
    }

    /// Reads and searches: several in one message share a card.
    pub(crate) fn is_look(self) -> bool {
        matches!(self, Self::Read | Self::Search)
    }

    /// Whether the title is prose rather than code.
    pub(crate) fn has_prose_title(self) -> bool {
        matches!(self, Self::Todo | Self::Task | Self::Question | Self::Other)
    }
}

/// The name on the card.
pub(crate) fn name(tool: &ToolPart) -> String {
    match Kind::of(&tool.tool) {
        Kind::Todo => "todo".to_owned(),
        Kind::Task => text(tool.state.input(), "subagent_type").unwrap_or("sub-agent").to_owned(),
        Kind::Web if tool.tool == "webfetch" => "fetch".to_owned(),
        Kind::Bash
        | Kind::Write
        | Kind::Edit
        | Kind::Read
        | Kind::Search
        | Kind::Web
        | Kind::Question
        | Kind::Other => tool.tool.clone(),
    }
}

/// What the call is about, in one line.
pub(crate) fn title(tool: &ToolPart, scope: &Scope) -> String {
    let input = tool.state.input();
    let of = |field| text(input, field);
    let title = match Kind::of(&tool.tool) {
        Kind::Bash => of("command").map(str::to_owned),
        Kind::Write | Kind::Edit | Kind::Read => {
            of("filePath").or_else(|| of("path")).map(|path| scope.path(path).to_owned())
        }
        Kind::Search => of("pattern").map(|pattern| match of("path").or_else(|| of("include")) {
            Some(path) => format!(
                "{pattern} in {}",
                match scope.path(path) {
                    path if path == scope.directory => ".",
                    path => path,
                }
            ),
            None => pattern.to_owned(),
        }),
        Kind::Todo => todo_title(&tool.state),
        Kind::Task => of("description").map(str::to_owned),
        Kind::Web => {
            of("url").or_else(|| of("query")).map(|url| url.trim_start_matches("https://").to_owned())
        }
        Kind::Question => input.pointer("/questions/0/question").and_then(Value::as_str).map(str::to_owned),
        Kind::Other => None,
    };
    let title = title.or_else(|| tool.state.title().map(str::to_owned)).or_else(|| first_argument(input));
    element::first_line(&title.unwrap_or_default())
}

/// The to-do list of a call.
pub(crate) fn todos(state: &ToolState) -> Vec<protocol::model::Todo> {
    let list =
        state.metadata().and_then(|metadata| metadata.get("todos")).or_else(|| state.input().get("todos"));
    list.and_then(|list| serde_json::from_value(list.clone()).ok()).unwrap_or_default()
}

/// Whether a call failed, or the command that it ran.
pub(crate) fn has_failed(tool: &ToolPart) -> bool {
    matches!(tool.state, ToolState::Error(_)) || tool.state.exit_code().is_some_and(|code| code != 0)
}

/// A field of an object, if it is a text.
pub(crate) fn text<'v>(value: &'v Value, field: &str) -> Option<&'v str> {
    value.get(field)?.as_str().filter(|text| !text.is_empty())
}

fn todo_title(state: &ToolState) -> Option<String> {
    let todos = todos(state);
    let done = todos.iter().filter(|todo| todo.status == "completed").count();
    (!todos.is_empty()).then(|| format!("{done} of {} done", figures::grouped(todos.len() as u64)))
}

fn first_argument(input: &Value) -> Option<String> {
    input.as_object()?.values().find_map(|value| value.as_str()).map(str::to_owned)
}
