//! The link against a relay that speaks §6 by hand.

use std::{net::SocketAddr, time::Duration};

use futures_util::{SinkExt as _, StreamExt as _};
use gastown_wrapper::{
    Clock,
    link::{self, Link, LinkConfig, LinkState, Token},
    outbox::{Outbox, OutboxLimits},
};
use protocol::{
    CloseCode, Command, CommandResult, ErrorCode, NewEvent, Seq, Timestamp,
    codec::Frame as _,
    frame::{FromWrapper, IngestLimits, RuntimeInfo, ToWrapper},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_tungstenite::{
    WebSocketStream, accept_hdr_async,
    tungstenite::{
        Message, Utf8Bytes,
        handshake::server::{Request, Response},
        protocol::{CloseFrame, frame::coding::CloseCode as WireCloseCode},
    },
};

/// Far more than anything here takes.
const SOON: Duration = Duration::from_secs(30);

#[tokio::test]
async fn p5_a_cut_link_comes_back_and_sends_what_was_not_acked() {
    let relay = Relay::listen().await;
    let wrapper = Wrapper::start(&relay);
    wrapper.push(1..=3).await;
    let mut first = relay.welcome(0).await;
    assert_eq!(first.next.unwrap(), 1);
    assert_eq!(first.append(3).await, [1, 2, 3]);
    first.say(&ack(2)).await;
    let mut progress = wrapper.outbox.progress();
    timeout(SOON, progress.wait_for(|progress| progress.acked == 2)).await.unwrap().unwrap();
    drop(first);
    wrapper.push(4..=4).await;
    let mut second = relay.welcome(2).await;
    assert_eq!(second.append(2).await, [3, 4]);
    let handle = wrapper.link.handle();
    let flushed = tokio::spawn(async move { handle.flush(SOON).await });
    second.say(&ack(4)).await;
    assert!(flushed.await.unwrap());
    assert_eq!(wrapper.outbox.depth(), (0, 0));
}

#[tokio::test]
async fn p6_a_superseded_link_ends_and_says_so() {
    let relay = Relay::listen().await;
    let mut wrapper = Wrapper::start(&relay);
    let peer = relay.welcome(0).await;
    peer.close(CloseCode::SUPERSEDED).await;
    assert_eq!(wrapper.reaches(|state| *state == LinkState::Superseded).await, LinkState::Superseded);
    assert!(wrapper.link.commands.recv().await.is_none());
    assert!(!wrapper.push_and_flush().await, "nobody will take it");
}

#[tokio::test]
async fn p5_refusals_of_a_moment_end_no_link() {
    let relay = Relay::listen().await;
    let wrapper = Wrapper::start(&relay);
    // A maintenance page, and then a relay that has another key for a moment.
    for status in ["401 Unauthorized", "403 Forbidden", "400 Bad Request"] {
        relay.answer_as_a_proxy(status).await;
    }
    relay.accept().await.close(CloseCode::UNAUTHENTICATED).await;
    let _peer = relay.welcome(0).await;
    wrapper.reaches(|state| *state == LinkState::Live).await;
}

#[tokio::test]
async fn a_draining_relay_is_come_back_to() {
    let relay = Relay::listen().await;
    let wrapper = Wrapper::start(&relay);
    let mut peer = relay.welcome(0).await;
    peer.say(&ToWrapper::Draining { retry_after_ms: 300 }).await;
    wrapper.reaches(|state| *state == LinkState::Draining).await;
    peer.close(CloseCode::DRAINING).await;
    let _peer = relay.welcome(0).await;
    wrapper.reaches(|state| *state == LinkState::Live).await;
}

#[tokio::test]
async fn a_slow_relay_gets_no_more_than_its_window() {
    let relay = Relay::listen().await;
    let mut wrapper = Wrapper::start(&relay);
    wrapper.push(1..=20).await;
    let mut peer = relay.accept().await;
    peer.greet(0, IngestLimits { window: 5, max_batch_events: 2, ..IngestLimits::default() }).await;
    for window in 0..4 {
        assert_eq!(peer.append(5).await, (window * 5 + 1..=window * 5 + 5).collect::<Vec<_>>());
        // The answer to a command comes next: nothing was sent beyond the window.
        peer.say(&command(&format!("c{window}"))).await;
        let (id, _) = wrapper.link.commands.recv().await.unwrap();
        wrapper.link.handle().result(CommandResult::ok(id)).await;
        peer.result().await;
        peer.say(&ack(window * 5 + 5)).await;
    }
}

#[tokio::test]
async fn a_command_goes_to_the_wrapper_once_and_is_answered_twice() {
    let relay = Relay::listen().await;
    let mut wrapper = Wrapper::start(&relay);
    let mut peer = relay.welcome(0).await;
    peer.say(&command("c1")).await;
    let (id, command_taken) = wrapper.link.commands.recv().await.unwrap();
    assert_eq!(command_taken, Command::Ping);
    wrapper.link.handle().result(CommandResult::ok(id)).await;
    assert_eq!(peer.result().await, "c1");
    peer.say(&command("c1")).await;
    assert_eq!(peer.result().await, "c1");
    assert!(wrapper.link.commands.try_recv().is_err());
}

#[tokio::test]
async fn commands_that_nobody_takes_are_refused() {
    let relay = Relay::listen().await;
    let _wrapper = Wrapper::start(&relay);
    let mut peer = relay.welcome(0).await;
    for number in 0..=64 {
        peer.say(&command(&format!("c{number}"))).await;
    }
    let Some(FromWrapper::Result { id, ok, error, .. }) = peer.hear().await else {
        panic!("a result was expected")
    };
    assert_eq!((id.as_str(), ok, error.unwrap().code), ("c64", false, ErrorCode::RateLimited));
}

#[tokio::test]
async fn a_frame_that_is_not_understood_is_passed_over_and_one_that_is_too_long_is_not() {
    let relay = Relay::listen().await;
    let mut wrapper = Wrapper::start(&relay);
    let mut peer = relay.welcome(0).await;
    peer.socket.send(Message::text("{")).await.unwrap();
    peer.say(&command("c1")).await;
    assert!(wrapper.link.commands.recv().await.is_some(), "the link goes on");
    // The wrapper may close before it has read all of it.
    let _ = peer.socket.send(Message::text("x".repeat(ToWrapper::MAX_BYTES + 1))).await;
    let _next = relay.welcome(0).await;
}

#[tokio::test]
async fn a_link_that_is_closed_says_bye() {
    let relay = Relay::listen().await;
    let wrapper = Wrapper::start(&relay);
    let mut peer = relay.welcome(0).await;
    wrapper.reaches(|state| *state == LinkState::Live).await;
    let Wrapper { link, .. } = wrapper;
    let ends = tokio::spawn(async move { link.close("done").await });
    assert!(matches!(peer.hear().await, Some(FromWrapper::Bye { reason }) if reason == "done"));
    assert!(peer.hear().await.is_none());
    timeout(SOON, ends).await.unwrap().unwrap();
}

struct Wrapper {
    link: Link,
    outbox: Outbox,
    _dir: tempfile::TempDir,
}

impl Wrapper {
    fn start(relay: &Relay) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let outbox = Outbox::open(dir.path(), OutboxLimits::default()).unwrap();
        let config = LinkConfig {
            relay: format!("http://{}", relay.address),
            token: Token::new("canary"),
            agent: "a".parse().unwrap(),
            town: "main".parse().unwrap(),
            generation: 1,
            runtime: RuntimeInfo { name: "scripted".to_owned(), version: "1".to_owned() },
            seed: 7,
        };
        let link = link::spawn(config, outbox.clone(), Clock::start()).unwrap();
        Self { link, outbox, _dir: dir }
    }

    async fn push(&self, numbers: std::ops::RangeInclusive<u64>) {
        let event = |n| NewEvent::of(Timestamp::from_unix_ms(0), "todo.updated", &n).unwrap();
        self.outbox.push(numbers.map(event).collect()).await.unwrap();
    }

    async fn push_and_flush(&self) -> bool {
        self.push(1..=1).await;
        timeout(SOON, self.link.handle().flush(10 * SOON)).await.expect("that it is over is known at once")
    }

    async fn reaches(&self, is_it: impl FnMut(&LinkState) -> bool) -> LinkState {
        let mut state = self.link.handle().state();
        timeout(SOON, state.wait_for(is_it)).await.unwrap().unwrap().clone()
    }
}

struct Relay {
    listener: TcpListener,
    address: SocketAddr,
}

struct Peer {
    socket: WebSocketStream<TcpStream>,
    /// What the `hello` said.
    next: Option<u64>,
}

impl Relay {
    async fn listen() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        Self { listener, address }
    }

    async fn accept(&self) -> Peer {
        let (stream, _) = timeout(SOON, self.listener.accept()).await.unwrap().unwrap();
        #[expect(clippy::result_large_err, reason = "the handshake's callback has this type")]
        let check = |request: &Request, response: Response| {
            assert_eq!(request.uri().path(), "/v1/ingest");
            assert_eq!(request.headers()["authorization"], "Bearer canary");
            Ok(response)
        };
        Peer { socket: accept_hdr_async(stream, check).await.unwrap(), next: None }
    }

    /// Lets something else answer in its place.
    async fn answer_as_a_proxy(&self, status: &str) {
        let (mut stream, _) = timeout(SOON, self.listener.accept()).await.unwrap().unwrap();
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            request.push(stream.read_u8().await.unwrap());
        }
        let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 4\r\n\r\nsoon");
        stream.write_all(answer.as_bytes()).await.unwrap();
    }

    async fn welcome(&self, acked: u64) -> Peer {
        let mut peer = self.accept().await;
        peer.greet(acked, IngestLimits::default()).await;
        peer
    }
}

impl Peer {
    async fn greet(&mut self, acked: u64, limits: IngestLimits) {
        let Some(FromWrapper::Hello { next, .. }) = self.hear().await else { panic!("`hello` comes first") };
        self.next = Some(next);
        self.say(&ToWrapper::Welcome { protocol: 1, acked, limits, config: None }).await;
    }

    async fn say(&mut self, frame: &ToWrapper) {
        let text = Utf8Bytes::try_from(frame.encode()).unwrap();
        self.socket.send(Message::Text(text)).await.unwrap();
    }

    /// The next frame; `None` when the wrapper closed.
    async fn hear(&mut self) -> Option<FromWrapper> {
        loop {
            match timeout(SOON, self.socket.next()).await.unwrap() {
                Some(Ok(Message::Text(text))) => return Some(FromWrapper::decode(text.as_bytes()).unwrap()),
                Some(Ok(Message::Close(_)) | Err(_)) | None => return None,
                Some(Ok(_)) => {}
            }
        }
    }

    /// So many events: their numbers.
    async fn append(&mut self, events: u64) -> Vec<u64> {
        let mut numbers = Vec::new();
        while (numbers.len() as u64) < events {
            let Some(FromWrapper::Append { first, events }) = self.hear().await else {
                panic!("events were expected")
            };
            numbers.extend(first..first + events.len() as u64);
        }
        numbers
    }

    async fn result(&mut self) -> String {
        let Some(FromWrapper::Result { id, .. }) = self.hear().await else { panic!("a result was expected") };
        id.to_string()
    }

    async fn close(mut self, code: CloseCode) {
        let frame = CloseFrame { code: WireCloseCode::from(code.0), reason: "closed".into() };
        self.socket.close(Some(frame)).await.unwrap();
        while let Some(Ok(_)) = self.socket.next().await {}
    }
}

fn ack(through: u64) -> ToWrapper {
    ToWrapper::Ack { through, seq: Seq::new(through) }
}

fn command(id: &str) -> ToWrapper {
    ToWrapper::Command { id: id.parse().unwrap(), command: Command::Ping, config: None }
}
