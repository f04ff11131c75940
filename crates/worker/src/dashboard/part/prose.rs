//! What was said: prompts, answers as Markdown, reasoning; finished, or still being written.

use std::sync::Arc;

use maud::html;
use protocol::model::TextPart;

use super::{Row, Scope, hidden};
use crate::dashboard::{
    element::{self, icon},
    figures, markdown,
    tree::{Content, Node},
};

/// A prompt.
pub(crate) fn prompt(row: &Row<'_>, scope: &Scope, text: &TextPart, mode: Option<&str>) -> Node {
    if text.text.trim().is_empty() {
        return hidden(row.id, row.changed);
    }
    let (shown, cut) = element::cut(&text.text, element::TEXT_BYTES);
    let by_server = text.synthetic == Some(true);
    row.leaf(
        scope,
        &html! {
            div class="prompt" {
                div class="prompt-head" {
                    b { @if by_server { "Added by the agent server" } @else { "Prompt" } }
                    @if let Some(mode) = mode { span class="tag" { (mode) } }
                }
                @if by_server {
                    details class="think" { summary { span class="think-first clip" { (element::first_line(shown)) } } div class="think-body" { pre class="plain" { (shown) } } }
                } @else {
                    div class="prose" { (element::ready(markdown::html(shown))) }
                }
                (element::cut_mark(cut))
            }
        },
    )
}

/// A finished answer.
pub(crate) fn answer(row: &Row<'_>, scope: &Scope, text: &TextPart) -> Node {
    if text.text.trim().is_empty() && !text.is_interrupted() {
        return hidden(row.id, row.changed);
    }
    let (shown, cut) = element::cut(&text.text, element::TEXT_BYTES);
    row.leaf(
        scope,
        &html! {
            div class="prose" id={ (row.id) "-text" } { (element::ready(markdown::html(shown))) }
            (element::cut_mark(cut))
            @if text.is_interrupted() { (interrupted()) }
        },
    )
}

/// An answer that is being written: its finished blocks are Markdown, the last one grows as plain text.
pub(crate) fn writing(row: &Row<'_>, text: &TextPart) -> Node {
    let (shown, cut) = element::cut(&text.text, element::TEXT_BYTES);
    let blocks = markdown::blocks(shown);
    let finished = blocks.len().saturating_sub(1);
    let mut children: Vec<Node> = blocks[..finished]
        .iter()
        .enumerate()
        .map(|(i, block)| {
            let id = format!("{}-b{i}", row.id);
            let html = with_id(&block.html, &id);
            Node::leaf(id, row.changed, html)
        })
        .collect();
    children.push(tail(row, &shown[blocks.last().map_or(0, |block| block.source.start)..]));

    let prose = format!("{}-prose", row.id);
    let open =
        format!("{}<div class=\"prose is-streaming\" id=\"{prose}\" aria-busy=\"true\">", row.open_growing());
    let note = html! {
        (element::cut_mark(cut))
        span class="streaming-note" { span class="breathe" { (icon("s-busy")) } "writing" span class="rate" {} }
    };
    let close = format!("</div>{}</div></li>", note.into_string());
    Node {
        id: row.id.into(),
        changed: row.changed,
        content: Content::Branch {
            open: open.into(),
            container: prose.into(),
            children,
            close: close.into(),
        },
    }
}

/// Reasoning, finished or not; collapsed.
pub(crate) fn reasoning(row: &Row<'_>, scope: &Scope, text: &TextPart, is_open: bool) -> Node {
    if text.text.trim().is_empty() && !is_open {
        return hidden(row.id, row.changed);
    }
    let (shown, cut) = element::cut(&text.text, element::TEXT_BYTES);
    if is_open {
        let target = format!("{}-text", row.id);
        let open = format!(
            "{}<details class=\"think\" id=\"{}-card\"><summary>{}<span>Thinking</span><span class=\"breathe\">…</span></summary>\
             <div class=\"think-body\"><p class=\"plain\" id=\"{target}\">",
            row.open_growing(),
            row.id,
            icon("think").into_string()
        );
        let close = format!("</p>{}</div></details></div></li>", element::cut_mark(cut).into_string());
        return Node {
            id: row.id.into(),
            changed: row.changed,
            content: Content::Text {
                open: open.into(),
                target: target.into(),
                text: shown.into(),
                close: close.into(),
            },
        };
    }
    let took = text.time.and_then(|time| Some(time.end?.since(time.start?)));
    row.leaf(
        scope,
        &html! {
            details class="think" id={ (row.id) "-card" } {
                summary {
                    (icon("think"))
                    span { "Thought" @if let Some(took) = took { " " (figures::duration(took)) } }
                    span class="think-first clip" { (element::first_line(shown)) }
                }
                div class="think-body" { div class="prose" { (element::ready(markdown::html(shown))) } (element::cut_mark(cut)) }
            }
            @if text.is_interrupted() { (interrupted()) }
        },
    )
}

/// The block that is being written. An open code fence is shown as code already.
fn tail(row: &Row<'_>, text: &str) -> Node {
    let (id, target) = (format!("{}-tail", row.id), format!("{}-text", row.id));
    let (open, text, close) = match markdown::open_fence(text) {
        Some((language, start)) => {
            let head = html! { div class="code-head" { span { (language) } } }.into_string();
            (
                format!("<div class=\"code\" id=\"{id}\">{head}<pre><code id=\"{target}\">"),
                &text[start..],
                "</code></pre></div>",
            )
        }
        None => (format!("<p class=\"plain\" id=\"{id}\"><span id=\"{target}\">"), text, "</span></p>"),
    };
    Node {
        id: id.into(),
        changed: row.changed,
        content: Content::Text {
            open: open.into(),
            target: target.into(),
            text: text.into(),
            close: close.into(),
        },
    }
}

/// A block with an id: every block is one element that starts with its name.
fn with_id(html: &str, id: &str) -> Arc<str> {
    let name = 1 + html[1..].find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(0);
    format!("{} id=\"{id}\"{}", &html[..name], &html[name..]).into()
}

fn interrupted() -> maud::Markup {
    html! { p class="cut" data-state="error" { (icon("s-failed")) "Broken off here: the agent server went away" } }
}

#[cfg(test)]
mod tests {
    use protocol::Seq;

    use super::*;
    use crate::dashboard::tree;

    #[test]
    fn finished_blocks_are_markdown_and_the_last_one_grows() {
        let node = writing(&row(7), &text("# One\n\nTwo *th"));
        let html = node.html();
        assert!(html.contains("<h2 id=\"m/p-b0\">One</h2>"), "{html}");
        assert!(html.contains("<span id=\"m/p-text\">Two *th</span>"), "{html}");
    }

    #[test]
    fn more_text_of_the_last_block_is_appended() {
        let (old, new) = (writing(&row(7), &text("Two *th")), writing(&row(8), &text("Two *three* <")));
        assert_eq!(
            tree::diff(&old, &new),
            [protocol::frame::PatchOp::Append("m/p-text".into(), "ree* <".into())]
        );
    }

    #[test]
    fn a_finished_block_is_inserted_before_the_growing_one() {
        let (old, new) = (writing(&row(7), &text("One")), writing(&row(8), &text("One\n\nTwo")));
        let ops = tree::diff(&old, &new);
        assert!(
            matches!(&ops[..], [
                protocol::frame::PatchOp::Replace(tail, _),
                protocol::frame::PatchOp::Insert(parent, Some(before), html)
            ] if tail == "m/p-tail" && parent == "m/p-prose" && before == "m/p-tail" && html == "<p id=\"m/p-b0\">One</p>"),
            "{ops:?}"
        );
    }

    #[test]
    fn an_open_fence_grows_as_code() {
        let html = writing(&row(7), &text("```rust\nfn f() {")).html();
        assert!(html.contains("<pre><code id=\"m/p-text\">fn f() {</code></pre>"), "{html}");
    }

    #[test]
    fn a_text_that_was_broken_off_says_so() {
        let mut text = text("half a sen");
        text.metadata = Some(serde_json::json!({ "interrupted": true }));
        assert!(answer(&row(7), &scope(), &text).html().contains("Broken off here"));
    }

    #[test]
    fn a_giant_text_is_cut_with_a_mark() {
        let html = answer(&row(7), &scope(), &text(&"word ".repeat(60_000))).html();
        assert!(html.len() < 2 * element::TEXT_BYTES && html.contains("more are not shown"));
    }

    fn row(changed: u64) -> Row<'static> {
        Row { id: "m/p", kind: "text", time: None, changed: Seq::new(changed) }
    }

    fn scope() -> Scope {
        Scope {
            agent: "toast".parse().unwrap(),
            reader: crate::dashboard::part::Reader::Steers,
            directory: String::new(),
        }
    }

    fn text(text: &str) -> TextPart {
        TextPart { text: text.to_owned(), ..TextPart::default() }
    }
}
