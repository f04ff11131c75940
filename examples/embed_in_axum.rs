//! A relay inside of your own axum service: your routes, your credentials, one listener.
//!
//! The service starts, appends an event as a program would, and reads it back over HTTP.
//!
//! Run it: `cargo run --example embed_in_axum`

#![expect(clippy::print_stdout, reason = "an example prints what it sees")]

use std::{sync::Arc, time::Duration};

use axum::{Router, routing::get};
use gastown::{
    protocol::{LogId, NewEvent, Timestamp},
    relay::{
        RelayApi as _,
        auth::{AuthError, Authority, Capability, Credentials, Grant, LogScope, Secret},
        client::{self, Client, Token, Verb},
        server::{Relay, RelayConfig, ServeLimits, serve},
    },
    store::{MemoryStore, RetentionPolicy},
};
use tokio::{net::TcpListener, sync::oneshot};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let store = Arc::new(MemoryStore::new(RetentionPolicy::default()));
    let authority = Arc::new(MySessions { token: Secret::new("the-session-of-your-service") });
    let relay = Relay::new(store, authority, RelayConfig::default());
    let router = Router::new().route("/", get(|| async { "my service" })).merge(relay.router());

    // The caller owns the socket and the signal.
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    let (stop, stopped) = oneshot::channel::<()>();
    let service = tokio::spawn(serve(listener, router, ServeLimits::default(), async {
        // Dropping the sender stops it as well.
        let _ = stopped.await;
    }));

    let client = Client::new(&url, client::Credentials::bearer(Token::new("the-session-of-your-service")))?;
    let (status, body) = client.call(Verb::Get, "/", None).await?;
    println!("GET / → {status} {}", String::from_utf8_lossy(&body));

    let log: LogId = "agent/toast".parse()?;
    let note =
        NewEvent::of(Timestamp::from_unix_ms(1), "agent.note", &serde_json::json!({ "text": "hello" }))?;
    let appended = client.append(&log, vec![note]).await?;
    println!("appended, the head is {}", appended.head);
    for event in client.page(&log, None, 10, Duration::ZERO).await?.events {
        println!("{} {} {:?}", event.seq, event.kind, event.data);
    }

    let stranger = Client::new(&url, client::Credentials::none())?;
    match stranger.page(&log, None, 10, Duration::ZERO).await {
        Ok(_) => return Err("a stranger was let in".into()),
        Err(error) => println!("a stranger: {error}"),
    }

    drop(stop);
    relay.drain().await;
    service.await??;
    Ok(())
}

/// Your own idea of who may do what. The relay asks it at every request and stream.
#[derive(Debug)]
struct MySessions {
    token: Secret,
}

impl Authority for MySessions {
    fn authenticate(&self, credentials: &Credentials<'_>, _: Timestamp) -> Result<Grant, AuthError> {
        let token = credentials.bearer.ok_or(AuthError::Missing)?;
        // `Secret::is` compares in constant time.
        if !self.token.is(token) {
            return Err(AuthError::Invalid);
        }
        let all = [Capability::Read, Capability::Steer, Capability::Admin];
        Ok(Grant::new("a user of my service", "main".parse().expect("main is an id"), LogScope::All, all))
    }
}
