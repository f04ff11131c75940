//! A bad network between wrappers and relay, and between viewers and relay, one kind of weather after the other.

use std::time::Duration;

use super::{
    fleet::Fleet,
    process::RelayProcess,
    proxy::{Proxy, Weather},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p1_p2_p5_p9_p10_p14_a_bad_network_on_both_sides_loses_and_repeats_nothing() {
    let _alone = super::alone().await;
    let data = tempfile::tempdir().expect("a temporary folder");
    let relay = RelayProcess::start(data.path()).await;
    let (links, streams) = (Proxy::to(&relay.address).await, Proxy::to(&relay.address).await);
    let mut fleet = Fleet::new(rand::random());
    fleet.produce(&relay, &links.address, 4, 20);
    fleet.watch(&relay.client_at(&streams.address), 8);
    fleet.acks(50).await;
    for weather in [
        Weather::Chopped,
        Weather::Delayed(Duration::from_millis(30)),
        Weather::Throttled(100_000),
        Weather::Cut,
        Weather::HalfOpen,
        Weather::Corrupted,
    ] {
        eprintln!("{weather:?}");
        for proxy in [&links, &streams] {
            let before = proxy.passed();
            proxy.set(weather);
            match weather {
                Weather::Chopped | Weather::Delayed(_) | Weather::Throttled(_) => fleet.acks(40).await,
                // What is lost on the way is not acked; the agents go on.
                Weather::Cut | Weather::HalfOpen | Weather::Corrupted => fleet.acks_or_spooled(30).await,
                Weather::Flipped { .. } | Weather::Fair => {}
            }
            if matches!(weather, Weather::HalfOpen) {
                // An end that was left half open finds that out by its heartbeat; here it is told.
                proxy.set(Weather::Cut);
            }
            assert!(proxy.passed() >= before);
            proxy.set(Weather::Fair);
            fleet.acks(40).await;
        }
    }
    relay.assert_memory_bounded(8, 4);
    fleet.assert_history_holds(&relay).await;
}
