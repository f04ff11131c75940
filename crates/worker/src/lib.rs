//! The control plane: one town's agents, who may see and steer them, and the pages to do it with.
//!
//! What it is: [`start`] makes one process that keeps a town (its journal in the event store), launches a wrapper for
//! each agent that shall run, answers the HTTP API (`/api`), serves the dashboard, and, with [`Mode::Embedded`], is the
//! relay too. What it is not: it renders nothing that is not in a log, and keeps no state beside the journal, except who
//! is logged in.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use gastown_worker::{WorkerConfig, start};
//!
//! let listener = tokio::net::TcpListener::bind("127.0.0.1:4280").await?;
//! let running = start(WorkerConfig::new("/var/lib/gastown"), listener).await?;
//! println!("{}", running.worker().one_use_login_url());
//! running.run_until(async { let _ = tokio::signal::ctrl_c().await; }).await?;
//! # Ok(())
//! # }
//! ```
//!
//! # Main types
//! [`WorkerConfig`] says how it behaves, [`Worker`] is the handle of one that runs, [`Launcher`] is the place to run
//! wrappers elsewhere, [`WorkerAuthority`] knows every credential, [`api::ROUTES`] is the table of who may call what.
//!
//! # Time
//! It reads the clock through [`Clock`] only. Nothing is polled: the engine sleeps until exactly the town's next
//! deadline, and is woken by requests and by its journal.
//!
//! # Features
//! `bin`: the `gastown-worker` binary and its arguments ([`args`]). `§n` cites `docs/protocol.md`.

mod agent_config;
pub mod api;
#[cfg(feature = "bin")]
pub mod args;
mod auth;
mod clock;
mod config;
pub mod dashboard;
mod digest;
mod engine;
mod fleet;
mod journal;
mod launcher;
pub mod limits;
mod publish;
mod run;
mod worker;

pub use agent_config::ConfigFileError;
#[cfg(feature = "bin")]
pub use args::{ServeArgs, WorkerArgs};
pub use auth::{OperatorTokenError, SESSION_COOKIE, WorkerAuthority, operator_token};
pub use clock::Clock;
pub use config::{Mode, WorkerConfig};
pub use engine::AskError;
pub use journal::JournalError;
pub use launcher::{Adoption, LaunchError, LaunchSpec, Launcher, LocalLauncher, WrapperProcess};
pub use run::{Running, StartError, URL_FILE, run, start};
pub use worker::{Shared, Worker};
