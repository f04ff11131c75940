//! From credentials to a grant.

use std::{fmt, sync::Arc};

use protocol::{Timestamp, TownId};

use super::{AuthError, Claims, CredentialBook, Grant, Keys, Lease, TicketBook};

/// What a request brought along.
#[derive(Clone, Copy, Default)]
pub struct Credentials<'a> {
    /// Of `Authorization: Bearer`.
    pub bearer: Option<&'a str>,
    /// Of the query `ticket=`, on routes that open a stream.
    pub ticket: Option<&'a str>,
    /// The whole `Cookie` header.
    pub cookie: Option<&'a str>,
    /// The `Origin` header.
    pub origin: Option<&'a str>,
}

impl fmt::Debug for Credentials<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("bearer", &self.bearer.map(|_| "…"))
            .field("ticket", &self.ticket.map(|_| "…"))
            .field("cookie", &self.cookie.map(|_| "…"))
            .field("origin", &self.origin)
            .finish()
    }
}

/// Decides what credentials are good for.
///
/// # Clauses
/// 1. What is not known is refused.
/// 2. Secrets are compared in constant time and appear in no error.
/// 3. A ticket that is accepted has been consumed: of concurrent calls with one ticket, one succeeds.
/// 4. It does not block: it is called on the runtime's threads.
pub trait Authority: Send + Sync + fmt::Debug + 'static {
    /// What these credentials are good for at `now`.
    ///
    /// # Errors
    /// When they are good for nothing.
    fn authenticate(&self, credentials: &Credentials<'_>, now: Timestamp) -> Result<Grant, AuthError>;
}

/// Knows every token that its [`Keys`] signed: wrapper, service, client and share tokens as bearer, tickets and share
/// tokens in the query. It knows no cookie.
#[derive(Debug, Clone)]
pub struct JwtAuthority {
    keys: Keys,
    tickets: Arc<TicketBook>,
    book: Arc<CredentialBook>,
    /// The only town, if there is one.
    town: Option<TownId>,
}

impl JwtAuthority {
    /// Of these keys; tickets are consumed in this book. Without [`Self::with_book`] no share link is good,
    /// and nothing that was got with a user token.
    #[must_use]
    pub fn new(keys: Keys, tickets: Arc<TicketBook>) -> Self {
        Self { keys, tickets, book: Arc::default(), town: None }
    }

    /// For this town alone. Logs of agents carry no town in their names, so whoever has tokens of one town reaches every agent's
    /// log: towns that share a key are kept apart by this, each with a relay of its own.
    #[must_use]
    pub fn with_town(mut self, town: TownId) -> Self {
        self.town = Some(town);
        self
    }

    /// With what this book knows, which somebody lets follow its journals ([`CredentialBook::follow`]).
    #[must_use]
    pub fn with_book(mut self, book: Arc<CredentialBook>) -> Self {
        self.book = book;
        self
    }

    /// How long what comes of a user token counts, if it comes of one.
    fn lease(&self, town: &TownId, user: Option<&str>, now: Timestamp) -> Result<Lease, AuthError> {
        user.map_or(Ok(Lease::default()), |token| self.book.user_lease(town, token, now))
    }
}

impl Authority for JwtAuthority {
    fn authenticate(&self, credentials: &Credentials<'_>, now: Timestamp) -> Result<Grant, AuthError> {
        let (token, is_ticket) = match (credentials.bearer, credentials.ticket) {
            (Some(token), _) => (token, false),
            (None, Some(ticket)) => (ticket, true),
            (None, None) => return Err(AuthError::Missing),
        };
        let claims = self.keys.verify(token)?;
        if claims.expires() <= now {
            return Err(AuthError::Expired);
        }
        if self.town.as_ref().is_some_and(|town| town != claims.town()) {
            return Err(AuthError::ForeignTown);
        }
        // Whoever brings its journal here shows a token of the town first.
        self.book.attend(claims.town());
        let lease = match &claims {
            // It opens a stream: of the requests without one, none may use it up, nor do more by it.
            Claims::Stream(_) if !is_ticket => return Err(AuthError::Invalid),
            Claims::Stream(ticket) => {
                let lease = self.lease(&ticket.town, ticket.user.as_deref(), now)?;
                self.tickets.consume(ticket, credentials.origin, now)?;
                lease
            }
            // A share link is meant to be a link: its token may stand in the query.
            Claims::Share(share) => self.book.share_lease(share, now)?,
            Claims::Ingest(_) | Claims::Service(_) | Claims::Client(_) if is_ticket => {
                return Err(AuthError::Invalid);
            }
            Claims::Client(client) => self.lease(&client.town, client.user.as_deref(), now)?,
            Claims::Ingest(_) | Claims::Service(_) => Lease::default(),
        };
        Ok(claims.into_grant(lease))
    }
}
