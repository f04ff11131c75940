//! What the system tests are made of: processes, viewers, a scripted model, a browser.

pub(crate) mod agent_server;
pub(crate) mod browser;
pub(crate) mod process;
pub(crate) mod scripted_model;
pub(crate) mod server;
pub(crate) mod small_disk;
pub(crate) mod viewer;

/// An HTTP client; the process gets its TLS provider with the first one.
pub(crate) fn http() -> reqwest::Client {
    // Another test may have been first: either way there is one.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::new()
}
