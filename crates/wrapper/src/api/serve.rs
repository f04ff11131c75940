//! The accept loop: `axum::serve` has neither a limit for a request's header nor one for connections, and what the agent's tools
//! reach is on this loopback as well.

use std::{future::Future, sync::Arc, time::Duration};

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
    time::sleep,
};
use tokio_util::sync::CancellationToken;

/// Connections at once. More wait to be accepted.
pub(super) const CONNECTIONS: usize = 64;
/// Time for a request's header, and for the next request on a connection that is kept.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// Fields of a header.
const FIELDS: usize = 64;
/// Bytes of a header: a config comes in one (`X-Town-Config`).
const HEADER_BYTES: usize = 256 * 1024;
/// Time before accepting again after the system had no descriptor left.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// Serves until `stop`, and then until the requests under way have ended. Dropping it cuts them off.
pub(super) async fn serve(listener: TcpListener, router: Router, stop: CancellationToken) {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            (stream, permit) = next(&listener, &room) => {
                connections.spawn(converse(stream, permit, router.clone(), stop.clone().cancelled_owned()));
            }
            Some(_) = connections.join_next() => {}
            () = stop.cancelled() => break,
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

/// The next connection, once there is room for it. Cancel-safe.
async fn next(listener: &TcpListener, room: &Arc<Semaphore>) -> (TcpStream, OwnedSemaphorePermit) {
    let permit = Arc::clone(room).acquire_owned().await.expect("it is never closed");
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return (stream, permit),
            Err(error) => {
                tracing::warn!(%error, "a connection to the local API is not accepted");
                sleep(ACCEPT_AGAIN).await;
            }
        }
    }
}

async fn converse(
    stream: TcpStream,
    _permit: OwnedSemaphorePermit,
    router: Router,
    stop: impl Future<Output = ()>,
) {
    let conversation = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_headers(FIELDS)
        .max_buf_size(HEADER_BYTES)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut conversation = std::pin::pin!(conversation);
    let ended = tokio::select! {
        ended = conversation.as_mut() => ended,
        () = stop => {
            conversation.as_mut().graceful_shutdown();
            conversation.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection to the local API ended");
    }
}
