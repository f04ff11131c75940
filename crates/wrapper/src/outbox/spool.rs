//! The ledger and its files together: what is done with the disk, one call at a time.

use std::path::Path;

use protocol::{
    NewEvent, ProducerId, RawData, Timestamp, agent::EventsDropped, codec::Frame as _, frame::FromWrapper,
    limits,
};

use super::{
    Batch, OutboxError, OutboxLimits, Progress,
    file::{EVENT_OVERHEAD, Files, Header, Place, Record},
    rules::{Entry, Kind, Ledger},
};

/// Of a full outbox so much is dropped that this part is left: dropping writes everything again, and is to be rare.
const KEEP_OF_FULL: (u64, u64) = (3, 4);
/// Bytes that a batch's frame adds around its events, at most.
const APPEND_FRAME_BYTES: u64 = 64;

/// An open outbox.
#[derive(Debug)]
pub(super) struct Spool {
    producer: ProducerId,
    ledger: Ledger<Place>,
    files: Files,
    limits: OutboxLimits,
}

/// What became of a push.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pushed {
    Done,
    /// Nothing was taken: acks are to be waited for.
    Full,
}

impl Spool {
    pub(super) fn open(dir: &Path, limits: OutboxLimits) -> Result<Self, OutboxError> {
        let (files, records) = Files::open(dir)?;
        let mut producer = None;
        let mut ledger = Ledger::new(1);
        let mut acked = 0;
        let mut time = Timestamp::from_unix_ms(0);
        for record in records {
            match record {
                Record::Header(header) if producer.is_none() => {
                    ledger = Ledger::new(header.next);
                    acked = header.acked;
                    producer = Some(header.producer);
                }
                Record::Header(header) => {
                    ledger.lose_until(header.next, time, "damaged");
                    acked = header.acked;
                }
                Record::Ack(through) => acked = through,
                // A number is given once: the second one stands for an event that has another by now.
                Record::Event { number, .. } if number < ledger.next() => {
                    tracing::warn!(number, "an event is in the outbox twice: it counts once");
                }
                Record::Event { number, text, place } => {
                    let Ok(event) = serde_json::from_slice::<NewEvent>(&text) else { continue };
                    let kind = Kind::of(&event);
                    time = event.time;
                    let from = if let Kind::Notice { from, .. } = kind { from.min(number) } else { number };
                    ledger.lose_until(from, time, "damaged");
                    ledger.skip_to(number);
                    ledger.push(kind, event.time, text.len() as u64 + EVENT_OVERHEAD, Some(place));
                }
            }
        }
        ledger.ack(acked);
        ledger.claim_all();
        let fresh = producer.is_none();
        let producer = producer.unwrap_or_else(new_producer);
        let mut spool = Self { producer, ledger, files, limits };
        if fresh {
            let header = spool.header();
            spool.files.begin(&header).map_err(disk("begin its first file"))?;
        } else if spool.ledger.entries().iter().any(|entry| entry.place.is_none()) {
            spool.write_again()?;
        }
        Ok(spool)
    }

    pub(super) fn producer(&self) -> &ProducerId {
        &self.producer
    }

    pub(super) fn progress(&self) -> Progress {
        Progress {
            next: self.ledger.next(),
            acked: self.ledger.acked(),
            events: self.ledger.entries().len() as u64,
            bytes: self.ledger.bytes(),
        }
    }

    /// Numbers and writes events. While the outbox is full, nothing is taken unless `drop` says that there is no more waiting.
    pub(super) fn push(&mut self, events: &[NewEvent], drop: bool) -> Result<Pushed, OutboxError> {
        let events: Vec<_> =
            events.iter().zip(self.ledger.next()..).map(|(event, n)| acceptable(event, n)).collect();
        let mut written = Vec::with_capacity(events.len());
        for (event, number) in events.iter().zip(self.ledger.next()..) {
            written.push((number, to_json(event)?));
        }
        let more: u64 = written.iter().map(|(_, text)| text.len() as u64 + EVENT_OVERHEAD).sum();
        if self.ledger.bytes() + more > self.limits.bytes && !self.ledger.entries().is_empty() {
            if !drop {
                return Ok(Pushed::Full);
            }
            let (part, whole) = KEEP_OF_FULL;
            let target = (self.limits.bytes / whole * part).min(self.limits.bytes.saturating_sub(more));
            let dropped = self.ledger.make_room(target);
            if dropped > 0 {
                tracing::warn!(dropped, "the outbox is full: events are dropped, and named");
                self.write_again()?;
            }
        }
        if self.files.segment_len() > self.limits.segment_bytes {
            let header = self.header();
            self.files.begin(&header).map_err(disk("begin a file"))?;
        }
        let kinds: Vec<_> = events.iter().map(Kind::of).collect();
        let sync = kinds.contains(&Kind::Outcome);
        let places = self.files.append(&written, sync).map_err(disk("write events"))?;
        for (((event, kind), (_, text)), place) in events.iter().zip(kinds).zip(&written).zip(places) {
            self.ledger.push(kind, event.time, text.len() as u64 + EVENT_OVERHEAD, Some(place));
        }
        Ok(Pushed::Done)
    }

    pub(super) fn pending_after(
        &mut self,
        after: u64,
        max_events: usize,
        max_bytes: usize,
    ) -> Result<Option<Batch>, OutboxError> {
        let entries = self.ledger.claim_after(after, max_events, max_bytes as u64);
        let Some(first) = entries.first().map(|entry| entry.number) else { return Ok(None) };
        let mut batch = Batch { first, events: Vec::with_capacity(entries.len()), bytes: 0 };
        for entry in entries {
            batch.bytes += usize::try_from(entry.bytes).unwrap_or(usize::MAX);
            batch.events.push(event_of(&self.files, entry)?);
        }
        Ok(Some(batch))
    }

    pub(super) fn pending(&self) -> Result<Vec<(u64, NewEvent)>, OutboxError> {
        let mut events = Vec::with_capacity(self.ledger.entries().len());
        for entry in self.ledger.entries() {
            events.push((entry.number, event_of(&self.files, entry)?));
        }
        Ok(events)
    }

    pub(super) fn ack(&mut self, through: u64) -> Result<(), OutboxError> {
        if through <= self.ledger.acked() {
            return Ok(());
        }
        self.ledger.ack(through);
        let idle =
            self.ledger.entries().is_empty() && self.files.segment_len() > self.limits.segment_bytes / 4;
        if idle {
            let header = self.header();
            self.files.begin_if_there_is_room(&header).map_err(disk("begin a file"))?;
        }
        self.files.ack(self.ledger.acked()).map_err(disk("write an ack"))
    }

    pub(super) fn resume(&mut self, acked: u64) -> Result<(), OutboxError> {
        let before = self.ledger.acked();
        if self.ledger.resume(acked) {
            return self.write_again();
        }
        if self.ledger.acked() > before {
            self.files.ack(self.ledger.acked()).map_err(disk("write an ack"))?;
        }
        Ok(())
    }

    pub(super) fn replace(&mut self, number: u64, reason: &'static str) -> Result<(), OutboxError> {
        if self.ledger.replace(number, reason) { self.write_again() } else { Ok(()) }
    }

    /// Writes what waits into one new file, notices included.
    fn write_again(&mut self) -> Result<(), OutboxError> {
        let mut written = Vec::with_capacity(self.ledger.entries().len());
        for entry in self.ledger.entries() {
            written.push((entry.number, to_json(&event_of(&self.files, entry)?)?));
        }
        let mut header = self.header();
        header.next = self.ledger.entries().front().map_or(header.next, Entry::from);
        let places = self.files.replace(&header, &written).map_err(disk("write what waits again"))?;
        for (entry, place) in self.ledger.entries_mut().zip(places) {
            entry.place = Some(place);
        }
        Ok(())
    }

    fn header(&self) -> Header {
        Header {
            producer: self.producer.clone(),
            next: self.ledger.next(),
            acked: self.ledger.acked(),
            replaces: false,
        }
    }
}

/// The event, or what names it where no relay would ever take it: one such event must not stop all that come after it.
fn acceptable(event: &NewEvent, number: u64) -> NewEvent {
    let json = event.data.json();
    let reason = if json.len() > limits::EVENT_DATA_HARD_BYTES {
        "too_large"
    } else if too_deep(event) {
        "too_deep"
    } else if json.len() as u64 + envelope_bytes(event) + APPEND_FRAME_BYTES
        > limits::INGEST_FRAME_BYTES as u64
    {
        "too_large"
    } else {
        return event.clone();
    };
    tracing::warn!(
        kind = &*event.kind,
        bytes = json.len(),
        reason,
        "an event that no relay takes is left out, and named"
    );
    let data = EventsDropped { from: number, to: number, reason: reason.to_owned() };
    let data = RawData::of(&data).expect("a notice serialises: it is numbers and a word");
    NewEvent { time: event.time, kind: "wrapper.events_dropped".into(), session: event.session.clone(), data }
}

/// Whether the frame's decoder would refuse it. It is asked only where there are enough brackets for it.
fn too_deep(event: &NewEvent) -> bool {
    let brackets = event.data.json().bytes().filter(|byte| matches!(byte, b'{' | b'[')).count();
    brackets + 8 > limits::JSON_DEPTH && {
        let frame = FromWrapper::Append { first: 1, events: vec![event.clone()] };
        FromWrapper::decode(&frame.encode()).is_err()
    }
}

/// The most that a name and a session can take, escaped.
fn envelope_bytes(event: &NewEvent) -> u64 {
    128 + 6 * (event.kind.len() + event.session.as_ref().map_or(0, |session| session.len())) as u64
}

fn to_json(event: &NewEvent) -> Result<Vec<u8>, OutboxError> {
    serde_json::to_vec(event)
        .map_err(|source| OutboxError::Disk { doing: "write an event", source: source.into() })
}

fn from_json(text: &[u8]) -> Result<NewEvent, OutboxError> {
    serde_json::from_slice(text)
        .map_err(|source| OutboxError::Disk { doing: "read an event", source: source.into() })
}

/// The event of an entry: from the disk, or the notice that is not there yet.
fn event_of(files: &Files, entry: &Entry<Place>) -> Result<NewEvent, OutboxError> {
    match (entry.notice(), entry.place) {
        (Some(notice), _) => Ok(notice),
        (None, Some(place)) => from_json(&files.read(place).map_err(disk("read events"))?),
        (None, None) => {
            Err(OutboxError::Disk { doing: "find an event", source: std::io::ErrorKind::NotFound.into() })
        }
    }
}

fn new_producer() -> ProducerId {
    uuid::Uuid::now_v7().simple().to_string().parse().expect("hexadecimal digits are an id")
}

fn disk(doing: &'static str) -> impl FnOnce(std::io::Error) -> OutboxError {
    move |source| OutboxError::Disk { doing, source }
}
