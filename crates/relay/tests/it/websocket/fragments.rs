//! Messages in several frames (RFC 6455 §5.4).

use super::raw::{BINARY, BROKEN, CONTINUATION, EVERY, Frame, PING, PONG, Raw, Received, TEXT};
use crate::support::Server;

#[tokio::test]
async fn a_message_may_be_cut_anywhere_and_come_in_any_number_of_frames() {
    let server = Server::start().await;
    for (side, chop) in EVERY {
        let mut raw = Raw::open(&server, side, chop).await;
        for parts in [2, 3, 7, usize::MAX] {
            let message = raw.message(0);
            raw.send(&fragments(message.as_bytes(), parts)).await;
            raw.answered().await;
        }
        let message = raw.message(0);
        let empty = || Frame::new(CONTINUATION, *b"").unfinished();
        let first = Frame::text(*b"").unfinished();
        raw.send(&[first, empty(), empty(), Frame::new(CONTINUATION, message)]).await;
        raw.answered().await;
    }
}

#[tokio::test]
async fn control_frames_between_fragments_are_answered_before_the_message() {
    let server = Server::start().await;
    for (side, chop) in EVERY {
        let mut raw = Raw::open(&server, side, chop).await;
        for _ in 0..3 {
            let message = raw.message(0);
            let mut frames = fragments(message.as_bytes(), 3);
            frames.insert(1, Frame::new(PING, *b"between"));
            frames.insert(3, Frame::new(PONG, *b"unasked"));
            frames.insert(4, Frame::new(PING, *b"again"));
            let rest = frames.split_off(5);
            raw.send(&frames).await;
            for payload in [&b"between"[..], b"again"] {
                assert_eq!(raw.next().await, Received::Pong(payload.to_vec()));
            }
            raw.send(&rest).await;
            raw.answered().await;
        }
    }
}

#[tokio::test]
async fn a_continuation_of_nothing_is_refused() {
    let server = Server::start().await;
    for (side, chop) in EVERY {
        for is_final in [true, false] {
            let mut raw = Raw::open(&server, side, chop).await;
            let frame = Frame::new(CONTINUATION, *b"nothing was begun");
            raw.send(&[if is_final { frame } else { frame.unfinished() }]).await;
            raw.failed(BROKEN).await;
        }
        let mut raw = Raw::open(&server, side, chop).await;
        let message = raw.message(0);
        raw.send(&fragments(message.as_bytes(), 2)).await;
        raw.answered().await;
        raw.send(&[Frame::new(CONTINUATION, *b"it is over")]).await;
        raw.failed(BROKEN).await;
    }
}

#[tokio::test]
async fn a_message_within_a_message_is_refused() {
    let server = Server::start().await;
    for (side, chop) in EVERY {
        for opcode in [TEXT, BINARY] {
            let mut raw = Raw::open(&server, side, chop).await;
            raw.send(&[Frame::text(*b"{").unfinished(), Frame::new(opcode, *b"{}")]).await;
            raw.failed(BROKEN).await;
        }
    }
}

/// A text in so many frames, or in one for each byte.
fn fragments(text: &[u8], parts: usize) -> Vec<Frame> {
    let size = text.len().div_ceil(parts);
    let last = text.chunks(size).len() - 1;
    let frame = |(i, chunk): (usize, &[u8])| {
        let frame = Frame::new(if i == 0 { TEXT } else { CONTINUATION }, chunk);
        if i == last { frame } else { frame.unfinished() }
    };
    text.chunks(size).enumerate().map(frame).collect()
}
