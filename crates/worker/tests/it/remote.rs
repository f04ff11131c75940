//! A worker whose relay is another process: they share the signing key and nothing else.

use std::{collections::BTreeSet, net::SocketAddr, path::Path, sync::Arc, time::Duration};

use axum::{
    extract::Request,
    middleware::{Next, from_fn},
};
use gastown_worker::{Mode, limits::CLIENT_TOKEN_LIFE};
use protocol::{Command, ErrorCode, LogId, Seq, Timestamp};
use relay::{
    RelayApi as _,
    auth::{CredentialBook, JwtAuthority, Keys, TicketBook},
    client::{Client, Credentials, Token},
    server::{Relay, RelayConfig, ServeLimits, serve},
};
use reqwest::{Method, StatusCode};
use serde_json::json;
use store::{EventStore, MemoryStore, ReadLimit, Record, RetentionPolicy};
use tokio::{net::TcpListener, sync::watch, task::JoinHandle};
use tokio_tungstenite::connect_async;
use tokio_util::sync::CancellationToken;

use crate::{
    streams::first_frames,
    support::{TestWorker, answer, in_time, link::FakeLink},
    tokens::{client_token, closed},
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
    let (sent, _) = tokio::join!(town.post("/api/towns/main/agents/toast/message", &body), link.command());
    assert_eq!(sent.status, StatusCode::OK, "{sent:?}");
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

#[tokio::test]
async fn a_client_is_sent_to_the_relay_with_a_token_for_what_it_may_do() {
    let folder = tempfile::tempdir().unwrap();
    let relay = RemoteRelay::start(&folder.path().join("signing-key")).await;
    let mode = Mode::remote(relay.url(), Some(folder.path().join("signing-key")));
    let town = TestWorker::start_with(|config| config.with_mode(mode)).await;
    town.register("toast", false).await;
    let there = town.get("/api/towns/main/relay").await;
    assert_eq!(there.data()["url"], relay.url());
    let expires: Timestamp = serde_json::from_value(there.data()["expires"].clone()).unwrap();
    assert!(expires.since(town.worker.now()) <= CLIENT_TOKEN_LIFE);
    let token = there.data()["token"].as_str().unwrap();
    let client = Client::new(&relay.url(), Credentials::bearer(Token::new(token))).unwrap();
    // The agent's log is there as soon as its registration was answered.
    let page = client.page(&log("agent/toast"), None, 10, Duration::ZERO).await.unwrap();
    assert_eq!(&*page.events[0].kind, "agent.registered");
    let other = client.page(&log("town/other"), None, 10, Duration::ZERO).await.unwrap_err();
    assert_eq!(other.code(), Some(ErrorCode::Forbidden));
    town.stop().await;
    relay.stop().await;
}

#[tokio::test]
async fn the_relay_has_a_copy_of_the_journal_and_another_journal_takes_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("signing-key");
    let relay = RemoteRelay::start(&key).await;
    let start =
        || TestWorker::start_with(|config| config.with_mode(Mode::remote(relay.url(), Some(key.clone()))));
    for name in ["toast", "nux"] {
        let town = start().await;
        town.register(name, false).await;
        let copied = in_time("the copy", relay.journal_with(name)).await;
        let own = town.store.read(&log("town/main"), Seq::ZERO, ReadLimit::default()).await.unwrap();
        let envelopes = |records: &[Record]| records.iter().map(|r| r.envelope.clone()).collect::<Vec<_>>();
        assert_eq!(envelopes(&copied), envelopes(&own.records), "the journal of the worker with {name}");
        town.stop().await;
    }
    relay.stop().await;
}

#[tokio::test]
async fn a_relay_that_was_away_is_told_what_agents_are_run_with_and_what_changed_meanwhile() {
    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("signing-key");
    let relay = RemoteRelay::start(&key).await;
    let mode = Mode::remote(relay.url(), Some(key.clone()));
    let town = TestWorker::start_with(|config| config.with_mode(mode)).await;
    let toast = town.launch("toast").await;
    let nux = town.launch("nux").await;
    config(&town, "config", json!({ "variant": "low" })).await;
    let (address, store) = relay.stop().await;

    config(&town, "agents/toast/config", json!({ "variant": "high" })).await;
    let mut relay = RemoteRelay::start_at(address, store, &key).await;
    relay.until_configured(&["nux", "toast"]).await;
    for (wrapper, variant) in [(toast, "high"), (nux, "low")] {
        let link = FakeLink::connect(&wrapper).await;
        assert_eq!(serde_json::to_value(&link.config).unwrap(), json!({ "variant": variant }));
    }
    town.stop().await;
    relay.stop().await;
}

#[tokio::test]
async fn a_relay_that_comes_back_without_its_store_is_given_the_journal_and_the_configs_again() {
    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("signing-key");
    let relay = RemoteRelay::start(&key).await;
    let mode = Mode::remote(relay.url(), Some(key.clone()));
    let town = TestWorker::start_with(|config| config.with_mode(mode)).await;
    town.register("toast", false).await;
    in_time("the first copy", relay.journal_with("toast")).await;
    let (address, _) = relay.stop().await;

    let mut relay = RemoteRelay::start_at(address, memory(), &key).await;
    in_time("the second copy", relay.journal_with("toast")).await;
    relay.until_configured(&["toast"]).await;
    town.stop().await;
    relay.stop().await;
}

#[tokio::test]
async fn p17_a_relay_elsewhere_knows_which_share_links_count() {
    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("signing-key");
    let relay = RemoteRelay::start(&key).await;
    let mode = Mode::remote(relay.url(), Some(key));
    let town = TestWorker::start_with(|config| config.with_mode(mode)).await;
    town.register("toast", false).await;
    let share = town.post("/api/towns/main/agents/toast/shares", &json!({})).await;
    let (id, url) = (share.data()["id"].as_str().unwrap(), share.data()["url"].as_str().unwrap());
    let token = url.rsplit('/').next().unwrap();
    in_time("the relay knows the link", relay.book.known(&"main".parse().unwrap(), id)).await;
    let stream = format!("ws://{}/v1/agents/toast/stream?ticket={token}", relay.address);
    let (mut socket, _) = connect_async(stream).await.unwrap();
    assert_eq!(
        town.delete(&format!("/api/towns/main/agents/toast/shares/{id}")).await.status,
        StatusCode::OK
    );
    assert_eq!(closed(&mut socket).await, 4401);
    town.stop().await;
    relay.stop().await;
}

#[tokio::test]
async fn p17_a_user_is_sent_to_a_relay_elsewhere_for_as_much_as_their_token_is_good_for_and_as_long() {
    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("signing-key");
    let relay = RemoteRelay::start(&key).await;
    let mode = Mode::remote(relay.url(), Some(key));
    let town = TestWorker::start_with(|config| config.with_mode(mode)).await;
    town.register("toast", false).await;
    let made = town.post("/api/towns/main/tokens", &json!({ "name": "ann", "scope": "read" })).await;
    let (id, own) = (made.data()["id"].as_str().unwrap(), made.data()["token"].as_str().unwrap());
    let copied = in_time("the copy", relay.journal_with("toast")).await;
    assert!(
        copied.iter().any(|record| &*record.kind == "town.token.issued"),
        "it was copied when it was answered"
    );
    in_time("the relay knows the token", relay.book.known(&"main".parse().unwrap(), id)).await;
    let token = client_token(&town, own).await;
    let client = |token: &str| Client::new(&relay.url(), Credentials::bearer(Token::new(token))).unwrap();
    let page = async |token: &str| {
        let page = client(token).page(&log("agent/toast"), None, 10, Duration::ZERO).await;
        page.map(drop).map_err(|error| error.code())
    };
    assert_eq!(page(&token).await, Ok(()));
    assert_eq!(page(own).await, Err(Some(ErrorCode::Unauthenticated)), "it is the worker's to know");
    let abort =
        client(&token).command(&"toast".parse().unwrap(), "c1".parse().unwrap(), Command::Abort).await;
    assert_eq!(abort.unwrap_err().code(), Some(ErrorCode::Forbidden));
    let ticket = town.plain(Method::POST, "/api/towns/main/agents/toast/stream-ticket").bearer_auth(own);
    let ticket = answer(ticket).await;
    let (mut socket, _) = connect_async(ticket.data()["url"].as_str().unwrap()).await.unwrap();

    assert_eq!(town.delete("/api/towns/main/tokens/ann").await.status, StatusCode::OK);
    assert_eq!(in_time("the stream is closed", closed(&mut socket)).await, 4401);
    assert_eq!(page(&token).await, Err(Some(ErrorCode::Unauthenticated)), "its 15 minutes are over");
    town.stop().await;
    relay.stop().await;
}

fn log(name: &str) -> LogId {
    name.parse().unwrap()
}

async fn config(town: &TestWorker, path: &str, patch: serde_json::Value) {
    let request = town.request(Method::PATCH, &format!("/api/towns/main/{path}")).json(&patch);
    assert_eq!(answer(request).await.status, StatusCode::OK);
}

fn memory() -> Arc<dyn EventStore> {
    Arc::new(MemoryStore::new(RetentionPolicy::default()))
}

struct RemoteRelay {
    address: SocketAddr,
    store: Arc<dyn EventStore>,
    book: Arc<CredentialBook>,
    relay: Relay,
    /// Agents whose config it was given.
    configured: watch::Receiver<BTreeSet<String>>,
    stop: CancellationToken,
    task: JoinHandle<std::io::Result<()>>,
}

impl RemoteRelay {
    async fn start(key: &Path) -> Self {
        Self::start_at(([127, 0, 0, 1], 0).into(), memory(), key).await
    }

    /// One where an earlier one was, over what that left.
    async fn start_at(address: SocketAddr, store: Arc<dyn EventStore>, key: &Path) -> Self {
        let tickets = Arc::new(TicketBook::new(protocol::Timestamp::default()));
        let known = Arc::new(CredentialBook::default());
        let authority =
            JwtAuthority::new(Keys::load_or_create(key).unwrap(), tickets).with_book(known.clone());
        let relay = Relay::new(store.clone(), Arc::new(authority), RelayConfig::default());
        let (given, configured) = watch::channel(BTreeSet::new());
        let router = relay.router().layer(from_fn(move |request: Request, next: Next| {
            let (given, path) = (given.clone(), request.uri().path().to_owned());
            async move {
                let response = next.run(request).await;
                let agent = path.strip_prefix("/v1/agents/").and_then(|path| path.strip_suffix("/config"));
                if let Some(agent) = agent.filter(|_| response.status().is_success()) {
                    given.send_modify(|agents| _ = agents.insert(agent.to_owned()));
                }
                response
            }
        }));
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let serve = serve(listener, router, ServeLimits::default(), stop.clone().cancelled_owned());
        let (book, followed, end) = (known.clone(), store.clone(), stop.clone());
        let task = tokio::spawn(async move { tokio::join!(serve, book.follow(followed, end)).0 });
        Self { address, store, book: known, relay, configured, stop, task }
    }

    /// Waits until it was given the configs of these agents.
    async fn until_configured(&mut self, agents: &[&str]) {
        let all = |given: &BTreeSet<String>| agents.iter().all(|agent| given.contains(*agent));
        in_time("the relay is given the configs", self.configured.wait_for(all)).await.unwrap();
    }

    /// Its copy of the journal, once that tells of this agent.
    async fn journal_with(&self, agent: &str) -> Vec<Record> {
        let mut tail = self.store.tail(&log("town/main"));
        loop {
            let page = self.store.read(&log("town/main"), Seq::ZERO, ReadLimit::default()).await;
            let records = page.map(|page| page.records).unwrap_or_default();
            let wanted = format!("\"agent\":\"{agent}\"");
            if records.iter().any(|record| str::from_utf8(&record.envelope).unwrap().contains(&wanted)) {
                return records;
            }
            tail.changed().await.unwrap();
        }
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Goes down in order, and leaves its place and store.
    async fn stop(self) -> (SocketAddr, Arc<dyn EventStore>) {
        self.relay.drain().await;
        self.stop.cancel();
        in_time("the relay goes down", self.task).await.unwrap().unwrap();
        (self.address, self.store)
    }
}
