//! Links that show one agent's log to whoever has them.

use protocol::{AgentId, Timestamp};
use serde::{Deserialize, Serialize};

/// A share link (`docs/protocol.md` §9). The journal has its id; the secret is the signature of the token that names
/// it, and is nowhere kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    /// Its id.
    pub share: String,
    /// Whose log it shows.
    pub agent: AgentId,
    /// When it was made.
    pub issued: Timestamp,
    /// Not good from this time on.
    pub expires: Timestamp,
    /// What it is for, in the words of whoever made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
}
