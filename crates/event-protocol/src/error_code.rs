//! Close codes and error codes (§8).

use serde::{Deserialize, Serialize};

/// Why a request was refused: stable words, the same on HTTP, SSE and WebSocket.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema, thiserror::Error,
)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ErrorCode {
    /// The request does not follow the protocol.
    #[error("bad_request")]
    BadRequest,
    /// No such log.
    #[error("unknown_log")]
    UnknownLog,
    /// Over a limit of size.
    #[error("too_large")]
    TooLarge,
    /// No credential, a wrong, expired or used one.
    #[error("unauthenticated")]
    Unauthenticated,
    /// The credential does not reach this far, or the origin is foreign.
    #[error("forbidden")]
    Forbidden,
    /// The peer took no byte for too long.
    #[error("stalled")]
    Stalled,
    /// A newer generation has the agent.
    #[error("superseded")]
    Superseded,
    /// Too many; come back later.
    #[error("rate_limited")]
    RateLimited,
    /// The server goes down; come back.
    #[error("draining")]
    Draining,
    /// Somebody answered first.
    #[error("already_answered")]
    AlreadyAnswered,
    /// No wrapper is connected.
    #[error("agent_offline")]
    AgentOffline,
    /// The agent server did not take it.
    #[error("agent_error")]
    AgentError,
    /// This agent cannot do that.
    #[error("unsupported")]
    Unsupported,
    /// What is stored is damaged.
    #[error("corrupt")]
    Corrupt,
    /// It contradicts what is there (a name taken, a state that forbids it).
    #[error("conflict")]
    Conflict,
    /// No such thing.
    #[error("not_found")]
    NotFound,
    /// The disk of the store is full: nothing is taken until there is room, and reads go on.
    #[error("store_full")]
    StoreFull,
    /// The server failed; it says why in its log.
    #[error("internal")]
    Internal,
}

impl ErrorCode {
    /// The HTTP status that goes with it.
    #[must_use]
    pub fn http_status(self) -> u16 {
        match self {
            Self::BadRequest => 400,
            Self::Unauthenticated => 401,
            Self::Forbidden => 403,
            Self::UnknownLog | Self::NotFound => 404,
            Self::Stalled => 408,
            Self::Superseded | Self::AlreadyAnswered | Self::Conflict => 409,
            Self::TooLarge => 413,
            Self::RateLimited => 429,
            Self::Corrupt | Self::Internal => 500,
            Self::Unsupported => 501,
            Self::AgentError => 502,
            Self::Draining | Self::AgentOffline => 503,
            Self::StoreFull => 507,
        }
    }

    /// The WebSocket close code that goes with it.
    #[must_use]
    pub fn close(self) -> CloseCode {
        match self {
            Self::BadRequest | Self::Unsupported | Self::AlreadyAnswered | Self::Conflict => {
                CloseCode::BAD_REQUEST
            }
            Self::Unauthenticated => CloseCode::UNAUTHENTICATED,
            Self::Forbidden => CloseCode::FORBIDDEN,
            Self::UnknownLog | Self::NotFound => CloseCode::UNKNOWN_LOG,
            Self::Stalled => CloseCode::STALLED,
            Self::Superseded => CloseCode::SUPERSEDED,
            Self::TooLarge => CloseCode::TOO_LARGE,
            Self::RateLimited => CloseCode::RATE_LIMITED,
            Self::Draining | Self::AgentOffline => CloseCode::DRAINING,
            Self::Corrupt | Self::StoreFull | Self::Internal | Self::AgentError => CloseCode::INTERNAL,
        }
    }
}

/// A WebSocket close code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CloseCode(pub u16);

impl CloseCode {
    /// Ended by request.
    pub const NORMAL: Self = Self(1000);
    /// The server failed.
    pub const INTERNAL: Self = Self(1011);
    /// The server goes down: reconnect with the cursor.
    pub const DRAINING: Self = Self(1012);
    /// Protocol fault: do not retry.
    pub const BAD_REQUEST: Self = Self(4400);
    /// New ticket, once.
    pub const UNAUTHENTICATED: Self = Self(4401);
    /// Do not retry.
    pub const FORBIDDEN: Self = Self(4403);
    /// Do not retry.
    pub const UNKNOWN_LOG: Self = Self(4404);
    /// Reconnect with the cursor.
    pub const STALLED: Self = Self(4408);
    /// Stop: a newer generation has the agent.
    pub const SUPERSEDED: Self = Self(4409);
    /// Do not retry.
    pub const TOO_LARGE: Self = Self(4413);
    /// Wait `retry_after_ms`.
    pub const RATE_LIMITED: Self = Self(4429);
}

/// What went wrong, for programs and for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct ErrorDetail {
    /// The stable word.
    pub code: ErrorCode,
    /// What was wrong and what to do.
    pub message: String,
    /// When to come back, where that helps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
}

impl ErrorDetail {
    /// A code with its explanation.
    #[must_use]
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), retry_after_ms: None }
    }
}

/// The body of every HTTP answer that is an error: `{"error": {"code", "message"}}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct ErrorBody {
    /// What went wrong.
    pub error: ErrorDetail,
}

impl ErrorBody {
    /// What is said by an answer with this status and body, if it is in a relay's own words: whoever stands before a relay, and
    /// says 401 or 403 while what is behind it is being changed, has others.
    #[must_use]
    pub fn of_answer(status: u16, body: &[u8]) -> Option<ErrorDetail> {
        let Self { error } = serde_json::from_slice(body).ok()?;
        (error.code.http_status() == status).then_some(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [ErrorCode; 18] = [
        ErrorCode::BadRequest,
        ErrorCode::UnknownLog,
        ErrorCode::TooLarge,
        ErrorCode::Unauthenticated,
        ErrorCode::Forbidden,
        ErrorCode::Stalled,
        ErrorCode::Superseded,
        ErrorCode::RateLimited,
        ErrorCode::Draining,
        ErrorCode::AlreadyAnswered,
        ErrorCode::AgentOffline,
        ErrorCode::AgentError,
        ErrorCode::Unsupported,
        ErrorCode::Corrupt,
        ErrorCode::Conflict,
        ErrorCode::NotFound,
        ErrorCode::StoreFull,
        ErrorCode::Internal,
    ];

    #[test]
    fn the_table_of_the_document_is_the_one_of_the_code() {
        let document = include_str!("../../../docs/protocol.md");
        for code in ALL {
            let row = format!("| `{code}` | {} | {} |", code.http_status(), code.close().0);
            assert!(document.contains(&row), "docs/protocol.md §8 has no row {row}");
        }
    }

    #[test]
    fn a_code_has_the_same_word_for_people_and_on_the_wire() {
        for code in ALL {
            assert_eq!(serde_json::to_string(&code).unwrap(), format!("\"{code}\""));
        }
    }
}
