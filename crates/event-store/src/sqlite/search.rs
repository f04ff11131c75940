//! The index of texts: which events have which words. It finds candidates; whether they are hits, and what is shown of
//! them, is read in the log.
//!
//! `search_texts` has a row per event that has a text, numbered in the order of the commits; `search_words` is an FTS5
//! table under the same numbers that keeps words and no text (contentless), so that nothing is stored twice. The words are
//! those of [`protocol::search::words`], handed over in a form that the tokenizer `ascii` takes as they are: letters and
//! digits in lower case, parted by spaces. [`BREAK`] stands between the fields of a text and is in no query.

mod answer;
mod rebuild;

use std::fmt::Write as _;

use protocol::{
    LogId, Seq, Timestamp, limits,
    search::{Position, Search, Terms, Text, TextKind, words},
};
use rusqlite::{Connection, ErrorCode, OptionalExtension as _, params};

pub(super) use self::answer::{SearchJob, run};
pub use self::rebuild::forget_search_index;
use super::live::LiveLogs;
use crate::{Record, SearchError, StoreError};

/// The tables of the index. `search_state` says whether everything that should be in them is.
const SCHEMA: &str = "
    CREATE TABLE search_texts (
        id INTEGER PRIMARY KEY, log INTEGER NOT NULL, seq INTEGER NOT NULL, kind TEXT NOT NULL, time INTEGER NOT NULL);
    CREATE UNIQUE INDEX search_texts_by_seq ON search_texts (log, seq);
    CREATE VIRTUAL TABLE search_words USING fts5(
        words, content='', contentless_delete=1, tokenize='ascii');
    CREATE TABLE search_state (is_whole INTEGER NOT NULL);
    INSERT INTO search_state VALUES (1);";

/// Keeps a phrase from reaching from one field into the next: no word has this character.
const BREAK: &str = "¶";

/// What a transaction changes in the index, in order. Collected beside the writing, and made at its end.
#[derive(Debug, Default)]
pub(super) struct Changes(Vec<Change>);

#[derive(Debug)]
enum Change {
    Add {
        log: i64,
        seq: Seq,
        kind: TextKind,
        time: Timestamp,
        words: String,
    },
    /// Some of the positions, which ascend.
    Forget {
        log: i64,
        seqs: Vec<Seq>,
    },
    ForgetThrough {
        log: i64,
        floor: Seq,
    },
}

impl Changes {
    /// An event is written: its words are taken in, if it has a text.
    pub(super) fn add(&mut self, log: i64, record: &Record) {
        if let Some((text, time)) = text_of(record) {
            let words = words_of(&text);
            self.0.push(Change::Add { log, seq: record.seq, kind: text.kind, time, words });
        }
    }

    /// Events become obsolete; the positions ascend.
    pub(super) fn forget(&mut self, log: i64, obsolete: &[Seq]) {
        if !obsolete.is_empty() {
            self.0.push(Change::Forget { log, seqs: obsolete.to_vec() });
        }
    }

    /// What is at or below the floor is deleted.
    pub(super) fn forget_through(&mut self, log: i64, floor: Seq) {
        self.0.push(Change::ForgetThrough { log, floor });
    }

    /// A log is removed.
    pub(super) fn forget_log(&mut self, log: i64) {
        self.forget_through(log, Seq::MAX);
    }
}

/// The writer's hand on the index.
#[derive(Debug)]
pub(super) struct Index {
    /// Something in it is damaged: it is left alone until it is made anew.
    is_damaged: bool,
}

impl Index {
    /// The index of a database. It is made, from what a reader reads, where there is none or a damaged one. If that does
    /// not go, the store goes without: its logs are whole.
    pub(super) fn open(conn: &Connection, reader: &Connection, live: &LiveLogs) -> Self {
        let is_damaged = match is_whole(conn) {
            Ok(true) => false,
            Ok(false) | Err(_) => match rebuild::rebuild(conn, reader, live) {
                Ok(()) => false,
                Err(error) => {
                    tracing::error!(%error, "the search index cannot be made: there is no search");
                    true
                }
            },
        };
        Self { is_damaged }
    }

    /// Makes the changes, in the transaction that writes the events. Damage in the index is no error: the log must not
    /// fail for it, so the changes are undone alone, and the index counts as damaged from then on.
    pub(super) fn apply(&mut self, conn: &Connection, changes: &Changes) -> rusqlite::Result<()> {
        if self.is_damaged || changes.0.is_empty() {
            return Ok(());
        }
        conn.prepare_cached("SAVEPOINT search")?.execute([])?;
        let done = changes.0.iter().try_for_each(|change| change.apply(conn)).and_then(|()| {
            // What it keeps in memory would otherwise be written, and found damaged, only by the commit.
            conn.prepare_cached("INSERT INTO search_words (search_words) VALUES ('flush')")?.execute([])
        });
        match done {
            Ok(_) => {}
            Err(error) if is_damage(&error) => {
                tracing::error!(%error, "the search index is damaged, and is made anew when the store is opened again");
                conn.execute_batch("ROLLBACK TO search; UPDATE search_state SET is_whole = 0")?;
                self.is_damaged = true;
            }
            Err(error) => return Err(error),
        }
        conn.prepare_cached("RELEASE search")?.execute([])?;
        Ok(())
    }
}

impl Change {
    fn apply(&self, conn: &Connection) -> rusqlite::Result<()> {
        match self {
            Self::Add { log, seq, kind, time, words } => {
                let id: i64 = conn
                    .prepare_cached(
                        "INSERT INTO search_texts (log, seq, kind, time) VALUES (?1, ?2, ?3, ?4) RETURNING id",
                    )?
                    .query_row(params![log, seq.get().cast_signed(), kind.word(), time.unix_ms()], |row| {
                        row.get(0)
                    })?;
                conn.prepare_cached("INSERT INTO search_words (rowid, words) VALUES (?1, ?2)")?
                    .execute(params![id, words])?;
                Ok(())
            }
            Self::Forget { log, seqs } => forget(conn, *log, seqs),
            Self::ForgetThrough { log, floor } => forget_between(conn, *log, Seq::ZERO, *floor, |_| true),
        }
    }
}

/// Of obsolete events nearly all are deltas, which are in no index: looking for what is there between the first and the
/// last of them is less work than looking for each.
fn forget(conn: &Connection, log: i64, seqs: &[Seq]) -> rusqlite::Result<()> {
    let (Some(first), Some(last)) = (seqs.first(), seqs.last()) else { return Ok(()) };
    forget_between(conn, log, *first, *last, |seq| seqs.binary_search(&seq).is_ok())
}

fn forget_between(
    conn: &Connection,
    log: i64,
    first: Seq,
    last: Seq,
    is_meant: impl Fn(Seq) -> bool,
) -> rusqlite::Result<()> {
    let mut statement =
        conn.prepare_cached("SELECT id, seq FROM search_texts WHERE log = ?1 AND seq BETWEEN ?2 AND ?3")?;
    let range = params![log, first.get().cast_signed(), last.get().cast_signed()];
    let rows = statement.query_map(range, |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?)))?;
    for (id, seq) in rows.collect::<rusqlite::Result<Vec<_>>>()? {
        if is_meant(Seq::new(seq.cast_unsigned())) {
            conn.prepare_cached("DELETE FROM search_words WHERE rowid = ?1")?.execute([id])?;
            conn.prepare_cached("DELETE FROM search_texts WHERE id = ?1")?.execute([id])?;
        }
    }
    Ok(())
}

/// Events whose text has every term, as far as the index knows.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Candidates {
    /// The newest first; at most as many as hits are asked for.
    pub(super) events: Vec<(LogId, Seq)>,
    /// Where to look on.
    pub(super) next: Option<Position>,
}

/// Looks for candidates, as of one snapshot of the database.
pub(super) fn find(conn: &Connection, search: &Search) -> Result<Candidates, SearchError> {
    match is_whole(conn).and_then(|is_whole| if is_whole { look(conn, search).map(Some) } else { Ok(None) }) {
        Ok(Some(candidates)) => Ok(candidates),
        Ok(None) => Err(SearchError::IndexDamaged),
        Err(error) if is_damage(&error) => Err(SearchError::IndexDamaged),
        Err(source) => {
            Err(SearchError::Store(StoreError::Backend { doing: "search", source: source.into() }))
        }
    }
}

fn look(conn: &Connection, search: &Search) -> rusqlite::Result<Candidates> {
    // CROSS JOIN keeps the order of the tables: the words first, and the newest of them first.
    let mut statement = conn.prepare_cached(
        "SELECT texts.id, logs.name, texts.seq, texts.kind, texts.time
         FROM search_words AS words CROSS JOIN search_texts AS texts ON texts.id = words.rowid
         CROSS JOIN logs ON logs.id = texts.log
         WHERE words.search_words MATCH ?1 AND words.rowid < ?2 ORDER BY words.rowid DESC",
    )?;
    let before = search.before.map_or(i64::MAX, |before| i64::try_from(before.get()).unwrap_or(i64::MAX));
    let mut rows = statement.query(params![match_expression(&search.terms), before])?;
    let mut candidates = Candidates { events: Vec::new(), next: None };
    let (mut looked_at, mut last) = (0, None);
    while let Some(row) = rows.next()? {
        if looked_at == limits::SEARCH_CANDIDATES {
            candidates.next = last;
            break;
        }
        looked_at += 1;
        let id = Position::new(row.get::<_, i64>(0)?.cast_unsigned());
        let log = row.get_ref(1)?.as_str().ok().and_then(|name| name.parse::<LogId>().ok());
        let kind = row.get_ref(3)?.as_str().ok().and_then(|word| word.parse::<TextKind>().ok());
        let (Some(log), Some(kind)) = (log, kind) else { return Err(damage()) };
        if search.covers(&log, kind, Timestamp::from_unix_ms(row.get(4)?)) {
            if candidates.events.len() == search.limit {
                candidates.next = last;
                break;
            }
            candidates.events.push((log, Seq::new(row.get::<_, i64>(2)?.cast_unsigned())));
        }
        last = Some(id);
    }
    Ok(candidates)
}

/// The terms in the language of FTS5. Words are letters and digits in quotes, so that nothing of a query is syntax there.
fn match_expression(terms: &Terms) -> String {
    let mut expression = String::new();
    for term in terms.terms() {
        let star = if term.is_prefix { "*" } else { "" };
        let _ = write!(expression, "\"{}\"{star} ", term.words.join(" "));
    }
    expression
}

/// The text of an event and when it happened.
pub(super) fn text_of(record: &Record) -> Option<(Text, Timestamp)> {
    // Most types never have one, and are not parsed.
    if !Text::may_be_in(&record.kind) {
        return None;
    }
    let event = record.event().ok()?;
    Some((Text::of(&event.kind, event.data.json())?, event.time))
}

/// What the index is given of a text.
pub(super) fn words_of(text: &Text) -> String {
    let mut all = String::new();
    for (i, (_, text)) in text.fields.iter().enumerate() {
        if i > 0 {
            all.push_str(BREAK);
            all.push(' ');
        }
        for word in words(text) {
            all.push_str(&word.text);
            all.push(' ');
        }
    }
    all
}

pub(super) fn is_whole(conn: &Connection) -> rusqlite::Result<bool> {
    conn.prepare_cached("SELECT is_whole FROM search_state")?
        .query_row([], |row| row.get(0))
        .optional()
        .map(|is_whole| is_whole == Some(true))
}

/// Whether an error of a statement of this module is one of the index's tables. A query has no syntax that could be
/// wrong, so that an error of that kind is one of what FTS5 found in its tables.
fn is_damage(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::Unknown | ErrorCode::ConstraintViolation)
    )
}

fn damage() -> rusqlite::Error {
    let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT);
    rusqlite::Error::SqliteFailure(code, Some("a row of the search index makes no sense".into()))
}

#[cfg(test)]
mod tests;
