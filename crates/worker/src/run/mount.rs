//! Which part of a worker answers a request.

use std::sync::Arc;

use axum::{
    Router,
    extract::{Request, State},
    middleware::from_fn_with_state,
    response::Response,
    routing::get,
};
use http::Uri;
use protocol::{ErrorCode, TownId};
use tower::ServiceExt as _;

use crate::{
    Worker,
    api::{self, Failure},
    auth::guard::{self, Names},
    dashboard,
};

/// The parts, each with routes of its own.
#[derive(Clone)]
struct Parts {
    town: TownId,
    api: Router,
    dashboard: Router,
    relay: Router,
}

/// A part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Api,
    Dashboard,
    Relay,
}

/// Everything a worker answers. `relay` are the routes of an embedded relay.
pub(super) fn router(worker: Worker, relay: Option<Router>, names: Names) -> Router {
    let parts = Parts {
        town: worker.town_id().clone(),
        api: api::router(worker.clone()),
        dashboard: dashboard::router(worker),
        relay: relay.unwrap_or_else(without_relay),
    };
    Router::new()
        .fallback(dispatch)
        .with_state(parts)
        .layer(from_fn_with_state(Arc::new(names), guard::layer))
}

async fn dispatch(State(parts): State<Parts>, mut request: Request) -> Response {
    if let Some(uri) = api::alias(&parts.town, request.uri()) {
        *request.uri_mut() = uri;
    }
    let router = match part_of(request.uri()) {
        Part::Api => parts.api,
        Part::Dashboard => parts.dashboard,
        Part::Relay => parts.relay,
    };
    match router.oneshot(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    }
}

/// Streams of pages are the dashboard's, though they bear the relay's names (`docs/protocol.md` §4).
fn part_of(uri: &Uri) -> Part {
    let path = uri.path();
    let is_below =
        |prefix: &str| path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    let asks_for_html = || uri.query().is_some_and(|query| query.split('&').any(|pair| pair == "view=html"));
    if is_below("/v1") {
        return if asks_for_html() { Part::Dashboard } else { Part::Relay };
    }
    if is_below("/api") || is_below("/login") || is_below("/logout") {
        return Part::Api;
    }
    if matches!(path, "/healthz" | "/readyz" | "/metrics") { Part::Relay } else { Part::Dashboard }
}

/// What a worker answers in place of its relay, if that is another process.
fn without_relay() -> Router {
    Router::new()
        .route("/healthz", get(|| async { "ok" }))
        .route("/readyz", get(|| async { "ok" }))
        .fallback(elsewhere)
}

async fn elsewhere(uri: Uri) -> Response {
    let message = "this worker has no relay inside: `POST …/stream-ticket` says where streams are";
    Failure::new(ErrorCode::NotFound, message).into_answer(uri.path())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_has_one_part_that_answers_it() {
        for (uri, part) in [
            ("/", Part::Dashboard),
            ("/agents/a1", Part::Dashboard),
            ("/assets/app.css", Part::Dashboard),
            ("/api/towns", Part::Api),
            ("/login?key=x", Part::Api),
            ("/logout", Part::Api),
            ("/apiary", Part::Dashboard),
            ("/v1/agents/a1/stream?ticket=x", Part::Relay),
            ("/v1/agents/a1/stream?after=3&view=html", Part::Dashboard),
            ("/v1/agents/a1/stream?view=htmlx", Part::Relay),
            ("/v1x?view=html", Part::Dashboard),
            ("/healthz", Part::Relay),
            ("/metrics", Part::Relay),
        ] {
            assert_eq!(part_of(&uri.parse().unwrap()), part, "{uri}");
        }
    }
}
