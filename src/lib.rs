//! Gastown runs fleets of coding agents and lets people and programs watch and steer them live, over any network,
//! without losing or repeating one event.
//!
//! This crate is the whole of it under one name, and the binary `gastown`. Each piece is a crate of its own, for those
//! who need only that:
//!
//! | module | crate | what it is |
//! |---|---|---|
//! | [`protocol`] | `gastown-event-protocol` | events, cursors, frames, commands, the session model and its fold; no I/O |
//! | [`store`] | `gastown-event-store` | event logs behind one contract: in memory, in SQLite |
//! | [`relay`] | `gastown-relay` | fan-out and ingest: pure core, axum server, resuming client |
//! | [`wrapper`] | `gastown-wrapper` | owns one agent: runs it, follows it, spools and forwards its events |
//! | [`town`] | `gastown-core` | a town's state, commands and deadlines; pure |
//! | [`worker`] | `gastown-worker` | the control plane: launcher, HTTP API, dashboard |
//!
//! One idea carries everything: *the log is the queue*. Every agent has one append-only log, and whoever wants to know
//! something holds a cursor and reads on from it.
//!
//! # Example
//!
//! Put events into a log, and fold what is kept of it into the transcript that every viewer sees:
//!
//! ```
//! use gastown::{
//!     protocol::{LogId, NewEvent, Seq, Timestamp, view::SessionView},
//!     store::{Append, EventStore as _, MemoryStore, ReadLimit, RetentionPolicy},
//! };
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let store = MemoryStore::new(RetentionPolicy::default());
//! let log: LogId = "agent/toast".parse()?;
//! let started = serde_json::json!({ "generation": 1, "runtime": "scripted", "version": "1" });
//! let event = NewEvent::of(Timestamp::default(), "agent.started", &started)?;
//! store.append(&log, Append::of(vec![event])).await?;
//!
//! let page = store.read(&log, Seq::ZERO, ReadLimit::default()).await?;
//! let mut view = SessionView::default();
//! for record in &page.records {
//!     view.apply(&record.event()?);
//! }
//! assert_eq!(view.seq(), Seq::new(1));
//! assert_eq!(view.notices().len(), 1);
//! # Ok(())
//! # }
//! ```
//!
//! The folder `examples/` holds longer ones, each one file that runs by itself: a client that survives the restart of
//! its relay, a relay inside of your own axum service, and a store of your own.

pub mod cli;

pub use protocol;
pub use relay;
pub use store;
pub use town;
pub use worker;
pub use wrapper;
