//! Where wrappers run: [`Launcher`] is the place to plug in another one; [`LocalLauncher`] makes child processes.

mod local;
mod lock;

use std::{fmt, path::PathBuf};

use async_trait::async_trait;
use protocol::{AgentId, TownId, config::TownConfig};
use relay::auth::Secret;
use town::{Agent, WrapperExit};

pub use local::LocalLauncher;

/// Starts wrappers and says how they ended.
///
/// # Clauses
/// 1. Of one agent at most one wrapper runs: launching one ends an older one first.
/// 2. A wrapper lives on when the worker dies; [`Launcher::adopt`] finds it again.
/// 3. A launcher keeps no zombie: whoever holds a [`WrapperProcess`] calls [`WrapperProcess::wait`].
#[async_trait]
pub trait Launcher: Send + Sync + fmt::Debug + 'static {
    /// Starts a wrapper.
    ///
    /// # Errors
    /// When the process cannot be made.
    async fn launch(&self, spec: LaunchSpec) -> Result<Box<dyn WrapperProcess>, LaunchError>;

    /// Finds a wrapper that an earlier worker launched.
    async fn adopt(&self, agent: &AgentId, generation: u64) -> Adoption;

    /// Removes what was kept for an agent whose wrapper has ended.
    ///
    /// # Errors
    /// When its files cannot be removed.
    async fn forget(&self, agent: &AgentId) -> std::io::Result<()>;
}

/// One wrapper that runs.
#[async_trait]
pub trait WrapperProcess: Send + fmt::Debug {
    /// Waits for its end. Cancel-safe, and may be called again.
    async fn wait(&mut self) -> WrapperExit;

    /// Asks it to end its agent and itself (SIGTERM): after the turn that runs; asked again, at once. Does nothing once it
    /// has ended.
    async fn terminate(&mut self);

    /// Ends it at once (SIGKILL). Its agent is swept up by the wrapper's own guard.
    async fn kill(&mut self);
}

/// What became of a wrapper that an earlier worker launched.
#[derive(Debug)]
pub enum Adoption {
    /// It lives, and can be waited for.
    Found(Box<dyn WrapperProcess>),
    /// It is dead.
    Gone,
    /// The launcher cannot tell: only its link can.
    Unknown,
}

/// What a wrapper is started with.
#[derive(Debug, Clone)]
pub struct LaunchSpec {
    /// Its town.
    pub town: TownId,
    /// Its agent.
    pub agent: Agent,
    /// Its generation.
    pub generation: u64,
    /// Base URL of the relay it connects to.
    pub relay: String,
    /// Its credential, given by environment, never by argument.
    pub token: Secret,
    /// What its agent is run with at first, given as its credential is.
    pub config: TownConfig,
}

/// Why a wrapper could not be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LaunchError {
    /// Its folder or log could not be made.
    #[error("the agent's folder {path} cannot be used")]
    Folder {
        /// The folder or file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
    /// The command is not there or may not be run.
    #[error("the wrapper command {command:?} cannot be started")]
    Spawn {
        /// The command.
        command: PathBuf,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
    /// An older wrapper of the agent did not end.
    #[error("an older wrapper of agent {agent} (process {pid}) did not end after it was killed")]
    Occupied {
        /// Whose.
        agent: AgentId,
        /// Its process.
        pid: u32,
    },
}
