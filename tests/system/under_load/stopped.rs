//! SIGSTOP: a relay that does nothing for a while, and a viewer that reads nothing.

use std::{collections::BTreeSet, process::Stdio};

use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::Command,
    time::timeout,
};

use super::{fleet::Fleet, process::RelayProcess};
use crate::support::{server::PATIENCE, viewer::stored};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p2_p5_p14_a_relay_that_was_stopped_goes_on() {
    let _alone = super::alone().await;
    let data = tempfile::tempdir().expect("a temporary folder");
    let relay = RelayProcess::start(data.path()).await;
    let mut fleet = Fleet::new(rand::random());
    fleet.produce(&relay, &relay.address, 4, 20);
    fleet.watch(&relay.client(), 8);
    for _ in 0..3 {
        fleet.acks(100).await;
        relay.signal(Signal::STOP);
        fleet.spooled(60).await;
        relay.signal(Signal::CONT);
    }
    fleet.acks(100).await;
    fleet.assert_history_holds(&relay).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p2_p8_p12_a_viewer_that_is_stopped_costs_nobody_anything_and_gets_everything() {
    let _alone = super::alone().await;
    let data = tempfile::tempdir().expect("a temporary folder");
    let relay = RelayProcess::start(data.path()).await;
    let mut fleet = Fleet::new(rand::random());
    fleet.produce(&relay, &relay.address, 1, 200);
    fleet.watch(&relay.client(), 4);
    fleet.acks(200).await;
    let log = fleet.logs()[0].clone();
    let token = relay.service_token();
    let mut curl = Command::new("curl")
        .args(["--silent", "--no-buffer", "--header", "Accept: text/event-stream", "--header"])
        .arg(format!("Authorization: Bearer {token}"))
        .arg(format!("http://{}/v1/agents/{}/events", relay.address, log.agent().expect("an agent's")))
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("curl is there");
    let mut lines = BufReader::new(curl.stdout.take().expect("it is piped")).lines();
    let pid = Pid::from_raw(i32::try_from(curl.id().expect("it runs")).expect("a pid")).expect("a pid");
    let first = timeout(PATIENCE, lines.next_line()).await.expect("the stream begins").expect("a line");
    assert!(first.is_some());
    kill_process(pid, Signal::STOP).expect("curl is there");
    // The others are given everything meanwhile, and the relay keeps nothing for the one that does not read.
    fleet.acks(8_000).await;
    relay.assert_memory_bounded(5, 1);
    kill_process(pid, Signal::CONT).expect("curl is there");

    let client = relay.client();
    fleet.quiet().await;
    let history = stored(&client, &log).await;
    let mut missing: BTreeSet<u64> = history.stored.iter().map(|event| event.seq.get()).collect();
    let mut last = 0;
    let reading = async {
        while missing.len() > 1 || missing.first().is_some_and(|seq| *seq > last) {
            let line = lines.next_line().await.expect("a line").expect("the stream goes on");
            let Some(id) = line.strip_prefix("id:") else { continue };
            let Some((_, seq)) = id.trim().rsplit_once(':') else { continue };
            let seq: u64 = seq.parse().expect("a position");
            assert!(seq > last, "{seq} after {last}");
            last = seq;
            missing.remove(&seq);
            if missing.is_empty() {
                return;
            }
        }
    };
    let all = timeout(PATIENCE, reading).await;
    assert!(all.is_ok(), "{} events were not given, the stream is at {last}", missing.len());
    fleet.assert_history_holds(&relay).await;
}
