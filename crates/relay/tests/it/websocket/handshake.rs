//! The upgrade (RFC 6455 §4.2).

use super::raw::{Chop, Frame, PING, Raw, Received, Side};
use crate::support::Server;

#[tokio::test]
async fn the_answer_proves_that_the_key_was_read_and_offers_no_extension() {
    let server = Server::start().await;
    let headers = format!(
        "Authorization: Bearer {}\r\nSec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\
         Sec-WebSocket-Protocol: chat, superchat\r\n",
        server.operator().expose()
    );
    let (head, _raw) = Raw::upgrade(&server, "/v1/stream", &headers, Side::Viewer, Chop::Bytes).await;
    let head = head.to_ascii_lowercase();
    assert!(head.starts_with("http/1.1 101 "), "{head}");
    // The example of RFC 6455 §1.3.
    assert!(head.contains("\r\nsec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo=\r\n"), "{head}");
    for absent in ["sec-websocket-extensions", "sec-websocket-protocol"] {
        assert!(!head.contains(absent), "nothing is agreed to that was not asked for: {head}");
    }
}

#[tokio::test]
async fn what_asks_for_no_proper_upgrade_gets_an_answer_of_plain_http() {
    let server = Server::start().await;
    let bearer = server.operator();
    let request = |leave_out: &str, instead: &str| {
        let lines = [
            "Upgrade: websocket",
            "Connection: Upgrade",
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
            "Sec-WebSocket-Version: 13",
        ];
        let lines = lines.iter().filter(|line| leave_out.is_empty() || !line.starts_with(leave_out));
        let lines = lines.map(|line| format!("{line}\r\n")).collect::<String>();
        format!(
            "GET /v1/stream HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {}\r\n{lines}{instead}\r\n",
            bearer.expose()
        )
    };
    for (leave_out, instead) in [
        ("Upgrade", ""),
        ("Upgrade", "Upgrade: h2c\r\n"),
        ("Connection", ""),
        ("Sec-WebSocket-Key", ""),
        ("Sec-WebSocket-Version", ""),
        ("Sec-WebSocket-Version", "Sec-WebSocket-Version: 12\r\n"),
    ] {
        let (head, _raw) = Raw::request(&server, request(leave_out, instead).as_bytes()).await;
        let is_4xx = head.starts_with("HTTP/1.1 400 ") || head.starts_with("HTTP/1.1 426 ");
        assert!(is_4xx, "without {leave_out}, with {instead:?}: {head}");
    }
    let (head, _raw) = Raw::request(&server, request("", "").as_bytes()).await;
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
}

#[tokio::test]
async fn frames_may_come_in_one_segment_with_the_request() {
    let server = Server::start().await;
    let request = format!(
        "GET /v1/stream HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {}\r\nUpgrade: WebSocket\r\n\
         Connection: keep-alive, Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         Sec-WebSocket-Version: 13\r\n\r\n",
        server.operator().expose()
    );
    let early = [request.into_bytes(), Frame::new(PING, *b"early").bytes()].concat();
    let (head, mut raw) = Raw::request(&server, &early).await;
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    let mut frames = vec![raw.next().await, raw.next().await];
    frames.retain(|frame| matches!(frame, Received::Pong(_)));
    assert_eq!(frames, [Received::Pong(b"early".to_vec())]);
}

#[tokio::test]
async fn p17_a_stream_that_may_not_be_is_upgraded_told_why_and_closed_in_order() {
    let server = Server::start().await;
    for (path, side) in [("/v1/stream", Side::Viewer), ("/v1/ingest", Side::Wrapper)] {
        let (head, mut raw) = Raw::upgrade(&server, path, "", side, Chop::Bytes).await;
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        assert_eq!(raw.json().await["code"], "unauthenticated");
        assert!(matches!(raw.next().await, Received::Close(Some((4401, _)))));
        raw.send(&[Frame::close(4401, b"")]).await;
        raw.ended().await;
    }
}
