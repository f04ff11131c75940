//! The wire protocol of Gastown as types: events, cursors, frames, commands, the session model and its one fold.
//!
//! What it is: everything two processes of Gastown say to each other, with its limits, and the rules that give an
//! event its [`Class`], [`Key`] and [`Effect`]. What it is not: there is no I/O here, no clock, no randomness and no
//! async; time comes in as [`Timestamp`].
//!
//! | you want to | look at |
//! |---|---|
//! | make or read an event | [`NewEvent`], [`Event`], [`classify`] |
//! | remember where a reader is | [`Cursor`], [`Seq`], [`Epoch`] |
//! | read or write a frame of a stream | [`frame`], [`codec::Frame`] |
//! | read server-sent events | [`sse::Decoder`] |
//! | show what an agent does | [`view::SessionView`], [`model`] |
//! | steer an agent | [`Command`] |
//! | say what its turns are run with | [`config`] |
//! | find what was said | [`search`] |
//! | know how much is too much | [`limits`] |
//!
//! The normative text is `docs/protocol.md`; `§n` in these docs cites its sections.
//!
//! From the bytes of a stream to what an agent said:
//!
//! ```
//! use gastown_event_protocol::{codec::Frame, frame::ToViewer, view::SessionView};
//!
//! let bytes = br#"{"type":"events","log":"agent/a1","events":[
//!   {"seq":1,"time":"2026-11-20T18:10:16.123Z","type":"message.part.updated","session":"ses_1",
//!    "key":"part/msg_1/prt_1","data":{"part":{"id":"prt_1","messageID":"msg_1","type":"text","text":"Hel"}}},
//!   {"seq":2,"time":"2026-11-20T18:10:16.140Z","type":"message.part.delta","session":"ses_1",
//!    "key":"part/msg_1/prt_1","data":{"messageID":"msg_1","partID":"prt_1","field":"text","delta":"lo"}}]}"#;
//!
//! let mut view = SessionView::default();
//! if let ToViewer::Events { events, .. } = ToViewer::decode(bytes)? {
//!     for event in &events {
//!         view.apply(event);
//!     }
//! }
//! let session = &view.roots()[0];
//! let said = session.messages()[0].parts().next().and_then(|part| part.body().text());
//! assert_eq!(said, Some("Hello"));
//! # Ok::<(), gastown_event_protocol::codec::DecodeError>(())
//! ```
#![cfg_attr(not(test), warn(clippy::disallowed_methods))]

pub mod agent;
mod backoff;
mod class;
pub mod codec;
mod command;
pub mod config;
mod cursor;
mod error_code;
mod event;
pub mod frame;
mod id;
pub mod limits;
pub mod model;
pub mod search;
pub mod sse;
mod time;
pub mod view;

/// The version of the protocol that is spoken here.
pub const PROTOCOL: u32 = 1;

pub use backoff::Backoff;
pub use class::{Class, Classified, Effect, Key, classify, named_types, session_of};
pub use command::{Answer, Command, CommandId, CommandResult, Delivery, ModelRef, PermissionReply, Prompt};
pub use cursor::{Cursor, CursorParseError, Epoch, Seq, SeqError};
pub use error_code::{CloseCode, ErrorBody, ErrorCode, ErrorDetail};
pub use event::{Event, NewEvent, RawData, Unplaced};
pub use id::{AgentId, IdError, LogId, ProducerId, SessionId, TownId};
pub use time::{Timestamp, TimestampError};
