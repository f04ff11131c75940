//! The one table of routes (§4, §9): the router is made of it, so that no route is without a row.

use axum::{
    Router,
    extract::DefaultBodyLimit,
    middleware,
    routing::{MethodFilter, MethodRouter, on},
};
use protocol::limits;

use super::{Relay, gate, read, search, sse, steer, viewer_socket, wrapper_socket};
use crate::auth::Capability;

/// A route, and what it takes to be let in.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Route {
    /// `GET`, `POST` or `DELETE`.
    pub method: &'static str,
    /// The path: `{agent}` or `{town}` names the log.
    pub path: &'static str,
    /// What the credentials must be good for.
    pub needs: Needs,
    /// It opens a stream: a ticket in the query is taken.
    pub stream: bool,
    endpoint: Endpoint,
}

/// What credentials must be good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needs {
    /// None are asked for.
    Nothing,
    /// This, on the log that the path names.
    OnLog(Capability),
    /// This, on some log: which one is said, and compared, on the socket.
    OnSomeLog(Capability),
    /// This, on every log, unless [`super::RelayConfig::open_metrics`].
    OnEveryLog(Capability),
}

#[derive(Debug, Clone, Copy)]
enum Endpoint {
    OneLog,
    ManyLogs,
    Ingest,
    Events,
    View,
    Append,
    Command,
    Configure,
    Presence,
    Remove,
    Search,
    Health,
    Ready,
    Metrics,
}

const fn row(
    method: &'static str,
    path: &'static str,
    needs: Needs,
    stream: bool,
    endpoint: Endpoint,
) -> Route {
    Route { method, path, needs, stream, endpoint }
}

/// Every route of a relay.
#[rustfmt::skip]
pub const ROUTES: &[Route] = &[
    row("GET", "/v1/stream", Needs::OnSomeLog(Capability::Read), true, Endpoint::ManyLogs),
    row("GET", "/v1/ingest", Needs::OnSomeLog(Capability::Ingest), false, Endpoint::Ingest),
    row("GET", "/v1/agents/{agent}/stream", Needs::OnLog(Capability::Read), true, Endpoint::OneLog),
    row("GET", "/v1/agents/{agent}/events", Needs::OnLog(Capability::Read), true, Endpoint::Events),
    row("GET", "/v1/agents/{agent}/view", Needs::OnLog(Capability::Read), false, Endpoint::View),
    row("GET", "/v1/agents/{agent}/presence", Needs::OnLog(Capability::Read), false, Endpoint::Presence),
    row("POST", "/v1/agents/{agent}/events", Needs::OnLog(Capability::Admin), false, Endpoint::Append),
    row("POST", "/v1/agents/{agent}/commands", Needs::OnLog(Capability::Steer), false, Endpoint::Command),
    row("POST", "/v1/agents/{agent}/config", Needs::OnLog(Capability::Admin), false, Endpoint::Configure),
    row("DELETE", "/v1/agents/{agent}", Needs::OnLog(Capability::Admin), false, Endpoint::Remove),
    row("GET", "/v1/towns/{town}/stream", Needs::OnLog(Capability::Read), true, Endpoint::OneLog),
    row("GET", "/v1/towns/{town}/events", Needs::OnLog(Capability::Read), true, Endpoint::Events),
    row("GET", "/v1/towns/{town}/view", Needs::OnLog(Capability::Read), false, Endpoint::View),
    row("POST", "/v1/towns/{town}/events", Needs::OnLog(Capability::Admin), false, Endpoint::Append),
    row("DELETE", "/v1/towns/{town}", Needs::OnLog(Capability::Admin), false, Endpoint::Remove),
    row("GET", "/v1/search", Needs::OnSomeLog(Capability::Read), false, Endpoint::Search),
    row("GET", "/healthz", Needs::Nothing, false, Endpoint::Health),
    row("GET", "/readyz", Needs::Nothing, false, Endpoint::Ready),
    row("GET", "/metrics", Needs::OnEveryLog(Capability::Read), false, Endpoint::Metrics),
];

/// The router of a relay.
pub(super) fn router(relay: &Relay) -> Router {
    ROUTES
        .iter()
        .fold(Router::new(), |router, route| {
            let gate = middleware::from_fn_with_state((relay.clone(), route), gate::pass);
            router.route(route.path, route.endpoint.handler(route.method).layer(gate))
        })
        .with_state(relay.clone())
}

impl Endpoint {
    fn handler(self, method: &str) -> MethodRouter<Relay> {
        let filter = match method {
            "POST" => MethodFilter::POST,
            "DELETE" => MethodFilter::DELETE,
            _ => MethodFilter::GET,
        };
        match self {
            Self::OneLog => on(filter, viewer_socket::one_log),
            Self::ManyLogs => on(filter, viewer_socket::many_logs),
            Self::Ingest => on(filter, wrapper_socket::ingest),
            Self::Events => on(filter, sse::events),
            Self::View => on(filter, read::view),
            Self::Presence => on(filter, read::presence),
            Self::Append => {
                on(filter, steer::append).layer(DefaultBodyLimit::max(limits::INGEST_FRAME_BYTES))
            }
            Self::Command => on(filter, steer::command).layer(DefaultBodyLimit::max(limits::HTTP_BODY_BYTES)),
            Self::Configure => {
                on(filter, steer::configure).layer(DefaultBodyLimit::max(limits::HTTP_BODY_BYTES))
            }
            Self::Remove => on(filter, steer::remove),
            Self::Search => on(filter, search::search),
            Self::Health => on(filter, read::health),
            Self::Ready => on(filter, read::ready),
            Self::Metrics => on(filter, read::metrics),
        }
    }
}
