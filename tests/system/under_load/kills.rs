//! SIGKILL at random points under load.

use rand::{RngExt, SeedableRng, rngs::StdRng};

use super::{fleet::Fleet, process::RelayProcess};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p1_p2_p5_p9_p10_p12_forty_kills_under_load_lose_and_repeat_nothing() {
    kill_repeatedly(40).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "nightly: takes ten minutes"]
async fn p1_p2_p5_p9_p10_p12_five_hundred_kills_under_load_lose_and_repeat_nothing() {
    kill_repeatedly(500).await;
}

async fn kill_repeatedly(kills: usize) {
    let seed = rand::random();
    let mut random = StdRng::seed_from_u64(seed);
    let _alone = super::alone().await;
    let data = tempfile::tempdir().expect("a temporary folder");
    let mut relay = RelayProcess::start(data.path()).await;
    let mut fleet = Fleet::new(seed);
    fleet.produce(&relay, &relay.address, 6, 40);
    fleet.watch(&relay.client(), 12);
    for kill in 0..kills {
        // Now and then before anybody has come back.
        let acks = if random.random_bool(0.1) { 0 } else { random.random_range(1..120) };
        fleet.acks(acks).await;
        relay.assert_memory_bounded(12, 6);
        relay.kill9().await;
        eprintln!("kill {kill} after {acks} more acks, {} in all", fleet.acked());
        relay.start_again().await;
    }
    fleet.assert_history_holds(&relay).await;
}
