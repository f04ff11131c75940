//! The handle.

use std::{sync::Arc, time::Duration};

use axum::Router;
use store::EventStore;

use crate::auth::Authority;

/// How a relay behaves.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct RelayConfig {
    /// Host names (without port) that requests may name in `Host` and `Origin`.
    pub allowed_hosts: Vec<String>,
    /// Time without a link after which `wrapper.lost` is appended to the agent's log (§10).
    pub lost_after: Duration,
    /// Whether `/metrics` needs no credentials.
    pub open_metrics: bool,
}

impl Default for RelayConfig {
    fn default() -> Self {
        Self {
            allowed_hosts: ["localhost", "127.0.0.1", "[::1]"].map(str::to_owned).into(),
            lost_after: Duration::from_secs(90),
            open_metrics: false,
        }
    }
}

/// A relay in this process. Cheap to clone; all clones are one relay.
#[derive(Debug, Clone)]
pub struct Relay {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    _store: Arc<dyn EventStore>,
    _authority: Arc<dyn Authority>,
    _config: RelayConfig,
}

impl Relay {
    /// A relay over this store.
    #[must_use]
    pub fn new(store: Arc<dyn EventStore>, authority: Arc<dyn Authority>, config: RelayConfig) -> Self {
        Self { inner: Arc::new(Inner { _store: store, _authority: authority, _config: config }) }
    }

    /// Its routes (§4).
    pub fn router(&self) -> Router {
        let _ = &self.inner;
        Router::new()
    }

    /// Ends every stream and link, telling each when to come back, and refuses others.
    pub async fn drain(&self) {
        std::future::ready(()).await;
    }
}
