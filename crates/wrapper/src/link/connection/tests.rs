use std::io;

use tokio::time::{Instant, sleep};

use super::{
    super::{
        dial::Tcp,
        testing::{Peer, Relay},
    },
    *,
};
use crate::LogTail;

#[test]
fn the_link_follows_the_relays_scheme_and_path() {
    let url = |relay: &str| endpoint(relay, "t").unwrap().url.to_string();
    assert_eq!(url("http://127.0.0.1:4280"), "ws://127.0.0.1:4280/v1/ingest");
    assert_eq!(url("ws://127.0.0.1:4280/"), "ws://127.0.0.1:4280/v1/ingest");
    assert_eq!(url("http://gastown.internal/town/?x=1"), "ws://gastown.internal/town/v1/ingest");
}

#[test]
fn what_is_no_url_of_a_relay_is_refused() {
    for relay in ["", "gastown", "ftp://host/", "localhost:4280"] {
        let refused = endpoint(relay, "t");
        assert!(matches!(refused, Err(LinkError::Url { .. })), "{relay:?}");
    }
}

#[test]
fn p19_a_token_is_not_shown() {
    let endpoint = endpoint("http://127.0.0.1:1", "canary").unwrap();
    assert!(!format!("{endpoint:?}").contains("canary"));
}

#[test]
fn p5_a_proxy_that_refuses_is_no_verdict_of_the_relay() {
    let refused = |status: u16, body: &str| {
        let response = tungstenite::http::Response::builder().status(status);
        let response = response.body(Some(body.as_bytes().to_vec())).unwrap();
        refusal(&tungstenite::Error::Http(response.into()))
    };
    for status in [400, 401, 403, 404, 409, 502] {
        for body in ["", "<html>Maintenance</html>", r#"{"error":"unauthenticated"}"#] {
            assert_eq!(refused(status, body), None, "{status} {body}");
        }
    }
    let own = r#"{"error":{"code":"unauthenticated","message":"the token is of another town"}}"#;
    let said = Some((CloseCode::UNAUTHENTICATED, "the token is of another town".to_owned()));
    assert_eq!(refused(401, own), said);
    assert_eq!(refused(502, own), None, "a proxy that shows it is not the relay that says it");
}

#[test]
fn a_certificate_that_is_not_good_is_told_to_the_operator_with_what_to_do() {
    let said_of = |error: io::Error| {
        let log = LogTail::new();
        let writer = log.clone();
        let recording = tracing_subscriber::fmt().with_writer(move || writer.clone()).finish();
        let refused = tracing::subscriber::with_default(recording, || refusal(&error.into()));
        assert_eq!(refused, None, "the relay said nothing, and may be there later");
        log.last(1).concat()
    };
    let unknown = rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer);
    let said = said_of(io::Error::new(io::ErrorKind::InvalidData, unknown));
    assert!(said.contains("ERROR") && said.contains("SSL_CERT_FILE"), "{said}");
    assert_eq!(said_of(io::ErrorKind::ConnectionRefused.into()), "", "an outage is none of the operator's");
}

#[tokio::test(start_paused = true)]
async fn a_relay_that_takes_nothing_for_45_s_is_left() {
    let (mut connection, _peer) = connected().await;
    fill(&mut connection).await;
    let begun = Instant::now();
    assert!(matches!(connection.next().await, Heard::Closed(None)));
    assert!((WRITE - CLOSE..=WRITE + 2 * CLOSE).contains(&begun.elapsed()), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_relay_that_took_nothing_may_still_say_why() {
    let (mut connection, mut peer) = connected().await;
    fill(&mut connection).await;
    let begun = Instant::now();
    let late = async {
        sleep(WRITE).await;
        peer.close(CloseCode::SUPERSEDED).await;
    };
    let (heard, ()) = tokio::join!(connection.next(), late);
    assert!(matches!(heard, Heard::Closed(Some((CloseCode::SUPERSEDED, _)))), "{heard:?}");
    assert!(begun.elapsed() <= WRITE + CLOSE);
}

#[tokio::test(start_paused = true)]
async fn there_is_room_once_the_relay_takes_something_again() {
    let (mut connection, mut peer) = connected().await;
    fill(&mut connection).await;
    tokio::select! {
        heard = timeout(CLOSE, connection.next()) => assert!(matches!(heard, Ok(Heard::Room)), "{heard:?}"),
        () = peer.hear_all() => panic!("the connection holds"),
    }
}

/// Hands in frames until the peer takes no more.
async fn fill(connection: &mut Connection) {
    loop {
        while connection.send(&FromWrapper::Heartbeat) {}
        if timeout(CLOSE / 2, connection.next()).await.is_err() {
            return assert!(!connection.has_room(), "it is told when there is some");
        }
    }
}

async fn connected() -> (Connection, Peer) {
    let (dial, mut relay) = Relay::new();
    let endpoint = Endpoint::of_link("http://relay", Token::new("t"), dial).unwrap();
    let (connection, peer) = tokio::join!(endpoint.connect(), relay.accept());
    (connection.unwrap(), peer)
}

fn endpoint(relay: &str, token: &str) -> Result<Endpoint, LinkError> {
    Endpoint::of_link(relay, Token::new(token), Arc::new(Tcp))
}
