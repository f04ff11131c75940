//! The newest appends of all logs, in commit order. Ids count up by one, so a row that is missing is noticed.

use std::iter;

use bytes::Bytes;
use protocol::{Epoch, Seq, Timestamp};
use rusqlite::{Connection, Row, params};

use crate::{
    ProducerState,
    rules::Header,
    sqlite::{
        block::{self, Block, Item},
        checksum::Checksum,
    },
};

/// What one append did, to be written.
#[derive(Debug)]
pub(in crate::sqlite) struct Appending<'a> {
    pub(in crate::sqlite) id: i64,
    pub(in crate::sqlite) log: i64,
    /// The log after it.
    pub(in crate::sqlite) header: &'a Header,
    /// The newest producer, if it is another than before.
    pub(in crate::sqlite) producer: Option<&'a ProducerState>,
    /// Positions that were in the journal and that no read returns from here on.
    pub(in crate::sqlite) obsolete: &'a [Seq],
    pub(in crate::sqlite) block: &'a Block,
}

/// What one append did, as it is read back.
#[derive(Debug)]
pub(in crate::sqlite) struct JournalRow {
    pub(in crate::sqlite) id: i64,
    pub(in crate::sqlite) log: i64,
    /// Its epoch is in the log's own row, and empty here.
    pub(in crate::sqlite) header: Header,
    pub(in crate::sqlite) producer: Option<ProducerState>,
    pub(in crate::sqlite) obsolete: Vec<Seq>,
    pub(in crate::sqlite) items: Vec<Item>,
    /// Bytes of its events here.
    pub(in crate::sqlite) bytes: u64,
}

/// The row does not match its checksum, or one before it is missing.
#[derive(Debug)]
pub(in crate::sqlite) struct Damaged;

/// Adds a row at the end.
pub(in crate::sqlite) fn insert(conn: &Connection, row: &Appending<'_>) -> rusqlite::Result<()> {
    let &Appending { id, log, header, producer, obsolete, block: Block { entries, envelopes } } = row;
    let obsolete: Vec<u8> = obsolete.iter().flat_map(|seq| seq.get().to_le_bytes()).collect();
    let Header { epoch: _, floor, head, newest, events, bytes } = header;
    conn.prepare_cached(
        "INSERT INTO journal (id, log, floor, head, newest, events, bytes, producer, generation, acked, crc, obsolete,
             entries, envelopes)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)",
    )?
    .execute(params![
        id,
        log,
        floor.get().cast_signed(),
        head.get().cast_signed(),
        newest.map(Timestamp::unix_ms),
        events.cast_signed(),
        bytes.cast_signed(),
        producer.map(|p| p.producer.as_str()),
        producer.map_or(0, |p| p.generation).cast_signed(),
        producer.map_or(0, |p| p.acked).cast_signed(),
        crc(id, log, header, producer, &obsolete, entries),
        obsolete,
        entries,
        envelopes,
    ])?;
    Ok(())
}

/// Deletes the rows before this one.
pub(in crate::sqlite) fn delete_before(conn: &Connection, id: i64) -> rusqlite::Result<()> {
    conn.prepare_cached("DELETE FROM journal WHERE id < ?1")?.execute([id])?;
    Ok(())
}

/// Gives every row, in order, to `each`, until one is damaged.
pub(in crate::sqlite) fn scan(
    conn: &Connection,
    mut each: impl FnMut(JournalRow),
) -> rusqlite::Result<Result<(), Damaged>> {
    let mut statement = conn.prepare(
        "SELECT id, log, floor, head, newest, events, bytes, producer, generation, acked, crc, obsolete, entries,
             envelopes
         FROM journal ORDER BY id",
    )?;
    let mut rows = statement.query([])?;
    let mut next = None;
    while let Some(row) = rows.next()? {
        match read(row) {
            Ok(row) if next.is_none_or(|next| row.id == next) => {
                next = Some(row.id + 1);
                each(row);
            }
            Ok(_) | Err(Damaged) => return Ok(Err(Damaged)),
        }
    }
    Ok(Ok(()))
}

fn read(row: &Row<'_>) -> Result<JournalRow, Damaged> {
    let signed = |at| row.get::<_, i64>(at).map_err(|_| Damaged);
    let number = |at| signed(at).map(i64::cast_unsigned);
    let blob = |at| row.get_ref(at).ok().and_then(|value| value.as_blob().ok()).ok_or(Damaged);
    let (id, log) = (signed(0)?, signed(1)?);
    let header = Header {
        epoch: Epoch::new(""),
        floor: Seq::new(number(2)?),
        head: Seq::new(number(3)?),
        newest: row.get::<_, Option<i64>>(4).map_err(|_| Damaged)?.map(Timestamp::from_unix_ms),
        events: number(5)?,
        bytes: number(6)?,
    };
    let producer = match row.get::<_, Option<String>>(7).map_err(|_| Damaged)? {
        Some(name) => {
            let producer = name.parse().map_err(|_| Damaged)?;
            Some(ProducerState { producer, generation: number(8)?, acked: number(9)? })
        }
        None => None,
    };
    let (obsolete, entries, envelopes) = (blob(11)?, blob(12)?, blob(13)?);
    if number(10)? != u64::from(crc(id, log, &header, producer.as_ref(), obsolete, entries)) {
        return Err(Damaged);
    }
    let bytes = (entries.len() + envelopes.len()) as u64;
    let items = block::decode(log, entries, &Bytes::copy_from_slice(envelopes)).map_err(|_| Damaged)?;
    let mut rest = obsolete;
    let obsolete = iter::from_fn(|| {
        let (seq, left) = rest.split_first_chunk()?;
        rest = left;
        Some(Seq::new(u64::from_le_bytes(*seq)))
    });
    Ok(JournalRow { id, log, header, producer, obsolete: obsolete.collect(), items, bytes })
}

fn crc(
    id: i64,
    log: i64,
    header: &Header,
    producer: Option<&ProducerState>,
    obsolete: &[u8],
    entries: &[u8],
) -> u32 {
    let Header { epoch: _, floor, head, newest, events, bytes } = header;
    Checksum::new(log)
        .number(id.cast_unsigned())
        .number(floor.get())
        .number(head.get())
        .number(newest.map_or(i64::MIN, Timestamp::unix_ms).cast_unsigned())
        .number(*events)
        .number(*bytes)
        .text(producer.map(|p| p.producer.as_str()))
        .number(producer.map_or(0, |p| p.generation))
        .number(producer.map_or(0, |p| p.acked))
        .bytes(Some(obsolete))
        .bytes(Some(entries))
        .finish()
}
