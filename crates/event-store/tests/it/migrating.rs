//! A database of the schema before is taken over whole.

use std::{fs, path::Path};

use gastown_event_store::{
    EventStore, OpenError, ProducerState, ReadError, ReadLimit, Retention, RetentionPolicy, Snapshot,
    SqliteOptions, SqliteStore,
};
use protocol::{Key, LogId, NewEvent, RawData, Seq, Timestamp};
use rusqlite::{Connection, params};

use super::crash;

/// Events per log.
const EVENTS: u64 = 150;

#[tokio::test]
async fn an_older_database_is_taken_over_whole() {
    let (directory, path) = old_database();
    let store = open(&path).unwrap();
    for n in 0..crash::LOGS {
        let log = crash::log(n);
        let bounds = store.bounds(&log).await.unwrap();
        assert_eq!(
            (bounds.epoch.as_str(), bounds.floor, bounds.head),
            (&*format!("epoch{n}"), Seq::ZERO, Seq::new(EVENTS))
        );
        let page = store.read(&log, Seq::ZERO, everything()).await.unwrap();
        let expected = (1..=EVENTS).map(|seq| crash::event(n, seq).at(Seq::new(seq)).encode());
        assert!(page.records.iter().map(|record| record.envelope.clone()).eq(expected));
        let producer = ProducerState { producer: "p".parse().unwrap(), generation: 1, acked: EVENTS };
        assert_eq!(store.producer(&log).await.unwrap(), Some(producer));
    }
    let snapshot = Snapshot { seq: Seq::new(40), data: bytes::Bytes::from_static(b"a fold") };
    assert_eq!(store.snapshot(&crash::log(0)).await.unwrap(), Some(snapshot));
    drop(store);
    crash::check(&path, [EVENTS; crash::LOGS as usize]).await;
    let files = fs::read_dir(directory.path()).unwrap().map(|file| file.unwrap().file_name());
    let mut files: Vec<_> = files.collect();
    files.sort();
    assert_eq!(files, ["events.db", "events.db.lock"]);
}

#[tokio::test]
async fn what_compaction_goes_by_is_taken_over() {
    let (_directory, path) = old_database();
    let conn = Connection::open(&path).unwrap();
    let log: LogId = "agent/keyed".parse().unwrap();
    let of = |kind: &str, data: &str| NewEvent {
        time: Timestamp::from_unix_ms(0),
        kind: kind.into(),
        session: Some("s1".into()),
        data: RawData::from_json(data).unwrap(),
    };
    let part = r#"{"part":{"id":"p1","messageID":"m1","sessionID":"s1","type":"text","text":"t"}}"#;
    let events =
        [of("message.part.updated", part), of("message.removed", r#"{"messageID":"m2","sessionID":"s1"}"#)];
    insert_log(&conn, 9, &log, &events);
    drop(conn);
    let store = open(&path).unwrap();
    let keys = |records: &[gastown_event_store::Record]| -> Vec<(u64, Option<Key>)> {
        records.iter().map(|record| (record.seq.get(), record.key.clone())).collect()
    };
    let page = store.read(&log, Seq::ZERO, everything()).await.unwrap();
    assert_eq!(keys(&page.records), [(1, Some(Key::new("part/m1/p1"))), (2, Some(Key::new("message/m2")))]);
    let more = vec![of("message.part.updated", part), of("message.updated", r#"{"info":{"id":"m2"}}"#)];
    store.append(&log, gastown_event_store::Append::of(more)).await.unwrap();
    let page = store.read(&log, Seq::ZERO, everything()).await.unwrap();
    assert_eq!(page.records.iter().map(|record| record.seq.get()).collect::<Vec<_>>(), [2, 3, 4]);
}

#[tokio::test]
async fn p11_a_damaged_event_of_an_older_database_stays_damaged() {
    let (_directory, path) = old_database();
    let changed = Connection::open(&path).unwrap();
    changed.execute("UPDATE events_1 SET envelope = CAST('x' AS BLOB) WHERE seq = 70", []).unwrap();
    drop(changed);
    let store = open(&path).unwrap();
    let log = crash::log(0);
    assert_eq!(store.read(&log, Seq::ZERO, everything()).await.unwrap().records.len(), 69);
    let read = store.read(&log, Seq::new(69), everything()).await.err();
    assert!(matches!(read, Some(ReadError::Corrupt { seq, .. }) if seq.get() == 70), "{read:?}");
    assert_eq!(store.read(&log, Seq::new(70), everything()).await.unwrap().records.len(), 80);
}

#[test]
fn an_older_database_that_lacks_events_is_refused_and_left_alone() {
    for damage in
        ["DELETE FROM events_1 WHERE seq = 7", "UPDATE logs SET head = 9", "UPDATE producers SET acked = 9"]
    {
        let (_directory, path) = old_database();
        Connection::open(&path).unwrap().execute(damage, []).unwrap();
        let before = fs::read(&path).unwrap();
        let refused = open(&path);
        assert!(matches!(refused, Err(OpenError::Damaged { .. })), "{damage}: {refused:?}");
        assert!(fs::read(&path).unwrap() == before, "{damage}");
    }
}

#[tokio::test]
async fn what_a_killed_migration_left_is_no_obstacle() {
    let (directory, path) = old_database();
    for left_over in ["events.db.migrating", "events.db.migrating-wal"] {
        fs::write(directory.path().join(left_over), "half a page").unwrap();
    }
    crash::check(&path, [EVENTS; crash::LOGS as usize]).await;
}

/// A database as it was written by schema 1, with the logs of [`crash`].
pub(super) fn old_database() -> (tempfile::TempDir, std::path::PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("events.db");
    let conn = Connection::open(&path).unwrap();
    conn.execute_batch(
        "PRAGMA page_size=4096; PRAGMA journal_mode=WAL; PRAGMA synchronous=OFF;
         CREATE TABLE logs (
             id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, epoch TEXT NOT NULL, floor INTEGER NOT NULL,
             head INTEGER NOT NULL, newest INTEGER, events INTEGER NOT NULL, bytes INTEGER NOT NULL,
             crc INTEGER NOT NULL);
         CREATE TABLE producers (
             log INTEGER NOT NULL, producer TEXT NOT NULL, generation INTEGER NOT NULL, acked INTEGER NOT NULL,
             crc INTEGER NOT NULL, PRIMARY KEY (log, producer)) WITHOUT ROWID;
         CREATE TABLE snapshots (
             log INTEGER PRIMARY KEY, seq INTEGER NOT NULL, data BLOB NOT NULL, crc INTEGER NOT NULL);
         PRAGMA application_id=0x6773746e; PRAGMA user_version=1;",
    )
    .unwrap();
    for n in 0..crash::LOGS {
        let events: Vec<_> = (1..=EVENTS).map(|seq| crash::event(n, seq)).collect();
        insert_log(&conn, n + 1, &crash::log(n), &events);
    }
    let data = b"a fold";
    let crc = Crc::of(1).number(40).bytes(Some(data)).0;
    conn.execute("INSERT INTO snapshots VALUES (1, 40, ?1, ?2)", params![data, crc]).unwrap();
    drop(conn);
    (directory, path)
}

fn insert_log(conn: &Connection, id: u64, log: &LogId, events: &[NewEvent]) {
    conn.execute_batch(&format!(
        "BEGIN; CREATE TABLE events_{id} (
             seq INTEGER PRIMARY KEY, kind TEXT NOT NULL, key TEXT, session TEXT, crc INTEGER NOT NULL,
             envelope BLOB NOT NULL)"
    ))
    .unwrap();
    let mut size = 0;
    for (seq, event) in (1_u64..).zip(events) {
        let event = event.clone().at(Seq::new(seq));
        let (kind, key, session) =
            (&*event.kind, event.key.as_ref().map(Key::as_str), event.session.as_deref());
        let envelope = event.encode();
        size += envelope.len() as u64;
        let crc = Crc::of(id).number(seq).bytes(Some(kind.as_bytes())).bytes(key.map(str::as_bytes));
        let crc = crc.bytes(session.map(str::as_bytes)).bytes(Some(&envelope)).0;
        let row = params![seq.cast_signed(), kind, key, session, crc, &envelope[..]];
        conn.execute(&format!("INSERT INTO events_{id} VALUES (?1, ?2, ?3, ?4, ?5, ?6)"), row).unwrap();
    }
    let (name, epoch, head) = (log.to_string(), format!("epoch{}", id - 1), events.len() as u64);
    let newest = events.last().unwrap().time.unix_ms();
    let crc = Crc::of(id).bytes(Some(name.as_bytes())).bytes(Some(epoch.as_bytes())).number(0).number(head);
    let crc = crc.number(newest.cast_unsigned()).number(head).number(size).0;
    conn.execute(
        "INSERT INTO logs VALUES (?1, ?2, ?3, 0, ?4, ?5, ?4, ?6, ?7)",
        params![id.cast_signed(), name, epoch, head.cast_signed(), newest, size.cast_signed(), crc],
    )
    .unwrap();
    let crc = Crc::of(id).bytes(Some(b"p")).number(1).number(head).0;
    conn.execute(
        "INSERT INTO producers VALUES (?1, 'p', 1, ?2, ?3)",
        params![id.cast_signed(), head.cast_signed(), crc],
    )
    .unwrap();
    conn.execute_batch("COMMIT").unwrap();
}

/// The checksum of schema 1.
struct Crc(u32);

impl Crc {
    fn of(id: u64) -> Self {
        Self(0).number(id)
    }

    fn number(self, number: u64) -> Self {
        Self(crc32c::crc32c_append(self.0, &number.to_le_bytes()))
    }

    fn bytes(self, field: Option<&[u8]>) -> Self {
        let this = self.number(field.map_or(u64::MAX, |field| field.len() as u64));
        Self(crc32c::crc32c_append(this.0, field.unwrap_or_default()))
    }
}

fn open(path: &Path) -> Result<SqliteStore, OpenError> {
    let policy = RetentionPolicy { agent: Retention::UNBOUNDED, town: Retention::UNBOUNDED };
    SqliteStore::open(path, SqliteOptions::default().with_retention(policy))
}

fn everything() -> ReadLimit {
    ReadLimit { events: usize::MAX, bytes: usize::MAX }
}
