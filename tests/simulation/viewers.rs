//! The machine of the viewers: the real client, read fast, slowly, with pauses, over reconnects and reloads.

use std::{sync::Arc, time::Duration};

use futures_util::StreamExt;
use protocol::{Cursor, Epoch, LogId, Seq, Timestamp, frame::StartAt};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use relay::{
    Delivery,
    auth::{Claims, ServiceClaims},
    client::{Client, Credentials, Token},
};
use tokio::{task::JoinSet, time::sleep};

use crate::{agents::log_of, network::RELAY_URL, oracle::Seen, relay_host, world::World};

/// One life of the machine: so many viewers, each of one of so many agents.
pub(crate) async fn live(world: World, viewers: usize, agents: usize) -> turmoil::Result {
    let mut tasks = JoinSet::new();
    for index in 0..viewers {
        let viewer = Viewer::new(&world, index, log_of(index % agents));
        tasks.spawn(viewer.live());
    }
    while let Some(ended) = tasks.join_next().await {
        ended?;
    }
    Ok(())
}

struct Viewer {
    world: World,
    index: usize,
    log: LogId,
    client: Client,
    random: StdRng,
    /// Up to where it was given everything.
    cursor: Option<Cursor>,
    epoch: Option<Epoch>,
}

impl Viewer {
    fn new(world: &World, index: usize, log: LogId) -> Self {
        let token = relay_host::keys().sign(&Claims::Service(ServiceClaims {
            town: World::town(),
            service: "simulation".to_owned(),
            expires: Timestamp::from_unix_ms(1_000_000_000_000),
        }));
        let client = Client::new(RELAY_URL, Credentials::bearer(Token::new(token.expose())))
            .expect("the relay's URL is one")
            .with_dialer(Arc::new(world.network.dialer(&format!("viewer/{index}/"))));
        let random = StdRng::seed_from_u64(world.seed.wrapping_mul(31).wrapping_add(index as u64));
        Self { world: world.clone(), index, log, client, random, cursor: None, epoch: None }
    }

    async fn live(mut self) {
        self.world.book().opens(self.index, &self.log);
        loop {
            self.follow().await;
            if !self.world.is_calm() && self.random.random_bool(0.2) {
                // A page that is loaded again knows nothing any more.
                self.world.trace.say(format!("v{} reloads", self.index));
                (self.cursor, self.epoch) = (None, None);
                self.world.book().opens(self.index, &self.log);
            }
            sleep(Duration::from_millis(self.random.random_range(0..500))).await;
        }
    }

    /// One stream, until it has had enough of it.
    async fn follow(&mut self) {
        let from = self.cursor.clone().map(StartAt::After);
        let mut stream = self.client.follow_when_there(self.log.clone(), from);
        let mut connection = stream.connection();
        let mut left: u32 = self.random.random_range(20..600);
        while left > 0 || self.world.is_calm() {
            left = left.saturating_sub(1);
            let next = async {
                loop {
                    tokio::select! {
                        biased;
                        next = stream.next() => break next,
                        Ok(()) = connection.changed() => {
                            let now = connection.borrow_and_update().clone();
                            self.world.trace.say(format!("v{} {now:?}", self.index));
                        }
                    }
                }
            };
            match next.await {
                Some(Ok(delivery)) => self.given(delivery),
                Some(Err(error)) => return self.world.fail(format!("viewer {}: {error:?}", self.index)),
                None => return self.world.fail(format!("viewer {}: the stream ended", self.index)),
            }
            if !self.world.is_calm() && self.random.random_bool(0.01) {
                sleep(Duration::from_millis(self.random.random_range(0..6_000))).await;
            }
        }
        self.world.trace.say(format!("v{} leaves", self.index));
    }

    fn given(&mut self, delivery: Delivery) {
        let seen = match delivery {
            Delivery::Event(event) => {
                if let Some(epoch) = self.epoch.clone() {
                    self.cursor = Some(Cursor { epoch, seq: event.seq });
                }
                Seen::Event((*event).clone())
            }
            Delivery::Gap { from, to, reason } => Seen::Gap { from, to, reason },
            Delivery::Subscribed { epoch, .. } => {
                self.epoch = Some(epoch);
                return;
            }
            Delivery::Live { .. } | Delivery::Presence { .. } | Delivery::Ended { .. } | _ => return,
        };
        self.world.trace.say(match &seen {
            Seen::Event(event) => {
                let bytes = event.encode();
                format!("v{} {} {} {} {:08x}", self.index, self.log, event.seq, event.kind, sum(&bytes))
            }
            Seen::Gap { from, to, reason } => {
                format!("v{} {} gap {from:?} {to:?} {reason:?}", self.index, self.log)
            }
        });
        self.world.book().seen(self.index, seen);
    }
}

/// FNV-1a: tells texts apart in a trace.
fn sum(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |sum, byte| (sum ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

/// Where a reader is that was given these.
pub(crate) fn position(seen: &[Seen]) -> Seq {
    let last = seen.iter().rev().find_map(|seen| match seen {
        Seen::Event(event) => Some(event.seq),
        Seen::Gap { .. } => None,
    });
    last.unwrap_or(Seq::ZERO)
}
