//! The wrapper with real processes and sockets.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod acp;
mod after_turn;
mod guard;
mod link;
mod opencode;
mod wrapper;
