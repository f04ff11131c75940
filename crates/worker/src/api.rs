//! The HTTP API of the control plane: towns and agents under `/api`, and the way in and out under `/login` and `/logout`.
//!
//! Every answer under `/api` is `{"success": true, "data": …}` or `{"success": false, "error": "…", "code": "…"}` with a
//! status that goes with the code (`docs/protocol.md` §8).

mod access;
mod agents;
mod answer;
mod body;
mod config;
mod login;
mod relay;
mod shares;
mod steer;
mod stream;
mod tokens;

use axum::{
    Router,
    extract::DefaultBodyLimit,
    middleware::from_fn_with_state,
    routing::{delete, get, post},
};

pub use access::{Access, ROUTES, Route};
pub(crate) use answer::Failure;
pub(crate) use stream::alias;

use protocol::limits::HTTP_BODY_BYTES;

use crate::Worker;

/// The routes of [`ROUTES`], each behind the access that it names there.
pub(crate) fn router(worker: Worker) -> Router {
    Router::new()
        .route("/api/towns", get(agents::towns))
        .route("/api/towns/{town}", get(agents::town))
        .route("/api/towns/{town}/config", get(config::town).patch(config::patch_town))
        .route("/api/towns/{town}/roles/{role}/config", get(config::role).patch(config::patch_role))
        .route("/api/towns/{town}/agents", get(agents::list).post(agents::register))
        .route("/api/towns/{town}/agents/{agent}", get(agents::show).delete(agents::remove))
        .route("/api/towns/{town}/agents/{agent}/config", get(config::agent).patch(config::patch_agent))
        .route("/api/towns/{town}/agents/{agent}/logs", get(steer::logs))
        .route("/api/towns/{town}/agents/{agent}/start", post(agents::start))
        .route("/api/towns/{town}/agents/{agent}/stop", post(agents::stop))
        .route("/api/towns/{town}/agents/{agent}/message", post(steer::message))
        .route("/api/towns/{town}/agents/{agent}/abort", post(steer::abort))
        .route("/api/towns/{town}/agents/{agent}/permission", post(steer::permission))
        .route("/api/towns/{town}/agents/{agent}/question", post(steer::question))
        .route("/api/towns/{town}/agents/{agent}/stream-ticket", post(stream::ticket))
        .route("/api/towns/{town}/agents/{agent}/shares", get(shares::list).post(shares::issue))
        .route("/api/towns/{town}/agents/{agent}/shares/{share}", delete(shares::revoke))
        .route("/api/towns/{town}/relay", get(relay::show))
        .route("/api/towns/{town}/tokens", get(tokens::list).post(tokens::issue))
        .route("/api/towns/{town}/tokens/{token}", delete(tokens::revoke))
        .route("/login", get(login::page).post(login::log_in))
        .route("/logout", post(login::log_out))
        .route_layer(from_fn_with_state(worker.clone(), access::layer))
        .layer(DefaultBodyLimit::max(HTTP_BODY_BYTES))
        .fallback(answer::no_such_route)
        .method_not_allowed_fallback(answer::no_such_method)
        .with_state(worker)
}
