//! Tests of the backends through their public interface.

mod corruption;
mod crash;
mod equivalence;
mod memory;
mod opening;
mod sqlite;
