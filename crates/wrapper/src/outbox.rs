//! The outbox: every event of the agent, numbered and on disk until the relay has it (§6).
//!
//! A thread of its own does the disk's work, so that no await ever waits in a system call. [`Outbox`] is the handle.

use std::{path::PathBuf, time::Duration};

use protocol::{NewEvent, ProducerId};
use tokio::sync::watch;

/// How much an outbox holds, and how long it holds its caller back.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct OutboxLimits {
    /// Bytes on disk that wait for an ack. Past it [`Outbox::push`] waits, and then drops (§6, rule 5).
    pub bytes: u64,
    /// How long a push waits for acks while the outbox is full.
    pub patience: Duration,
    /// Bytes of one file: what was acked is given back to the disk in such pieces.
    pub segment_bytes: u64,
}

impl Default for OutboxLimits {
    fn default() -> Self {
        Self { bytes: 64 * 1024 * 1024, patience: Duration::from_secs(10), segment_bytes: 4 * 1024 * 1024 }
    }
}

/// Why an outbox failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OutboxError {
    /// Another wrapper has it: two agents never share a state dir.
    #[error("the outbox {path} is in use by another wrapper")]
    InUse {
        /// Its folder.
        path: PathBuf,
    },
    /// The disk failed.
    #[error("the outbox cannot {doing}")]
    Disk {
        /// What it was about to do.
        doing: &'static str,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
    /// It was closed.
    #[error("the outbox is closed")]
    Closed,
}

/// Events with consecutive numbers, ready for one `append`: there is at least one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// The number of the first of them. Numbers before it that were not sent are named by that event, which is then a
    /// `wrapper.events_dropped`.
    pub first: u64,
    /// The events.
    pub events: Vec<NewEvent>,
    /// Their size as they are sent.
    pub bytes: usize,
}

/// How far an outbox is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// The number the next event gets.
    pub next: u64,
    /// Everything through this number is committed by the relay.
    pub acked: u64,
    /// Events that wait for an ack.
    pub events: u64,
    /// Their bytes on disk.
    pub bytes: u64,
}

/// The handle of an outbox. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Outbox {
    producer: ProducerId,
    progress: watch::Receiver<Progress>,
}

impl Outbox {
    /// Opens the outbox in this folder, which is made if it is not there. Blocks: what was left is read.
    ///
    /// # Errors
    /// When the folder cannot be used, or another wrapper has it.
    pub fn open(dir: impl Into<PathBuf>, limits: OutboxLimits) -> Result<Self, OutboxError> {
        let (_dir, _limits) = (dir.into(), limits);
        todo!()
    }

    /// Who numbers the events: the same over restarts of the wrapper.
    #[must_use]
    pub fn producer(&self) -> &ProducerId {
        &self.producer
    }

    /// Numbers these events and writes them; when it returns they survive the wrapper's death. While the outbox is full it
    /// waits for acks, up to [`OutboxLimits::patience`], and then drops the oldest deltas, then the oldest state, never an
    /// outcome, and names what it dropped.
    ///
    /// # Errors
    /// When the disk failed: none of them was numbered, and they may be pushed again.
    pub async fn push(&self, events: Vec<NewEvent>) -> Result<(), OutboxError> {
        let _ = events;
        todo!()
    }

    /// The events after this number, up to so many and so many bytes, at least one; `None` if there is none.
    ///
    /// # Errors
    /// When the disk failed.
    pub async fn pending_after(&self, after: u64, max_events: usize, max_bytes: usize) -> Result<Option<Batch>, OutboxError> {
        let _ = (after, max_events, max_bytes);
        todo!()
    }

    /// Everything that waits for an ack, with its numbers, oldest first: what an earlier run left, before anything is pushed.
    ///
    /// # Errors
    /// When the disk failed.
    pub async fn pending(&self) -> Result<Vec<(u64, NewEvent)>, OutboxError> {
        todo!()
    }

    /// How far it is, to look at and to wait for.
    #[must_use]
    pub fn progress(&self) -> watch::Receiver<Progress> {
        self.progress.clone()
    }

    /// Events that wait for an ack, and their bytes.
    #[must_use]
    pub fn depth(&self) -> (u64, u64) {
        let progress = *self.progress.borrow();
        (progress.events, progress.bytes)
    }

    /// Ends the disk's thread and gives the folder free. Whoever still has a handle gets [`OutboxError::Closed`].
    pub async fn close(self) {
        todo!()
    }
}
