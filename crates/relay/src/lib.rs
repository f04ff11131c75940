//! Fan-out and ingest of event logs.
//!
//! A relay takes events from wrappers over the *ingest link*, commits them to an [`store::EventStore`], acks after the
//! commit, and gives them to any number of viewers over WebSocket, SSE or long poll, each of which is nothing but a
//! cursor. What it does not do: it starts no agents, renders no HTML and keeps nothing that is not in the store.
//!
//! # Layers
//! - The core, without features, is pure: no tokio, no axum, no clock. [`tail::Tail`] is the hot end of a log,
//!   [`subscription::Subscription`] follows one log from a cursor, [`viewer::Viewer`] is one viewer's socket,
//!   [`ingest::Ingest`] one wrapper's link, [`commands::CommandBook`] makes commands happen at most once. They take
//!   `now` and say what to do next; **a machine is driven by calling `poll` until it returns `None` after each input**,
//!   and calling `handle_time` when its `deadline` has come.
//! - `server` (feature) drives them with axum: `server::Relay` and its router, `server::serve`, and `auth`.
//! - `client` (feature) is the resuming Rust client.
//! - `bin` (feature) is the standalone relay: `run`.
//!
//! # Embedding
//! The router goes into any axum service; whoever owns it owns the socket and the signals:
//! ```
//! # #[cfg(feature = "server")]
//! # fn main() {
//! use std::sync::Arc;
//!
//! use gastown_relay::{
//!     auth::{JwtAuthority, Keys, TicketBook},
//!     server::{Relay, RelayConfig, ServeLimits, now, serve},
//! };
//! use store::{MemoryStore, RetentionPolicy};
//!
//! async fn service(shutdown: impl Future<Output = ()> + Clone + Send) -> std::io::Result<()> {
//!     let authority = JwtAuthority::new(Keys::random(), Arc::new(TicketBook::new(now())));
//!     let store = MemoryStore::new(RetentionPolicy::default());
//!     let relay = Relay::new(Arc::new(store), Arc::new(authority), RelayConfig::default().with_host("agents.example"));
//!     let app = axum::Router::new().merge(relay.router()).route("/", axum::routing::get(|| async { "mine" }));
//!
//!     let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
//!     let drained = async {
//!         shutdown.clone().await;
//!         relay.drain().await;
//!     };
//!     let (served, ()) = tokio::join!(serve(listener, app, ServeLimits::default(), shutdown.clone()), drained);
//!     served
//! }
//!
//! let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
//! runtime.block_on(service(std::future::ready(()))).unwrap();
//! # }
//! # #[cfg(not(feature = "server"))]
//! # fn main() {}
//! ```
//!
//! `§n` cites `docs/protocol.md`.

#[cfg(any(feature = "client", feature = "server"))]
mod api;
pub mod commands;
mod delivery;
pub mod filter;
pub mod history;
pub mod ingest;
mod segment;
pub mod subscription;
pub mod tail;
pub mod viewer;
pub mod websocket;
pub mod wheel;

#[cfg(feature = "server")]
pub mod auth;
#[cfg(feature = "client")]
pub mod client;
#[cfg(feature = "bin")]
mod limit_args;
#[cfg(feature = "bin")]
mod run;
#[cfg(feature = "server")]
pub mod server;

#[cfg(any(feature = "client", feature = "server"))]
pub use api::{ApiError, AppendedAt, Presence, RelayApi};
pub use delivery::Delivery;
#[cfg(feature = "bin")]
pub use limit_args::LimitArgs;
#[cfg(feature = "bin")]
pub use run::{
    DataDirArgs, DataDirError, NoHome, RelayArgs, RunError, Running, reachable, runtime, service_token, start,
};
pub use segment::{EncodedPage, Segment};
