//! The rows of the database and their checksums. One table per log, keyed by position: a log's events lie together in
//! the order in which they are read, and no second index is written.

use std::sync::Arc;

use protocol::{Effect, Epoch, Key, LogId, Seq, Timestamp};
use rusqlite::{Connection, OptionalExtension, Row, params, types::ValueRef};

use super::sound::Sound;
use crate::{
    Page, ProducerState, ReadError, ReadLimit, Record, Snapshot, StoreError,
    contract::Room,
    rules::{Entry, Header, ProducerChange, Producers, Stored},
};

/// A log's row.
#[derive(Debug)]
pub(super) struct LogRow {
    /// Names its table of events.
    pub(super) id: i64,
    pub(super) log: LogId,
    pub(super) header: Header,
}

/// A row does not match its checksum.
#[derive(Debug)]
pub(super) struct Damaged;

// ---- logs ----

/// Every log, by name.
pub(super) fn load_logs(conn: &Connection) -> rusqlite::Result<Result<Vec<LogRow>, Damaged>> {
    let mut statement = conn.prepare(&format!("SELECT {LOG_COLUMNS} FROM logs ORDER BY name"))?;
    let rows = statement.query_map([], |row| Ok(log_row(row)))?;
    rows.collect()
}

pub(super) fn load_log(conn: &Connection, log: &LogId) -> rusqlite::Result<Option<Result<LogRow, Damaged>>> {
    let mut statement = conn.prepare_cached(&format!("SELECT {LOG_COLUMNS} FROM logs WHERE name = ?1"))?;
    statement.query_row([log.to_string()], |row| Ok(log_row(row))).optional()
}

/// The number of a log, whatever else its row says.
pub(super) fn find_id(conn: &Connection, log: &LogId) -> rusqlite::Result<Option<i64>> {
    conn.prepare_cached("SELECT id FROM logs WHERE name = ?1")?
        .query_row([log.to_string()], |row| row.get(0))
        .optional()
}

/// Makes a log's row and its table.
pub(super) fn insert_log(conn: &Connection, log: &LogId, header: &Header) -> rusqlite::Result<i64> {
    let id: i64 = conn
        .prepare_cached(
            "INSERT INTO logs (name, epoch, floor, head, newest, events, bytes, crc)
             VALUES (?1, ?2, 0, 0, NULL, 0, 0, 0) RETURNING id",
        )?
        .query_row(params![log.to_string(), header.epoch.as_str()], |row| row.get(0))?;
    conn.execute_batch(&format!(
        "CREATE TABLE events_{id} (
             seq INTEGER PRIMARY KEY, kind TEXT NOT NULL, key TEXT, session TEXT, crc INTEGER NOT NULL,
             envelope BLOB NOT NULL)"
    ))?;
    Ok(id)
}

pub(super) fn update_log(conn: &Connection, id: i64, log: &LogId, header: &Header) -> rusqlite::Result<()> {
    conn.prepare_cached(
        "UPDATE logs SET floor = ?2, head = ?3, newest = ?4, events = ?5, bytes = ?6, crc = ?7 WHERE id = ?1",
    )?
    .execute(params![
        id,
        header.floor.get().cast_signed(),
        header.head.get().cast_signed(),
        header.newest.map(Timestamp::unix_ms),
        header.events.cast_signed(),
        header.bytes.cast_signed(),
        log_crc(id, &log.to_string(), header),
    ])?;
    Ok(())
}

pub(super) fn delete_log(conn: &Connection, id: i64) -> rusqlite::Result<()> {
    conn.execute_batch(&format!(
        "DROP TABLE events_{id}; DELETE FROM producers WHERE log = {id}; DELETE FROM snapshots WHERE log = {id};
         DELETE FROM logs WHERE id = {id};"
    ))
}

const LOG_COLUMNS: &str = "id, name, epoch, floor, head, newest, events, bytes, crc";

fn log_row(row: &Row<'_>) -> Result<LogRow, Damaged> {
    let text = |at| row.get::<_, String>(at).map_err(|_| Damaged);
    let number = |at| row.get::<_, i64>(at).map(i64::cast_unsigned).map_err(|_| Damaged);
    let (id, name) = (number(0)?.cast_signed(), text(1)?);
    let header = Header {
        epoch: Epoch::new(&text(2)?),
        floor: Seq::new(number(3)?),
        head: Seq::new(number(4)?),
        newest: row.get::<_, Option<i64>>(5).map_err(|_| Damaged)?.map(Timestamp::from_unix_ms),
        events: number(6)?,
        bytes: number(7)?,
    };
    if number(8)? != u64::from(log_crc(id, &name, &header)) {
        return Err(Damaged);
    }
    Ok(LogRow { id, log: name.parse().map_err(|_| Damaged)?, header })
}

fn log_crc(id: i64, name: &str, header: &Header) -> u32 {
    let Header { epoch, floor, head, newest, events, bytes } = header;
    Checksum::new(id)
        .text(Some(name))
        .text(Some(epoch.as_str()))
        .number(floor.get())
        .number(head.get())
        .number(newest.map_or(i64::MIN, Timestamp::unix_ms).cast_unsigned())
        .number(*events)
        .number(*bytes)
        .finish()
}

// ---- producers ----

pub(super) fn load_producers(conn: &Connection, id: i64) -> rusqlite::Result<Result<Producers, Damaged>> {
    let mut statement =
        conn.prepare_cached("SELECT producer, generation, acked, crc FROM producers WHERE log = ?1")?;
    let rows = statement.query_map([id], |row| Ok(producer_row(id, row)))?;
    let states = rows.collect::<rusqlite::Result<Result<Vec<_>, _>>>()?;
    Ok(states.map(Producers::restore))
}

pub(super) fn change_producer(conn: &Connection, id: i64, change: &ProducerChange) -> rusqlite::Result<()> {
    let ProducerChange { newest, forgotten } = change;
    conn.prepare_cached(
        "INSERT OR REPLACE INTO producers (log, producer, generation, acked, crc) VALUES (?1, ?2, ?3, ?4, ?5)",
    )?
    .execute(params![
        id,
        newest.producer.as_str(),
        newest.generation.cast_signed(),
        newest.acked.cast_signed(),
        producer_crc(id, newest),
    ])?;
    if let Some(forgotten) = forgotten {
        conn.prepare_cached("DELETE FROM producers WHERE log = ?1 AND producer = ?2")?
            .execute(params![id, forgotten.as_str()])?;
    }
    Ok(())
}

fn producer_row(id: i64, row: &Row<'_>) -> Result<ProducerState, Damaged> {
    let read = || -> rusqlite::Result<(String, i64, i64, u32)> {
        Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
    };
    let (producer, generation, acked, crc) = read().map_err(|_| Damaged)?;
    let producer = producer.parse().map_err(|_| Damaged)?;
    let state =
        ProducerState { producer, generation: generation.cast_unsigned(), acked: acked.cast_unsigned() };
    if crc == producer_crc(id, &state) { Ok(state) } else { Err(Damaged) }
}

fn producer_crc(id: i64, state: &ProducerState) -> u32 {
    Checksum::new(id)
        .text(Some(state.producer.as_str()))
        .number(state.generation)
        .number(state.acked)
        .finish()
}

// ---- snapshots ----

pub(super) fn put_snapshot(conn: &Connection, id: i64, snapshot: &Snapshot) -> rusqlite::Result<()> {
    let Snapshot { seq, data } = snapshot;
    conn.prepare_cached("INSERT OR REPLACE INTO snapshots (log, seq, data, crc) VALUES (?1, ?2, ?3, ?4)")?
        .execute(params![id, seq.get().cast_signed(), &data[..], snapshot_crc(id, *seq, data)])?;
    Ok(())
}

pub(super) fn load_snapshot(conn: &Connection, log: &LogId) -> Result<Option<Snapshot>, ReadError> {
    let id = find(conn, log)?.id;
    let found = conn
        .prepare_cached("SELECT seq, data, crc FROM snapshots WHERE log = ?1")
        .and_then(|mut statement| {
            let read = |row: &Row<'_>| {
                let seq = Seq::new(row.get::<_, i64>(0)?.cast_unsigned());
                let data = row.get_ref(1)?.as_blob().map(bytes::Bytes::copy_from_slice);
                Ok((seq, data.ok(), row.get_ref(2)?.as_i64().ok()))
            };
            statement.query_row([id], read).optional()
        })
        .map_err(reading)?;
    match found {
        None => Ok(None),
        Some((seq, Some(data), Some(crc))) if crc == i64::from(snapshot_crc(id, seq, &data)) => {
            Ok(Some(Snapshot { seq, data }))
        }
        Some((seq, _, _)) => Err(ReadError::Corrupt { log: log.clone(), seq }),
    }
}

fn snapshot_crc(id: i64, seq: Seq, data: &[u8]) -> u32 {
    Checksum::new(id).number(seq.get()).bytes(Some(data)).finish()
}

// ---- events ----

pub(super) fn insert_event(conn: &Connection, id: i64, stored: &Stored) -> rusqlite::Result<()> {
    let Stored { record: Record { seq, kind, key, envelope }, session } = stored;
    let key = key.as_ref().map(Key::as_str);
    let columns = EventColumns {
        seq: *seq,
        kind: kind.as_bytes(),
        key: key.map(str::as_bytes),
        session: session.as_deref().map(str::as_bytes),
        envelope,
    };
    conn.prepare_cached(&format!(
        "INSERT INTO events_{id} (seq, kind, key, session, crc, envelope) VALUES (?1, ?2, ?3, ?4, ?5, ?6)"
    ))?
    .execute(params![
        seq.get().cast_signed(),
        &**kind,
        key,
        session.as_deref(),
        columns.crc(id),
        &envelope[..]
    ])?;
    Ok(())
}

pub(super) fn delete_event(conn: &Connection, id: i64, seq: Seq) -> rusqlite::Result<()> {
    conn.prepare_cached(&format!("DELETE FROM events_{id} WHERE seq = ?1"))?
        .execute([seq.get().cast_signed()])?;
    Ok(())
}

pub(super) fn delete_events_through(conn: &Connection, id: i64, floor: Seq) -> rusqlite::Result<()> {
    conn.prepare_cached(&format!("DELETE FROM events_{id} WHERE seq <= ?1"))?
        .execute([floor.get().cast_signed()])?;
    Ok(())
}

/// What the index of a log needs of its kept events, and whether there are events below the floor.
pub(super) fn load_entries(conn: &Connection, id: i64, floor: Seq) -> rusqlite::Result<(Vec<Entry>, bool)> {
    // `length` of a blob is in the row's header: the payloads are not read.
    let mut statement = conn.prepare_cached(&format!(
        "SELECT seq, length(envelope), key, session, kind FROM events_{id} WHERE seq > ?1 ORDER BY seq"
    ))?;
    let entries = statement.query_map([floor.get().cast_signed()], |row| {
        let kind = text(row, 4)?;
        let key = text(row, 2)?.map(|key| Key::new(&key));
        Ok(Entry {
            seq: Seq::new(row.get::<_, i64>(0)?.cast_unsigned()),
            bytes: row.get(1)?,
            tombstone: key.is_some() && kind.is_some_and(|kind| Effect::of(&kind) == Effect::Remove),
            key,
            session: text(row, 3)?.map(Arc::from),
        })
    })?;
    let entries = entries.collect::<rusqlite::Result<_>>()?;
    let has_pruned = conn
        .prepare_cached(&format!("SELECT EXISTS (SELECT 1 FROM events_{id} WHERE seq <= ?1)"))?
        .query_row([floor.get().cast_signed()], |row| row.get(0))?;
    Ok((entries, has_pruned))
}

/// Whether the table of a log is what its row says: a sound tree, in which every position is found by its key, with as
/// many events as there should be, none of them twice.
pub(super) fn is_sound(conn: &Connection, row: &LogRow) -> rusqlite::Result<bool> {
    let LogRow { id, header, .. } = row;
    let verdict: String =
        conn.query_row(&format!("PRAGMA quick_check(events_{id})"), [], |row| row.get(0))?;
    if verdict != "ok" {
        return Ok(false);
    }
    let mut statement =
        conn.prepare_cached(&format!("SELECT seq FROM events_{id} WHERE seq > ?1 ORDER BY seq"))?;
    let mut rows = statement.query([header.floor.get().cast_signed()])?;
    let (mut events, mut highest) = (0, header.floor);
    while let Some(row) = rows.next()? {
        let seq = Seq::new(row.get::<_, i64>(0)?.cast_unsigned());
        if seq <= highest {
            return Ok(false);
        }
        (events, highest) = (events + 1, seq);
    }
    Ok(events == header.events && highest <= header.head)
}

/// A page of a log, as of one snapshot of the database.
pub(super) fn read_page(
    conn: &Connection,
    sound: &Sound,
    log: &LogId,
    after: Seq,
    limit: ReadLimit,
) -> Result<Page, ReadError> {
    let row = find(conn, log)?;
    sound.check(conn, &row)?;
    let LogRow { id, header, .. } = row;
    let mut page = Page { bounds: header.bounds(), records: Vec::new(), more: false };
    let mut room = Room::of(limit);
    let mut statement = conn
        .prepare_cached(&format!(
            "SELECT seq, kind, key, session, crc, envelope FROM events_{id} WHERE seq > ?1 ORDER BY seq"
        ))
        .map_err(reading)?;
    let mut rows = statement.query([after.max(header.floor).get().cast_signed()]).map_err(reading)?;
    while let Some(row) = rows.next().map_err(reading)? {
        match event_row(id, row) {
            Ok(record) if room.take(record.envelope.len()) => page.records.push(record),
            // What is before a damaged event is good, and the next read begins with the damage.
            Err(_) if page.records.is_empty() => {
                let seq = Seq::new(row.get::<_, i64>(0).map_err(reading)?.cast_unsigned());
                return Err(ReadError::Corrupt { log: log.clone(), seq });
            }
            Ok(_) | Err(Damaged) => {
                page.more = true;
                break;
            }
        }
    }
    Ok(page)
}

fn event_row(id: i64, row: &Row<'_>) -> Result<Record, Damaged> {
    let column = |at| row.get_ref(at).map_err(|_| Damaged);
    let seq = Seq::new(column(0)?.as_i64().map_err(|_| Damaged)?.cast_unsigned());
    let columns = EventColumns {
        seq,
        kind: bytes_of(column(1)?)?.ok_or(Damaged)?,
        key: bytes_of(column(2)?)?,
        session: bytes_of(column(3)?)?,
        envelope: bytes_of(column(5)?)?.ok_or(Damaged)?,
    };
    if column(4)?.as_i64() != Ok(i64::from(columns.crc(id))) {
        return Err(Damaged);
    }
    let text = |bytes| str::from_utf8(bytes).map_err(|_| Damaged);
    Ok(Record {
        seq,
        kind: text(columns.kind)?.into(),
        key: columns.key.map(text).transpose()?.map(Key::new),
        envelope: bytes::Bytes::copy_from_slice(columns.envelope),
    })
}

/// Everything of an event that its checksum covers.
struct EventColumns<'a> {
    seq: Seq,
    kind: &'a [u8],
    key: Option<&'a [u8]>,
    session: Option<&'a [u8]>,
    envelope: &'a [u8],
}

impl EventColumns<'_> {
    fn crc(&self, id: i64) -> u32 {
        Checksum::new(id)
            .number(self.seq.get())
            .bytes(Some(self.kind))
            .bytes(self.key)
            .bytes(self.session)
            .bytes(Some(self.envelope))
            .finish()
    }
}

// ---- common to all rows ----

fn find(conn: &Connection, log: &LogId) -> Result<LogRow, ReadError> {
    match load_log(conn, log).map_err(reading)? {
        Some(Ok(row)) => Ok(row),
        Some(Err(Damaged)) => Err(ReadError::Store(damaged_log(log))),
        None => Err(ReadError::UnknownLog { log: log.clone() }),
    }
}

/// A log's own row, or its producers, are damaged: neither bounds nor dedupe can be trusted.
pub(super) fn damaged_log(log: &LogId) -> StoreError {
    let what = format!("the row of {log} does not match its checksum");
    StoreError::Backend { doing: "read a log's row", source: what.into() }
}

/// Events of a log are gone, and nobody can tell which: it must be restored or removed.
pub(super) fn incomplete_log(log: &LogId) -> StoreError {
    let what = format!("events of {log} are missing from the database");
    StoreError::Backend { doing: "find all events of a log", source: what.into() }
}

pub(super) fn reading(source: rusqlite::Error) -> ReadError {
    ReadError::Store(StoreError::Backend { doing: "read", source: source.into() })
}

fn bytes_of(value: ValueRef<'_>) -> Result<Option<&[u8]>, Damaged> {
    match value {
        ValueRef::Null => Ok(None),
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => Ok(Some(bytes)),
        ValueRef::Integer(_) | ValueRef::Real(_) => Err(Damaged),
    }
}

/// A text as far as it is one: a damaged one must not stop an append, and reading it is reported anyway.
fn text(row: &Row<'_>, at: usize) -> rusqlite::Result<Option<String>> {
    let bytes = bytes_of(row.get_ref(at)?).ok().flatten();
    Ok(bytes.map(|bytes| String::from_utf8_lossy(bytes).into_owned()))
}

/// CRC-32C over fields of which each is preceded by its length, so that none can be taken for a part of another.
struct Checksum(u32);

impl Checksum {
    /// Of a row that belongs to this log: it cannot stand in for another log's.
    fn new(id: i64) -> Self {
        Self(0).number(id.cast_unsigned())
    }

    fn number(self, number: u64) -> Self {
        Self(crc32c::crc32c_append(self.0, &number.to_le_bytes()))
    }

    fn bytes(self, field: Option<&[u8]>) -> Self {
        let this = self.number(field.map_or(u64::MAX, |field| field.len() as u64));
        Self(crc32c::crc32c_append(this.0, field.unwrap_or_default()))
    }

    fn text(self, field: Option<&str>) -> Self {
        self.bytes(field.map(str::as_bytes))
    }

    fn finish(self) -> u32 {
        self.0
    }
}
