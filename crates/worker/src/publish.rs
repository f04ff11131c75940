//! What a relay in another process is told of the town, and told again whenever it was away: the journal's copy, so that whoever
//! reads there (clients, the check of share links) reads what the worker's own store says, at the same positions; and what agents
//! are run with, which a relay keeps in memory only.

use std::{convert::Infallible, sync::Arc, time::Duration};

use futures_util::StreamExt as _;
use protocol::{ErrorCode, Event, IdError, LogId, NewEvent, Seq, TownId, frame::StartAt, limits};
use relay::{
    ApiError, Delivery, RelayApi as _,
    client::{Acked, Client, Connection, Follow, FollowError, Producer},
};
use store::{EventStore, ReadError, ReadLimit, Tail};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use town::Town;

use crate::agent_config::AgentConfigs;

/// Wait before a relay that did not take what it was told is told again.
const TRY_AGAIN: Duration = Duration::from_secs(1);

/// Tells one relay of one town.
pub(crate) struct Publisher {
    pub(crate) store: Arc<dyn EventStore>,
    pub(crate) id: TownId,
    pub(crate) town: watch::Receiver<Arc<Town>>,
    pub(crate) configs: Arc<AgentConfigs>,
    pub(crate) relay: Client,
    /// How far the relay's copy of the journal is.
    pub(crate) copied: watch::Sender<Seq>,
}

/// How far the copy of the journal is that a relay in another process has.
pub(crate) struct Copied {
    pub(crate) journal: Tail,
    pub(crate) copied: watch::Receiver<Seq>,
}

impl Copied {
    /// Waits until what the journal says by now was copied; for as long as the relay is away.
    pub(crate) async fn up_to_now(&self) {
        let Some(head) = self.journal.head() else { return };
        // A publisher that has ended copies nothing any more.
        let _ = self.copied.clone().wait_for(|copied| *copied >= head.seq).await;
    }
}

impl Publisher {
    /// Tells it until `shutdown`.
    pub(crate) async fn run(self, shutdown: CancellationToken) {
        shutdown.run_until_cancelled(self.publish()).await;
    }

    async fn publish(&self) -> Infallible {
        let log = LogId::Town(self.id.clone());
        loop {
            // That it is followed says when the relay was away: a copy is asked for, so that it is seen to be there.
            let follow = self.relay.follow_when_there(log.clone(), Some(StartAt::Head));
            let connection = follow.connection();
            let ended = tokio::select! {
                ended = self.tell_configs(follow) => ended,
                never = self.copy(&log, connection) => match never {},
            };
            if let Err(error) = ended {
                let error: &dyn std::error::Error = &error;
                tracing::warn!(error, "the relay does not say any more when it was away: it is asked again");
            }
            tokio::time::sleep(TRY_AGAIN).await;
        }
    }

    /// Tells it the configs with each connection, and when one was not taken; until it is followed no more.
    async fn tell_configs(&self, mut follow: Follow) -> Result<(), FollowError> {
        loop {
            tokio::select! {
                delivery = follow.next() => match delivery {
                    Some(Ok(Delivery::Subscribed { .. })) => {}
                    Some(Ok(_)) => continue,
                    Some(Err(error)) => return Err(error),
                    None => return Ok(()),
                },
                () = self.configs.untold() => tokio::time::sleep(TRY_AGAIN).await,
            }
            let town = self.town.borrow().clone();
            for agent in town.agents().values() {
                if !self.configs.tell(&self.relay, agent).await {
                    break;
                }
            }
        }
    }

    /// Keeps the copy.
    async fn copy(&self, log: &LogId, mut connection: watch::Receiver<Connection>) -> Infallible {
        loop {
            if let Err(error) = copy(&*self.store, log, &self.relay, &mut connection, &self.copied).await {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "the relay has no copy of the journal yet"
                );
            }
            tokio::time::sleep(TRY_AGAIN).await;
        }
    }
}

/// Why the copy is behind.
#[derive(Debug, thiserror::Error)]
enum CopyError {
    #[error("the journal cannot be read")]
    Read(#[from] ReadError),
    #[error("an event of the journal cannot be read")]
    Event(#[from] serde_json::Error),
    #[error("the journal's epoch cannot name a producer")]
    Epoch(#[from] IdError),
    #[error("the relay did not take the journal")]
    Relay(#[from] ApiError),
    #[error("the relay's copy is of another journal, or has holes: it is made anew")]
    Differs,
}

/// Copies as long as that works and the relay is there: one that was away may have lost its copy. The journal's positions are
/// the producer's numbers, and its epoch, which begins with its first event, is the producer: what was sent twice is kept once,
/// and another journal's copy is known for what it is.
async fn copy(
    store: &dyn EventStore,
    log: &LogId,
    relay: &Client,
    connection: &mut watch::Receiver<Connection>,
    copied: &watch::Sender<Seq>,
) -> Result<(), CopyError> {
    // Before the first read: what is committed after it wakes the tail.
    let mut tail = store.tail(log);
    while tail.head().is_none() {
        if tail.changed().await.is_none() {
            return Ok(());
        }
    }
    let id = format!("journal_{}", store.bounds(log).await?.epoch).parse()?;
    let producer = Producer { id, generation: 1 };
    let mut events = Vec::new();
    let mut first = 1;
    loop {
        let acked = append(relay, log, &producer, first, events).await?;
        copied.send_replace(acked);
        let page = loop {
            let limit = ReadLimit { bytes: limits::BATCH_BYTES / 2, ..ReadLimit::default() };
            let page = store.read(log, acked, limit).await?;
            if !page.records.is_empty() {
                break page;
            }
            let changed = tokio::select! {
                head = tail.changed() => head.is_some(),
                _ = connection.wait_for(|connection| matches!(connection, Connection::Waiting { .. })) => false,
            };
            if !changed {
                return Ok(());
            }
        };
        let next = page.records.iter().map(|record| record.event().map(of));
        events = next.collect::<Result<Vec<_>, _>>()?;
        first = acked.get() + 1;
    }
}

/// Appends to the copy. One that is not equal up to where it goes is removed.
async fn append(
    relay: &Client,
    log: &LogId,
    producer: &Producer,
    first: u64,
    events: Vec<NewEvent>,
) -> Result<Seq, CopyError> {
    match relay.append_numbered(log, producer, first, events).await {
        Ok(Acked { acked, head, .. }) if acked == head.get() => Ok(head),
        Err(error) if error.code() != Some(ErrorCode::Superseded) => Err(error.into()),
        Ok(_) | Err(_) => {
            relay.remove_log(log).await?;
            Err(CopyError::Differs)
        }
    }
}

fn of(event: Event) -> NewEvent {
    NewEvent { time: event.time, kind: event.kind, session: event.session, data: event.data }
}
