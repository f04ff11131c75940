//! Who may do what (§9): default deny.
//!
//! An [`Authority`] turns the credentials of a request into a [`Grant`]; the relay compares every route with it.
//! [`JwtAuthority`] knows the tokens that [`Keys`] signs; an embedder may put its own in front.

mod authority;
mod book;
mod claims;
mod keys;
mod lease;
mod tickets;

use std::collections::BTreeSet;

use protocol::{ErrorCode, LogId, TownId};

pub use authority::{Authority, Credentials, JwtAuthority};
pub use book::CredentialBook;
pub use claims::{Claims, ClientClaims, ServiceClaims, ShareClaims, TicketClaims, WrapperClaims};
pub use keys::{KeyError, Keys, Secret};
pub use lease::Lease;
pub use tickets::TicketBook;

/// What a credential is good for.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Grant {
    /// Who it was given to, for logs: `operator`, `wrapper a1 g3`, `ticket`, …
    pub subject: String,
    /// The town it belongs to.
    pub town: TownId,
    /// The logs it reaches.
    pub logs: LogScope,
    /// What may be done with them.
    pub capabilities: BTreeSet<Capability>,
    /// The generation whose events it may bring in, if it has [`Capability::Ingest`]; `None` is any.
    pub generation: Option<u64>,
    /// The id of the user token that it comes of, if it comes of one. Tickets and tokens that are made of it do too.
    pub user: Option<String>,
    /// How long it counts: a stream ends with it.
    pub lease: Lease,
}

impl Grant {
    /// A grant for these logs of a town, for as long as the service runs, and of no user token.
    #[must_use]
    pub fn new(
        subject: impl Into<String>,
        town: TownId,
        logs: LogScope,
        capabilities: impl Into<BTreeSet<Capability>>,
    ) -> Self {
        Self {
            subject: subject.into(),
            town,
            logs,
            capabilities: capabilities.into(),
            generation: None,
            user: None,
            lease: Lease::default(),
        }
    }

    /// Whether this reaches `log` with `capability`. No journal but that of its own town is reached.
    #[must_use]
    pub fn allows(&self, capability: Capability, log: &LogId) -> bool {
        let own = log.town().is_none_or(|town| *town == self.town);
        own && self.has(capability) && self.logs.contains(log)
    }

    /// Whether this has `capability` on any log at all.
    #[must_use]
    pub fn has(&self, capability: Capability) -> bool {
        self.capabilities.contains(&capability)
    }
}

/// The logs a credential reaches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogScope {
    /// Every one.
    All,
    /// These.
    Only(BTreeSet<LogId>),
}

impl LogScope {
    /// Whether it reaches this log.
    #[must_use]
    pub fn contains(&self, log: &LogId) -> bool {
        match self {
            Self::All => true,
            Self::Only(logs) => logs.contains(log),
        }
    }
}

/// What may be done with a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Capability {
    /// Read its events.
    Read,
    /// Send its agent commands.
    Steer,
    /// Bring in its agent's events.
    Ingest,
    /// Append without a wrapper, remove it.
    Admin,
}

/// Why credentials are no good. The text names no part of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AuthError {
    /// There are none.
    #[error(
        "credentials are missing: send `Authorization: Bearer <token>`, or `ticket=<ticket>` on a stream"
    )]
    Missing,
    /// They are of no kind that is known here, or their signature is wrong.
    #[error("the credentials are not valid")]
    Invalid,
    /// They were good once.
    #[error("the credentials have expired")]
    Expired,
    /// A ticket opens one stream, and it did.
    #[error("the ticket has been used: each opens one stream, get another")]
    Used,
    /// They were taken back.
    #[error("the credentials were revoked, or have expired")]
    Revoked,
    /// Whether they were taken back is not known.
    #[error("the journal of the town, which says which credentials count, has not been read yet: try again")]
    NoJournal,
    /// The ticket was made for a page of another origin.
    #[error("the ticket is bound to another origin")]
    WrongOrigin,
    /// They are of another town than this relay serves.
    #[error("the credentials are of another town than this relay serves (--town)")]
    ForeignTown,
    /// Too many tickets of the town are outstanding.
    #[error("the town has too many unused tickets: use those, or wait until they expire")]
    TooManyTickets,
}

impl AuthError {
    /// The word to answer with (§8).
    #[must_use]
    pub fn code(self) -> ErrorCode {
        match self {
            Self::Missing | Self::Invalid | Self::Expired | Self::Used | Self::Revoked => {
                ErrorCode::Unauthenticated
            }
            Self::WrongOrigin | Self::ForeignTown => ErrorCode::Forbidden,
            Self::TooManyTickets => ErrorCode::RateLimited,
            Self::NoJournal => ErrorCode::Draining,
        }
    }
}

#[cfg(test)]
mod tests;
