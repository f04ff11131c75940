//! Texts are UTF-8 (RFC 6455 §5.6, §8.1; RFC 3629).

use super::raw::{CONTINUATION, Chop, EVERY, Frame, NOT_UTF8, Raw, Side, TEXT};
use crate::support::{Server, texts};

/// The first and the last of each length, what lies around the surrogates, and characters that are no characters but may
/// be said.
const VALID: &[&str] = &[
    "κόσμε",
    "\u{0}",
    "\u{7f}",
    "\u{80}",
    "\u{7ff}",
    "\u{800}",
    "\u{d7ff}",
    "\u{e000}",
    "\u{fffd}",
    "\u{fffe}",
    "\u{ffff}",
    "\u{10000}",
    "\u{1fffe}",
    "\u{10fffe}",
    "\u{10ffff}",
    "\u{feff}",
    "\u{fdd0}",
    "👩‍🚀",
];

/// Bytes that no UTF-8 text holds.
const INVALID: &[&[u8]] = &[
    b"\x80",
    b"\xbf",
    b"\xc0\x80",
    b"\xc0\xaf",
    b"\xc1\xbf",
    b"\xc2",
    b"\xc2x",
    b"\xe0\x80\x80",
    b"\xe0\x9f\xbf",
    b"\xe2\x82",
    b"\xed\xa0\x80",
    b"\xed\xbf\xbf",
    b"\xf0\x80\x80\x80",
    b"\xf0\x8f\xbf\xbf",
    b"\xf0\x9f\x98",
    b"\xf4\x90\x80\x80",
    b"\xf5\x80\x80\x80",
    b"\xf8\x88\x80\x80\x80",
    b"\xfc\x84\x80\x80\x80\x80",
    b"\xfe",
    b"\xff",
    b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80edited",
];

#[tokio::test]
async fn every_character_passes_whole_and_cut_at_every_byte() {
    let server = Server::start().await;
    for (side, chop) in EVERY {
        // A viewer may send twenty frames a second, and here each text comes three times.
        for valid in VALID.chunks(6) {
            let mut raw = Raw::open(&server, side, chop).await;
            for text in valid {
                let escaped = raw.message_around(text, 0);
                raw.send(&[Frame::text(escaped)]).await;
                raw.answered().await;
                let message = raw.message_around(text, 0);
                let bytes = message.as_bytes().iter().enumerate();
                let last = message.len() - 1;
                let frame = |(i, byte): (usize, &u8)| {
                    let frame = Frame::new(if i == 0 { TEXT } else { CONTINUATION }, [*byte]);
                    if i == last { frame } else { frame.unfinished() }
                };
                raw.send(&bytes.map(frame).collect::<Vec<_>>()).await;
                raw.answered().await;
            }
        }
    }
}

#[tokio::test]
async fn p9_a_text_arrives_as_it_was_sent_however_it_was_cut() {
    let server = Server::start().await;
    let all = VALID.concat();
    for chop in [Chop::Whole, Chop::Bytes] {
        let mut raw = Raw::open(&server, Side::Wrapper, chop).await;
        let message = raw.message_around(&all, 0);
        raw.send(&[Frame::text(message)]).await;
        raw.answered().await;
    }
    let mut viewer = server.stream("/v1/agents/raw/stream").await;
    assert_eq!(texts(&viewer.until("live").await), [all.clone(), all]);
}

#[tokio::test]
async fn p20_bytes_that_are_no_utf_8_are_refused() {
    let server = Server::start().await;
    for (side, chop) in EVERY {
        for bytes in INVALID {
            let mut raw = Raw::open(&server, side, chop).await;
            let message = [&br#"{"type":"x","text":""#[..], bytes, br#""}"#].concat();
            raw.send(&[Frame::text(message)]).await;
            raw.failed(NOT_UTF8).await;
        }
    }
}

#[tokio::test]
async fn what_can_be_no_text_any_more_is_refused_before_its_last_fragment() {
    let server = Server::start().await;
    for (side, chop) in EVERY {
        for bytes in [&b"\xff"[..], b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xc2x"] {
            let mut raw = Raw::open(&server, side, chop).await;
            let begun = Frame::text(*b"{\"text\":\"").unfinished();
            raw.send(&[begun, Frame::new(CONTINUATION, bytes).unfinished()]).await;
            raw.failed(NOT_UTF8).await;
        }
    }
}

#[tokio::test]
async fn a_text_that_ends_within_a_character_is_refused() {
    let server = Server::start().await;
    for (side, chop) in EVERY {
        for bytes in [&b"\xc2"[..], b"\xe2\x82", b"\xf0\x9f\x98"] {
            let mut raw = Raw::open(&server, side, chop).await;
            let begun = Frame::text(*b"{\"text\":\"").unfinished();
            raw.send(&[begun, Frame::new(CONTINUATION, bytes)]).await;
            raw.failed(NOT_UTF8).await;
        }
    }
}
