//! The tokens by which a town's relay knows this client: the worker issues them.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use protocol::TownId;
use relay::client::{Client, TicketError, Token, Verb};
use serde::Deserialize;
use tokio::time::Instant;

use super::{Exit, Refusal, api, exit_of};

/// How long one token is used: far less than it is good for, whatever the clocks of the two machines say.
const USED_FOR: Duration = Duration::from_secs(60);

/// Keeps a token for a minute, and asks the worker for the next one.
pub(super) struct RelayTokens {
    worker: Client,
    town: TownId,
    held: Mutex<Option<(Token, Instant)>>,
}

/// Where the relay is, and what to show it.
#[derive(Deserialize)]
struct Answer {
    /// Absent where the relay is the worker itself.
    url: Option<String>,
    token: String,
}

impl RelayTokens {
    pub(super) fn new(worker: Client, town: TownId) -> Self {
        Self { worker, town, held: Mutex::default() }
    }

    /// Gets a token, and says where the relay is, if that is not the worker itself.
    pub(super) async fn renew(&self) -> anyhow::Result<Option<String>> {
        let answer = api(&self.worker, &self.town, Verb::Get, "relay", None).await?;
        let Answer { url, token } = serde_json::from_value(answer)
            .map_err(|_| Refusal::because(Exit::Failed, "the server does not say where its relay is"))?;
        let until = Instant::now() + USED_FOR;
        *self.held.lock().unwrap_or_else(PoisonError::into_inner) = Some((Token::new(&token), until));
        Ok(url)
    }

    /// A token that is good by now.
    pub(super) async fn token(&self) -> Result<Token, TicketError> {
        if let Some(token) = self.held() {
            return Ok(token);
        }
        match self.renew().await {
            Ok(_) => self.held().ok_or_else(|| TicketError::Refused { reason: "there is none".to_owned() }),
            Err(error) if matches!(exit_of(&error), Exit::NotAllowed | Exit::NotFound) => {
                Err(TicketError::Refused { reason: error.to_string() })
            }
            Err(error) => Err(TicketError::Unavailable { source: error.into() }),
        }
    }

    fn held(&self) -> Option<Token> {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.as_ref().filter(|(_, until)| Instant::now() < *until).map(|(token, _)| token.clone())
    }
}
