//! A search as the query of its route (§4.4).

use protocol::search::Search;

/// What `GET /v1/search` is asked.
pub(super) fn query(search: &Search) -> Vec<(&'static str, String)> {
    let mut query = vec![("q", search.terms.to_string()), ("limit", search.limit.to_string())];
    if let Some(logs) = &search.logs {
        query.push(("log", listed(logs)));
    }
    if !search.kinds.is_empty() {
        query.push(("type", listed(&search.kinds)));
    }
    if let Some(since) = search.since {
        query.push(("since", since.to_string()));
    }
    if let Some(before) = search.before {
        query.push(("before", before.to_string()));
    }
    query
}

fn listed<'a, T: ToString + 'a>(words: impl IntoIterator<Item = &'a T>) -> String {
    words.into_iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}
