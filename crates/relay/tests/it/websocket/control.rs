//! Pings and pongs (RFC 6455 §5.5.2, §5.5.3).

use super::raw::{BROKEN, EVERY, Frame, PING, PONG, Raw, Received};
use crate::support::Server;

#[tokio::test]
async fn a_ping_is_answered_with_its_own_payload() {
    let server = Server::start().await;
    for (side, chop) in EVERY {
        let mut raw = Raw::open(&server, side, chop).await;
        for payload in [&b""[..], b"hello", &[0x00, 0xff, 0xfe, 0xfd, 0xfc, 0xfb, 0x00, 0xff], &[0xfe; 125]] {
            raw.send(&[Frame::new(PING, payload)]).await;
            assert_eq!(raw.next().await, Received::Pong(payload.to_vec()));
        }
    }
}

#[tokio::test]
async fn pings_that_come_together_are_answered_in_their_order_and_the_last_one_always() {
    let server = Server::start().await;
    for (side, chop) in EVERY {
        let mut raw = Raw::open(&server, side, chop).await;
        let pings = (0..10_u8).map(|n| Frame::new(PING, [n])).collect::<Vec<_>>();
        raw.send(&pings).await;
        let mut last = None;
        while last != Some(9) {
            let Received::Pong(payload) = raw.next().await else { panic!("a pong was to come") };
            assert!(last < Some(payload[0]), "{payload:?} after {last:?}");
            last = Some(payload[0]);
        }
    }
}

#[tokio::test]
async fn a_pong_that_nobody_asked_for_is_not_answered() {
    let server = Server::start().await;
    for (side, chop) in EVERY {
        let mut raw = Raw::open(&server, side, chop).await;
        for payload in [&b""[..], b"unasked", &[0xff; 125]] {
            raw.send(&[Frame::new(PONG, payload)]).await;
            raw.silent().await;
        }
    }
}

#[tokio::test]
async fn a_control_frame_of_more_than_125_bytes_is_refused() {
    let server = Server::start().await;
    for (side, chop) in EVERY {
        for opcode in [PING, PONG] {
            for len in [126, 127, 70_000] {
                let mut raw = Raw::open(&server, side, chop).await;
                raw.send(&[Frame::new(opcode, vec![b'x'; len])]).await;
                raw.failed(BROKEN).await;
            }
        }
    }
}

#[tokio::test]
async fn a_control_frame_in_fragments_is_refused() {
    let server = Server::start().await;
    for (side, chop) in EVERY {
        for opcode in [PING, PONG] {
            let mut raw = Raw::open(&server, side, chop).await;
            raw.send(&[Frame::new(opcode, *b"half").unfinished()]).await;
            raw.failed(BROKEN).await;
        }
    }
}
