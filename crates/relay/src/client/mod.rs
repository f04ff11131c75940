//! The resuming Rust client.
