//! User tokens: making, listing and revoking them (`docs/protocol.md` §9).

use std::time::Duration;

use axum::{
    Extension,
    extract::{Path, State},
    response::Response,
};
use http::StatusCode;
use protocol::ErrorCode;
use relay::auth::Grant;
use serde::{Deserialize, Deserializer};
use town::{Command, Request, Scope, UserToken};

use super::{Failure, answer::success, body::JsonBody};
use crate::{Worker, auth::user_token, limits::USER_TOKEN_LIFE};

type Reply = Result<Response, Failure>;

/// What a token shall be. The scope is read as text, for an error that names the known ones.
#[derive(Debug, Deserialize)]
pub(super) struct Issuing {
    name: String,
    scope: String,
    /// Absent: [`USER_TOKEN_LIFE`]. `null`: for ever.
    #[serde(default, deserialize_with = "present")]
    expires_in_s: Option<Option<u64>>,
}

/// Makes a token: `{id, name, scope, issued, expires, token}`. The token is in this answer and in no other one.
pub(super) async fn issue(
    State(worker): State<Worker>,
    Extension(grant): Extension<Grant>,
    JsonBody(Issuing { name, scope, expires_in_s }): JsonBody<Issuing>,
) -> Reply {
    let scope: Scope = scope
        .parse()
        .map_err(|error: town::UnknownName| Failure::new(ErrorCode::BadRequest, error.to_string()))?;
    let lasts = expires_in_s.map_or(Some(USER_TOKEN_LIFE), |seconds| seconds.map(Duration::from_secs));
    let (id, secret) = user_token::fresh();
    let digest = user_token::digest_of(&secret);
    let command = Command::IssueToken { token: id.clone(), name, scope, digest, lasts };
    let town = worker.ask(Request::by(&grant.subject, command)).await?;
    let gone = || Failure::new(ErrorCode::Conflict, "the token was revoked at the same time");
    let mut data = described(town.user_token(&id, worker.now()).ok_or_else(gone)?);
    data["token"] = secret.expose().into();
    worker.until_known(&id).await;
    Ok(success(StatusCode::CREATED, &data))
}

/// The tokens that are good, by name.
pub(super) async fn list(State(worker): State<Worker>) -> Response {
    let town = worker.town().borrow().clone();
    let mut tokens: Vec<&UserToken> = town.user_tokens(worker.now()).collect();
    tokens.sort_by(|one, other| one.name.cmp(&other.name));
    success(StatusCode::OK, &tokens.into_iter().map(described).collect::<Vec<_>>())
}

/// Takes a token back, by its name, and with it every session, ticket and stream that came of it.
pub(super) async fn revoke(
    State(worker): State<Worker>,
    Path((_, name)): Path<(String, String)>,
    Extension(grant): Extension<Grant>,
) -> Reply {
    let id = {
        let town = worker.town().borrow().clone();
        let mut tokens = town.user_tokens(worker.now());
        tokens.find(|token| token.name.eq_ignore_ascii_case(&name)).map(|token| token.token.clone())
    };
    worker.ask(Request::by(&grant.subject, Command::RevokeToken { name: name.clone() })).await?;
    if let Some(id) = id {
        worker.until_gone(&id).await;
    }
    Ok(success(StatusCode::OK, &serde_json::json!({ "name": name, "revoked": true })))
}

/// A token as it may be shown: neither its secret nor what that is known by.
fn described(token: &UserToken) -> serde_json::Value {
    let UserToken { token: id, name, scope, issued, expires, .. } = token;
    serde_json::json!({ "id": id, "name": name, "scope": scope, "issued": issued, "expires": expires })
}

/// Tells a `null` from what is absent.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<u64>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}
