//! Damage to the stored bytes: reported, never served.

use std::{fs, path::Path};

use gastown_event_store::{
    Append, AppendError, EventStore, OpenError, ReadError, ReadLimit, Record, RetentionPolicy, Snapshot,
    SqliteOptions, SqliteStore, StoreError,
};
use protocol::{LogId, NewEvent, RawData, Seq, Timestamp};

#[tokio::test]
async fn p11_every_damaged_column_is_reported_and_what_is_around_it_is_served() {
    let columns = [
        ("envelope", "replace(envelope, 'mark-7', 'mark-8')"),
        ("envelope", "CAST('' AS BLOB)"),
        ("envelope", "17"),
        ("kind", "'message.removed'"),
        ("kind", "CAST(x'ff' AS TEXT)"),
        ("key", "'part/m1/other'"),
        ("key", "NULL"),
        ("session", "'s2'"),
        ("session", "NULL"),
        ("crc", "crc + 1"),
        ("crc", "crc | 4294967296"),
    ];
    for (column, value) in columns {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("events.db");
        fill(&path).await;
        let changed = execute(&path, &format!("UPDATE events_1 SET {column} = {value} WHERE seq = 7"));
        assert_eq!(changed, 1);
        let store = open(&path).unwrap();
        let before = store.read(&log(), Seq::ZERO, limit(1_000)).await.unwrap();
        assert_eq!((before.records.len(), before.more), (6, true), "{column} = {value}");
        match store.read(&log(), Seq::new(6), limit(1_000)).await {
            Err(ReadError::Corrupt { log: found, seq }) => assert_eq!((found, seq.get()), (log(), 7)),
            other => panic!("{column} = {value}: {other:?}"),
        }
        let after = store.read(&log(), Seq::new(7), limit(1_000)).await.unwrap();
        assert_eq!((after.records.len(), after.more), (33, false), "{column} = {value}");
        assert_eq!(store.append(&log(), Append::of(vec![event(41)])).await.unwrap().head, Seq::new(41));
    }
}

#[tokio::test]
async fn p11_an_event_moved_to_another_log_is_reported() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("events.db");
    fill(&path).await;
    execute(
        &path,
        "UPDATE events_1 SET envelope = (SELECT envelope FROM events_1 e WHERE e.seq = 9) WHERE seq = 8",
    );
    execute(&path, "DELETE FROM events_2 WHERE seq = 3");
    execute(&path, "INSERT INTO events_2 SELECT * FROM events_1 WHERE seq = 3");
    let store = open(&path).unwrap();
    for (log, seq) in [(log(), 8), (other_log(), 3)] {
        let read = store.read(&log, Seq::new(seq - 1), limit(1)).await;
        assert!(matches!(read, Err(ReadError::Corrupt { seq: found, .. }) if found.get() == seq), "{read:?}");
    }
}

#[tokio::test]
async fn p11_an_event_that_vanished_is_reported_to_readers_and_producers() {
    for change in ["DELETE FROM events_1 WHERE seq = 5", "UPDATE events_1 SET seq = 70 WHERE seq = 5"] {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("events.db");
        fill(&path).await;
        execute(&path, change);
        let store = open(&path).unwrap();
        let read = store.read(&log(), Seq::ZERO, limit(1_000)).await;
        assert!(matches!(read, Err(ReadError::Store(StoreError::Backend { .. }))), "{change}: {read:?}");
        let append = store.append(&log(), Append::of(vec![event(41)])).await;
        assert!(
            matches!(append, Err(AppendError::Store(StoreError::Backend { .. }))),
            "{change}: {append:?}"
        );
        assert_eq!(store.read(&other_log(), Seq::ZERO, limit(1_000)).await.unwrap().records.len(), 40);
        store.remove(&log()).await.unwrap();
        assert_eq!(store.append(&log(), Append::of(vec![event(1)])).await.unwrap().head, Seq::new(1));
    }
}

/// Single bits anywhere in the file: whatever is served is what was stored.
#[tokio::test]
async fn p11_a_flipped_bit_is_never_served() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("events.db");
    let stored = fill(&path).await;
    let pristine = fs::read(&path).unwrap();
    let (mut reported, mut harmless) = (0, 0);
    let mut random = Random(0x5eed);
    for _ in 0..400 {
        let (byte, bit) = (random.below(pristine.len()), random.below(8));
        let mut bytes = pristine.clone();
        bytes[byte] ^= 1 << bit;
        fs::write(&path, &bytes).unwrap();
        match served(&path).await {
            Served::Reported(records) => {
                reported += 1;
                assert!(records.iter().all(|record| stored.contains(record)), "bit {bit} of byte {byte}");
            }
            Served::All(records) => {
                harmless += 1;
                assert_eq!(records, stored, "bit {bit} of byte {byte}");
            }
        }
        for left_over in ["events.db-wal", "events.db-shm"] {
            drop(fs::remove_file(directory.path().join(left_over)));
        }
    }
    assert!(reported > 50 && harmless > 5, "{reported} reported, {harmless} harmless");
}

#[test]
fn p11_a_damaged_row_of_a_log_is_found_at_opening() {
    for change in ["head = head + 1", "floor = 3", "epoch = 'other'", "name = 'agent/a3'", "newest = NULL"] {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("events.db");
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(fill(&path));
        execute(&path, &format!("UPDATE logs SET {change} WHERE id = 1"));
        let refused = open(&path);
        assert!(matches!(refused, Err(OpenError::Damaged { .. })), "{change}: {refused:?}");
    }
}

#[tokio::test]
async fn p11_a_damaged_snapshot_is_reported() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("events.db");
    fill(&path).await;
    execute(&path, "UPDATE snapshots SET data = x'00'");
    let read = open(&path).unwrap().snapshot(&log()).await;
    assert!(matches!(read, Err(ReadError::Corrupt { seq, .. }) if seq == Seq::new(40)), "{read:?}");
}

enum Served {
    All(Vec<Record>),
    Reported(Vec<Record>),
}

/// Reads all that can be read of the first log, past whatever is damaged.
async fn served(path: &Path) -> Served {
    let Ok(store) = open(path) else { return Served::Reported(Vec::new()) };
    let (mut records, mut is_whole, mut after) = (Vec::new(), true, Seq::ZERO);
    loop {
        match store.read(&log(), after, limit(1_000)).await {
            Ok(page) => {
                records.extend(page.records);
                if !page.more {
                    break;
                }
                after = records.last().map_or(after, |record: &Record| record.seq);
            }
            Err(ReadError::Corrupt { seq, .. }) if seq > after => {
                is_whole = false;
                after = seq;
            }
            Err(_) => {
                is_whole = false;
                break;
            }
        }
    }
    if is_whole { Served::All(records) } else { Served::Reported(records) }
}

/// Two logs of 40 events; gives those of the first.
async fn fill(path: &Path) -> Vec<Record> {
    let store = open(path).unwrap();
    for log in [log(), other_log()] {
        store.append(&log, Append::of((1..=40).map(event).collect())).await.unwrap();
    }
    let snapshot = Snapshot { seq: Seq::new(40), data: bytes::Bytes::from_static(b"a fold") };
    store.put_snapshot(&log(), snapshot).await.unwrap();
    store.read(&log(), Seq::ZERO, limit(1_000)).await.unwrap().records
}

fn event(n: u64) -> NewEvent {
    let data = format!(
        r#"{{"sessionID":"s1","messageID":"m1","partID":"p{n}","field":"text","delta":"mark-{n} {}"}}"#,
        "lorem ipsum ".repeat(10)
    );
    NewEvent {
        time: Timestamp::from_unix_ms(0),
        kind: "message.part.delta".into(),
        session: Some("s1".into()),
        data: RawData::from_json(data).unwrap(),
    }
}

fn execute(path: &Path, sql: &str) -> usize {
    rusqlite::Connection::open(path).unwrap().execute(sql, []).unwrap()
}

/// Unbounded, and with nothing in memory.
fn open(path: &Path) -> Result<SqliteStore, OpenError> {
    SqliteStore::open(
        path,
        SqliteOptions::default().with_retention(RetentionPolicy::default()).with_hot(0, 0),
    )
}

fn limit(events: usize) -> ReadLimit {
    ReadLimit { events, bytes: usize::MAX }
}

fn log() -> LogId {
    "agent/a1".parse().unwrap()
}

fn other_log() -> LogId {
    "agent/a2".parse().unwrap()
}

/// Xorshift64 (Marsaglia, 2003): the same damage in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % bound as u64).unwrap()
    }
}
