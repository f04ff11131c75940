//! Tests of the backends through their public interface.

mod memory;

mod sqlite;
