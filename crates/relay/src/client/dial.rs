//! How a connection for a stream comes about: over TCP, unless the caller has another way.

use std::{fmt, io};

use async_trait::async_trait;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};

/// Connects the streams of [`Client::follow`](super::Client::follow): a seam for proxies, tunnels and simulated
/// networks. TLS, where the URL asks for it, goes on top.
#[async_trait]
pub trait Dial: fmt::Debug + Send + Sync {
    /// Opens a connection to a host, which is a name or an address.
    ///
    /// # Errors
    /// When none comes about: it is tried again later.
    async fn dial(&self, host: &str, port: u16) -> io::Result<Box<dyn Stream>>;
}

/// A connection, both ways.
pub trait Stream: AsyncRead + AsyncWrite + Send + Sync + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Sync + Unpin> Stream for S {}

/// Over TCP.
#[derive(Debug)]
pub(super) struct Tcp;

#[async_trait]
impl Dial for Tcp {
    async fn dial(&self, host: &str, port: u16) -> io::Result<Box<dyn Stream>> {
        let stream = TcpStream::connect((host, port)).await?;
        stream.set_nodelay(true)?;
        Ok(Box::new(stream))
    }
}
