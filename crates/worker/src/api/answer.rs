//! The envelope of every answer.

use axum::{
    Json,
    response::{IntoResponse, Response},
};
use http::{HeaderValue, StatusCode, Uri, header};
use protocol::{CommandResult, ErrorBody, ErrorCode, ErrorDetail};
use relay::ApiError;
use serde::Serialize;

use crate::AskError;

/// `{"success": true, "data": …}` with a status.
pub(super) fn success(status: StatusCode, data: &impl Serialize) -> Response {
    (status, Json(serde_json::json!({ "success": true, "data": data }))).into_response()
}

/// What went wrong, for programs and for people.
#[derive(Debug)]
pub(crate) struct Failure(ErrorDetail);

impl Failure {
    pub(crate) fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self(ErrorDetail::new(code, message))
    }

    /// As the relay or the agent said it.
    pub(crate) fn of(detail: ErrorDetail) -> Self {
        Self(detail)
    }

    /// The answer: the API's envelope under `/api`, the relay's elsewhere.
    pub(crate) fn into_answer(self, path: &str) -> Response {
        if path.starts_with("/api") {
            return self.into_response();
        }
        let (status, retry) = (self.status(), self.0.retry_after_ms);
        with_retry((status, Json(ErrorBody { error: self.0 })).into_response(), retry)
    }

    pub(super) fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.0.code.http_status()).expect("codes have valid statuses")
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let (status, retry) = (self.status(), self.0.retry_after_ms);
        let mut body = serde_json::json!({ "success": false, "error": self.0.message, "code": self.0.code });
        if let Some(retry) = retry {
            body["retry_after_ms"] = retry.into();
        }
        with_retry((status, Json(body)).into_response(), retry)
    }
}

fn with_retry(mut response: Response, retry_after_ms: Option<u64>) -> Response {
    if let Some(ms) = retry_after_ms {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(ms.div_ceil(1000)));
    }
    response
}

impl From<AskError> for Failure {
    fn from(error: AskError) -> Self {
        let code = error.code();
        if matches!(code, ErrorCode::Internal | ErrorCode::StoreFull) {
            tracing::error!(error = &error as &dyn std::error::Error, "a request to the town failed");
        }
        Self::new(code, sentence(&error))
    }
}

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        match error {
            ApiError::Refused(detail) => Self(detail),
            error @ (ApiError::Unreachable { .. } | _) => {
                tracing::error!(error = &error as &dyn std::error::Error, "the relay did not answer");
                Self::new(ErrorCode::Internal, "the relay cannot be reached: see the worker's log")
            }
        }
    }
}

/// The answer to a command: its data, or why the agent or the relay did not take it.
pub(super) fn commanded(result: CommandResult) -> Result<Response, Failure> {
    if result.ok {
        let data = serde_json::json!({ "id": result.id, "result": result.data });
        return Ok(success(StatusCode::OK, &data));
    }
    Err(Failure(
        result.error.unwrap_or_else(|| ErrorDetail::new(ErrorCode::AgentError, "the agent did not take it")),
    ))
}

pub(super) async fn no_such_route(uri: Uri) -> Response {
    Failure::new(ErrorCode::NotFound, "there is no such route").into_answer(uri.path())
}

pub(super) async fn no_such_method(uri: Uri) -> Response {
    let mut answer =
        Failure::new(ErrorCode::BadRequest, "this route does not take this method").into_answer(uri.path());
    *answer.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
    answer
}

/// An error with its cause, where that says what to do.
fn sentence(error: &AskError) -> String {
    match error {
        AskError::Rejected(rejection) => match std::error::Error::source(rejection) {
            Some(source) => format!("{rejection}: {source}"),
            None => rejection.to_string(),
        },
        AskError::Journal(_) | AskError::Closed => error.to_string(),
    }
}
