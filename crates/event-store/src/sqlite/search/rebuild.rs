//! Making the index anew from the logs: for a store that an older version wrote, and after damage.

use std::path::Path;

use protocol::{LogId, Seq, Timestamp};
use rusqlite::{Connection, params};

use super::{SCHEMA, text_of, words_of};
use crate::{
    OpenError, ReadError, Record,
    sqlite::{
        file,
        live::LiveLogs,
        verify::{self, each_event},
    },
};

/// Has the index of a store made anew when it is opened the next time. It must not be open.
///
/// # Errors
/// When the store is open, or the file is none.
pub fn forget_search_index(path: &Path) -> Result<(), OpenError> {
    drop(verify::connect(path)?);
    let lock = file::lock(path)?;
    let failed = |source| file::refine(path, source);
    let conn = Connection::open(path).map_err(failed)?;
    conn.execute_batch("DROP TABLE IF EXISTS search_state").map_err(failed)?;
    drop(lock);
    Ok(())
}

/// Why it was not made.
#[derive(Debug, thiserror::Error)]
pub(super) enum RebuildError {
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// One transaction: it is made whole or not at all. What a log's order of commits was is not known any more, so the
/// texts come in the order of their times.
pub(super) fn rebuild(conn: &Connection, reader: &Connection, live: &LiveLogs) -> Result<(), RebuildError> {
    let tx = conn.unchecked_transaction()?;
    tx.execute_batch(
        "DROP TABLE IF EXISTS search_words; DROP TABLE IF EXISTS search_texts; DROP TABLE IF EXISTS search_state;",
    )?;
    tx.execute_batch(SCHEMA)?;
    let logs: Vec<(LogId, i64)> = live
        .list()
        .into_iter()
        .filter_map(|summary| Some((summary.log.clone(), live.id(&summary.log).ok()?)))
        .collect();
    let mut places: Vec<(Timestamp, i64, Seq)> = Vec::new();
    each_text(reader, live, &logs, |log, record| {
        if let Some((_, time)) = text_of(record) {
            places.push((time, log, record.seq));
        }
        Ok(())
    })?;
    places.sort_unstable();
    let mut ids: Vec<(i64, Seq, i64)> = (1..).zip(places).map(|(id, (_, log, seq))| (log, seq, id)).collect();
    ids.sort_unstable();
    each_text(reader, live, &logs, |log, record| {
        let found = ids.binary_search_by_key(&(log, record.seq), |(log, seq, _)| (*log, *seq));
        let (Ok(found), Some((text, time))) = (found, text_of(record)) else { return Ok(()) };
        let (id, seq) = (ids[found].2, record.seq.get().cast_signed());
        tx.prepare_cached("INSERT INTO search_texts (id, log, seq, kind, time) VALUES (?1, ?2, ?3, ?4, ?5)")?
            .execute(params![id, log, seq, text.kind.word(), time.unix_ms()])?;
        tx.prepare_cached("INSERT INTO search_words (rowid, words) VALUES (?1, ?2)")?
            .execute(params![id, words_of(&text)])?;
        Ok(())
    })?;
    tx.commit()?;
    Ok(())
}

/// Every event that can be read. One that is damaged is left out, and so is the rest of a log that cannot be walked:
/// whoever reads it is told.
fn each_text(
    reader: &Connection,
    live: &LiveLogs,
    logs: &[(LogId, i64)],
    mut each: impl FnMut(i64, &Record) -> rusqlite::Result<()>,
) -> Result<(), RebuildError> {
    for (log, id) in logs {
        let mut done = Ok(());
        let walked = each_event(reader, live, log, |event| {
            if let (Ok(record), Ok(())) = (event, &done) {
                done = each(*id, record);
            }
        });
        done?;
        if let Err(error) = walked {
            tracing::warn!(%log, %error, "a log cannot be read to its end, and is not searched whole");
        }
    }
    Ok(())
}
