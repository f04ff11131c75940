//! The connections of a listener: how many there may be, and what each is.

use std::{
    collections::HashMap,
    io::{self, IoSlice},
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::{OwnedSemaphorePermit, Semaphore},
};

use super::{
    ServeLimits,
    exchange::{Exchange, Late, Patience},
};
use crate::server::feed::lock;

/// The caps of a listener.
pub(super) struct Connections {
    limits: ServeLimits,
    all: Arc<Semaphore>,
    by_address: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

impl Connections {
    pub(super) fn new(limits: ServeLimits) -> Self {
        Self { limits, all: Arc::new(Semaphore::new(limits.connections)), by_address: Arc::default() }
    }

    pub(super) fn admit<S>(&self, stream: S, peer: SocketAddr) -> Option<Connection<S>> {
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
        let exchange = Exchange::begin();
        let patience = Patience::new(exchange.clone(), self.limits);
        Some(Connection { stream, exchange, patience, _permit: permit, _of_address: of_address })
    }

    pub(super) async fn all_ended(&self) {
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
pub(super) struct Connection<S> {
    stream: S,
    exchange: Exchange,
    patience: Patience,
    _permit: OwnedSemaphorePermit,
    _of_address: Option<OfAddress>,
}

impl<S> Connection<S> {
    /// Where it is, to be told by its service.
    pub(super) fn exchange(&self) -> &Exchange {
        &self.exchange
    }

    fn after_write(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if written.is_ready() {
            self.patience.took(cx);
            return written;
        }
        self.patience.poll_stalled(cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Connection<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Poll::Ready(read) = Pin::new(&mut self.stream).poll_read(cx, buffer) {
            self.patience.heard();
            return Poll::Ready(read);
        }
        self.patience.poll_late(cx).map(|late| match late {
            Late::Header => Err(io::ErrorKind::TimedOut.into()),
            // As if the other side had ended it: it is closed in order.
            Late::Request => Ok(()),
        })
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Connection<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.after_write(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.after_write(cx, written)
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
    use tokio::net::{TcpListener, TcpStream};

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

    async fn stream() -> TcpStream {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (stream, _) = tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
        stream.unwrap()
    }
}
