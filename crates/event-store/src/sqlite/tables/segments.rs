//! Filed events: up to [`EVENTS`] of one log in a row, as they are read. The segments of a log tile the positions that
//! are filed: each says where the one before it ended, so whoever walks them sees that one is missing.

use bytes::Bytes;
use protocol::Seq;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::{logs::Filing, place, places, seq_of};
use crate::{
    rules::Entry,
    sqlite::{
        block::{self, Block, Item},
        checksum::Checksum,
    },
};

/// Events in a segment at most.
pub(in crate::sqlite) const EVENTS: usize = 64;
/// Bytes after which a segment takes no more.
pub(in crate::sqlite) const BYTES: usize = 64 * 1024;

/// Events of a log that lie together.
#[derive(Debug)]
pub(in crate::sqlite) struct Segment {
    /// It covers the positions after this
    pub(in crate::sqlite) after: Seq,
    /// and up to this: what is not among its events was obsolete when it was written.
    pub(in crate::sqlite) last: Seq,
    /// `None` if its entries are damaged: any of the positions it covers may be one of an event.
    pub(in crate::sqlite) items: Option<Vec<Item>>,
}

/// A segment is missing, or is not where it should be.
#[derive(Debug)]
pub(in crate::sqlite) struct Broken;

const COLUMNS: &str = "id, after, last, crc, entries";

/// Writes a segment that covers the positions after the one and up to the other, in place of one that began there.
pub(in crate::sqlite) fn put(
    conn: &Connection,
    log: i64,
    after: Seq,
    last: Seq,
    block: &Block,
) -> rusqlite::Result<()> {
    let Block { entries, envelopes } = block;
    let id = place(log, after.next());
    conn.prepare_cached(
        "INSERT OR REPLACE INTO segments (id, after, last, crc, entries, envelopes) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )?
    .execute(params![
        id,
        after.get().cast_signed(),
        last.get().cast_signed(),
        crc(id, after, last, entries),
        entries,
        envelopes
    ])?;
    Ok(())
}

/// Deletes the segment that begins after this position.
pub(in crate::sqlite) fn delete(conn: &Connection, log: i64, after: Seq) -> rusqlite::Result<()> {
    conn.prepare_cached("DELETE FROM segments WHERE id = ?1")?.execute([place(log, after.next())])?;
    Ok(())
}

/// Deletes the segments that lie wholly at or below the floor; gives the position up to which it did.
pub(in crate::sqlite) fn prune(conn: &Connection, log: i64, floor: Seq) -> rusqlite::Result<Option<Seq>> {
    let (first, _) = places(log);
    let mut delete =
        conn.prepare_cached("DELETE FROM segments WHERE id BETWEEN ?1 AND ?2 AND last <= ?3 RETURNING last")?;
    let mut lasts = delete.query(params![first, place(log, floor), floor.get().cast_signed()])?;
    let mut through = None;
    while let Some(row) = lasts.next()? {
        through = through.max(Some(Seq::new(row.get::<_, i64>(0)?.cast_unsigned())));
    }
    Ok(through)
}

/// Deletes every segment of a log.
pub(in crate::sqlite) fn clear(conn: &Connection, log: i64) -> rusqlite::Result<()> {
    let (first, last) = places(log);
    conn.prepare_cached("DELETE FROM segments WHERE id BETWEEN ?1 AND ?2")?.execute([first, last])?;
    Ok(())
}

/// The segment that covers this position, if it is there.
pub(in crate::sqlite) fn covering(
    conn: &Connection,
    log: i64,
    seq: Seq,
) -> rusqlite::Result<Option<Segment>> {
    let (first, _) = places(log);
    let mut find = conn.prepare_cached(&format!(
        "SELECT {COLUMNS}, envelopes FROM segments WHERE id BETWEEN ?1 AND ?2 ORDER BY id DESC LIMIT 1"
    ))?;
    let segment = find.query_row([first, place(log, seq)], |row| Ok(read(log, row))).optional()?;
    Ok(segment.and_then(Result::ok).filter(|segment| segment.last >= seq))
}

/// Gives the segments that cover positions after this one to `each`, in order, until it has enough; says whether it left
/// some.
pub(in crate::sqlite) fn walk(
    conn: &Connection,
    log: i64,
    filing: Filing,
    after: Seq,
    mut each: impl FnMut(Segment) -> bool,
) -> rusqlite::Result<Result<bool, Broken>> {
    if after >= filing.filed {
        return Ok(Ok(false));
    }
    let (first, last) = places(log);
    // The last one that begins at or before the position, or else the first: whether it is the right one shows in the
    // walk.
    let start: i64 = conn
        .prepare_cached("SELECT coalesce(max(id), ?1) FROM segments WHERE id BETWEEN ?1 AND ?2")?
        .query_row([first, place(log, after.next())], |row| row.get(0))?;
    let mut select = conn.prepare_cached(&format!(
        "SELECT {COLUMNS}, envelopes FROM segments WHERE id BETWEEN ?1 AND ?2 ORDER BY id"
    ))?;
    let mut rows = select.query([start, last])?;
    let mut end = None;
    while let Some(row) = rows.next()? {
        let Ok(segment) = read(log, row) else { return Ok(Err(Broken)) };
        let is_next = match end {
            Some(end) => segment.after == end,
            None => {
                segment.after == filing.begins || (segment.after > filing.begins && segment.after <= after)
            }
        };
        if !is_next {
            return Ok(Err(Broken));
        }
        end = Some(segment.last);
        if segment.last > after && !each(segment) {
            return Ok(Ok(end != Some(filing.filed)));
        }
    }
    Ok(if end == Some(filing.filed) { Ok(false) } else { Err(Broken) })
}

/// What the index needs of every filed event, without the payloads. Events of a damaged segment are left out: they are
/// never read, so nothing has to make them obsolete.
pub(in crate::sqlite) fn entries(
    conn: &Connection,
    log: i64,
    filing: Filing,
) -> rusqlite::Result<Result<Vec<Entry>, Broken>> {
    let (first, last) = places(log);
    let mut select = conn
        .prepare_cached(&format!("SELECT {COLUMNS} FROM segments WHERE id BETWEEN ?1 AND ?2 ORDER BY id"))?;
    let mut rows = select.query([first, last])?;
    let (mut found, mut end) = (Vec::new(), filing.begins);
    while let Some(row) = rows.next()? {
        let Ok((after, segment_end, entries)) = read_entries(row) else { return Ok(Err(Broken)) };
        if after != end {
            return Ok(Err(Broken));
        }
        end = segment_end;
        found.extend(entries.and_then(|entries| block::decode_entries(entries).ok()).unwrap_or_default());
    }
    Ok(if end == filing.filed { Ok(found) } else { Err(Broken) })
}

fn read(log: i64, row: &Row<'_>) -> Result<Segment, Broken> {
    let (after, last, entries) = read_entries(row)?;
    let envelopes = row.get_ref(5).ok().and_then(|value| value.as_blob().ok());
    let items = entries.zip(envelopes).and_then(|(entries, envelopes)| {
        block::decode(log, entries, &Bytes::copy_from_slice(envelopes)).ok()
    });
    Ok(Segment { after, last, items })
}

/// What a segment covers, and its entries if they are whole. Where it begins is also in its id, and where it ends is
/// where the next one begins, so that damage to these shows.
fn read_entries<'a>(row: &'a Row<'_>) -> Result<(Seq, Seq, Option<&'a [u8]>), Broken> {
    let number = |at| row.get::<_, i64>(at).map_err(|_| Broken);
    let id = number(0)?;
    let (after, last) = (Seq::new(number(1)?.cast_unsigned()), Seq::new(number(2)?.cast_unsigned()));
    if after.get().checked_add(1) != Some(seq_of(id).get()) || last <= after {
        return Err(Broken);
    }
    let entries = row.get_ref(4).ok().and_then(|value| value.as_blob().ok());
    let expected = row.get_ref(3).ok().and_then(|value| value.as_i64().ok());
    let is_whole = |entries: &&[u8]| expected == Some(i64::from(crc(id, after, last, entries)));
    Ok((after, last, entries.filter(is_whole)))
}

fn crc(id: i64, after: Seq, last: Seq, entries: &[u8]) -> u32 {
    Checksum::new(id).number(after.get()).number(last.get()).bytes(Some(entries)).finish()
}
