//! Slow viewers, caps, and the end.

use futures_util::StreamExt as _;
use gastown_relay::server::{RelayConfig, ServeLimits};
use serde_json::json;
use std::collections::BTreeSet;
use store::{MemoryStore, RetentionPolicy};
use tokio::net::TcpStream;

use crate::support::{Server, append, http, texts, within};

#[tokio::test]
async fn p8_a_viewer_that_does_not_read_stops_nobody_and_gets_everything_later() {
    let server = Server::start().await;
    server.append("agent/a1", &["begin"]).await;
    let mut slow = server.stream("/v1/agents/a1/stream").await;
    let mut quick = server.stream("/v1/agents/a1/stream").await;
    quick.until("live").await;
    // More than any socket's buffers take.
    let text = "x".repeat(64 * 1024);
    let mut seen = 0;
    for _ in 0..300 {
        server.append("agent/a1", &[&text]).await;
        while seen < 1 {
            seen += texts(&quick.until("events").await).len();
        }
        seen -= 1;
    }
    server.append("agent/a1", &["end"]).await;
    let mut late = Vec::new();
    while late.last().is_none_or(|text| text != "end") {
        late.extend(texts(&slow.until("events").await));
    }
    assert_eq!((late.len(), &*late[0]), (302, "begin"));
}

#[tokio::test]
async fn p2_a_hundred_viewers_that_join_at_different_times_see_the_same() {
    let server = Server::on_disk().await;
    server.append("agent/a1", &["0"]).await;
    let mut wrapper = server.wrapper("a1", "p1", 1).await;
    let mut viewers = Vec::new();
    for n in 1..=100_u64 {
        wrapper.send(&append(n, &[&n.to_string()])).await;
        viewers.push(server.stream("/v1/agents/a1/stream").await);
        wrapper.next().await;
    }
    let all = (0..=100).map(|n| n.to_string()).collect::<Vec<_>>();
    for mut viewer in viewers {
        let mut seen = Vec::new();
        while seen.len() < all.len() {
            seen.extend(texts(&viewer.until("events").await));
        }
        assert_eq!(seen, all);
    }
}

#[tokio::test]
async fn p15_everyone_is_told_when_to_come_back_at_different_times_and_the_server_ends() {
    let server = Server::start().await;
    server.append("agent/a1", &["1"]).await;
    let mut viewers = Vec::new();
    for _ in 0..20 {
        let mut viewer = server.stream("/v1/agents/a1/stream").await;
        viewer.until("live").await;
        viewers.push(viewer);
    }
    let get = http().get(server.http("/v1/agents/a1/events")).bearer_auth(server.operator().expose());
    let mut sse = within(get.header("accept", "text/event-stream").send()).await.unwrap().bytes_stream();
    within(sse.next()).await.unwrap().unwrap();
    let poll = server.get("/v1/agents/a1/events?after=1&wait=30");
    let poll = async { (poll.await.status().as_u16(), ()).0 };
    let closing = async {
        let mut times = BTreeSet::new();
        for viewer in &mut viewers {
            let (said, code) = viewer.closed().await;
            assert_eq!((&said[0]["code"], code), (&json!("draining"), 1012));
            times.insert(said[0]["retry_after_ms"].as_u64().unwrap());
        }
        while within(sse.next()).await.is_some() {}
        times
    };
    let relay = server.relay.clone();
    let (times, poll, ()) = tokio::join!(closing, poll, relay.drain());
    assert!(times.len() > 10, "spread: {times:?}");
    assert!(matches!(poll, 200 | 503), "it was answered: {poll}");
    let mut late = server.stream("/v1/agents/a1/stream").await;
    assert_eq!(late.close_code().await, 1012, "no stream begins");
    assert_eq!(server.get("/readyz").await.status(), 503);
    assert_eq!(server.get("/healthz").await.status(), 200);
    let address = server.address;
    server.stop().await;
    assert!(TcpStream::connect(address).await.is_err(), "nobody listens");
}

#[tokio::test]
async fn a_stream_too_many_is_told_so_whichever_it_is_and_the_place_of_one_that_ended_is_free() {
    let mut config = RelayConfig::default();
    config.viewers.in_all = 2;
    let server = Server::with(MemoryStore::new(RetentionPolicy::default()), config).await;
    server.append("agent/a1", &["1"]).await;
    let sse = async || {
        let get = http().get(server.http("/v1/agents/a1/events")).bearer_auth(server.operator().expose());
        within(get.header("accept", "text/event-stream").send()).await.unwrap()
    };
    let mut one = server.stream("/v1/agents/a1/stream").await;
    one.until("live").await;
    let other = sse().await;
    assert_eq!(other.status(), 200);
    for path in ["/v1/agents/a1/stream", "/v1/stream"] {
        let (said, code) = server.stream(path).await.closed().await;
        assert_eq!((&said[0]["code"], code), (&json!("rate_limited"), 4429), "{path}");
        assert!(said[0]["retry_after_ms"].is_u64());
    }
    let refused = sse().await;
    assert_eq!(refused.status(), 429);
    assert_eq!(refused.headers()["retry-after"], "5");
    assert_eq!(server.get("/v1/agents/a1/events").await.status(), 200, "a page is no stream");
    drop(one);
    within(async { while sse().await.status() != 200 {} }).await;
    drop(other);
    let free = async || server.stream("/v1/stream").await.next().await["type"] == "hello";
    within(async { while !free().await {} }).await;
}

#[tokio::test]
async fn a_connection_beyond_the_cap_is_closed_and_makes_room_when_another_ends() {
    let mut limits = ServeLimits::default();
    limits.connections = 1;
    let store = MemoryStore::new(RetentionPolicy::default());
    let server = Server::limited(store, RelayConfig::default(), limits).await;
    server.append("agent/a1", &["1"]).await;
    let mut only = server.stream("/v1/agents/a1/stream").await;
    only.until("live").await;
    let refused = http().get(server.http("/healthz")).send();
    assert!(within(refused).await.is_err());
    drop(only);
    let admitted = async { while http().get(server.http("/healthz")).send().await.is_err() {} };
    within(admitted).await;
}
