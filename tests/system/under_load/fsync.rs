//! The order of system calls: SIGKILL does not show a missing fsync, since the kernel keeps what was written.

use std::fs;

use rustix::process::Signal;

use super::{fleet::Fleet, process::RelayProcess};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p1_p4_a_sync_comes_before_each_ack_and_before_each_event_that_is_shown() {
    let _alone = super::alone().await;
    let data = tempfile::tempdir().expect("a temporary folder");
    let trace = data.path().join("strace");
    let path = trace.to_str().expect("UTF-8");
    let calls = "trace=fsync,fdatasync,write,writev,sendto,sendmsg";
    let strace = ["strace", "-f", "-qq", "-s", "65536", "-e", calls, "-o", path];
    let mut relay = RelayProcess::start_under(&strace, data.path()).await;
    let mut fleet = Fleet::new(rand::random());
    // One event at a time: what one ack or delivery speaks of, one sync has to have made safe.
    fleet.produce(&relay, &relay.address, 1, 1);
    // Once the log is there: a viewer that comes before it looks again after a while, and may see all at once.
    fleet.acks(1).await;
    fleet.watch(&relay.client(), 1);
    fleet.acks(60).await;
    fleet.assert_history_holds(&relay).await;
    relay.signal(Signal::TERM);
    relay.ended().await;
    let calls = fs::read_to_string(trace).expect("strace wrote it");
    assert_order(&calls);
}

/// Every ack, and every event that is shown, has a sync of its own before it: there is one event to a commit.
fn assert_order(calls: &str) {
    let (mut syncs, mut acks, mut shown) = (0_u64, 0_u64, 0_u64);
    for call in calls.lines() {
        if is_finished_sync(call) {
            syncs += 1;
        }
        // A frame may be the second half of an interrupted call: its text stands in the first.
        acks += call.matches(r#"\"type\":\"ack\""#).count() as u64;
        if call.contains(r#"\"type\":\"events\""#) {
            let numbers = call.split(r#"\"seq\":"#).skip(1);
            let newest = numbers.filter_map(|rest| rest.split(',').next()?.parse().ok()).max();
            shown = shown.max(newest.unwrap_or(0));
        }
        assert!(acks <= syncs, "ack {acks} left after {syncs} syncs: {call}");
        assert!(shown <= syncs, "event {shown} was shown after {syncs} syncs: {call}");
    }
    assert!(acks >= 20 && shown >= 20 && syncs >= acks, "{acks} acks, {shown} shown, {syncs} syncs");
}

/// `fdatasync(7) = 0`, or the end of one that was interrupted in the trace by other threads.
fn is_finished_sync(call: &str) -> bool {
    (call.contains("sync(") || call.contains("sync resumed")) && call.trim_end().ends_with("= 0")
}
