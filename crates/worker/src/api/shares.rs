//! Share links: making, listing and revoking them (`docs/protocol.md` §9).

use std::time::Duration;

use axum::{
    Extension,
    extract::{Path, State},
    response::Response,
};
use http::StatusCode;
use protocol::ErrorCode;
use relay::auth::{Grant, Secret};
use serde::Deserialize;
use town::{Command, Request, Share};

use super::{Failure, agents::find, answer::success, body::JsonBody};
use crate::{Worker, limits::SHARE_LIFE};

type Reply = Result<Response, Failure>;

/// What a link shall be.
#[derive(Debug, Deserialize)]
pub(super) struct Sharing {
    #[serde(default)]
    expires_in_s: Option<u64>,
    #[serde(default)]
    label: Option<String>,
}

/// Makes a link: `{id, url, expires, …}`. The URL is in this answer and in no other one.
pub(super) async fn issue(
    State(worker): State<Worker>,
    Path((_, agent)): Path<(String, String)>,
    Extension(grant): Extension<Grant>,
    JsonBody(Sharing { expires_in_s, label }): JsonBody<Sharing>,
) -> Reply {
    let agent = find(&worker.town().borrow(), &agent)?.id;
    let id = Secret::random().expose().to_owned();
    let lasts = expires_in_s.map_or(SHARE_LIFE, Duration::from_secs);
    let command = Command::Share { agent, share: id.clone(), lasts, label };
    let town = worker.ask(Request::by(&grant.subject, command)).await?;
    let gone = || Failure::new(ErrorCode::Conflict, "the agent was removed at the same time");
    let share = town.shares(worker.now()).find(|share| share.share == id).ok_or_else(gone)?;
    let mut data = described(share);
    data["url"] = worker.share_url(share).await.into();
    Ok(success(StatusCode::CREATED, &data))
}

/// The links of an agent that are good.
pub(super) async fn list(State(worker): State<Worker>, Path((_, agent)): Path<(String, String)>) -> Reply {
    let town = worker.town().borrow().clone();
    let agent = find(&town, &agent)?.id;
    let shares = town.shares(worker.now()).filter(|share| share.agent == agent);
    Ok(success(StatusCode::OK, &shares.map(described).collect::<Vec<_>>()))
}

/// Takes a link back, and with it every stream that it opened.
pub(super) async fn revoke(
    State(worker): State<Worker>,
    Path((_, agent, share)): Path<(String, String, String)>,
    Extension(grant): Extension<Grant>,
) -> Reply {
    let agent = find(&worker.town().borrow(), &agent)?.id;
    let command = Command::Unshare { agent, share: share.clone() };
    worker.ask(Request::by(&grant.subject, command)).await?;
    Ok(success(StatusCode::OK, &serde_json::json!({ "id": share, "revoked": true })))
}

fn described(share: &Share) -> serde_json::Value {
    serde_json::json!({
        "id": share.share, "agent": share.agent, "issued": share.issued, "expires": share.expires, "label": share.label,
    })
}
