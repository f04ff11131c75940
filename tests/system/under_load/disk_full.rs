//! A disk that is full.

use std::fs;

use protocol::{ErrorCode, NewEvent};
use relay::RelayApi as _;

use super::{fleet::Fleet, process::RelayProcess};
use crate::support::{small_disk::SmallDisk, viewer::stored};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p1_p2_p14_a_full_disk_refuses_serves_reads_and_recovers_alone() {
    let _alone = super::alone().await;
    let disk = SmallDisk::mount(24);
    let relay = RelayProcess::start(disk.path()).await;
    let mut fleet = Fleet::new(rand::random());
    fleet.produce(&relay, &relay.address, 3, 20);
    fleet.watch(&relay.client(), 6);
    fleet.acks(200).await;
    let ballast = disk.fill();
    // What has room in the files that are there already is taken; then nothing is.
    let log = fleet.logs()[0].clone();
    let client = relay.client();
    let refused = loop {
        let text = "x".repeat(16 * 1024);
        let event = NewEvent::of(relay::server::now(), "file.edited", &text).expect("a text serialises");
        if let Err(error) = client.append(&log, vec![event]).await {
            break error;
        }
    };
    assert_eq!(refused.code(), Some(ErrorCode::StoreFull), "{refused:?}");
    assert!(refused.is_retryable());
    fleet.spooled(30).await;
    let acked = fleet.acked();
    let kept = stored(&client, &log).await;
    assert!(!kept.stored.is_empty(), "reads are served");
    assert_eq!(fleet.acked(), acked, "nothing is acked that is not kept");
    fs::remove_file(ballast).expect("it is ours");
    fleet.acks(200).await;
    fleet.assert_history_holds(&relay).await;
}
