//! The wrapper: owns one coding agent. It starts the agent's server, follows its events, numbers them, keeps them on
//! disk until the relay has them, and carries out what the relay sends down the same link.
//!
//! What it does not do: it knows nothing of viewers, towns or other agents, and it never stops an agent because a link
//! is down.
//!
//! - [`run`] is the whole wrapper, from [`Options`] to an [`Exit`]; [`Shutdown`] tells it to end. [`run_in`] is the same in
//!   other [`Surroundings`] than this machine.
//! - [`runtime::AgentRuntime`] is what an agent is run with; a new kind of agent is one implementation of it.
//! - [`guard`] is the small process between wrapper and agent server that leaves no orphan.
//!
//! The rules are pure and take [`Moment`]s; the drivers around them read the one [`Clock`].
//!
//! `§n` cites `docs/protocol.md`.

mod after_turn;
pub mod api;
mod append_file;
mod asked;
mod clock;
mod coalesce;
mod config;
mod exit;
mod git;
mod guard;
pub mod link;
mod log_file;
mod log_tail;
mod metrics;
mod options;
pub mod outbox;
mod process_tree;
mod recovery;
mod redact;
pub mod runtime;
mod session_tree;
mod shutdown;
mod supervisor;
#[cfg(test)]
mod testing;
mod trim;
mod turn;
mod workspace;
mod wrapper;

pub use after_turn::AfterTurnArgs;
pub use clock::{Clock, Moment};
pub use exit::Exit;
pub use guard::{GuardArgs, guard};
pub use log_tail::LogTail;
pub use options::{Options, OptionsError};
pub use runtime::RuntimeKind;
pub use shutdown::{Shutdown, ShutdownLevel, ShutdownTrigger, run_to_end};
pub use turn::TurnLimitArgs;
pub use workspace::WorkspaceArgs;
pub use wrapper::{RunError, Surroundings, run, run_in};
