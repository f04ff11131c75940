//! Source code as HTML with five classes: keyword, string, number, function, comment. The stylesheet gives them their
//! colours in light and dark.

use std::{
    collections::{HashMap, hash_map::DefaultHasher},
    hash::{Hash, Hasher},
    sync::{Arc, LazyLock, Mutex, PoisonError},
};

use syntect::parsing::{ParseState, Scope, ScopeStack, SyntaxReference, SyntaxSet};

use super::tree::escape_into;

/// Code longer than this is shown plain: the grammars are interpreted regular expressions.
const CODE_BYTES: usize = 64 * 1024;
/// A line longer than this is shown plain (minified code).
const LINE_BYTES: usize = 2_000;
/// Blocks kept highlighted. A page is rendered again with every change; its finished blocks are not.
const KEPT_BLOCKS: usize = 512;

static SYNTAXES: LazyLock<SyntaxSet> = LazyLock::new(SyntaxSet::load_defaults_newlines);
static KEPT: LazyLock<Mutex<HashMap<u64, Arc<str>>>> = LazyLock::new(Mutex::default);

/// Code as HTML. `language` is the name after a Markdown fence, or a file's name or extension.
pub(crate) fn code(language: &str, code: &str) -> Arc<str> {
    let mut hasher = DefaultHasher::new();
    (language, code).hash(&mut hasher);
    let key = hasher.finish();
    let kept = || KEPT.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(html) = kept().get(&key) {
        return Arc::clone(html);
    }
    let html: Arc<str> = render(language, code).into();
    let mut kept = kept();
    if kept.len() >= KEPT_BLOCKS {
        kept.clear();
    }
    kept.insert(key, Arc::clone(&html));
    html
}

/// A run of characters of one class.
pub(crate) type Run<'a> = (Option<&'static str>, &'a str);

/// Highlights the lines of one text, one after the other.
#[derive(Debug)]
pub(crate) struct Lines {
    state: Option<(ParseState, ScopeStack)>,
}

impl Lines {
    /// For a language or file name; plain if nobody knows it.
    pub(crate) fn new(language: &str) -> Self {
        Self { state: syntax(language).map(|syntax| (ParseState::new(syntax), ScopeStack::new())) }
    }

    /// The runs of the next line, with or without its line end.
    pub(crate) fn next<'a>(&mut self, line: &'a str) -> Vec<Run<'a>> {
        let Some((state, stack)) = &mut self.state else { return vec![(None, line)] };
        if line.len() > LINE_BYTES {
            return vec![(None, line)];
        }
        let ended = format!("{}\n", line.trim_end_matches('\n'));
        let Ok(changes) = state.parse_line(&ended, &SYNTAXES) else { return vec![(None, line)] };
        let mut runs: Vec<Run<'a>> = Vec::new();
        let mut from = 0;
        for (at, change) in changes {
            let at = at.min(line.len());
            if at > from {
                push(&mut runs, class(stack), line, from, at);
                from = at;
            }
            if stack.apply(&change).is_err() {
                break;
            }
        }
        if from < line.len() {
            push(&mut runs, class(stack), line, from, line.len());
        }
        runs
    }
}

/// Writes runs as HTML.
pub(crate) fn write_runs(runs: &[Run<'_>], out: &mut String) {
    for (class, text) in runs {
        match class {
            Some(class) => {
                out.push_str("<span class=\"");
                out.push_str(class);
                out.push_str("\">");
                escape_into(text, out);
                out.push_str("</span>");
            }
            None => escape_into(text, out),
        }
    }
}

fn push<'a>(runs: &mut Vec<Run<'a>>, class: Option<&'static str>, line: &'a str, from: usize, to: usize) {
    match runs.last_mut() {
        Some((last, text)) if *last == class => {
            let start = from - text.len();
            *text = &line[start..to];
        }
        Some(_) | None => runs.push((class, &line[from..to])),
    }
}

fn render(language: &str, code: &str) -> String {
    let mut out = String::with_capacity(code.len() * 2);
    if code.len() > CODE_BYTES {
        escape_into(code, &mut out);
        return out;
    }
    let mut lines = Lines::new(language);
    for line in code.split_inclusive('\n') {
        write_runs(&lines.next(line), &mut out);
    }
    out
}

fn syntax(language: &str) -> Option<&'static SyntaxReference> {
    let name = language.rsplit('/').next().unwrap_or(language);
    let token = name.rsplit('.').next().unwrap_or(name).trim();
    if token.is_empty() {
        return None;
    }
    // Languages without a grammar of their own among the defaults, under their nearest relative.
    let token = match token.to_ascii_lowercase().as_str() {
        "ts" | "tsx" | "typescript" | "jsx" | "mjs" | "cjs" => "js",
        "jsonc" | "json5" | "jsonl" => "json",
        "zsh" | "console" | "shell" | "sh-session" | "fish" => "sh",
        "toml" | "ini" | "cfg" => "properties",
        "vue" | "svelte" => "html",
        "kt" | "kotlin" | "swift" => "java",
        "zig" => "c",
        other => return SYNTAXES.find_syntax_by_token(other).filter(|syntax| syntax.name != "Plain Text"),
    };
    SYNTAXES.find_syntax_by_token(token)
}

/// The class of the innermost scope that has one.
fn class(stack: &ScopeStack) -> Option<&'static str> {
    static CLASSES: LazyLock<Vec<(Scope, Option<&'static str>)>> = LazyLock::new(|| {
        [
            ("comment", Some("hl-c")),
            ("punctuation.definition.comment", Some("hl-c")),
            ("string", Some("hl-s")),
            ("constant.character.escape", Some("hl-s")),
            ("constant", Some("hl-n")),
            ("entity.name.function", Some("hl-f")),
            ("support.function", Some("hl-f")),
            ("variable.function", Some("hl-f")),
            ("entity.name.tag", Some("hl-k")),
            ("keyword.operator", None),
            ("keyword", Some("hl-k")),
            ("storage", Some("hl-k")),
            ("meta.interpolation", None),
        ]
        .iter()
        .map(|(name, class)| (Scope::new(name).expect("the scope names are valid"), *class))
        .collect()
    });
    stack.as_slice().iter().rev().find_map(|scope| {
        CLASSES.iter().find(|(prefix, _)| prefix.is_prefix_of(*scope)).map(|(_, class)| *class)
    })?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rust_has_keywords_functions_numbers_and_comments() {
        let html = code("rust", "/// Adds.\nfn add() -> u32 { 41 }\n");
        for part in [
            "<span class=\"hl-c\">/// Adds.",
            "<span class=\"hl-k\">fn</span>",
            "<span class=\"hl-f\">add</span>",
            "<span class=\"hl-n\">41</span>",
        ] {
            assert!(html.contains(part), "{part} in {html}");
        }
    }

    #[test]
    fn a_file_name_says_the_language() {
        assert!(code("src/webhooks/retry.py", "def f(): pass").contains("hl-f"));
        assert_eq!(&*code("no/such/language.qqq", "fn <x>"), "fn &lt;x&gt;");
    }

    #[test]
    fn no_character_is_lost_or_left_unescaped() {
        let source = "let s = \"<b>&\"; // </span><script>\n";
        let html = code("js", source);
        assert!(!html.contains("<script"), "{html}");
        assert_eq!(
            without_tags(&html),
            source.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
        );
    }

    fn without_tags(html: &str) -> String {
        let mut out = String::new();
        let mut inside = false;
        for c in html.chars() {
            match c {
                '<' => inside = true,
                '>' if inside => inside = false,
                c if !inside => out.push(c),
                _ => {}
            }
        }
        out
    }
}
