//! What agents are run with (`docs/protocol.md` §10): the town's config, over it that of a role, and over that the agent's own.

use std::sync::Arc;

use axum::{
    extract::{Path, State},
    response::Response,
};
use http::StatusCode;
use protocol::ErrorCode;
use serde_json::{Map, Value};
use town::{Agent, Role};

use super::{Failure, agents::find, answer::success, body::JsonBody};
use crate::{
    Worker,
    agent_config::{Layer, PatchError},
};

type Reply = Result<Response, Failure>;
type Patch = JsonBody<Map<String, Value>>;

pub(super) async fn town(State(worker): State<Worker>) -> Response {
    show(&worker, &Layer::Town)
}

pub(super) async fn patch_town(State(worker): State<Worker>, JsonBody(patch): Patch) -> Reply {
    change(&worker, Layer::Town, patch, |_| true).await
}

pub(super) async fn role(State(worker): State<Worker>, Path((_, role)): Path<(String, String)>) -> Reply {
    Ok(show(&worker, &Layer::Role(known(&role)?)))
}

pub(super) async fn patch_role(
    State(worker): State<Worker>,
    Path((_, role)): Path<(String, String)>,
    JsonBody(patch): Patch,
) -> Reply {
    let role = known(&role)?;
    change(&worker, Layer::Role(role), patch, |agent| agent.role == role).await
}

pub(super) async fn agent(State(worker): State<Worker>, Path((_, agent)): Path<(String, String)>) -> Reply {
    let agent = find(&worker.town().borrow(), &agent)?;
    Ok(show(&worker, &Layer::of(&agent)))
}

pub(super) async fn patch_agent(
    State(worker): State<Worker>,
    Path((_, agent)): Path<(String, String)>,
    JsonBody(patch): Patch,
) -> Reply {
    let agent = find(&worker.town().borrow(), &agent)?;
    change(&worker, Layer::of(&agent), patch, |other| other.id == agent.id).await
}

/// A role by its name.
fn known(role: &str) -> Result<Role, Failure> {
    role.parse().map_err(|error: town::UnknownName| Failure::new(ErrorCode::NotFound, error.to_string()))
}

/// What a layer says itself, what comes of it and those below it, and where each value of that is from.
fn show(worker: &Worker, layer: &Layer) -> Response {
    success(StatusCode::OK, &worker.configs().explain(layer))
}

/// Changes a layer, and tells the relay of the agents that it is for.
async fn change(
    worker: &Worker,
    layer: Layer,
    patch: Map<String, Value>,
    is_for: impl Fn(&Agent) -> bool,
) -> Reply {
    let (configs, changed) = (Arc::clone(worker.configs()), layer.clone());
    match tokio::task::spawn_blocking(move || configs.patch(&changed, patch)).await {
        Ok(Ok(())) => {}
        Ok(Err(PatchError::Config(error))) => {
            return Err(Failure::new(ErrorCode::BadRequest, error.to_string()));
        }
        Ok(Err(PatchError::File(error))) => {
            tracing::error!(error = &error as &dyn std::error::Error, "a config cannot be kept");
            return Err(Failure::new(
                ErrorCode::Internal,
                "the config cannot be kept: the worker's log says why",
            ));
        }
        Err(error) => return Err(Failure::new(ErrorCode::Internal, error.to_string())),
    }
    let town = worker.town().borrow().clone();
    for agent in town.agents().values().filter(|agent| is_for(agent)) {
        // The wrapper has it with its next command, and so from its next turn on. A relay that is away is told when it is back.
        if !worker.configs().tell(&**worker.relay(), agent).await {
            break;
        }
    }
    Ok(show(worker, &layer))
}
