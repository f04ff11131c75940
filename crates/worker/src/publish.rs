//! The journal's copy at a relay in another process: whoever reads there (clients, the check of share links) reads what the
//! worker's own store says, at the same positions.

use std::{sync::Arc, time::Duration};

use protocol::{ErrorCode, Event, IdError, LogId, NewEvent, Seq, TownId, limits};
use relay::{
    ApiError, RelayApi as _,
    client::{Acked, Client, Producer},
};
use store::{EventStore, ReadError, ReadLimit};
use tokio_util::sync::CancellationToken;

/// Wait before a relay that did not take the journal is tried again.
const TRY_AGAIN: Duration = Duration::from_secs(1);

/// Copies a town's journal, and goes on copying it until `shutdown`.
pub(crate) async fn publish(
    store: Arc<dyn EventStore>,
    town: TownId,
    relay: Client,
    shutdown: CancellationToken,
) {
    let log = LogId::Town(town);
    let copying = async {
        loop {
            if let Err(error) = copy(&*store, &log, &relay).await {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "the relay has no copy of the journal yet"
                );
            }
            tokio::time::sleep(TRY_AGAIN).await;
        }
    };
    shutdown.run_until_cancelled(copying).await;
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

/// Copies as long as that works. The journal's positions are the producer's numbers, and its epoch, which begins with its
/// first event, is the producer: what was sent twice is kept once, and another journal's copy is known for what it is.
async fn copy(store: &dyn EventStore, log: &LogId, relay: &Client) -> Result<(), CopyError> {
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
        let page = loop {
            let limit = ReadLimit { bytes: limits::BATCH_BYTES / 2, ..ReadLimit::default() };
            let page = store.read(log, acked, limit).await?;
            if !page.records.is_empty() {
                break page;
            }
            if tail.changed().await.is_none() {
                return Ok(());
            }
        };
        let copied = page.records.iter().map(|record| record.event().map(of));
        events = copied.collect::<Result<Vec<_>, _>>()?;
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
