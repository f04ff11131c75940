//! Events in the shape that agent servers give them, for runtimes that make their events themselves.

pub(crate) mod diff;
pub(crate) mod emit;
pub(crate) mod ids;
