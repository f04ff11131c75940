use std::path::Path;

use futures_util::FutureExt as _;
use protocol::{RawData, Timestamp, limits};

use super::*;

#[tokio::test]
async fn p7_a_restart_keeps_the_producer_the_numbers_and_what_waits() {
    let dir = tempfile::tempdir().unwrap();
    let outbox = open(dir.path(), OutboxLimits::default());
    let producer = outbox.producer().clone();
    outbox.push(vec![delta(1), delta(2), outcome(3)]).await.unwrap();
    outbox.ack(2).await.unwrap();
    outbox.close().await;
    let outbox = open(dir.path(), OutboxLimits::default());
    assert_eq!(*outbox.producer(), producer);
    assert_eq!(outbox.pending().await.unwrap(), [(3, outcome(3))]);
    let progress = *outbox.progress().borrow();
    assert_eq!((progress.next, progress.acked, progress.events), (4, 2, 1));
}

#[tokio::test]
async fn numbers_go_on_when_everything_was_acked_before_the_restart() {
    let dir = tempfile::tempdir().unwrap();
    for round in 0..3 {
        let outbox = open(dir.path(), OutboxLimits { segment_bytes: 1, ..OutboxLimits::default() });
        outbox.push(vec![delta(round), delta(round)]).await.unwrap();
        outbox.ack(2 * (round + 1)).await.unwrap();
        outbox.close().await;
    }
    let outbox = open(dir.path(), OutboxLimits::default());
    assert_eq!(*outbox.progress().borrow(), Progress { next: 7, acked: 6, events: 0, bytes: 0 });
}

#[tokio::test(start_paused = true)]
async fn an_outbox_without_a_thread_takes_no_time_and_leaves_what_any_other_reads() {
    let dir = tempfile::tempdir().unwrap();
    let began = tokio::time::Instant::now();
    let outbox = Outbox::open_in_task(dir.path(), OutboxLimits::default()).unwrap();
    outbox.push(vec![delta(1), outcome(2)]).await.unwrap();
    outbox.ack(1).await.unwrap();
    outbox.close().await;
    assert_eq!(began.elapsed(), Duration::ZERO);
    let outbox = open(dir.path(), OutboxLimits::default());
    assert_eq!(outbox.pending().await.unwrap(), [(2, outcome(2))]);
}

#[tokio::test]
async fn a_piece_of_text_is_written_sent_and_acked_without_waking_a_thread() {
    let dir = tempfile::tempdir().unwrap();
    let outbox = open(dir.path(), OutboxLimits::default());
    outbox.push(vec![delta(1)]).now_or_never().unwrap().unwrap();
    let batch = outbox.pending_after(0, 8, usize::MAX).now_or_never().unwrap().unwrap().unwrap();
    assert_eq!(batch.events, [delta(1)]);
    outbox.ack(1).now_or_never().unwrap().unwrap();
    assert_eq!(outbox.progress().borrow().acked, 1);
}

#[tokio::test]
async fn what_was_begun_is_written_though_nobody_waits_for_it() {
    let dir = tempfile::tempdir().unwrap();
    let outbox = open(dir.path(), OutboxLimits::default());
    let _ = outbox.push(vec![outcome(1)]).now_or_never();
    assert_eq!(outbox.pending().await.unwrap(), [(1, outcome(1))]);
}

#[tokio::test]
async fn a_batch_is_read_back_as_it_was_pushed() {
    let dir = tempfile::tempdir().unwrap();
    let outbox = open(dir.path(), OutboxLimits::default());
    let events: Vec<_> = (1..=5).map(delta).collect();
    outbox.push(events.clone()).await.unwrap();
    let batch = outbox.pending_after(1, 3, usize::MAX).await.unwrap().unwrap();
    assert_eq!((batch.first, &batch.events[..]), (2, &events[1..4]));
    assert_eq!(outbox.pending_after(5, 3, usize::MAX).await.unwrap(), None);
}

#[tokio::test]
async fn p6_a_full_outbox_that_no_ack_will_come_to_holds_nobody_back() {
    let dir = tempfile::tempdir().unwrap();
    let outbox = open(dir.path(), small(Duration::from_secs(3_600)));
    let fill = async {
        for n in 1..=40 {
            outbox.push(vec![delta(n)]).await.unwrap();
        }
    };
    let full = async {
        outbox.progress().wait_for(|progress| progress.bytes > 1_500).await.unwrap();
        outbox.expect_no_acks();
    };
    let filled = async { tokio::join!(fill, full) };
    tokio::time::timeout(Duration::from_secs(30), filled).await.expect("it does not wait");
}

#[tokio::test]
async fn p7_a_full_outbox_waits_for_an_ack() {
    let dir = tempfile::tempdir().unwrap();
    let outbox = open(dir.path(), small(Duration::from_secs(600)));
    outbox.push((1..=12).map(delta).collect()).await.unwrap();
    let pushing = tokio::spawn({
        let outbox = outbox.clone();
        async move { outbox.push((13..=22).map(delta).collect()).await }
    });
    tokio::task::yield_now().await;
    assert!(!pushing.is_finished());
    outbox.ack(10).await.unwrap();
    pushing.await.unwrap().unwrap();
    let numbers: Vec<_> = outbox.pending().await.unwrap().into_iter().map(|(number, _)| number).collect();
    assert_eq!(numbers, (11..=22).collect::<Vec<_>>(), "nothing was dropped");
}

#[tokio::test]
async fn p7_an_outbox_that_stays_full_drops_deltas_names_them_and_keeps_outcomes() {
    let dir = tempfile::tempdir().unwrap();
    let outbox = open(dir.path(), small(Duration::ZERO));
    for n in 0..40 {
        outbox.push(vec![delta(3 * n + 1), delta(3 * n + 2), outcome(3 * n + 3)]).await.unwrap();
    }
    let pending = outbox.pending().await.unwrap();
    outbox.close().await;
    let outbox = open(dir.path(), small(Duration::ZERO));
    assert_eq!(outbox.pending().await.unwrap(), pending, "a drop survives a restart");
    let outcomes = pending.iter().filter(|(_, event)| &*event.kind == "agent.exited").count();
    assert_eq!(outcomes, 40);
    let mut expected = 1;
    for (number, event) in &pending {
        let from = match event.data.parse::<protocol::agent::EventsDropped>() {
            Ok(dropped) if &*event.kind == "wrapper.events_dropped" => {
                assert_eq!((dropped.to, &*dropped.reason), (*number, "outbox_full"));
                dropped.from
            }
            _ => *number,
        };
        assert_eq!(from, expected, "every number is there or named");
        expected = number + 1;
    }
    assert_eq!(expected, 121);
}

#[tokio::test]
async fn p20_an_event_that_no_relay_takes_is_named_instead_of_stopping_the_rest() {
    let dir = tempfile::tempdir().unwrap();
    let outbox = open(dir.path(), OutboxLimits::default());
    let data = |json: String| NewEvent { data: RawData::from_json(json).unwrap(), ..delta(0) };
    let string = |len: usize| data(format!("\"{}\"", "x".repeat(len - 2)));
    let nested = |depth: usize| data(format!("{}{}", "[".repeat(depth), "]".repeat(depth)));
    let most = limits::EVENT_DATA_HARD_BYTES;
    outbox.push(vec![string(most), string(most + 1), nested(125), nested(126)]).await.unwrap();
    let kinds: Vec<_> = outbox.pending().await.unwrap().into_iter().map(|(_, event)| event.kind).collect();
    let (kept, named) = ("message.part.delta".into(), "wrapper.events_dropped".into());
    assert_eq!(kinds, [&kept, &named, &kept, &named].map(std::sync::Arc::clone));
}

#[tokio::test]
async fn p7_a_damaged_record_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let outbox = open(dir.path(), OutboxLimits::default());
    outbox.push((1..=3).map(delta).collect()).await.unwrap();
    outbox.close().await;
    let path = dir.path().join(format!("{:020}.seg", 1));
    let mut bytes = std::fs::read(&path).unwrap();
    let at = bytes.windows(8).position(|window| window == b"\"text 2\"").unwrap();
    bytes[at + 1] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let outbox = open(dir.path(), OutboxLimits::default());
    let pending = outbox.pending().await.unwrap();
    assert_eq!((&pending[0], &pending[2]), (&(1, delta(1)), &(3, delta(3))));
    assert_eq!(pending[1].1.data.json(), r#"{"from":2,"to":2,"reason":"damaged"}"#);
}

#[tokio::test]
async fn p5_an_event_that_is_on_the_disk_twice_has_one_number() {
    let dir = tempfile::tempdir().unwrap();
    let outbox = open(dir.path(), OutboxLimits::default());
    outbox.push(vec![delta(1)]).await.unwrap();
    let path = dir.path().join(format!("{:020}.seg", 1));
    let before = std::fs::read(&path).unwrap().len();
    outbox.push(vec![outcome(2)]).await.unwrap();
    outbox.close().await;
    // As if its sync had failed, and it had been pushed again.
    let mut bytes = std::fs::read(&path).unwrap();
    bytes.extend_from_within(before..);
    std::fs::write(&path, bytes).unwrap();
    let outbox = open(dir.path(), OutboxLimits::default());
    assert_eq!(outbox.pending().await.unwrap(), [(1, delta(1)), (2, outcome(2))]);
    assert_eq!(outbox.progress().borrow().next, 3);
}

#[tokio::test]
async fn a_closed_outbox_says_so_and_gives_its_folder_free() {
    let dir = tempfile::tempdir().unwrap();
    let outbox = open(dir.path(), OutboxLimits::default());
    outbox.clone().close().await;
    assert!(matches!(outbox.push(vec![delta(1)]).await, Err(OutboxError::Closed)));
    assert!(Outbox::open(dir.path(), OutboxLimits::default()).is_ok());
}

fn open(dir: &Path, limits: OutboxLimits) -> Outbox {
    Outbox::open(dir, limits).unwrap()
}

/// Room for about 16 events.
fn small(patience: Duration) -> OutboxLimits {
    OutboxLimits { bytes: 2_000, segment_bytes: 700, patience, ..OutboxLimits::default() }
}

fn delta(n: u64) -> NewEvent {
    event("message.part.delta", n)
}

fn outcome(n: u64) -> NewEvent {
    event("agent.exited", n)
}

fn event(kind: &str, n: u64) -> NewEvent {
    NewEvent::of(Timestamp::from_unix_ms(0), kind, &format!("text {n}")).unwrap()
}
