//! The wrapper's own log: its last lines are kept, to be shown over the link (§7, `logs`), and no line has a secret in it.

use std::{
    collections::VecDeque,
    fmt, io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Lines that are kept.
pub(crate) const LINES: usize = 200;
/// Bytes of a line that are kept.
const LINE_BYTES: usize = 1_024;
/// What is shorter is no secret: it would be found in every line.
const SECRET_BYTES: usize = 8;

/// Writes a log to stderr and keeps its last lines. Give it to `tracing_subscriber` as the writer: it takes a whole line at a
/// time. Cheap to clone; all clones are one log.
#[derive(Clone, Default)]
pub struct LogTail(Arc<Mutex<Kept>>);

#[derive(Default)]
struct Kept {
    lines: VecDeque<String>,
    secrets: Vec<String>,
}

impl LogTail {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// From here on no line has this text in it. One that another one begins with is looked for after that.
    pub(crate) fn hide(&self, secret: &str) {
        let mut kept = self.kept();
        if secret.len() >= SECRET_BYTES && !kept.secrets.iter().any(|hidden| hidden == secret) {
            let at = kept.secrets.partition_point(|hidden| hidden.len() >= secret.len());
            kept.secrets.insert(at, secret.to_owned());
        }
    }

    /// The last lines, oldest first: at most so many.
    pub(crate) fn last(&self, lines: usize) -> Vec<String> {
        let kept = self.kept();
        kept.lines.iter().skip(kept.lines.len().saturating_sub(lines)).cloned().collect()
    }

    /// Keeps a text. Returns it as it may be shown.
    fn keep(&self, text: &str) -> String {
        let mut kept = self.kept();
        let shown = kept.secrets.iter().fold(text.to_owned(), |text, secret| text.replace(secret, "***"));
        for line in shown.lines().filter(|line| !line.is_empty()) {
            if kept.lines.len() == LINES {
                kept.lines.pop_front();
            }
            kept.lines.push_back(plain(line));
        }
        shown
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl io::Write for LogTail {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        let shown = self.keep(&String::from_utf8_lossy(text));
        io::stderr().write_all(shown.as_bytes())?;
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

impl fmt::Debug for LogTail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogTail").field("lines", &self.kept().lines.len()).finish_non_exhaustive()
    }
}

/// A line without colours and other control characters, which are for a terminal, and no longer than the limit.
fn plain(line: &str) -> String {
    let mut plain = String::new();
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        if plain.len() >= LINE_BYTES {
            break;
        }
        match c {
            // A control sequence ends with its letter.
            '\u{1b}' => _ = chars.find(char::is_ascii_alphabetic),
            c if c.is_control() => {}
            c => plain.push(c),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_are_kept_oldest_first() {
        let log = LogTail::new();
        for n in 0..=LINES {
            log.keep(&format!("line {n}\n"));
        }
        assert_eq!(log.last(LINES).len(), LINES);
        assert_eq!(log.last(usize::MAX)[0], "line 1");
        assert_eq!(log.last(2), [format!("line {}", LINES - 1), format!("line {LINES}")]);
    }

    #[test]
    fn p19_no_line_has_a_secret_in_it() {
        let log = LogTail::new();
        log.hide("canary-secret");
        log.hide("on");
        let shown = log.keep("token=canary-secret is on, again canary-secret\n");
        assert_eq!(shown, "token=*** is on, again ***\n");
        assert_eq!(log.last(1), ["token=*** is on, again ***"]);
        assert!(!format!("{log:?}").contains("canary"));
    }

    #[test]
    fn p19_a_secret_that_begins_with_another_is_hidden_whole() {
        let log = LogTail::new();
        log.hide("canary-secret");
        log.hide("canary-secret-and-more");
        assert_eq!(log.keep("canary-secret-and-more, canary-secret\n"), "***, ***\n");
    }

    #[test]
    fn colours_and_endless_lines_are_not_kept() {
        let log = LogTail::new();
        log.keep("\u{1b}[2m12:00\u{1b}[0m \u{1b}[32mINFO\u{1b}[0m it\u{7} runs\n");
        log.keep(&"x".repeat(5_000));
        assert_eq!(log.last(2)[0], "12:00 INFO it runs");
        assert_eq!(log.last(1)[0].len(), LINE_BYTES);
    }
}
