//! Markdown of a model as safe HTML, block by block.
//!
//! What a model writes is hostile input. HTML in it is shown as text, links lead only to `http`, `https` and `mailto`,
//! pictures become links (nothing is loaded from outside), and no nesting is deeper than [`DEPTH`].

use std::ops::Range;

use pulldown_cmark::{Alignment, CodeBlockKind, Event, HeadingLevel, Options, Parser, Tag, TagEnd};

use super::{highlight, tree::escape_into};

/// Nesting of quotes, lists and emphasis that is shown; deeper levels are flattened.
const DEPTH: usize = 24;

/// One block of the top level: a paragraph, a list, a table, …
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Block {
    /// Where it stands in the Markdown text.
    pub source: Range<usize>,
    /// Its HTML, one element.
    pub html: String,
}

/// Markdown as HTML.
pub(crate) fn html(markdown: &str) -> String {
    blocks(markdown).into_iter().map(|block| block.html).collect()
}

/// Markdown as the HTML of its top-level blocks.
pub(crate) fn blocks(markdown: &str) -> Vec<Block> {
    let options = Options::ENABLE_TABLES | Options::ENABLE_STRIKETHROUGH | Options::ENABLE_TASKLISTS;
    let mut writer = Writer::default();
    let mut blocks = Vec::new();
    let mut open = 0usize;
    for (event, source) in Parser::new_ext(markdown, options).into_offset_iter() {
        let (starts, ends) = (matches!(event, Event::Start(_)), matches!(event, Event::End(_)));
        open = open + usize::from(starts) - usize::from(ends);
        writer.write(event);
        if open == 0 {
            let html = std::mem::take(&mut writer.out);
            if !html.is_empty() {
                blocks.push(Block { source, html });
            }
        }
    }
    blocks
}

/// The code fence that the last block opens and does not close: its language, and where its code begins.
pub(crate) fn open_fence(block: &str) -> Option<(&str, usize)> {
    let first = block.split_inclusive('\n').next()?;
    let fence = first.trim_start_matches(' ');
    let mark = fence.chars().next().filter(|c| matches!(c, '`' | '~'))?;
    let width = fence.chars().take_while(|c| *c == mark).count();
    if width < 3 || !first.ends_with('\n') {
        return None;
    }
    let closed = block.lines().skip(1).any(|line| {
        let line = line.trim();
        line.len() >= width && line.chars().all(|c| c == mark)
    });
    (!closed).then(|| (fence[width..].trim(), first.len()))
}

#[derive(Debug, Default)]
struct Writer {
    out: String,
    /// Tags open beyond [`DEPTH`], whose ends are to be left out too.
    depth: usize,
    /// The language and the text of the code block that is open.
    code: Option<(String, String)>,
    columns: Vec<Alignment>,
    column: usize,
    in_head: bool,
    /// Whether the link that is open has a tag.
    links: Vec<bool>,
}

impl Writer {
    fn write(&mut self, event: Event<'_>) {
        match event {
            Event::Start(tag) => self.start(tag),
            Event::End(tag) => self.end(tag),
            Event::Text(text) => match &mut self.code {
                Some((_, code)) => code.push_str(&text),
                None => self.text(&text),
            },
            // Raw HTML is text, as everything else that a parser option could bring.
            Event::Html(text) | Event::InlineHtml(text) | Event::FootnoteReference(text) => self.text(&text),
            Event::Code(text) | Event::InlineMath(text) | Event::DisplayMath(text) => {
                self.out.push_str("<code>");
                self.text(&text);
                self.out.push_str("</code>");
            }
            Event::SoftBreak => self.out.push('\n'),
            Event::HardBreak => self.out.push_str("<br>"),
            Event::Rule => self.out.push_str("<hr>"),
            Event::TaskListMarker(done) => {
                self.out.push_str(if done {
                    "<span class=\"task\">☑</span> "
                } else {
                    "<span class=\"task\">☐</span> "
                });
            }
        }
    }

    fn text(&mut self, text: &str) {
        escape_into(text, &mut self.out);
    }

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "whatever else the parser knows has no element of its own here"
    )]
    fn start(&mut self, tag: Tag<'_>) {
        self.depth += 1;
        match tag {
            Tag::CodeBlock(kind) => {
                let language = match kind {
                    CodeBlockKind::Fenced(info) => {
                        info.split([' ', ',', '{']).next().unwrap_or_default().to_owned()
                    }
                    CodeBlockKind::Indented => String::new(),
                };
                self.code = Some((language, String::new()));
            }
            Tag::Link { dest_url, .. } => self.link(&dest_url),
            Tag::Image { dest_url, .. } => self.link(&dest_url),
            Tag::Table(columns) => {
                self.columns = columns;
                self.out.push_str("<table>");
            }
            Tag::TableHead => {
                (self.in_head, self.column) = (true, 0);
                self.out.push_str("<thead><tr>");
            }
            Tag::TableRow => {
                self.column = 0;
                self.out.push_str("<tr>");
            }
            Tag::TableCell => {
                let right = matches!(self.columns.get(self.column), Some(Alignment::Right));
                self.column += 1;
                let tag = if self.in_head { "<th" } else { "<td" };
                self.out.push_str(tag);
                self.out.push_str(if right { " class=\"num\">" } else { ">" });
            }
            Tag::List(Some(start)) if self.depth <= DEPTH => {
                self.out.push_str(&if start == 1 {
                    "<ol>".to_owned()
                } else {
                    format!("<ol start=\"{start}\">")
                });
            }
            tag => {
                if self.depth <= DEPTH
                    && let Some(name) = element(&tag.to_end())
                {
                    self.out.push('<');
                    self.out.push_str(name);
                    self.out.push('>');
                }
            }
        }
    }

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "whatever else the parser knows has no element of its own here"
    )]
    fn end(&mut self, tag: TagEnd) {
        match tag {
            TagEnd::CodeBlock => {
                let (language, code) = self.code.take().unwrap_or_default();
                self.out.push_str(&code_block(&language, &code));
            }
            TagEnd::Link | TagEnd::Image => {
                if self.links.pop() == Some(true) {
                    self.out.push_str("</a>");
                }
            }
            TagEnd::Table => self.out.push_str("</tbody></table>"),
            TagEnd::TableHead => {
                self.in_head = false;
                self.out.push_str("</tr></thead><tbody>");
            }
            TagEnd::TableRow => self.out.push_str("</tr>"),
            TagEnd::TableCell => self.out.push_str(if self.in_head { "</th>" } else { "</td>" }),
            tag => {
                if self.depth <= DEPTH
                    && let Some(name) = element(&tag)
                {
                    self.out.push_str("</");
                    self.out.push_str(name);
                    self.out.push('>');
                }
            }
        }
        self.depth -= 1;
    }

    fn link(&mut self, target: &str) {
        // An anchor inside an anchor is no HTML.
        let safe = is_safe(target) && !self.links.contains(&true);
        self.links.push(safe);
        if safe {
            self.out.push_str("<a href=\"");
            self.text(target);
            self.out.push_str("\" rel=\"noopener nofollow\" target=\"_blank\">");
        }
    }
}

/// A block of code with its language and a button to copy it.
pub(crate) fn code_block(language: &str, code: &str) -> String {
    let mut out = String::from("<div class=\"code\"><div class=\"code-head\"><span>");
    escape_into(language, &mut out);
    out.push_str(
        "</span><button type=\"button\" class=\"btn btn-quiet btn-sm btn-icon js-only\" data-act=\"copy\" aria-label=\"Copy code\">\
         <svg class=\"icon\" aria-hidden=\"true\"><use href=\"#i-copy\"></use></svg></button></div><pre><code>",
    );
    out.push_str(&highlight::code(language, code));
    out.push_str("</code></pre></div>");
    out
}

/// Whether a link of hostile text may be followed: an absolute address with one of three schemes.
pub(crate) fn is_safe(target: &str) -> bool {
    ["http://", "https://", "mailto:"]
        .iter()
        .any(|scheme| target.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme)))
}

/// The element of a tag that has one and no attributes.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "whatever else the parser knows has no element of its own here"
)]
fn element(tag: &TagEnd) -> Option<&'static str> {
    match tag {
        TagEnd::Paragraph => Some("p"),
        TagEnd::Heading(HeadingLevel::H1 | HeadingLevel::H2) => Some("h2"),
        TagEnd::Heading(HeadingLevel::H3 | HeadingLevel::H4 | HeadingLevel::H5 | HeadingLevel::H6) => {
            Some("h3")
        }
        TagEnd::BlockQuote(_) => Some("blockquote"),
        TagEnd::List(true) => Some("ol"),
        TagEnd::List(false) => Some("ul"),
        TagEnd::Item => Some("li"),
        TagEnd::Emphasis => Some("em"),
        TagEnd::Strong => Some("strong"),
        TagEnd::Strikethrough => Some("del"),
        TagEnd::HtmlBlock => Some("p"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn blocks_know_where_they_stand() {
        let text = "# Title\n\nOne *two*.\n\n- a\n- b\n";
        let blocks = blocks(text);
        assert_eq!(
            blocks.iter().map(|b| b.html.as_str()).collect::<Vec<_>>(),
            ["<h2>Title</h2>", "<p>One <em>two</em>.</p>", "<ul><li>a</li><li>b</li></ul>"]
        );
        assert_eq!(&text[blocks[1].source.clone()], "One *two*.\n");
    }

    #[test]
    fn tables_keep_their_alignment() {
        let html = html("| a | n |\n|---|--:|\n| x | 1 |\n");
        assert_eq!(
            html,
            "<table><thead><tr><th>a</th><th class=\"num\">n</th></tr></thead><tbody><tr><td>x</td>\
             <td class=\"num\">1</td></tr></tbody></table>"
        );
    }

    #[test]
    fn raw_html_is_text() {
        assert_eq!(html("<script>alert(1)</script>"), "<p>&lt;script&gt;alert(1)&lt;/script&gt;</p>");
        assert_eq!(html("a <img src=x onerror=alert(1)> b"), "<p>a &lt;img src=x onerror=alert(1)&gt; b</p>");
    }

    #[test]
    fn only_three_schemes_are_links() {
        assert!(
            html("[x](https://a.example/?q=\"&)")
                .contains("href=\"https://a.example/?q=&quot;&amp;\" rel=\"noopener nofollow\"")
        );
        for target in [
            "javascript:alert(1)",
            "JaVaScRiPt:alert(1)",
            "data:text/html,x",
            "vbscript:x",
            "//evil",
            "/local",
            "java\nscript:x",
        ] {
            let html = html(&format!("[x]({target}) ![y]({target}) <{target}>"));
            assert!(!html.contains("href="), "{target}: {html}");
        }
        assert!(!html("![tracker](https://a.example/p.png)").contains("<img"));
    }

    #[test]
    fn absurd_nesting_is_flattened() {
        let html = html(&format!("{}x", "> ".repeat(500)));
        assert!(html.matches("<blockquote>").count() <= DEPTH);
        assert_eq!(html.matches("<blockquote>").count(), html.matches("</blockquote>").count());
    }

    #[test]
    fn an_open_fence_is_seen_until_it_is_closed() {
        assert_eq!(open_fence("```rust\nfn f() {"), Some(("rust", 8)));
        assert_eq!(open_fence("```rust\nfn f() {}\n```\n"), None);
        assert_eq!(open_fence("```ru"), None, "the language is still being written");
        assert_eq!(open_fence("text"), None);
    }

    proptest! {
        #[test]
        fn no_markdown_makes_other_tags_than_ours(text in "(<[a-z/!]{1,8}|[\\]\\[()!*_`>|#\n -]|javascript:|https://x|on[a-z]+=|\"|'|&|\\PC){0,80}") {
            const OURS: [&str; 26] = ["p", "h2", "h3", "blockquote", "ol", "ul", "li", "em", "strong", "del", "code", "pre", "div", "span",
                "table", "thead", "tbody", "tr", "th", "td", "a", "br", "hr", "button", "svg", "use"];
            let html = html(&text);
            for (i, _) in html.match_indices('<') {
                let name: String = html[i + 1..].trim_start_matches('/').chars().take_while(char::is_ascii_alphanumeric).collect();
                prop_assert!(OURS.contains(&name.as_str()), "<{name} in {html}");
            }
        }
    }
}
