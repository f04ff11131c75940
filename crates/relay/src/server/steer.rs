//! Changing things over plain HTTP: commands, appends without a wrapper, removal.

use axum::{
    Extension, Json,
    extract::{FromRequest as _, Request, State},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use protocol::{
    Command, CommandId, CommandResult, ErrorCode, ErrorDetail, LogId, NewEvent, ProducerId, Seq, codec,
    config::SealedConfig, limits,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use store::{Append, ProducerBatch};

use super::{
    Relay,
    problem::{self, Problem},
};
use crate::{ApiError, RelayApi as _};

/// `POST /v1/agents/{agent}/commands`: the answer is what became of the command, with the status of its error.
pub(super) async fn command(
    State(relay): State<Relay>,
    Extension(log): Extension<LogId>,
    headers: HeaderMap,
    request: Request,
) -> Result<Response, Problem> {
    let agent = log.agent().ok_or_else(|| Problem::new(ErrorCode::NotFound, "a town takes no commands"))?;
    let id = match headers.get("idempotency-key") {
        None => uuid::Uuid::now_v7().to_string().parse::<CommandId>(),
        Some(key) => key.to_str().unwrap_or_default().parse(),
    };
    let id = id.map_err(|error| Problem::new(ErrorCode::BadRequest, format!("Idempotency-Key: {error}")))?;
    let command = body::<Command>(&relay, request).await?;
    let result = relay.command(agent, id, command).await?;
    Ok((status_of(&result), Json(result)).into_response())
}

fn status_of(result: &CommandResult) -> StatusCode {
    let code = result.error.as_ref().map(|error| error.code.http_status());
    code.and_then(|code| StatusCode::from_u16(code).ok()).unwrap_or(StatusCode::OK)
}

/// What is appended without a link; numbered by a producer, or by nobody.
#[derive(Debug, Deserialize)]
struct AppendBody {
    producer: Option<ProducerId>,
    #[serde(default)]
    generation: u64,
    first: Option<u64>,
    events: Vec<NewEvent>,
}

/// Where it came to lie.
#[derive(Debug, Serialize)]
struct AppendAnswer {
    acked: u64,
    epoch: protocol::Epoch,
    head: Seq,
}

/// `POST …/events`.
pub(super) async fn append(
    State(relay): State<Relay>,
    Extension(log): Extension<LogId>,
    request: Request,
) -> Result<Response, Problem> {
    let AppendBody { producer, generation, first, events } = body(&relay, request).await?;
    let mut batch = Append::of(events);
    match (producer, first) {
        (Some(producer), Some(first)) if first > 0 => {
            batch = batch.from_producer(ProducerBatch { producer, generation, first });
        }
        (None, None) => {}
        _ => {
            let message = "`producer` and `first` (from 1) come together";
            return Err(Problem::new(ErrorCode::BadRequest, message));
        }
    }
    let appended = relay.commit(&log, batch).await.map_err(|error| problem::of_append(&error))?;
    Ok(Json(AppendAnswer { acked: appended.acked, epoch: appended.epoch, head: appended.head })
        .into_response())
}

/// `POST /v1/agents/{agent}/config`: read as strictly as the wrapper will.
pub(super) async fn configure(
    State(relay): State<Relay>,
    Extension(log): Extension<LogId>,
    request: Request,
) -> Result<StatusCode, Problem> {
    let agent = log.agent().ok_or_else(|| Problem::new(ErrorCode::NotFound, "a town has no wrapper"))?;
    let config = body::<SealedConfig>(&relay, request).await?;
    let config = config.open().map_err(|error| Problem::new(ErrorCode::BadRequest, error.to_string()))?;
    relay.configure(agent, config.seal()).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `DELETE /v1/agents/{agent}`, `DELETE /v1/towns/{town}`.
pub(super) async fn remove(
    State(relay): State<Relay>,
    Extension(log): Extension<LogId>,
) -> Result<StatusCode, Problem> {
    relay.remove_log(&log).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The body as JSON, if it comes in time and within the route's limit.
async fn body<T: DeserializeOwned>(relay: &Relay, request: Request) -> Result<T, Problem> {
    let bytes =
        match tokio::time::timeout(relay.config().body_timeout, Bytes::from_request(request, &())).await {
            Ok(Ok(bytes)) => bytes,
            Ok(Err(error)) => {
                let too_large = error.status() == StatusCode::PAYLOAD_TOO_LARGE;
                let code = if too_large { ErrorCode::TooLarge } else { ErrorCode::BadRequest };
                return Err(Problem::new(code, error.body_text()));
            }
            Err(_) => return Err(Problem::new(ErrorCode::Stalled, "the body did not arrive in time")),
        };
    codec::check(&bytes, limits::INGEST_FRAME_BYTES)
        .map_err(|error| Problem::new(error.code(), error.to_string()))?;
    serde_json::from_slice(&bytes).map_err(|error| Problem::new(ErrorCode::BadRequest, error.to_string()))
}

impl From<ApiError> for Problem {
    fn from(error: ApiError) -> Self {
        match error {
            ApiError::Refused(detail) => Self(detail),
            ApiError::Unreachable { .. } => Self(ErrorDetail::new(ErrorCode::Internal, error.to_string())),
        }
    }
}
