//! The relay's process: the real router and accept loop over the simulated disk. It ends when it is told to drain, and
//! when its store fails; whoever runs it starts it again.

use std::{future::Future, sync::Arc, time::Duration};

use protocol::Timestamp;
use relay::{
    auth::{JwtAuthority, Keys, TicketBook},
    server::{Relay, RelayConfig, ServeLimits, serve},
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use turmoil::net::TcpListener;

use crate::{
    disk::SimStore,
    network::{Listener, RELAY_PORT},
    world::World,
};

/// Time without a link after which the relay says that a wrapper is lost.
const LOST_AFTER: Duration = Duration::from_secs(20);

/// One life of the relay.
pub(crate) async fn live(world: World) -> turmoil::Result {
    let mut drain = world.drain.subscribe();
    drain.mark_unchanged();
    world.trace.say("relay starts");
    world.network.orphan_all();
    let store = SimStore::open(&world.disk).await;
    let failed = store.failed();
    let authority = JwtAuthority::new(keys(), Arc::new(TicketBook::new(Timestamp::from_unix_ms(0))));
    let config = RelayConfig::default().with_host("relay").with_lost_after(LOST_AFTER);
    let relay = Relay::new(Arc::new(store), Arc::new(authority), config);
    let listener = Listener(TcpListener::bind(("0.0.0.0", RELAY_PORT)).await?);
    let ends = CancellationToken::new();
    let serving = serve(listener, relay.router(), ServeLimits::default(), ends.clone().cancelled_owned());
    let ending = async {
        if told(&mut drain, failed).await {
            world.trace.say("relay drains");
            ends.cancel();
            relay.drain().await;
        } else {
            world.trace.say("relay gives up: its store failed");
        }
    };
    let mut serving = std::pin::pin!(serving);
    tokio::select! {
        biased;
        served = &mut serving => served?,
        () = ending => if ends.is_cancelled() { serving.await?; },
    }
    world.trace.say("relay ends");
    Ok(())
}

/// What credentials are signed with.
pub(crate) fn keys() -> Keys {
    Keys::from_bytes(&[7; 32])
}

/// Whether it is to drain; else its store failed.
async fn told(drain: &mut watch::Receiver<u64>, failed: impl Future<Output = ()>) -> bool {
    tokio::select! {
        biased;
        changed = drain.changed() => changed.is_ok(),
        () = failed => false,
    }
}
