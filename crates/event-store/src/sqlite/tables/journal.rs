//! The newest appends of all logs, in commit order: a row per commit, however many appends that is of. A row's id is the
//! number of its last append; appends are numbered without a gap, so a row that is missing is noticed.
//!
//! `appends` says what each did. Integers are little-endian:
//! `log i64, floor u64, head u64, newest i64, events u64, bytes u64, generation u64, acked u64, producer length u32,
//! obsolete positions u32, length of its entries u32, length of its envelopes u32`, then the producer and the positions;
//! no time is `i64::MIN`, no producer a length of `u32::MAX`. Their events are one [`Block`] after the other.

use bytes::Bytes;
use protocol::{Epoch, Seq, Timestamp};
use rusqlite::{Connection, Row, params};

use crate::{
    ProducerState,
    rules::{Header, Stored},
    sqlite::{
        block::{self, Block, Item, Reader, length},
        checksum::Checksum,
    },
};

/// What one append did, to be written.
#[derive(Debug)]
pub(in crate::sqlite) struct Appending<'a> {
    pub(in crate::sqlite) log: i64,
    /// The log after it.
    pub(in crate::sqlite) header: &'a Header,
    /// The newest producer, if it is another than before.
    pub(in crate::sqlite) producer: Option<&'a ProducerState>,
    /// Positions that were in the journal and that no read returns from here on.
    pub(in crate::sqlite) obsolete: &'a [Seq],
    pub(in crate::sqlite) stored: &'a [Stored],
}

/// The appends of one commit, to be written together.
#[derive(Debug, Default)]
pub(in crate::sqlite) struct Appendings {
    appends: Vec<u8>,
    block: Block,
}

/// What one append did, as it is read back.
#[derive(Debug)]
pub(in crate::sqlite) struct Journaled {
    /// Its number.
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

/// A row does not match its checksum, or one before it is missing.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::sqlite) struct Damaged;

impl Appendings {
    /// Adds one; says how many bytes its events take here.
    pub(in crate::sqlite) fn push(&mut self, appending: &Appending<'_>) -> u64 {
        let &Appending { log, header, producer, obsolete, stored } = appending;
        let (entries, envelopes) = (self.block.entries.len(), self.block.envelopes.len());
        for stored in stored {
            self.block.push(log, stored, false);
        }
        let (entries, envelopes) = (&self.block.entries[entries..], &self.block.envelopes[envelopes..]);
        let Header { epoch: _, floor, head, newest, events, bytes } = header;
        let name = producer.map(|producer| producer.producer.as_str().as_bytes());
        for number in [
            log.cast_unsigned(),
            floor.get(),
            head.get(),
            newest.map_or(i64::MIN, Timestamp::unix_ms).cast_unsigned(),
            *events,
            *bytes,
            producer.map_or(0, |producer| producer.generation),
            producer.map_or(0, |producer| producer.acked),
        ] {
            self.appends.extend_from_slice(&number.to_le_bytes());
        }
        let positions = u32::try_from(obsolete.len()).expect("a log has far fewer events");
        for number in [length(name), positions, length(Some(entries)), length(Some(envelopes))] {
            self.appends.extend_from_slice(&number.to_le_bytes());
        }
        self.appends.extend_from_slice(name.unwrap_or_default());
        self.appends.extend(obsolete.iter().flat_map(|seq| seq.get().to_le_bytes()));
        (entries.len() + envelopes.len()) as u64
    }

    /// Writes them at the end, if there are any. The last of them has this number.
    pub(in crate::sqlite) fn insert(&self, conn: &Connection, last: i64) -> rusqlite::Result<()> {
        let Self { appends, block: Block { entries, envelopes } } = self;
        if appends.is_empty() {
            return Ok(());
        }
        conn.prepare_cached(
            "INSERT INTO journal (id, crc, appends, entries, envelopes) VALUES (?1, ?2, ?3, ?4, ?5)",
        )?
        .execute(params![last, crc(last, appends, entries), appends, entries, envelopes])?;
        Ok(())
    }
}

/// Deletes the rows of which all appends are before this one.
pub(in crate::sqlite) fn delete_before(conn: &Connection, id: i64) -> rusqlite::Result<()> {
    conn.prepare_cached("DELETE FROM journal WHERE id < ?1")?.execute([id])?;
    Ok(())
}

/// Gives every append, in order, to `each`, until a row is damaged.
pub(in crate::sqlite) fn scan(
    conn: &Connection,
    mut each: impl FnMut(Journaled),
) -> rusqlite::Result<Result<(), Damaged>> {
    let mut statement =
        conn.prepare("SELECT id, crc, appends, entries, envelopes FROM journal ORDER BY id")?;
    let mut rows = statement.query([])?;
    let mut next = None;
    while let Some(row) = rows.next()? {
        match read(row) {
            Ok(appends) if appends.first().is_some_and(|first| next.is_none_or(|next| first.id == next)) => {
                next = appends.last().map(|last| last.id + 1);
                appends.into_iter().for_each(&mut each);
            }
            Ok(_) | Err(Damaged) => return Ok(Err(Damaged)),
        }
    }
    Ok(Ok(()))
}

fn read(row: &Row<'_>) -> Result<Vec<Journaled>, Damaged> {
    let number = |at| row.get::<_, i64>(at).map_err(|_| Damaged);
    let blob = |at| row.get_ref(at).ok().and_then(|value| value.as_blob().ok()).ok_or(Damaged);
    let (last, appends, entries, envelopes) = (number(0)?, blob(2)?, blob(3)?, blob(4)?);
    if number(1)? != i64::from(crc(last, appends, entries)) {
        return Err(Damaged);
    }
    decode(last, appends, entries, envelopes)
}

fn decode(last: i64, appends: &[u8], entries: &[u8], envelopes: &[u8]) -> Result<Vec<Journaled>, Damaged> {
    let (mut reader, mut entries, mut envelopes) = (Reader::of(appends), entries, envelopes);
    let mut found = Vec::new();
    while !reader.is_at_end() {
        found.push(decode_one(&mut reader, &mut entries, &mut envelopes).map_err(|block::Damaged| Damaged)?);
    }
    let first = i64::try_from(found.len()).ok().and_then(|count| last.checked_sub(count)).ok_or(Damaged)? + 1;
    for (append, id) in found.iter_mut().zip(first..) {
        append.id = id;
    }
    Ok(found)
}

/// The next append; its number comes from its place.
fn decode_one(
    reader: &mut Reader<'_>,
    entries: &mut &[u8],
    envelopes: &mut &[u8],
) -> Result<Journaled, block::Damaged> {
    let log = reader.long()?.cast_signed();
    let (floor, head) = (Seq::new(reader.long()?), Seq::new(reader.long()?));
    let newest = Some(reader.long()?.cast_signed()).filter(|ms| *ms != i64::MIN);
    let (events, bytes) = (reader.long()?, reader.long()?);
    let (generation, acked) = (reader.long()?, reader.long()?);
    let [name, positions] = [reader.number()?, reader.number()?];
    let [entries_len, envelopes_len] = [reader.number()? as usize, reader.number()? as usize];
    let producer = match reader.text(name)? {
        Some(name) => {
            let producer = name.parse().map_err(|_| block::Damaged)?;
            Some(ProducerState { producer, generation, acked })
        }
        None => None,
    };
    let obsolete = (0..positions).map(|_| reader.long().map(Seq::new)).collect::<Result<_, _>>()?;
    let own;
    (own, *entries) = entries.split_at_checked(entries_len).ok_or(block::Damaged)?;
    // Envelopes that lost their end are found damaged one by one.
    let (envelopes_of_it, rest) = envelopes.split_at(envelopes_len.min(envelopes.len()));
    *envelopes = rest;
    let newest = newest.map(Timestamp::from_unix_ms);
    Ok(Journaled {
        id: 0,
        log,
        header: Header { epoch: Epoch::new(""), floor, head, newest, events, bytes },
        producer,
        obsolete,
        // Memory of its own, so that it is not held for as long as an event of another log is.
        items: block::decode(log, own, &Bytes::copy_from_slice(envelopes_of_it))?,
        bytes: (entries_len + envelopes_len) as u64,
    })
}

fn crc(last: i64, appends: &[u8], entries: &[u8]) -> u32 {
    Checksum::new(last).bytes(Some(appends)).bytes(Some(entries)).finish()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn appends_are_read_back_one_by_one_as_they_were_written(heads in prop::collection::vec((1..4_i64, 0..4_u64), 0..20)) {
            let mut written = Appendings::default();
            let (obsolete, mut bytes) = ([Seq::new(2), Seq::new(3)], Vec::new());
            for (log, head) in &heads {
                let producer = producer(*head);
                let header = header(*head);
                bytes.push(written.push(&Appending {
                    log: *log,
                    header: &header,
                    producer: producer.as_ref(),
                    obsolete: &obsolete[..usize::from(*head == 2)],
                    stored: &stored(*head),
                }));
            }
            let Appendings { appends, block: Block { entries, envelopes } } = written;
            let found = decode(100, &appends, &entries, &envelopes).unwrap();
            prop_assert_eq!(found.len(), heads.len());
            for (n, (append, (log, head))) in found.iter().zip(heads).enumerate() {
                prop_assert_eq!(append.id, 100 - i64::try_from(found.len() - n).unwrap() + 1);
                prop_assert_eq!((append.log, append.bytes), (log, bytes[n]));
                prop_assert_eq!(&append.header, &header(head));
                prop_assert_eq!(&append.producer, &producer(head));
                prop_assert_eq!(append.obsolete.len(), usize::from(head == 2));
                prop_assert!(append.items.iter().all(|item| !item.is_damaged));
                let items: Vec<_> = append.items.iter().map(|item| item.stored.clone()).collect();
                prop_assert_eq!(items, stored(head));
            }
        }

        #[test]
        fn p20_bytes_that_are_no_appends_do_no_harm(last: i64, appends: Vec<u8>, entries: Vec<u8>, envelopes: Vec<u8>) {
            let _ = decode(last, &appends, &entries, &envelopes);
        }
    }

    fn header(head: u64) -> Header {
        let newest = (head > 1).then(|| Timestamp::from_unix_ms(5));
        let (floor, head) = (Seq::new(head / 2), Seq::new(head));
        Header { epoch: Epoch::new(""), floor, head, newest, events: 3, bytes: 9 }
    }

    fn producer(head: u64) -> Option<ProducerState> {
        (head == 3).then(|| ProducerState { producer: "p".parse().unwrap(), generation: 7, acked: 8 })
    }

    /// So many events.
    fn stored(head: u64) -> Vec<Stored> {
        let one = |seq| {
            let envelope = Bytes::from(format!(r#"{{"seq":{seq}}}"#));
            let record =
                crate::Record { seq: Seq::new(seq), kind: "file.edited".into(), key: None, envelope };
            Stored { record, session: None, tombstone: false }
        };
        (1..=head).map(one).collect()
    }
}
