//! Full-text search as something a store may offer.

use async_trait::async_trait;
use protocol::{
    Epoch, LogId,
    search::{Found, Hit, Search, Text},
};

use crate::{Record, StoreError};

/// Finds texts in all logs of a store ([`EventStore::text_search`](crate::EventStore::text_search)).
///
/// It is a trait of its own, so that a backend without an index keeps every clause of the log's contract and simply does
/// not offer it.
///
/// # Clauses
/// 1. *The log is the truth.* What is found is what looking through every readable event would find: an event that
///    [`Text::of`] gives a text, which has every term and passes the filters. Nothing that a read would not return is
///    found, whether it was made obsolete, pruned or removed.
/// 2. *One commit.* Once `append` returns, its events are found, and what it made obsolete is not.
/// 3. *Order.* Hits come newest first, in the order of the commits, over all logs. The order is the same in every answer,
///    so that [`Found::next`] goes on where the answer ended: no hit comes twice, and none is left out that was there
///    from the first answer to the last.
/// 4. *Bounds.* An answer has at most [`Search::limit`] hits and is made with bounded work; one with fewer hits, even
///    none, may still have a `next`.
/// 5. *Integrity.* A damaged event is not shown; where it may be a hit, [`Found::damaged`] names it.
#[async_trait]
pub trait TextSearch: Send + Sync {
    /// Looks for texts.
    async fn search(&self, search: &Search) -> Result<Found, SearchError>;
}

/// Why nothing was looked for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SearchError {
    /// The index is damaged. The logs are not: it is made anew from them when the store is opened the next time.
    #[error("the search index is damaged: it is made anew at the next start")]
    IndexDamaged,
    /// The backend failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The record as a hit, if it is one.
pub(crate) fn hit(search: &Search, log: &LogId, epoch: Epoch, record: &Record) -> Option<Hit> {
    let event = record.event().ok()?;
    let text = Text::of(&event.kind, event.data.json())?;
    if !search.covers(log, text.kind, event.time) {
        return None;
    }
    let excerpt = search.terms.match_in(&text)?;
    Some(Hit {
        log: log.clone(),
        epoch,
        seq: event.seq,
        time: event.time,
        kind: text.kind,
        session: event.session,
        key: event.key,
        title: text.title().map(str::to_owned),
        tool: text.tool,
        field: excerpt.field,
        snippet: excerpt.pieces,
    })
}
