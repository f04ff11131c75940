//! Bounded, durable, compacted event logs: one contract ([`EventStore`]), several backends, one conformance suite.
//!
//! A log is a sequence of events with strictly increasing positions ([`protocol::Seq`]). Whoever reads holds a cursor
//! and asks for *more after N*; [`EventStore::tail`] says when there is more, so that nobody polls. The store knows
//! nothing of networks, viewers or sessions; it knows the class, key and effect of an event, because that is what
//! compaction goes by.
//!
//! Time comes in with the events ([`protocol::NewEvent::time`]) and with [`EventStore::prune_idle`]; the backends read
//! no clock.

#[cfg(feature = "conformance")]
pub mod conformance;
mod contract;
mod epochs;
mod memory;
mod rules;
#[cfg(feature = "sqlite")]
mod sqlite;

pub use contract::{
    Append, AppendError, Appended, Bounds, EventStore, Head, LogSummary, Page, ProducerBatch, ProducerState,
    ReadError, ReadLimit, Record, Retention, RetentionPolicy, Snapshot, StoreError, Tail,
};
pub use memory::MemoryStore;
#[cfg(feature = "sqlite")]
pub use sqlite::{Durability, OpenError, SqliteOptions, SqliteStore};
