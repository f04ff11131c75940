//! The accept loop: `axum::serve` has neither header timeouts nor caps.

mod connection;
mod exchange;

use std::{future::Future, io, net::SocketAddr, time::Duration};

use axum::{Router, extract::ConnectInfo};
use hyper::{
    Request,
    body::Incoming,
    server::conn::http1,
    service::{Service as _, service_fn},
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use protocol::limits;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::Instrument as _;

use self::connection::Connection;
use super::{ViewerLimits, crowd::Crowd};

/// Connections that may wait to be accepted: a fleet that comes back at once. The system drops what comes beyond, and
/// the other side tries again after a second; by default it lets 128 wait.
const WAITING: i32 = 4096;
/// Bytes of the smallest read buffer that hyper takes.
const READ_BUFFER: usize = 8 * 1024;
/// The connection has its own timers. With one of its own hyper reads on as soon as an answer is done, which starts them.
const NEVER: Duration = Duration::from_secs(24 * 3600);
/// Time before accepting again after the system had no descriptor left.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// Connections beside streams: links, pages, who is refused.
const BESIDE: usize = 4_000;
/// Those of one address.
const BESIDE_OF_ADDRESS: usize = 256;

/// What one listener takes (§11).
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct ServeLimits {
    /// Time for a request's header: from the connection on, and for later requests from its first byte on.
    pub header_timeout: Duration,
    /// Time for the next request on a connection that is kept.
    pub idle_timeout: Duration,
    /// Headers of a request.
    pub headers: usize,
    /// Bytes of a request's header.
    pub header_bytes: usize,
    /// Connections in all: streams ([`super::ViewerLimits`]), links, and what else asks.
    pub connections: usize,
    /// Connections of one address that is not loopback. One more is closed at once, where one stream more is told why.
    pub per_address: usize,
    /// Time for connections to end after the shutdown began.
    pub drain: Duration,
}

impl Default for ServeLimits {
    fn default() -> Self {
        Self {
            header_timeout: Duration::from_millis(limits::HEADER_MS),
            idle_timeout: Duration::from_millis(limits::IDLE_MS),
            headers: limits::HEADERS,
            header_bytes: limits::HEADER_BYTES,
            connections: 0,
            per_address: 0,
            drain: Duration::from_millis(limits::DRAIN_MS),
        }
        .for_viewers(&ViewerLimits::default())
    }
}

impl ServeLimits {
    /// The same, with room for these streams, for links and for other requests beside them.
    #[must_use]
    pub fn for_viewers(mut self, viewers: &ViewerLimits) -> Self {
        self.connections = viewers.in_all + BESIDE;
        self.per_address = viewers.per_address + BESIDE_OF_ADDRESS;
        self
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
/// streams too, at most [`ServeLimits::drain`]; requests that still run then are cut. Streams end when
/// [`super::Relay::drain`] is called: call both at once.
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
    let crowd = Crowd::new(limits.connections, limits.per_address);
    let (tracker, ending, over) = (TaskTracker::new(), CancellationToken::new(), CancellationToken::new());
    let mut shutdown = std::pin::pin!(shutdown);
    let mut accepted_so_far = 0_u64;
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut shutdown => break,
        };
        match accepted {
            Ok((stream, peer)) => {
                let Ok(place) = crowd.admit(Some(peer.ip())) else { continue };
                let connection = Connection::new(stream, limits, place);
                accepted_so_far += 1;
                let span = tracing::info_span!("connection", conn = accepted_so_far, %peer);
                let conversation = converse(connection, peer, router.clone(), limits, ending.clone());
                let conversation = over.clone().run_until_cancelled_owned(conversation);
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
        crowd.all_gone().await;
    };
    if tokio::time::timeout(limits.drain, all_ended).await.is_err() {
        tracing::warn!(left = tracker.len(), "some connections did not end in time");
        over.cancel();
        tracker.wait().await;
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
    let exchange = connection.exchange().clone();
    let router = TowerToHyperService::new(router);
    let service = service_fn(move |mut request: Request<Incoming>| {
        exchange.asked();
        // As an extension of the request: a layer would have every route made anew for each connection.
        request.extensions_mut().insert(ConnectInfo(peer));
        let (exchange, response) = (exchange.clone(), router.call(request));
        async move { response.await.map(|response| exchange.answered(response)) }
    });
    let conversation = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(NEVER)
        .max_headers(limits.headers)
        .max_header_size(limits.header_bytes)
        .max_buf_size(limits.header_bytes.max(READ_BUFFER))
        .serve_connection(TokioIo::new(connection), service)
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

#[cfg(test)]
mod tests {
    use std::{convert::Infallible, future::pending};

    use axum::{body::Body, routing::get};
    use futures_util::{StreamExt as _, stream};
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex},
        sync::mpsc,
        task::JoinHandle,
        time::{Instant, sleep},
    };

    use super::*;

    const REQUEST: &[u8] = b"GET /quick HTTP/1.1\r\nhost: localhost\r\n\r\n";
    /// What a client may leave unread.
    const PIPE: usize = 1024;

    #[tokio::test(start_paused = true)]
    async fn p20_a_kept_connection_rests_for_15_s_and_then_has_5_s_for_a_header() {
        let served = Served::start();
        let mut client = served.connect();
        for rest in [0, 14, 14] {
            sleep(Duration::from_secs(rest)).await;
            client.write_all(&REQUEST[..3]).await.unwrap();
            sleep(Duration::from_secs(4)).await;
            client.write_all(&REQUEST[3..]).await.unwrap();
            assert_eq!(client.answer().await, "done", "after {rest} s");
        }
        assert_eq!(client.closed_after_s().await, 15, "it rests for too long");
        let mut client = served.connect();
        assert_eq!(client.closed_after_s().await, 5, "no header has begun");
        let mut client = served.connect();
        client.write_all(REQUEST).await.unwrap();
        client.answer().await;
        sleep(Duration::from_secs(14)).await;
        client.write_all(&REQUEST[..3]).await.unwrap();
        assert_eq!(client.closed_after_s().await, 5, "the second header dribbles");
    }

    #[tokio::test]
    async fn p20_a_header_that_comes_in_pieces_has_the_same_limit() {
        let limit = ServeLimits::default().header_bytes;
        for (bytes, status) in [(limit, "200"), (limit + 1, "431")] {
            let served = Served::start();
            let mut client = served.connect();
            let mut request = "GET /quick HTTP/1.1\r\nhost: localhost\r\nx: \r\n\r\n".to_owned();
            request.insert_str(request.len() - 4, &"x".repeat(bytes - request.len()));
            // What it has refused it does not read.
            let _ = client.write_all(request.as_bytes()).await;
            let mut answer = [0; 12];
            client.read_exact(&mut answer).await.unwrap();
            assert_eq!(String::from_utf8_lossy(&answer), format!("HTTP/1.1 {status}"), "{bytes}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_takes_long_to_make_or_to_take_is_whole() {
        let served = Served::start();
        for path in ["slow", "large"] {
            let mut client = served.connect();
            let request = format!("GET /{path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
            client.write_all(request.as_bytes()).await.unwrap();
            let mut answer = Vec::new();
            while client.read_buf(&mut answer).await.unwrap() > 0 {
                sleep(Duration::from_secs(10)).await;
            }
            assert!(answer.ends_with(b"whole"), "{path}: {} bytes", answer.len());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn p8_an_answer_of_which_nothing_is_taken_for_60_s_is_cut() {
        let served = Served::start();
        for path in ["large", "stream"] {
            let mut client = served.connect();
            let request = format!("GET /{path} HTTP/1.1\r\nhost: localhost\r\n\r\n");
            client.write_all(request.as_bytes()).await.unwrap();
            let began = Instant::now();
            // Its half of the pipe is written to in vain once the other one is gone.
            while client.write_all(b"x").await.is_ok() {
                sleep(Duration::from_secs(1)).await;
            }
            assert!((60..=61).contains(&began.elapsed().as_secs()), "{path}: {:?}", began.elapsed());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn p15_a_server_that_ends_waits_for_what_runs_10_s_and_no_longer() {
        for (path, ends_after_s, answer) in [("slow", 7, Some("whole")), ("never", 10, None)] {
            let served = Served::start();
            let mut client = served.connect();
            let request = format!("GET /{path} HTTP/1.1\r\nhost: localhost\r\n\r\n");
            client.write_all(request.as_bytes()).await.unwrap();
            sleep(Duration::from_secs(33)).await;
            let began = Instant::now();
            let read = tokio::spawn(async move {
                let mut answer = String::new();
                // A connection that is cut may end in an error.
                let _ = client.read_to_string(&mut answer).await;
                answer
            });
            served.stop().await;
            assert_eq!(began.elapsed().as_secs(), ends_after_s, "{path}");
            let read = read.await.unwrap();
            assert_eq!(
                answer.is_some(),
                answer.is_some_and(|answer| read.ends_with(answer)),
                "{path}: {read}"
            );
        }
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

    /// A server over pipes in memory, so that the clock may be paused.
    struct Served {
        connect: mpsc::Sender<DuplexStream>,
        shutdown: CancellationToken,
        serving: JoinHandle<io::Result<()>>,
    }

    struct Pipes(mpsc::Receiver<DuplexStream>);

    impl Listener for Pipes {
        type Io = DuplexStream;

        async fn accept(&mut self) -> io::Result<(DuplexStream, SocketAddr)> {
            match self.0.recv().await {
                Some(pipe) => Ok((pipe, SocketAddr::from(([127, 0, 0, 1], 1)))),
                None => pending().await,
            }
        }
    }

    impl Served {
        fn start() -> Self {
            let slow = || async {
                sleep(Duration::from_secs(40)).await;
                "whole"
            };
            let large = || async { format!("{}whole", "x".repeat(20 * PIPE)) };
            let never = || async {
                let body = stream::iter(["begun"]).chain(stream::pending());
                Body::from_stream(body.map(Ok::<_, Infallible>))
            };
            let endless = || async {
                let body = stream::repeat("x".repeat(PIPE));
                Body::from_stream(body.map(Ok::<_, Infallible>))
            };
            let router = Router::new()
                .route("/stream", get(endless))
                .route("/quick", get(|| async { "done" }))
                .route("/slow", get(slow))
                .route("/large", get(large))
                .route("/never", get(never));
            let (connect, pipes) = mpsc::channel(8);
            let shutdown = CancellationToken::new();
            let limits = ServeLimits::default();
            let serving =
                tokio::spawn(serve(Pipes(pipes), router, limits, shutdown.clone().cancelled_owned()));
            Self { connect, shutdown, serving }
        }

        fn connect(&self) -> DuplexStream {
            let (client, server) = duplex(PIPE);
            self.connect.try_send(server).unwrap();
            client
        }

        async fn stop(self) {
            self.shutdown.cancel();
            self.serving.await.unwrap().unwrap();
        }
    }

    trait Client {
        /// The body of an answer that says its length.
        async fn answer(&mut self) -> String;
        /// Reads to the end, and says after how many seconds it came.
        async fn closed_after_s(&mut self) -> u64;
    }

    impl Client for DuplexStream {
        async fn answer(&mut self) -> String {
            let mut answer = String::new();
            while !answer.ends_with("done") {
                let mut piece = [0; PIPE];
                let read = self.read(&mut piece).await.unwrap();
                assert!(read > 0, "it was closed after {answer:?}");
                answer.push_str(std::str::from_utf8(&piece[..read]).unwrap());
            }
            answer.split_off(answer.len() - 4)
        }

        async fn closed_after_s(&mut self) -> u64 {
            let began = Instant::now();
            let mut rest = Vec::new();
            // A reset is an end as well.
            let _ = self.read_to_end(&mut rest).await;
            assert!(rest.is_empty(), "{}", String::from_utf8_lossy(&rest));
            began.elapsed().as_secs()
        }
    }
}
