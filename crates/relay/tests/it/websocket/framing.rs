//! Frames (RFC 6455 §5): lengths, masks, reserved bits, opcodes.

use protocol::limits;

use super::raw::{
    BAD_REQUEST, BINARY, BROKEN, CLOSE, CONTINUATION, Chop, EVERY, Frame, Length, NOT_TEXT, PING, Raw, Side,
    TEXT, TOO_LARGE,
};
use crate::support::Server;

#[tokio::test]
async fn a_text_of_any_length_is_taken_whole() {
    let server = Server::start().await;
    for (side, chop) in EVERY {
        let mut raw = Raw::open(&server, side, chop).await;
        for len in [125, 126, 127, 128, 4095, 4096, 4097, 8191, 16_384] {
            let message = raw.message(len);
            raw.send(&[Frame::text(message)]).await;
            raw.answered().await;
        }
    }
}

#[tokio::test]
async fn the_largest_message_is_taken_and_one_byte_more_is_too_large() {
    let server = Server::start().await;
    for (side, chop) in EVERY {
        let limit = match side {
            Side::Viewer => limits::VIEWER_FRAME_BYTES,
            Side::Wrapper => limits::INGEST_FRAME_BYTES,
        };
        let mut raw = Raw::open(&server, side, chop).await;
        // Byte by byte, a mebibyte would be a million system calls that show nothing new.
        if (side, chop) != (Side::Wrapper, Chop::Bytes) {
            let message = raw.message(limit);
            assert_eq!(message.len(), limit);
            raw.send(&[Frame::text(message)]).await;
            raw.answered().await;
        }
        // What is announced is enough: a relay does not wait for what it will not take.
        let large = Frame::text(*b"{").saying(Length::Lie(limit as u64 + 1));
        raw.send(&[large]).await;
        raw.failed(TOO_LARGE).await;
    }
}

#[tokio::test]
async fn a_message_is_too_large_as_soon_as_its_fragments_are_together() {
    let server = Server::start().await;
    for (side, limit) in
        [(Side::Viewer, limits::VIEWER_FRAME_BYTES), (Side::Wrapper, limits::INGEST_FRAME_BYTES)]
    {
        let mut raw = Raw::open(&server, side, Chop::Whole).await;
        let half = vec![b' '; limit / 2];
        let half = |opcode| Frame::new(opcode, half.clone()).unfinished();
        raw.send(&[half(TEXT), half(CONTINUATION), Frame::new(CONTINUATION, *b" ").unfinished()]).await;
        raw.failed(TOO_LARGE).await;
    }
}

#[tokio::test]
async fn p20_a_length_that_no_machine_holds_is_refused_without_waiting_for_it() {
    let server = Server::start().await;
    for (side, chop) in EVERY {
        let (large, none) = ([1 << 32, 1 << 62, i64::MAX as u64], [1 << 63, u64::MAX]);
        for (length, code) in
            large.map(|len| (len, TOO_LARGE)).into_iter().chain(none.map(|len| (len, BROKEN)))
        {
            let mut raw = Raw::open(&server, side, chop).await;
            raw.send(&[Frame::text(*b"").saying(Length::Lie(length))]).await;
            raw.failed(code).await;
        }
    }
}

#[tokio::test]
async fn a_length_in_more_bytes_than_it_takes_is_refused() {
    let server = Server::start().await;
    for (side, chop) in EVERY {
        for len in [60, 126, 65_535] {
            let mut raw = Raw::open(&server, side, chop).await;
            raw.send(&[Frame::text(vec![b' '; len]).saying(Length::Long)]).await;
            raw.failed(BROKEN).await;
        }
    }
}

#[tokio::test]
async fn any_mask_is_taken_off_and_no_mask_is_refused() {
    let server = Server::start().await;
    for (side, chop) in EVERY {
        let mut raw = Raw::open(&server, side, chop).await;
        for mask in [[0; 4], [0xff; 4], [1, 2, 3, 4], [0, 0, 0, 0x80]] {
            for len in [125, 126, 129, 131] {
                let message = raw.message(len);
                raw.send(&[Frame::text(message).masked(Some(mask))]).await;
                raw.answered().await;
            }
        }
        let message = raw.message(0);
        raw.send(&[Frame::text(message).masked(None)]).await;
        raw.failed(BROKEN).await;
    }
}

#[tokio::test]
async fn a_control_frame_without_a_mask_is_refused() {
    let server = Server::start().await;
    for (side, chop) in EVERY {
        for opcode in [PING, CLOSE] {
            let mut raw = Raw::open(&server, side, chop).await;
            raw.send(&[Frame::new(opcode, Vec::new()).masked(None)]).await;
            raw.failed(BROKEN).await;
        }
    }
}

#[tokio::test]
async fn reserved_bits_are_refused_on_every_kind_of_frame() {
    let server = Server::start().await;
    for (side, chop) in EVERY {
        for reserved in 1..8 {
            for opcode in [TEXT, PING, CLOSE] {
                let mut raw = Raw::open(&server, side, chop).await;
                raw.send(&[Frame::new(opcode, Vec::new()).reserved(reserved)]).await;
                raw.failed(BROKEN).await;
            }
        }
    }
}

#[tokio::test]
async fn what_came_before_a_broken_frame_is_answered_and_what_comes_after_it_is_not() {
    let server = Server::start().await;
    for (side, chop) in EVERY {
        let mut raw = Raw::open(&server, side, chop).await;
        let good = raw.message(0);
        raw.send(&[Frame::text(good)]).await;
        raw.answered().await;
        let late = raw.message(0);
        raw.send(&[Frame::new(PING, *b"x").reserved(4), Frame::text(late)]).await;
        raw.failed(BROKEN).await;
    }
}

#[tokio::test]
async fn opcodes_that_mean_nothing_are_refused() {
    let server = Server::start().await;
    for (side, chop) in EVERY {
        for opcode in (3..=7).chain(11..=15) {
            for payload in [&b""[..], b"payload"] {
                let mut raw = Raw::open(&server, side, chop).await;
                raw.send(&[Frame::new(opcode, payload)]).await;
                raw.failed(BROKEN).await;
            }
        }
    }
}

#[tokio::test]
async fn frames_are_text_and_binary_ones_are_refused() {
    let server = Server::start().await;
    for (side, chop) in EVERY {
        for payload in [&b""[..], b"{}", &[0xff; 300]] {
            let mut raw = Raw::open(&server, side, chop).await;
            raw.send(&[Frame::new(BINARY, payload)]).await;
            raw.failed(NOT_TEXT).await;
        }
    }
}

#[tokio::test]
async fn an_empty_text_is_no_frame_of_the_protocol() {
    let server = Server::start().await;
    for (side, chop) in EVERY {
        let mut raw = Raw::open(&server, side, chop).await;
        raw.send(&[Frame::text(*b"")]).await;
        raw.failed(BAD_REQUEST).await;
    }
}
