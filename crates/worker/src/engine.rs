//! The engine of a town: takes requests one after the other, commits what comes of them, does what must be done outside.

use std::{sync::Arc, time::Duration};

use protocol::Timestamp;
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::Instant,
};
use tokio_util::sync::CancellationToken;
use town::{Command, Rejection, Request, Town, effects};

use crate::{
    Clock,
    fleet::Fleet,
    journal::{CommitError, Journal, JournalError},
    limits::ASKS,
};

/// How long the engine leaves the journal alone after it failed, before it tries by itself again.
const JOURNAL_RETRY: Duration = Duration::from_secs(1);

/// Why a request to the town changed nothing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AskError {
    /// The town refused.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// The journal failed.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The worker is going down.
    #[error("the worker is going down")]
    Closed,
}

impl AskError {
    /// The word for it on the wire (`docs/protocol.md` §8).
    #[must_use]
    pub fn code(&self) -> protocol::ErrorCode {
        match self {
            Self::Rejected(rejection) => rejection.code(),
            Self::Journal(error) if error.is_retryable() => protocol::ErrorCode::StoreFull,
            Self::Journal(_) => protocol::ErrorCode::Internal,
            Self::Closed => protocol::ErrorCode::Draining,
        }
    }
}

struct Ask {
    request: Request,
    answer: oneshot::Sender<Result<Arc<Town>, AskError>>,
}

/// How the engine is reached. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct EngineHandle {
    asks: mpsc::Sender<Ask>,
    town: watch::Receiver<Arc<Town>>,
}

impl EngineHandle {
    /// Asks the town, and waits until what comes of it is committed. Returns the town after it.
    pub(crate) async fn ask(&self, request: Request) -> Result<Arc<Town>, AskError> {
        let (answer, answered) = oneshot::channel();
        self.asks.send(Ask { request, answer }).await.map_err(|_| AskError::Closed)?;
        answered.await.map_err(|_| AskError::Closed)?
    }

    pub(crate) fn town(&self) -> watch::Receiver<Arc<Town>> {
        self.town.clone()
    }
}

/// One per town and worker.
pub(crate) struct Engine {
    journal: Journal,
    town: watch::Sender<Arc<Town>>,
    asks: mpsc::Receiver<Ask>,
    clock: Clock,
    /// Nothing is done unasked before this: the journal failed.
    rest_until: Option<Instant>,
}

impl Engine {
    pub(crate) fn new(journal: Journal, clock: Clock) -> (Self, EngineHandle) {
        let (sender, asks) = mpsc::channel(ASKS);
        let (town, watcher) = watch::channel(Arc::new(journal.town().clone()));
        let engine = Self { journal, town, asks, clock, rest_until: None };
        (engine, EngineHandle { asks: sender, town: watcher })
    }

    /// Runs until `shutdown`, then lets the fleet end or go, and returns.
    pub(crate) async fn run(mut self, mut fleet: Fleet, shutdown: CancellationToken) {
        fleet.recover(self.journal.town()).await;
        let mut tail = self.journal.tail();
        loop {
            let alarm = alarm(self.rest_until, self.journal.town(), self.clock.now());
            tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                () = alarm => self.tick(&mut fleet).await,
                ask = self.asks.recv() => match ask {
                    Some(Ask { request, answer }) => {
                        // Whoever asked may have gone; what was committed stays so.
                        let _ = answer.send(self.take(&request, &mut fleet).await);
                    }
                    None => break,
                },
                head = tail.changed(), if self.rest_until.is_none() => match head {
                    Some(head) if head.seq > self.journal.head() => self.catch_up().await,
                    Some(_) => {}
                    None => break,
                },
            }
        }
        self.refuse_until(fleet.shut_down()).await;
    }

    /// Answers every request with [`AskError::Closed`] while something ends.
    async fn refuse_until(&mut self, end: impl Future<Output = ()>) {
        tokio::pin!(end);
        loop {
            tokio::select! {
                () = &mut end => return,
                Some(Ask { answer, .. }) = self.asks.recv() => { let _ = answer.send(Err(AskError::Closed)); }
            }
        }
    }

    async fn tick(&mut self, fleet: &mut Fleet) {
        if self.rest_until.take().is_some() {
            self.catch_up().await;
        }
        if let Err(error) = self.take(&Request::by("worker", Command::Tick), fleet).await {
            tracing::error!(error = &error as &dyn std::error::Error, "what is due cannot be written down");
            self.rest();
        }
    }

    async fn take(&mut self, request: &Request, fleet: &mut Fleet) -> Result<Arc<Town>, AskError> {
        let committed = self.journal.commit(self.clock.now(), request).await;
        // A conflict may have brought in events of another worker, whatever became of the request.
        let town = self.publish();
        let events = committed.map_err(|error| match error {
            CommitError::Rejected(rejection) => AskError::Rejected(rejection),
            CommitError::Journal(error) => AskError::Journal(error),
        })?;
        for event in &events {
            tracing::info!(about = event.change.about(), by = event.by.actor, "{}", event.change.kind());
            for effect in effects(event) {
                fleet.perform(effect, &town).await;
            }
        }
        Ok(town)
    }

    async fn catch_up(&mut self) {
        if let Err(error) = self.journal.catch_up().await {
            tracing::error!(error = &error as &dyn std::error::Error, "the journal cannot be read");
            self.rest();
        }
        self.publish();
    }

    fn rest(&mut self) {
        self.rest_until = Some(Instant::now() + JOURNAL_RETRY);
    }

    fn publish(&self) -> Arc<Town> {
        self.town.send_if_modified(|town| {
            let changed = **town != *self.journal.town();
            if changed {
                *town = Arc::new(self.journal.town().clone());
            }
            changed
        });
        self.town.borrow().clone()
    }
}

/// Comes to its end exactly when the town has something due, or the journal had its rest.
fn alarm(rest_until: Option<Instant>, town: &Town, now: Timestamp) -> impl Future<Output = ()> + use<> {
    let due = town.next_deadline().map(|deadline| Instant::now() + deadline.since(now));
    async move {
        match rest_until.or(due) {
            Some(until) => tokio::time::sleep_until(until).await,
            None => std::future::pending().await,
        }
    }
}
