//! Server-sent events, as they are read (WHATWG HTML §9.2.6): by the wrapper from an agent server, and by whoever follows a
//! relay without a WebSocket (§4.2).

use bytes::{Buf as _, Bytes};

/// Takes the bytes of a stream as they come, however they are cut, and gives the events in them.
///
/// ```
/// use bytes::Bytes;
/// use gastown_event_protocol::sse::Decoder;
///
/// let mut decoder = Decoder::new(1024);
/// let mut bytes = Bytes::from_static(b": a comment\nid: e:41\ndata: {\"n\":\ndata: 1}\n\ndata: the next one is not wh");
/// let event = decoder.next(&mut bytes)?.unwrap();
/// assert_eq!((&*event.id, &*event.data), ("e:41", "{\"n\":\n1}"));
/// assert_eq!(decoder.next(&mut bytes)?, None);
/// assert!(bytes.is_empty());
/// # Ok::<(), gastown_event_protocol::sse::TooLarge>(())
/// ```
#[derive(Debug)]
pub struct Decoder {
    limit: usize,
    /// The line that is not whole.
    line: Vec<u8>,
    /// The last line ended with a carriage return: a line feed that follows is part of its end.
    after_return: bool,
    /// The first line is past: only before it a byte order mark is skipped.
    begun: bool,
    kind: String,
    data: String,
    id: String,
}

/// One event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SseEvent {
    /// Its `event:`; empty where it says none.
    pub kind: String,
    /// The newest `id:` of the stream; empty where there was none.
    pub id: String,
    /// Its `data:` lines, joined by line feeds. Bytes that are no UTF-8 are replaced.
    pub data: String,
}

/// An event, or a line, has more bytes than are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an event of the stream has more than {limit} bytes")]
pub struct TooLarge {
    limit: usize,
}

impl Decoder {
    /// For events of at most `limit` bytes.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self {
            limit,
            line: Vec::new(),
            after_return: false,
            begun: false,
            kind: String::new(),
            data: String::new(),
            id: String::new(),
        }
    }

    /// Takes bytes from the front of `input`, up to and including the next event; `None` when it took all of them and no
    /// event is whole.
    ///
    /// # Errors
    /// When an event is too large: the stream is of no more use.
    pub fn next(&mut self, input: &mut Bytes) -> Result<Option<SseEvent>, TooLarge> {
        loop {
            if self.after_return && !input.is_empty() {
                self.after_return = false;
                if input[0] == b'\n' {
                    input.advance(1);
                }
            }
            let end = input.iter().position(|byte| matches!(byte, b'\n' | b'\r'));
            let piece = input.split_to(end.unwrap_or(input.len()));
            if self.line.len() + self.data.len() + piece.len() > self.limit {
                return Err(TooLarge { limit: self.limit });
            }
            self.line.extend_from_slice(&piece);
            if end.is_none() {
                return Ok(None);
            }
            self.after_return = input.get_u8() == b'\r';
            let line = std::mem::take(&mut self.line);
            if let Some(event) = self.take(&String::from_utf8_lossy(&line)) {
                return Ok(Some(event));
            }
        }
    }

    /// Takes a line; an empty one ends an event.
    fn take(&mut self, line: &str) -> Option<SseEvent> {
        let line = if self.begun { line } else { line.strip_prefix('\u{feff}').unwrap_or(line) };
        self.begun = true;
        if line.is_empty() {
            return self.dispatch();
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "data" => {
                self.data.push_str(value);
                self.data.push('\n');
            }
            "event" => value.clone_into(&mut self.kind),
            "id" if !value.contains('\0') => value.clone_into(&mut self.id),
            // Comments, `retry`, which is a browser's business, and what nobody has defined.
            _ => {}
        }
        None
    }

    fn dispatch(&mut self) -> Option<SseEvent> {
        let (kind, mut data) = (std::mem::take(&mut self.kind), std::mem::take(&mut self.data));
        // Each of its lines has one; an event without any is none.
        data.pop()?;
        Some(SseEvent { kind, id: self.id.clone(), data })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn fields_are_read_as_the_standard_says() {
        let found = all(
            "event: gap\nid: e:1\nretry: 5\ndata:  two spaces\nnew: x\n\ndata\ndata: b\n\n: only a comment\n\n",
            99,
        );
        assert_eq!(found, [event("gap", "e:1", " two spaces"), event("", "e:1", "\nb")]);
    }

    #[test]
    fn lines_end_in_three_ways() {
        let found = all("data: a\r\rdata: b\r\n\r\ndata: c\n\ndata: d\n\r", 99);
        assert_eq!(found.iter().map(|event| &*event.data).collect::<Vec<_>>(), ["a", "b", "c", "d"]);
    }

    #[test]
    fn a_byte_order_mark_is_skipped_once_and_what_is_no_utf_8_is_replaced() {
        let bytes = [b"\xef\xbb\xbfdata: a\xff\n\n".as_slice(), b"\xef\xbb\xbfdata: no field\n\n"].concat();
        assert_eq!(all_bytes(&bytes, 99), [event("", "", "a\u{fffd}")]);
    }

    #[test]
    fn an_event_that_is_not_ended_is_none() {
        assert_eq!(all("data: a\n", 99), []);
        assert_eq!(
            all("event: x\n\ndata: a\n\n", 99),
            [event("", "", "a")],
            "and its type is not the next one's"
        );
    }

    #[test]
    fn an_event_may_have_as_many_bytes_as_the_limit_and_no_more() {
        for (line, lines, fits) in
            [("data: 4567", 1, true), ("data: 45678", 1, false), ("data:", 6, true), ("data:", 7, false)]
        {
            let text = format!("{line}\n").repeat(lines);
            let mut decoder = Decoder::new(10);
            let outcome = decoder.next(&mut Bytes::from(text));
            assert_eq!(outcome.is_ok(), fits, "{lines} of {line}");
        }
    }

    proptest! {
        #[test]
        fn p20_no_bytes_panic_and_it_does_not_matter_how_they_are_cut(
            bytes in prop::collection::vec(prop::sample::select(b"data:id \r\n\n\n\xef\xbb\xbf\xff\0x".to_vec()), 0..80),
            step in 1..9_usize,
        ) {
            prop_assert_eq!(all_bytes(&bytes, step), all_bytes(&bytes, usize::MAX));
        }
    }

    fn all(text: &str, step: usize) -> Vec<SseEvent> {
        all_bytes(text.as_bytes(), step)
    }

    fn all_bytes(bytes: &[u8], step: usize) -> Vec<SseEvent> {
        let (mut decoder, mut found) = (Decoder::new(1024), Vec::new());
        for chunk in bytes.chunks(step) {
            let mut chunk = Bytes::copy_from_slice(chunk);
            while let Some(event) = decoder.next(&mut chunk).unwrap() {
                found.push(event);
            }
        }
        found
    }

    fn event(kind: &str, id: &str, data: &str) -> SseEvent {
        SseEvent { kind: kind.to_owned(), id: id.to_owned(), data: data.to_owned() }
    }
}
