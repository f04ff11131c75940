//! Laws over generated logs, and proofs over recordings of real agent servers.
#![expect(clippy::unwrap_used, reason = "a test that panics has failed, which is what it is for")]

extern crate gastown_event_protocol as protocol;

mod classification;
mod compaction;
mod corpus;
mod frames;
mod recording;
mod schema;
mod servers_answers;
mod totality;
