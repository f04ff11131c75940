//! P20: what no good client sends, on every socket, in bulk: nobody is held up. (That nothing
//! panics, `Server` asserts in every test.)

use std::time::Duration;

use gastown_relay::server::{RelayConfig, ServeLimits};
use serde_json::json;
use store::{MemoryStore, RetentionPolicy, SqliteOptions, SqliteStore};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::support::{Server, append, hello, http, within};

#[tokio::test]
async fn p20_what_is_no_request_is_answered_or_cut_and_others_are_served() {
    let server = Server::start().await;
    let long = "x".repeat(200_000);
    for request in [
        "\0\0\0\0\r\n\r\n".to_owned(),
        "GET".to_owned(),
        "\u{16}\u{3}\u{1}\u{2}\0\u{1}\0\u{1}\u{fc}\u{3}\u{3}".to_owned(),
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(),
        "GET / HTTP/9.9\r\n\r\n".to_owned(),
        "GET /healthz HTTP/1.1\r\n\r\n".to_owned(),
        "GET /healthz HTTP/1.1\r\nhost: a\r\nhost: b\r\ncontent-length: -1\r\n\r\n".to_owned(),
        "POST /v1/agents/a1/commands HTTP/1.1\r\nhost: localhost\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n12345".to_owned(),
        "POST /v1/agents/a1/commands HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\nffffffffffffffffff\r\n".to_owned(),
        format!("GET /{long} HTTP/1.1\r\nhost: localhost\r\n\r\n"),
        format!("GET / HTTP/1.1\r\nhost: {long}\r\n\r\n"),
        format!("{long}{long}"),
    ] {
        let mut client = TcpStream::connect(server.address).await.unwrap();
        // The relay may have closed already.
        let _ = client.write_all(request.as_bytes()).await;
        let _ = client.shutdown().await;
        let mut answer = Vec::new();
        let _ = within(client.read_to_end(&mut answer)).await;
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.is_empty() || answer.starts_with("HTTP/1."), "{request:.60}: {answer:.60}");
    }
    assert_eq!(server.get("/healthz").await.status(), 200);
}

#[tokio::test]
async fn p20_connections_that_say_nothing_end_and_hold_nobody_up() {
    let mut limits = ServeLimits::default();
    limits.header_timeout = Duration::from_millis(200);
    let store = MemoryStore::new(RetentionPolicy::default());
    let server = Server::limited(store, RelayConfig::default(), limits).await;
    server.append("agent/a1", &["1"]).await;
    let mut silent = Vec::new();
    for n in 0..200 {
        let mut client = TcpStream::connect(server.address).await.unwrap();
        let begun = b"GET /healthz HTTP/1.1\r\nx: y\r\n";
        client.write_all(&begun[..n % begun.len()]).await.unwrap();
        silent.push(client);
    }
    // All of them are open: a viewer is served.
    let mut viewer = server.stream("/v1/agents/a1/stream").await;
    viewer.until("live").await;
    for mut client in silent {
        let mut rest = Vec::new();
        // A reset is an end as well.
        let _ = within(client.read_to_end(&mut rest)).await;
    }
}

#[tokio::test]
async fn p20_a_body_that_does_not_come_is_given_up_and_one_of_a_stranger_is_not_waited_for() {
    let mut config = RelayConfig::default();
    config.body_timeout = Duration::from_millis(100);
    let server = Server::with(MemoryStore::new(RetentionPolicy::default()), config).await;
    let known = format!("authorization: Bearer {}\r\n", server.operator().expose());
    for (route, credential, status) in [
        ("agents/a1/events", &*known, "408"),
        ("agents/a1/commands", &*known, "408"),
        ("agents/a1/events", "", "401"),
    ] {
        let mut client = TcpStream::connect(server.address).await.unwrap();
        let head = format!(
            "POST /v1/{route} HTTP/1.1\r\nhost: localhost\r\n{credential}content-length: 1000\r\n\r\n"
        );
        client.write_all(format!("{head}{{").as_bytes()).await.unwrap();
        let mut answer = [0; 12];
        within(client.read_exact(&mut answer)).await.unwrap();
        assert_eq!(String::from_utf8_lossy(&answer), format!("HTTP/1.1 {status}"), "{route}");
        // What is left of the body is not read: the connection is of no more use.
        let mut rest = Vec::new();
        let _ = within(client.read_to_end(&mut rest)).await;
    }
}

#[tokio::test]
async fn p20_a_connection_that_is_kept_and_asks_nothing_more_is_closed() {
    let mut limits = ServeLimits::default();
    limits.idle_timeout = Duration::from_millis(200);
    let store = MemoryStore::new(RetentionPolicy::default());
    let server = Server::limited(store, RelayConfig::default(), limits).await;
    let mut client = TcpStream::connect(server.address).await.unwrap();
    let mut answer = String::new();
    client.write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    within(client.read_to_string(&mut answer)).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("ok\n"), "{answer}");
}

#[tokio::test]
async fn p20_numbers_that_no_log_can_have_are_refused_by_every_store() {
    let dir = tempfile::tempdir().unwrap();
    let sqlite = SqliteStore::open(dir.path().join("events.db"), SqliteOptions::default()).unwrap();
    for server in [Server::start().await, Server::with(sqlite, RelayConfig::default()).await] {
        server.append("agent/a1", &["1"]).await;
        for number in [i64::MAX as u64, 1 << 63, u64::MAX - 1, u64::MAX] {
            for path in ["events?after=", "events?wait=", "events?limit=", "view?at="] {
                let status = server.get(&format!("/v1/agents/a1/{path}{number}")).await.status();
                assert_eq!(status, 400, "{path}{number}");
            }
            let stream =
                server.stream(&format!("/v1/agents/a1/stream?after={number}")).await.close_code().await;
            assert_eq!(stream, 4400, "{number}");
            let event = append(1, &["x"])["events"].clone();
            let body = json!({"producer": "p1", "generation": number, "first": number, "events": event});
            let post =
                http().post(server.http("/v1/agents/a3/events")).bearer_auth(server.operator().expose());
            let status = within(post.json(&body).send()).await.unwrap().status();
            assert!(status.is_client_error() || status.is_success(), "{number}: {status}");
            // A wrapper whose numbers begin anywhere: taken, or refused with a code.
            let token = server.wrapper_token("a2", number);
            let mut wrapper = server.stream_as("/v1/ingest", Some(&token)).await;
            let mut hello = hello("a2", &format!("p{number}"), number);
            hello["next"] = json!(number);
            wrapper.send(&hello).await;
            let first = wrapper.next_or_close().await;
            if let Ok(welcome) = first {
                assert_eq!(welcome["type"], "welcome", "{number}");
                wrapper.send(&append(number, &["x"])).await;
                let answer = wrapper.next_or_close().await;
                assert!(
                    matches!(&answer, Ok(ack) if ack["type"] == "ack") || matches!(answer, Err(4400..=4499)),
                    "{number}: {answer:?}"
                );
            } else {
                assert!(matches!(first, Err(4400..=4499)), "{number}: {first:?}");
            }
        }
        for cursor in ["18446744073709551616", "1e30", "-1", "1.5", "\"x\"", "[]"] {
            let mut viewer = server.stream("/v1/stream").await;
            viewer.next().await;
            let frame =
                format!(r#"{{"type":"subscribe","log":"agent/a1","cursor":{{"epoch":"e","seq":{cursor}}}}}"#);
            viewer.send_message(frame.into()).await;
            assert_eq!(viewer.close_code().await, 4400, "{cursor}");
        }
    }
}

#[tokio::test]
async fn p20_json_that_is_nested_too_deep_is_refused_everywhere() {
    let server = Server::start().await;
    let deep = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
    for levels in [127, 8_000] {
        let data = format!(r#"{{"time":"2026-11-20T18:10:16.123Z","type":"note","data":{}}}"#, deep(levels));
        let body = format!(r#"{{"events":[{data}]}}"#);
        let post = http().post(server.http("/v1/agents/a1/events")).bearer_auth(server.operator().expose());
        assert_eq!(within(post.body(body).send()).await.unwrap().status(), 400, "{levels}");
        let mut wrapper = server.wrapper("a2", "p1", 1).await;
        wrapper.send_message(format!(r#"{{"type":"append","first":1,"events":[{data}]}}"#).into()).await;
        assert_eq!(wrapper.close_code().await, 4400, "{levels}");
        let mut viewer = server.stream("/v1/stream").await;
        viewer.next().await;
        viewer.send_message(format!(r#"{{"type":"pong","x":{}}}"#, deep(levels + 1)).into()).await;
        assert_eq!(viewer.close_code().await, 4400, "{levels}");
    }
}
