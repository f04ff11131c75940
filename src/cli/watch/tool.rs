//! A tool call as a card of lines: what it does, how it went, what it put out.

use protocol::model::ToolState;
use serde_json::Value;

use super::{
    super::paint::{Paint, Tone, clean},
    transcript::short,
};

/// Lines of output that are shown; the last ones, where an error stands as a rule.
const OUTPUT_LINES: usize = 20;
/// Lines of a diff that are shown.
const DIFF_LINES: usize = 60;
/// Characters of a line of arguments.
const ARGUMENT_CHARS: usize = 120;

/// The card, ending with a line feed.
pub(super) fn card(paint: Paint, name: &str, state: &ToolState) -> String {
    let (tone, sign) = match state {
        ToolState::Completed(_) if state.exit_code().is_some_and(|code| code != 0) => (Tone::Warn, "!"),
        ToolState::Completed(_) => (Tone::Good, "✓"),
        ToolState::Error(_) => (Tone::Bad, "✗"),
        ToolState::Pending(_) | ToolState::Running(_) | ToolState::Unknown => (Tone::Dim, "⚙"),
        _ => (Tone::Dim, "⚙"),
    };
    let mut card = format!("{} {}", paint.paint(tone, sign), paint.paint(Tone::Strong, &clean(name)));
    let what = what(name, state);
    if !what.is_empty() {
        card.push(' ');
        card.push_str(&clean(&what));
    }
    card.push_str(&paint.paint(Tone::Dim, &after(state)));
    card.push('\n');
    body(&mut card, paint, name, state);
    card
}

/// What the call does, in one line.
fn what(name: &str, state: &ToolState) -> String {
    let input = state.input();
    let field = |field: &str| input.get(field).and_then(Value::as_str);
    let text = match name {
        "bash" => field("command").map(|command| format!("$ {command}")),
        "read" | "edit" | "write" | "multiedit" => field("filePath").map(|path| short(path).to_owned()),
        "grep" | "glob" => field("pattern").map(str::to_owned),
        "webfetch" => field("url").map(str::to_owned),
        "task" => field("description").map(str::to_owned),
        "todowrite" | "todoread" | "question" => Some(String::new()),
        _ => None,
    };
    let text = text.or_else(|| state.title().map(str::to_owned));
    let text = text.unwrap_or_else(|| if input.is_null() { String::new() } else { input.to_string() });
    let mut lines = text.lines();
    let first = lines.next().unwrap_or_default();
    let mut line: String = first.chars().take(ARGUMENT_CHARS).collect();
    if line.len() < first.len() || lines.next().is_some() {
        line.push('…');
    }
    line
}

/// How long it took, and its exit code if that is not 0.
fn after(state: &ToolState) -> String {
    let mut text = String::new();
    if let Some(code) = state.exit_code().filter(|code| *code != 0) {
        text.push_str(&format!("  exit {code}"));
    }
    let time = state.time();
    if let (Some(start), Some(end)) = (time.start, time.end) {
        let ms = end.since(start).as_millis();
        text.push_str(&if ms < 1000 {
            format!("  {ms} ms")
        } else {
            format!("  {:.1} s", end.since(start).as_secs_f64())
        });
    }
    text
}

fn body(card: &mut String, paint: Paint, name: &str, state: &ToolState) {
    if let ToolState::Error(error) = state {
        push(card, paint, error.error.lines().map(|line| (Tone::Bad, line)));
        return;
    }
    if !matches!(state, ToolState::Completed(_)) {
        return;
    }
    if let Some(diff) = state.metadata().and_then(|metadata| metadata.get("diff")).and_then(Value::as_str) {
        let lines: Vec<_> = diff.lines().skip_while(|line| !line.starts_with("@@")).collect();
        push(card, paint, lines.iter().take(DIFF_LINES).map(|line| (tone_of(line), *line)));
        hidden(card, paint, lines.len().saturating_sub(DIFF_LINES));
        return;
    }
    // What a tool found or read is for the model; what a command put out is for whoever watches as well.
    if name == "bash" {
        let output: Vec<_> = state.output().unwrap_or_default().trim_end().lines().collect();
        let skipped = output.len().saturating_sub(OUTPUT_LINES);
        hidden(card, paint, skipped);
        push(card, paint, output[skipped..].iter().map(|line| (Tone::Dim, *line)));
    }
}

fn push<'a>(card: &mut String, paint: Paint, lines: impl Iterator<Item = (Tone, &'a str)>) {
    for (tone, line) in lines {
        card.push_str("    ");
        card.push_str(&paint.paint(tone, &clean(line)));
        card.push('\n');
    }
}

fn hidden(card: &mut String, paint: Paint, lines: usize) {
    if lines > 0 {
        card.push_str(&paint.paint(Tone::Dim, &format!("    … {lines} more lines")));
        card.push('\n');
    }
}

/// The tone of a line of a unified diff.
fn tone_of(line: &str) -> Tone {
    match line.as_bytes().first() {
        Some(b'+') => Tone::Good,
        Some(b'-') => Tone::Bad,
        Some(b'@') => Tone::Dim,
        Some(_) | None => Tone::Plain,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_failed_command_shows_its_exit_code_and_the_end_of_its_output() {
        let output: String = (1..=30).map(|n| format!("line {n}\n")).collect();
        let card =
            card(Paint::Plain, "bash", &completed(&json!({"command": "make"}), &output, &json!({"exit": 2})));
        assert!(card.starts_with("! bash $ make  exit 2\n    … 10 more lines\n    line 11\n"), "{card}");
        assert!(card.ends_with("    line 30\n"), "{card}");
    }

    #[test]
    fn an_edit_shows_its_diff_in_colour() {
        let diff = "--- a\n+++ b\n@@ -1 +1 @@\n-old\n+new\n";
        let card = card(
            Paint::Colour,
            "edit",
            &completed(&json!({"filePath": "/w/src/a.rs"}), "ok", &json!({"diff": diff})),
        );
        assert!(card.contains("src/a.rs"), "{card}");
        assert!(card.contains("\x1b[31m-old\x1b[0m") && card.contains("\x1b[32m+new\x1b[0m"), "{card}");
        assert!(!card.contains("+++ b"), "{card}");
    }

    #[test]
    fn what_a_tool_puts_out_cannot_command_the_terminal() {
        let card = card(
            Paint::Plain,
            "bash",
            &completed(&json!({"command": "\x1b]0;x\x07ls"}), "\x1b[2Jgone", &json!({})),
        );
        assert_eq!(card, "✓ bash $ ls\n    gone\n");
    }

    fn completed(input: &Value, output: &str, metadata: &Value) -> ToolState {
        serde_json::from_value(json!({
            "status": "completed", "input": input, "output": output, "title": "", "metadata": metadata, "time": {}
        }))
        .expect("a state")
    }
}
