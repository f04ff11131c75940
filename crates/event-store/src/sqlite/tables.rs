//! The tables of the database, one module each. Every row has a checksum.
//!
//! A commit is a row of the [`journal`], which is in commit order and bounded: nothing else is written for its appends,
//! however many logs they are of. What grows old there is filed in [`segments`], where the events of one log lie
//! together as they are read. A row of [`logs`] says what is known of a log as of its last filing; the appends in
//! the journal after that bring it up to date. [`obsolete`] marks filed events that no read returns any more until their segment is
//! written anew.

pub(super) mod journal;
pub(super) mod logs;
pub(super) mod obsolete;
pub(super) mod segments;
pub(super) mod snapshots;

/// The schema, at [`VERSION`](super::file::SCHEMA_VERSION).
pub(super) const SCHEMA: &str = "
    CREATE TABLE logs (
        id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE, epoch TEXT NOT NULL,
        floor INTEGER NOT NULL, head INTEGER NOT NULL, newest INTEGER, events INTEGER NOT NULL,
        bytes INTEGER NOT NULL, producers TEXT NOT NULL, journaled INTEGER NOT NULL, begins INTEGER NOT NULL,
        filed INTEGER NOT NULL, filings INTEGER NOT NULL, crc INTEGER NOT NULL);
    CREATE TABLE journal (
        id INTEGER PRIMARY KEY, crc INTEGER NOT NULL, appends BLOB NOT NULL, entries BLOB NOT NULL,
        envelopes BLOB NOT NULL);
    CREATE TABLE segments (
        id INTEGER PRIMARY KEY, after INTEGER NOT NULL, last INTEGER NOT NULL, crc INTEGER NOT NULL,
        entries BLOB NOT NULL, envelopes BLOB NOT NULL);
    CREATE TABLE obsolete (id INTEGER PRIMARY KEY, crc INTEGER NOT NULL);
    CREATE TABLE snapshots (
        log INTEGER PRIMARY KEY, seq INTEGER NOT NULL, crc INTEGER NOT NULL, data BLOB NOT NULL);";

/// Positions have 40 bits of an id and logs the 23 above: one event a microsecond for twelve days, or ten a second for
/// three thousand years; eight million logs, ever.
const POSITION_BITS: u32 = 40;

/// The last position that a log may have here.
pub(super) const LAST_POSITION: protocol::Seq = protocol::Seq::new((1 << POSITION_BITS) - 1);
/// The last log that there may be.
pub(super) const LAST_LOG: i64 = (1 << (63 - POSITION_BITS)) - 1;

/// A place in a log, as one number that sorts by log and then by position.
fn place(log: i64, seq: protocol::Seq) -> i64 {
    (log << POSITION_BITS) | seq.min(LAST_POSITION).get().cast_signed()
}

/// Where everything of a log lies.
fn places(log: i64) -> (i64, i64) {
    (place(log, protocol::Seq::ZERO), place(log, LAST_POSITION))
}

/// The log of a place.
fn log_of(place: i64) -> i64 {
    place >> POSITION_BITS
}

/// The position of a place.
fn seq_of(place: i64) -> protocol::Seq {
    protocol::Seq::new(place.cast_unsigned() & LAST_POSITION.get())
}
