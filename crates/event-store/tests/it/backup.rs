//! Copies of a store, and what comes of them.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use gastown_event_store::{
    Append, AppendError, EventStore, OpenError, ProducerBatch, ReadLimit, SqliteOptions, SqliteStore, backup,
    restore, verify,
};
use protocol::{LogId, NewEvent, Seq, Timestamp, agent::EventsDropped};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_made_under_load_is_the_store_as_of_one_commit() {
    let directory = tempfile::tempdir().unwrap();
    let (path, copy) = (directory.path().join("events.db"), directory.path().join("copy.db"));
    let store = Arc::new(SqliteStore::open(&path, SqliteOptions::default()).unwrap());
    append(&store, 1..=2_000).await;
    let done = Arc::new(AtomicBool::new(false));
    let load = tokio::spawn({
        let (store, done) = (Arc::clone(&store), Arc::clone(&done));
        async move {
            let mut n = 2_000;
            while !done.load(Ordering::Relaxed) {
                n += 1;
                append(&store, n..=n).await;
            }
            n
        }
    });
    let (from, to) = (path.clone(), copy.clone());
    let steps = tokio::task::spawn_blocking(move || {
        let mut steps = Vec::new();
        backup(&from, &to, |done, of| steps.push((done, of))).unwrap();
        steps
    });
    let steps = steps.await.unwrap();
    done.store(true, Ordering::Relaxed);
    let appended = load.await.unwrap();
    assert!(steps.last().is_some_and(|(done, of)| done == of), "{steps:?}");

    let report = verify(&copy, |_, _| {}).unwrap();
    assert_eq!(report.findings, []);
    assert!((2_000..=appended).contains(&report.events), "{} of {appended}", report.events);
    let all = ReadLimit { events: usize::MAX, bytes: usize::MAX };
    let original = store.read(&log(), Seq::ZERO, all).await.unwrap().records;
    let copied = SqliteStore::open(&copy, SqliteOptions::default()).unwrap();
    let copied = copied.read(&log(), Seq::ZERO, all).await.unwrap().records;
    assert_eq!(copied.as_slice(), &original[..copied.len()]);
}

#[tokio::test]
async fn a_restored_log_has_another_epoch_and_everything_else_as_it_was() {
    let (directory, before, bounds) = lost_and_restored().await;
    let store = SqliteStore::open(directory.path().join("events.db"), SqliteOptions::default()).unwrap();
    let restored = store.bounds(&log()).await.unwrap();
    assert_ne!(restored.epoch, bounds.epoch);
    assert_eq!((restored.floor, restored.head), (bounds.floor, bounds.head));
    let page = store.read(&log(), Seq::ZERO, ReadLimit::default()).await.unwrap();
    assert_eq!(page.records, before);
    store.close().await;
    assert_eq!(verify(&directory.path().join("events.db"), |_, _| {}).unwrap().findings, []);
}

#[tokio::test]
async fn p5_a_producer_that_was_acked_beyond_the_copy_names_what_is_missing_and_goes_on() {
    let (directory, ..) = lost_and_restored().await;
    let store = SqliteStore::open(directory.path().join("events.db"), SqliteOptions::default()).unwrap();
    assert_eq!(store.producer(&log()).await.unwrap().unwrap().acked, 10);
    // It was acked through 15, and has 16 in its outbox.
    let next = numbered(16, vec![event(16)]);
    assert!(matches!(store.append(&log(), next).await, Err(AppendError::Hole { acked: 10, first: 16, .. })));
    let lost = EventsDropped { from: 11, to: 15, reason: "lost_by_relay".into() };
    let lost = NewEvent::of(Timestamp::from_unix_ms(0), "wrapper.events_dropped", &lost).unwrap();
    let appended = store.append(&log(), numbered(15, vec![lost, event(16)])).await.unwrap();
    assert_eq!((appended.appended, appended.acked), (2, 16));
    let stale = Append::of(vec![event(1)]).from_producer(ProducerBatch { generation: 0, ..producer(17) });
    assert!(matches!(store.append(&log(), stale).await, Err(AppendError::Fenced { .. })));
}

#[tokio::test]
async fn neither_a_copy_nor_a_store_is_overwritten() {
    let directory = tempfile::tempdir().unwrap();
    let (path, copy) = (directory.path().join("events.db"), directory.path().join("copy.db"));
    let store = SqliteStore::open(&path, SqliteOptions::default()).unwrap();
    append(&store, 1..=3).await;
    backup(&path, &copy, |_, _| {}).unwrap();
    assert!(matches!(backup(&path, &copy, |_, _| {}), Err(OpenError::Io { .. })));
    assert!(matches!(restore(&copy, &path, |_, _| {}), Err(OpenError::Locked { .. })));
    store.close().await;
    assert!(matches!(restore(&copy, &path, |_, _| {}), Err(OpenError::Io { .. })));
    let store = SqliteStore::open(&path, SqliteOptions::default()).unwrap();
    assert_eq!(store.bounds(&log()).await.unwrap().head, Seq::new(3));
}

#[tokio::test]
async fn what_a_broken_off_copy_left_is_in_nobodys_way() {
    let directory = tempfile::tempdir().unwrap();
    let (path, copy) = (directory.path().join("events.db"), directory.path().join("copy.db"));
    let store = SqliteStore::open(&path, SqliteOptions::default()).unwrap();
    append(&store, 1..=3).await;
    std::fs::write(directory.path().join("copy.db.part"), "half of").unwrap();
    backup(&path, &copy, |_, _| {}).unwrap();
    let files: Vec<_> =
        std::fs::read_dir(directory.path()).unwrap().map(|file| file.unwrap().file_name()).collect();
    assert!(!files.iter().any(|name| name.to_string_lossy().ends_with(".part")), "{files:?}");
    assert_eq!(verify(&copy, |_, _| {}).unwrap().events, 3);
}

/// A store of ten numbered events that was copied, went on, was lost and restored; with what it had at the copy.
async fn lost_and_restored()
-> (tempfile::TempDir, Vec<gastown_event_store::Record>, gastown_event_store::Bounds) {
    let directory = tempfile::tempdir().unwrap();
    let (path, copy) = (directory.path().join("events.db"), directory.path().join("copy.db"));
    let store = SqliteStore::open(&path, SqliteOptions::default()).unwrap();
    store.append(&log(), numbered(1, (1..=10).map(event).collect())).await.unwrap();
    let page = store.read(&log(), Seq::ZERO, ReadLimit::default()).await.unwrap();
    backup(&path, &copy, |_, _| {}).unwrap();
    store.append(&log(), numbered(11, (11..=15).map(event).collect())).await.unwrap();
    store.close().await;
    std::fs::remove_file(&path).unwrap();
    restore(&copy, &path, |_, _| {}).unwrap();
    (directory, page.records, page.bounds)
}

async fn append(store: &SqliteStore, numbers: std::ops::RangeInclusive<u64>) {
    store.append(&log(), Append::of(numbers.map(event).collect())).await.unwrap();
}

fn numbered(first: u64, events: Vec<NewEvent>) -> Append {
    Append::of(events).from_producer(producer(first))
}

fn producer(first: u64) -> ProducerBatch {
    ProducerBatch { producer: "p1".parse().unwrap(), generation: 3, first }
}

fn event(n: u64) -> NewEvent {
    NewEvent::of(Timestamp::from_unix_ms(0), "file.edited", &n).unwrap()
}

fn log() -> LogId {
    "town/t".parse().unwrap()
}
