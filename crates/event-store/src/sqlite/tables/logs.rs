//! What is known of each log as of its last filing.

use protocol::{Epoch, LogId, ProducerId, Seq, Timestamp};
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::LAST_LOG;
use crate::{
    ProducerState,
    rules::{Header, Producers},
    sqlite::checksum::Checksum,
};

/// A log's row.
#[derive(Debug, Clone)]
pub(in crate::sqlite) struct LogRow {
    /// Names the log in the other tables; never used again.
    pub(in crate::sqlite) id: i64,
    pub(in crate::sqlite) log: LogId,
    pub(in crate::sqlite) header: Header,
    pub(in crate::sqlite) producers: Producers,
    pub(in crate::sqlite) filing: Filing,
}

/// How far a log is in its segments.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::sqlite) struct Filing {
    /// Appends up to the one of this number are in the header.
    pub(in crate::sqlite) journaled: i64,
    /// The segments cover the positions after this
    pub(in crate::sqlite) begins: Seq,
    /// and up to this.
    pub(in crate::sqlite) filed: Seq,
    /// Counts the changes of the segments, so that a reader knows whether it saw those it was told of.
    pub(in crate::sqlite) filings: u64,
}

/// The row does not match its checksum.
#[derive(Debug)]
pub(in crate::sqlite) struct Damaged;

const COLUMNS: &str =
    "id, name, epoch, floor, head, newest, events, bytes, producers, journaled, begins, filed, filings, crc";

/// Every log, by name.
pub(in crate::sqlite) fn all(conn: &Connection) -> rusqlite::Result<Result<Vec<LogRow>, Damaged>> {
    let mut statement = conn.prepare(&format!("SELECT {COLUMNS} FROM logs ORDER BY name"))?;
    let rows = statement.query_map([], |row| Ok(read(row)))?;
    rows.collect()
}

/// A log by its id.
pub(in crate::sqlite) fn find(
    conn: &Connection,
    id: i64,
) -> rusqlite::Result<Option<Result<LogRow, Damaged>>> {
    let mut statement = conn.prepare_cached(&format!("SELECT {COLUMNS} FROM logs WHERE id = ?1"))?;
    statement.query_row([id], |row| Ok(read(row))).optional()
}

/// Makes the row of a log that has nothing; gives its id, `None` if there are no more.
pub(in crate::sqlite) fn insert(
    conn: &Connection,
    log: &LogId,
    header: &Header,
) -> rusqlite::Result<Option<i64>> {
    let mut insert = conn.prepare_cached(
        "INSERT INTO logs (name, epoch, floor, head, events, bytes, producers, journaled, begins, filed, filings, crc)
         VALUES (?1, '', 0, 0, 0, 0, '', 0, 0, 0, 0, 0) RETURNING id",
    )?;
    let id = insert.query_row([log.to_string()], |row| row.get(0))?;
    let (producers, filing) = (Producers::default(), Filing::default());
    update(conn, &LogRow { id, log: log.clone(), header: header.clone(), producers, filing })?;
    Ok((id <= LAST_LOG).then_some(id))
}

/// Writes the whole row.
pub(in crate::sqlite) fn update(conn: &Connection, row: &LogRow) -> rusqlite::Result<()> {
    let LogRow { id, log, header, producers, filing } = row;
    let Header { epoch, floor, head, newest, events, bytes } = header;
    let (name, producers) = (log.to_string(), encode(producers));
    conn.prepare_cached(
        "UPDATE logs SET epoch = ?2, floor = ?3, head = ?4, newest = ?5, events = ?6, bytes = ?7, producers = ?8,
             journaled = ?9, begins = ?10, filed = ?11, filings = ?12, crc = ?13 WHERE id = ?1",
    )?
    .execute(params![
        id,
        epoch.as_str(),
        floor.get().cast_signed(),
        head.get().cast_signed(),
        newest.map(Timestamp::unix_ms),
        events.cast_signed(),
        bytes.cast_signed(),
        producers,
        filing.journaled,
        filing.begins.get().cast_signed(),
        filing.filed.get().cast_signed(),
        filing.filings.cast_signed(),
        crc(*id, &name, header, &producers, *filing),
    ])?;
    Ok(())
}

/// Deletes the row.
pub(in crate::sqlite) fn delete(conn: &Connection, id: i64) -> rusqlite::Result<()> {
    conn.prepare_cached("DELETE FROM logs WHERE id = ?1")?.execute([id])?;
    Ok(())
}

fn read(row: &Row<'_>) -> Result<LogRow, Damaged> {
    let text = |at| row.get::<_, String>(at).map_err(|_| Damaged);
    let signed = |at| row.get::<_, i64>(at).map_err(|_| Damaged);
    let number = |at| signed(at).map(i64::cast_unsigned);
    let (id, name, producers) = (signed(0)?, text(1)?, text(8)?);
    let header = Header {
        epoch: Epoch::new(&text(2)?),
        floor: Seq::new(number(3)?),
        head: Seq::new(number(4)?),
        newest: row.get::<_, Option<i64>>(5).map_err(|_| Damaged)?.map(Timestamp::from_unix_ms),
        events: number(6)?,
        bytes: number(7)?,
    };
    let filing = Filing {
        journaled: signed(9)?,
        begins: Seq::new(number(10)?),
        filed: Seq::new(number(11)?),
        filings: number(12)?,
    };
    if number(13)? != u64::from(crc(id, &name, &header, &producers, filing)) {
        return Err(Damaged);
    }
    let producers = decode(&producers).ok_or(Damaged)?;
    Ok(LogRow { id, log: name.parse().map_err(|_| Damaged)?, header, producers, filing })
}

fn crc(id: i64, name: &str, header: &Header, producers: &str, filing: Filing) -> u32 {
    let Header { epoch, floor, head, newest, events, bytes } = header;
    let Filing { journaled, begins, filed, filings } = filing;
    Checksum::new(id)
        .text(Some(name))
        .text(Some(epoch.as_str()))
        .number(floor.get())
        .number(head.get())
        .number(newest.map_or(i64::MIN, Timestamp::unix_ms).cast_unsigned())
        .number(*events)
        .number(*bytes)
        .text(Some(producers))
        .number(journaled.cast_unsigned())
        .number(begins.get())
        .number(filed.get())
        .number(filings)
        .finish()
}

/// As JSON: `[["producer", generation, acked], …]`.
fn encode(producers: &Producers) -> String {
    let all: Vec<_> = producers.all().iter().map(|p| (p.producer.as_str(), p.generation, p.acked)).collect();
    serde_json::to_string(&all).expect("texts and numbers serialise")
}

fn decode(producers: &str) -> Option<Producers> {
    let all: Vec<(ProducerId, u64, u64)> = serde_json::from_str(producers).ok()?;
    let states =
        all.into_iter().map(|(producer, generation, acked)| ProducerState { producer, generation, acked });
    Some(Producers::restore(states.collect()))
}
