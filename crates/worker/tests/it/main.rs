//! A whole worker over real sockets: its API, its credentials, its wrappers.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod access;
mod agents;
#[cfg(feature = "bin")]
mod binary;
mod config;
mod dashboard;
mod launching;
mod login;
mod remote;
mod restart;
mod shares;
mod steering;
mod streams;
mod support;
mod tokens;
