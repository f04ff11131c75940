//! The difference of two texts, as rows of a table: numbered lines, hunks, counts, and the words that changed.

use similar::{ChangeTag, TextDiff};

use super::{highlight, tree::escape_into};

/// Rows shown at once; the rest is counted.
const ROWS: usize = 400;
/// Bytes of a line that words are compared in.
const WORDS_BYTES: usize = 1_000;
/// Bytes of a text that lines are compared in.
const TEXT_BYTES: usize = 512 * 1024;
/// Unchanged lines shown around a change.
const CONTEXT: usize = 3;

/// What changed in one file.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Difference {
    /// The rows, in order.
    pub rows: Vec<Row>,
    /// Lines added.
    pub added: usize,
    /// Lines removed.
    pub removed: usize,
}

/// One row of a difference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Row {
    /// The head of a hunk.
    Hunk(String),
    /// A line on both sides, with its numbers.
    Same(usize, usize, String),
    /// A line that is gone, with its old number.
    Removed(usize, String),
    /// A line that is there anew, with its number.
    Added(usize, String),
}

impl Difference {
    /// Of two texts.
    pub(crate) fn between(old: &str, new: &str) -> Self {
        let (old, new) = (head(old), head(new));
        let diff = TextDiff::from_lines(old, new);
        let mut difference = Self::default();
        for group in diff.grouped_ops(CONTEXT) {
            let (Some(first), Some(last)) = (group.first(), group.last()) else { continue };
            let (old, new) = (
                first.old_range().start..last.old_range().end,
                first.new_range().start..last.new_range().end,
            );
            difference.rows.push(Row::Hunk(format!(
                "@@ -{},{} +{},{} @@",
                old.start + 1,
                old.len(),
                new.start + 1,
                new.len()
            )));
            for change in group.iter().flat_map(|op| diff.iter_changes(op)) {
                let line = change.value().trim_end_matches(['\n', '\r']).to_owned();
                let number = |index: Option<usize>| index.map_or(0, |index| index + 1);
                difference.push(match change.tag() {
                    ChangeTag::Equal => {
                        Row::Same(number(change.old_index()), number(change.new_index()), line)
                    }
                    ChangeTag::Delete => Row::Removed(number(change.old_index()), line),
                    ChangeTag::Insert => Row::Added(number(change.new_index()), line),
                });
            }
        }
        difference
    }

    /// From a unified diff, as agents report it. Lines before the first hunk are skipped.
    pub(crate) fn parse(patch: &str) -> Self {
        let mut difference = Self::default();
        let (mut old, mut new) = (0, 0);
        let mut inside = false;
        for line in head(patch).lines() {
            if let Some((old_start, new_start)) = hunk_starts(line) {
                (old, new, inside) = (old_start, new_start, true);
                difference.rows.push(Row::Hunk(line.to_owned()));
            } else if inside {
                match line.chars().next() {
                    Some('+') => {
                        difference.push(Row::Added(new, line[1..].to_owned()));
                        new += 1;
                    }
                    Some('-') => {
                        difference.push(Row::Removed(old, line[1..].to_owned()));
                        old += 1;
                    }
                    Some(' ') | None => {
                        difference.push(Row::Same(old, new, line.get(1..).unwrap_or_default().to_owned()));
                        (old, new) = (old + 1, new + 1);
                    }
                    // "\ No newline at end of file" belongs to the line before; anything else ends the file.
                    Some('\\') => {}
                    Some(_) => inside = false,
                }
            }
        }
        difference
    }

    /// The rows as the rows of a `<table>`, with the code of `path` highlighted.
    pub(crate) fn html(&self, path: &str) -> String {
        let mut out = String::new();
        let words = self.words();
        let (mut old_code, mut new_code) = (highlight::Lines::new(path), highlight::Lines::new(path));
        for (row, words) in self.rows.iter().zip(&words).take(ROWS) {
            match row {
                Row::Hunk(text) => {
                    out.push_str("<tr class=\"hunk\"><td colspan=\"4\">");
                    escape_into(text, &mut out);
                    out.push_str("</td></tr>");
                    // A hunk starts anywhere in the file: strings and comments of the one before do not go on in it.
                    (old_code, new_code) = (highlight::Lines::new(path), highlight::Lines::new(path));
                }
                Row::Same(old, new, line) => {
                    old_code.next(line);
                    row_html(&mut out, "", [Some(*old), Some(*new)], " ", &new_code.next(line), words);
                }
                Row::Removed(old, line) => {
                    row_html(
                        &mut out,
                        " class=\"del\"",
                        [Some(*old), None],
                        "−",
                        &old_code.next(line),
                        words,
                    );
                }
                Row::Added(new, line) => {
                    row_html(
                        &mut out,
                        " class=\"add\"",
                        [None, Some(*new)],
                        "+",
                        &new_code.next(line),
                        words,
                    );
                }
            }
            out.push('\n');
        }
        if let Some(more) = self.rows.len().checked_sub(ROWS).filter(|more| *more > 0) {
            out.push_str(&format!(
                "<tr class=\"hunk\"><td colspan=\"4\">… {more} more lines are not shown</td></tr>"
            ));
        }
        out
    }

    fn push(&mut self, row: Row) {
        match &row {
            Row::Added(..) => self.added += 1,
            Row::Removed(..) => self.removed += 1,
            Row::Hunk(_) | Row::Same(..) => {}
        }
        self.rows.push(row);
    }

    /// For each row the byte ranges that changed within its line: where as many lines were removed as were added, they
    /// are compared word by word, pair by pair.
    fn words(&self) -> Vec<Vec<std::ops::Range<usize>>> {
        let mut words = vec![Vec::new(); self.rows.len()];
        let mut at = 0;
        while at < self.rows.len() {
            let removed = self.rows[at..].iter().take_while(|row| matches!(row, Row::Removed(..))).count();
            let added =
                self.rows[at + removed..].iter().take_while(|row| matches!(row, Row::Added(..))).count();
            if removed == added {
                for i in at..at + removed {
                    if let (Row::Removed(_, old), Row::Added(_, new)) =
                        (&self.rows[i], &self.rows[i + removed])
                    {
                        (words[i], words[i + removed]) = changed_words(old, new);
                    }
                }
            }
            at += (removed + added).max(1);
        }
        words
    }
}

type Ranges = Vec<std::ops::Range<usize>>;

fn changed_words(old: &str, new: &str) -> (Ranges, Ranges) {
    if old.len() > WORDS_BYTES || new.len() > WORDS_BYTES {
        return Default::default();
    }
    let diff = TextDiff::from_words(old, new);
    let (mut removed, mut added): (Ranges, Ranges) = Default::default();
    let (mut old_at, mut new_at) = (0, 0);
    let mut same = 0;
    for change in diff.iter_all_changes() {
        let len = change.value().len();
        match change.tag() {
            ChangeTag::Equal => {
                same += change.value().trim().len();
                (old_at, new_at) = (old_at + len, new_at + len);
            }
            ChangeTag::Delete => {
                join(&mut removed, old_at..old_at + len);
                old_at += len;
            }
            ChangeTag::Insert => {
                join(&mut added, new_at..new_at + len);
                new_at += len;
            }
        }
    }
    // Lines with next to nothing in common are two lines: marking all of both would only be noise.
    if same * 4 < old.trim().len().max(new.trim().len()) { Default::default() } else { (removed, added) }
}

fn join(ranges: &mut Ranges, range: std::ops::Range<usize>) {
    match ranges.last_mut() {
        Some(last) if last.end == range.start => last.end = range.end,
        Some(_) | None => ranges.push(range),
    }
}

fn row_html(
    out: &mut String,
    class: &str,
    numbers: [Option<usize>; 2],
    sign: &str,
    runs: &[highlight::Run<'_>],
    words: &Ranges,
) {
    out.push_str(&format!("<tr{class}>"));
    for number in numbers {
        out.push_str(&format!("<td class=\"ln\">{}</td>", number.map(|n| n.to_string()).unwrap_or_default()));
    }
    out.push_str(&format!("<td class=\"sg\">{sign}</td><td>"));
    let mut at = 0;
    for (class, text) in runs {
        let mut rest = *text;
        while !rest.is_empty() {
            let inside = words.iter().find(|word| word.contains(&at));
            let end = match inside {
                Some(word) => word.end,
                None => words.iter().map(|word| word.start).find(|start| *start > at).unwrap_or(usize::MAX),
            };
            let (piece, tail) = rest.split_at(end.saturating_sub(at).min(rest.len()));
            if inside.is_some() {
                out.push_str("<mark>");
            }
            highlight::write_runs(&[(*class, piece)], out);
            if inside.is_some() {
                out.push_str("</mark>");
            }
            at += piece.len();
            rest = tail;
        }
    }
    out.push_str("</td></tr>");
}

/// The first lines of `@@ -old,n +new,m @@`.
fn hunk_starts(line: &str) -> Option<(usize, usize)> {
    let (old, rest) = line.strip_prefix("@@ -")?.split_once(" +")?;
    let (new, _) = rest.split_once(" @@")?;
    let start = |range: &str| range.split(',').next().and_then(|start| start.parse().ok());
    Some((start(old)?, start(new)?))
}

fn head(text: &str) -> &str {
    text.get(..text.floor_char_boundary(TEXT_BYTES)).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn changed_words_are_marked_on_both_sides() {
        let diff = Difference::between("a\nif attempt > 5 {\nb\n", "a\nif attempt > self.max {\nb\n");
        assert_eq!((diff.added, diff.removed), (1, 1));
        let html = diff.html("plain");
        assert!(html.contains("<td>if attempt &gt; <mark>5</mark> {</td>"), "{html}");
        assert!(html.contains("<td>if attempt &gt; <mark>self.max</mark> {</td>"), "{html}");
    }

    #[test]
    fn a_patch_of_an_agent_is_read() {
        let diff = Difference::parse(
            "Index: calc.py\n=====\n--- calc.py\n+++ calc.py\n@@ -1,2 +1,3 @@\n def add(a, b):\n+    \"\"\"Add.\"\"\"\n     return a + b\n\\ No newline at end of file\n",
        );
        assert_eq!(
            diff.rows,
            [
                Row::Hunk("@@ -1,2 +1,3 @@".into()),
                Row::Same(1, 1, "def add(a, b):".into()),
                Row::Added(2, "    \"\"\"Add.\"\"\"".into()),
                Row::Same(2, 3, "    return a + b".into()),
            ]
        );
        assert_eq!((diff.added, diff.removed), (1, 0));
    }

    #[test]
    fn an_endless_difference_is_cut_with_a_count() {
        let html = Difference::between("", &"x\n".repeat(ROWS + 50)).html("plain");
        assert!(html.contains("… 51 more lines are not shown"), "{}", &html[html.len() - 200..]);
    }

    #[test]
    fn code_in_a_difference_is_escaped() {
        let html = Difference::between("<b>\n", "<i onload=x>\n").html("x.html");
        assert!(!html.contains("<b>") && !html.contains("<i "), "{html}");
    }

    proptest! {
        #[test]
        fn the_rows_hold_every_line_of_both_sides(old in "([a-c]{0,3}\n){0,12}", new in "([a-c]{0,3}\n){0,12}") {
            let diff = Difference::between(&old, &new);
            let added: Vec<_> = diff.rows.iter().filter_map(|row| match row { Row::Added(n, line) => Some((*n, line.clone())), Row::Hunk(_) | Row::Same(..) | Row::Removed(..) => None }).collect();
            for (number, line) in &added {
                prop_assert_eq!(new.lines().nth(number - 1), Some(line.as_str()));
            }
            prop_assert_eq!(old.lines().count() + diff.added, new.lines().count() + diff.removed);
        }
    }
}
