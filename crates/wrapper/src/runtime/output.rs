//! What a server writes to its pipes: line by line, none longer than a limit, whatever bytes come.

use std::{collections::VecDeque, io};

use tokio::io::{AsyncRead, AsyncReadExt as _};

/// Bytes of a line that are kept; the rest of it is dropped.
const LINE: usize = 4096;

/// The last lines that are kept.
const TAIL: usize = 50;

/// The last lines of an output.
#[derive(Debug, Default)]
pub(super) struct Tail(VecDeque<String>);

impl Tail {
    pub(super) fn push(&mut self, line: String) {
        if self.0.len() == TAIL {
            self.0.pop_front();
        }
        self.0.push_back(line);
    }

    pub(super) fn lines(&self) -> Vec<String> {
        self.0.iter().cloned().collect()
    }
}

/// Reads a pipe to its end, so that the server never waits for a reader.
pub(super) async fn drain(mut pipe: impl AsyncRead + Unpin, mut each: impl FnMut(String)) -> io::Result<()> {
    let mut lines = Lines::default();
    let mut bytes = vec![0; 8192];
    loop {
        let read = pipe.read(&mut bytes).await?;
        if read == 0 {
            lines.finish().into_iter().for_each(each);
            return Ok(());
        }
        lines.feed(&bytes[..read], &mut each);
    }
}

/// Where a server says that it listens: `opencode server listening on http://127.0.0.1:4096`.
pub(super) fn listening(line: &str) -> Option<String> {
    let (_, rest) = line.split_once("listening on ")?;
    let url = rest.split_whitespace().next()?;
    url.starts_with("http://").then(|| url.trim_end_matches('/').to_owned())
}

/// Cuts bytes into lines.
#[derive(Debug, Default)]
struct Lines(Vec<u8>);

impl Lines {
    fn feed(&mut self, bytes: &[u8], each: &mut impl FnMut(String)) {
        let mut pieces = bytes.split(|byte| *byte == b'\n');
        self.extend(pieces.next().unwrap_or_default());
        for piece in pieces {
            each(self.take());
            self.extend(piece);
        }
    }

    /// The last line, if it has no end.
    fn finish(mut self) -> Option<String> {
        (!self.0.is_empty()).then(|| self.take())
    }

    fn extend(&mut self, piece: &[u8]) {
        let room = LINE - self.0.len();
        self.0.extend_from_slice(&piece[..piece.len().min(room)]);
    }

    fn take(&mut self) -> String {
        let line = String::from_utf8_lossy(&self.0).trim_end_matches('\r').to_owned();
        self.0.clear();
        line
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    async fn lines_of(chunks: &[&[u8]]) -> Vec<String> {
        let mut lines = Vec::new();
        drain(std::io::Cursor::new(chunks.concat()), |line| lines.push(line)).await.unwrap();
        lines
    }

    #[tokio::test]
    async fn lines_end_with_a_line_feed_or_with_the_output() {
        assert_eq!(lines_of(&[b"one\r\ntw", b"o\n\nlast"]).await, ["one", "two", "", "last"]);
    }

    #[tokio::test]
    async fn an_endless_line_is_cut_and_the_next_one_is_whole() {
        let lines = lines_of(&[&vec![b'x'; 100_000], b"\nnext\n"]).await;
        assert_eq!((lines[0].len(), lines[1].as_str()), (LINE, "next"));
    }

    #[test]
    fn both_servers_words_are_understood() {
        let url = |line| listening(line);
        assert_eq!(
            url("opencode server listening on http://127.0.0.1:4096").as_deref(),
            Some("http://127.0.0.1:4096")
        );
        assert_eq!(
            url("kilo server listening on http://127.0.0.1:41234/").as_deref(),
            Some("http://127.0.0.1:41234")
        );
        for line in
            ["Warning: KILO_SERVER_PASSWORD is not set; server is unsecured.", "listening on stdin", ""]
        {
            assert_eq!(url(line), None, "{line:?}");
        }
    }

    #[test]
    fn the_tail_keeps_the_last_lines() {
        let mut tail = Tail::default();
        (0..60).for_each(|n| tail.push(n.to_string()));
        assert_eq!(
            (tail.lines().len(), tail.lines()[0].as_str(), tail.lines()[49].as_str()),
            (50, "10", "59")
        );
    }

    proptest! {
        #[test]
        fn lines_do_not_depend_on_how_the_bytes_come(text in "[a-c\n]{0,60}", cuts in prop::collection::vec(0_usize..60, 0..6)) {
            let whole = cut(&text, &[]);
            prop_assert_eq!(cut(&text, &cuts), whole);
        }
    }

    fn cut(text: &str, cuts: &[usize]) -> Vec<String> {
        let mut cuts: Vec<usize> =
            cuts.iter().map(|cut| (*cut).min(text.len())).chain([0, text.len()]).collect();
        cuts.sort_unstable();
        let mut found = Vec::new();
        let mut lines = Lines::default();
        for pair in cuts.windows(2) {
            lines.feed(&text.as_bytes()[pair[0]..pair[1]], &mut |line| found.push(line));
        }
        found.extend(lines.finish());
        found
    }
}
