//! Tests of the backends through their public interface.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod backup;
mod corruption;
mod crash;
mod equivalence;
mod memory;
mod migrating;
mod opening;
mod sqlite;
#[cfg(target_os = "linux")]
mod traced;
mod verify;
