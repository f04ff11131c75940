//! The thin `gastown-wrapper` binary.
fn main() {}
