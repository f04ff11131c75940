//! The contract every backend keeps, as numbered clauses. Each clause has a test in the conformance suite.

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use protocol::{Epoch, Event, Key, LogId, NewEvent, ProducerId, Seq, Timestamp, limits};

use crate::{Tail, TextSearch};

/// Event logs, addressed by [`LogId`].
///
/// # Clauses
/// 1. *Order.* An append gives its events positions that are greater than every earlier one of that log, in the order
///    of the batch. Positions are never reused, not even after pruning or removal of events.
/// 2. *Atomicity.* All events of a batch are committed, or none.
/// 3. *Durability.* When `append` returns, a crash of the process loses nothing of it; with a durable backend in its
///    default configuration neither does the loss of every unsynced write.
/// 4. *Output gate.* No reader and no tail sees an event before it is committed.
/// 5. *Idempotence.* Of a batch with a [`ProducerBatch`], events whose number is not above the producer's last one are
///    ignored; the rest is appended. A hole in the numbers is refused ([`AppendError::Hole`]), unless the first event
///    of the batch is a `wrapper.events_dropped {from, to}` that covers it. The first number of a producer of which the
///    log knows no event is taken as it is. The producer's state is committed with the events, and is kept when another
///    producer follows it: of the newest 64 producers of a log.
/// 6. *Fencing.* A batch of a lower generation than the log has seen is refused ([`AppendError::Fenced`]), and so is
///    one of the same generation from another producer. An empty batch with a producer registers its generation.
/// 7. *Optimistic concurrency.* With `expect` the append is refused ([`AppendError::Conflict`]) unless it is the head,
///    or every event of the batch is a repetition. A log that is not there has head zero.
/// 8. *Compaction.* Once an event with effect `replace` or `remove` is committed, no read returns an earlier event
///    that it made obsolete (same key; for `remove` also every key it covers and, for a session, every event of that
///    session). A `remove` itself is only made obsolete by another `remove`: it stands for more than its own key. What
///    is left, read after any position, folds to the same view as everything that was appended.
/// 9. *Bounds.* A log keeps to its [`Retention`], the oldest events going first; `floor` is the highest position that
///    pruning took, and a read after a lower position returns what is above the floor, with that floor in its page.
///    Compaction does not raise the floor.
/// 10. *Epoch.* A log has one epoch from its first append to its removal; made again it has another one.
/// 11. *Pages.* A read returns at most the events and bytes asked for, but at least one event if there is one, and
///     says whether there is more.
/// 12. *Tail.* After a commit every tail of that log yields a head at or above it, without a timer; a slow tail sees
///     the newest head, not each of them.
/// 13. *Bytes.* An event's envelope has the same bytes in every read of it, before and after a restart.
/// 14. *Integrity.* A stored event that is damaged is reported ([`ReadError::Corrupt`]), never returned. What comes
///     before it in the log can be read, and so can what comes after it, by a read after its position. Where nobody
///     can tell which events are damaged or missing, every read and append of that log fails.
/// 15. *Unknown logs.* Reading a log that was never appended to, or was removed, is [`ReadError::UnknownLog`]; a tail
///     of it waits for its first commit. A refused append makes no log; one of nothing makes an empty one.
/// 16. *Snapshots.* A snapshot is returned as it was put, and the newest put wins; it goes with its log.
#[async_trait]
pub trait EventStore: Send + Sync + fmt::Debug + 'static {
    /// Appends a batch. The log is made if it is not there. Dropping the future does not take back what a backend has
    /// begun: whoever is not sure appends again, as a producer.
    async fn append(&self, log: &LogId, batch: Append) -> Result<Appended, AppendError>;

    /// Reads events after a position, oldest first.
    async fn read(&self, log: &LogId, after: Seq, limit: ReadLimit) -> Result<Page, ReadError>;

    /// Where the log begins and ends.
    async fn bounds(&self, log: &LogId) -> Result<Bounds, ReadError>;

    /// Follows the head of a log, whether it is there yet or not. A tail outlives the removal of its log: its
    /// [`head`](Tail::head) is then `None` until the log is made again.
    fn tail(&self, log: &LogId) -> Tail;

    /// The newest producer of a log.
    async fn producer(&self, log: &LogId) -> Result<Option<ProducerState>, ReadError>;

    /// The newest snapshot of a log, if one was put.
    async fn snapshot(&self, log: &LogId) -> Result<Option<Snapshot>, ReadError>;

    /// Keeps a snapshot of a log that exists.
    async fn put_snapshot(&self, log: &LogId, snapshot: Snapshot) -> Result<(), ReadError>;

    /// Removes a log with all that belongs to it. Removing one that is not there does nothing.
    async fn remove(&self, log: &LogId) -> Result<(), StoreError>;

    /// Every log, by name.
    async fn list(&self) -> Result<Vec<LogSummary>, StoreError>;

    /// Prunes every event of logs whose newest event is older than their [`Retention::idle`] at `now`; says how many.
    async fn prune_idle(&self, now: Timestamp) -> Result<u64, StoreError>;

    /// Finds texts in all logs, where the backend can.
    fn text_search(&self) -> Option<&dyn TextSearch> {
        None
    }

    /// How much the store holds and has done, for metrics. Cheap; a backend says what it knows.
    fn figures(&self) -> StoreFigures {
        StoreFigures::default()
    }
}

/// What a store holds, and what it has done since it was opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoreFigures {
    /// Logs that are there.
    pub logs: u64,
    /// Events kept in them.
    pub events: u64,
    /// Bytes on disk, the write-ahead log included.
    pub bytes: u64,
    /// Bytes of the write-ahead log.
    pub wal_bytes: u64,
    /// Transactions that were synced.
    pub commits: u64,
    /// Time they took, from the first statement to the end of the sync.
    pub commit_nanos: u64,
    /// Times the write-ahead log was copied into the database.
    pub checkpoints: u64,
    /// Time that took.
    pub checkpoint_nanos: u64,
    /// Events appended.
    pub appended: u64,
    /// Events that retention took.
    pub pruned: u64,
    /// Events that compaction took.
    pub compacted: u64,
    /// Events that were moved from the journal to where they are read.
    pub filed: u64,
    /// Reads that found damage.
    pub corrupt: u64,
}

/// Events to append.
#[derive(Debug, Clone, Default)]
pub struct Append {
    /// The events, in order.
    pub events: Vec<NewEvent>,
    /// Who numbers them, so that resending is harmless.
    pub producer: Option<ProducerBatch>,
    /// The head the log must have.
    pub expect: Option<Seq>,
}

impl Append {
    /// Events from nobody in particular.
    #[must_use]
    pub fn of(events: Vec<NewEvent>) -> Self {
        Self { events, producer: None, expect: None }
    }

    /// The same, numbered by a producer.
    #[must_use]
    pub fn from_producer(mut self, producer: ProducerBatch) -> Self {
        self.producer = Some(producer);
        self
    }

    /// The same, if the log's head is this.
    #[must_use]
    pub fn expecting(mut self, head: Seq) -> Self {
        self.expect = Some(head);
        self
    }
}

/// A producer's own numbers for a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProducerBatch {
    /// Who.
    pub producer: ProducerId,
    /// Its generation.
    pub generation: u64,
    /// The number (`pseq`, from 1) of the first event of the batch.
    pub first: u64,
}

/// What a log knows of its newest producer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProducerState {
    /// Who.
    pub producer: ProducerId,
    /// Its generation.
    pub generation: u64,
    /// The number of its last event that is committed; 0 if none.
    pub acked: u64,
}

/// What an append did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Appended {
    /// The log's incarnation.
    pub epoch: Epoch,
    /// The head after the append.
    pub head: Seq,
    /// How many events of the batch were appended; the others were repetitions.
    pub appended: usize,
    /// The producer's last committed number; 0 without a producer.
    pub acked: u64,
}

/// An event as it is kept: its envelope encoded once, and what a reader goes by without parsing it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its position.
    pub seq: Seq,
    /// Its type.
    pub kind: Arc<str>,
    /// The entity it speaks of.
    pub key: Option<Key>,
    /// The envelope's JSON text (`docs/protocol.md` §1): what every viewer is sent.
    pub envelope: Bytes,
}

impl Record {
    /// The event, parsed.
    ///
    /// # Errors
    /// When the envelope is no event, which a checked record never is.
    pub fn event(&self) -> Result<Event, serde_json::Error> {
        serde_json::from_slice(&self.envelope)
    }
}

/// How much one read returns at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadLimit {
    /// Events.
    pub events: usize,
    /// Bytes of envelopes.
    pub bytes: usize,
}

impl Default for ReadLimit {
    fn default() -> Self {
        Self { events: limits::BATCH_EVENTS, bytes: limits::BATCH_BYTES }
    }
}

/// Part of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// The log's bounds at the time of the read.
    pub bounds: Bounds,
    /// The events, strictly increasing.
    pub records: Vec<Record>,
    /// There are events after the last one here.
    pub more: bool,
}

impl Page {
    /// Takes as many of the log's next events as the limit allows, and at least one. A damaged event, of which only the
    /// position is known, ends the page; if it is the first, it is all there is.
    pub(crate) fn collect(
        bounds: Bounds,
        limit: ReadLimit,
        rest: &mut dyn Iterator<Item = Result<&Record, Seq>>,
    ) -> Result<Self, Seq> {
        let mut left = limit;
        let mut page = Self { bounds, records: Vec::new(), more: false };
        for event in rest {
            let is_first = page.records.is_empty();
            match event {
                Ok(record) if is_first || (left.events > 0 && left.bytes >= record.envelope.len()) => {
                    left.events = left.events.saturating_sub(1);
                    left.bytes = left.bytes.saturating_sub(record.envelope.len());
                    page.records.push(record.clone());
                }
                Err(damaged) if is_first => return Err(damaged),
                Ok(_) | Err(_) => {
                    page.more = true;
                    break;
                }
            }
        }
        Ok(page)
    }
}

/// Where a log begins and ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bounds {
    /// Its incarnation.
    pub epoch: Epoch,
    /// The highest position that pruning took; zero if it took none.
    pub floor: Seq,
    /// The newest position; zero if it has none.
    pub head: Seq,
}

/// One log of a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogSummary {
    /// Its name.
    pub log: LogId,
    /// Its bounds.
    pub bounds: Bounds,
    /// Events kept.
    pub events: u64,
    /// Bytes kept.
    pub bytes: u64,
}

/// A fold of a log, up to a position.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Everything up to and including this is in it.
    pub seq: Seq,
    /// What its owner made of it.
    pub data: Bytes,
}

/// How much of a log is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Events at most.
    pub events: u64,
    /// Bytes of envelopes at most.
    pub bytes: u64,
    /// Time without a new event after which the log is emptied.
    pub idle: Option<Duration>,
}

impl Retention {
    /// Everything, for ever.
    pub const UNBOUNDED: Self = Self { events: u64::MAX, bytes: u64::MAX, idle: None };

    /// The default for agents' logs (`docs/protocol.md` §11).
    pub const AGENT: Self = Self {
        events: limits::LOG_EVENTS,
        bytes: limits::LOG_BYTES,
        idle: Some(Duration::from_secs(limits::LOG_IDLE_DAYS * 24 * 3600)),
    };
}

/// Which log is kept how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetentionPolicy {
    /// Agents' logs.
    pub agent: Retention,
    /// Towns' journals.
    pub town: Retention,
}

impl Default for RetentionPolicy {
    fn default() -> Self {
        Self { agent: Retention::AGENT, town: Retention::UNBOUNDED }
    }
}

impl RetentionPolicy {
    /// What goes for this log.
    #[must_use]
    pub fn of(&self, log: &LogId) -> Retention {
        match log {
            LogId::Agent(_) => self.agent,
            LogId::Town(_) => self.town,
        }
    }
}

/// Why nothing was appended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AppendError {
    /// The log has seen a newer generation, or this one from another producer.
    #[error("generation {generation} of {log} is fenced: generation {latest} has it")]
    Fenced {
        /// The log.
        log: LogId,
        /// The generation of the batch.
        generation: u64,
        /// The newest generation.
        latest: u64,
    },
    /// Numbers are missing between the last one committed and the first of the batch.
    #[error("{log} has events through {acked} of this producer, and the batch begins at {first}")]
    Hole {
        /// The log.
        log: LogId,
        /// The last number committed.
        acked: u64,
        /// The first number of the batch.
        first: u64,
    },
    /// The head is not the expected one.
    #[error("the head of {log} is {head}, not {expected}")]
    Conflict {
        /// The log.
        log: LogId,
        /// The head expected.
        expected: Seq,
        /// The head found.
        head: Seq,
    },
    /// An event is larger than the store takes.
    #[error("event {index} of the batch has {len} bytes of data, at most {limit} are allowed")]
    TooLarge {
        /// Which event of the batch.
        index: usize,
        /// Its bytes.
        len: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// The backend failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl AppendError {
    /// Whether the same batch may succeed later.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Store(error) => error.is_retryable(),
            Self::Fenced { .. } | Self::Hole { .. } | Self::Conflict { .. } | Self::TooLarge { .. } => false,
        }
    }
}

/// Why nothing was read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// No such log.
    #[error("there is no log {log}")]
    UnknownLog {
        /// The log asked for.
        log: LogId,
    },
    /// A stored event is damaged.
    #[error("event {seq} of {log} is damaged: its checksum does not match")]
    Corrupt {
        /// The log.
        log: LogId,
        /// The event's position.
        seq: Seq,
    },
    /// The backend failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a backend failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// No space is left; reads go on, and appends succeed again once there is some.
    #[error("the store has no space left")]
    Full {
        /// What the backend says.
        #[source]
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
    /// The store was closed, or its writer ended after a failed sync: open it again.
    #[error("the store is closed: {reason}")]
    Closed {
        /// Why.
        reason: String,
    },
    /// Anything else.
    #[error("the store failed while it tried to {doing}")]
    Backend {
        /// What it was about to do.
        doing: &'static str,
        /// What the backend says.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl StoreError {
    /// Whether the same call may succeed later.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Full { .. })
    }
}
