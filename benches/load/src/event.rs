//! The event that every server is given: the same bytes for all, with its number and the time it was sent in them.

use memchr::memmem::Finder;

/// What no other part of a frame contains.
const MARK: &[u8] = b"GT|";
/// Number, time and their separators after the mark.
const TAIL: usize = 10 + 1 + 20 + 1;
const HEAD: &str = concat!(
    r#"{"time":"2026-01-01T00:00:00.000Z","type":"message.part.delta","session":"ses_load","#,
    r#""data":{"sessionID":"ses_load","messageID":"msg_load","partID":"prt_load","field":"text","delta":""#,
);
const END: &str = r#""}}"#;

/// Writes event `number` (from 1), sent at `sent_ns`, as JSON of `size` bytes (at least 270): a piece of text, which is what
/// agents mostly report, in the form in which a wrapper sends it. Nothing in it needs escaping, so that it survives being
/// embedded.
pub(crate) fn encode(number: u64, sent_ns: u64, size: usize, out: &mut Vec<u8>) {
    out.clear();
    out.extend_from_slice(HEAD.as_bytes());
    out.extend_from_slice(format!("GT|{number:010}|{sent_ns:020}|").as_bytes());
    let letters =
        b"abcdefghijklmnopqrstuvwxyz".iter().cycle().skip(usize::try_from(number % 26).unwrap_or(0));
    out.extend(letters.take(size.saturating_sub(out.len() + END.len())));
    out.extend_from_slice(END.as_bytes());
}

/// Finds the events in what a server sent.
#[derive(Debug)]
pub(crate) struct Scanner(Finder<'static>);

impl Scanner {
    pub(crate) fn new() -> Self {
        Self(Finder::new(MARK))
    }

    /// Number and sending time of every event in `bytes`, in order.
    pub(crate) fn scan(&self, bytes: &[u8], mut each: impl FnMut(u64, u64)) {
        let mut rest = bytes;
        while let Some(at) = self.0.find(rest) {
            let Some(tail) = rest.get(at + MARK.len()..at + MARK.len() + TAIL) else { return };
            each(digits(&tail[..10]), digits(&tail[11..31]));
            rest = &rest[at + MARK.len() + TAIL..];
        }
    }
}

fn digits(text: &[u8]) -> u64 {
    text.iter().fold(0, |value: u64, digit| value.wrapping_mul(10).wrapping_add(u64::from(digit & 15)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_has_the_size_that_was_asked_for_and_is_one_that_a_wrapper_sends() {
        let mut bytes = Vec::new();
        for size in [270, 512, 8192] {
            encode(7, 99, size, &mut bytes);
            assert_eq!(bytes.len(), size);
            let event: protocol::NewEvent = serde_json::from_slice(&bytes).unwrap();
            assert_eq!(&*event.kind, "message.part.delta");
        }
    }

    #[test]
    fn every_event_of_a_frame_is_found_with_its_number_and_time() {
        let (mut frame, mut event) = (b"{\"events\":[".to_vec(), Vec::new());
        for number in 1..=3 {
            encode(number, number * 1_000_000_007, 512, &mut event);
            frame.extend_from_slice(&event);
            frame.push(b',');
        }
        let mut found = Vec::new();
        Scanner::new().scan(&frame, |number, sent| found.push((number, sent)));
        assert_eq!(found, [(1, 1_000_000_007), (2, 2_000_000_014), (3, 3_000_000_021)]);
    }

    #[test]
    fn a_cut_event_is_not_taken_for_one() {
        let mut event = Vec::new();
        encode(1, 1, 512, &mut event);
        let at = event.windows(3).position(|window| window == MARK).unwrap();
        let mut found = 0;
        Scanner::new().scan(&event[..at + 20], |_, _| found += 1);
        assert_eq!(found, 0);
    }
}
