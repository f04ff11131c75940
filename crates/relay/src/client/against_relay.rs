//! The client against the relay of this crate, over real sockets on loopback.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use futures_util::StreamExt as _;
use protocol::{
    Command, CommandId, Cursor, ErrorCode, LogId, NewEvent, Seq, Timestamp, frame::WrapperPresence,
};
use store::{EventStore, MemoryStore, RetentionPolicy};
use tokio::{net::TcpListener, sync::oneshot, task::JoinHandle};

use super::{Client, Connection, Credentials, Follow, FollowError, Token};
use crate::{
    Delivery, RelayApi as _,
    auth::{Claims, JwtAuthority, Keys, ServiceClaims, TicketBook, WrapperClaims},
    server::{Relay, RelayConfig, ServeLimits, serve},
};

#[tokio::test]
async fn what_is_appended_is_read_as_a_page_and_followed_alike() {
    let place = Place::default();
    let relay = place.open(any_port()).await;
    let client = relay.client(&place);
    let appended = client.append(&log(), notes(1..=3)).await.expect("appended");
    assert_eq!(appended.head, Seq::new(3));

    let page = client.page(&log(), None, 2, Duration::ZERO).await.expect("a page");
    assert_eq!((page.events.len(), page.more, page.head), (2, true, Seq::new(3)));
    let rest = client.page(&log(), Some(&page.cursor()), 2, Duration::ZERO).await.expect("a page");
    assert_eq!((rest.events.len(), rest.more), (1, false));

    let mut follow = client.follow(log(), None);
    let followed = events(&mut follow, 3).await;
    assert_eq!(followed, [page.events, rest.events].concat());
    relay.close().await;
}

#[tokio::test]
async fn a_long_poll_is_answered_by_the_event_it_waits_for() {
    let place = Place::default();
    let relay = place.open(any_port()).await;
    let client = relay.client(&place);
    let first = client.append(&log(), notes(1..=1)).await.expect("appended");
    let cursor = Cursor { epoch: first.epoch, seq: first.head };
    let log = log();
    let (page, appended) = tokio::join!(
        client.page(&log, Some(&cursor), 10, Duration::from_secs(30)),
        client.append(&log, notes(2..=2)),
    );
    appended.expect("appended");
    assert_eq!(page.expect("a page").events.iter().map(|event| event.seq.get()).collect::<Vec<_>>(), [2]);
    relay.close().await;
}

#[tokio::test]
async fn p2_a_follower_survives_the_restart_of_its_relay_without_loss_or_repetition() {
    let place = Place::default();
    let first = place.open(any_port()).await;
    let address = first.address;
    let client = first.client(&place);
    client.append(&log(), notes(1..=3)).await.expect("appended");
    let mut follow = client.follow(log(), None);
    let mut seen = seqs(&events(&mut follow, 3).await);

    first.close().await;
    place.store.append(&log(), store::Append::of(notes(4..=5))).await.expect("committed while nobody serves");
    let second = place.open(address).await;
    client.append(&log(), notes(6..=6)).await.expect("appended");
    seen.extend(seqs(&events(&mut follow, 3).await));
    assert_eq!(seen, [1, 2, 3, 4, 5, 6]);
    second.close().await;
}

#[tokio::test]
async fn p3_a_log_that_was_made_anew_is_told_as_a_gap() {
    let place = Place::default();
    let relay = place.open(any_port()).await;
    let client = relay.client(&place);
    let old = client.append(&log(), notes(1..=5)).await.expect("appended");
    client.remove_log(&log()).await.expect("removed");
    client.append(&log(), notes(1..=1)).await.expect("appended");

    let from = protocol::frame::StartAt::After(Cursor { epoch: old.epoch, seq: old.head });
    let mut follow = client.follow(log(), Some(from));
    let told = loop {
        match follow.next().await.expect("it goes on").expect("no error") {
            Delivery::Gap { reason, .. } => break reason,
            Delivery::Event(event) => panic!("{event:?} came without a word of what is gone"),
            Delivery::Subscribed { .. }
            | Delivery::Live { .. }
            | Delivery::Presence { .. }
            | Delivery::Ended { .. } => {}
        }
    };
    assert_eq!(told, protocol::frame::GapReason::Epoch);
    assert_eq!(seqs(&events(&mut follow, 1).await), [1]);
    relay.close().await;
}

#[tokio::test]
async fn p17_wrong_credentials_end_a_follower_and_refuse_a_page() {
    let place = Place::default();
    let relay = place.open(any_port()).await;
    let stranger = relay.client_with(Credentials::bearer(Token::new("guessed")));
    let error = stranger.page(&log(), None, 1, Duration::ZERO).await.expect_err("refused");
    assert_eq!(error.code(), Some(ErrorCode::Unauthenticated));
    let error = stranger.follow(log(), None).next().await.expect("an item").expect_err("refused");
    assert!(matches!(error, FollowError::Unauthenticated { .. }), "{error}");
    relay.close().await;
}

#[tokio::test]
async fn p17_a_token_of_another_log_is_forbidden_here() {
    let place = Place::default();
    let relay = place.open(any_port()).await;
    let other = Claims::Ingest(WrapperClaims {
        town: "main".parse().expect("an id"),
        agent: "other".parse().expect("an id"),
        generation: 1,
        expires: far(),
    });
    let client = relay.client_with(Credentials::bearer(Token::new(place.keys.sign(&other).expose())));
    let error = client.page(&log(), None, 1, Duration::ZERO).await.expect_err("refused");
    assert_eq!(error.code(), Some(ErrorCode::Forbidden));
    let error = client.follow(log(), None).next().await.expect("an item").expect_err("refused");
    assert!(matches!(error, FollowError::Forbidden { .. }), "{error}");
    relay.close().await;
}

#[tokio::test]
async fn an_agent_without_a_wrapper_is_offline_and_its_presence_says_so() {
    let place = Place::default();
    let relay = place.open(any_port()).await;
    let client = relay.client(&place);
    let agent = "a1".parse().expect("an id");
    let id: CommandId = "c1".parse().expect("an id");
    let result = client.command(&agent, id.clone(), Command::Ping).await.expect("answered");
    assert_eq!((result.id, result.ok), (id, false));
    assert_eq!(result.error.expect("a reason").code, ErrorCode::AgentOffline);
    let presence = client.presence(&agent).await.expect("answered");
    assert_eq!(presence.wrapper, WrapperPresence::Disconnected);
    relay.close().await;
}

#[tokio::test]
async fn a_log_that_is_not_there_yet_is_waited_for_or_an_error_as_it_is_asked_for() {
    let place = Place::default();
    let relay = place.open(any_port()).await;
    let client = relay.client(&place);
    let error = client.follow(log(), None).next().await.expect("an item").expect_err("there is none");
    assert!(matches!(error, FollowError::UnknownLog { .. }), "{error}");

    let mut follow = client.follow_when_there(log(), None);
    let mut connection = follow.connection();
    let append = async {
        let waits = |connection: &Connection| matches!(connection, Connection::Waiting { .. });
        connection.wait_for(waits).await.expect("the follower is there");
        client.append(&log(), notes(1..=1)).await.expect("appended")
    };
    let (followed, _) = tokio::join!(events(&mut follow, 1), append);
    assert_eq!(seqs(&followed), [1]);
    relay.close().await;
}

#[tokio::test]
async fn an_unknown_log_has_no_page() {
    let place = Place::default();
    let relay = place.open(any_port()).await;
    let error = relay.client(&place).page(&log(), None, 1, Duration::ZERO).await.expect_err("there is none");
    assert_eq!(error.code(), Some(ErrorCode::UnknownLog));
    relay.close().await;
}

/// What outlives a relay.
struct Place {
    store: Arc<dyn EventStore>,
    keys: Keys,
}

impl Default for Place {
    fn default() -> Self {
        Self { store: Arc::new(MemoryStore::new(RetentionPolicy::default())), keys: Keys::random() }
    }
}

impl Place {
    async fn open(&self, address: SocketAddr) -> Open {
        let tickets = Arc::new(TicketBook::new(Timestamp::default()));
        let authority = Arc::new(JwtAuthority::new(self.keys.clone(), tickets));
        let relay = Relay::new(self.store.clone(), authority, RelayConfig::default());
        let listener = TcpListener::bind(address).await.expect("loopback");
        let address = listener.local_addr().expect("bound");
        let (stop, stopped) = oneshot::channel::<()>();
        let served = tokio::spawn(serve(listener, relay.router(), ServeLimits::default(), async {
            let _ = stopped.await;
        }));
        Open { address, relay, stop, served }
    }

    fn operator(&self) -> Credentials {
        let town = "main".parse().expect("an id");
        let claims = Claims::Service(ServiceClaims { town, service: "test".to_owned(), expires: far() });
        Credentials::bearer(Token::new(self.keys.sign(&claims).expose()))
    }
}

/// A relay that serves.
struct Open {
    address: SocketAddr,
    relay: Relay,
    stop: oneshot::Sender<()>,
    served: JoinHandle<std::io::Result<()>>,
}

impl Open {
    fn client(&self, place: &Place) -> Client {
        self.client_with(place.operator())
    }

    fn client_with(&self, credentials: Credentials) -> Client {
        Client::new(&format!("http://{}", self.address), credentials).expect("a URL")
    }

    async fn close(self) {
        drop(self.stop);
        self.relay.drain().await;
        self.served.await.expect("no panic").expect("served");
    }
}

async fn events(follow: &mut Follow, count: usize) -> Vec<protocol::Event> {
    let mut events = Vec::new();
    while events.len() < count {
        if let Delivery::Event(event) = follow.next().await.expect("it goes on").expect("no error") {
            events.push((*event).clone());
        }
    }
    events
}

fn seqs(events: &[protocol::Event]) -> Vec<u64> {
    events.iter().map(|event| event.seq.get()).collect()
}

fn notes(numbers: impl Iterator<Item = i64>) -> Vec<NewEvent> {
    let note = |n| NewEvent::of(Timestamp::from_unix_ms(n), "agent.note", &serde_json::json!({ "n": n }));
    numbers.map(|n| note(n).expect("JSON")).collect()
}

fn any_port() -> SocketAddr {
    ([127, 0, 0, 1], 0).into()
}

fn far() -> Timestamp {
    "2100-01-01T00:00:00Z".parse().expect("a time")
}

fn log() -> LogId {
    "agent/a1".parse().expect("a log")
}
