//! The close (RFC 6455 §5.5.1, §7): who says it gets it back, and then the server ends the connection.

use super::raw::{BROKEN, CLOSE, CONTINUATION, EVERY, Frame, NOT_UTF8, PING, Raw, Received, Side};
use crate::support::Server;

#[tokio::test]
async fn a_close_is_answered_with_its_code_and_the_connection_ends_in_order() {
    let server = Server::start().await;
    for (side, chop) in EVERY {
        for code in [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999] {
            let mut raw = Raw::open(&server, side, chop).await;
            raw.send(&[Frame::close(code, b"reason")]).await;
            let Received::Close(Some((echoed, _))) = raw.next().await else { panic!("a close was to come") };
            assert_eq!(echoed, code);
            raw.ended().await;
        }
    }
}

#[tokio::test]
async fn a_close_without_a_code_is_answered() {
    let server = Server::start().await;
    for (side, chop) in EVERY {
        let mut raw = Raw::open(&server, side, chop).await;
        raw.send(&[Frame::new(CLOSE, *b"")]).await;
        match raw.next().await {
            Received::Close(None | Some((1000, _))) => raw.ended().await,
            other @ (Received::Text(_) | Received::Ping(_) | Received::Pong(_) | Received::Close(_)) => {
                panic!("a close was to come, not {other:?}")
            }
        }
    }
}

#[tokio::test]
async fn a_reason_may_have_123_bytes_and_must_be_a_text() {
    let server = Server::start().await;
    for (side, chop) in EVERY {
        for (reason, code) in [
            (vec![b'x'; 123], 1000),
            ("é".repeat(61).into_bytes(), 1000),
            (vec![b'x'; 124], BROKEN),
            (vec![0xff], NOT_UTF8),
            (b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80edited".to_vec(), NOT_UTF8),
        ] {
            let mut raw = Raw::open(&server, side, chop).await;
            raw.send(&[Frame::close(1000, &reason)]).await;
            if code != 1000 {
                raw.failed(code).await;
                continue;
            }
            assert!(matches!(raw.next().await, Received::Close(Some((1000, _)))));
            raw.ended().await;
        }
    }
}

#[tokio::test]
async fn codes_that_nobody_may_send_are_refused() {
    let server = Server::start().await;
    for (side, chop) in EVERY {
        for code in [0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535] {
            let mut raw = Raw::open(&server, side, chop).await;
            raw.send(&[Frame::close(code, b"")]).await;
            raw.failed(BROKEN).await;
        }
    }
}

#[tokio::test]
async fn a_close_of_one_byte_is_refused() {
    let server = Server::start().await;
    for (side, chop) in EVERY {
        let mut raw = Raw::open(&server, side, chop).await;
        raw.send(&[Frame::new(CLOSE, [3])]).await;
        raw.failed(BROKEN).await;
    }
}

#[tokio::test]
async fn a_close_that_has_too_much_to_say_or_comes_in_fragments_is_refused() {
    let server = Server::start().await;
    for (side, chop) in EVERY {
        let mut raw = Raw::open(&server, side, chop).await;
        raw.send(&[Frame::close(1000, b"").unfinished()]).await;
        raw.failed(BROKEN).await;
    }
}

#[tokio::test]
async fn nothing_that_follows_a_close_is_answered() {
    let server = Server::start().await;
    for (side, chop) in EVERY {
        let mut raw = Raw::open(&server, side, chop).await;
        let late = raw.message(0);
        raw.send(&[Frame::close(1000, b""), Frame::new(PING, *b"late"), Frame::text(late)]).await;
        assert!(matches!(raw.next().await, Received::Close(Some((1000, _)))));
        // What was written after the close may meet a connection that is gone: a reset is an end as well.
        raw.gone().await;
    }
}

#[tokio::test]
async fn a_close_within_a_message_ends_it() {
    let server = Server::start().await;
    for (side, chop) in EVERY {
        let mut raw = Raw::open(&server, side, chop).await;
        let begun = Frame::text(*b"{").unfinished();
        raw.send(&[begun, Frame::new(CONTINUATION, *b"\"a\"").unfinished(), Frame::close(1000, b"")]).await;
        assert!(matches!(raw.next().await, Received::Close(Some((1000, _)))));
        raw.ended().await;
    }
}

#[tokio::test]
async fn a_connection_that_just_ends_takes_nobody_along() {
    let server = Server::start().await;
    for (side, chop) in EVERY {
        let mut other = Raw::open(&server, Side::Viewer, chop).await;
        let raw = Raw::open(&server, side, chop).await;
        drop(raw);
        let mut half = Raw::open(&server, side, chop).await;
        half.write(&[0x81, 0xfe, 0x01]).await;
        drop(half);
        other.silent().await;
    }
}
