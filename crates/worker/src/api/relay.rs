//! Where the town's relay is, and what to show it.

use axum::{Extension, extract::State, response::Response};
use http::StatusCode;
use relay::auth::Grant;

use super::answer::success;
use crate::Worker;

/// What a client of the town goes on with to its relay: `{url, token, expires}`. The token is good for what the caller's
/// credentials are good for, everywhere in this town and nowhere else; `url` is `null` where the relay is this server.
pub(super) async fn show(State(worker): State<Worker>, Extension(grant): Extension<Grant>) -> Response {
    let (token, expires) = worker.client_token(&grant);
    let data = serde_json::json!({ "url": worker.relay_url(), "token": token.expose(), "expires": expires });
    success(StatusCode::OK, &data)
}
