//! The files of an outbox: segments that are only ever appended to, each record with its length and checksum.
//!
//! A segment is `<index>.seg` and begins with a header record (producer, next number, acked). When everything in the
//! oldest segment is acked, it is deleted; so the disk gets its space back without anything being moved. Where entries
//! change (a drop), all that waits is written into a new segment that replaces those before it, by rename.
//!
//! *Sync.* A written record survives the death of the process, SIGKILL too: it is in the page cache. It is synced to
//! the disk only with an outcome in it and when a segment replaces others: a power loss ends the agent too, and then may
//! take the last deltas and states that no relay has acked, but no outcome. Numbers that it took are not used again (see
//! `rules::Ledger::resume`).

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use protocol::ProducerId;
use serde::{Deserialize, Serialize};

use super::OutboxError;
use crate::append_file::AppendFile;

/// Bytes before a record's body: length and checksum.
const FRAME_BYTES: usize = 8;
/// Bytes of an event record beside its text.
pub(super) const EVENT_OVERHEAD: u64 = FRAME_BYTES as u64 + 9;
const HEADER: u8 = 0;
const EVENT: u8 = 1;
const ACK: u8 = 2;

/// Where the text of an event is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    segment: u64,
    offset: u64,
    len: usize,
}

/// What a segment begins with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Header {
    pub(super) producer: ProducerId,
    /// The number of the next event when the segment began; of a replacing one, of the first event in it.
    pub(super) next: u64,
    pub(super) acked: u64,
    /// Segments before this one count no more.
    pub(super) replaces: bool,
}

/// What was read at start, in order.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Record {
    Header(Header),
    Event { number: u64, text: Vec<u8>, place: Place },
    Ack(u64),
}

/// The open files. Dropping them gives the folder free.
#[derive(Debug)]
pub(super) struct Files {
    dir: PathBuf,
    segments: BTreeMap<u64, Segment>,
    _lock: File,
}

#[derive(Debug)]
struct Segment {
    file: AppendFile,
    path: PathBuf,
    /// The last number in it, or before it.
    last: u64,
}

impl Files {
    /// Opens the folder, cuts what was torn, and yields what is there. Without a segment, nothing is yielded and
    /// [`Self::begin`] is to be called.
    pub(super) fn open(dir: &Path) -> Result<(Self, Vec<Record>), OutboxError> {
        let disk = |doing| move |source| OutboxError::Disk { doing, source };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(disk("make its folder"))?;
        let lock = lock(dir)?;
        let mut files = Self { dir: dir.to_owned(), segments: BTreeMap::new(), _lock: lock };
        let records = files.load().map_err(disk("read what was left"))?;
        Ok((files, records))
    }

    /// Begins a segment, so that the ones before it can go, if the disk has room for one.
    pub(super) fn begin_if_there_is_room(&mut self, header: &Header) -> io::Result<()> {
        if_there_is_room(self.begin(header))
    }

    /// Begins a segment.
    pub(super) fn begin(&mut self, header: &Header) -> io::Result<()> {
        self.write_segment(header, &[]).map(drop)
    }

    /// Writes everything that waits into one segment that replaces all before it.
    pub(super) fn replace(&mut self, header: &Header, events: &[(u64, Vec<u8>)]) -> io::Result<Vec<Place>> {
        let header = Header { replaces: true, ..header.clone() };
        let places = self.write_segment(&header, events)?;
        while self.segments.len() > 1 {
            self.delete_oldest()?;
        }
        Ok(places)
    }

    /// Writes events in one go. Either all of them are there afterwards, or none.
    pub(super) fn append(&mut self, events: &[(u64, Vec<u8>)], sync: bool) -> io::Result<Vec<Place>> {
        let (index, segment) = self.last();
        let mut bytes = Vec::with_capacity(events.iter().map(|(_, text)| text.len() + 32).sum());
        let mut places = Vec::with_capacity(events.len());
        for (number, text) in events {
            places.push(put_event(&mut bytes, (index, segment.file.len()), *number, text));
        }
        segment.file.append(&bytes, sync)?;
        if let Some((number, _)) = events.last() {
            segment.last = *number;
        }
        Ok(places)
    }

    /// Writes down how far the relay is, and deletes the segments that nobody needs any more. On a full disk nothing is
    /// written down, and room is made all the same: the next segment's beginning says what is acked, and the relay says
    /// the rest when the link comes about.
    pub(super) fn ack(&mut self, through: u64) -> io::Result<()> {
        let mut bytes = Vec::new();
        put(&mut bytes, ACK, &[&through.to_le_bytes()]);
        if_there_is_room(self.last().1.file.append(&bytes, false))?;
        while self.segments.len() > 1
            && self.segments.values().next().is_some_and(|oldest| oldest.last <= through)
        {
            self.delete_oldest()?;
        }
        Ok(())
    }

    /// The text of an event.
    pub(super) fn read(&self, place: Place) -> io::Result<Vec<u8>> {
        let segment = self.segments.get(&place.segment).ok_or(io::ErrorKind::NotFound)?;
        let mut text = vec![0; place.len];
        segment.file.read(&mut text, place.offset)?;
        Ok(text)
    }

    /// Bytes of the segment that is written to.
    pub(super) fn segment_len(&mut self) -> u64 {
        self.last().1.file.len()
    }

    fn last(&mut self) -> (u64, &mut Segment) {
        let (index, segment) = self.segments.iter_mut().next_back().expect("an open outbox has a segment");
        (*index, segment)
    }

    fn delete_oldest(&mut self) -> io::Result<()> {
        if let Some((_, oldest)) = self.segments.pop_first() {
            fs::remove_file(oldest.path)?;
        }
        Ok(())
    }

    /// A segment is whole before it has its name.
    fn write_segment(&mut self, header: &Header, events: &[(u64, Vec<u8>)]) -> io::Result<Vec<Place>> {
        let index = self.segments.last_key_value().map_or(1, |(last, _)| last + 1);
        let path = self.dir.join(format!("{index:020}.seg"));
        let draft = self.dir.join("draft");
        let mut bytes = Vec::new();
        put(&mut bytes, HEADER, &[&serde_json::to_vec(header)?]);
        let mut places = Vec::with_capacity(events.len());
        for (number, text) in events {
            places.push(put_event(&mut bytes, (index, 0), *number, text));
        }
        let options = || {
            let mut options = OpenOptions::new();
            options.read(true).append(true).mode(0o600);
            options
        };
        let _ = fs::remove_file(&draft);
        let mut file = options().create_new(true).open(&draft)?;
        file.write_all(&bytes)?;
        if header.replaces {
            file.sync_all()?;
        }
        fs::rename(&draft, &path)?;
        if header.replaces {
            File::open(&self.dir)?.sync_all()?;
        }
        let last = events.last().map_or(header.next - 1, |(number, _)| *number);
        let file = AppendFile::new(file, bytes.len() as u64);
        self.segments.insert(index, Segment { file, path, last });
        Ok(places)
    }

    fn load(&mut self) -> io::Result<Vec<Record>> {
        let mut found = BTreeMap::new();
        for entry in fs::read_dir(&self.dir)? {
            let path = entry?.path();
            let index =
                path.file_name().and_then(|name| name.to_str()?.strip_suffix(".seg")?.parse::<u64>().ok());
            if let Some(index) = index {
                found.insert(index, path);
            }
        }
        let mut records = Vec::new();
        for (index, path) in found {
            let bytes = fs::read(&path)?;
            let (read, len) = read_segment(index, &bytes);
            let Some(Record::Header(header)) = read.first() else {
                // Never finished: nothing in it was ever promised.
                fs::remove_file(&path)?;
                continue;
            };
            if header.replaces {
                records.clear();
                while !self.segments.is_empty() {
                    self.delete_oldest()?;
                }
            }
            let last = read.iter().filter_map(Record::number).next_back().unwrap_or(header.next - 1);
            let file = OpenOptions::new().read(true).append(true).open(&path)?;
            if len < bytes.len() as u64 {
                file.set_len(len)?;
            }
            self.segments.insert(index, Segment { file: AppendFile::new(file, len), path, last });
            records.extend(read);
        }
        Ok(records)
    }
}

impl Record {
    fn number(&self) -> Option<u64> {
        match self {
            Self::Event { number, .. } => Some(*number),
            Self::Header(_) | Self::Ack(_) => None,
        }
    }
}

/// What need not be done on a full disk.
fn if_there_is_room(done: io::Result<()>) -> io::Result<()> {
    match done {
        Err(error) if matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) => {
            Ok(())
        }
        done => done,
    }
}

/// One wrapper at a time: the lock ends with the process, however it ends.
fn lock(dir: &Path) -> Result<File, OutboxError> {
    let disk = |source| OutboxError::Disk { doing: "lock its folder", source };
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(dir.join("lock"))
        .map_err(disk)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(OutboxError::InUse { path: dir.to_owned() }),
        Err(TryLockError::Error(source)) => Err(disk(source)),
    }
}

fn put(out: &mut Vec<u8>, kind: u8, body: &[&[u8]]) {
    let start = out.len();
    out.extend([0; FRAME_BYTES]);
    out.push(kind);
    body.iter().for_each(|piece| out.extend_from_slice(piece));
    let body = start + FRAME_BYTES;
    let len = u32::try_from(out.len() - body).expect("a record is far below 4 GiB");
    let sum = crc32c::crc32c(&out[body..]);
    out[start..start + 4].copy_from_slice(&len.to_le_bytes());
    out[start + 4..body].copy_from_slice(&sum.to_le_bytes());
}

/// Adds an event to bytes that are to be written at `(segment, offset)`.
fn put_event(out: &mut Vec<u8>, (segment, offset): (u64, u64), number: u64, text: &[u8]) -> Place {
    put(out, EVENT, &[&number.to_le_bytes(), text]);
    Place { segment, offset: offset + (out.len() - text.len()) as u64, len: text.len() }
}

/// The records of a segment, and where the last whole one ends. A damaged record is left out, the ones after it are read:
/// only what is behind the last whole one was torn.
fn read_segment(segment: u64, bytes: &[u8]) -> (Vec<Record>, u64) {
    let (mut records, mut at, mut end) = (Vec::new(), 0, 0);
    while let Some(frame) = bytes.get(at..at + FRAME_BYTES) {
        let number = |piece: &[u8]| u32::from_le_bytes(piece.try_into().expect("four bytes"));
        let (len, sum) = (number(&frame[..4]) as usize, number(&frame[4..]));
        let Some(body) = bytes.get(at + FRAME_BYTES..).and_then(|rest| rest.get(..len)) else { break };
        let offset = (at + FRAME_BYTES + 9) as u64;
        at += FRAME_BYTES + len;
        if crc32c::crc32c(body) != sum || body.is_empty() {
            continue;
        }
        if let Some(record) = read_record(body, segment, offset) {
            records.push(record);
            end = at as u64;
        }
    }
    (records, end)
}

fn read_record(body: &[u8], segment: u64, offset: u64) -> Option<Record> {
    let (kind, rest) = body.split_first()?;
    match *kind {
        HEADER => serde_json::from_slice(rest).ok().map(Record::Header),
        EVENT => {
            let (number, text) = rest.split_first_chunk::<8>()?;
            let place = Place { segment, offset, len: text.len() };
            Some(Record::Event { number: u64::from_le_bytes(*number), text: text.to_owned(), place })
        }
        ACK => Some(Record::Ack(u64::from_le_bytes(rest.try_into().ok()?))),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
