//! Bounded, durable, compacted event logs: one contract ([`EventStore`]), several backends, one conformance suite.
//!
//! A log is a sequence of events with strictly increasing positions ([`protocol::Seq`]). Whoever reads holds a cursor
//! and asks for *more after N*; [`EventStore::tail`] says when there is more, so that nobody polls. The store knows
//! nothing of networks, viewers or sessions; it knows the class, key and effect of an event, because that is what
//! compaction goes by.
//!
//! What it does not do: it makes no snapshots (it keeps those it is given), it does not fold events into views, and it
//! decides nothing about who may append or read.
//!
//! - [`EventStore`] is the contract, as numbered clauses.
//! - [`MemoryStore`] keeps all of them but durability.
//! - [`SqliteStore`] keeps all of them, over crashes, the loss of power and bit rot.
//! - `conformance`, a module behind the feature of that name, is how a backend of your own is tried.
//!
//! ```
//! use gastown_event_store::{Append, EventStore, MemoryStore, ReadLimit, RetentionPolicy};
//! use protocol::{LogId, NewEvent, Seq, Timestamp};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let store = MemoryStore::new(RetentionPolicy::default());
//! let log: LogId = "agent/mayor".parse()?;
//! let mut tail = store.tail(&log);
//!
//! let started = NewEvent::of(Timestamp::from_unix_ms(0), "file.edited", &"src/main.rs")?;
//! let appended = store.append(&log, Append::of(vec![started])).await?;
//!
//! let head = tail.changed().await.ok_or("the store is gone")?;
//! assert_eq!(head.seq, appended.head);
//! let page = store.read(&log, Seq::ZERO, ReadLimit::default()).await?;
//! assert_eq!(page.records[0].event()?.data.parse::<String>()?, "src/main.rs");
//! # Ok(())
//! # }
//! ```
//!
//! # Features
//!
//! - `sqlite` (default): [`SqliteStore`]. SQLite is bundled; nothing has to be installed.
//! - `conformance`: the suite, for authors of other backends.
//!
//! # Time
//!
//! It comes in with the events ([`protocol::NewEvent::time`]) and with [`EventStore::prune_idle`]; the backends read no
//! clock. Randomness is used for the epochs of new logs only, and [`MemoryStore::seeded`] does without it.

#[cfg(feature = "conformance")]
pub mod conformance;
mod contract;
mod epochs;
mod memory;
mod rules;
mod search;
#[cfg(feature = "sqlite")]
mod sqlite;
mod tail;

pub use contract::{
    Append, AppendError, Appended, Bounds, EventStore, LogSummary, Page, ProducerBatch, ProducerState,
    ReadError, ReadLimit, Record, Retention, RetentionPolicy, Snapshot, StoreError, StoreFigures,
};
pub use memory::MemoryStore;
pub use search::{SearchError, TextSearch};
#[cfg(feature = "sqlite")]
pub use sqlite::{
    Durability, Finding, OpenError, Report, SqliteOptions, SqliteStore, backup, forget_search_index, restore,
    verify,
};
pub use tail::{Head, HeadFeed, Tail};
