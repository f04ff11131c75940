//! The wire protocol of Gastown as types: events, cursors, frames, commands, the session model and its one fold.
//!
//! What it is: everything two processes of Gastown say to each other, with its limits, and the rules that give an
//! event its [`Class`], [`Key`] and [`Effect`]. What it is not: there is no I/O here, no clock, no randomness and no
//! async; time comes in as [`Timestamp`].
//!
//! The normative text is `docs/protocol.md`; `§n` in these docs cites its sections.
#![cfg_attr(not(test), warn(clippy::disallowed_methods))]

pub mod agent;
mod class;
pub mod codec;
mod command;
mod cursor;
mod error_code;
mod event;
pub mod frame;
mod id;
pub mod limits;
pub mod model;
mod time;
pub mod view;

pub use class::{Class, Classified, Effect, Key, classify, named_types, session_of};
pub use command::{Answer, Command, CommandId, CommandResult, Delivery, ModelRef, PermissionReply, Prompt};
pub use cursor::{Cursor, CursorParseError, Epoch, Seq, SeqError};
pub use error_code::{CloseCode, ErrorBody, ErrorCode, ErrorDetail};
pub use event::{Event, NewEvent, RawData};
pub use id::{AgentId, IdError, LogId, ProducerId, SessionId, TownId};
pub use time::{Timestamp, TimestampError};
