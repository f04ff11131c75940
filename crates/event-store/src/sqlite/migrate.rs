//! From the schema before: a table per log. The events go to segments of a new file beside the old one, which takes its
//! name when it is whole and synced: whenever the process dies, one of the two is there as it was.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use protocol::{Effect, Epoch, Key, LogId, ProducerId, Seq, Timestamp};
use rusqlite::{Connection, OpenFlags, Row, types::ValueRef};

use super::{
    block::Block,
    checksum::Checksum,
    file::{self, OpenError},
    tables::{
        LAST_POSITION,
        logs::{self, Filing, LogRow},
        segments, snapshots,
    },
};
use crate::{
    ProducerState, Record, Snapshot,
    rules::{Header, Producers, Stored},
};

/// The schema that is read here.
pub(super) const FROM: i32 = 1;

/// Brings a database of the old schema to the new one. Whoever calls it has the lock, and no connection.
pub(super) fn migrate(path: &Path) -> Result<(), OpenError> {
    let failed = |source| file::refine(path, source);
    let io = |source| OpenError::Io { path: path.to_owned(), source };
    let new = beside(path);
    // What a migration that was killed has left.
    remove_all(&new).map_err(io)?;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let old = Connection::open_with_flags(path, flags).map_err(failed)?;
    let target = Connection::open_with_flags(&new, flags | OpenFlags::SQLITE_OPEN_CREATE).map_err(failed)?;
    file::create(&target).map_err(failed)?;
    target.execute_batch("BEGIN IMMEDIATE").map_err(failed)?;
    copy(&old, &target).map_err(failed)?.map_err(|Damaged| {
        file::damaged(
            path,
            "it is of an older schema, and is damaged: what is left is read by the version that wrote it",
        )
    })?;
    target.execute_batch("COMMIT").map_err(failed)?;
    // Both are one file each then: a log of the old one must not be taken for one of the new.
    for conn in [old, target] {
        conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).map_err(failed)?;
        conn.close().map_err(|(_, source)| failed(source))?;
    }
    for suffix in ["-wal", "-shm"] {
        remove(&with_suffix(path, suffix)).map_err(io)?;
    }
    fs::set_permissions(&new, path.metadata().map_err(io)?.permissions()).map_err(io)?;
    File::open(&new).and_then(|new| new.sync_all()).map_err(io)?;
    fs::rename(&new, path).map_err(io)?;
    sync_folder(path).map_err(io)
}

/// Something does not match its checksum.
struct Damaged;

fn copy(old: &Connection, new: &Connection) -> rusqlite::Result<Result<(), Damaged>> {
    let mut select =
        old.prepare("SELECT id, name, epoch, floor, head, newest, events, bytes, crc FROM logs ORDER BY id")?;
    let mut rows = select.query([])?;
    while let Some(row) = rows.next()? {
        let Ok((id, log, header)) = read_log(row) else { return Ok(Err(Damaged)) };
        let Ok(producers) = read_producers(old, id)? else { return Ok(Err(Damaged)) };
        let Some(new_id) = logs::insert(new, &log, &header)? else { return Ok(Err(Damaged)) };
        let Ok(filing) = copy_events(old, id, new, new_id, &header)? else { return Ok(Err(Damaged)) };
        logs::update(new, &LogRow { id: new_id, log, header, producers, filing })?;
        match read_snapshot(old, id)? {
            Some(Ok(snapshot)) => snapshots::put(new, new_id, &snapshot)?,
            Some(Err(Damaged)) => {
                let log = &row.get::<_, String>(1)?;
                tracing::warn!(
                    log,
                    "a damaged snapshot was left out: its owner makes it again from the events"
                );
            }
            None => {}
        }
    }
    Ok(Ok(()))
}

/// Files everything that is kept, and counts it.
fn copy_events(
    old: &Connection,
    id: i64,
    new: &Connection,
    new_id: i64,
    header: &Header,
) -> rusqlite::Result<Result<Filing, Damaged>> {
    let mut filing = Filing { begins: header.floor, filed: header.floor, ..Filing::default() };
    let mut select = old.prepare(&format!(
        "SELECT seq, kind, key, session, crc, envelope FROM events_{id} WHERE seq > ?1 ORDER BY seq"
    ))?;
    let mut rows = select.query([header.floor.get().cast_signed()])?;
    let (mut block, mut in_block, mut last, mut events) = (Block::default(), 0, header.floor, 0);
    let mut file = |block: &mut Block, last: Seq| {
        segments::put(new, new_id, filing.filed, last, block)?;
        *block = Block::default();
        filing.filed = last;
        Ok::<_, rusqlite::Error>(())
    };
    while let Some(row) = rows.next()? {
        if in_block == segments::EVENTS || block.len() >= segments::BYTES {
            file(&mut block, last)?;
            in_block = 0;
        }
        let seq = Seq::new(row.get::<_, i64>(0)?.cast_unsigned());
        // A damaged event stays one: what is around it can be read.
        let (stored, is_damaged) = match read_event(id, seq, row) {
            Ok(stored) => (stored, false),
            Err(Damaged) => (unreadable(seq), true),
        };
        if seq <= last || seq > header.head || seq > LAST_POSITION {
            return Ok(Err(Damaged));
        }
        block.push(new_id, &stored, is_damaged);
        (in_block, last, events) = (in_block + 1, seq, events + 1);
    }
    if in_block > 0 {
        file(&mut block, last)?;
    }
    Ok(if events == header.events { Ok(filing) } else { Err(Damaged) })
}

fn unreadable(seq: Seq) -> Stored {
    let record = Record { seq, kind: "damaged".into(), key: None, envelope: Bytes::new() };
    Stored { record, session: None, tombstone: false }
}

fn read_log(row: &Row<'_>) -> Result<(i64, LogId, Header), Damaged> {
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
    let crc = Checksum::new(id)
        .text(Some(&name))
        .text(Some(header.epoch.as_str()))
        .number(header.floor.get())
        .number(header.head.get())
        .number(header.newest.map_or(i64::MIN, Timestamp::unix_ms).cast_unsigned())
        .number(header.events)
        .number(header.bytes)
        .finish();
    if number(8)? != u64::from(crc) {
        return Err(Damaged);
    }
    Ok((id, name.parse().map_err(|_| Damaged)?, header))
}

fn read_producers(old: &Connection, id: i64) -> rusqlite::Result<Result<Producers, Damaged>> {
    let mut select = old.prepare("SELECT producer, generation, acked, crc FROM producers WHERE log = ?1")?;
    let rows = select.query_map([id], |row| {
        let name = row.get::<_, String>(0)?;
        let (generation, acked) =
            (row.get::<_, i64>(1)?.cast_unsigned(), row.get::<_, i64>(2)?.cast_unsigned());
        let crc = Checksum::new(id).text(Some(&name)).number(generation).number(acked).finish();
        let producer: Option<ProducerId> = name.parse().ok().filter(|_| row.get::<_, u32>(3) == Ok(crc));
        Ok(producer.map(|producer| ProducerState { producer, generation, acked }).ok_or(Damaged))
    })?;
    let states = rows.collect::<rusqlite::Result<Result<Vec<_>, _>>>()?;
    Ok(states.map(Producers::restore))
}

fn read_snapshot(old: &Connection, id: i64) -> rusqlite::Result<Option<Result<Snapshot, Damaged>>> {
    let mut select = old.prepare("SELECT seq, data, crc FROM snapshots WHERE log = ?1")?;
    let mut rows = select.query([id])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    let seq = Seq::new(row.get::<_, i64>(0)?.cast_unsigned());
    let data = row.get_ref(1)?.as_blob().map(Bytes::copy_from_slice).unwrap_or_default();
    let crc = Checksum::new(id).number(seq.get()).bytes(Some(&data)).finish();
    Ok(Some(if row.get::<_, u32>(2) == Ok(crc) { Ok(Snapshot { seq, data }) } else { Err(Damaged) }))
}

fn read_event(id: i64, seq: Seq, row: &Row<'_>) -> Result<Stored, Damaged> {
    let bytes = |at| match row.get_ref(at) {
        Ok(ValueRef::Null) => Ok(None),
        Ok(ValueRef::Text(bytes) | ValueRef::Blob(bytes)) => Ok(Some(bytes)),
        Ok(ValueRef::Integer(_) | ValueRef::Real(_)) | Err(_) => Err(Damaged),
    };
    let (kind, key, session, envelope) = (bytes(1)?, bytes(2)?, bytes(3)?, bytes(5)?);
    let crc =
        Checksum::new(id).number(seq.get()).bytes(kind).bytes(key).bytes(session).bytes(envelope).finish();
    if row.get::<_, i64>(4) != Ok(i64::from(crc)) {
        return Err(Damaged);
    }
    let text = |bytes| str::from_utf8(bytes).map_err(|_| Damaged);
    let kind = text(kind.ok_or(Damaged)?)?;
    let key = key.map(text).transpose()?.map(Key::new);
    let tombstone = key.is_some() && Effect::of(kind) == Effect::Remove;
    let envelope = Bytes::copy_from_slice(envelope.ok_or(Damaged)?);
    let session = session.map(text).transpose()?.map(Into::into);
    Ok(Stored { record: Record { seq, kind: kind.into(), key, envelope }, session, tombstone })
}

/// Where the new database is made.
fn beside(path: &Path) -> PathBuf {
    with_suffix(path, ".migrating")
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

fn remove_all(path: &Path) -> io::Result<()> {
    ["", "-wal", "-shm"].iter().try_for_each(|suffix| remove(&with_suffix(path, suffix)))
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// So that the new name survives the loss of power too.
fn sync_folder(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(folder) if cfg!(unix) => File::open(folder)?.sync_all(),
        Some(_) | None => Ok(()),
    }
}
