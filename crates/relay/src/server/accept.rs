//! The accept loop: `axum::serve` has neither header timeouts nor caps.

use std::{
    collections::HashMap,
    future::Future,
    io::{self, IoSlice},
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::Duration,
};

use axum::{Router, extract::ConnectInfo};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::Instrument as _;

use super::feed::lock;

/// Connections that may wait to be accepted: a fleet that comes back at once. The system drops what comes beyond, and
/// the other side tries again after a second; by default it lets 128 wait.
const WAITING: i32 = 4096;
/// Time before accepting again after the system had no descriptor left.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// What one listener takes (§11).
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

/// Where connections come from: a TCP listener, or what stands in for one.
pub trait Listener: Send {
    /// A connection.
    type Io: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// Waits for the next connection, and says whose it is.
    fn accept(&mut self) -> impl Future<Output = io::Result<(Self::Io, SocketAddr)>> + Send;

    /// Lets so many connections wait to be accepted, where that is to be said.
    ///
    /// # Errors
    /// When the listener is not usable.
    fn let_wait(&mut self, _connections: i32) -> io::Result<()> {
        Ok(())
    }
}

impl Listener for TcpListener {
    type Io = TcpStream;

    async fn accept(&mut self) -> io::Result<(TcpStream, SocketAddr)> {
        let (stream, peer) = Self::accept(self).await?;
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%peer, %error, "small frames may be delayed");
        }
        Ok((stream, peer))
    }

    fn let_wait(&mut self, connections: i32) -> io::Result<()> {
        socket2::SockRef::from(&*self).listen(connections)
    }
}

/// Serves a router until `shutdown`, then stops accepting, lets requests that run end, and waits for every connection,
/// streams too, at most [`ServeLimits::drain`]. Streams end when [`super::Relay::drain`] is called: call both at once.
///
/// A connection beyond a cap is closed at once. Every request has `ConnectInfo<SocketAddr>` as an extension.
///
/// # Errors
/// When the listener fails for good.
pub async fn serve(
    mut listener: impl Listener,
    router: Router,
    limits: ServeLimits,
    shutdown: impl Future<Output = ()> + Send,
) -> io::Result<()> {
    listener.let_wait(WAITING)?;
    let connections = Connections::new(limits);
    let (tracker, ending) = (TaskTracker::new(), CancellationToken::new());
    let mut shutdown = std::pin::pin!(shutdown);
    let mut accepted_so_far = 0_u64;
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut shutdown => break,
        };
        match accepted {
            Ok((stream, peer)) => {
                let Some(connection) = connections.admit(stream, peer) else { continue };
                accepted_so_far += 1;
                let span = tracing::info_span!("connection", conn = accepted_so_far, %peer);
                let conversation = converse(connection, peer, router.clone(), limits, ending.clone());
                tracker.spawn(conversation.instrument(span));
            }
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) if error.raw_os_error().is_some_and(|code| matches!(code, 23 | 24)) => {
                // ENFILE, EMFILE: some connection will end.
                tracing::error!(%error, "no connection can be accepted");
                tokio::time::sleep(ACCEPT_AGAIN).await;
            }
            Err(error) => return Err(error),
        }
    }
    drop(listener);
    ending.cancel();
    tracker.close();
    let all_ended = async {
        tracker.wait().await;
        connections.all_ended().await;
    };
    if tokio::time::timeout(limits.drain, all_ended).await.is_err() {
        tracing::warn!("some connections did not end in time");
    }
    Ok(())
}

async fn converse(
    connection: Connection<impl AsyncRead + AsyncWrite + Unpin + Send + 'static>,
    peer: SocketAddr,
    router: Router,
    limits: ServeLimits,
    ending: CancellationToken,
) {
    let service = router.layer(axum::Extension(ConnectInfo(peer)));
    let conversation = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout)
        .max_headers(limits.headers)
        .max_buf_size(limits.header_bytes)
        .serve_connection(TokioIo::new(connection), TowerToHyperService::new(service))
        .with_upgrades();
    let mut conversation = std::pin::pin!(conversation);
    let ended = tokio::select! {
        ended = conversation.as_mut() => ended,
        () = ending.cancelled() => {
            conversation.as_mut().graceful_shutdown();
            conversation.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%peer, %error, "a connection ended");
    }
}

/// Errors that concern the connection that was to be accepted, not the listener.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

/// The caps of a listener.
struct Connections {
    limits: ServeLimits,
    all: Arc<Semaphore>,
    by_address: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

impl Connections {
    fn new(limits: ServeLimits) -> Self {
        Self { limits, all: Arc::new(Semaphore::new(limits.connections)), by_address: Arc::default() }
    }

    fn admit<S>(&self, stream: S, peer: SocketAddr) -> Option<Connection<S>> {
        let permit = self.all.clone().try_acquire_owned().ok()?;
        let address = peer.ip().to_canonical();
        let of_address = if address.is_loopback() {
            None
        } else {
            let mut by_address = lock(&self.by_address);
            let count = by_address.entry(address).or_default();
            if *count >= self.limits.per_address {
                return None;
            }
            *count += 1;
            Some(OfAddress { address, by_address: self.by_address.clone() })
        };
        Some(Connection { stream, _permit: permit, _of_address: of_address })
    }

    async fn all_ended(&self) {
        let all = u32::try_from(self.limits.connections).unwrap_or(u32::MAX);
        // The semaphore is never closed.
        let _ = self.all.acquire_many(all).await;
    }
}

/// One of an address's connections.
struct OfAddress {
    address: IpAddr,
    by_address: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

impl Drop for OfAddress {
    fn drop(&mut self) {
        let mut by_address = lock(&self.by_address);
        if let Some(count) = by_address.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                by_address.remove(&self.address);
            }
        }
    }
}

/// A connection that counts against the caps until it is dropped, upgraded or not.
struct Connection<S> {
    stream: S,
    _permit: OwnedSemaphorePermit,
    _of_address: Option<OfAddress>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Connection<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Connection<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_connection_too_many_of_an_address_is_refused_and_others_are_not() {
        let connections = Connections::new(ServeLimits { per_address: 2, ..ServeLimits::default() });
        let [near, far, other] =
            ["127.0.0.1:1", "192.0.2.1:1", "192.0.2.2:1"].map(|peer| peer.parse().unwrap());
        let first = connections.admit(stream().await, far).unwrap();
        let _second = connections.admit(stream().await, far).unwrap();
        assert!(connections.admit(stream().await, far).is_none());
        // The same address, as a socket for both protocols sees it.
        assert!(connections.admit(stream().await, "[::ffff:192.0.2.1]:1".parse().unwrap()).is_none());
        let _other = connections.admit(stream().await, other).unwrap();
        let mut here = Vec::new();
        for _ in 0..3 {
            here.push(connections.admit(stream().await, near).expect("loopback has no cap of its own"));
        }
        drop(first);
        assert!(connections.admit(stream().await, far).is_some());
    }

    #[tokio::test]
    async fn a_crowd_that_comes_at_once_waits_to_be_accepted() {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let mut listener = socket.listen(1).unwrap();
        Listener::let_wait(&mut listener, 64).unwrap();
        let address = listener.local_addr().unwrap();
        let crowd = (0..32).map(|_| TcpStream::connect(address)).collect::<tokio::task::JoinSet<_>>();
        let all_are_in = tokio::time::timeout(Duration::from_secs(30), crowd.join_all());
        assert!(all_are_in.await.unwrap().iter().all(Result::is_ok));
    }

    async fn stream() -> TcpStream {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (stream, _) = tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
        stream.unwrap()
    }
}
