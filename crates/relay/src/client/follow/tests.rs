//! The driver against a server that does what each test says, over real sockets on loopback.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use protocol::{Cursor, Epoch, ErrorCode, NewEvent, RawData, Seq, Timestamp};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::{
    accept_hdr_async,
    tungstenite::handshake::server::{ErrorResponse, Request as Upgrade, Response as Upgraded},
};

use super::*;
use crate::client::{Client, Credentials, Token};

#[tokio::test]
async fn p2_a_follower_goes_on_where_the_connection_broke_off() {
    let server = Server::bind().await;
    let mut follow = server.client(Credentials::none()).follow(log(), None);
    let script = async {
        let mut first = server.accept().await;
        assert_eq!(first.subscription().await, None);
        first.serve("e1", 3, &[1, 2]).await;
        first.drain_away().await;
        let mut second = server.accept().await;
        assert_eq!(second.subscription().await, Some(StartAt::After(cursor("e1", 2))));
        second.serve("e1", 3, &[3]).await;
        second
    };
    let (seen, _served) = tokio::join!(seqs(&mut follow, 3), script);
    assert_eq!(seen, [1, 2, 3]);
}

#[tokio::test]
async fn a_bearer_token_is_shown_as_a_header_and_never_in_the_url() {
    let server = Server::bind().await;
    let mut follow = server.client(Credentials::bearer(Token::new("s3cret"))).follow(log(), None);
    let script = async {
        let mut peer = server.accept().await;
        assert_eq!((peer.authorization.as_deref(), peer.uri.as_str()), (Some("Bearer s3cret"), "/v1/stream"));
        peer.subscription().await;
        peer.serve("e1", 1, &[1]).await;
        peer
    };
    let (seen, _served) = tokio::join!(seqs(&mut follow, 1), script);
    assert_eq!(seen, [1]);
}

#[tokio::test]
async fn p17_every_connection_gets_a_ticket_of_its_own_and_a_refused_one_is_replaced_at_once() {
    let server = Server::bind().await;
    let issued = Arc::new(AtomicUsize::new(0));
    let count = issued.clone();
    let source = move |_: LogId| {
        let n = count.fetch_add(1, Ordering::SeqCst) + 1;
        async move { Ok(Token::new(&format!("t{n}"))) }
    };
    let mut follow = server.client(Credentials::none().with_tickets(source)).follow(log(), None);
    let script = async {
        let mut first = server.accept().await;
        assert_eq!(first.uri, "/v1/stream?ticket=t1");
        first.close(CloseCode::UNAUTHENTICATED).await;
        let mut second = server.accept().await;
        assert_eq!(second.uri, "/v1/stream?ticket=t2");
        second.subscription().await;
        second.serve("e1", 1, &[1]).await;
        second
    };
    let (seen, _served) = tokio::join!(seqs(&mut follow, 1), script);
    assert_eq!(seen, [1]);
    assert_eq!(issued.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_refused_ticket_ends_the_stream_with_the_reason() {
    let source =
        |_: LogId| async { Err::<Token, _>(TicketError::Refused { reason: "no such town".to_owned() }) };
    let client = Client::new("http://127.0.0.1:9", Credentials::none().with_tickets(source)).unwrap();
    let mut follow = client.follow(log(), None);
    let error = follow.next().await.expect("an item").expect_err("no ticket");
    assert!(matches!(error, FollowError::NoTicket { .. }), "{error}");
    assert!(follow.next().await.is_none());
}

#[tokio::test]
async fn a_final_close_code_is_the_last_item() {
    let server = Server::bind().await;
    let mut follow = server.client(Credentials::none()).follow(log(), None);
    let script = async { server.accept().await.close(CloseCode::FORBIDDEN).await };
    let (item, ()) = tokio::join!(follow.next(), script);
    let error = item.expect("an item").expect_err("it is forbidden");
    assert!(matches!(error, FollowError::Forbidden { .. }), "{error}");
    assert!(follow.next().await.is_none());
    assert_eq!(*follow.connection().borrow(), Connection::Over);
}

#[tokio::test]
async fn a_heartbeat_is_answered() {
    let server = Server::bind().await;
    let mut follow = server.client(Credentials::none()).follow(log(), None);
    let script = async {
        let mut peer = server.accept().await;
        peer.subscription().await;
        peer.send(&ToViewer::Heartbeat { time: Timestamp::default() }).await;
        assert_eq!(peer.receive().await, FromViewer::Pong);
        peer.serve("e1", 1, &[1]).await;
        peer
    };
    let (seen, _served) = tokio::join!(seqs(&mut follow, 1), script);
    assert_eq!(seen, [1]);
}

#[tokio::test]
async fn p14_a_server_that_falls_silent_is_asked_by_a_ping_and_left() {
    let server = Server::bind().await;
    let mut follow = server.client(Credentials::none()).follow(log(), None);
    let script = async {
        let mut first = server.accept().await;
        first.subscription().await;
        first.serve("e1", 1, &[1]).await;
        first
            .send(&ToViewer::Hello { protocol: 1, heartbeat_ms: 30, server: "gastown/test".to_owned() })
            .await;
        let ping = first.socket.next().await.expect("a message").expect("no error");
        assert!(ping.is_ping(), "{ping:?}");
        // The answer would leave with the next read, which does not come.
        let mut second = server.accept().await;
        assert_eq!(second.subscription().await, Some(StartAt::After(cursor("e1", 1))));
        second.serve("e1", 2, &[2]).await;
        (first, second)
    };
    let (seen, _served) = tokio::join!(seqs(&mut follow, 2), script);
    assert_eq!(seen, [1, 2]);
}

#[tokio::test]
async fn a_frame_of_events_that_cannot_be_read_is_asked_for_again() {
    let server = Server::bind().await;
    let mut follow = server.client(Credentials::none()).follow(log(), None);
    let script = async {
        let mut first = server.accept().await;
        first.subscription().await;
        first.serve("e1", 2, &[1]).await;
        first.send_text(r#"{"type":"of_a_later_protocol","log":7}"#).await;
        first.send_text(r#"{"type":"events","log":"agent/a1","events":[{"seq":"two"}]}"#).await;
        assert_eq!(first.closed().await, Some(CloseCode::BAD_REQUEST.0));
        let mut second = server.accept().await;
        assert_eq!(second.subscription().await, Some(StartAt::After(cursor("e1", 1))));
        second.serve("e1", 2, &[2]).await;
        second
    };
    let (seen, _served) = tokio::join!(seqs(&mut follow, 2), script);
    assert_eq!(seen, [1, 2]);
}

#[tokio::test]
async fn a_server_that_is_not_there_yet_is_waited_for() {
    let address = Server::bind().await.address();
    let client = Client::new(&format!("http://{address}"), Credentials::none()).unwrap();
    let mut follow = client.follow(log(), None);
    let mut connection = follow.connection();
    let script = async {
        let waiting = |connection: &Connection| matches!(connection, Connection::Waiting { failures: 1, .. });
        connection.wait_for(waiting).await.expect("the follower is there");
        let server = Server(TcpListener::bind(address).await.expect("the port is free again"));
        let mut peer = server.accept().await;
        peer.subscription().await;
        peer.serve("e1", 1, &[1]).await;
        peer
    };
    let (seen, _served) = tokio::join!(seqs(&mut follow, 1), script);
    assert_eq!(seen, [1]);
}

#[test]
fn a_proxy_in_trouble_is_no_verdict_of_the_relay() {
    let refusal_of = |status: u16, body: &str| {
        let response = tungstenite::http::Response::builder().status(status);
        let response = response.body(Some(body.as_bytes().to_vec())).expect("a response");
        refusal(&tungstenite::Error::Http(response.into()))
    };
    for status in [400, 401, 403, 404, 500, 502, 503] {
        assert!(matches!(refusal_of(status, "<html>"), Loss::Network(_)), "{status}");
    }
    let own = r#"{"error":{"code":"forbidden","message":"it is another town's"}}"#;
    assert!(matches!(refusal_of(403, own), Loss::Closed(CloseCode::FORBIDDEN, _)));
    assert!(matches!(refusal_of(502, own), Loss::Network(_)), "it is not the relay that says it");
    assert!(matches!(refusal_of(429, ""), Loss::Closed(CloseCode::RATE_LIMITED, _)));
}

/// The positions of the next events.
async fn seqs(follow: &mut Follow, count: usize) -> Vec<u64> {
    let mut seen = Vec::new();
    while seen.len() < count {
        match follow.next().await.expect("it goes on").expect("no error") {
            Delivery::Event(event) => seen.push(event.seq.get()),
            Delivery::Subscribed { .. }
            | Delivery::Gap { .. }
            | Delivery::Live { .. }
            | Delivery::Presence { .. }
            | Delivery::Ended { .. } => {}
        }
    }
    seen
}

/// A listener on a port of the system's choice.
struct Server(TcpListener);

impl Server {
    async fn bind() -> Self {
        Self(TcpListener::bind("127.0.0.1:0").await.expect("loopback"))
    }

    fn address(&self) -> SocketAddr {
        self.0.local_addr().expect("bound")
    }

    fn client(&self, credentials: Credentials) -> Client {
        Client::new(&format!("http://{}", self.address()), credentials).expect("a URL")
    }

    async fn accept(&self) -> Peer {
        let (socket, _) = self.0.accept().await.expect("a connection");
        let (mut uri, mut authorization) = (String::new(), None);
        #[expect(clippy::result_large_err, reason = "the signature is tungstenite's")]
        let look = |request: &Upgrade, response: Upgraded| -> Result<Upgraded, ErrorResponse> {
            uri = request.uri().to_string();
            authorization =
                request.headers().get("authorization").map(|value| value.to_str().expect("text").to_owned());
            Ok(response)
        };
        let socket = accept_hdr_async(socket, look).await.expect("an upgrade");
        Peer { socket, uri, authorization }
    }
}

/// The server's end of one connection.
struct Peer {
    socket: WebSocketStream<TcpStream>,
    uri: String,
    authorization: Option<String>,
}

impl Peer {
    async fn send(&mut self, frame: &ToViewer) {
        let text = String::from_utf8(frame.encode().to_vec()).expect("JSON");
        self.send_text(&text).await;
    }

    async fn send_text(&mut self, text: &str) {
        self.socket.send(Message::text(text)).await.expect("sent");
    }

    async fn receive(&mut self) -> FromViewer {
        let message = self.socket.next().await.expect("a message").expect("no error");
        FromViewer::decode(message.into_text().expect("text").as_bytes()).expect("a frame")
    }

    async fn subscription(&mut self) -> Option<StartAt> {
        let frame = self.receive().await;
        let FromViewer::Subscribe { log: asked, cursor, .. } = frame else {
            panic!("{frame:?} is no subscription")
        };
        assert_eq!(asked, log());
        cursor
    }

    async fn serve(&mut self, epoch: &str, head: u64, seqs: &[u64]) {
        let (epoch, head) = (Epoch::new(epoch), Seq::new(head));
        self.send(&ToViewer::Hello { protocol: 1, heartbeat_ms: 15_000, server: "gastown/test".to_owned() })
            .await;
        self.send(&ToViewer::Subscribed { log: log(), epoch, floor: Seq::ZERO, head }).await;
        let event = |seq: &u64| {
            let data = RawData::from_json("{}").expect("JSON");
            NewEvent { time: Timestamp::default(), kind: "agent.note".into(), session: None, data }
                .at(Seq::new(*seq))
        };
        self.send(&ToViewer::Events { log: log(), events: seqs.iter().map(event).collect() }).await;
    }

    /// Goes down, and asks to come back soon.
    async fn drain_away(&mut self) {
        let message = "restarting".to_owned();
        let code = ErrorCode::Draining;
        self.send(&ToViewer::Error { code, message, log: None, retry_after_ms: Some(1) }).await;
        self.close(CloseCode::DRAINING).await;
    }

    async fn close(&mut self, code: CloseCode) {
        let frame = CloseFrame { code: code.0.into(), reason: Utf8Bytes::default() };
        self.socket.close(Some(frame)).await.expect("closed");
    }

    /// The code with which the client closes.
    async fn closed(&mut self) -> Option<u16> {
        while let Some(Ok(message)) = self.socket.next().await {
            if let Message::Close(Some(frame)) = message {
                return Some(frame.code.into());
            }
        }
        None
    }
}

fn log() -> LogId {
    "agent/a1".parse().expect("a log")
}

fn cursor(epoch: &str, seq: u64) -> Cursor {
    Cursor { epoch: Epoch::new(epoch), seq: Seq::new(seq) }
}
