//! Why a log is followed no longer, and why a client cannot be made.

use protocol::LogId;

use super::TicketError;

/// Why a [`Follow`](super::Follow) ended. What a reconnect may mend does not end it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FollowError {
    /// The credentials were refused, fresh ones too (4401).
    #[error("the relay does not accept the credentials for {log}: {message}")]
    Unauthenticated {
        /// The log.
        log: LogId,
        /// What the relay says.
        message: String,
    },
    /// The credentials do not reach this log (4403).
    #[error("the credentials do not reach {log}: {message}")]
    Forbidden {
        /// The log.
        log: LogId,
        /// What the relay says.
        message: String,
    },
    /// No such log (4404).
    #[error("there is no log {log}")]
    UnknownLog {
        /// The log.
        log: LogId,
    },
    /// Another connection has taken this one's place (4409).
    #[error("another connection has taken over {log}")]
    Superseded {
        /// The log.
        log: LogId,
    },
    /// The relay and this client do not understand each other (4400, 4413).
    #[error("the relay refused the subscription to {log} ({code}): {message}")]
    Refused {
        /// The log.
        log: LogId,
        /// The close code.
        code: u16,
        /// What the relay says.
        message: String,
    },
    /// No ticket is issued.
    #[error("{log} cannot be followed")]
    NoTicket {
        /// The log.
        log: LogId,
        /// Why.
        #[source]
        source: TicketError,
    },
}

/// Why a client cannot be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// Not a URL of a relay.
    #[error("{url:?} is not the URL of a relay: it must be http://host[:port] or https://host[:port]")]
    Url {
        /// What was given.
        url: String,
    },
    /// TLS cannot be set up: the system's root certificates cannot be read.
    #[error("TLS cannot be set up")]
    Tls {
        /// What the TLS library says.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}
