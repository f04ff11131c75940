//! What the control plane needs of a relay, in process or over the network.

use async_trait::async_trait;
use futures_util::stream::BoxStream;
use protocol::{
    AgentId, Command, CommandId, CommandResult, Epoch, ErrorCode, ErrorDetail, LogId, NewEvent, Seq,
    Timestamp,
    config::SealedConfig,
    frame::{StartAt, WrapperPresence, WrapperState},
    search::{Found, Search},
};

use crate::Delivery;

/// A relay, as the control plane sees it: implemented by `server::Relay` in process and by `client::Client` over the
/// network.
#[async_trait]
pub trait RelayApi: Send + Sync {
    /// Follows a log: what is kept after `from` (everything, without one), then what comes. The stream ends only when
    /// the relay does; it holds no more than one page of events, however slowly it is read. A log that is not there yet
    /// is waited for.
    fn follow(&self, log: LogId, from: Option<StartAt>) -> BoxStream<'static, Delivery>;

    /// Steers an agent (§7), at most once per id: a known id gets the result it had.
    ///
    /// # Errors
    /// When the relay could not be asked. What the relay or the agent refuses is a [`CommandResult`] that is not `ok`.
    async fn command(
        &self,
        agent: &AgentId,
        id: CommandId,
        command: Command,
    ) -> Result<CommandResult, ApiError>;

    /// Gives the agent's wrapper this config with its greeting and with every command from here on, instead of the one
    /// before. The relay keeps it in memory and shows it to nobody else.
    ///
    /// # Errors
    /// When the relay did not take it.
    async fn configure(&self, agent: &AgentId, config: SealedConfig) -> Result<(), ApiError>;

    /// Appends events that no wrapper numbered.
    ///
    /// # Errors
    /// When nothing was appended.
    async fn append(&self, log: &LogId, events: Vec<NewEvent>) -> Result<AppendedAt, ApiError>;

    /// Whether the agent's wrapper is connected, and what it last said of itself.
    ///
    /// # Errors
    /// When the relay could not be asked.
    async fn presence(&self, agent: &AgentId) -> Result<Presence, ApiError>;

    /// Removes a log with all that belongs to it.
    ///
    /// # Errors
    /// When it is still there.
    async fn remove_log(&self, log: &LogId) -> Result<(), ApiError>;

    /// Looks for texts in the logs (§4.4). A relay whose store cannot search refuses.
    ///
    /// # Errors
    /// When nothing was looked for.
    async fn search(&self, _search: &Search) -> Result<Found, ApiError> {
        Err(ApiError::Refused(ErrorDetail::new(ErrorCode::Unsupported, "this relay cannot search")))
    }
}

/// Where events came to lie.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct AppendedAt {
    /// The log's incarnation.
    pub epoch: Epoch,
    /// The head after the append.
    pub head: Seq,
}

/// What a relay knows of an agent's wrapper.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Presence {
    /// The wrapper's link.
    pub wrapper: WrapperPresence,
    /// Since when; the start of the relay, if no wrapper was ever connected.
    pub since: Timestamp,
    /// What the wrapper last said of itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<WrapperState>,
    /// When its agent last gave a sign of life.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_activity: Option<Timestamp>,
    /// The build of the wrapper that spoke last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The version of the protocol that it speaks. One that this relay does not speak was refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<u32>,
}

/// Why a relay did not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ApiError {
    /// It refused.
    #[error("the relay refused: {} ({})", .0.message, .0.code)]
    Refused(ErrorDetail),
    /// It could not be reached, or not be understood.
    #[error("the relay could not be asked to {doing}")]
    Unreachable {
        /// What it was to do.
        doing: &'static str,
        /// What went wrong.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl ApiError {
    /// The relay's word for it, if it answered.
    #[must_use]
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Refused(detail) => Some(detail.code),
            Self::Unreachable { .. } => None,
        }
    }

    /// Whether asking again later may help.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Refused(detail) => {
                let passing = [
                    ErrorCode::RateLimited,
                    ErrorCode::Draining,
                    ErrorCode::AgentOffline,
                    ErrorCode::StoreFull,
                ];
                passing.contains(&detail.code)
            }
            Self::Unreachable { .. } => true,
        }
    }
}
