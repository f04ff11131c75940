//! The newest snapshot of each log.

use bytes::Bytes;
use protocol::Seq;
use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::{Snapshot, sqlite::checksum::Checksum};

/// It does not match its checksum.
#[derive(Debug)]
pub(in crate::sqlite) struct Damaged {
    pub(in crate::sqlite) seq: Seq,
}

/// Puts the newest snapshot of a log.
pub(in crate::sqlite) fn put(conn: &Connection, log: i64, snapshot: &Snapshot) -> rusqlite::Result<()> {
    let Snapshot { seq, data } = snapshot;
    conn.prepare_cached("INSERT OR REPLACE INTO snapshots (log, seq, crc, data) VALUES (?1, ?2, ?3, ?4)")?
        .execute(params![log, seq.get().cast_signed(), crc(log, *seq, data), &data[..]])?;
    Ok(())
}

/// The newest snapshot of a log.
pub(in crate::sqlite) fn find(
    conn: &Connection,
    log: i64,
) -> rusqlite::Result<Result<Option<Snapshot>, Damaged>> {
    let mut select = conn.prepare_cached("SELECT seq, crc, data FROM snapshots WHERE log = ?1")?;
    let found = select.query_row([log], |row| Ok(read(log, row))).optional()?;
    Ok(found.transpose())
}

/// Deletes the snapshot of a log.
pub(in crate::sqlite) fn delete(conn: &Connection, log: i64) -> rusqlite::Result<()> {
    conn.prepare_cached("DELETE FROM snapshots WHERE log = ?1")?.execute([log])?;
    Ok(())
}

fn read(log: i64, row: &Row<'_>) -> Result<Snapshot, Damaged> {
    let seq = Seq::new(row.get::<_, i64>(0).unwrap_or_default().cast_unsigned());
    let data = row.get_ref(2).ok().and_then(|value| value.as_blob().ok()).ok_or(Damaged { seq })?;
    if row.get::<_, u32>(1).ok() != Some(crc(log, seq, data)) {
        return Err(Damaged { seq });
    }
    Ok(Snapshot { seq, data: Bytes::copy_from_slice(data) })
}

fn crc(log: i64, seq: Seq, data: &[u8]) -> u32 {
    Checksum::new(log).number(seq.get()).bytes(Some(data)).finish()
}
