//! How a link gets to its relay: over TCP, or over what a simulation has for a network.

use std::{fmt, io};

use async_trait::async_trait;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};

/// A connection as far as a link is concerned: bytes in both directions.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Io for T {}

/// Opens connections. TLS and the WebSocket come on top of what it gives.
#[async_trait]
pub trait Dial: fmt::Debug + Send + Sync + 'static {
    /// A connection to a host (a name, or an address without brackets) and port.
    ///
    /// # Errors
    /// When the host cannot be reached; the link waits, and dials again.
    async fn dial(&self, host: &str, port: u16) -> io::Result<Box<dyn Io>>;
}

/// The network of this machine.
#[derive(Debug)]
pub(super) struct Tcp;

#[async_trait]
impl Dial for Tcp {
    async fn dial(&self, host: &str, port: u16) -> io::Result<Box<dyn Io>> {
        let stream = TcpStream::connect((host, port)).await?;
        stream.set_nodelay(true)?;
        Ok(Box::new(stream))
    }
}
