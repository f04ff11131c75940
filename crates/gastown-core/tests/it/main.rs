//! The town as its callers use it: rules by example, laws by property.

mod laws;
mod rules;
