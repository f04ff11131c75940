//! Search by looking through everything: what an index has to find.

use async_trait::async_trait;
use protocol::{
    LogId,
    search::{Found, Position, Search, Text},
};

use super::{Kept, MemoryStore};
use crate::{Record, SearchError, TextSearch, search::hit};

#[async_trait]
impl TextSearch for MemoryStore {
    async fn search(&self, search: &Search) -> Result<Found, SearchError> {
        let logs = self.lock();
        let kept = logs.by_name.iter().filter_map(|(name, log)| Some((name, log.kept.as_ref()?)));
        let mut texts: Vec<(Position, &LogId, &Kept, &Record)> = kept
            .filter(|(name, _)| search.logs.as_ref().is_none_or(|logs| logs.contains(*name)))
            .flat_map(|(name, kept)| kept.records.values().map(move |(at, record)| (*at, name, kept, record)))
            .filter(|(at, _, _, record)| {
                Text::may_be_in(&record.kind) && search.before.is_none_or(|before| *at < before)
            })
            .collect();
        texts.sort_unstable_by_key(|(at, ..)| std::cmp::Reverse(*at));

        let mut found = Found::default();
        let mut last = None;
        for (at, log, kept, record) in texts {
            let Some(hit) = hit(search, log, kept.state.bounds().epoch, record) else { continue };
            if found.hits.len() == search.limit {
                found.next = last;
                break;
            }
            found.hits.push(hit);
            last = Some(at);
        }
        Ok(found)
    }
}
