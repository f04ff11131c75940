//! A relay, and what speaks to it.

use std::{
    future::Future,
    net::SocketAddr,
    panic,
    sync::{
        Arc, Once,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use futures_util::{SinkExt as _, StreamExt as _};
use gastown_relay::{
    RelayApi as _,
    auth::{
        Claims, CredentialBook, JwtAuthority, Keys, Secret, ServiceClaims, ShareClaims, TicketBook,
        WrapperClaims,
    },
    server::{Relay, RelayConfig, ServeLimits, now, serve},
};
use protocol::{AgentId, Epoch, LogId, NewEvent, Timestamp};
use serde_json::{Value, json};
use store::{EventStore, MemoryStore, RetentionPolicy, SqliteOptions, SqliteStore};
use tokio::{net::TcpStream, task::JoinHandle};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async,
    tungstenite::{Message, client::IntoClientRequest as _, handshake::client::Request},
};
use tokio_util::sync::CancellationToken;

/// Nothing here takes this long, unless it never comes.
const GENEROUS: Duration = Duration::from_secs(30);

/// A relay that is served on a port of its own.
pub(crate) struct Server {
    pub(crate) relay: Relay,
    pub(crate) keys: Keys,
    pub(crate) tickets: Arc<TicketBook>,
    shares: Arc<CredentialBook>,
    store: Arc<dyn EventStore>,
    pub(crate) address: SocketAddr,
    shutdown: CancellationToken,
    serving: JoinHandle<std::io::Result<()>>,
    _dir: Option<tempfile::TempDir>,
    _panics: NoPanics,
}

/// P20: asserts at its end that nothing has panicked but a test: in a task, tokio would keep it to itself.
struct NoPanics;

impl Server {
    /// Over a store in memory.
    pub(crate) async fn start() -> Self {
        Self::with(MemoryStore::new(RetentionPolicy::default()), RelayConfig::default()).await
    }

    /// Over SQLite.
    pub(crate) async fn on_disk() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(dir.path().join("events.db"), SqliteOptions::default()).unwrap();
        let mut server = Self::with(store, RelayConfig::default()).await;
        server._dir = Some(dir);
        server
    }

    pub(crate) async fn with(store: impl EventStore, config: RelayConfig) -> Self {
        Self::limited(store, config, ServeLimits::default()).await
    }

    pub(crate) async fn limited(store: impl EventStore, config: RelayConfig, limits: ServeLimits) -> Self {
        let (keys, tickets) = (Keys::random(), Arc::new(TicketBook::new(now())));
        let (shares, store): (_, Arc<dyn EventStore>) =
            (Arc::new(CredentialBook::default()), Arc::new(store));
        let authority = JwtAuthority::new(keys.clone(), tickets.clone()).with_book(shares.clone());
        let relay = Relay::new(store.clone(), Arc::new(authority), config);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let serve = serve(listener, relay.router(), limits, shutdown.clone().cancelled_owned());
        let follow = (shares.clone(), store.clone(), shutdown.clone());
        let serving = tokio::spawn(async move {
            let (served, ()) = tokio::join!(serve, follow.0.follow(follow.1, follow.2));
            served
        });
        Self {
            relay,
            keys,
            tickets,
            shares,
            store,
            address,
            shutdown,
            serving,
            _dir: None,
            _panics: NoPanics::watch(),
        }
    }

    /// Ends as a process does at SIGTERM.
    pub(crate) async fn stop(self) {
        self.shutdown.cancel();
        self.relay.drain().await;
        within(self.serving).await.unwrap().unwrap();
    }

    pub(crate) fn operator(&self) -> Secret {
        let claims =
            ServiceClaims { town: "main".parse().unwrap(), service: "test".into(), expires: in_an_hour() };
        self.keys.sign(&Claims::Service(claims))
    }

    pub(crate) fn wrapper_token(&self, agent: &str, generation: u64) -> Secret {
        let (town, agent) = ("main".parse().unwrap(), agent.parse::<AgentId>().unwrap());
        self.keys.sign(&Claims::Ingest(WrapperClaims { town, agent, generation, expires: in_an_hour() }))
    }

    /// A share link to an agent's log that the town's journal knows.
    pub(crate) async fn share(&self, agent: &str, jti: &str) -> Secret {
        let (town, log) = ("main".parse().unwrap(), format!("agent/{agent}").parse().unwrap());
        let (issued, expires) = (now(), in_an_hour());
        let change = json!({ "share": jti, "agent": agent, "issued": issued, "expires": expires });
        self.tell("town.share.issued", change).await;
        within(self.shares.known(&town, jti)).await;
        self.keys.sign(&Claims::Share(ShareClaims { jti: jti.to_owned(), town, log, expires }))
    }

    /// Says something in the town's journal.
    pub(crate) async fn tell(&self, kind: &str, change: Value) {
        let data = json!({ "by": { "actor": "test", "command": "test" }, "change": change });
        self.relay.append(&"town/main".parse().unwrap(), vec![event(kind, &data)]).await.unwrap();
    }

    pub(crate) async fn append(&self, log: &str, texts: &[&str]) {
        let events = texts.iter().map(|text| event("note", &json!({ "text": text }))).collect();
        self.relay.append(&log.parse::<LogId>().unwrap(), events).await.unwrap();
    }

    /// The incarnation of a log.
    pub(crate) async fn epoch(&self, log: &str) -> Epoch {
        self.store.bounds(&log.parse().unwrap()).await.unwrap().epoch
    }

    pub(crate) fn http(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// A plain request with the operator's token.
    pub(crate) async fn get(&self, path: &str) -> reqwest::Response {
        within(http().get(self.http(path)).bearer_auth(self.operator().expose()).send()).await.unwrap()
    }

    /// A WebSocket with the operator's token.
    pub(crate) async fn stream(&self, path: &str) -> Socket {
        self.stream_as(path, Some(&self.operator())).await
    }

    pub(crate) async fn stream_as(&self, path: &str, token: Option<&Secret>) -> Socket {
        let mut request = self.upgrade(path);
        if let Some(token) = token {
            let value = format!("Bearer {}", token.expose()).parse().unwrap();
            request.headers_mut().insert("authorization", value);
        }
        Socket::connect(request).await
    }

    pub(crate) fn upgrade(&self, path: &str) -> Request {
        format!("ws://{}{path}", self.address).into_client_request().unwrap()
    }

    /// A wrapper past its hello.
    pub(crate) async fn wrapper(&self, agent: &str, producer: &str, generation: u64) -> Socket {
        let mut socket = self.stream_as("/v1/ingest", Some(&self.wrapper_token(agent, generation))).await;
        socket.send(&hello(agent, producer, generation)).await;
        assert_eq!(socket.next().await["type"], "welcome");
        socket
    }
}

/// A WebSocket of frames that are JSON.
pub(crate) struct Socket(WebSocketStream<MaybeTlsStream<TcpStream>>);

impl Socket {
    pub(crate) async fn connect(request: Request) -> Self {
        let (socket, _) = within(connect_async(request)).await.unwrap();
        Self(socket)
    }

    pub(crate) async fn send(&mut self, frame: &Value) {
        self.send_message(Message::text(frame.to_string())).await;
    }

    pub(crate) async fn send_message(&mut self, message: Message) {
        within(self.0.send(message)).await.unwrap();
    }

    /// Sends a frame to a relay that may have closed already.
    pub(crate) async fn try_send(&mut self, frame: &Value) {
        let _ = within(self.0.send(Message::text(frame.to_string()))).await;
    }

    /// The stream below, to write what no client would.
    pub(crate) fn raw(&mut self) -> &mut MaybeTlsStream<TcpStream> {
        self.0.get_mut()
    }

    /// The next frame, or the code of the close.
    pub(crate) async fn next_or_close(&mut self) -> Result<Value, u16> {
        Ok(serde_json::from_str(&self.text_or_close().await?).unwrap())
    }

    /// The text of the next frame, or the code of the close.
    pub(crate) async fn text_or_close(&mut self) -> Result<String, u16> {
        match within(self.0.next()).await {
            Some(Ok(Message::Text(text))) => Ok(text.to_string()),
            Some(Ok(Message::Close(Some(close)))) => Err(close.code.into()),
            other => panic!("a frame or a close was to come, not {other:?}"),
        }
    }

    /// The next frame but heartbeats.
    pub(crate) async fn next(&mut self) -> Value {
        serde_json::from_str(&self.next_text().await).unwrap()
    }

    pub(crate) async fn next_text(&mut self) -> String {
        match within(self.0.next()).await {
            Some(Ok(Message::Text(text))) => text.to_string(),
            other => panic!("a text frame was to come, not {other:?}"),
        }
    }

    /// Frames up to and including one of this type.
    pub(crate) async fn until(&mut self, kind: &str) -> Vec<Value> {
        let mut frames = Vec::new();
        loop {
            frames.push(self.next().await);
            if frames[frames.len() - 1]["type"] == kind {
                return frames;
            }
        }
    }

    /// Text frames until the socket is closed, and the code of the close.
    pub(crate) async fn closed(&mut self) -> (Vec<Value>, u16) {
        let mut frames = Vec::new();
        loop {
            match within(self.0.next()).await {
                Some(Ok(Message::Text(text))) => frames.push(serde_json::from_str(&text).unwrap()),
                Some(Ok(Message::Close(Some(close)))) => return (frames, close.code.into()),
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                other => panic!("a close was to come, not {other:?} after {frames:?}"),
            }
        }
    }

    /// As [`Socket::closed`], without the frames.
    pub(crate) async fn close_code(&mut self) -> u16 {
        self.closed().await.1
    }
}

pub(crate) fn hello(agent: &str, producer: &str, generation: u64) -> Value {
    json!({
        "type": "hello", "protocol": 1, "wrapper_version": "0.1.0", "agent": agent, "town": "main",
        "producer": producer, "generation": generation, "runtime": {"name": "scripted", "version": "1"}, "next": 1,
    })
}

impl NoPanics {
    fn watch() -> Self {
        static WATCH: Once = Once::new();
        WATCH.call_once(|| {
            let before = panic::take_hook();
            panic::set_hook(Box::new(move |info| {
                if info.location().is_some_and(|at| !at.file().contains("tests/")) {
                    PANICS.fetch_add(1, Relaxed);
                }
                before(info);
            }));
        });
        Self
    }
}

impl Drop for NoPanics {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            assert_eq!(PANICS.load(Relaxed), 0, "the relay panicked: see above");
        }
    }
}

/// Panics in this process that were no test's.
static PANICS: AtomicUsize = AtomicUsize::new(0);

/// A client for plain HTTP.
pub(crate) fn http() -> reqwest::Client {
    // Whoever is first installs it for the process.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::new()
}

/// Events as a wrapper sends them.
pub(crate) fn append(first: u64, texts: &[&str]) -> Value {
    let events = texts.iter().map(|text| event("note", &json!({ "text": text }))).collect::<Vec<_>>();
    json!({"type": "append", "first": first, "events": events})
}

pub(crate) fn event(kind: &str, data: &Value) -> NewEvent {
    NewEvent::of(Timestamp::from_unix_ms(1_795_198_984_413), kind, data).unwrap()
}

/// The texts of the events in these frames.
pub(crate) fn texts<'a>(frames: impl IntoIterator<Item = &'a Value>) -> Vec<String> {
    let events = frames.into_iter().filter(|frame| frame["type"] == "events");
    let events = events.flat_map(|frame| frame["events"].as_array().unwrap());
    events.map(|event| event["data"]["text"].as_str().unwrap_or_default().to_owned()).collect()
}

pub(crate) async fn within<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(GENEROUS, future).await.expect("it does not come")
}

fn in_an_hour() -> Timestamp {
    now().after(Duration::from_secs(3600))
}
