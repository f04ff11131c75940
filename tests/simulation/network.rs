//! Connections over turmoil's network that can be cut, stalled, half-opened and chopped, one by one.

use std::{
    collections::BTreeMap,
    fmt,
    future::Future,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Waker},
};

use async_trait::async_trait;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use turmoil::net::{TcpListener, TcpStream};

/// Where the relay listens.
pub(crate) const RELAY_URL: &str = "http://relay:80";
pub(crate) const RELAY_PORT: u16 = 80;

/// How a connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Condition {
    Good,
    /// It takes nothing and gives nothing, and goes on where it was when that is over.
    Stalled,
    /// It takes everything and gives nothing: what is sent is gone, and nobody is told. Not to be mended, only cut.
    HalfOpen,
    /// It is gone, and its ends are told.
    Cut,
    /// It is gone for whoever opened it. The other end is told nothing, and what was sent goes on arriving there.
    Severed,
}

/// Every connection of the run, by who opened it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Network {
    connections: Arc<Mutex<BTreeMap<u64, Connection>>>,
    /// Whoever has a connection to nobody is told.
    tells: Arc<AtomicBool>,
}

#[derive(Debug)]
struct Connection {
    owner: String,
    condition: Condition,
    /// The relay has been started since: nobody is at the other end.
    is_orphan: bool,
    /// The most bytes that one read gives.
    chop: usize,
    readers: Vec<Waker>,
}

impl Network {
    /// Changes the connections whose owner's name begins so; those that are beyond it stay as they are.
    pub(crate) fn set(&self, owner: &str, condition: Condition) {
        for connection in self.lock().values_mut().filter(|connection| connection.owner.starts_with(owner)) {
            let is_allowed = match connection.condition {
                Condition::Good | Condition::Stalled => true,
                Condition::HalfOpen => condition == Condition::Cut,
                Condition::Cut | Condition::Severed => false,
            };
            if is_allowed {
                connection.condition = condition;
                connection.readers.drain(..).for_each(Waker::wake);
            }
        }
    }

    /// The relay starts: whoever still has a connection to its life before may not have heard of its end.
    pub(crate) fn orphan_all(&self) {
        self.lock().values_mut().for_each(|connection| connection.is_orphan = true);
        if self.tells.load(Ordering::Relaxed) {
            self.tell_both_ends();
        }
    }

    /// From here on a connection that has nobody at its other end is cut, as a network that works does when it is used.
    pub(crate) fn tell_both_ends(&self) {
        self.tells.store(true, Ordering::Relaxed);
        for connection in self.lock().values_mut() {
            if connection.is_orphan || connection.condition == Condition::HalfOpen {
                connection.condition = Condition::Cut;
                connection.readers.drain(..).for_each(Waker::wake);
            }
        }
    }

    /// From here on each read of these connections gives at most so many bytes.
    pub(crate) fn chop(&self, owner: &str, bytes: usize) {
        for connection in self.lock().values_mut().filter(|connection| connection.owner.starts_with(owner)) {
            connection.chop = bytes.max(1);
        }
    }

    /// Dials on behalf of an owner.
    pub(crate) fn dialer(&self, owner: &str) -> Dialer {
        Dialer { network: self.clone(), owner: owner.to_owned() }
    }

    fn add(&self, owner: &str) -> u64 {
        let mut all = self.lock();
        let id = all.last_key_value().map_or(0, |(id, _)| id + 1);
        let connection = Connection {
            owner: owner.to_owned(),
            condition: Condition::Good,
            is_orphan: false,
            chop: usize::MAX,
            readers: Vec::new(),
        };
        all.insert(id, connection);
        id
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Connection>> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Opens connections of one owner.
#[derive(Debug, Clone)]
pub(crate) struct Dialer {
    network: Network,
    owner: String,
}

impl Dialer {
    async fn open(self, host: String, port: u16) -> io::Result<Wire> {
        let stream = TcpStream::connect((host.as_str(), port)).await?;
        let id = self.network.add(&self.owner);
        Ok(Wire { stream: Some(stream), network: self.network, id })
    }
}

#[async_trait]
impl wrapper::link::Dial for Dialer {
    async fn dial(&self, host: &str, port: u16) -> io::Result<Box<dyn wrapper::link::Io>> {
        Ok(Box::new(self.clone().open(host.to_owned(), port).await?))
    }
}

#[async_trait]
impl relay::client::Dial for Dialer {
    async fn dial(&self, host: &str, port: u16) -> io::Result<Box<dyn relay::client::Stream>> {
        Ok(Box::new(self.clone().open(host.to_owned(), port).await?))
    }
}

/// The client's end of a connection, with everything that may befall it.
struct Wire {
    stream: Option<TcpStream>,
    network: Network,
    id: u64,
}

impl fmt::Debug for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wire").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Wire {
    /// How it is; a connection that is to wait is woken when that changes.
    fn condition(&self, cx: &Context<'_>) -> (Condition, usize) {
        let mut all = self.network.lock();
        let connection = all.get_mut(&self.id).expect("it is there until it is dropped");
        // A read that waits for bytes must hear of a cut as well.
        if !connection.readers.iter().any(|waker| waker.will_wake(cx.waker())) {
            connection.readers.push(cx.waker().clone());
        }
        (connection.condition, connection.chop)
    }

    fn stream(&mut self) -> Pin<&mut TcpStream> {
        Pin::new(self.stream.as_mut().expect("it is there until it is dropped"))
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.condition(cx) {
            (Condition::Cut | Condition::Severed, _) => {
                Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()))
            }
            (Condition::Stalled | Condition::HalfOpen, _) => Poll::Pending,
            (Condition::Good, chop) => {
                let room = chop.min(buf.remaining());
                let mut piece = vec![0; room.min(64 * 1024)];
                let mut read = ReadBuf::new(&mut piece);
                let done = self.stream().poll_read(cx, &mut read);
                buf.put_slice(read.filled());
                done
            }
        }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.condition(cx).0 {
            Condition::Cut | Condition::Severed => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            Condition::HalfOpen => Poll::Ready(Ok(bytes.len())),
            Condition::Stalled => Poll::Pending,
            Condition::Good => self.stream().poll_write(cx, bytes),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream().poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.condition(cx).0 {
            Condition::Good => self.stream().poll_shutdown(cx),
            Condition::Cut | Condition::HalfOpen | Condition::Severed | Condition::Stalled => {
                Poll::Ready(Ok(()))
            }
        }
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        let connection = self.network.lock().remove(&self.id);
        let is_silent =
            |connection: Connection| matches!(connection.condition, Condition::HalfOpen | Condition::Severed);
        if connection.is_some_and(is_silent) {
            // The other side is told nothing, and has to find out by itself.
            std::mem::forget(self.stream.take());
        }
    }
}

/// Takes the simulation's connections for the relay.
pub(crate) struct Listener(pub(crate) TcpListener);

impl relay::server::Listener for Listener {
    type Io = TcpStream;

    fn accept(&mut self) -> impl Future<Output = io::Result<(TcpStream, SocketAddr)>> + Send {
        self.0.accept()
    }
}
