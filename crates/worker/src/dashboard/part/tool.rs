//! Tool calls: one card for all kinds, with a body of its kind.

use maud::{Markup, html};
use protocol::{
    Seq,
    model::{Todo, ToolPart, ToolState},
};
use serde_json::Value;

use super::{
    Row, Scope, output,
    tool_kind::{self, Kind, text},
};
use crate::dashboard::{
    difference::Difference,
    element::{self, chevron, icon},
    figures, markdown,
    tree::{Content, Node},
};

/// Lines of a search or a fetched page that are shown.
const RESULT_LINES: usize = 80;
/// Entries of an unknown tool's arguments that are shown.
const ARGUMENTS: usize = 40;

/// A tool call.
pub(crate) fn card(row: &Row<'_>, scope: &Scope, tool: &ToolPart) -> Node {
    row.leaf(scope, &details(row.id, scope, tool))
}

/// Reads and searches of one message, in one card.
pub(crate) fn looks(row: &Row<'_>, scope: &Scope, tools: &[&ToolPart]) -> Node {
    let state = if tools.iter().all(|tool| tool.state.is_over()) { "completed" } else { "running" };
    let reads = tools.iter().all(|tool| Kind::of(&tool.tool) == Kind::Read);
    let titles: Vec<String> = tools.iter().map(|tool| tool_kind::title(tool, scope)).collect();
    row.leaf(
        scope,
        &html! {
            details class="tool" id={ (row.id) "-card" } data-state=(state) data-tool="read" {
                summary class="tool-head" {
                    (icon("read"))
                    span class="tool-name" {
                        @if reads { "Read " (figures::plural(tools.len(), "file")) } @else { "Looked at " (figures::plural(tools.len(), "thing")) }
                    }
                    span class="tool-title" { (element::first_line(&titles.join(", "))) }
                    span class="tool-meta" { @if state == "running" { span class="run" { "running" } } (chevron()) }
                }
                div class="tool-body" {
                    @for tool in tools {
                        details class="look" {
                            summary class="tool-pad mono" { (tool_kind::name(tool)) " " (tool_kind::title(tool, scope)) " " span class="faint" { (result_note(tool)) } }
                            (body(scope, tool))
                        }
                    }
                }
            }
        },
    )
}

/// A sub-agent: its transcript inside a card. `summary` is what it cost by now.
pub(crate) fn task(
    row: &Row<'_>,
    scope: &Scope,
    tool: &ToolPart,
    session: &str,
    summary: &str,
    rows: Vec<Node>,
) -> Node {
    let container = format!("sub-{session}");
    let label = format!("Sub-agent: {}", tool_kind::title(tool, scope));
    let card = format!("{}-card", row.id);
    // The head changes with each step of the sub-agent, the transcript inside of it must not.
    let head_id = format!("{}-head", row.id);
    let head = Node::leaf(
        head_id.clone(),
        row.changed,
        head(scope, tool, Some(&head_id), Some(summary)).into_string(),
    );
    let body = Node {
        id: format!("{}-body", row.id).into(),
        changed: row.changed,
        content: Content::Branch {
            open: format!(
                "<div class=\"tool-body\" id=\"{}-body\"><div class=\"sub\" id=\"{container}\">",
                row.id
            )
            .into(),
            container: container.clone().into(),
            children: vec![transcript(&container, &label, row.changed, rows)],
            close: "</div></div>".into(),
        },
    };
    let open_word = if matches!(tool.state, ToolState::Running(_)) { " open" } else { "" };
    let open = format!(
        "{}<details class=\"tool\" id=\"{card}\" data-tool=\"task\" data-state=\"{}\"{open_word}>",
        row.open(scope),
        data_state(&tool.state)
    );
    Node {
        id: row.id.into(),
        changed: row.changed,
        content: Content::Branch {
            open: open.into(),
            container: card.into(),
            children: vec![head, body],
            close: "</details></div></li>".into(),
        },
    }
}

/// A to-do list.
pub(crate) fn checklist(id: Option<&str>, todos: &[Todo]) -> Markup {
    html! {
        ul class="checklist" id=[id] {
            @for todo in todos {
                @let (state, icon_name) = match todo.status.as_str() {
                    "completed" => ("completed", "s-done"),
                    "in_progress" => ("in_progress", "s-half"),
                    "cancelled" => ("cancelled", "s-blocked"),
                    _ => ("pending", "s-idle"),
                };
                li class="check" data-state=(state) {
                    (icon(icon_name))
                    span class="check-text" { (element::cut(&todo.content, element::LINE_BYTES * 4).0) span class="sr-only" { " (" (todo.status) ")" } }
                    span class="faint" { @if todo.priority == "high" { "high" } }
                }
            }
        }
    }
}

/// The state of a call as the stylesheet knows it.
pub(crate) fn data_state(state: &ToolState) -> &'static str {
    match state {
        ToolState::Pending(_) | ToolState::Running(_) => "running",
        ToolState::Completed(_) if state.exit_code().is_some_and(|code| code != 0) => "error",
        ToolState::Completed(_) => "completed",
        ToolState::Error(_) => "error",
        ToolState::Unknown | _ => "idle",
    }
}

/// What changed in the file of an edit or write, if the call says so.
fn difference(tool: &ToolPart) -> Option<Difference> {
    let metadata = tool.state.metadata();
    let patch = metadata
        .and_then(|metadata| text(metadata, "diff"))
        .or_else(|| metadata?.pointer("/filediff/patch")?.as_str());
    if let Some(patch) = patch {
        return Some(Difference::parse(patch));
    }
    let input = tool.state.input();
    match (text(input, "oldString"), text(input, "newString")) {
        (None, None) => None,
        (old, new) => Some(Difference::between(old.unwrap_or_default(), new.unwrap_or_default())),
    }
}

/// Lines added and removed by an edit or write.
pub(crate) fn change_counts(tool: &ToolPart) -> (usize, usize) {
    match difference(tool) {
        Some(difference) => (difference.added, difference.removed),
        None => (text(tool.state.input(), "content").map_or(0, |content| content.lines().count()), 0),
    }
}

fn details(id: &str, scope: &Scope, tool: &ToolPart) -> Markup {
    let state = data_state(&tool.state);
    let opens = match Kind::of(&tool.tool) {
        Kind::Edit | Kind::Todo => true,
        Kind::Bash | Kind::Task => state != "completed",
        Kind::Write | Kind::Read | Kind::Search | Kind::Web | Kind::Question | Kind::Other => {
            state == "error"
        }
    };
    html! {
        details class="tool" id={ (id) "-card" } data-state=(state) data-tool=(Kind::of(&tool.tool).icon()) open[opens] {
            (head(scope, tool, None, None))
            div class="tool-body" { (body(scope, tool)) }
        }
    }
}

fn head(scope: &Scope, tool: &ToolPart, id: Option<&str>, summary: Option<&str>) -> Markup {
    let kind = Kind::of(&tool.tool);
    html! {
        summary class="tool-head" id=[id] {
            (icon(kind.icon()))
            span class="tool-name" { (element::first_line(&tool_kind::name(tool))) }
            span class={ "tool-title" @if kind.has_prose_title() { " is-text" } } { (tool_kind::title(tool, scope)) }
            span class="tool-meta" {
                (meta(tool, kind))
                @if let Some(summary) = summary { span { (summary) } }
                @match tool.state.time() {
                    protocol::model::PartTime { start: Some(start), end: Some(end), .. } => span { (figures::duration(end.since(start))) },
                    protocol::model::PartTime { start: Some(start), .. } => time datetime=(start) data-elapsed {},
                    protocol::model::PartTime { .. } => {},
                }
                (chevron())
            }
        }
    }
}

/// How it went, in a word.
fn meta(tool: &ToolPart, kind: Kind) -> Markup {
    let state = &tool.state;
    let changes = matches!(kind, Kind::Edit | Kind::Write).then(|| change_counts(tool));
    html! {
        @match state {
            ToolState::Pending(_) => span class="run" { "preparing" },
            ToolState::Running(_) => span class="run" { "running" },
            ToolState::Error(_) => span class="bad" { (refusal(state).unwrap_or("failed")) },
            ToolState::Completed(_) => {
                @if let Some(code) = state.exit_code() { span class={ @if code == 0 { "ok" } @else { "bad" } } { "exit " (code) } }
                @if kind.is_look() { span { (result_note(tool)) } }
                @if kind == Kind::Question { span class="ok" { "answered" } }
            },
            _ => {},
        }
        @if let Some((added, removed)) = changes {
            @if added > 0 { span class="adds" { "+" (added) } }
            @if removed > 0 { span class="dels" { "−" (removed) } }
        }
        @if kind == Kind::Write && state.metadata().and_then(|m| m.get("exists")).and_then(Value::as_bool) == Some(false) { span class="hide-s" { "new file" } }
    }
}

/// Calls that a person or the wrapper ended are no failures.
fn refusal(state: &ToolState) -> Option<&'static str> {
    let ToolState::Error(error) = state else { return None };
    let message = error.error.as_str();
    if message.contains("rejected permission") || message.contains("denied") {
        Some("rejected")
    } else if message.contains("dismissed") {
        Some("dismissed")
    } else if message.contains("abort") || message.contains("interrupt") {
        Some("interrupted")
    } else {
        None
    }
}

fn result_note(tool: &ToolPart) -> String {
    let Some(metadata) = tool.state.metadata() else { return String::new() };
    let number = |pointer: &str| metadata.pointer(pointer).and_then(Value::as_u64);
    if let Some(lines) = number("/display/totalLines") {
        return figures::plural(usize::try_from(lines).unwrap_or(usize::MAX), "line");
    }
    match number("/matches").or_else(|| number("/count")) {
        Some(1) => "1 match".to_owned(),
        Some(matches) => format!("{matches} matches"),
        None => String::new(),
    }
}

fn body(scope: &Scope, tool: &ToolPart) -> Markup {
    let kind = Kind::of(&tool.tool);
    let input = tool.state.input();
    html! {
        @match kind {
            Kind::Bash => {
                @if let Some(note) = text(input, "description") { div class="tool-pad faint" { (element::first_line(note)) } }
                (output::terminal(text(input, "command"), tool.state.output().unwrap_or_default()))
            },
            Kind::Edit | Kind::Write => (change(scope, tool)),
            Kind::Todo => (checklist(None, &tool_kind::todos(&tool.state))),
            Kind::Search => (matches(scope, tool)),
            Kind::Read => (file(scope, tool)),
            Kind::Web => (result(tool)),
            Kind::Task => {
                @if let Some(prompt) = text(input, "prompt") { div class="tool-pad faint" { (element::cut(prompt, element::LINE_BYTES * 8).0) } }
                (result(tool))
            },
            Kind::Question => (questions(tool)),
            Kind::Other => {
                (arguments(input))
                @if let Some(output) = tool.state.output().filter(|output| !output.is_empty()) { (output::terminal(None, output)) }
            },
        }
        @if let ToolState::Error(error) = &tool.state {
            div class="tool-pad tool-error" { (element::cut(&error.error, element::LINE_BYTES * 16).0) }
        }
    }
}

fn change(scope: &Scope, tool: &ToolPart) -> Markup {
    let input = tool.state.input();
    let path = text(input, "filePath").or_else(|| text(input, "path")).unwrap_or_default();
    if let Some(difference) = difference(tool) {
        return html! {
            div class="diff" { table {
                caption class="sr-only" { "Changes in " (scope.path(path)) }
                tbody { (element::ready(difference.html(path))) }
            } }
        };
    }
    let content = text(input, "content")
        .or_else(|| text(input, "patchText"))
        .or_else(|| text(input, "patch"))
        .unwrap_or_default();
    let (shown, cut) = element::cut(content, element::TEXT_BYTES / 2);
    html! {
        @if !shown.is_empty() {
            div class="code is-flush" { pre { code { (element::ready(crate::dashboard::highlight::code(path, shown).as_ref())) } } }
            (element::cut_mark(cut))
        }
    }
}

fn file(scope: &Scope, tool: &ToolPart) -> Markup {
    let path =
        text(tool.state.input(), "filePath").or_else(|| text(tool.state.input(), "path")).unwrap_or_default();
    let preview = tool
        .state
        .metadata()
        .and_then(|m| m.pointer("/display/text").and_then(Value::as_str).or_else(|| text(m, "preview")));
    let shown = preview.or(tool.state.output()).unwrap_or_default();
    let lines: Vec<&str> = shown.lines().take(RESULT_LINES).collect();
    let more = shown.lines().count() - lines.len();
    html! {
        @if lines.is_empty() { div class="tool-pad mono faint" { (scope.path(path)) } }
        @else {
            div class="code is-flush" { pre { code { (element::ready(crate::dashboard::highlight::code(path, &lines.join("\n")).as_ref())) } } }
            @if more > 0 { div class="tool-foot" { "… " (figures::plural(more, "more line")) } }
        }
    }
}

/// `path:` heads and `Line N: text` rows, as the servers print matches; anything else as it is.
fn matches(scope: &Scope, tool: &ToolPart) -> Markup {
    let output = tool.state.output().unwrap_or_default();
    let more = output.lines().count().saturating_sub(RESULT_LINES);
    html! {
        div class="grep" {
            @for line in output.lines().take(RESULT_LINES).filter(|line| !line.trim().is_empty()) {
                @let line = element::cut(line, element::LINE_BYTES).0;
                @match line.trim_start().strip_prefix("Line ").and_then(|rest| rest.split_once(':')) {
                    Some((number, text)) if number.chars().all(|c| c.is_ascii_digit()) => div class="grep-line" { span class="ln" { (number) } span { (text.strip_prefix(' ').unwrap_or(text)) } },
                    Some(_) | None => div class="grep-file mono" { (scope.path(line.trim_end_matches(':'))) },
                }
            }
        }
        @if more > 0 { div class="tool-foot" { "… " (figures::plural(more, "more line")) } }
    }
}

/// A result that is prose.
fn result(tool: &ToolPart) -> Markup {
    let output = tool.state.output().unwrap_or_default();
    let lines: Vec<&str> = output.lines().take(RESULT_LINES).collect();
    let more = output.lines().count() - lines.len();
    html! {
        @if !lines.is_empty() { div class="tool-pad" { div class="prose" { (element::ready(markdown::html(element::cut(&lines.join("\n"), element::TEXT_BYTES / 8).0))) } } }
        @if more > 0 { div class="tool-foot" { "… " (figures::plural(more, "more line")) } }
    }
}

fn questions(tool: &ToolPart) -> Markup {
    let questions =
        tool.state.input().get("questions").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let answers = tool.state.metadata().and_then(|metadata| metadata.get("answers"));
    html! {
        div class="tool-pad" { dl class="kv" {
            @for (i, question) in questions.iter().take(ARGUMENTS).enumerate() {
                dt { (element::first_line(text(question, "question").unwrap_or_default())) }
                dd {
                    @let chosen = answers.and_then(|answers| answers.get(i)).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
                    @if chosen.is_empty() { span class="faint" { "no answer" } }
                    @for (n, answer) in chosen.iter().filter_map(Value::as_str).enumerate() { @if n > 0 { ", " } (element::first_line(answer)) }
                }
            }
        } }
    }
}

/// Arguments of a tool that nobody knows.
fn arguments(input: &Value) -> Markup {
    let fields = input.as_object();
    html! {
        @if let Some(fields) = fields.filter(|fields| !fields.is_empty()) {
            div class="tool-pad" { dl class="kv" {
                @for (name, value) in fields.iter().take(ARGUMENTS) {
                    dt { (element::first_line(name)) }
                    dd { @match value.as_str() {
                        Some(text) => (element::cut(text, element::LINE_BYTES * 8).0),
                        None => (element::cut(&value.to_string(), element::LINE_BYTES * 8).0),
                    } }
                }
            } }
        }
    }
}

fn transcript(id: &str, label: &str, changed: Seq, rows: Vec<Node>) -> Node {
    let open = html! { (element::ready(format!("<ol class=\"transcript\" id=\"{id}-rows\" aria-label=\""))) (label) (element::ready("\">")) };
    Node {
        id: format!("{id}-rows").into(),
        changed,
        content: Content::Branch {
            open: open.into_string().into(),
            container: format!("{id}-rows").into(),
            children: rows,
            close: "</ol>".into(),
        },
    }
}

/// What a sub-agent took, for the head of its card.
pub(crate) fn cost_note(tokens: u64, cost: f64) -> String {
    if cost > 0.0 {
        format!("{} tok · {}", figures::short(tokens), figures::dollars(cost))
    } else {
        format!("{} tok", figures::short(tokens))
    }
}
