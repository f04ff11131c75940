//! Marks of filed events that no read returns any more. A mark goes when its event goes.

use protocol::Seq;
use rusqlite::{Connection, params};

use super::{log_of, place, places, seq_of};
use crate::sqlite::checksum::Checksum;

/// A mark does not match its checksum.
#[derive(Debug)]
pub(in crate::sqlite) struct Damaged;

/// Marks an event.
pub(in crate::sqlite) fn insert(conn: &Connection, log: i64, seq: Seq) -> rusqlite::Result<()> {
    let id = place(log, seq);
    conn.prepare_cached("INSERT OR REPLACE INTO obsolete (id, crc) VALUES (?1, ?2)")?
        .execute(params![id, Checksum::new(id).finish()])?;
    Ok(())
}

/// Deletes the marks of the positions after the one and up to the other.
pub(in crate::sqlite) fn delete(conn: &Connection, log: i64, after: Seq, last: Seq) -> rusqlite::Result<()> {
    conn.prepare_cached("DELETE FROM obsolete WHERE id > ?1 AND id <= ?2")?
        .execute(params![place(log, after), place(log, last)])?;
    Ok(())
}

/// Deletes the marks of a log.
pub(in crate::sqlite) fn clear(conn: &Connection, log: i64) -> rusqlite::Result<()> {
    let (first, last) = places(log);
    conn.prepare_cached("DELETE FROM obsolete WHERE id BETWEEN ?1 AND ?2")?.execute([first, last])?;
    Ok(())
}

/// Every mark, as log and position, in order.
pub(in crate::sqlite) fn all(conn: &Connection) -> rusqlite::Result<Result<Vec<(i64, Seq)>, Damaged>> {
    let mut select = conn.prepare("SELECT id, crc FROM obsolete ORDER BY id")?;
    let marks = select.query_map([], |row| {
        let (id, crc) = (row.get::<_, i64>(0)?, row.get_ref(1)?.as_i64());
        let is_whole = crc == Ok(i64::from(Checksum::new(id).finish()));
        Ok(if is_whole { Ok((log_of(id), seq_of(id))) } else { Err(Damaged) })
    })?;
    marks.collect()
}
