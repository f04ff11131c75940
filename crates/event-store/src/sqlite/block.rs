//! Events of one log as they lie on disk, in the journal and in segments alike: two texts of bytes. The `entries` say
//! what is known of each event, the `envelopes` are the bytes that viewers are sent, one after the other. So what the
//! writer needs to open a log is read without the payloads.
//!
//! Integers are little-endian. An entry is
//! `seq u64, envelope length u32, checksum u32, flags u8, kind length u32, key length u32, session length u32`, then
//! kind, key and session; a length of `u32::MAX` says that there is none.

use std::sync::Arc;

use bytes::Bytes;
use protocol::{Key, Seq};

use super::checksum::Checksum;
use crate::{
    Record,
    rules::{Entry, Stored},
};

/// An event as it is read back: damage was looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Item {
    pub(super) stored: Stored,
    /// Its envelope did not match its checksum, and is empty.
    pub(super) is_damaged: bool,
}

/// The entries cannot be read: any event of the block may be missing or wrong.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Damaged;

/// Events, encoded.
#[derive(Debug, Default)]
pub(super) struct Block {
    pub(super) entries: Vec<u8>,
    pub(super) envelopes: Vec<u8>,
}

const TOMBSTONE: u8 = 1;
const DAMAGED: u8 = 2;
const NONE: u32 = u32::MAX;

impl Block {
    pub(super) fn len(&self) -> usize {
        self.entries.len() + self.envelopes.len()
    }

    /// Adds the events of another block, which come after these.
    pub(super) fn append(&mut self, other: Self) {
        self.entries.extend(other.entries);
        self.envelopes.extend(other.envelopes);
    }

    /// Adds an event of the log with this id.
    pub(super) fn push(&mut self, log: i64, stored: &Stored, is_damaged: bool) {
        let Stored { record: Record { seq, kind, key, envelope }, session, tombstone } = stored;
        let flags = if *tombstone { TOMBSTONE } else { 0 } | if is_damaged { DAMAGED } else { 0 };
        let out = &mut self.entries;
        out.extend_from_slice(&seq.get().to_le_bytes());
        out.extend_from_slice(&length(Some(envelope)).to_le_bytes());
        out.extend_from_slice(&envelope_crc(log, *seq, envelope).to_le_bytes());
        out.push(flags);
        let key = key.as_ref().map(|key| key.as_str().as_bytes());
        let texts = [Some(kind.as_bytes()), key, session.as_deref().map(str::as_bytes)];
        for text in texts {
            out.extend_from_slice(&length(text).to_le_bytes());
        }
        for text in texts.into_iter().flatten() {
            out.extend_from_slice(text);
        }
        self.envelopes.extend_from_slice(envelope);
    }
}

/// The events of a block whose entries match their own checksum. Records share the memory of `envelopes`.
pub(super) fn decode(log: i64, entries: &[u8], envelopes: &Bytes) -> Result<Vec<Item>, Damaged> {
    let mut items: Vec<Item> = Vec::with_capacity(64);
    let mut at = 0;
    let mut reader = Reader(entries);
    while let Some(RawEntry { seq, len, crc, flags, kind, key, session }) = reader.next()? {
        // A text that the event before has too is shared with it, and not looked at again: neighbours often speak of the
        // same thing.
        let before = items.last().map(|item| &item.stored);
        let kind = match before {
            Some(before) if before.record.kind.as_bytes() == kind => Arc::clone(&before.record.kind),
            Some(_) | None => text(kind)?.into(),
        };
        let key = match (key, before.and_then(|before| before.record.key.as_ref())) {
            (Some(key), Some(known)) if known.as_str().as_bytes() == key => Some(known.clone()),
            (key, _) => key.map(text).transpose()?.map(Key::new),
        };
        let session = match (session, before.and_then(|before| before.session.as_ref())) {
            (Some(session), Some(known)) if known.as_bytes() == session => Some(Arc::clone(known)),
            (session, _) => session.map(text).transpose()?.map(Arc::from),
        };
        let end = at + len;
        let envelope = if end <= envelopes.len() { envelopes.slice(at..end) } else { Bytes::new() };
        at = end;
        let is_damaged =
            flags & DAMAGED != 0 || envelope.len() != len || crc != envelope_crc(log, seq, &envelope);
        let envelope = if is_damaged { Bytes::new() } else { envelope };
        let tombstone = flags & TOMBSTONE != 0;
        let stored = Stored { record: Record { seq, kind, key, envelope }, session, tombstone };
        items.push(Item { stored, is_damaged });
    }
    Ok(items)
}

/// What the index of a log needs of a block's events.
pub(super) fn decode_entries(entries: &[u8]) -> Result<Vec<Entry>, Damaged> {
    let mut found = Vec::with_capacity(64);
    let mut reader = Reader(entries);
    while let Some(RawEntry { seq, len, flags, key, session, .. }) = reader.next()? {
        found.push(Entry {
            seq,
            bytes: u32::try_from(len).unwrap_or(u32::MAX),
            key: key.map(text).transpose()?.map(Key::new),
            session: session.map(text).transpose()?.map(Arc::from),
            tombstone: flags & TOMBSTONE != 0,
        });
    }
    Ok(found)
}

struct RawEntry<'a> {
    seq: Seq,
    len: usize,
    crc: u32,
    flags: u8,
    kind: &'a [u8],
    key: Option<&'a [u8]>,
    session: Option<&'a [u8]>,
}

/// What is left to be read.
pub(super) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn of(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(super) fn is_at_end(&self) -> bool {
        self.0.is_empty()
    }

    fn next(&mut self) -> Result<Option<RawEntry<'a>>, Damaged> {
        if self.is_at_end() {
            return Ok(None);
        }
        let seq = Seq::new(self.long()?);
        let (len, crc) = (self.number()?, self.number()?);
        let [flags] = self.array()?;
        let [kind, key, session] = [self.number()?, self.number()?, self.number()?];
        Ok(Some(RawEntry {
            seq,
            len: len as usize,
            crc,
            flags,
            kind: self.field(kind)?.ok_or(Damaged)?,
            key: self.field(key)?,
            session: self.field(session)?,
        }))
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Damaged> {
        let (head, rest) = self.0.split_first_chunk().ok_or(Damaged)?;
        self.0 = rest;
        Ok(*head)
    }

    pub(super) fn long(&mut self) -> Result<u64, Damaged> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    pub(super) fn number(&mut self) -> Result<u32, Damaged> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub(super) fn text(&mut self, len: u32) -> Result<Option<&'a str>, Damaged> {
        self.field(len)?.map(text).transpose()
    }

    fn field(&mut self, len: u32) -> Result<Option<&'a [u8]>, Damaged> {
        if len == NONE {
            return Ok(None);
        }
        let (field, rest) = self.0.split_at_checked(len as usize).ok_or(Damaged)?;
        self.0 = rest;
        Ok(Some(field))
    }
}

fn text(bytes: &[u8]) -> Result<&str, Damaged> {
    str::from_utf8(bytes).map_err(|_| Damaged)
}

/// Lengths fit: an event's size is bounded (§11).
pub(super) fn length(text: Option<&[u8]>) -> u32 {
    text.map_or(NONE, |text| u32::try_from(text.len()).expect("an event is far below 4 GiB"))
}

/// Of an event at this place: it cannot stand in for another one, or one of another log.
fn envelope_crc(log: i64, seq: Seq, envelope: &[u8]) -> u32 {
    Checksum::of_event(log, seq.get(), envelope)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(stored in events()) {
            let Block { entries, envelopes } = encode(&stored);
            let found = decode(7, &entries, &envelopes.into()).unwrap();
            prop_assert!(found.iter().all(|item| !item.is_damaged));
            let known: Vec<_> = stored.iter().map(Stored::entry).collect();
            prop_assert_eq!(found.into_iter().map(|item| item.stored).collect::<Vec<_>>(), stored);
            prop_assert_eq!(decode_entries(&entries).unwrap(), known);
        }

        #[test]
        fn p11_a_flipped_bit_of_an_envelope_is_seen_in_that_event_alone(stored in events(), bit: usize) {
            let Block { entries, mut envelopes } = encode(&stored);
            prop_assume!(!envelopes.is_empty());
            let bit = bit % (envelopes.len() * 8);
            envelopes[bit / 8] ^= 1 << (bit % 8);
            let found = decode(7, &entries, &envelopes.into()).unwrap();
            let different: Vec<_> = found.iter().zip(&stored).filter(|(found, stored)| found.stored != **stored).collect();
            prop_assert_eq!(different.len(), 1);
            prop_assert_eq!(found.iter().filter(|item| item.is_damaged).count(), 1);
            prop_assert!(different[0].0.is_damaged);
        }

        #[test]
        fn p20_bytes_that_are_no_block_do_no_harm(entries: Vec<u8>, envelopes: Vec<u8>) {
            let _ = decode(7, &entries, &envelopes.into());
            let _ = decode_entries(&entries);
        }
    }

    #[test]
    fn p11_events_of_another_log_are_damaged_here() {
        let Block { entries, envelopes } = encode(&[event(1, None, None, "{}")]);
        assert!(decode(8, &entries, &envelopes.into()).unwrap()[0].is_damaged);
    }

    #[test]
    fn damage_that_was_found_stays_known() {
        let mut block = Block::default();
        block.push(7, &event(1, None, None, ""), true);
        assert!(decode(7, &block.entries, &block.envelopes.into()).unwrap()[0].is_damaged);
    }

    fn encode(stored: &[Stored]) -> Block {
        let mut block = Block::default();
        stored.iter().for_each(|stored| block.push(7, stored, false));
        block
    }

    fn events() -> impl Strategy<Value = Vec<Stored>> {
        let text = || prop::option::of("[a-c/]{0,3}");
        let one = (text(), text(), "[ -~é]{0,40}", any::<bool>());
        prop::collection::vec(one, 0..80).prop_map(|all| {
            let numbered = (1..).zip(all);
            let event = |(n, (key, session, envelope, tombstone)): (u64, (Option<String>, _, String, _))| {
                let session: Option<String> = session;
                Stored { tombstone, ..event(n * 3, key.as_deref(), session.as_deref(), &envelope) }
            };
            numbered.map(event).collect()
        })
    }

    fn event(seq: u64, key: Option<&str>, session: Option<&str>, envelope: &str) -> Stored {
        let envelope = Bytes::copy_from_slice(envelope.as_bytes());
        let record =
            Record { seq: Seq::new(seq), kind: "file.edited".into(), key: key.map(Key::new), envelope };
        Stored { record, session: session.map(Arc::from), tombstone: false }
    }
}
