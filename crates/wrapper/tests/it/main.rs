//! The wrapper with real processes and sockets.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod acp;
mod after_turn;
mod api;
mod features;
mod guard;
mod link;
mod opencode;
mod puppet;
mod steering;
mod workspace;
mod wrapper;
