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
async fn of_257_logs_on_one_socket_256_are_served_and_the_last_is_an_error() {
    let server = Server::start().await;
    let mut viewer = server.stream("/v1/stream").await;
    viewer.next().await;
    let subscribe = |n: usize| json!({"type": "subscribe", "log": format!("agent/a{n}")});
    for n in 0..limits::SUBSCRIPTIONS_PER_SOCKET {
        server.append(&format!("agent/a{n}"), &["1"]).await;
        pass_a_second().await;
        viewer.send(&subscribe(1_000)).await;
        assert_eq!(viewer.until("error").await.last().unwrap()["code"], "unknown_log", "it takes no place");
        viewer.send(&subscribe(n)).await;
        assert_eq!(texts(&viewer.until("live").await), ["1"], "{n}");
    }
    pass_a_second().await;
    viewer.send(&subscribe(7)).await;
    assert_eq!(viewer.until("error").await.last().unwrap()["code"], "bad_request", "it is there already");
    server.append("agent/last", &["1"]).await;
    viewer.send(&json!({"type": "subscribe", "log": "agent/last"})).await;
    let refused = viewer.until("error").await.pop().unwrap();
    assert_eq!((&refused["code"], &refused["log"]), (&json!("rate_limited"), &json!("agent/last")));
    for n in [0, limits::SUBSCRIPTIONS_PER_SOCKET - 1] {
        server.append(&format!("agent/a{n}"), &["2"]).await;
        assert_eq!(texts(&viewer.until("events").await), ["2"], "the others go on");
    }
    viewer.send(&json!({"type": "unsubscribe", "log": "agent/a3"})).await;
    viewer.send(&json!({"type": "subscribe", "log": "agent/last"})).await;
    assert_eq!(texts(&viewer.until("live").await), ["1"], "one that was left makes room");
}

/// Lets the clock that frames are counted by go on, and nothing else.
async fn pass_a_second() {
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(1)).await;
    tokio::time::resume();
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
async fn p20_a_header_is_taken_at_its_limits_and_refused_past_them() {
    let server = Server::start().await;
    let limits = ServeLimits::default();
    let request = |headers: &str| format!("GET /healthz HTTP/1.1\r\nhost: localhost\r\n{headers}\r\n");
    // The host is a header too.
    let many = |count: usize| request(&(1..count).map(|n| format!("x-{n}: 1\r\n")).collect::<String>());
    let around = request("x: \r\n").len();
    let large = |bytes: usize| request(&format!("x: {}\r\n", "x".repeat(bytes - around)));
    for (request, status) in [
        (many(limits.headers), "200"),
        (many(limits.headers + 1), "431"),
        (large(limits.header_bytes), "200"),
        (large(limits.header_bytes + 1), "431"),
    ] {
        let mut client = TcpStream::connect(server.address).await.unwrap();
        client.write_all(request.as_bytes()).await.unwrap();
        let mut answer = [0; 12];
        within(client.read_exact(&mut answer)).await.unwrap();
        assert_eq!(String::from_utf8_lossy(&answer), format!("HTTP/1.1 {status}"), "{}", request.len());
    }
}
