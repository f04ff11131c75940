//! What the system tests are made of: processes, viewers, a scripted model, a browser, and the oracle that judges.

pub(crate) mod agent_server;
pub(crate) mod browser;
pub(crate) mod oracle;
pub(crate) mod process;
pub(crate) mod scripted_model;
pub(crate) mod server;
pub(crate) mod viewer;
