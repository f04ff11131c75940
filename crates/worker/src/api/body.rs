//! Reading bodies: bounded in size and time, with errors that say what is wrong.

use std::{fmt, time::Duration};

use axum::{
    Form,
    body::Bytes,
    extract::{FromRequest, Request},
    response::IntoResponse,
};
use http::{HeaderMap, StatusCode};
use protocol::{CommandId, ErrorCode, limits::HTTP_BODY_BYTES};
use serde::de::DeserializeOwned;

use super::Failure;

/// How long a body may take: a person's prompt over a bad line is there long before.
const BODY_TIMEOUT: Duration = Duration::from_secs(15);

/// A JSON body of at most 64 KiB; an empty one is `{}`.
#[derive(Debug)]
pub(super) struct JsonBody<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for JsonBody<T> {
    type Rejection = Failure;

    async fn from_request(request: Request, _: &S) -> Result<Self, Failure> {
        let body: Bytes = within_time(request).await?;
        let text: &[u8] = if body.is_empty() { b"{}" } else { &body };
        serde_json::from_slice(text).map(Self).map_err(|error| {
            Failure::new(ErrorCode::BadRequest, format!("the body is not what this route takes: {error}"))
        })
    }
}

/// A form of at most 64 KiB.
pub(super) async fn form<T: DeserializeOwned>(request: Request) -> Result<T, Failure> {
    let Form(form) = within_time(request).await?;
    Ok(form)
}

/// Reads a body as `T` does, in time. How large it may be is set for the whole router.
async fn within_time<T>(request: Request) -> Result<T, Failure>
where
    T: FromRequest<()>,
    T::Rejection: IntoResponse + fmt::Display,
{
    match tokio::time::timeout(BODY_TIMEOUT, T::from_request(request, &())).await {
        Ok(Ok(body)) => Ok(body),
        Ok(Err(rejection)) => {
            let message = rejection.to_string();
            if rejection.into_response().status() == StatusCode::PAYLOAD_TOO_LARGE {
                let message = format!("a body has at most {HTTP_BODY_BYTES} bytes");
                return Err(Failure::new(ErrorCode::TooLarge, message));
            }
            Err(Failure::new(ErrorCode::BadRequest, message))
        }
        Err(_) => Err(Failure::new(ErrorCode::Stalled, "the body did not arrive in time")),
    }
}

/// The `Idempotency-Key` of a request to the town, if there is one.
pub(super) fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Failure> {
    let Some(value) = headers.get("idempotency-key") else { return Ok(None) };
    let key = value.to_str().map_err(|_| bad_key())?;
    Ok(Some(key.to_owned()))
}

/// The id of a command: the `Idempotency-Key`, or a fresh one.
pub(super) fn command_id(headers: &HeaderMap) -> Result<CommandId, Failure> {
    match idempotency_key(headers)? {
        Some(key) => key.parse().map_err(|_| bad_key()),
        None => Ok(crate::worker::fresh_command_id()),
    }
}

fn bad_key() -> Failure {
    Failure::new(ErrorCode::BadRequest, "an Idempotency-Key has 1 to 64 letters, digits, `_` and `-`")
}
