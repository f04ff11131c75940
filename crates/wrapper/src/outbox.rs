//! The outbox: every event of the agent, numbered and on disk until the relay has it (§6).
//!
//! Whoever asks does the disk's work: to write or read a few events in the system's cache takes less than to wake a thread for it. What
//! waits for the disk itself, or moves much, is done by a thread for such work, so that no await waits for it in a system call.

mod file;
pub(crate) mod rules;
mod spool;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use protocol::{NewEvent, ProducerId};
use tokio::sync::{Mutex, watch};
use tokio_util::sync::CancellationToken;

use rules::Kind;
use spool::{Pushed, Spool};

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
    patience: Duration,
    progress: watch::Receiver<Progress>,
    /// No ack will come any more: none is waited for.
    no_acks: CancellationToken,
    /// Absent when it was closed.
    disk: Arc<Mutex<Option<Disk>>>,
    /// There is no thread for what takes long.
    in_task: bool,
}

impl Outbox {
    /// Opens the outbox in this folder, which is made if it is not there. Blocks: what was left is read.
    ///
    /// # Errors
    /// When the folder cannot be used, or another wrapper has it.
    pub fn open(dir: impl Into<PathBuf>, limits: OutboxLimits) -> Result<Self, OutboxError> {
        Self::of(&dir.into(), limits, false)
    }

    /// As [`Self::open`], but whoever asks does what takes long as well, and blocks while it does: for simulations on virtual time,
    /// which nothing outside of the runtime may hold up.
    ///
    /// # Errors
    /// When the folder cannot be used, or another wrapper has it.
    pub fn open_in_task(dir: impl Into<PathBuf>, limits: OutboxLimits) -> Result<Self, OutboxError> {
        Self::of(&dir.into(), limits, true)
    }

    fn of(dir: &Path, limits: OutboxLimits, in_task: bool) -> Result<Self, OutboxError> {
        let patience = limits.patience;
        let spool = Spool::open(dir, limits)?;
        let producer = spool.producer().clone();
        let (publish, progress) = watch::channel(spool.progress());
        let disk = Arc::new(Mutex::new(Some(Disk { spool, publish })));
        let no_acks = CancellationToken::new();
        Ok(Self { producer, patience, progress, no_acks, disk, in_task })
    }

    /// Who numbers the events: the same over restarts of the wrapper.
    #[must_use]
    pub fn producer(&self) -> &ProducerId {
        &self.producer
    }

    /// Numbers these events and writes them; when it returns they survive the wrapper's death. While the outbox is full it
    /// waits for acks, up to [`OutboxLimits::patience`], and then drops the oldest deltas, then the oldest state, never an
    /// outcome, and names what it dropped. An event that no relay takes (over a hard limit of §11) is named at once.
    ///
    /// # Errors
    /// When the disk failed: none of them was numbered, and they may be pushed again.
    pub async fn push(&self, events: Vec<NewEvent>) -> Result<(), OutboxError> {
        if events.is_empty() {
            return Ok(());
        }
        let events: Arc<[NewEvent]> = events.into();
        let give_up = tokio::time::Instant::now() + self.patience;
        let mut progress = self.progress.clone();
        loop {
            progress.mark_unchanged();
            let drop = tokio::time::Instant::now() >= give_up || self.no_acks.is_cancelled();
            let work = if drop || events.iter().any(|event| Kind::of(event) == Kind::Outcome) {
                Work::Long
            } else {
                Work::Short
            };
            let events = events.clone();
            let pushed = self.with(work, move |spool| spool.push(&events, drop)).await?;
            match pushed {
                Pushed::Done => return Ok(()),
                // Whether an ack came or the time is over, the next round finds out.
                Pushed::Full => tokio::select! {
                    _ = tokio::time::timeout_at(give_up, progress.changed()) => {}
                    () = self.no_acks.cancelled() => {}
                },
            }
        }
    }

    /// The events after this number, up to so many and so many bytes, at least one; `None` if there is none.
    ///
    /// # Errors
    /// When the disk failed.
    pub async fn pending_after(
        &self,
        after: u64,
        max_events: usize,
        max_bytes: usize,
    ) -> Result<Option<Batch>, OutboxError> {
        self.with(Work::Short, move |spool| spool.pending_after(after, max_events, max_bytes)).await
    }

    /// Everything that waits for an ack, with its numbers, oldest first: what an earlier run left, before anything is pushed.
    ///
    /// # Errors
    /// When the disk failed.
    pub async fn pending(&self) -> Result<Vec<(u64, NewEvent)>, OutboxError> {
        self.with(Work::Long, |spool| spool.pending()).await
    }

    /// Everything through this number is committed by the relay.
    ///
    /// # Errors
    /// When the disk failed.
    pub async fn ack(&self, through: u64) -> Result<(), OutboxError> {
        self.with(Work::Short, move |spool| spool.ack(through)).await
    }

    /// No ack will come any more (§6, rule 4): a push into a full outbox waits for none.
    pub(crate) fn expect_no_acks(&self) {
        self.no_acks.cancel();
    }

    /// A relay says through which number it has everything, at the beginning of a link. What it can no longer get is named;
    /// numbers that it has and this disk forgot are not used again. Afterwards everything from `acked + 1` on is pending.
    ///
    /// # Errors
    /// When the disk failed.
    pub async fn resume(&self, acked: u64) -> Result<(), OutboxError> {
        self.with(Work::Long, move |spool| spool.resume(acked)).await
    }

    /// The relay will never take the event of this number: it is named as lost, with this reason.
    ///
    /// # Errors
    /// When the disk failed.
    pub async fn replace(&self, number: u64, reason: &'static str) -> Result<(), OutboxError> {
        self.with(Work::Long, move |spool| spool.replace(number, reason)).await
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

    /// Ends the disk's work and gives the folder free. Whoever still has a handle gets [`OutboxError::Closed`].
    pub async fn close(self) {
        self.disk.lock().await.take();
    }

    /// Does this one thing with the disk. What was begun is done to its end, also when nobody waits for it any more.
    async fn with<T: Send + 'static>(
        &self,
        work: Work,
        asked: impl FnOnce(&mut Spool) -> Result<T, OutboxError> + Send + 'static,
    ) -> Result<T, OutboxError> {
        let mut disk = Arc::clone(&self.disk).lock_owned().await;
        let done = move || disk.as_mut().ok_or(OutboxError::Closed)?.serve(asked);
        match work {
            Work::Long if !self.in_task => {
                tokio::task::spawn_blocking(done).await.map_err(|_| OutboxError::Closed)?
            }
            Work::Short | Work::Long => done(),
        }
    }
}

/// How much is asked of the disk.
#[derive(Debug, Clone, Copy)]
enum Work {
    /// A few events in the system's cache.
    Short,
    /// It may wait for a sync, or for all that waits to be written again.
    Long,
}

/// The disk's end of an outbox.
#[derive(Debug)]
struct Disk {
    spool: Spool,
    publish: watch::Sender<Progress>,
}

impl Disk {
    /// Does what is asked. Progress is published before there is an answer, so that whoever got one sees it.
    fn serve<T>(
        &mut self,
        asked: impl FnOnce(&mut Spool) -> Result<T, OutboxError>,
    ) -> Result<T, OutboxError> {
        let done = asked(&mut self.spool);
        let progress = self.spool.progress();
        self.publish.send_if_modified(|last| {
            let changed = *last != progress;
            *last = progress;
            changed
        });
        done
    }
}

#[cfg(test)]
mod tests;
