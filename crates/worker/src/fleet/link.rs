//! A wrapper that only its link tells of: its process cannot be seen from here.

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use futures_util::{StreamExt as _, stream::BoxStream};
use protocol::{
    AgentId, Command, LogId,
    frame::{StartAt, WrapperPresence},
};
use relay::{Delivery, RelayApi};
use tokio::time::Instant;
use town::WrapperExit;

use crate::WrapperProcess;

/// The link of one agent's wrapper, as the relay sees it.
pub(super) struct Link {
    relay: Arc<dyn RelayApi>,
    agent: AgentId,
    deliveries: BoxStream<'static, Delivery>,
    /// How long it may be away before it counts as gone.
    grace: Duration,
    /// Since when it is away.
    away_since: Option<Instant>,
}

impl Link {
    pub(super) fn new(relay: Arc<dyn RelayApi>, agent: AgentId, grace: Duration) -> Self {
        let deliveries = relay.follow(LogId::Agent(agent.clone()), Some(StartAt::Head));
        Self { relay, agent, deliveries, grace, away_since: None }
    }

    /// Waits for it, as long as its grace; whether it is up, or the wrapper's process, if that can be seen, has ended.
    pub(super) async fn comes_up_or_ends(&mut self, process: &mut Option<Box<dyn WrapperProcess>>) -> bool {
        let grace = self.grace;
        let end = async {
            match process {
                Some(process) => _ = process.wait().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.up() => true,
            () = end => true,
            () = tokio::time::sleep(grace) => false,
        }
    }

    async fn up(&mut self) {
        // Followed before it is asked for, so that nothing falls between.
        let presence = self.relay.clone().presence(&self.agent.clone()).await;
        if presence.is_ok_and(|presence| presence.wrapper == WrapperPresence::Connected) {
            return;
        }
        while next_presence(&mut self.deliveries).await != WrapperPresence::Connected {}
    }
}

#[async_trait]
impl WrapperProcess for Link {
    async fn wait(&mut self) -> WrapperExit {
        loop {
            let (away_since, grace) = (self.away_since, self.grace);
            let away_too_long = async move {
                match away_since {
                    Some(since) => tokio::time::sleep_until(since + grace).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = away_too_long => {
                    return WrapperExit::Crashed { reason: "its link was lost and did not come back".into() };
                }
                presence = next_presence(&mut self.deliveries) => {
                    self.away_since = match presence {
                        WrapperPresence::Connected => None,
                        WrapperPresence::Disconnected => Some(away_since.unwrap_or_else(Instant::now)),
                    };
                }
            }
        }
    }

    async fn terminate(&mut self) {
        // One that was told to end and goes away does not come back.
        self.grace = Duration::ZERO;
        let id = crate::worker::fresh_command_id();
        let result = self.relay.command(&self.agent, id, Command::Stop { drain: false }).await;
        if let Err(error) = result {
            tracing::warn!(agent = %self.agent, error = &error as &dyn std::error::Error, "it cannot be told to stop");
        }
    }

    async fn kill(&mut self) {
        // Out of reach: the next generation fences it, and its link tells it so.
        self.away_since.get_or_insert_with(Instant::now);
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link")
            .field("agent", &self.agent)
            .field("away_since", &self.away_since)
            .finish_non_exhaustive()
    }
}

/// The next change of the link; never comes once the relay is gone, since that says nothing of the wrapper.
async fn next_presence(deliveries: &mut BoxStream<'static, Delivery>) -> WrapperPresence {
    loop {
        match deliveries.next().await {
            Some(Delivery::Presence { wrapper, .. }) => return wrapper,
            Some(_) => {}
            None => return std::future::pending().await,
        }
    }
}
