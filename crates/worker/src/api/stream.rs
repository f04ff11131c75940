//! Stream tickets, and the names that streams have under `/api`.

use std::time::Duration;

use axum::{
    Extension,
    extract::{Path, State},
    response::Response,
};
use http::{HeaderMap, StatusCode, Uri, header};
use protocol::{LogId, TownId, limits::TICKET_LIFE_MS};
use relay::auth::{Capability, Grant};

use super::{Failure, agents::find, answer::success};
use crate::Worker;

/// Makes a ticket for one stream of the agent's log: `{ticket, url, expiresAt}`. It is bound to the origin of the page
/// that asked, if a page did. The agent need not have started yet.
pub(super) async fn ticket(
    State(worker): State<Worker>,
    Path((_, agent)): Path<(String, String)>,
    Extension(grant): Extension<Grant>,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    let agent = find(&worker.town().borrow(), &agent)?.id;
    let origin = headers.get(header::ORIGIN).and_then(|origin| origin.to_str().ok()).map(str::to_owned);
    let now = worker.now();
    let capabilities = [Capability::Read, Capability::Steer].into();
    let logs = [LogId::Agent(agent.clone())].into();
    let ticket = worker
        .issue_ticket(&grant, logs, &capabilities, origin, now)
        .map_err(|error| Failure::new(error.code(), error.to_string()))?;
    let url = format!("{}/v1/agents/{agent}/stream?ticket={}", worker.stream_url(), ticket.expose());
    let expires = now.after(Duration::from_millis(TICKET_LIFE_MS));
    let data = serde_json::json!({ "ticket": ticket.expose(), "url": url, "expiresAt": expires });
    Ok(success(StatusCode::CREATED, &data))
}

/// The relay's name of a stream that is named as under `/api`: `…/agents/{a}/stream` and `…/agents/{a}/events?after_id=`.
pub(crate) fn alias(town: &TownId, uri: &Uri) -> Option<Uri> {
    let rest =
        uri.path().strip_prefix("/api/towns/")?.strip_prefix(town.as_str())?.strip_prefix("/agents/")?;
    let (agent, what) = rest.split_once('/')?;
    if agent.is_empty() || !matches!(what, "stream" | "events") {
        return None;
    }
    let query = uri.query().map(|query| {
        let renamed = |pair: &str| match pair.strip_prefix("after_id=") {
            Some(value) => format!("after={value}"),
            None => pair.to_owned(),
        };
        query.split('&').map(renamed).collect::<Vec<_>>().join("&")
    });
    let path = match query {
        Some(query) => format!("/v1/agents/{agent}/{what}?{query}"),
        None => format!("/v1/agents/{agent}/{what}"),
    };
    path.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_under_api_are_those_of_the_relay() {
        assert_eq!(
            aliased("/api/towns/main/agents/a1/stream?ticket=t&x=1"),
            Some("/v1/agents/a1/stream?ticket=t&x=1".into())
        );
        assert_eq!(
            aliased("/api/towns/main/agents/a1/events?after_id=7"),
            Some("/v1/agents/a1/events?after=7".into())
        );
        assert_eq!(aliased("/api/towns/main/agents/a1/events"), Some("/v1/agents/a1/events".into()));
    }

    #[test]
    fn nothing_else_is_renamed() {
        for path in [
            "/api/towns/other/agents/a1/stream",
            "/api/towns/main/agents/a1",
            "/api/towns/main/agents/a1/stream/x",
            "/api/towns/main/agents//stream",
            "/api/towns/mainagents/a1/stream",
            "/v1/agents/a1/stream",
        ] {
            assert_eq!(aliased(path), None, "{path}");
        }
    }

    fn aliased(uri: &str) -> Option<String> {
        alias(&"main".parse().unwrap(), &uri.parse().unwrap()).map(|uri| uri.to_string())
    }
}
