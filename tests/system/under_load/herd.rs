//! A crowd that comes back at once, to a relay that starts on many logs.

use std::{path::Path, time::Duration};

use futures_util::StreamExt;
use futures_util::future::join_all;
use protocol::{AgentId, Cursor, LogId, NewEvent, Seq, frame::StartAt};
use relay::{Delivery, RelayApi as _, client::Client};
use rustix::process::{Resource, getrlimit, setrlimit};
use store::{Append, EventStore, SqliteOptions, SqliteStore};
use tokio::time::{Instant, timeout};

use super::process::RelayProcess;
use crate::support::server::PATIENCE;

const AGENTS: usize = 1_000;
/// Of the events that fill the logs.
const EVENT_BYTES: usize = 4 * 1024;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p12_p13_a_killed_relay_with_a_thousand_agents_is_back_in_time() {
    recover(40 << 20).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "nightly: writes a gigabyte"]
async fn p12_p13_a_killed_relay_with_a_thousand_agents_and_a_gigabyte_is_back_in_time() {
    recover(1 << 30).await;
}

/// Fills the logs, lets a thousand viewers follow them, kills the relay, and takes the times after its start.
async fn recover(bytes: usize) {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, rustix::process::Rlimit { current: limit.maximum, ..limit })
        .expect("a soft limit may be raised");
    let _alone = super::alone().await;
    let data = tempfile::tempdir().expect("a temporary folder");
    let mut relay = RelayProcess::start(data.path()).await;
    relay.kill9().await;
    fill(&data.path().join("relay.db"), bytes).await;
    relay.start_again().await;
    let client = relay.client();
    let mut viewers = join_all((0..AGENTS).map(|n| Reader::live(&client, n))).await;
    relay.assert_memory_bounded(AGENTS, AGENTS);
    relay.kill9().await;

    let began = Instant::now();
    relay.start_again().await;
    let event = || NewEvent::of(relay::server::now(), "file.edited", &"after").expect("a text serialises");
    client.append(&log(0), vec![event()]).await.expect("ingest is accepted");
    let ingest = began.elapsed();
    let rest = (1..AGENTS).map(|n| {
        let (client, event) = (&client, event());
        async move { client.append(&log(n), vec![event]).await.expect("ingest is accepted") }
    });
    futures_util::stream::iter(rest).buffer_unordered(16).collect::<Vec<_>>().await;
    join_all(viewers.iter_mut().map(Reader::one_more)).await;
    let caught_up = began.elapsed();
    eprintln!("ingest after {ingest:?}, all caught up after {caught_up:?}, {} bytes", relay.resident_bytes());
    assert!(ingest <= Duration::from_secs(2), "P13: ingest was accepted after {ingest:?}");
    assert!(caught_up <= Duration::from_secs(15), "P13: everyone had everything after {caught_up:?}");
    relay.assert_memory_bounded(AGENTS, AGENTS);
}

/// A viewer that is at the head of its log.
struct Reader {
    follow: relay::client::Follow,
    at: Seq,
}

impl Reader {
    async fn live(client: &Client, agent: usize) -> Self {
        let page = client.page(&log(agent), None, 1, Duration::ZERO).await.expect("the log is there");
        let from = StartAt::After(Cursor { epoch: page.epoch, seq: page.head });
        let mut reader = Self { follow: client.follow(log(agent), Some(from)), at: page.head };
        while !matches!(reader.next().await, Delivery::Live { .. }) {}
        reader
    }

    /// The next event, and no other.
    async fn one_more(&mut self) {
        loop {
            match self.next().await {
                Delivery::Event(event) => {
                    assert_eq!(event.seq, self.at.next());
                    self.at = event.seq;
                    return;
                }
                Delivery::Gap { .. } => panic!("nothing was pruned"),
                Delivery::Subscribed { .. }
                | Delivery::Live { .. }
                | Delivery::Presence { .. }
                | Delivery::Ended { .. }
                | _ => {}
            }
        }
    }

    async fn next(&mut self) -> Delivery {
        let next = timeout(PATIENCE, self.follow.next()).await.expect("the stream goes on");
        next.expect("it does not end").expect("no reconnect was refused")
    }
}

fn log(agent: usize) -> LogId {
    LogId::Agent(format!("a{agent}").parse::<AgentId>().expect("it is an id"))
}

/// Writes so many bytes of events straight through the store.
async fn fill(path: &Path, bytes: usize) {
    let store = SqliteStore::open(path, SqliteOptions::default()).expect("the relay made it");
    let text = "x".repeat(EVENT_BYTES);
    let each = (bytes / AGENTS / EVENT_BYTES).max(1);
    let writes = (0..AGENTS).map(|agent| {
        let (store, text) = (&store, &text);
        async move {
            let events = (0..each).map(|_| NewEvent::of(relay::server::now(), "file.edited", text));
            let events = events.collect::<Result<Vec<_>, _>>().expect("a text serialises");
            store.append(&log(agent), Append::of(events)).await.expect("it is appended");
        }
    });
    futures_util::stream::iter(writes).buffer_unordered(64).collect::<Vec<_>>().await;
}
