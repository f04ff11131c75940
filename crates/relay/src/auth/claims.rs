//! What the tokens say (§9). Every token names its kind in `scope`, so that none passes for another.

use std::collections::BTreeSet;

use protocol::{AgentId, LogId, Timestamp, TownId};
use serde::{Deserialize, Serialize};

use super::{Capability, Grant, Lease, LogScope};

/// The payload of a signed token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "scope", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Claims {
    /// Of a wrapper.
    Ingest(WrapperClaims),
    /// Of one stream.
    Stream(TicketClaims),
    /// Of another process of the town's control plane.
    Service(ServiceClaims),
    /// Of somebody whom the town's worker sent to the relay.
    Client(ClientClaims),
    /// Of a link to one log.
    Share(ShareClaims),
}

/// A wrapper token: brings in one agent's events, of one generation, and reads its log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WrapperClaims {
    /// The town.
    pub town: TownId,
    /// The agent.
    pub agent: AgentId,
    /// The generation of the wrapper.
    pub generation: u64,
    /// Not good from this time on.
    #[serde(rename = "exp", with = "numeric_date")]
    pub expires: Timestamp,
}

/// A stream ticket: opens one stream, once, within a minute.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TicketClaims {
    /// Its name: what is consumed.
    pub jti: String,
    /// The town.
    pub town: TownId,
    /// The logs it may read.
    pub logs: BTreeSet<LogId>,
    /// What it may do with them: at most read and steer.
    pub capabilities: BTreeSet<Capability>,
    /// The user token that it was got with, by id: it ends with that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The origin of the page that may use it; any, without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<String>,
    /// When it was made, to the millisecond.
    pub issued_ms: i64,
    /// Not good from this time on.
    #[serde(rename = "exp", with = "numeric_date")]
    pub expires: Timestamp,
}

/// A service token: everything in its town.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceClaims {
    /// The town.
    pub town: TownId,
    /// Which process it was made for, for logs.
    pub service: String,
    /// Not good from this time on.
    #[serde(rename = "exp", with = "numeric_date")]
    pub expires: Timestamp,
}

/// A client token: what its holder may do in the town, shown to the town's relay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientClaims {
    /// The town.
    pub town: TownId,
    /// Whom it was made for, for logs.
    pub subject: String,
    /// What the holder may do: at most read, steer and admin.
    pub capabilities: BTreeSet<Capability>,
    /// The user token that it was got with, by id: it ends with that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Not good from this time on.
    #[serde(rename = "exp", with = "numeric_date")]
    pub expires: Timestamp,
}

/// A share link: reads one log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShareClaims {
    /// Its name: what is revoked.
    pub jti: String,
    /// The town.
    pub town: TownId,
    /// The log.
    pub log: LogId,
    /// Not good from this time on.
    #[serde(rename = "exp", with = "numeric_date")]
    pub expires: Timestamp,
}

impl Claims {
    /// When the token ends.
    #[must_use]
    pub fn expires(&self) -> Timestamp {
        match self {
            Self::Ingest(claims) => claims.expires,
            Self::Stream(claims) => claims.expires,
            Self::Service(claims) => claims.expires,
            Self::Client(claims) => claims.expires,
            Self::Share(claims) => claims.expires,
        }
    }

    /// The town that it belongs to.
    #[must_use]
    pub fn town(&self) -> &TownId {
        match self {
            Self::Ingest(claims) => &claims.town,
            Self::Stream(claims) => &claims.town,
            Self::Service(claims) => &claims.town,
            Self::Client(claims) => &claims.town,
            Self::Share(claims) => &claims.town,
        }
    }

    /// What the token is good for, and how long, once its signature, its time and its use have been checked.
    pub(super) fn into_grant(self, lease: Lease) -> Grant {
        match self {
            Self::Ingest(claims) => Grant {
                subject: format!("wrapper {} g{}", claims.agent, claims.generation),
                town: claims.town,
                logs: LogScope::Only([LogId::Agent(claims.agent)].into()),
                capabilities: [Capability::Read, Capability::Ingest].into(),
                generation: Some(claims.generation),
                user: None,
                lease,
            },
            Self::Stream(claims) => Grant {
                subject: "ticket".into(),
                town: claims.town,
                logs: LogScope::Only(claims.logs),
                // A ticket is for watching and steering, whatever its maker wrote into it.
                capabilities: &claims.capabilities & &[Capability::Read, Capability::Steer].into(),
                generation: None,
                user: claims.user,
                lease,
            },
            Self::Service(claims) => Grant {
                subject: format!("service {}", claims.service),
                town: claims.town,
                logs: LogScope::All,
                capabilities: [Capability::Read, Capability::Steer, Capability::Admin].into(),
                generation: None,
                user: None,
                lease,
            },
            Self::Client(claims) => Grant {
                subject: claims.subject,
                town: claims.town,
                logs: LogScope::All,
                // No token of this kind brings in events, whatever its maker wrote into it.
                capabilities: &claims.capabilities
                    & &[Capability::Read, Capability::Steer, Capability::Admin].into(),
                generation: None,
                user: claims.user,
                lease,
            },
            Self::Share(claims) => Grant {
                subject: "share".into(),
                town: claims.town,
                logs: LogScope::Only([claims.log].into()),
                capabilities: [Capability::Read].into(),
                generation: None,
                user: None,
                lease,
            },
        }
    }
}

/// RFC 7519 §2 `NumericDate`, in whole seconds, rounded up: a token never ends before the time it was made for.
mod numeric_date {
    use protocol::Timestamp;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(time: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_i64(time.unix_ms().saturating_add(999).div_euclid(1000))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Timestamp, D::Error> {
        Ok(Timestamp::from_unix_ms(i64::deserialize(deserializer)?.saturating_mul(1000)))
    }
}
