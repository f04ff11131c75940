//! The way in and out of a browser: a form, a one-use link, a cookie.

use std::net::{IpAddr, SocketAddr};

use axum::{
    extract::{ConnectInfo, Query, Request, State},
    response::{IntoResponse, Response},
};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use protocol::ErrorCode;
use relay::auth::AuthError;
use serde::Deserialize;

use super::{Failure, body};
use crate::{
    Worker,
    auth::{Holder, SESSION_COOKIE, session_cookie},
    dashboard,
    limits::SESSION_LIFE,
};

/// What the login page may be asked with.
#[derive(Debug, Deserialize)]
pub(super) struct Asked {
    #[serde(default)]
    key: Option<String>,
    #[serde(default)]
    next: Option<String>,
}

/// The login page; with the key of a one-use link, the way in.
pub(super) async fn page(State(worker): State<Worker>, Query(asked): Query<Asked>) -> Response {
    let next = local(asked.next.as_deref());
    match asked.key {
        None => dashboard::login_page(&worker, None, next),
        Some(key) if worker.redeem_login(&key) => let_in(&worker, Holder::Operator, next).await,
        Some(_) => {
            let message = "This link has been used or is too old. Use your token.";
            with_status(dashboard::login_page(&worker, Some(message), next), StatusCode::UNAUTHORIZED)
        }
    }
}

/// The login form.
#[derive(Debug, Deserialize)]
struct Form {
    #[serde(default)]
    token: String,
    #[serde(default)]
    next: Option<String>,
}

pub(super) async fn log_in(State(worker): State<Worker>, request: Request) -> Result<Response, Response> {
    let address = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|info| info.0.ip());
    let form: Form = body::form(request).await.map_err(|failure| failure.into_answer("/login"))?;
    let next = local(form.next.as_deref());
    if let Some(answer) = wait(&worker, address, next) {
        return Err(answer);
    }
    match worker.holder(form.token.trim()) {
        Ok(holder) => Ok(let_in(&worker, holder, next).await),
        Err(error) => {
            worker.login_failed(address);
            let words = if error == AuthError::Revoked {
                "This token was revoked, or it has expired."
            } else {
                "This is no token of this town."
            };
            Err(with_status(dashboard::login_page(&worker, Some(words), next), StatusCode::UNAUTHORIZED))
        }
    }
}

pub(super) async fn log_out(State(worker): State<Worker>, headers: HeaderMap) -> Response {
    let cookies = headers.get(header::COOKIE).and_then(|cookies| cookies.to_str().ok());
    if let Some(session) = cookies.and_then(session_cookie)
        && let Err(error) = worker.end_session(session.to_owned()).await
    {
        tracing::error!(%error, "a session cannot be ended");
        return Failure::new(ErrorCode::Internal, "the session could not be ended").into_answer("/logout");
    }
    see_other("/login", cookie("", 0, worker.is_https()))
}

/// The page that says how long to wait, if this address has to.
fn wait(worker: &Worker, address: Option<IpAddr>, next: &str) -> Option<Response> {
    let wait = worker.login_wait(address)?;
    let seconds = wait.as_secs().max(1);
    let message = format!("Too many wrong tokens. Try again in {seconds} s.");
    let mut page =
        with_status(dashboard::login_page(worker, Some(&message), next), StatusCode::TOO_MANY_REQUESTS);
    page.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    Some(page)
}

async fn let_in(worker: &Worker, holder: Holder, next: &str) -> Response {
    match worker.begin_session(holder).await {
        Ok(session) => {
            let cookie = cookie(session.expose(), SESSION_LIFE.as_secs(), worker.is_https());
            see_other(next, cookie)
        }
        Err(error) => {
            tracing::error!(%error, "a session cannot be begun");
            let failure =
                Failure::new(ErrorCode::Internal, "the session could not be written: is the disk full?");
            failure.into_answer("/login")
        }
    }
}

/// Where to go after the login: a path of this server, never another one.
fn local(next: Option<&str>) -> &str {
    let is_local = |next: &&str| {
        next.starts_with('/')
            && !next.starts_with("//")
            && !next.contains('\\')
            && next.bytes().all(|byte| byte.is_ascii_graphic())
    };
    next.filter(is_local).unwrap_or("/")
}

/// A cookie that scripts cannot read and other sites cannot make a browser send; over HTTPS, if that is how the worker
/// is reached, it is never sent without.
fn cookie(value: &str, max_age_s: u64, is_https: bool) -> String {
    let secure = if is_https { "; Secure" } else { "" };
    format!("{SESSION_COOKIE}={value}; HttpOnly; SameSite=Strict; Path=/; Max-Age={max_age_s}{secure}")
}

fn see_other(path: &str, cookie: String) -> Response {
    let headers = [
        (header::LOCATION, path.to_owned()),
        (header::SET_COOKIE, cookie),
        (header::CACHE_CONTROL, "no-store".to_owned()),
        (header::REFERRER_POLICY, "same-origin".to_owned()),
    ];
    (StatusCode::SEE_OTHER, headers).into_response()
}

fn with_status(mut response: Response, status: StatusCode) -> Response {
    *response.status_mut() = status;
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_the_login_one_stays_on_this_server() {
        assert_eq!(local(Some("/agents/a1?x=1")), "/agents/a1?x=1");
        for elsewhere in
            ["https://evil.example", "//evil.example", "/\\evil.example", "/a\r\nx: y", "", "javascript:x"]
        {
            assert_eq!(local(Some(elsewhere)), "/", "{elsewhere:?}");
        }
        assert_eq!(local(None), "/");
    }

    #[test]
    fn the_cookie_is_out_of_reach_of_scripts_and_of_other_sites() {
        let attributes = "gastown_session=v; HttpOnly; SameSite=Strict; Path=/; Max-Age=60";
        assert_eq!(cookie("v", 60, false), attributes);
        assert_eq!(cookie("v", 60, true), format!("{attributes}; Secure"));
    }
}
