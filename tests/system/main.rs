//! The whole system, as its users run it: processes, real agent servers, a browser, faults. Everything listens on
//! loopback, on ports from the OS; every wait is for the thing itself.

mod bad_input;
mod browser;
mod curl;
mod demo;
mod examples;
mod faults;
#[path = "../simulation/life.rs"]
mod life;
mod many_viewers;
#[path = "../oracle/mod.rs"]
mod oracle;
#[path = "../oracle/planted.rs"]
mod planted;
mod real_agents;
mod record;
mod shutdown;
mod split_mode;
mod support;
mod tls;
mod under_load;
