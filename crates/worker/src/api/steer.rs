//! Steering an agent (`docs/protocol.md` §7).

use axum::{
    extract::{Path, Query, State},
    response::Response,
};
use http::{HeaderMap, StatusCode};
use protocol::{Answer, Command, ErrorCode, PermissionReply, Prompt};
use serde::Deserialize;

use super::{
    Failure,
    agents::find,
    answer::{commanded, success},
    body::{JsonBody, command_id},
};
use crate::Worker;

type Reply = Result<Response, Failure>;

pub(super) async fn message(
    State(worker): State<Worker>,
    Path((_, agent)): Path<(String, String)>,
    headers: HeaderMap,
    JsonBody(prompt): JsonBody<Prompt>,
) -> Reply {
    let has_text = prompt.text.as_ref().is_some_and(|text| !text.trim().is_empty());
    let has_parts = prompt.parts.as_ref().is_some_and(|parts| !parts.is_empty());
    if !has_text && !has_parts {
        return Err(Failure::new(ErrorCode::BadRequest, "a prompt has a text, or parts"));
    }
    send(&worker, &agent, &headers, Command::Prompt(prompt)).await
}

pub(super) async fn abort(
    State(worker): State<Worker>,
    Path((_, agent)): Path<(String, String)>,
    headers: HeaderMap,
) -> Reply {
    send(&worker, &agent, &headers, Command::Abort).await
}

/// The answer to a permission.
#[derive(Debug, Deserialize)]
pub(super) struct Permitting {
    id: String,
    reply: PermissionReply,
    #[serde(default)]
    message: Option<String>,
}

pub(super) async fn permission(
    State(worker): State<Worker>,
    Path((_, agent)): Path<(String, String)>,
    headers: HeaderMap,
    JsonBody(Permitting { id, reply, message }): JsonBody<Permitting>,
) -> Reply {
    send(&worker, &agent, &headers, Command::Permission { id, reply, message }).await
}

/// The answer to a question: its answers, or `"reject": true`.
#[derive(Debug, Deserialize)]
pub(super) struct Answering {
    id: String,
    #[serde(default)]
    answers: Option<Vec<Vec<String>>>,
    #[serde(default)]
    reject: bool,
}

pub(super) async fn question(
    State(worker): State<Worker>,
    Path((_, agent)): Path<(String, String)>,
    headers: HeaderMap,
    JsonBody(Answering { id, answers, reject }): JsonBody<Answering>,
) -> Reply {
    let command = match (answers, reject) {
        (Some(answers), false) => Command::Question(Answer { id, answers }),
        (None, true) => Command::QuestionReject { id },
        (Some(_), true) | (None, false) => {
            let message = "the answer to a question has `answers`, or `reject` that is true";
            return Err(Failure::new(ErrorCode::BadRequest, message));
        }
    };
    send(&worker, &agent, &headers, command).await
}

/// How many lines are wanted.
#[derive(Debug, Deserialize)]
pub(super) struct LogsQuery {
    lines: Option<u32>,
}

pub(super) async fn logs(
    State(worker): State<Worker>,
    Path((_, agent)): Path<(String, String)>,
    Query(LogsQuery { lines }): Query<LogsQuery>,
) -> Reply {
    let agent = find(&worker.town().borrow(), &agent)?.id;
    let result = worker.send(&agent, Command::Logs { lines }).await?;
    match result.error {
        None => Ok(success(StatusCode::OK, &result.data)),
        Some(error) => Err(Failure::of(error)),
    }
}

async fn send(worker: &Worker, agent: &str, headers: &HeaderMap, command: Command) -> Reply {
    let agent = find(&worker.town().borrow(), agent)?.id;
    let result = worker.relay().command(&agent, command_id(headers)?, command).await?;
    commanded(result)
}
