//! The routes of the local API (§10), and how its errors look.

use axum::{
    Json, Router,
    body::Bytes,
    extract::{DefaultBodyLimit, FromRequest, Request, State},
    http::{StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse as _, Response},
    routing::{get, post},
};
use protocol::{
    Answer, Command, PermissionReply, Prompt,
    config::{ConfigError, TownConfig, TurnConfig},
    frame::WrapperState,
    limits,
};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Map, Value, json};
use subtle::ConstantTimeEq as _;
use tokio::sync::{mpsc, oneshot, watch};

use super::{ApiAnswer, ApiAsk, ApiError, ApiRequest, JobStatus};
use crate::{
    link::{LinkHandle, Token},
    metrics,
};

/// The header that the town's config comes in, as JSON.
const TOWN_CONFIG: &str = "x-town-config";

#[derive(Clone)]
struct Job {
    token: Token,
    status: watch::Receiver<JobStatus>,
    link: LinkHandle,
    requests: mpsc::Sender<ApiRequest>,
}

pub(super) fn router(
    token: Token,
    status: watch::Receiver<JobStatus>,
    link: LinkHandle,
    requests: mpsc::Sender<ApiRequest>,
) -> Router {
    let job = Job { token, status, link, requests };
    Router::new()
        .route("/health", get(health))
        .route("/metrics", get(numbers))
        .route("/job/status", get(job_status))
        .route("/job/prompt", post(prompt))
        .route("/job/command", post(slash))
        .route("/job/answer-permission", post(answer_permission))
        .route("/job/answer-question", post(answer_question))
        .route("/job/reject-question", post(reject_question))
        .route("/job/abort", post(abort))
        .fallback(async || refuse(StatusCode::NOT_FOUND, "NOT_FOUND", "there is no such route"))
        .method_not_allowed_fallback(async || {
            refuse(StatusCode::METHOD_NOT_ALLOWED, "METHOD_NOT_ALLOWED", "the route has another method")
        })
        .layer(middleware::from_fn_with_state(job.clone(), configured))
        .layer(DefaultBodyLimit::max(limits::HTTP_BODY_BYTES))
        .layer(middleware::from_fn_with_state(job.clone(), authenticated))
        .with_state(job)
}

/// Every route wants the token, also those that do not exist: a page in a browser is a stranger here.
async fn authenticated(State(job): State<Job>, request: Request, next: Next) -> Response {
    let shown = request
        .headers()
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
    if shown.is_some_and(|shown| shown.as_bytes().ct_eq(job.token.reveal().as_bytes()).into()) {
        next.run(request).await
    } else {
        refuse(StatusCode::UNAUTHORIZED, "UNAUTHENTICATED", "give the token of api.json as a bearer token")
    }
}

/// Takes the town's config that comes with any call, before what the call asks for.
async fn configured(State(job): State<Job>, mut request: Request, next: Next) -> Response {
    if let Some(text) = request.headers_mut().remove(TOWN_CONFIG) {
        let config = std::str::from_utf8(text.as_bytes()).map_err(|_| ConfigError::NoObject);
        let ask = config.and_then(TownConfig::parse).map(ApiAsk::Configure).map_err(|error| wrong(&error));
        let taken = match ask {
            Ok(ask) => job.ask(ask).await,
            Err(error) => Err(error),
        };
        if let Err(error) = taken {
            return refused(&error);
        }
    }
    next.run(request).await
}

async fn health(State(job): State<Job>) -> Json<Value> {
    let (status, link) = (job.status.borrow().clone(), job.link.state().borrow().name());
    let state = status.wrapper.unwrap_or(WrapperState::Starting);
    Json(json!({
        "healthy": matches!(state, WrapperState::Idle | WrapperState::Active | WrapperState::Draining),
        "state": metrics::state_name(state),
        "version": env!("CARGO_PKG_VERSION"),
        "protocol": protocol::PROTOCOL,
        "sessionId": status.session_id,
        "link": link,
    }))
}

async fn numbers(State(job): State<Job>) -> Response {
    let (status, link) = (job.status.borrow().clone(), job.link.state().borrow().clone());
    let text = metrics::text(&status, &link, job.link.lag());
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response()
}

async fn job_status(State(job): State<Job>) -> Json<JobStatus> {
    Json(job.status.borrow().clone())
}

/// A body within the limit. One that is too long is refused as every wrong one is.
struct Body(Bytes);

impl<S: Send + Sync> FromRequest<S> for Body {
    type Rejection = Response;

    async fn from_request(request: Request, state: &S) -> Result<Self, Response> {
        let body = Bytes::from_request(request, state).await;
        body.map(Self).map_err(|error| refused(&ApiError::InvalidRequest(error.body_text())))
    }
}

async fn prompt(State(job): State<Job>, Body(body): Body) -> Response {
    let asked = read::<Map<String, Value>>(&body).and_then(|mut fields| {
        let turn = TurnConfig::take_from(&mut fields).map_err(|error| wrong(&error))?;
        let prompt: Prompt =
            serde_json::from_value(Value::Object(fields)).map_err(|error| invalid(&error))?;
        if prompt.text.as_ref().is_none_or(String::is_empty)
            && prompt.parts.as_ref().is_none_or(Vec::is_empty)
        {
            return Err(ApiError::InvalidRequest("a prompt has a `text` or `parts`".to_owned()));
        }
        Ok(ApiAsk::Prompt { prompt, turn })
    });
    job.answer(asked).await
}

async fn slash(State(job): State<Job>, Body(body): Body) -> Response {
    #[derive(Deserialize)]
    struct Slash {
        name: String,
        #[serde(default)]
        arguments: String,
    }
    job.command(read(&body).map(|Slash { name, arguments }| Command::Slash { name, arguments })).await
}

async fn answer_permission(State(job): State<Job>, Body(body): Body) -> Response {
    #[derive(Deserialize)]
    struct Permission {
        id: String,
        reply: PermissionReply,
        message: Option<String>,
    }
    job.command(read(&body).map(|Permission { id, reply, message }| Command::Permission {
        id,
        reply,
        message,
    }))
    .await
}

async fn answer_question(State(job): State<Job>, Body(body): Body) -> Response {
    job.command(read::<Answer>(&body).map(Command::Question)).await
}

async fn reject_question(State(job): State<Job>, Body(body): Body) -> Response {
    #[derive(Deserialize)]
    struct Reject {
        id: String,
    }
    job.command(read(&body).map(|Reject { id }| Command::QuestionReject { id })).await
}

async fn abort(State(job): State<Job>) -> Response {
    job.command(Ok(Command::Abort)).await
}

impl Job {
    async fn command(&self, command: Result<Command, ApiError>) -> Response {
        self.answer(command.map(ApiAsk::Command)).await
    }

    async fn answer(&self, asked: Result<ApiAsk, ApiError>) -> Response {
        let answered = match asked {
            Ok(ask) => self.ask(ask).await,
            Err(error) => Err(error),
        };
        match answered {
            Ok(ApiAnswer::Accepted { message_id }) => {
                (StatusCode::ACCEPTED, Json(json!({ "messageId": message_id }))).into_response()
            }
            Ok(ApiAnswer::Done(data)) => Json(data.unwrap_or_else(|| json!({ "ok": true }))).into_response(),
            Err(error) => refused(&error),
        }
    }

    async fn ask(&self, ask: ApiAsk) -> Result<ApiAnswer, ApiError> {
        let ends = || ApiError::Internal("the wrapper ends".to_owned());
        let (answer, answered) = oneshot::channel();
        self.requests.send(ApiRequest { ask, answer }).await.map_err(|_| ends())?;
        answered.await.map_err(|_| ends())?
    }
}

impl ApiError {
    fn code(&self) -> (StatusCode, &'static str) {
        match self {
            Self::InvalidRequest(_) => (StatusCode::BAD_REQUEST, "INVALID_REQUEST"),
            Self::NoJob(_) => (StatusCode::BAD_REQUEST, "NO_JOB"),
            Self::NotFound(_) => (StatusCode::NOT_FOUND, "NOT_FOUND"),
            Self::Conflict(_) => (StatusCode::CONFLICT, "JOB_CONFLICT"),
            Self::TooMany(_) => (StatusCode::TOO_MANY_REQUESTS, "RATE_LIMITED"),
            Self::Unsupported(_) => (StatusCode::NOT_IMPLEMENTED, "UNSUPPORTED"),
            Self::AgentRefused(_) => (StatusCode::BAD_GATEWAY, "AGENT_ERROR"),
            Self::AgentUnreachable(_) => (StatusCode::BAD_GATEWAY, "AGENT_UNREACHABLE"),
            Self::Internal(_) => (StatusCode::INTERNAL_SERVER_ERROR, "INTERNAL"),
        }
    }
}

fn wrong(error: &ConfigError) -> ApiError {
    ApiError::InvalidRequest(error.to_string())
}

fn read<T: DeserializeOwned>(body: &Bytes) -> Result<T, ApiError> {
    serde_json::from_slice(body).map_err(|error| invalid(&error))
}

fn invalid(error: &serde_json::Error) -> ApiError {
    ApiError::InvalidRequest(format!("the body is not understood: {error}"))
}

fn refused(error: &ApiError) -> Response {
    let (status, code) = error.code();
    refuse(status, code, &error.to_string())
}

fn refuse(status: StatusCode, code: &str, message: &str) -> Response {
    (status, Json(json!({ "error": code, "message": message }))).into_response()
}
