//! The outbox: every event of the agent, numbered and on disk until the relay has it (§6).
//!
//! A thread of its own does the disk's work, so that no await ever waits in a system call. [`Outbox`] is the handle. In a
//! simulation, whose time stands still until every task waits, a task does it.

mod file;
pub(crate) mod rules;
mod spool;

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    thread::JoinHandle,
    time::Duration,
};

use protocol::{NewEvent, ProducerId};
use tokio::sync::{mpsc, oneshot, watch};

use spool::{Pushed, Spool};

/// Requests that wait for the disk. Each caller waits for its own, so that this bounds callers, not events.
const REQUESTS: usize = 64;

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
    requests: mpsc::Sender<Request>,
    progress: watch::Receiver<Progress>,
    server: Arc<Mutex<Option<Server>>>,
}

/// What does the disk's work.
#[derive(Debug)]
enum Server {
    Thread(JoinHandle<()>),
    Task(tokio::task::JoinHandle<()>),
}

impl Outbox {
    /// Opens the outbox in this folder, which is made if it is not there. Blocks: what was left is read.
    ///
    /// # Errors
    /// When the folder cannot be used, or another wrapper has it.
    pub fn open(dir: impl Into<PathBuf>, limits: OutboxLimits) -> Result<Self, OutboxError> {
        Self::served(&dir.into(), limits, |mut disk, mut inbox| {
            let serve = move || while inbox.blocking_recv().is_some_and(|request| disk.serve(request)) {};
            let thread = std::thread::Builder::new().name("outbox".to_owned()).spawn(serve);
            let thread = thread.map_err(|source| OutboxError::Disk { doing: "start its thread", source })?;
            Ok(Server::Thread(thread))
        })
    }

    /// As [`Self::open`], but a task of this runtime does the disk's work, and blocks while it does: for simulations on
    /// virtual time, which nothing outside of the runtime may hold up.
    ///
    /// # Errors
    /// When the folder cannot be used, or another wrapper has it.
    pub fn open_in_task(dir: impl Into<PathBuf>, limits: OutboxLimits) -> Result<Self, OutboxError> {
        Self::served(&dir.into(), limits, |mut disk, mut inbox| {
            let serve = async move { while inbox.recv().await.is_some_and(|request| disk.serve(request)) {} };
            Ok(Server::Task(tokio::spawn(serve)))
        })
    }

    fn served(
        dir: &Path,
        limits: OutboxLimits,
        begin: impl FnOnce(Disk, mpsc::Receiver<Request>) -> Result<Server, OutboxError>,
    ) -> Result<Self, OutboxError> {
        let patience = limits.patience;
        let spool = Spool::open(dir, limits)?;
        let producer = spool.producer().clone();
        let (publish, progress) = watch::channel(spool.progress());
        let (requests, inbox) = mpsc::channel(REQUESTS);
        let server = begin(Disk { spool, publish }, inbox)?;
        Ok(Self { producer, patience, requests, progress, server: Arc::new(Mutex::new(Some(server))) })
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
            let drop = tokio::time::Instant::now() >= give_up;
            let pushed = self.ask(|answer| Request::Push { events: events.clone(), drop, answer }).await?;
            match pushed {
                Pushed::Done => return Ok(()),
                // Whether an ack came or the time is over, the next round finds out.
                Pushed::Full => {
                    let _ = tokio::time::timeout_at(give_up, progress.changed()).await;
                }
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
        self.ask(|answer| Request::PendingAfter { after, max_events, max_bytes, answer }).await
    }

    /// Everything that waits for an ack, with its numbers, oldest first: what an earlier run left, before anything is pushed.
    ///
    /// # Errors
    /// When the disk failed.
    pub async fn pending(&self) -> Result<Vec<(u64, NewEvent)>, OutboxError> {
        self.ask(|answer| Request::Pending { answer }).await
    }

    /// Everything through this number is committed by the relay.
    ///
    /// # Errors
    /// When the disk failed.
    pub async fn ack(&self, through: u64) -> Result<(), OutboxError> {
        self.ask(|answer| Request::Ack { through, answer }).await
    }

    /// A relay says through which number it has everything, at the beginning of a link. What it can no longer get is named;
    /// numbers that it has and this disk forgot are not used again. Afterwards everything from `acked + 1` on is pending.
    ///
    /// # Errors
    /// When the disk failed.
    pub async fn resume(&self, acked: u64) -> Result<(), OutboxError> {
        self.ask(|answer| Request::Resume { acked, answer }).await
    }

    /// The relay will never take the event of this number: it is named as lost, with this reason.
    ///
    /// # Errors
    /// When the disk failed.
    pub async fn replace(&self, number: u64, reason: &'static str) -> Result<(), OutboxError> {
        self.ask(|answer| Request::Replace { number, reason, answer }).await
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
        let _ = self.requests.send(Request::Close).await;
        let server = self.server.lock().unwrap_or_else(PoisonError::into_inner).take();
        // It ends as soon as it has written what was asked before.
        match server {
            Some(Server::Thread(thread)) => drop(tokio::task::spawn_blocking(move || thread.join()).await),
            Some(Server::Task(task)) => drop(task.await),
            None => {}
        }
    }

    async fn ask<T>(
        &self,
        request: impl FnOnce(oneshot::Sender<Result<T, OutboxError>>) -> Request,
    ) -> Result<T, OutboxError> {
        let (answer, answered) = oneshot::channel();
        self.requests.send(request(answer)).await.map_err(|_| OutboxError::Closed)?;
        answered.await.map_err(|_| OutboxError::Closed)?
    }
}

type Answer<T> = oneshot::Sender<Result<T, OutboxError>>;

/// What the disk's thread is asked.
#[derive(Debug)]
enum Request {
    Push { events: Arc<[NewEvent]>, drop: bool, answer: Answer<Pushed> },
    PendingAfter { after: u64, max_events: usize, max_bytes: usize, answer: Answer<Option<Batch>> },
    Pending { answer: Answer<Vec<(u64, NewEvent)>> },
    Ack { through: u64, answer: Answer<()> },
    Resume { acked: u64, answer: Answer<()> },
    Replace { number: u64, reason: &'static str, answer: Answer<()> },
    Close,
}

/// The disk's end of an outbox.
#[derive(Debug)]
struct Disk {
    spool: Spool,
    publish: watch::Sender<Progress>,
}

impl Disk {
    /// Does what is asked; false when it is to end. Progress is published before an answer is given, so that whoever got
    /// one sees it. An answer that nobody waits for any more is nobody's loss.
    fn serve(&mut self, request: Request) -> bool {
        match request {
            Request::Push { events, drop, answer } => {
                let pushed = self.spool.push(&events, drop);
                self.tell();
                let _ = answer.send(pushed);
            }
            Request::PendingAfter { after, max_events, max_bytes, answer } => {
                let _ = answer.send(self.spool.pending_after(after, max_events, max_bytes));
            }
            Request::Pending { answer } => {
                let _ = answer.send(self.spool.pending());
            }
            Request::Ack { through, answer } => {
                let done = self.spool.ack(through);
                self.tell();
                let _ = answer.send(done);
            }
            Request::Resume { acked, answer } => {
                let done = self.spool.resume(acked);
                self.tell();
                let _ = answer.send(done);
            }
            Request::Replace { number, reason, answer } => {
                let done = self.spool.replace(number, reason);
                self.tell();
                let _ = answer.send(done);
            }
            Request::Close => return false,
        }
        true
    }

    fn tell(&self) {
        let progress = self.spool.progress();
        self.publish.send_if_modified(|last| {
            let changed = *last != progress;
            *last = progress;
            changed
        });
    }
}

#[cfg(test)]
mod tests;
