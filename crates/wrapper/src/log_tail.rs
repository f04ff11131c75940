//! The wrapper's own log: its last lines are kept, to be shown over the link (§7, `logs`), and no line has a secret in it.

use std::{
    borrow::Cow,
    collections::VecDeque,
    fmt, io,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::{log_file::LogFile, redact::Redactor};

/// Lines that are kept.
pub(crate) const LINES: usize = 200;
/// Bytes of a line that are kept.
const LINE_BYTES: usize = 1_024;

/// Writes a log to stderr and keeps its last lines. Give it to `tracing_subscriber` as the writer: it takes a whole line at a
/// time. Cheap to clone; all clones are one log.
#[derive(Clone, Default)]
pub struct LogTail {
    lines: Arc<Mutex<VecDeque<String>>>,
    file: Arc<Mutex<Option<LogFile>>>,
    secrets: Redactor,
}

impl LogTail {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// If stderr is a file in this folder, it is turned at a size.
    pub(crate) fn turn_in(&self, folder: &Path) {
        match LogFile::of(io::stderr(), folder) {
            Ok(file) => *self.file() = file,
            Err(error) => tracing::warn!(%error, "the log's file cannot be watched: it may grow without end"),
        }
    }

    /// What no line has in it, and nothing else that the wrapper says.
    pub(crate) fn secrets(&self) -> &Redactor {
        &self.secrets
    }

    /// The last lines, oldest first: at most so many.
    pub(crate) fn last(&self, lines: usize) -> Vec<String> {
        let kept = self.kept();
        kept.iter().skip(kept.len().saturating_sub(lines)).cloned().collect()
    }

    /// Keeps a text. Returns it as it may be shown.
    fn keep<'t>(&self, text: &'t str) -> Cow<'t, str> {
        let shown = self.secrets.text(text);
        let mut kept = self.kept();
        for line in shown.lines().filter(|line| !line.is_empty()) {
            if kept.len() == LINES {
                kept.pop_front();
            }
            kept.push_back(plain(line));
        }
        shown
    }

    fn file(&self) -> MutexGuard<'_, Option<LogFile>> {
        self.file.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn kept(&self) -> MutexGuard<'_, VecDeque<String>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl io::Write for LogTail {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        let said = String::from_utf8_lossy(text);
        let shown = self.keep(&said);
        io::stderr().write_all(shown.as_bytes())?;
        if let Some(file) = &mut *self.file() {
            file.grew(shown.len())?;
        }
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

impl fmt::Debug for LogTail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogTail").field("lines", &self.kept().len()).finish_non_exhaustive()
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
        log.secrets().hide("canary-secret");
        assert_eq!(log.keep("token=canary-secret is on\n"), "token=*** is on\n");
        assert_eq!(log.last(1), ["token=*** is on"]);
        assert!(!format!("{log:?}").contains("canary"));
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
