//! The relay over real sockets, on ports that the system chose.

#![expect(clippy::unwrap_used, reason = "a helper that fails fails the test that called it")]

mod agents;
mod authority;
mod bad_input;
#[cfg(feature = "bin")]
mod binary;
mod corpus;
mod held_up;
mod hostile;
mod life;
mod limits;
#[cfg(feature = "bin")]
mod memory;
mod metrics;
mod readers;
mod restored;
mod search;
mod secrets;
mod shares;
mod spans;
mod support;
mod transports;
mod websocket;
