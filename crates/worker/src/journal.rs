//! The town's journal in the store: the town is what it tells, and nothing is done before it tells it.

use std::sync::Arc;

use protocol::{LogId, Seq, Timestamp, TownId};
use store::{Append, AppendError, EventStore, ReadError, ReadLimit, Tail};
use town::{Rejection, Request, Town, TownEvent};

use crate::limits::CONFLICTS;

/// A town, and how far its journal was read. Several workers may have the same journal: whoever appends says which
/// head it decided on, and decides again if another one was faster.
#[derive(Debug)]
pub(crate) struct Journal {
    store: Arc<dyn EventStore>,
    log: LogId,
    town: Town,
    head: Seq,
}

/// Why the journal was not read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JournalError {
    /// The store failed to read.
    #[error("the town's journal cannot be read")]
    Read(#[from] ReadError),
    /// The store failed to write.
    #[error("the town's journal cannot be written")]
    Append(#[from] AppendError),
    /// A record of the journal is no event.
    #[error("a record of the town's journal is no event")]
    Record(#[source] serde_json::Error),
    /// An event of the journal is not understood.
    #[error(transparent)]
    Event(#[from] town::JournalError),
    /// Others wrote to the journal again and again.
    #[error("the town's journal changed {CONFLICTS} times while one request was decided on: try again")]
    Contended,
}

impl JournalError {
    /// Whether the store had no room: the same request may succeed later.
    pub(crate) fn is_retryable(&self) -> bool {
        matches!(self, Self::Append(error) if error.is_retryable())
    }
}

/// Why a request changed nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CommitError {
    #[error(transparent)]
    Rejected(#[from] Rejection),
    #[error(transparent)]
    Journal(#[from] JournalError),
}

impl Journal {
    /// Reads a town's journal from its beginning.
    pub(crate) async fn open(store: Arc<dyn EventStore>, town: TownId) -> Result<Self, JournalError> {
        let log = LogId::Town(town.clone());
        let mut journal = Self { store, log, town: Town::new(town), head: Seq::ZERO };
        journal.catch_up().await?;
        Ok(journal)
    }

    pub(crate) fn town(&self) -> &Town {
        &self.town
    }

    pub(crate) fn head(&self) -> Seq {
        self.head
    }

    pub(crate) fn tail(&self) -> Tail {
        self.store.tail(&self.log)
    }

    /// Takes in what was appended since, by whomever.
    pub(crate) async fn catch_up(&mut self) -> Result<(), JournalError> {
        loop {
            let page = match self.store.read(&self.log, self.head, ReadLimit::default()).await {
                Ok(page) => page,
                Err(ReadError::UnknownLog { .. }) => return Ok(()),
                Err(error) => return Err(error.into()),
            };
            for record in &page.records {
                let event = record.event().map_err(JournalError::Record)?;
                if let Some(event) = TownEvent::from_journal(&event)? {
                    self.town.evolve(&event);
                }
                self.head = record.seq;
            }
            if !page.more {
                self.head = self.head.max(page.bounds.head);
                return Ok(());
            }
        }
    }

    /// Decides on a request and commits what comes of it: the events that are in the journal now.
    pub(crate) async fn commit(
        &mut self,
        now: Timestamp,
        request: &Request,
    ) -> Result<Vec<TownEvent>, CommitError> {
        for _ in 0..CONFLICTS {
            let events = self.town.decide(now, request)?;
            if events.is_empty() {
                return Ok(events);
            }
            let batch = Append::of(events.iter().map(TownEvent::to_journal).collect()).expecting(self.head);
            match self.store.append(&self.log, batch).await {
                Ok(appended) => {
                    events.iter().for_each(|event| self.town.evolve(event));
                    self.head = appended.head;
                    return Ok(events);
                }
                Err(AppendError::Conflict { .. }) => self.catch_up().await?,
                Err(error) => return Err(JournalError::from(error).into()),
            }
        }
        Err(JournalError::Contended.into())
    }
}
