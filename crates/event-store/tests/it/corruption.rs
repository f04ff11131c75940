//! Damage to the stored bytes: reported, never served.

use std::{fs, ops::RangeInclusive, path::Path};

use gastown_event_store::{
    Append, AppendError, Bounds, EventStore, LogSummary, OpenError, ProducerBatch, ProducerState, ReadError,
    ReadLimit, Record, RetentionPolicy, Snapshot, SqliteOptions, SqliteStore, StoreError,
};
use protocol::{LogId, NewEvent, RawData, Seq, Timestamp};

/// Events of each log: three segments, and one that makes another obsolete.
const EVENTS: u64 = 150;

#[tokio::test]
async fn p11_a_damaged_event_is_reported_and_what_is_around_it_is_served() {
    for table in ["segments", "journal"] {
        let (_directory, path) = filled(table == "segments").await;
        assert_eq!(change_bytes(&path, table, "envelopes", b"mark-7 ", b"mark-8 "), 2, "of both logs");
        for round in ["as it was written", "filed since"] {
            let store = open(&path).unwrap();
            let before = store.read(&log(), Seq::ZERO, limit(1_000)).await.unwrap();
            assert_eq!((before.records.len(), before.more), (6, true), "{table}, {round}");
            assert_eq!(corrupt(&store, 6).await, Some(7), "{table}, {round}");
            let after = store.read(&log(), Seq::new(7), limit(1_000)).await.unwrap();
            assert_eq!(after.records.first().unwrap().seq, Seq::new(8), "{table}, {round}");
            let next = EVENTS + if round == "filed since" { 2 } else { 1 };
            assert_eq!(append(&store).await.unwrap(), next);
        }
    }
}

#[tokio::test]
async fn p11_what_cannot_be_told_apart_is_reported_event_by_event() {
    for damage in
        ["entries = zeroblob(9)", "entries = x''", "entries = 17", "crc = crc + 1", "envelopes = 17"]
    {
        let (_directory, path) = filled(true).await;
        execute(&path, &format!("UPDATE segments SET {damage} WHERE {OF_FIRST_LOG} AND after = 64"));
        let store = open(&path).unwrap();
        assert_eq!(store.read(&log(), Seq::ZERO, limit(1_000)).await.unwrap().records.len(), 63, "{damage}");
        for seq in 65..=128 {
            assert_eq!(corrupt(&store, seq - 1).await, Some(seq), "{damage}");
        }
        let rest = store.read(&log(), Seq::new(128), limit(1_000)).await.unwrap();
        assert_eq!((rest.records.len(), rest.more), (22, false), "{damage}");
        assert_eq!(append(&store).await.unwrap(), EVENTS + 1, "{damage}");
    }
}

#[tokio::test]
async fn p11_envelopes_that_lost_their_end_are_reported() {
    let (_directory, path) = filled(true).await;
    let cut = "UPDATE segments SET envelopes = substr(envelopes, 1, length(envelopes) - 1)";
    execute(&path, &format!("{cut} WHERE {OF_FIRST_LOG} AND after = 64"));
    let store = open(&path).unwrap();
    assert_eq!(store.read(&log(), Seq::ZERO, limit(1_000)).await.unwrap().records.len(), 126);
    assert_eq!(corrupt(&store, 127).await, Some(128));
}

#[tokio::test]
async fn p11_events_of_another_log_are_reported() {
    let (_directory, path) = filled(true).await;
    let other = "SELECT envelopes FROM segments WHERE id >> 40 = 2 AND after = 64";
    execute(&path, &format!("UPDATE segments SET envelopes = ({other}) WHERE {OF_FIRST_LOG} AND after = 0"));
    let store = open(&path).unwrap();
    for seq in [1, 2, 64] {
        assert_eq!(corrupt(&store, seq - 1).await, Some(seq));
    }
}

#[tokio::test]
async fn p11_a_segment_that_vanished_is_reported_to_readers_and_producers() {
    for damage in [
        "DELETE FROM segments WHERE id >> 40 = 1 AND after = 0",
        "DELETE FROM segments WHERE id >> 40 = 1 AND after = 64",
        "DELETE FROM segments WHERE id >> 40 = 1 AND after = 128",
        "UPDATE segments SET id = id + 1 WHERE id >> 40 = 1 AND after = 64",
        "UPDATE segments SET after = after + 1 WHERE id >> 40 = 1 AND after = 64",
    ] {
        let (_directory, path) = filled(true).await;
        execute(&path, damage);
        let store = open(&path).unwrap();
        let read = store.read(&log(), Seq::ZERO, limit(1_000)).await.err();
        assert!(matches!(read, Some(ReadError::Store(StoreError::Backend { .. }))), "{damage}: {read:?}");
        let refused = append(&store).await;
        assert!(
            matches!(refused, Err(AppendError::Store(StoreError::Backend { .. }))),
            "{damage}: {refused:?}"
        );
        let other = store.read(&other_log(), Seq::ZERO, limit(1_000)).await.unwrap();
        assert_eq!(other.records.len() as u64, EVENTS - 1);
        store.remove(&log()).await.unwrap();
        assert_eq!(append(&store).await.unwrap(), 1);
    }
}

/// Whose events they are is in the same row: nobody can tell which log lacks them.
#[tokio::test]
async fn p11_a_damaged_row_of_the_journal_is_found_at_opening() {
    for damage in [
        "UPDATE journal SET appends = x'' WHERE id = 1",
        "UPDATE journal SET appends = 17 WHERE id = 1",
        "UPDATE journal SET entries = x'' WHERE id = 1",
        "UPDATE journal SET crc = crc + 1 WHERE id = 1",
        "UPDATE journal SET id = 99 WHERE id = 1",
        "DELETE FROM journal WHERE id = 2",
    ] {
        let (_directory, path) = filled(false).await;
        assert_eq!(execute(&path, damage), 1);
        let refused = open(&path);
        assert!(matches!(refused, Err(OpenError::Damaged { .. })), "{damage}: {refused:?}");
    }
}

#[tokio::test]
async fn p11_a_damaged_byte_of_what_an_append_did_is_found_at_opening() {
    let (_directory, path) = filled(false).await;
    let conn = rusqlite::Connection::open(&path).unwrap();
    let put = |bytes: &[u8]| conn.execute("UPDATE journal SET appends = ?1 WHERE id = 1", [bytes]).unwrap();
    let appends: Vec<u8> =
        conn.query_row("SELECT appends FROM journal WHERE id = 1", [], |row| row.get(0)).unwrap();
    for at in 0..appends.len() {
        let mut damaged = appends.clone();
        damaged[at] ^= 1 << (at % 8);
        assert_eq!(put(&damaged), 1);
        let refused = open(&path);
        assert!(matches!(refused, Err(OpenError::Damaged { .. })), "byte {at}: {refused:?}");
    }
    put(&appends);
    drop(conn);
    open(&path).unwrap();
}

#[tokio::test]
async fn p11_a_damaged_row_of_a_log_is_found_at_opening() {
    for damage in [
        "head = head + 1",
        "floor = 3",
        "epoch = 'other'",
        "name = 'agent/a9'",
        "newest = NULL",
        "events = 1",
        "bytes = 1",
        "producers = '[]'",
        "journaled = 0",
        "begins = 64",
        "filed = 128",
        "filings = 7",
    ] {
        let (_directory, path) = filled(true).await;
        assert_eq!(execute(&path, &format!("UPDATE logs SET {damage} WHERE id = 1")), 1);
        let refused = open(&path);
        assert!(matches!(refused, Err(OpenError::Damaged { .. })), "{damage}: {refused:?}");
    }
}

#[tokio::test]
async fn p11_a_damaged_mark_is_found_at_opening() {
    for damage in [
        "UPDATE obsolete SET id = id + 1",
        "UPDATE obsolete SET id = id + (1 << 42)",
        "UPDATE obsolete SET crc = 0",
    ] {
        let (_directory, path) = filled(true).await;
        assert_eq!(execute(&path, &format!("{damage} WHERE id >> 40 = 1")), 1);
        let refused = open(&path);
        assert!(matches!(refused, Err(OpenError::Damaged { .. })), "{damage}: {refused:?}");
    }
}

#[tokio::test]
async fn p11_a_damaged_snapshot_is_reported() {
    let (_directory, path) = filled(true).await;
    execute(&path, "UPDATE snapshots SET data = x'00'");
    let read = open(&path).unwrap().snapshot(&log()).await;
    assert!(matches!(read, Err(ReadError::Corrupt { seq, .. }) if seq == Seq::new(40)), "{read:?}");
}

/// Single bits anywhere in the file: it is said, or everything is as it was.
#[tokio::test]
async fn p11_of_a_thousand_flipped_bits_none_is_silent() {
    for is_filed in [true, false] {
        let (directory, path) = filled(is_filed).await;
        let stored = Answers::of(&path).await;
        assert!(stored.damage.is_empty(), "{:?}", stored.damage);
        let pristine = fs::read(&path).unwrap();
        let (mut reported, mut harmless) = (0, 0);
        let mut random = Random(0x5eed);
        for _ in 0..500 {
            let (byte, bit) = (random.below(pristine.len()), random.below(8));
            let mut bytes = pristine.clone();
            bytes[byte] ^= 1 << bit;
            fs::write(&path, &bytes).unwrap();
            let found = Answers::of(&path).await;
            if found.damage.is_empty() {
                harmless += 1;
                assert_eq!(found, stored, "bit {bit} of byte {byte}");
            } else {
                reported += 1;
                let is_stored = |record: &Record| stored.records.contains(record);
                assert!(found.records.iter().all(is_stored), "bit {bit} of byte {byte}: {:?}", found.damage);
            }
            for left_over in ["events.db-wal", "events.db-shm"] {
                drop(fs::remove_file(directory.path().join(left_over)));
            }
        }
        assert!(reported > 50 && harmless > 5, "{reported} reported, {harmless} harmless");
    }
}

/// All that a store says, and what it says is damaged.
#[derive(Debug, PartialEq)]
struct Answers {
    damage: Vec<String>,
    records: Vec<Record>,
    bounds: Vec<Bounds>,
    producers: Vec<Option<ProducerState>>,
    snapshot: Option<Snapshot>,
    list: Vec<LogSummary>,
}

impl Answers {
    async fn of(path: &Path) -> Self {
        let mut all = Self {
            damage: Vec::new(),
            records: Vec::new(),
            bounds: Vec::new(),
            producers: Vec::new(),
            snapshot: None,
            list: Vec::new(),
        };
        let store = match open(path) {
            Ok(store) => store,
            Err(error) => {
                all.damage.push(error.to_string());
                return all;
            }
        };
        for log in [log(), other_log(), third_log()] {
            all.read(&store, &log).await;
            match (store.bounds(&log).await, store.producer(&log).await) {
                (Ok(bounds), Ok(producer)) => {
                    all.bounds.push(bounds);
                    all.producers.push(producer);
                }
                (bounds, producer) => all.damage.push(format!("{bounds:?} {producer:?}")),
            }
        }
        match store.snapshot(&log()).await {
            Ok(snapshot) => all.snapshot = snapshot,
            Err(error) => all.damage.push(error.to_string()),
        }
        all.list = store.list().await.unwrap();
        all
    }

    /// Reads all that can be read of a log, past whatever is damaged.
    async fn read(&mut self, store: &SqliteStore, log: &LogId) {
        let mut after = Seq::ZERO;
        loop {
            match store.read(log, after, limit(40)).await {
                Ok(page) => {
                    after = page.records.last().map_or(after, |record| record.seq);
                    self.records.extend(page.records);
                    if !page.more {
                        return;
                    }
                }
                Err(ReadError::Corrupt { seq, .. }) if seq > after => {
                    self.damage.push(format!("{log} {seq}"));
                    after = seq;
                }
                Err(error) => {
                    self.damage.push(error.to_string());
                    return;
                }
            }
        }
    }
}

const OF_FIRST_LOG: &str = "id >> 40 = 1";

/// A closed database with two logs, in segments or in the journal. Event 20 of each is obsolete; the first has a snapshot.
async fn filled(is_filed: bool) -> (tempfile::TempDir, std::path::PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("events.db");
    let journal_bytes = if is_filed { 0 } else { u64::MAX };
    let store = SqliteStore::open(&path, options().with_journal_bytes(journal_bytes)).unwrap();
    let producer = ProducerBatch { producer: "p".parse().unwrap(), generation: 3, first: 1 };
    for numbers in [1..=64, 65..=128, 129..=EVENTS - 1] {
        for log in [log(), other_log()] {
            let batch = Append::of(events(numbers.clone()));
            let producer = ProducerBatch { first: *numbers.start(), ..producer.clone() };
            store.append(&log, batch.from_producer(producer)).await.unwrap();
        }
    }
    let snapshot = Snapshot { seq: Seq::new(40), data: bytes::Bytes::from_static(b"a fold") };
    store.put_snapshot(&log(), snapshot).await.unwrap();
    let last = |text: &str| {
        let data = format!(r#"{{"part":{{"id":"p0","messageID":"m1","type":"text","text":"{text}"}}}}"#);
        Append::of(vec![of("message.part.updated", data)])
    };
    for log in [log(), other_log(), third_log(), third_log(), third_log(), third_log()] {
        store.append(&log, last("mark")).await.unwrap();
    }
    drop((store, last));
    (directory, path)
}

fn events(numbers: RangeInclusive<u64>) -> Vec<NewEvent> {
    let event = |n: u64| {
        let part = if n == 20 { 0 } else { n };
        let data = format!(
            r#"{{"sessionID":"s1","messageID":"m1","partID":"p{part}","field":"text","delta":"mark-{n} {}"}}"#,
            "lorem ipsum ".repeat(10)
        );
        of("message.part.delta", data)
    };
    numbers.map(event).collect()
}

fn of(kind: &str, data: String) -> NewEvent {
    NewEvent {
        time: Timestamp::from_unix_ms(5),
        kind: kind.into(),
        session: Some("s1".into()),
        data: RawData::from_json(data).unwrap(),
    }
}

/// Which event a read after this position says is damaged.
async fn corrupt(store: &SqliteStore, after: u64) -> Option<u64> {
    match store.read(&log(), Seq::new(after), limit(1_000)).await {
        Err(ReadError::Corrupt { log: found, seq }) if found == log() => Some(seq.get()),
        Ok(_) | Err(_) => None,
    }
}

async fn append(store: &SqliteStore) -> Result<u64, AppendError> {
    Ok(store.append(&log(), Append::of(events(900..=900))).await?.head.get())
}

fn execute(path: &Path, sql: &str) -> usize {
    rusqlite::Connection::open(path).unwrap().execute(sql, []).unwrap()
}

/// Changes bytes wherever they are in a column; says in how many rows.
fn change_bytes(path: &Path, table: &str, column: &str, from: &[u8], to: &[u8]) -> usize {
    let conn = rusqlite::Connection::open(path).unwrap();
    let mut select = conn.prepare(&format!("SELECT id, {column} FROM {table}")).unwrap();
    let rows = select.query_map([], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, Vec<u8>>(1)?))).unwrap();
    let mut changed = 0;
    for (id, mut bytes) in rows.map(Result::unwrap) {
        let Some(at) = bytes.windows(from.len()).position(|window| window == from) else { continue };
        bytes[at..at + to.len()].copy_from_slice(to);
        let update = format!("UPDATE {table} SET {column} = ?2 WHERE id = ?1");
        changed += conn.execute(&update, rusqlite::params![id, bytes]).unwrap();
    }
    changed
}

/// Everything goes to segments at the next append.
fn open(path: &Path) -> Result<SqliteStore, OpenError> {
    SqliteStore::open(path, options().with_journal_bytes(0))
}

/// Unbounded, and with nothing in memory that is filed.
fn options() -> SqliteOptions {
    SqliteOptions::default().with_retention(RetentionPolicy::default()).with_hot(0, 0).with_readers(1)
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

/// What is appended to it last files what is before it.
fn third_log() -> LogId {
    "agent/a3".parse().unwrap()
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
