//! What a client shows to be let in (§9).

use std::{fmt, future::Future, sync::Arc};

use async_trait::async_trait;
use protocol::LogId;

/// A secret: an operator, user or service token, or a ticket. Its `Debug` says nothing, and it cannot be serialised.
#[derive(Clone)]
pub struct Token(Arc<str>);

impl Token {
    /// A token of this text, without the white space around it (as read from a file).
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self(text.trim().into())
    }

    /// The secret itself, for the one place that sends it.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

/// Why no ticket, or no token, could be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TicketError {
    /// Whoever issues them could not be asked just now: it is asked again after a wait.
    #[error("no credentials could be had just now")]
    Unavailable {
        /// What went wrong.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Whoever issues them refused: it is not asked again.
    #[error("no credentials are issued: {reason}")]
    Refused {
        /// Why.
        reason: String,
    },
}

/// Issues stream tickets: one for each connection, since a ticket opens one stream only (§9).
///
/// A closure from [`LogId`] to a future of a ticket is one.
#[async_trait]
pub trait TicketSource: Send + Sync + 'static {
    /// A fresh ticket that opens a stream of this log.
    ///
    /// # Errors
    /// [`TicketError::Unavailable`] when asking again may help, [`TicketError::Refused`] when not.
    async fn ticket(&self, log: &LogId) -> Result<Token, TicketError>;
}

#[async_trait]
impl<F, T> TicketSource for F
where
    F: Fn(LogId) -> T + Send + Sync + 'static,
    T: Future<Output = Result<Token, TicketError>> + Send,
{
    async fn ticket(&self, log: &LogId) -> Result<Token, TicketError> {
        self(log.clone()).await
    }
}

/// Issues bearer tokens that end: asked before every request and every connection, so it keeps the one it has for as
/// long as that is good.
///
/// A closure from nothing to a future of a token is one.
#[async_trait]
pub trait TokenSource: Send + Sync + 'static {
    /// A token that is good by now.
    ///
    /// # Errors
    /// [`TicketError::Unavailable`] when asking again may help, [`TicketError::Refused`] when not.
    async fn token(&self) -> Result<Token, TicketError>;
}

#[async_trait]
impl<F, T> TokenSource for F
where
    F: Fn() -> T + Send + Sync + 'static,
    T: Future<Output = Result<Token, TicketError>> + Send,
{
    async fn token(&self) -> Result<Token, TicketError> {
        self().await
    }
}

/// What a [`Client`](super::Client) shows: a bearer token for everything, and tickets for streams if there is a source.
#[derive(Clone, Default)]
pub struct Credentials {
    bearer: Bearer,
    tickets: Option<Arc<dyn TicketSource>>,
}

#[derive(Clone, Default)]
enum Bearer {
    #[default]
    None,
    Lasting(Token),
    Renewed(Arc<dyn TokenSource>),
}

impl Credentials {
    /// Nothing, for a relay that lets everybody in.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// A token, sent as `Authorization: Bearer` with every request and every stream.
    #[must_use]
    pub fn bearer(token: Token) -> Self {
        Self { bearer: Bearer::Lasting(token), tickets: None }
    }

    /// A token of this source, asked for anew with every request and every stream, sent as [`Self::bearer`] does.
    #[must_use]
    pub fn renewed(source: impl TokenSource) -> Self {
        Self { bearer: Bearer::Renewed(Arc::new(source)), tickets: None }
    }

    /// Streams are opened with a ticket of this source each.
    #[must_use]
    pub fn with_tickets(mut self, source: impl TicketSource) -> Self {
        self.tickets = Some(Arc::new(source));
        self
    }

    pub(super) async fn token(&self) -> Result<Option<Token>, TicketError> {
        match &self.bearer {
            Bearer::None => Ok(None),
            Bearer::Lasting(token) => Ok(Some(token.clone())),
            Bearer::Renewed(source) => source.token().await.map(Some),
        }
    }

    pub(super) fn tickets(&self) -> Option<&dyn TicketSource> {
        self.tickets.as_deref()
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("bearer", &!matches!(self.bearer, Bearer::None))
            .field("tickets", &self.tickets.is_some())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn no_secret_is_printed() {
        let credentials = Credentials::bearer(Token::new(" s3cret\n"));
        assert_eq!(credentials.token().await.expect("had").expect("given").reveal(), "s3cret");
        assert!(!format!("{credentials:?}").contains("s3cret"));
    }
}
