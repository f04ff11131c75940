//! The ingest link (§6): the one WebSocket to the relay, held up for as long as the wrapper lives.

mod connection;
mod dial;
mod driver;
mod log;
mod machine;
#[cfg(test)]
mod testing;

use std::{fmt, sync::Arc, time::Duration};

use protocol::{
    AgentId, CloseCode, Command, CommandId, CommandResult, Timestamp, TownId,
    config::SealedConfig,
    frame::{RuntimeInfo, WrapperState},
};
use tokio::sync::{mpsc, watch};
use tokio_util::task::AbortOnDropHandle;

use crate::{
    Clock, Moment,
    metrics::{Lag, LagWatch},
    outbox::{Outbox, Progress},
};
use connection::Endpoint;
pub use dial::{Dial, Io};
use driver::{Driver, Input};
pub(crate) use log::{Log, Past};
use machine::{Identity, Machine};

/// Commands that the wrapper has not taken yet; more are refused as `rate_limited`.
const COMMANDS: usize = 64;
/// Words of the wrapper that the link has not taken yet; whoever says more waits.
const INPUTS: usize = 64;

/// What a link says of its wrapper, and where it goes.
#[derive(Debug, Clone)]
pub struct LinkConfig {
    /// The relay, as an http(s) or ws(s) URL.
    pub relay: String,
    /// The wrapper token.
    pub token: Token,
    /// The agent.
    pub agent: AgentId,
    /// Its town.
    pub town: TownId,
    /// This run's generation.
    pub generation: u64,
    /// What runs the agent.
    pub runtime: RuntimeInfo,
    /// Where the jitter of its waits comes from.
    pub seed: u64,
}

/// A wrapper token. Its `Debug` does not show it, and it cannot be serialised.
#[derive(Clone)]
pub struct Token(String);

impl Token {
    /// A token from its text.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

/// A command, by its id.
pub type Commanded = (CommandId, Command);

/// How a link is.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum LinkState {
    /// There is no connection; it is tried again for ever.
    Down {
        /// Since then.
        since: Moment,
    },
    /// The relay takes events.
    Live,
    /// The relay goes down; the link will come back.
    Draining,
    /// A newer generation has the agent. Final.
    Superseded,
    /// The relay refuses this wrapper. Final.
    Refused {
        /// With this close code (§8).
        code: CloseCode,
        /// What it said.
        message: String,
    },
}

impl LinkState {
    /// Its word: `down`, `live`, `draining`, `superseded`, `refused`.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Down { .. } => "down",
            Self::Live => "live",
            Self::Draining => "draining",
            Self::Superseded => "superseded",
            Self::Refused { .. } => "refused",
        }
    }
}

/// The handle of a link. Commands are its own to take: [`Link::commands`].
#[derive(Debug)]
pub struct Link {
    /// What the relay asks for, each id once. Answer each with [`LinkHandle::result`].
    pub commands: mpsc::Receiver<Commanded>,
    /// The resolved town config that the relay gave last, with its greeting or a command: that one is here before the command.
    pub config: watch::Receiver<Option<SealedConfig>>,
    handle: LinkHandle,
    task: AbortOnDropHandle<()>,
}

/// What may be said on a link. Cheap to clone.
#[derive(Debug, Clone)]
pub struct LinkHandle {
    state: watch::Receiver<LinkState>,
    inputs: mpsc::Sender<Input>,
    progress: watch::Receiver<Progress>,
    lag: Arc<Lag>,
}

/// Begins a link; it needs a tokio runtime. It connects by itself, and again whenever it broke.
///
/// # Errors
/// When the relay's URL is not understood.
pub fn spawn(config: LinkConfig, outbox: Outbox, clock: Clock) -> Result<Link, LinkError> {
    spawn_over(tcp(), config, outbox, clock)
}

/// The network of this machine.
pub(crate) fn tcp() -> Arc<dyn Dial> {
    Arc::new(dial::Tcp)
}

/// As [`spawn`], over another network than this machine's.
///
/// # Errors
/// When the relay's URL is not understood.
pub fn spawn_over(
    dial: Arc<dyn Dial>,
    config: LinkConfig,
    outbox: Outbox,
    clock: Clock,
) -> Result<Link, LinkError> {
    let LinkConfig { relay, token, agent, town, generation, runtime, seed } = config;
    let endpoint = Endpoint::of_link(&relay, token, dial)?;
    let producer = outbox.producer().clone();
    let identity = Identity { agent, town, producer, generation, runtime };
    let mut progress = outbox.progress();
    let machine = Machine::new(identity, seed, *progress.borrow_and_update(), clock.now());
    let (publish, state) = watch::channel(machine.state());
    let (deliver, commands) = mpsc::channel(COMMANDS);
    let (configure, config) = watch::channel(None);
    let (inputs, inbox) = mpsc::channel(INPUTS);
    let lag = LagWatch::new(*progress.borrow());
    let handle = LinkHandle { state, inputs, progress: progress.clone(), lag: lag.lag() };
    let driver = Driver {
        machine,
        endpoint,
        outbox,
        clock,
        inputs: inbox,
        commands: deliver,
        config: configure,
        state: publish,
        progress,
        lag,
    };
    let task = AbortOnDropHandle::new(tokio::spawn(driver.run()));
    Ok(Link { commands, config, handle, task })
}

/// Why a link cannot begin.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LinkError {
    /// The relay's URL is not understood.
    #[error("{url:?} is not the URL of a relay: give http://host:port, https://, ws:// or wss://")]
    Url {
        /// What was given.
        url: String,
    },
    /// TLS cannot be used.
    #[error("TLS cannot be used: the system's root certificates are not readable")]
    Tls {
        /// What the system says.
        #[source]
        source: rustls::Error,
    },
}

impl Link {
    /// What may be said on it, for as many tasks as there are.
    #[must_use]
    pub fn handle(&self) -> LinkHandle {
        self.handle.clone()
    }

    /// Says bye, closes and ends the link. Takes a few seconds at most.
    pub async fn close(self, reason: &str) {
        // A link that is over takes no word any more.
        let _ = self.handle.inputs.send(Input::Bye(reason.to_owned())).await;
        if let Err(error) = self.task.await {
            tracing::error!(%error, "the link's task failed");
        }
    }
}

impl LinkHandle {
    /// One of a link that stays in this state, and takes no word.
    #[cfg(test)]
    pub(crate) fn still(state: LinkState) -> Self {
        let lag = LagWatch::new(Progress::default()).lag();
        let progress = watch::channel(Progress::default()).1;
        Self { state: watch::channel(state).1, inputs: mpsc::channel(1).0, progress, lag }
    }

    /// Answers a command. Without a link the answer is kept for a relay that asks again.
    pub async fn result(&self, result: CommandResult) {
        let _ = self.inputs.send(Input::Result(result)).await;
    }

    /// Says how the wrapper is. The last word is said again on every new connection.
    pub async fn presence(&self, state: WrapperState, last_activity: Timestamp) {
        let _ = self.inputs.send(Input::Presence(state, last_activity)).await;
    }

    /// How long events take until the relay has them.
    pub(crate) fn lag(&self) -> &Lag {
        &self.lag
    }

    /// How the link is, to look at and to wait for.
    #[must_use]
    pub fn state(&self) -> watch::Receiver<LinkState> {
        self.state.clone()
    }

    /// Waits until everything that was pushed before is acked, for so long at most; false if it was not, or the link will
    /// never come back.
    pub async fn flush(&self, within: Duration) -> bool {
        tokio::time::timeout(within, self.flushed()).await.unwrap_or(false)
    }

    /// Waits until everything that was pushed before is acked; false if the link will never come back.
    pub async fn flushed(&self) -> bool {
        let mut progress = self.progress.clone();
        let last = progress.borrow().next - 1;
        tokio::select! {
            biased;
            reached = progress.wait_for(|progress| progress.acked >= last) => reached.is_ok(),
            () = self.inputs.closed() => false,
        }
    }
}

#[cfg(test)]
mod tests;
