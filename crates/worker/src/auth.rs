//! Who may do what on a worker (`docs/protocol.md` §9): default deny.

pub(crate) mod guard;
mod login;
pub(crate) mod operator;
mod sessions;

use std::sync::Arc;

use protocol::{Timestamp, TownId};
use relay::auth::{AuthError, Authority, Capability, Credentials, Grant, JwtAuthority, Lease, LogScope};

pub(crate) use login::{LoginLimiter, LoginLinks};
pub use operator::{OperatorTokenError, operator_token};
pub(crate) use sessions::Sessions;

use crate::digest::Digest;

/// Name of the cookie that a browser's session is in.
pub const SESSION_COOKIE: &str = "gastown_session";

/// Knows every credential of a town: the operator's token, the sessions of its browsers, and every token that the
/// town's key signed (tickets, wrapper, service and share tokens).
#[derive(Debug)]
pub struct WorkerAuthority {
    town: TownId,
    operator: Digest,
    sessions: Arc<Sessions>,
    signed: JwtAuthority,
}

impl WorkerAuthority {
    pub(crate) fn new(town: TownId, operator: Digest, sessions: Arc<Sessions>, signed: JwtAuthority) -> Self {
        Self { town, operator, sessions, signed }
    }

    /// Whether this is the operator's token.
    pub(crate) fn is_operator(&self, token: &str) -> bool {
        Digest::of(token).matches(&self.operator)
    }

    fn operator(&self) -> Grant {
        Grant {
            subject: "operator".into(),
            town: self.town.clone(),
            logs: LogScope::All,
            capabilities: [Capability::Read, Capability::Steer, Capability::Admin].into(),
            generation: None,
            lease: Lease::default(),
        }
    }
}

impl Authority for WorkerAuthority {
    fn authenticate(&self, credentials: &Credentials<'_>, now: Timestamp) -> Result<Grant, AuthError> {
        // What is shown on purpose counts; the cookie, which a browser adds by itself, only where nothing else is shown.
        let grant = match (credentials.bearer, credentials.ticket, credentials.cookie) {
            (Some(token), _, _) if self.is_operator(token) => self.operator(),
            (Some(_), _, _) | (None, Some(_), _) => self.signed.authenticate(credentials, now)?,
            (None, None, Some(cookies)) => {
                let session = session_cookie(cookies).ok_or(AuthError::Missing)?;
                if !self.sessions.is_valid(session, now) {
                    return Err(AuthError::Expired);
                }
                self.operator()
            }
            (None, None, None) => return Err(AuthError::Missing),
        };
        // A key may be shared by the towns of one relay; what is signed for another town opens nothing here.
        if grant.town == self.town { Ok(grant) } else { Err(AuthError::Invalid) }
    }
}

/// The session in a `Cookie` header (RFC 6265 §4.2.1).
pub(crate) fn session_cookie(cookies: &str) -> Option<&str> {
    cookies.split(';').find_map(|pair| {
        let (name, value) = pair.trim().split_once('=')?;
        (name == SESSION_COOKIE).then_some(value)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_session_is_found_among_other_cookies() {
        assert_eq!(session_cookie("theme=dark; gastown_session=abc; x=y"), Some("abc"));
        assert_eq!(session_cookie("xgastown_session=abc"), None);
        assert_eq!(session_cookie(""), None);
    }
}
