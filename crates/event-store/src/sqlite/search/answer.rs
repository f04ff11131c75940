//! Answers: what the index names is read in the log, and only that is shown.

use async_trait::async_trait;
use protocol::search::{DamagedText, Found, Search};
use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

use super::{Candidates, find};
use crate::{
    EventStore as _, ReadError, ReadLimit, SearchError, SqliteStore, StoreError, TextSearch, search::hit,
};

/// What the searching thread is asked.
#[derive(Debug)]
pub(in crate::sqlite) struct SearchJob {
    search: Search,
    reply: oneshot::Sender<Result<Candidates, SearchError>>,
}

/// Works until every handle is gone.
pub(in crate::sqlite) fn run(conn: &Connection, mut jobs: mpsc::Receiver<SearchJob>) {
    while let Some(SearchJob { search, reply }) = jobs.blocking_recv() {
        if !reply.is_closed() {
            drop(reply.send(find(conn, &search)));
        }
    }
}

#[async_trait]
impl TextSearch for SqliteStore {
    async fn search(&self, search: &Search) -> Result<Found, SearchError> {
        let (reply, candidates) = oneshot::channel();
        let searches = self.queues()?.searches;
        let job = SearchJob { search: search.clone(), reply };
        searches.send(job).await.map_err(|_| self.live.closed())?;
        drop(searches);
        let Candidates { events, next } = candidates.await.map_err(|_| self.live.closed())??;

        let mut found = Found { next, ..Found::default() };
        for (log, seq) in events {
            // What is read may be in memory, and an excerpt of a long text takes its time: others have their turn in between.
            tokio::task::yield_now().await;
            let before = protocol::Seq::new(seq.get().saturating_sub(1));
            match self.read(&log, before, ReadLimit { events: 1, bytes: 0 }).await {
                Ok(page) => {
                    // One that is not there any more became obsolete since the index was asked.
                    let record = page.records.first().filter(|record| record.seq == seq);
                    found.hits.extend(record.and_then(|record| hit(search, &log, page.bounds.epoch, record)));
                }
                Err(ReadError::UnknownLog { .. }) => {}
                Err(ReadError::Corrupt { seq: damaged, .. }) if damaged != seq => {}
                Err(ReadError::Store(error @ (StoreError::Closed { .. } | StoreError::Full { .. }))) => {
                    return Err(error.into());
                }
                // Other logs are searched all the same.
                Err(ReadError::Corrupt { .. } | ReadError::Store(StoreError::Backend { .. })) => {
                    found.damaged.push(DamagedText { log, seq });
                }
            }
        }
        Ok(found)
    }
}
