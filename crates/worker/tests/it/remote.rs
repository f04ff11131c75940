//! A worker whose relay is another process: they share the signing key and nothing else.

use std::{net::SocketAddr, path::Path, sync::Arc};

use gastown_worker::Mode;
use relay::{
    auth::{JwtAuthority, Keys, TicketBook},
    server::{Relay, RelayConfig, ServeLimits, serve},
};
use reqwest::{Method, StatusCode};
use serde_json::json;
use store::{MemoryStore, RetentionPolicy};
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use crate::{
    streams::first_frames,
    support::{TestWorker, in_time, link::FakeLink},
};

#[tokio::test]
async fn a_worker_steers_and_shows_agents_of_a_relay_elsewhere() {
    let folder = tempfile::tempdir().unwrap();
    let relay = RemoteRelay::start(&folder.path().join("signing-key")).await;
    let mode = || Mode::remote(relay.url(), Some(folder.path().join("signing-key")));
    let town = TestWorker::start_with(|config| config.with_mode(mode())).await;

    let wrapper = town.launch("toast").await;
    assert_eq!(wrapper.spec.relay, relay.url());
    let mut link = FakeLink::connect(&wrapper).await;
    let body = json!({ "text": "hello" });
    let (answer, _) = tokio::join!(town.post("/api/towns/main/agents/toast/message", &body), link.command());
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    let shown = town.get("/api/towns/main/agents/toast").await;
    assert_eq!(shown.data()["presence"]["wrapper"], "connected");

    let ticket = town.post("/api/towns/main/agents/toast/stream-ticket", &json!({})).await;
    let url = ticket.data()["url"].as_str().unwrap();
    assert!(url.starts_with(&format!("ws://{}/v1/agents/toast/stream", relay.address)), "{url}");
    assert_eq!(first_frames(url, 2).await[..], [json!("hello"), json!("subscribed")]);
    let elsewhere = town.request(Method::GET, "/v1/agents/toast/events").send().await.unwrap();
    assert_eq!(elsewhere.status(), StatusCode::NOT_FOUND);

    drop(link);
    town.stop().await;
    relay.stop().await;
}

#[tokio::test]
async fn a_relay_that_is_away_is_said_to_be_and_the_town_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let relay = RemoteRelay::start(&folder.path().join("signing-key")).await;
    let mode = Mode::remote(relay.url(), Some(folder.path().join("signing-key")));
    relay.stop().await;
    let town = TestWorker::start_with(|config| config.with_mode(mode)).await;
    town.register("toast", false).await;
    let answer = town.post("/api/towns/main/agents/toast/message", &json!({ "text": "hello" })).await;
    assert_eq!(answer.status, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(answer.refusal(), ("internal", "the relay cannot be reached: see the worker's log"));
    assert_eq!(town.get("/api/towns/main/agents/toast").await.data()["presence"], json!(null));
    town.stop().await;
}

struct RemoteRelay {
    address: SocketAddr,
    relay: Relay,
    stop: CancellationToken,
    task: JoinHandle<std::io::Result<()>>,
}

impl RemoteRelay {
    async fn start(key: &Path) -> Self {
        let tickets = Arc::new(TicketBook::new(protocol::Timestamp::default()));
        let authority = JwtAuthority::new(Keys::load_or_create(key).unwrap(), tickets);
        let store = Arc::new(MemoryStore::new(RetentionPolicy::default()));
        let relay = Relay::new(store, Arc::new(authority), RelayConfig::default());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let stopped = stop.clone().cancelled_owned();
        let task = tokio::spawn(serve(listener, relay.router(), ServeLimits::default(), stopped));
        Self { address, relay, stop, task }
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    async fn stop(self) {
        self.relay.drain().await;
        self.stop.cancel();
        in_time("the relay goes down", self.task).await.unwrap().unwrap();
    }
}
