//! The one table of the API's routes and what each asks for (P17).

use axum::{
    extract::{MatchedPath, RawPathParams, Request, State},
    middleware::Next,
    response::Response,
};
use http::Method;
use protocol::{AgentId, ErrorCode, LogId};
use relay::auth::{Capability, Grant, LogScope};

use super::Failure;
use crate::Worker;

/// What a route asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Nothing: the way in.
    Open,
    /// This capability on every log of the town.
    Town(Capability),
    /// This capability on the log of the agent in the path.
    Agent(Capability),
}

/// A route and what it asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    /// The method.
    pub method: &'static str,
    /// The path, with its parameters in braces.
    pub path: &'static str,
    /// What it asks for.
    pub access: Access,
}

const fn route(method: &'static str, path: &'static str, access: Access) -> Route {
    Route { method, path, access }
}

/// Every route of the API. What has no row here is refused, even if a handler is mounted for it.
#[rustfmt::skip]
pub const ROUTES: &[Route] = &[
    route("GET", "/api/towns", Access::Town(Capability::Read)),
    route("GET", "/api/towns/{town}", Access::Town(Capability::Read)),
    route("GET", "/api/towns/{town}/config", Access::Town(Capability::Admin)),
    route("PATCH", "/api/towns/{town}/config", Access::Town(Capability::Admin)),
    route("GET", "/api/towns/{town}/roles/{role}/config", Access::Town(Capability::Admin)),
    route("PATCH", "/api/towns/{town}/roles/{role}/config", Access::Town(Capability::Admin)),
    route("GET", "/api/towns/{town}/agents", Access::Town(Capability::Read)),
    route("POST", "/api/towns/{town}/agents", Access::Town(Capability::Admin)),
    route("GET", "/api/towns/{town}/agents/{agent}", Access::Agent(Capability::Read)),
    route("DELETE", "/api/towns/{town}/agents/{agent}", Access::Town(Capability::Admin)),
    route("GET", "/api/towns/{town}/agents/{agent}/config", Access::Town(Capability::Admin)),
    route("PATCH", "/api/towns/{town}/agents/{agent}/config", Access::Town(Capability::Admin)),
    route("GET", "/api/towns/{town}/agents/{agent}/logs", Access::Agent(Capability::Steer)),
    route("POST", "/api/towns/{town}/agents/{agent}/start", Access::Town(Capability::Admin)),
    route("POST", "/api/towns/{town}/agents/{agent}/stop", Access::Town(Capability::Admin)),
    route("POST", "/api/towns/{town}/agents/{agent}/message", Access::Agent(Capability::Steer)),
    route("POST", "/api/towns/{town}/agents/{agent}/abort", Access::Agent(Capability::Steer)),
    route("POST", "/api/towns/{town}/agents/{agent}/permission", Access::Agent(Capability::Steer)),
    route("POST", "/api/towns/{town}/agents/{agent}/question", Access::Agent(Capability::Steer)),
    route("POST", "/api/towns/{town}/agents/{agent}/stream-ticket", Access::Agent(Capability::Read)),
    route("GET", "/api/towns/{town}/agents/{agent}/shares", Access::Town(Capability::Admin)),
    route("POST", "/api/towns/{town}/agents/{agent}/shares", Access::Town(Capability::Admin)),
    route("DELETE", "/api/towns/{town}/agents/{agent}/shares/{share}", Access::Town(Capability::Admin)),
    route("GET", "/api/towns/{town}/relay", Access::Town(Capability::Read)),
    route("GET", "/api/towns/{town}/tokens", Access::Town(Capability::Admin)),
    route("POST", "/api/towns/{town}/tokens", Access::Town(Capability::Admin)),
    route("DELETE", "/api/towns/{town}/tokens/{token}", Access::Town(Capability::Admin)),
    route("GET", "/login", Access::Open),
    route("POST", "/login", Access::Open),
    route("POST", "/logout", Access::Open),
];

/// Lets a request through whose credentials reach as far as its route asks; its [`Grant`] goes with it.
pub(super) async fn layer(
    State(worker): State<Worker>,
    path: MatchedPath,
    parameters: RawPathParams,
    mut request: Request,
    next: Next,
) -> Response {
    let access = access_of(request.method(), path.as_str());
    if access == Some(Access::Open) {
        return next.run(request).await;
    }
    let refused = |failure: Failure| failure.into_answer(path.as_str());
    let grant = match worker.authenticate(request.headers(), None) {
        Ok(grant) => grant,
        Err(error) => return refused(Failure::new(error.code(), error.to_string())),
    };
    let parameter = |name: &str| parameters.iter().find(|(key, _)| *key == name).map(|(_, value)| value);
    if !access.is_some_and(|access| reaches(&grant, access, parameter("agent"))) {
        let wanted = access.map_or("", wanted);
        let message = format!("these credentials do not reach this far{wanted}");
        return refused(Failure::new(ErrorCode::Forbidden, message));
    }
    if parameter("town").is_some_and(|town| town != worker.town_id().as_str()) {
        return refused(Failure::new(ErrorCode::NotFound, "there is no such town here"));
    }
    request.extensions_mut().insert(grant);
    next.run(request).await
}

fn access_of(method: &Method, path: &str) -> Option<Access> {
    // axum answers HEAD with the handler of GET.
    let method = if *method == Method::HEAD { &Method::GET } else { method };
    ROUTES
        .iter()
        .find(|route| route.method == method.as_str() && route.path == path)
        .map(|route| route.access)
}

/// What it takes, for whoever does not have it.
fn wanted(access: Access) -> &'static str {
    match access {
        Access::Open => "",
        Access::Town(Capability::Read) => ": it takes `read` on the whole town",
        Access::Town(_) => ": it takes `admin` on the whole town",
        Access::Agent(Capability::Read) => ": it takes `read` on this agent",
        Access::Agent(_) => ": it takes `steer` on this agent",
    }
}

fn reaches(grant: &Grant, access: Access, agent: Option<&str>) -> bool {
    match access {
        Access::Open => true,
        Access::Town(capability) => grant.has(capability) && grant.logs == LogScope::All,
        Access::Agent(capability) => {
            let agent: Option<AgentId> = agent.and_then(|agent| agent.parse().ok());
            agent.is_some_and(|agent| grant.allows(capability, &LogId::Agent(agent)))
        }
    }
}
