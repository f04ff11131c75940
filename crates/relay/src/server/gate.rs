//! In front of every route: Host, Origin, credentials, scope (§9). Default deny.

use axum::{
    extract::{FromRequestParts as _, Query, RawPathParams, Request, State},
    http::{HeaderMap, HeaderName, header, request::Parts, uri::Authority as HostAndPort},
    middleware::Next,
    response::{IntoResponse, Response},
};
use protocol::{ErrorCode, ErrorDetail, LogId};
use serde::Deserialize;

use super::{
    Relay, clock,
    problem::Problem,
    routes::{Needs, Route},
    socket::Upgrade,
};
use crate::auth::{Credentials, Grant, LogScope};

/// Lets a request pass, with its [`Grant`] and its [`LogId`] as extensions, or refuses it.
pub(super) async fn pass(
    State((relay, route)): State<(Relay, &'static Route)>,
    request: Request,
    next: Next,
) -> Response {
    let (mut parts, body) = request.into_parts();
    match admit(&relay, route, &mut parts).await {
        Ok(()) => next.run(Request::from_parts(parts, body)).await,
        Err(why) => {
            relay.metrics().refused(why.code);
            tracing::debug!(path = route.path, code = %why.code, "refused");
            refuse(&relay, &mut parts, why)
        }
    }
}

/// Refuses a request; one that wants a WebSocket is upgraded first, since browsers hide the status (§4).
fn refuse(relay: &Relay, parts: &mut Parts, why: ErrorDetail) -> Response {
    match Upgrade::of(parts) {
        Ok(upgrade) => upgrade.refuse(relay, why),
        Err(_) => Problem(why).into_response(),
    }
}

async fn admit(relay: &Relay, route: &Route, parts: &mut Parts) -> Result<(), ErrorDetail> {
    if route.needs == Needs::Nothing {
        return Ok(());
    }
    check_host(relay, &parts.headers)?;
    let log = log_of(parts).await?;
    if route.needs.is_open(relay) {
        return Ok(());
    }
    let grant = authenticate(relay, route, parts)?;
    if !route.needs.met_by(&grant, log.as_ref()) {
        return Err(ErrorDetail::new(ErrorCode::Forbidden, "the credentials do not reach this far"));
    }
    parts.extensions.insert(grant);
    if let Some(log) = log {
        parts.extensions.insert(log);
    }
    Ok(())
}

impl Needs {
    fn is_open(self, relay: &Relay) -> bool {
        matches!(self, Self::OnEveryLog(_)) && relay.config().open_metrics
    }

    fn met_by(self, grant: &Grant, log: Option<&LogId>) -> bool {
        match self {
            Self::Nothing => true,
            Self::OnLog(capability) => log.is_some_and(|log| grant.allows(capability, log)),
            Self::OnSomeLog(capability) => grant.has(capability),
            Self::OnEveryLog(capability) => grant.has(capability) && grant.logs == LogScope::All,
        }
    }
}

fn authenticate(relay: &Relay, route: &Route, parts: &Parts) -> Result<Grant, ErrorDetail> {
    #[derive(Deserialize)]
    struct Ticket {
        ticket: Option<String>,
    }
    let text = |name: HeaderName| parts.headers.get(name).and_then(|value| value.to_str().ok());
    let ticket = Query::<Ticket>::try_from_uri(&parts.uri).ok().and_then(|Query(query)| query.ticket);
    let bearer = text(header::AUTHORIZATION)
        .and_then(|value| value.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map(|(_, token)| token.trim());
    let credentials = Credentials {
        bearer,
        ticket: ticket.as_deref().filter(|_| route.stream),
        cookie: text(header::COOKIE),
        origin: text(header::ORIGIN),
    };
    relay
        .authority()
        .authenticate(&credentials, clock::now())
        .map_err(|error| ErrorDetail::new(error.code(), error.to_string()))
}

/// The log that the path names.
async fn log_of(parts: &mut Parts) -> Result<Option<LogId>, ErrorDetail> {
    let Ok(params) = RawPathParams::from_request_parts(parts, &()).await else { return Ok(None) };
    params
        .iter()
        .find_map(|(name, id)| match name {
            "agent" => Some(id.parse().map(LogId::Agent)),
            "town" => Some(id.parse().map(LogId::Town)),
            _ => None,
        })
        .transpose()
        .map_err(|error| ErrorDetail::new(ErrorCode::BadRequest, error.to_string()))
}

/// A name that is not this relay's own, in `Host` or `Origin`, is that of somebody else's page (DNS rebinding, forgery
/// across sites).
fn check_host(relay: &Relay, headers: &HeaderMap) -> Result<(), ErrorDetail> {
    let forbidden =
        |what: &str| Err(ErrorDetail::new(ErrorCode::Forbidden, format!("{what} is not allowed here")));
    let text = |name: HeaderName| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    if !text(header::HOST).is_some_and(|host| is_allowed(relay, host)) {
        return forbidden("that Host");
    }
    let own = |origin: &str| origin.split_once("://").is_some_and(|(_, host)| is_allowed(relay, host));
    match text(header::ORIGIN) {
        Some(origin) if !own(origin) => forbidden("that Origin"),
        Some(_) | None => Ok(()),
    }
}

fn is_allowed(relay: &Relay, host: &str) -> bool {
    let Ok(host) = host.parse::<HostAndPort>() else { return false };
    relay.config().allowed_hosts.iter().any(|allowed| allowed.eq_ignore_ascii_case(host.host()))
}
