//! One connection: it counts against the caps of its listener, and keeps to its times.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{
    ServeLimits,
    exchange::{Exchange, Late, Patience},
};
use crate::server::crowd::Place;

/// A connection that counts against the caps until it is dropped, upgraded or not.
pub(super) struct Connection<S> {
    stream: S,
    exchange: Exchange,
    patience: Patience,
    _place: Place,
}

impl<S> Connection<S> {
    pub(super) fn new(stream: S, limits: ServeLimits, place: Place) -> Self {
        let exchange = Exchange::begin();
        Self { stream, patience: Patience::new(exchange.clone(), limits), exchange, _place: place }
    }

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
