//! SIGTERM under load.

use std::{collections::BTreeSet, time::Duration};

use relay::client::Connection;
use rustix::process::Signal;
use tokio::time::{Instant, timeout};

use super::{fleet::Fleet, process::RelayProcess};
use crate::support::server::PATIENCE;

const VIEWERS: usize = 60;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p15_a_drain_under_load_tells_everyone_ends_in_time_and_loses_nothing() {
    let _alone = super::alone().await;
    let data = tempfile::tempdir().expect("a temporary folder");
    let mut relay = RelayProcess::start(data.path()).await;
    let mut fleet = Fleet::new(rand::random());
    fleet.produce(&relay, &relay.address, 6, 40);
    fleet.watch(&relay.client(), VIEWERS);
    for watcher in fleet.viewers() {
        let mut connection = watcher.connection.clone();
        let up = connection.wait_for(|connection| *connection == Connection::Up);
        timeout(PATIENCE, up).await.expect("every viewer is served").expect("it is there");
    }
    fleet.acks(300).await;
    let mut told = tokio::task::JoinSet::new();
    for watcher in fleet.viewers() {
        let mut connection = watcher.connection.clone();
        told.spawn(async move {
            let waits = connection.wait_for(|connection| matches!(connection, Connection::Waiting { .. }));
            waits.await.expect("it is there").clone()
        });
    }
    let began = Instant::now();
    relay.signal(Signal::TERM);
    let status = relay.ended().await;
    assert!(began.elapsed() <= Duration::from_secs(10), "it took {:?}", began.elapsed());
    assert_eq!(status.code(), Some(0), "{status}");
    let mut waits = BTreeSet::new();
    while let Some(connection) = timeout(PATIENCE, told.join_next()).await.expect("everyone is told") {
        let Connection::Waiting { retry_in, reason, .. } = connection.expect("no task failed") else {
            unreachable!("it was waited for")
        };
        assert!(reason.contains("goes down") || reason.contains("drain"), "a viewer was told: {reason}");
        assert!(retry_in >= Duration::from_millis(500), "{retry_in:?}: nobody comes back before it is up");
        waits.insert(retry_in);
    }
    let spread = *waits.last().expect("waits") - *waits.first().expect("waits");
    assert!(spread >= Duration::from_millis(500), "all come back within {spread:?}");
    relay.start_again().await;
    fleet.acks(100).await;
    fleet.assert_history_holds(&relay).await;
}
