//! Whole pages.

pub(crate) mod agent;
pub(crate) mod fleet;
pub(crate) mod login;
pub(crate) mod message;
pub(crate) mod regions;
pub(crate) mod scrub;
pub(crate) mod search;
pub(crate) mod shell;
mod stats;
