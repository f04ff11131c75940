//! Who may do what on a worker (`docs/protocol.md` §9): default deny.

pub(crate) mod guard;
mod login;
pub(crate) mod operator;
mod sessions;
pub(crate) mod user_token;

use std::{collections::BTreeSet, sync::Arc};

use protocol::{Timestamp, TownId};
use relay::auth::{
    AuthError, Authority, Capability, CredentialBook, Credentials, Grant, JwtAuthority, LogScope,
};
use tokio::sync::watch;
use town::{Scope, Town};

pub(crate) use login::{LoginLimiter, LoginLinks};
pub use operator::{OperatorTokenError, operator_token};
pub(crate) use sessions::{Holder, Sessions};

use crate::digest::Digest;

/// Name of the cookie that a browser's session is in.
pub const SESSION_COOKIE: &str = "gastown_session";

/// Knows every credential of a town: the operator's token, the tokens of its users, the sessions of its browsers, and
/// every token that the town's key signed (tickets, wrapper, service, client and share tokens).
#[derive(Debug)]
pub struct WorkerAuthority {
    pub(crate) id: TownId,
    pub(crate) operator: Digest,
    /// Has the users' tokens.
    pub(crate) town: watch::Receiver<Arc<Town>>,
    /// Ends what a token of a user opened.
    pub(crate) book: Arc<CredentialBook>,
    pub(crate) sessions: Arc<Sessions>,
    pub(crate) signed: JwtAuthority,
}

impl WorkerAuthority {
    /// Whose token this is.
    pub(crate) fn holder(&self, token: &str, now: Timestamp) -> Result<Holder, AuthError> {
        if Digest::of(token).matches(&self.operator) {
            return Ok(Holder::Operator);
        }
        let id = user_token::id_of(token).ok_or(AuthError::Invalid)?;
        let town = self.town.borrow();
        let kept = town.user_token(id, now).ok_or(AuthError::Revoked)?;
        if user_token::is(kept, token) { Ok(Holder::User(id.to_owned())) } else { Err(AuthError::Invalid) }
    }

    fn grant(&self, holder: Holder, now: Timestamp) -> Result<Grant, AuthError> {
        let of =
            |subject: &str, scope| Grant::new(subject, self.id.clone(), LogScope::All, capabilities(scope));
        let Holder::User(id) = holder else { return Ok(of("operator", Scope::Admin)) };
        let town = self.town.borrow();
        let token = town.user_token(&id, now).ok_or(AuthError::Revoked)?;
        let mut grant = of(&format!("user {}", token.name), token.scope);
        grant.lease = self.book.user_lease(&self.id, &id, now)?;
        grant.user = Some(id);
        Ok(grant)
    }
}

impl Authority for WorkerAuthority {
    fn authenticate(&self, credentials: &Credentials<'_>, now: Timestamp) -> Result<Grant, AuthError> {
        // What is shown on purpose counts; the cookie, which a browser adds by itself, only where nothing else is shown.
        let grant = match (credentials.bearer, credentials.ticket, credentials.cookie) {
            (Some(token), _, _) => match self.holder(token, now) {
                Ok(holder) => self.grant(holder, now)?,
                // A signed one never has the form of another.
                Err(AuthError::Invalid) => self.signed.authenticate(credentials, now)?,
                Err(error) => return Err(error),
            },
            (None, Some(_), _) => self.signed.authenticate(credentials, now)?,
            (None, None, Some(cookies)) => {
                let session = session_cookie(cookies).ok_or(AuthError::Missing)?;
                self.grant(self.sessions.holder(session, now).ok_or(AuthError::Expired)?, now)?
            }
            (None, None, None) => return Err(AuthError::Missing),
        };
        // A key may be shared by the towns of one relay; what is signed for another town opens nothing here.
        if grant.town == self.id { Ok(grant) } else { Err(AuthError::Invalid) }
    }
}

/// What a scope is good for. Each has what those before it have.
fn capabilities(scope: Scope) -> BTreeSet<Capability> {
    let all = [Capability::Read, Capability::Steer, Capability::Admin];
    let count = match scope {
        Scope::Admin => 3,
        Scope::Steer => 2,
        // A scope of a later version is good for what all are.
        Scope::Read | _ => 1,
    };
    all.into_iter().take(count).collect()
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
