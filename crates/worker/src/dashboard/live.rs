//! Live pages: one fold per agent, rendered once per change, shared by all viewers.

pub(crate) mod agent;
pub(crate) mod board;
pub(crate) mod feeds;
pub(crate) mod fleet;
pub(crate) mod replay;
pub(crate) mod viewer;
