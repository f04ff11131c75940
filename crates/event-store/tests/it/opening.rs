//! What [`SqliteStore::open`] refuses, and what a closed or full store says.

use std::{fs, path::Path};

use gastown_event_store::{
    Append, AppendError, Durability, EventStore, OpenError, ReadError, ReadLimit, Retention, RetentionPolicy,
    SqliteOptions, SqliteStore, StoreError,
};
use protocol::{LogId, NewEvent, Seq, Timestamp};

#[test]
fn a_second_opener_is_refused_until_the_first_is_gone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("events.db");
    let first = open(&path).unwrap();
    assert!(matches!(open(&path), Err(OpenError::Locked { .. })));
    drop(first);
    open(&path).unwrap();
}

#[cfg(unix)]
#[test]
fn a_link_to_a_store_has_the_same_lock() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("events.db");
    let link = directory.path().join("link.db");
    let _first = open(&path).unwrap();
    std::os::unix::fs::symlink(&path, &link).unwrap();
    assert!(matches!(open(&link), Err(OpenError::Locked { .. })));
}

#[cfg(unix)]
#[test]
fn the_database_is_readable_by_its_owner_only() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("events.db");
    let _store = open(&path).unwrap();
    for name in ["events.db", "events.db-wal"] {
        let mode = fs::metadata(directory.path().join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{name} has mode {mode:o}");
    }
}

#[test]
fn a_file_that_is_no_database_is_refused_and_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("events.db");
    for text in
        ["x", "dear diary, today I wrote a text file that is longer than a header", "SQLite format 2\0....."]
    {
        fs::write(&path, text).unwrap();
        assert!(matches!(open(&path), Err(OpenError::NotAStore { .. })), "{text}");
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
    }
}

#[test]
fn a_database_of_another_application_is_refused_and_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("events.db");
    let foreign = rusqlite::Connection::open(&path).unwrap();
    foreign.execute_batch("CREATE TABLE recipes (name TEXT)").unwrap();
    drop(foreign);
    let before = fs::read(&path).unwrap();
    assert!(matches!(open(&path), Err(OpenError::NotAStore { .. })));
    assert_eq!(fs::read(&path).unwrap(), before);
}

#[test]
fn a_newer_schema_is_refused_by_name() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("events.db");
    drop(open(&path).unwrap());
    rusqlite::Connection::open(&path).unwrap().execute_batch("PRAGMA user_version = 7").unwrap();
    match open(&path) {
        Err(OpenError::NewerSchema { found: 7, supported: 2, .. }) => {}
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_truncated_database_is_refused_wherever_it_ends() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("events.db");
    let store = open(&path).unwrap();
    for n in 0..20 {
        store.append(&log(), Append::of(events(n * 100..n * 100 + 100))).await.unwrap();
    }
    drop(store);
    let whole = fs::read(&path).unwrap();
    for len in [17, 99, 4_000, 4_096, 8_192, whole.len() / 2, whole.len() - 4_096, whole.len() - 1] {
        fs::write(&path, &whole[..len]).unwrap();
        let refused = open(&path);
        assert!(
            matches!(refused, Err(OpenError::Damaged { .. } | OpenError::NotAStore { .. })),
            "{len}: {refused:?}"
        );
    }
    fs::write(&path, &whole).unwrap();
    assert_eq!(open(&path).unwrap().bounds(&log()).await.unwrap().head, Seq::new(2_000));
}

#[test]
fn an_empty_file_becomes_a_store() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("events.db");
    fs::write(&path, "").unwrap();
    open(&path).unwrap();
}

#[test]
fn a_missing_folder_is_an_error_that_names_the_path() {
    let directory = tempfile::tempdir().unwrap();
    let error = open(&directory.path().join("nowhere/events.db")).unwrap_err();
    assert!(matches!(error, OpenError::Io { .. }));
    assert!(error.to_string().contains("nowhere/events.db"), "{error}");
}

#[tokio::test]
async fn closing_finishes_what_is_queued_and_ends_tails() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("events.db");
    let store = std::sync::Arc::new(open(&path).unwrap());
    let mut tail = store.tail(&log());
    let mut appends = tokio::task::JoinSet::new();
    for n in 0..50 {
        let store = std::sync::Arc::clone(&store);
        appends.spawn(async move { store.append(&log(), Append::of(events(n..n + 1))).await });
    }
    tokio::task::yield_now().await;
    store.close().await;
    let mut committed = 0;
    while let Some(done) = appends.join_next().await {
        match done.unwrap() {
            Ok(_) => committed += 1,
            Err(AppendError::Store(StoreError::Closed { .. })) => {}
            Err(error) => panic!("{error}"),
        }
    }
    while tail.changed().await.is_some() {}
    let refused = store.read(&log(), Seq::ZERO, ReadLimit::default()).await;
    assert!(matches!(refused, Err(ReadError::Store(StoreError::Closed { .. }))), "{refused:?}");
    let reopened = open(&path).unwrap();
    let kept = reopened.list().await.unwrap().first().map_or(0, |summary| summary.events);
    assert_eq!(kept, committed);
}

#[tokio::test]
async fn a_full_disk_refuses_the_append_and_takes_the_next_that_fits() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("events.db");
    let options = SqliteOptions::default().with_max_bytes(1024 * 1024).with_journal_bytes(64 * 1024);
    let unbounded = RetentionPolicy { agent: Retention::UNBOUNDED, town: Retention::UNBOUNDED };
    let store = SqliteStore::open(&path, options.with_retention(unbounded)).unwrap();
    let mut acked = 0;
    let refused = loop {
        match store.append(&log(), Append::of(events(acked..acked + 10))).await {
            Ok(_) => acked += 10,
            Err(error) => break error,
        }
    };
    assert!(
        matches!(refused, AppendError::Store(StoreError::Full { .. })) && refused.is_retryable(),
        "{refused:?}"
    );
    assert!(acked > 1_000, "{acked}");
    let page = store.read(&log(), Seq::ZERO, everything()).await.unwrap();
    assert_eq!((page.records.len() as u64, page.bounds.head.get()), (acked, acked));
    assert_eq!(store.tail(&log()).head().map(|head| head.seq.get()), Some(acked));
    let other: LogId = "agent/other".parse().unwrap();
    let refused = store.append(&other, Append::of(events(0..1_000))).await;
    assert!(matches!(refused, Err(AppendError::Store(StoreError::Full { .. }))), "{refused:?}");
    assert!(matches!(store.bounds(&other).await, Err(ReadError::UnknownLog { .. })));
    store.remove(&log()).await.unwrap();
    assert_eq!(store.append(&other, Append::of(events(0..1_000))).await.unwrap().head, Seq::new(1_000));
}

#[tokio::test]
async fn figures_say_what_was_done() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("events.db");
    let retention = Retention { events: 50, ..Retention::AGENT };
    let policy = RetentionPolicy { agent: retention, town: Retention::UNBOUNDED };
    let options = SqliteOptions::default().with_journal_bytes(0).with_retention(policy);
    let store = SqliteStore::open(&path, options).unwrap();
    for n in 0..3 {
        store.append(&log(), Append::of(events(n * 20..n * 20 + 20))).await.unwrap();
    }
    let figures = store.figures();
    assert_eq!((figures.logs, figures.events, figures.commits), (1, 50, 3));
    assert_eq!((figures.appended, figures.pruned, figures.compacted, figures.corrupt), (60, 10, 0, 0));
    assert_eq!(figures.filed, 40, "what the first two commits wrote");
    assert!(
        figures.bytes > figures.wal_bytes && figures.wal_bytes > 0 && figures.commit_nanos > 0,
        "{figures:?}"
    );
}

#[tokio::test]
async fn the_write_ahead_log_stays_bounded_and_a_reader_in_its_way_stalls_nobody() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("events.db");
    let retention = Retention { events: 5, ..Retention::AGENT };
    let policy = RetentionPolicy { agent: retention, town: Retention::UNBOUNDED };
    let options = SqliteOptions::default().with_durability(Durability::Normal).with_retention(policy);
    let store = SqliteStore::open(&path, options).unwrap();
    let large = NewEvent::of(Timestamp::from_unix_ms(0), "file.edited", &"x".repeat(1_000_000)).unwrap();
    // The log is copied beside the appends, so how many there are meanwhile is a matter of the machine.
    let copied_twice = async || {
        let copied = store.figures().checkpoints + 2;
        for _ in 0..5_000 {
            let is_copied = store.figures().checkpoints >= copied;
            store.append(&log(), Append::of(vec![large.clone()])).await.unwrap();
            if is_copied {
                return store.figures();
            }
        }
        panic!("it is not copied: {:?}", store.figures());
    };
    let before = copied_twice().await;
    assert!(before.wal_bytes < 80_000_000, "{before:?}");
    let reader = rusqlite::Connection::open(&path).unwrap();
    reader.execute_batch("BEGIN; SELECT * FROM logs;").unwrap();
    let with_reader = copied_twice().await;
    assert!(with_reader.wal_bytes > before.wal_bytes, "{with_reader:?}");
    // One that waited for the reader would take five seconds.
    let checkpoints = with_reader.checkpoints - before.checkpoints;
    assert!((with_reader.checkpoint_nanos - before.checkpoint_nanos) / checkpoints < 4_000_000_000);
    drop(reader);
    assert!(copied_twice().await.wal_bytes < 80_000_000);
}

fn open(path: &Path) -> Result<SqliteStore, OpenError> {
    SqliteStore::open(path, SqliteOptions::default())
}

fn everything() -> ReadLimit {
    ReadLimit { events: usize::MAX, bytes: usize::MAX }
}

fn log() -> LogId {
    "agent/a1".parse().unwrap()
}

fn events(numbers: std::ops::Range<u64>) -> Vec<NewEvent> {
    let event = |n| NewEvent::of(Timestamp::from_unix_ms(0), "file.edited", &format!("{n:0>200}")).unwrap();
    numbers.map(event).collect()
}
