//! A client that follows a log and survives the restart of its relay: each event once, in order, none missing.
//!
//! The relay is stopped and started again on the same port half way; the store is the same, as a file would be. While
//! the relay is down, events go on being committed. The client only sees that it took a moment.
//!
//! Run it: `cargo run --example resuming_client`

#![expect(clippy::print_stdout, reason = "an example prints what it sees")]

use std::{net::SocketAddr, sync::Arc};

use futures_util::StreamExt as _;
use gastown::{
    protocol::{LogId, NewEvent, Timestamp, TownId},
    relay::{
        Delivery,
        auth::{Claims, JwtAuthority, Keys, ServiceClaims, TicketBook},
        client::{Client, Credentials, Token},
        server::{Relay, RelayConfig, ServeLimits, serve},
    },
    store::{Append, EventStore, MemoryStore, RetentionPolicy},
};
use tokio::{net::TcpListener, sync::oneshot, task::JoinHandle};

type Error = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), Error> {
    let store: Arc<dyn EventStore> = Arc::new(MemoryStore::new(RetentionPolicy::default()));
    let keys = Keys::random();
    let log: LogId = "agent/toast".parse()?;

    let mut relay = Running::start(([127, 0, 0, 1], 0).into(), &store, &keys).await?;
    let address = relay.address;
    note(&*store, &log, 1..=3).await?;

    let mut follow =
        Client::new(&format!("http://{address}"), credentials(&keys)?)?.follow(log.clone(), None);
    let mut seen = Vec::new();
    while seen.len() < 6 {
        match follow.next().await.ok_or("the subscription ended")?? {
            Delivery::Subscribed { epoch, head, .. } => {
                println!("subscribed to {log} ({epoch}), its head is {head}")
            }
            Delivery::Event(event) => {
                println!("event {}", event.seq);
                seen.push(event.seq.get());
            }
            Delivery::Gap { reason, .. } => println!("some events are gone: {reason:?}"),
            Delivery::Live { head } => println!("live at {head}"),
            Delivery::Presence { .. } | Delivery::Ended { .. } | _ => {}
        }
        if seen.len() == 3 && relay.is_first {
            println!("the relay goes down");
            relay.stop().await?;
            note(&*store, &log, 4..=6).await?;
            relay = Running::start(address, &store, &keys).await?;
            relay.is_first = false;
            println!("the relay is up again");
        }
    }
    assert_eq!(seen, [1, 2, 3, 4, 5, 6], "each once, in order");
    println!("six events, each once");
    relay.stop().await
}

/// A relay that serves on a port.
struct Running {
    address: SocketAddr,
    is_first: bool,
    relay: Relay,
    stop: oneshot::Sender<()>,
    served: JoinHandle<std::io::Result<()>>,
}

impl Running {
    async fn start(address: SocketAddr, store: &Arc<dyn EventStore>, keys: &Keys) -> Result<Self, Error> {
        let tickets = Arc::new(TicketBook::new(Timestamp::from_unix_ms(0)));
        let authority = Arc::new(JwtAuthority::new(keys.clone(), tickets));
        let relay = Relay::new(store.clone(), authority, RelayConfig::default());
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let (stop, stopped) = oneshot::channel::<()>();
        let served = tokio::spawn(serve(listener, relay.router(), ServeLimits::default(), async {
            // Dropping the sender stops it as well.
            let _ = stopped.await;
        }));
        Ok(Self { address, is_first: true, relay, stop, served })
    }

    /// Tells the viewers to come back, waits for them to go, and frees the port.
    async fn stop(self) -> Result<(), Error> {
        drop(self.stop);
        self.relay.drain().await;
        self.served.await??;
        Ok(())
    }
}

/// A token as the worker has one.
fn credentials(keys: &Keys) -> Result<Credentials, Error> {
    let town: TownId = "main".parse()?;
    let expires: Timestamp = "2100-01-01T00:00:00Z".parse()?;
    let token = keys.sign(&Claims::Service(ServiceClaims { town, service: "example".to_owned(), expires }));
    Ok(Credentials::bearer(Token::new(token.expose())))
}

async fn note(store: &dyn EventStore, log: &LogId, numbers: impl Iterator<Item = i64>) -> Result<(), Error> {
    let events = numbers
        .map(|n| NewEvent::of(Timestamp::from_unix_ms(n), "agent.note", &serde_json::json!({ "n": n })));
    store.append(log, Append::of(events.collect::<Result<_, _>>()?)).await?;
    Ok(())
}
