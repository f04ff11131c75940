//! Input that no good client sends: each gets its code of §8, and nobody else notices.

use gastown_relay::server::{RelayConfig, ServeLimits};
use protocol::limits;
use serde_json::json;
use std::time::Duration;
use store::{MemoryStore, RetentionPolicy};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_tungstenite::tungstenite::Message;

use crate::support::{Server, hello, http, texts, within};

#[tokio::test]
async fn p20_frames_that_are_none_close_a_viewer_with_a_code() {
    let server = Server::start().await;
    let large = "x".repeat(limits::VIEWER_FRAME_BYTES + 1);
    let huge = "x".repeat(4 * limits::VIEWER_FRAME_BYTES);
    for (message, code) in [
        (Message::text("{"), 4400),
        (Message::text("[]"), 4400),
        (Message::text(r#"{"type":"dance"}"#), 4400),
        (Message::text(r#"{"type":"subscribe","log":"../etc"}"#), 4400),
        (Message::binary(b"{}".to_vec()), 1003),
        (Message::text(large), 4413),
        (Message::text(huge), 4413),
    ] {
        let mut viewer = server.stream("/v1/stream").await;
        viewer.next().await;
        viewer.send_message(message.clone()).await;
        assert_eq!(viewer.close_code().await, code, "{:.80}", message.to_string());
    }
}

#[tokio::test]
async fn p20_bytes_that_are_no_frames_close_with_a_code() {
    let server = Server::start().await;
    for (bytes, code) in [
        // Text of one byte that is not UTF-8, masked with zeros.
        (&[0x81, 0x81, 0, 0, 0, 0, 0xff][..], 1007),
        // A reserved bit (RSV1) without the extension that means it.
        (&[0xc1, 0x81, 0, 0, 0, 0, b'x'][..], 1002),
        // A reserved opcode.
        (&[0x83, 0x81, 0, 0, 0, 0, b'x'][..], 1002),
        // A length of 2^62.
        (&[0x81, 0xff, 0x40, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0][..], 4413),
        // No mask.
        (&[0x81, 0x01, b'x'][..], 1002),
    ] {
        let mut viewer = server.stream("/v1/stream").await;
        viewer.next().await;
        within(viewer.raw().write_all(bytes)).await.unwrap();
        assert_eq!(viewer.close_code().await, code, "{bytes:x?}");
    }
}

#[tokio::test]
async fn p20_frames_that_are_none_close_a_wrapper_with_a_code() {
    let server = Server::start().await;
    let large = "x".repeat(limits::INGEST_FRAME_BYTES + 1);
    for (message, code) in [
        (Message::text("{"), 4400),
        (Message::text(json!({"type": "append", "first": 0, "events": []}).to_string()), 4400),
        (Message::text(json!({"type": "append", "first": u64::MAX, "events": [{}]}).to_string()), 4400),
        (Message::text(hello("a1", "p1", 1).to_string()), 4400),
        (Message::binary(vec![0]), 1003),
        (Message::text(large), 4413),
    ] {
        let mut wrapper = server.wrapper("a1", "p1", 1).await;
        wrapper.send_message(message.clone()).await;
        assert_eq!(wrapper.close_code().await, code, "{:.80}", message.to_string());
    }
}

#[tokio::test]
async fn an_event_of_the_hard_size_passes_and_a_larger_one_is_a_nack() {
    let server = Server::start().await;
    let mut wrapper = server.wrapper("a1", "p1", 1).await;
    for (len, kind) in
        [(limits::EVENT_DATA_HARD_BYTES - 2, "ack"), (limits::EVENT_DATA_HARD_BYTES - 1, "nack")]
    {
        let first = if kind == "ack" { 1 } else { 2 };
        let event = json!({"time": "2026-11-20T18:10:16.123Z", "type": "x", "data": "x".repeat(len)});
        wrapper.send(&json!({"type": "append", "first": first, "events": [event]})).await;
        assert_eq!(wrapper.next().await["type"], kind);
    }
}

#[tokio::test]
async fn an_unknown_agent_and_a_bad_query_close_the_stream_with_a_code() {
    let server = Server::start().await;
    server.append("agent/a1", &["1"]).await;
    for (path, code) in [
        ("/v1/agents/none/stream", 4404),
        ("/v1/agents/a1/stream?after=x", 4400),
        ("/v1/agents/a1/stream?view=html", 4400),
        ("/v1/agents/a%20b/stream", 4400),
    ] {
        assert_eq!(server.stream(path).await.close_code().await, code, "{path}");
    }
    assert_eq!(server.get("/v1/agents/a1/stream").await.status(), 400, "no upgrade was asked for");
    assert_eq!(server.get("/v1/agents/a%20b/view").await.status(), 400);
}

#[tokio::test]
async fn one_subscription_too_many_is_an_error_and_the_others_go_on() {
    let server = Server::start().await;
    server.append("agent/last", &["1"]).await;
    let mut viewer = server.stream("/v1/stream").await;
    viewer.next().await;
    let subscribe = |log: String| json!({"type": "subscribe", "log": log});
    for n in 0..16 {
        viewer.send(&subscribe(format!("agent/a{n}"))).await;
        assert_eq!(viewer.next().await["code"], "unknown_log", "refused logs take no place");
    }
    viewer.send(&subscribe("agent/last".into())).await;
    viewer.until("live").await;
    viewer.send(&subscribe("agent/last".into())).await;
    assert_eq!(viewer.next().await["code"], "bad_request");
    server.append("agent/last", &["2"]).await;
    assert_eq!(texts(&viewer.until("events").await), ["2"]);
}

#[tokio::test]
async fn the_twenty_first_frame_within_a_second_closes_the_stream() {
    let server = Server::start().await;
    let mut viewer = server.stream("/v1/stream").await;
    viewer.next().await;
    for _ in 0..200 {
        viewer.send(&json!({"type": "pong"})).await;
    }
    let (said, code) = viewer.closed().await;
    assert_eq!((&said[0]["code"], code), (&json!("rate_limited"), 4429));
}

#[tokio::test]
async fn bodies_that_are_too_large_or_none_are_refused() {
    let server = Server::start().await;
    let post = |path: &str, body: String| {
        let request = http().post(server.http(path)).bearer_auth(server.operator().expose());
        within(request.header("content-type", "application/json").body(body).send())
    };
    let large = "x".repeat(limits::HTTP_BODY_BYTES + 1);
    assert_eq!(post("/v1/agents/a1/commands", large).await.unwrap().status(), 413);
    assert_eq!(post("/v1/agents/a1/commands", "{".into()).await.unwrap().status(), 400);
    assert_eq!(post("/v1/agents/a1/events", "[]".into()).await.unwrap().status(), 400);
    let half = json!({"producer": "p1", "events": []}).to_string();
    assert_eq!(post("/v1/agents/a1/events", half).await.unwrap().status(), 400);
}

#[tokio::test]
async fn p20_a_client_that_dribbles_its_header_is_closed() {
    let mut limits = ServeLimits::default();
    limits.header_timeout = Duration::from_millis(50);
    let store = MemoryStore::new(RetentionPolicy::default());
    let server = Server::limited(store, RelayConfig::default(), limits).await;
    for beginning in ["", "GET /healthz HTTP/1.1\r\nHost: loc"] {
        let mut client = TcpStream::connect(server.address).await.unwrap();
        client.write_all(beginning.as_bytes()).await.unwrap();
        let mut rest = Vec::new();
        // A reset is an end as well.
        let _ = within(client.read_to_end(&mut rest)).await;
        assert!(!String::from_utf8_lossy(&rest).contains(" 200 "));
    }
    assert_eq!(server.get("/healthz").await.status(), 200, "others are served");
}

#[tokio::test]
async fn p20_a_header_that_is_too_large_is_refused() {
    let server = Server::start().await;
    let many = (0..65).map(|n| format!("x-{n}: 1\r\n")).collect::<String>();
    let large = format!("x: {}\r\n", "x".repeat(17 * 1024));
    for headers in [many, large] {
        let mut client = TcpStream::connect(server.address).await.unwrap();
        let request = format!("GET /healthz HTTP/1.1\r\nhost: localhost\r\n{headers}\r\n");
        client.write_all(request.as_bytes()).await.unwrap();
        let mut answer = [0; 12];
        within(client.read_exact(&mut answer)).await.unwrap();
        assert_eq!(&answer, b"HTTP/1.1 431");
    }
}
