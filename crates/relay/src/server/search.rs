//! `GET /v1/search` (§4.4): texts in the logs that the credentials reach.

use std::{collections::BTreeSet, str::FromStr};

use axum::{
    Extension, Json,
    extract::{Query, State, rejection::QueryRejection},
    http::header,
    response::{IntoResponse, Response},
};
use protocol::{
    AgentId, ErrorCode, ErrorDetail, LogId, Timestamp, limits,
    search::{Found, Search, since},
};
use serde::Deserialize;
use store::{EventStore, SearchError};

use super::{
    Relay, clock,
    problem::{self, Problem},
};
use crate::{
    RelayApi as _,
    auth::{Capability, Grant, LogScope},
};

/// The query, as it is written in a URL.
#[derive(Debug, Default, Deserialize)]
pub(super) struct SearchQuery {
    q: Option<String>,
    agent: Option<String>,
    log: Option<String>,
    #[serde(rename = "type")]
    kinds: Option<String>,
    since: Option<String>,
    limit: Option<usize>,
    before: Option<String>,
}

/// The route: looks in no log that the grant does not reach.
pub(super) async fn search(
    State(relay): State<Relay>,
    Extension(grant): Extension<Grant>,
    query: Result<Query<SearchQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(query) = query.map_err(|error| bad(&error.body_text()))?;
    let mut search = query.parse(clock::now())?;
    search.logs = within(&grant, search.logs)?;
    let found = relay.search(&search).await?;
    Ok(([(header::CACHE_CONTROL, "no-store")], Json(found)).into_response())
}

/// Looks in a store.
pub(super) async fn look(store: &dyn EventStore, search: &Search) -> Result<Found, ErrorDetail> {
    let limit = search.limit;
    if !(1..=limits::SEARCH_HITS_MAX).contains(&limit) {
        let message = format!("`limit` is 1 to {}", limits::SEARCH_HITS_MAX);
        return Err(ErrorDetail::new(ErrorCode::BadRequest, message));
    }
    let Some(searchable) = store.text_search() else {
        return Err(ErrorDetail::new(ErrorCode::Unsupported, "the store of this relay cannot search"));
    };
    searchable.search(search).await.map_err(|error| match error {
        SearchError::Store(error) => problem::of_store(&error),
        SearchError::IndexDamaged | _ => ErrorDetail::new(ErrorCode::Corrupt, error.to_string()),
    })
}

impl SearchQuery {
    fn parse(self, now: Timestamp) -> Result<Search, ErrorDetail> {
        let terms = self.q.unwrap_or_default().parse().map_err(|error| refused("q", error))?;
        let agents =
            listed::<AgentId>("agent", self.agent)?.map(|agents| agents.into_iter().map(LogId::Agent));
        let logs = listed::<LogId>("log", self.log)?;
        let logs = match (agents, logs) {
            (None, logs) => logs,
            (Some(agents), logs) => Some(agents.chain(logs.into_iter().flatten()).collect()),
        };
        let since = self.since.map(|text| since(&text, now).map_err(|error| refused("since", error)));
        let before = self.before.map(|text| text.parse().map_err(|error| refused("before", error)));
        Ok(Search {
            logs,
            kinds: listed("type", self.kinds)?.unwrap_or_default(),
            since: since.transpose()?,
            limit: self.limit.unwrap_or(limits::SEARCH_HITS),
            before: before.transpose()?,
            ..Search::of(terms)
        })
    }
}

/// The logs to look in: those that were named, all of which the grant must reach, or else all that it reaches.
fn within(grant: &Grant, named: Option<BTreeSet<LogId>>) -> Result<Option<BTreeSet<LogId>>, ErrorDetail> {
    let Some(named) = named else {
        return Ok(match &grant.logs {
            LogScope::All => None,
            LogScope::Only(logs) => Some(logs.clone()),
        });
    };
    match named.iter().find(|log| !grant.allows(Capability::Read, log)) {
        Some(log) => {
            let message = format!("the credentials do not reach {log}");
            Err(ErrorDetail::new(ErrorCode::Forbidden, message))
        }
        None => Ok(Some(named)),
    }
}

/// A list with commas; `None` if there is none.
fn listed<T>(name: &str, list: Option<String>) -> Result<Option<BTreeSet<T>>, ErrorDetail>
where
    T: FromStr<Err: std::fmt::Display> + Ord,
{
    let parse = |list: String| list.split(',').map(str::parse).collect::<Result<BTreeSet<T>, _>>();
    list.map(parse).transpose().map_err(|error| refused(name, error))
}

fn refused(name: &str, error: impl std::fmt::Display) -> ErrorDetail {
    bad(&format!("`{name}`: {error}"))
}

fn bad(message: &str) -> ErrorDetail {
    ErrorDetail::new(ErrorCode::BadRequest, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_read_as_it_is_documented() {
        let query = SearchQuery {
            q: Some("a \"b c\"".into()),
            agent: Some("toast,nux".into()),
            log: Some("town/main".into()),
            kinds: Some("tool,error".into()),
            since: Some("2h".into()),
            limit: Some(7),
            before: Some("1f".into()),
        };
        let search = query.parse(Timestamp::from_unix_ms(7_200_000)).unwrap();
        let logs: Vec<String> = search.logs.unwrap().iter().map(ToString::to_string).collect();
        assert_eq!(logs, ["agent/nux", "agent/toast", "town/main"]);
        assert_eq!(search.terms.terms().len(), 2);
        assert_eq!(search.kinds.len(), 2);
        assert_eq!(search.since, Some(Timestamp::from_unix_ms(0)));
        assert_eq!((search.limit, search.before.unwrap().get()), (7, 31));
    }

    #[test]
    fn what_is_wrong_with_a_query_is_named() {
        let q = || SearchQuery { q: Some("x".into()), ..SearchQuery::default() };
        let wrong = [
            ("`q`", SearchQuery::default()),
            ("`agent`", SearchQuery { agent: Some("two words".into()), ..q() }),
            ("`agent`", SearchQuery { agent: Some(String::new()), ..q() }),
            ("`log`", SearchQuery { log: Some("toast".into()), ..q() }),
            ("`type`", SearchQuery { kinds: Some("tool,nonsense".into()), ..q() }),
            ("`since`", SearchQuery { since: Some("yesterday".into()), ..q() }),
            ("`before`", SearchQuery { before: Some("§".into()), ..q() }),
        ];
        for (name, query) in wrong {
            let error = query.parse(Timestamp::from_unix_ms(0)).unwrap_err();
            assert_eq!(error.code, ErrorCode::BadRequest);
            assert!(error.message.starts_with(name), "{}", error.message);
        }
    }
}
