//! Laws over generated logs, and proofs over recordings of real agent servers.

extern crate gastown_event_protocol as protocol;

mod classification;
mod compaction;
mod frames;
mod recording;
mod schema;
mod servers_answers;
