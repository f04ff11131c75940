//! Looking through a whole store: every event that reads return, whether its store is open or not.

mod words;

use std::{fmt, path::Path};

use protocol::{LogId, Seq};
use rusqlite::{Connection, OpenFlags};

use super::{
    OpenError,
    file::{self, APPLICATION_ID, SCHEMA_VERSION},
    live::LiveLogs,
    readers, recover,
    tables::snapshots,
};
use crate::{LogSummary, ReadError, ReadLimit, Record, StoreError};

/// What was looked through, and what was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// Logs.
    pub logs: u64,
    /// Events that can be read.
    pub events: u64,
    /// Bytes of their envelopes.
    pub bytes: u64,
    /// What is wrong; nothing, if all is well.
    pub findings: Vec<Finding>,
}

/// Something that is wrong with a store.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Finding {
    /// An event is damaged: it is never served, and the events around it are.
    Event {
        /// Its log.
        log: LogId,
        /// Its position.
        seq: Seq,
    },
    /// A log cannot be read to its end, or is not what its row says: every read and append of it fails.
    Log {
        /// The log.
        log: LogId,
        /// What is wrong.
        what: String,
    },
    /// The snapshot of a log is damaged: it is made anew from its events.
    Snapshot {
        /// The log.
        log: LogId,
    },
    /// The search index differs from the logs: the logs are not touched by that.
    SearchIndex {
        /// What is wrong.
        what: String,
    },
    /// The database itself is damaged.
    Database {
        /// What is wrong.
        what: String,
    },
}

impl Finding {
    /// What to do about it, in a sentence.
    #[must_use]
    pub fn advice(&self) -> &'static str {
        match self {
            Self::Event { .. } => {
                "the other events of the log are served; restore a backup to have this one again"
            }
            Self::Log { .. } | Self::Database { .. } => "stop the server and restore a backup",
            Self::Snapshot { .. } => "nothing: it is made anew",
            Self::SearchIndex { .. } => "run `gastown verify --rebuild-search` while the server is stopped",
        }
    }
}

impl Finding {
    /// The log and the event that it is about.
    #[must_use]
    pub fn place(&self) -> (Option<&LogId>, Option<Seq>) {
        match self {
            Self::Event { log, seq } => (Some(log), Some(*seq)),
            Self::Log { log, .. } | Self::Snapshot { log } => (Some(log), None),
            Self::SearchIndex { .. } | Self::Database { .. } => (None, None),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Event { log, seq } => write!(f, "event {seq} of {log} is damaged"),
            Self::Log { log, what } => write!(f, "{log}: {what}"),
            Self::Snapshot { log } => write!(f, "the snapshot of {log} is damaged"),
            Self::SearchIndex { what } => write!(f, "the search index: {what}"),
            Self::Database { what } => write!(f, "the database: {what}"),
        }
    }
}

/// Looks through the store in this file, as of one commit, and says after each log how many of how many are done. Another
/// process, or this one, may have it open: nothing is written, and nothing waits.
///
/// # Errors
/// When the file is no event store or cannot be read at all. What is damaged is in the [`Report`].
pub fn verify(path: &Path, mut progress: impl FnMut(u64, u64)) -> Result<Report, OpenError> {
    let conn = connect(path)?;
    let failed = |source| file::refine(path, source);
    conn.execute_batch("BEGIN").map_err(failed)?;
    let mut report = Report::default();
    let live = LiveLogs::new(super::HotLimit { events: 0, bytes: 0 });
    match recover::recover(path, &conn, &live, u64::MAX) {
        Ok(_) => {}
        Err(OpenError::Damaged { what, source, .. }) => {
            let source = source.map(|source| format!(": {source}")).unwrap_or_default();
            report.findings.push(Finding::Database { what: format!("{what}{source}") });
            return Ok(report);
        }
        Err(error) => return Err(error),
    }
    let mut texts = words::Expected::default();
    let logs = live.list();
    report.logs = logs.len() as u64;
    for (done, summary) in (0..).zip(&logs) {
        progress(done, report.logs);
        check_log(&conn, &live, summary, &mut texts, &mut report);
    }
    progress(report.logs, report.logs);
    check_pages(&conn, &mut report);
    let found = texts.check(&conn).unwrap_or_else(|error| vec![error.to_string()]);
    report.findings.extend(found.into_iter().map(|what| Finding::SearchIndex { what }));
    Ok(report)
}

/// A connection that reads a database of this schema.
pub(super) fn connect(path: &Path) -> Result<Connection, OpenError> {
    let failed = |source| file::refine(path, source);
    path.metadata().map_err(|source| OpenError::Io { path: path.to_owned(), source })?;
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(path, flags).map_err(failed)?;
    conn.execute_batch("PRAGMA cell_size_check=ON").map_err(failed)?;
    let pragma = |name| conn.pragma_query_value(None, name, |row| row.get::<_, i32>(0)).map_err(failed);
    match (pragma("application_id")?, pragma("user_version")?) {
        (APPLICATION_ID, SCHEMA_VERSION) => Ok(conn),
        (APPLICATION_ID, found) if found > SCHEMA_VERSION => {
            Err(OpenError::NewerSchema { path: path.to_owned(), found, supported: SCHEMA_VERSION })
        }
        (APPLICATION_ID, _) => Err(file::damaged(path, "an older version wrote it: start the server once")),
        _ => Err(OpenError::NotAStore { path: path.to_owned() }),
    }
}

fn check_log(
    conn: &Connection,
    live: &LiveLogs,
    summary: &LogSummary,
    texts: &mut words::Expected,
    report: &mut Report,
) {
    let LogSummary { log, bounds, events, bytes } = summary;
    let Ok(id) = live.id(log) else { return };
    texts.add_log(id, log, bounds.floor);
    let (mut found, mut found_bytes, mut highest, mut damaged) = (0, 0, bounds.floor, false);
    let wrong = |report: &mut Report, what: String| {
        report.findings.push(Finding::Log { log: log.clone(), what });
    };
    let walked = each_event(conn, live, log, |event| {
        let seq = event.map_or_else(|seq| seq, |record| record.seq);
        if seq <= highest || seq > bounds.head {
            wrong(report, format!("event {seq} is out of order"));
        }
        highest = seq;
        match event {
            Ok(record) if is_consistent(record) => {
                found += 1;
                found_bytes += record.envelope.len() as u64;
                texts.add(id, record);
            }
            Ok(_) | Err(_) => {
                damaged = true;
                report.findings.push(Finding::Event { log: log.clone(), seq });
            }
        }
    });
    if let Err(error) = walked {
        let error: &dyn std::error::Error = &error;
        let cause = error.source().map(|cause| format!(": {cause}")).unwrap_or_default();
        wrong(report, format!("{error}{cause}"));
    } else if !damaged && (found, found_bytes) != (*events, *bytes) {
        wrong(
            report,
            format!("it has {found} events of {found_bytes} bytes, and should have {events} of {bytes}"),
        );
    }
    report.events += found;
    report.bytes += found_bytes;
    if !matches!(snapshots::find(conn, id), Ok(Ok(_))) {
        report.findings.push(Finding::Snapshot { log: log.clone() });
    }
}

/// Whether what is kept beside the envelope is what it says.
fn is_consistent(record: &Record) -> bool {
    record
        .event()
        .is_ok_and(|event| event.seq == record.seq && event.kind == record.kind && event.key == record.key)
}

/// What SQLite finds in its own pages. Of the search index, too, whose words are in tables of FTS5.
fn check_pages(conn: &Connection, report: &mut Report) {
    let check = || -> rusqlite::Result<Vec<String>> {
        let mut check = conn.prepare("PRAGMA integrity_check(20)")?;
        check.query_map([], |row| row.get(0))?.collect()
    };
    let found = check().unwrap_or_else(|error| vec![error.to_string()]);
    for what in found.into_iter().filter(|line| line != "ok") {
        let is_search = what.contains("fts5") || what.contains("search_");
        report.findings.push(if is_search {
            Finding::SearchIndex { what }
        } else {
            Finding::Database { what }
        });
    }
}

/// Gives every event that reads return to `each`, in order; of a damaged one, its position.
pub(super) fn each_event(
    conn: &Connection,
    live: &LiveLogs,
    log: &LogId,
    mut each: impl FnMut(Result<&Record, Seq>),
) -> Result<(), ReadError> {
    let mut after = Seq::ZERO;
    loop {
        match readers::page(conn, live, log, after, ReadLimit::default()) {
            Ok(page) => {
                for record in &page.records {
                    each(Ok(record));
                    after = record.seq;
                }
                if page.records.is_empty() && page.more {
                    let source = "it has more events than can be found".into();
                    return Err(StoreError::Backend { doing: "read on", source }.into());
                }
                if !page.more {
                    return Ok(());
                }
            }
            Err(ReadError::Corrupt { seq, .. }) => {
                each(Err(seq));
                after = seq;
            }
            Err(error) => return Err(error),
        }
    }
}
