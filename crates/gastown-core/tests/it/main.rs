//! The town as its callers use it: rules by example, laws by property.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod laws;
mod rules;
