//! Many viewers of one agent, who come at different times and reconnect at random: all end with the same fold.

use std::sync::Arc;

use protocol::{Seq, frame::StartAt};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde_json::json;
use tokio::{sync::watch, task::JoinSet};

use crate::{
    oracle::shown,
    support::{
        server::{Gastown, log_of},
        viewer::Viewer,
    },
};

const VIEWERS: usize = 100;

/// What the first viewer says when the agent is through.
const OVER: Seq = Seq::new(u64::MAX);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p2_p9_p10_a_hundred_viewers_end_with_the_same_fold() {
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let gastown = Arc::new(Gastown::up(&[]).await);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let recording = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/crates/event-protocol/tests/recordings/opencode-1.18.33/c_tools.jsonl"
    );
    let agent = gastown
        .start_agent(json!({
            "name": "Toast", "role": "polecat", "directory": folder.path(), "start": true,
            "runtime": { "kind": "replay", "recording": recording, "speed": "8" },
        }))
        .await;

    // The first viewer paces the others: they join, and reconnect, at positions that it has reached.
    let (reached, position) = watch::channel(Seq::ZERO);
    let mut others = JoinSet::new();
    for n in 0..VIEWERS {
        let (gastown, agent, mut position) = (Arc::clone(&gastown), agent.clone(), position.clone());
        let mut random = StdRng::seed_from_u64(seed.wrapping_add(n as u64));
        others.spawn(async move {
            let join_at = Seq::new(random.random_range(0..120));
            position.wait_for(|seq| *seq >= join_at).await.expect("the first viewer goes on");
            let mut viewer = Viewer::of(&gastown.client(), log_of(&agent));
            if n % 2 == 0 {
                for _ in 0..random.random_range(1..6) {
                    let until = Seq::new(viewer.view.seq().get() + random.random_range(1..40));
                    let reached =
                        *position.wait_for(|seq| *seq >= until).await.expect("the first viewer goes on");
                    if reached == OVER {
                        break;
                    }
                    viewer.until_seq(until).await;
                    viewer.reconnect();
                }
            }
            position.wait_for(|seq| *seq == OVER).await.expect("the first viewer says when it is over");
            viewer
        });
    }
    let mut first = Viewer::of(&gastown.client(), log_of(&agent));
    loop {
        let event = first.until_event("the recording goes on", |_| true).await;
        reached.send_replace(event.seq);
        if event.kind.as_ref() == "agent.done" || event.kind.as_ref() == "agent.exited" {
            break;
        }
    }
    let head = first.view.seq();
    reached.send_replace(OVER);

    let mut viewers = vec![first];
    while let Some(viewer) = others.join_next().await {
        let mut viewer = viewer.expect("no viewer failed");
        viewer.until_seq(head).await;
        viewers.push(viewer);
    }
    assert_eq!(viewers.len(), VIEWERS + 1);
    let expected = shown(&viewers[0].view);
    for viewer in &viewers {
        assert_eq!(shown(&viewer.view), expected, "seed {seed}");
    }
    Viewer::assert_history_holds(&gastown.client(), viewers).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p3_a_cursor_ahead_of_the_log_is_told_so() {
    let gastown = Gastown::up(&[]).await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let agent = gastown
        .start_agent(json!({
            "name": "Toast", "role": "polecat", "directory": folder.path(), "runtime": { "kind": "opencode" },
        }))
        .await;
    let mut honest = Viewer::of(&gastown.client(), log_of(&agent));
    honest.until("the registration is in the log", |view| view.seq() > Seq::ZERO).await;
    let epoch = honest.epoch().expect("it is subscribed");
    let ahead = StartAt::After(protocol::Cursor { epoch, seq: Seq::new(1_000_000) });
    let mut viewer = Viewer::after(&gastown.client(), log_of(&agent), Some(ahead));
    viewer.until_gap(protocol::frame::GapReason::Ahead).await;
    let other = protocol::Cursor { epoch: protocol::Epoch::new("another"), seq: Seq::new(1) };
    let mut viewer = Viewer::after(&gastown.client(), log_of(&agent), Some(StartAt::After(other)));
    viewer.until_gap(protocol::frame::GapReason::Epoch).await;
}
