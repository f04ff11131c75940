//! What a store knows when it opens: each log as of its last filing, brought up to date by the journal. The segments are
//! not looked at, so that it takes as long as the journal is bounded, however much there is.

use std::{collections::HashMap, path::Path};

use protocol::Seq;
use rusqlite::Connection;

use super::{
    file::{self, OpenError},
    filing::{Backlog, Waiting},
    live::{Kept, LiveLogs},
    tables::{journal, logs, obsolete},
};

/// Shows every log, and gives what the journal holds.
pub(super) fn recover(
    path: &Path,
    conn: &Connection,
    live: &LiveLogs,
    journal_bytes: u64,
) -> Result<Backlog, OpenError> {
    let failed = |source| file::refine(path, source);
    check_tables(conn).map_err(failed)?.map_err(|table| file::damaged(path, table))?;
    let mut kept = HashMap::new();
    let rows = logs::all(conn).map_err(failed)?;
    let rows = rows
        .map_err(|logs::Damaged| file::damaged(path, "what it says of a log does not match its checksum"))?;
    let mut newest = 0;
    for row in rows {
        newest = newest.max(row.filing.journaled);
        kept.insert(row.id, Kept::of(row));
    }
    let marks = obsolete::all(conn).map_err(failed)?;
    let marks =
        marks.map_err(|obsolete::Damaged| file::damaged(path, "a mark of an obsolete event is wrong"))?;
    for (log, seq) in marks {
        let kept = kept.get_mut(&log).ok_or_else(|| file::damaged(path, "a mark is of no log"))?;
        kept.obsolete.insert(seq);
    }
    let mut appends = Vec::new();
    let scanned = journal::scan(conn, |append| {
        let last = append.items.last().map_or(Seq::ZERO, |item| item.stored.record.seq);
        appends.push((append.id, append.log, last, append.bytes));
        // Those of logs that were removed stay until it is their turn.
        if let Some(kept) = kept.get_mut(&append.log) {
            kept.replay(append);
        }
    });
    scanned.map_err(failed)?.map_err(|journal::Damaged| file::damaged(path, "its journal is damaged"))?;
    let by_id: HashMap<_, _> = kept.into_iter().map(|(id, kept)| (id, live.restore(kept))).collect();
    let mut backlog = Backlog::new(journal_bytes);
    let gone = LiveLogs::gone();
    if let Some((first, ..)) = appends.first() {
        backlog.go_on_from(*first);
    } else {
        backlog.go_on_from(newest + 1);
    }
    for (_, log, last, bytes) in appends {
        let live = by_id.get(&log).unwrap_or(&gone).clone();
        backlog.push(Waiting { live, log, last, bytes });
    }
    Ok(backlog)
}

/// That no row of the small tables vanished with a part of its tree. Segments are checked as they are read.
fn check_tables(conn: &Connection) -> rusqlite::Result<Result<(), &'static str>> {
    for (table, damage) in [
        ("logs", "its list of logs is damaged"),
        ("journal", "its journal is damaged"),
        ("obsolete", "its marks of obsolete events are damaged"),
    ] {
        let verdict: String =
            conn.query_row(&format!("PRAGMA quick_check({table})"), [], |row| row.get(0))?;
        if verdict != "ok" {
            return Ok(Err(damage));
        }
    }
    Ok(Ok(()))
}
