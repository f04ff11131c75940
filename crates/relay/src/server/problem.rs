//! Answers that are errors (§4, §8).

use std::error::Error as _;

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use protocol::{ErrorBody, ErrorCode, ErrorDetail};
use store::{AppendError, ReadError, StoreError};

use crate::{ApiError, ingest::RETRY_FULL_MS};

/// An error as an HTTP answer: its status, and `{"error": {"code", "message"}}`.
#[derive(Debug)]
pub(super) struct Problem(pub(super) ErrorDetail);

impl Problem {
    pub(super) fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self(ErrorDetail::new(code, message))
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status =
            StatusCode::from_u16(self.0.code.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let retry_after = self.0.retry_after_ms.map(|ms| HeaderValue::from(ms.div_ceil(1000)));
        let mut response = (status, Json(ErrorBody { error: self.0 })).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(retry_after) = retry_after {
            headers.insert(header::RETRY_AFTER, retry_after);
        }
        response
    }
}

impl From<ErrorDetail> for Problem {
    fn from(detail: ErrorDetail) -> Self {
        Self(detail)
    }
}

/// What a reader is told of a read that failed: the store's own words go to the log, not over the network.
pub(super) fn of_read(error: &ReadError) -> ErrorDetail {
    match error {
        ReadError::UnknownLog { .. } => ErrorDetail::new(ErrorCode::UnknownLog, error.to_string()),
        ReadError::Corrupt { .. } => ErrorDetail::new(ErrorCode::Corrupt, error.to_string()),
        ReadError::Store(_) | _ => internal(error),
    }
}

/// What is told of an append that failed.
pub(super) fn of_append(error: &AppendError) -> ErrorDetail {
    match error {
        AppendError::Fenced { .. } => ErrorDetail::new(ErrorCode::Superseded, error.to_string()),
        AppendError::Hole { .. } => ErrorDetail::new(ErrorCode::BadRequest, error.to_string()),
        AppendError::Conflict { .. } => ErrorDetail::new(ErrorCode::Conflict, error.to_string()),
        AppendError::TooLarge { .. } => ErrorDetail::new(ErrorCode::TooLarge, error.to_string()),
        AppendError::Store(error) => of_store(error),
        _ => internal(error),
    }
}

/// What is told of a store that failed.
pub(super) fn of_store(error: &StoreError) -> ErrorDetail {
    match error {
        StoreError::Full { .. } => {
            tracing::error!(%error, source = ?error.source(), "nothing can be appended");
            ErrorDetail {
                retry_after_ms: Some(RETRY_FULL_MS),
                ..ErrorDetail::new(ErrorCode::StoreFull, error.to_string())
            }
        }
        StoreError::Closed { .. } | StoreError::Backend { .. } | _ => internal(error),
    }
}

fn internal(error: &dyn std::error::Error) -> ErrorDetail {
    tracing::error!(%error, source = ?error.source(), "the store failed");
    ErrorDetail::new(ErrorCode::Internal, "the store failed: the relay's log says why")
}

impl From<ErrorDetail> for ApiError {
    fn from(detail: ErrorDetail) -> Self {
        Self::Refused(detail)
    }
}
