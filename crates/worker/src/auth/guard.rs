//! What is refused before anybody looks at credentials: requests by an unknown name, from a foreign page, and changes
//! that a browser was tricked into.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    extract::{
        FromRequestParts as _, Request, State,
        ws::{CloseFrame, Message, WebSocketUpgrade},
    },
    middleware::Next,
    response::Response,
};
use http::{HeaderMap, Method, header};
use protocol::{ErrorCode, limits::VIEWER_FRAME_BYTES};

use crate::api::Failure;

/// Time for the other side to answer a close.
const CLOSE_WITHIN: Duration = Duration::from_secs(2);

/// The names by which a worker may be called.
#[derive(Debug, Clone)]
pub(crate) struct Names {
    hosts: Vec<String>,
    /// The origin of the public URL, where there is one.
    public_origin: Option<String>,
}

impl Names {
    /// Those of this machine's loopback, of the address that is listened on, of the public URL, and these.
    pub(crate) fn new(address: SocketAddr, more: &[String], public_url: Option<&str>) -> Self {
        let mut hosts: Vec<String> = ["localhost", "127.0.0.1", "[::1]"].map(str::to_owned).into();
        if !address.ip().is_unspecified() {
            hosts.push(match address {
                SocketAddr::V4(v4) => v4.ip().to_string(),
                SocketAddr::V6(v6) => format!("[{}]", v6.ip()),
            });
        }
        hosts.extend(more.iter().map(|host| host.to_ascii_lowercase()));
        let public_origin = public_url.and_then(origin_of);
        if let Some(origin) = &public_origin {
            hosts.extend(authority_of(origin).map(|authority| host_of(authority).to_ascii_lowercase()));
        }
        Self { hosts, public_origin }
    }

    /// The host names, without ports.
    pub(crate) fn hosts(&self) -> &[String] {
        &self.hosts
    }

    fn knows(&self, authority: &str) -> bool {
        let host = host_of(authority).to_ascii_lowercase();
        self.hosts.contains(&host)
    }
}

/// Why a request is refused without being looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error(
        "the request names no host, or one that is not allowed: start the worker with --allow-host <name>"
    )]
    Host,
    #[error("the request comes from a page of another origin")]
    Origin,
    #[error(
        "a change that is asked for with a cookie must come from a page of this server: \
        send `Authorization: Bearer <token>` from anywhere else"
    )]
    Forged,
}

/// Refuses requests by an unknown name (a page that made its own name point here), from a foreign origin, and changes
/// with a cookie that do not say that they come from a page of this server.
pub(crate) fn check(method: &Method, headers: &HeaderMap, names: &Names) -> Result<(), Refusal> {
    let host = text(headers, &header::HOST).filter(|host| names.knows(host)).ok_or(Refusal::Host)?;
    let origin = match headers.get(header::ORIGIN) {
        Some(origin) => Some(origin.to_str().map_err(|_| Refusal::Origin)?),
        None => None,
    };
    if let Some(origin) = origin {
        let own = authority_of(origin).is_some_and(|authority| authority.eq_ignore_ascii_case(host))
            || names.public_origin.as_deref().is_some_and(|public| public.eq_ignore_ascii_case(origin));
        if !own {
            return Err(Refusal::Origin);
        }
    }
    let reads = matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS);
    let by_cookie = headers.contains_key(header::COOKIE) && !headers.contains_key(header::AUTHORIZATION);
    let from_own_page = origin.is_some() || text(headers, "sec-fetch-site") == Some("same-origin");
    if !reads && by_cookie && !from_own_page {
        return Err(Refusal::Forged);
    }
    Ok(())
}

/// The middleware in front of everything.
pub(crate) async fn layer(State(names): State<Arc<Names>>, request: Request, next: Next) -> Response {
    match check(request.method(), request.headers(), &names) {
        Ok(()) => next.run(request).await,
        Err(refusal) => refuse(refusal, request).await,
    }
}

/// The answer; a WebSocket is upgraded and closed, since browsers hide the status of a refused upgrade (§4).
async fn refuse(refusal: Refusal, request: Request) -> Response {
    let (mut parts, _) = request.into_parts();
    let message = refusal.to_string();
    let Ok(upgrade) = WebSocketUpgrade::from_request_parts(&mut parts, &()).await else {
        return Failure::new(ErrorCode::Forbidden, message).into_answer(parts.uri.path());
    };
    upgrade.max_message_size(VIEWER_FRAME_BYTES).on_upgrade(async |mut socket| {
        let close = CloseFrame { code: ErrorCode::Forbidden.close().0, reason: message.into() };
        let closing = async {
            socket.send(Message::Close(Some(close))).await?;
            // Read on until the peer's own close, or the close is unclean.
            while let Some(message) = socket.recv().await {
                message?;
            }
            Ok::<_, axum::Error>(())
        };
        // Who does not answer is gone already.
        let _ = tokio::time::timeout(CLOSE_WITHIN, closing).await;
    })
}

fn text(headers: &HeaderMap, name: impl header::AsHeaderName) -> Option<&str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// `https://host:1/path` → `https://host:1`.
fn origin_of(url: &str) -> Option<String> {
    let (scheme, rest) = url.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next().filter(|authority| !authority.is_empty())?;
    Some(format!("{scheme}://{authority}"))
}

/// `https://host:1` → `host:1`; `None` for what is no origin of a page, such as `null`.
fn authority_of(origin: &str) -> Option<&str> {
    let (scheme, authority) = origin.split_once("://")?;
    let is_page = matches!(scheme, "http" | "https") && !authority.is_empty() && !authority.contains('/');
    is_page.then_some(authority)
}

/// `host:1` → `host`, `[::1]:1` → `[::1]`.
fn host_of(authority: &str) -> &str {
    if authority.starts_with('[') {
        return authority.find(']').map_or(authority, |end| &authority[..=end]);
    }
    authority.split(':').next().unwrap_or(authority)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_request_by_a_known_name_passes() {
        for host in [
            "localhost:4280",
            "127.0.0.1:4280",
            "[::1]:4280",
            "LOCALHOST",
            "town.example",
            "pub.example:8443",
        ] {
            assert_eq!(judge(&Method::GET, &[("host", host)]), Ok(()), "{host}");
        }
    }

    #[test]
    fn p17_an_unknown_host_is_refused() {
        for host in
            ["evil.example", "localhost.evil.example:4280", "", "127.0.0.1.evil.example", "[::2]:4280"]
        {
            assert_eq!(judge(&Method::GET, &[("host", host)]), Err(Refusal::Host), "{host}");
        }
        assert_eq!(judge(&Method::GET, &[]), Err(Refusal::Host));
    }

    #[test]
    fn p17_a_foreign_origin_is_refused_another_port_of_this_host_too() {
        for origin in [
            "https://evil.example",
            "null",
            "http://localhost:3000",
            "http://localhost",
            "file://",
            "http://localhost:4280/x",
        ] {
            let headers = [("host", "localhost:4280"), ("origin", origin)];
            assert_eq!(judge(&Method::GET, &headers), Err(Refusal::Origin), "{origin}");
        }
    }

    #[test]
    fn the_own_origin_passes_and_so_does_the_public_one() {
        for origin in ["http://localhost:4280", "https://localhost:4280", "https://pub.example:8443"] {
            let headers = [("host", "localhost:4280"), ("origin", origin), ("cookie", "gastown_session=x")];
            assert_eq!(judge(&Method::POST, &headers), Ok(()), "{origin}");
        }
    }

    #[test]
    fn p17_a_change_by_cookie_needs_to_say_where_it_comes_from() {
        let cookie = ("cookie", "gastown_session=x");
        let host = ("host", "localhost:4280");
        assert_eq!(judge(&Method::POST, &[host, cookie]), Err(Refusal::Forged));
        assert_eq!(
            judge(&Method::DELETE, &[host, cookie, ("sec-fetch-site", "cross-site")]),
            Err(Refusal::Forged)
        );
        assert_eq!(
            judge(&Method::POST, &[host, cookie, ("sec-fetch-site", "same-site")]),
            Err(Refusal::Forged)
        );
        assert_eq!(judge(&Method::POST, &[host, cookie, ("sec-fetch-site", "same-origin")]), Ok(()));
        assert_eq!(judge(&Method::GET, &[host, cookie]), Ok(()));
        assert_eq!(judge(&Method::POST, &[host, cookie, ("authorization", "Bearer x")]), Ok(()));
        assert_eq!(judge(&Method::POST, &[host]), Ok(()));
    }

    proptest! {
        #[test]
        fn p20_no_host_or_origin_panics(host in ".{0,40}", origin in ".{0,40}") {
            let mut headers = HeaderMap::new();
            for (name, value) in [(header::HOST, host), (header::ORIGIN, origin)] {
                if let Ok(value) = http::HeaderValue::from_str(&value) {
                    headers.insert(name, value);
                }
            }
            let _ = check(&Method::POST, &headers, &names());
        }
    }

    fn judge(method: &Method, headers: &[(&'static str, &str)]) -> Result<(), Refusal> {
        let headers = headers.iter().map(|(name, value)| {
            (http::HeaderName::from_static(name), http::HeaderValue::from_str(value).unwrap())
        });
        check(method, &headers.collect(), &names())
    }

    fn names() -> Names {
        let address = "127.0.0.1:4280".parse().unwrap();
        Names::new(address, &["Town.Example".into()], Some("https://pub.example:8443/gastown"))
    }
}
