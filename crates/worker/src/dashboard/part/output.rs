//! What a command put out: its last lines, with the earlier ones behind a click.

use maud::{Markup, html};

use crate::dashboard::{ansi, element, figures};

/// Lines shown at once: a screenful, and some.
const LINES: usize = 60;
/// Lines kept behind the click.
const EARLIER_LINES: usize = 2_000;
/// Bytes of an output that are looked at, from its end.
const OUTPUT_BYTES: usize = 256 * 1024;

/// A terminal with the command, if there is one, and the tail of the output.
pub(crate) fn terminal(command: Option<&str>, output: &str) -> Markup {
    let (output, cut) = tail(output);
    let lines = ansi::lines(output);
    let shown = lines.len().saturating_sub(LINES);
    let kept = shown.saturating_sub(EARLIER_LINES);
    let label = command
        .map_or_else(|| "Output".to_owned(), |command| format!("Output of {}", element::first_line(command)));
    // The box is reversed: what comes first is at the bottom, so that it stays at the tail of growing output by itself.
    html! {
        div class="term" tabindex="0" role="region" aria-label=(label) {
            @if !lines.is_empty() { pre { (element::ready(lines[shown..].join("\n"))) } }
            @if shown > 0 {
                details class="earlier" {
                    summary { "Show " (figures::plural(shown - kept, "earlier line")) }
                    @if kept > 0 || cut > 0 {
                        p class="cut faint" { "… " @if kept > 0 { (figures::plural(kept, "line")) " and " } (figures::bytes(cut)) " before are not shown" }
                    }
                    pre { (element::ready(lines[kept..shown].join("\n"))) }
                }
            } @else if cut > 0 {
                p class="cut faint" { "… " (figures::bytes(cut)) " before are not shown" }
            }
            @if let Some(command) = command { pre { span class="term-cmd" { (command) } } }
        }
    }
}

/// The end of an output, from the start of a line, and how many bytes are left out before it.
fn tail(output: &str) -> (&str, usize) {
    let Some(excess) = output.len().checked_sub(OUTPUT_BYTES) else { return (output, 0) };
    let start = output.ceil_char_boundary(excess);
    let start = output[start..].find('\n').map_or(start, |line| start + line + 1);
    (&output[start..], start)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_output_is_shown_whole() {
        let html = terminal(Some("ls"), "a\nb\n").into_string();
        assert!(
            html.contains("<pre>a\nb</pre>") && html.contains("<span class=\"term-cmd\">ls</span>"),
            "{html}"
        );
        assert!(!html.contains("details"));
    }

    #[test]
    fn a_long_output_shows_its_tail_and_keeps_the_rest_behind_a_click() {
        let output: String = (1..=LINES + 214).map(|n| format!("line {n}\n")).collect();
        let html = terminal(None, &output).into_string();
        assert!(html.contains("Show 214 earlier lines"), "{html}");
        assert!(
            html.find("line 274").unwrap() < html.find("line 1\n").unwrap(),
            "the tail comes first in a reversed box"
        );
    }

    #[test]
    fn an_endless_output_is_cut_with_a_mark() {
        let html = terminal(None, &"x\n".repeat(OUTPUT_BYTES)).into_string();
        assert!(
            html.len() < 3 * OUTPUT_BYTES && html.contains("262.1 KB before are not shown"),
            "{}",
            html.len()
        );
    }

    #[test]
    fn hostile_output_is_text() {
        let html = terminal(Some("<b>\"'"), "<script>alert(1)</script>\u{1b}]0;<x>\u{7}").into_string();
        assert!(!html.contains("<script") && !html.contains("<b>") && !html.contains("<x>"), "{html}");
    }
}
