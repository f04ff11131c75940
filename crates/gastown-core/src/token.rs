//! Tokens for people and programs that are not the operator.

use protocol::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{Rejection, limits::TOKEN_NAME_BYTES};

/// A user token (`docs/protocol.md` §9). The journal has its id and the hash of its secret; the secret is shown to
/// whoever made it, and is nowhere kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserToken {
    /// Its id: no secret, and never another token's.
    pub token: String,
    /// Whose it is, or what it is for: unique among those that are good.
    pub name: String,
    /// What it is good for.
    pub scope: Scope,
    /// What it is known by: the hash of its secret, in whatever form the worker compares it in.
    pub digest: String,
    /// When it was made.
    pub issued: Timestamp,
    /// Not good from this time on; good for ever, without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<Timestamp>,
}

impl UserToken {
    /// Whether its time is not over at `now`.
    #[must_use]
    pub fn is_good(&self, now: Timestamp) -> bool {
        self.expires.is_none_or(|expires| expires > now)
    }
}

crate::agent::words!(
    /// What a user token is good for. Each has what those before it have.
    Scope, "scope", "read, steer, admin" {
        /// To see every agent of the town.
        Read = "read",
        /// To prompt them, answer them and end their turns.
        Steer = "steer",
        /// To do whatever the operator can.
        Admin = "admin",
    }
);

/// Whether this can be the name of a token: it stands in addresses, in the journal and in front of people.
pub(crate) fn check_name(name: &str) -> Result<(), Rejection> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "._-@".contains(c);
    let is_name = (1..=TOKEN_NAME_BYTES).contains(&name.len())
        && name.chars().all(is_plain)
        && name.starts_with(|first: char| first.is_ascii_alphanumeric());
    if is_name { Ok(()) } else { Err(Rejection::BadTokenName { name: name.chars().take(80).collect() }) }
}
