//! What agents are run with (`docs/protocol.md` §10): the town's config, and over it that of each agent.

use std::sync::Arc;

use axum::{
    extract::{Path, State},
    response::Response,
};
use http::StatusCode;
use protocol::{AgentId, ErrorCode};
use serde_json::{Map, Value, json};

use super::{Failure, agents::find, answer::success, body::JsonBody};
use crate::{
    Worker,
    agent_config::{Layer, PatchError},
};

type Reply = Result<Response, Failure>;
type Patch = JsonBody<Map<String, Value>>;

pub(super) async fn town(State(worker): State<Worker>) -> Response {
    success(StatusCode::OK, &json!({ "config": worker.configs().show(&Layer::Town) }))
}

pub(super) async fn patch_town(State(worker): State<Worker>, JsonBody(patch): Patch) -> Reply {
    change(&worker, Layer::Town, patch).await?;
    let agents: Vec<AgentId> = worker.town().borrow().agents().keys().cloned().collect();
    for agent in agents {
        tell(&worker, &agent).await?;
    }
    Ok(town(State(worker)).await)
}

/// Its own, and what comes of that and the town's.
pub(super) async fn agent(State(worker): State<Worker>, Path((_, agent)): Path<(String, String)>) -> Reply {
    let agent = find(&worker.town().borrow(), &agent)?.id;
    let resolved = worker.configs().resolved(&agent).masked();
    let config = worker.configs().show(&Layer::Agent(agent));
    Ok(success(StatusCode::OK, &json!({ "config": config, "resolved": resolved })))
}

pub(super) async fn patch_agent(
    State(worker): State<Worker>,
    Path((town, agent)): Path<(String, String)>,
    JsonBody(patch): Patch,
) -> Reply {
    let id = find(&worker.town().borrow(), &agent)?.id;
    change(&worker, Layer::Agent(id.clone()), patch).await?;
    tell(&worker, &id).await?;
    self::agent(State(worker), Path((town, agent))).await
}

async fn change(worker: &Worker, layer: Layer, patch: Map<String, Value>) -> Result<(), Failure> {
    let configs = Arc::clone(worker.configs());
    let changed = tokio::task::spawn_blocking(move || configs.patch(&layer, patch)).await;
    match changed {
        Ok(Ok(())) => Ok(()),
        Ok(Err(PatchError::Config(error))) => Err(Failure::new(ErrorCode::BadRequest, error.to_string())),
        Ok(Err(PatchError::File(error))) => {
            tracing::error!(error = &error as &dyn std::error::Error, "a config cannot be kept");
            Err(Failure::new(ErrorCode::Internal, "the config cannot be kept: the worker's log says why"))
        }
        Err(error) => Err(Failure::new(ErrorCode::Internal, error.to_string())),
    }
}

/// The wrapper has it with its next command, and so from its next turn on.
async fn tell(worker: &Worker, agent: &AgentId) -> Result<(), Failure> {
    Ok(worker.relay().configure(agent, worker.configs().resolved(agent).seal()).await?)
}
