//! One WebSocket to the relay: made, written and read with a limit on everything.

use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{
    SinkExt as _, StreamExt as _,
    stream::{SplitSink, SplitStream},
};
use protocol::{
    AgentId, CloseCode, ErrorBody,
    codec::Frame as _,
    frame::{FromWrapper, ToViewer, ToWrapper},
    limits,
};
use reqwest::Url;
use rustls::{ClientConfig, RootCertStore, crypto::ring};
use rustls_platform_verifier::BuilderVerifierExt as _;
use tokio::{sync::mpsc, time::timeout};
use tokio_tungstenite::{
    Connector, MaybeTlsStream, WebSocketStream, client_async_tls_with_config,
    tungstenite::{
        self, Message, Utf8Bytes,
        client::IntoClientRequest as _,
        http::{HeaderValue, header},
        protocol::{CloseFrame, WebSocketConfig, frame::coding::CloseCode as WireCloseCode},
    },
};

use super::{Dial, LinkError, Token, dial::Io};

/// Frames that wait to be written: what fits goes out with one flush.
const FRAMES: usize = 16;
/// Bytes that are read at once. All of them are zeroed for each look whether something came, and what a relay says is short.
const READ_BUFFER: usize = 4 * 1024;
/// A flush that takes longer has a dead peer.
const WRITE: Duration = Duration::from_millis(limits::DEAD_MS);
/// How long to wait for the other side's last words before the connection is dropped.
const CLOSE: Duration = Duration::from_secs(1);

type Socket = WebSocketStream<MaybeTlsStream<Box<dyn Io>>>;

/// Where something of the relay is, and how to get there. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Endpoint {
    url: Url,
    /// Bytes of the largest message that may come.
    largest: usize,
    token: Token,
    tls: Arc<ClientConfig>,
    dial: Arc<dyn Dial>,
}

/// An open connection.
pub(super) struct Connection {
    reader: SplitStream<Socket>,
    frames: mpsc::Sender<Message>,
    /// Absent when it failed or is through.
    writer: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

/// How a connection ended, by the peer's word if it gave one.
pub(super) type Closed = Option<(CloseCode, String)>;

/// What happened on a connection.
#[derive(Debug)]
pub(super) enum Heard {
    Text(Utf8Bytes),
    /// A ping or a pong.
    Alive,
    /// There is room for a frame.
    Room,
    Closed(Closed),
}

impl Endpoint {
    /// Where links go.
    pub(super) fn of_link(relay: &str, token: Token, dial: Arc<dyn Dial>) -> Result<Self, LinkError> {
        Self::new(relay, "/v1/ingest", ToWrapper::MAX_BYTES, token, dial)
    }

    /// Where an agent's log is read.
    pub(super) fn of_log(
        relay: &str,
        agent: &AgentId,
        token: Token,
        dial: Arc<dyn Dial>,
    ) -> Result<Self, LinkError> {
        Self::new(relay, &format!("/v1/agents/{agent}/stream"), ToViewer::MAX_BYTES, token, dial)
    }

    fn new(
        relay: &str,
        path: &str,
        largest: usize,
        token: Token,
        dial: Arc<dyn Dial>,
    ) -> Result<Self, LinkError> {
        let wrong = || LinkError::Url { url: relay.to_owned() };
        let mut url = Url::parse(relay).map_err(|_| wrong())?;
        let scheme = match url.scheme() {
            "http" | "ws" => "ws",
            "https" | "wss" => "wss",
            _ => return Err(wrong()),
        };
        if url.host().is_none() || url.set_scheme(scheme).is_err() {
            return Err(wrong());
        }
        url.set_query(None);
        url.set_fragment(None);
        let path = format!("{}{path}", url.path().trim_end_matches('/'));
        url.set_path(&path);
        Ok(Self { url, largest, token, tls: Arc::new(tls(scheme == "wss")?), dial })
    }

    /// Connects. A refusal of the upgrade in the relay's own words counts as a close with the code that goes with them (§8).
    pub(super) async fn connect(self) -> Result<Connection, Closed> {
        let mut request = self.url.as_str().into_client_request().map_err(|error| refusal(&error))?;
        let mut value = HeaderValue::try_from(format!("Bearer {}", self.token.reveal())).map_err(|_| {
            Some((CloseCode::UNAUTHENTICATED, "the token holds what no header may hold".to_owned()))
        })?;
        value.set_sensitive(true);
        request.headers_mut().insert(header::AUTHORIZATION, value);
        let config = WebSocketConfig::default()
            .max_message_size(Some(self.largest))
            .max_frame_size(Some(self.largest))
            .read_buffer_size(READ_BUFFER)
            .max_write_buffer_size(4 * FromWrapper::MAX_BYTES);
        let host = self.url.host_str().unwrap_or_default().trim_matches(['[', ']']);
        let port = self.url.port_or_known_default().unwrap_or_default();
        let stream = self.dial.dial(host, port).await.map_err(|error| refusal(&error.into()))?;
        let connector = Connector::Rustls(self.tls);
        let (socket, _) = client_async_tls_with_config(request, stream, Some(config), Some(connector))
            .await
            .map_err(|error| refusal(&error))?;
        Ok(Connection::new(socket))
    }
}

impl Connection {
    fn new(socket: Socket) -> Self {
        let (sink, reader) = socket.split();
        let (frames, queue) = mpsc::channel(FRAMES);
        Self { reader, frames, writer: Some(Box::pin(write(sink, queue))) }
    }

    /// Whether a frame may be handed in.
    pub(super) fn has_room(&self) -> bool {
        self.frames.capacity() > 0
    }

    /// Hands in a frame, which [`Self::next`] writes. False if there is no room.
    pub(super) fn send(&self, frame: &FromWrapper) -> bool {
        let text = Utf8Bytes::try_from(frame.encode()).expect("a frame is JSON, and JSON is UTF-8");
        self.frames.try_send(Message::Text(text)).is_ok()
    }

    /// Asks the peer for a sign of life, if there is room; if not, the write that waits shows whether there is one.
    pub(super) fn ping(&self) {
        let _ = self.frames.try_send(Message::Ping(Bytes::new()));
    }

    /// Writes and reads until something happened. Cancel-safe.
    pub(super) async fn next(&mut self) -> Heard {
        let full = !self.has_room();
        let written = async {
            match &mut self.writer {
                Some(writer) => writer.await,
                None => std::future::pending().await,
            }
        };
        let message = tokio::select! {
            // What the peer said counts before a failed write does: its close code says why.
            biased;
            message = self.reader.next() => Some(message),
            () = written => None,
            Ok(_) = self.frames.reserve(), if full => return Heard::Room,
        };
        match message {
            Some(message) => self.heard(message).await,
            None => {
                self.writer = None;
                Heard::Closed(self.last_words().await)
            }
        }
    }

    /// Writes what was handed in, says why it closes, and waits a moment for the peer to do the same.
    pub(super) async fn close(mut self, code: CloseCode, reason: &str) {
        let frame = CloseFrame { code: WireCloseCode::from(code.0), reason: reason.into() };
        let said = async {
            let Some(writer) = self.writer.take() else { return };
            if self.frames.try_send(Message::Close(Some(frame))).is_err() {
                return;
            }
            // The writer ends when it has written all that was handed in.
            drop(self.frames);
            tokio::join!(writer, async { while let Some(Ok(_)) = self.reader.next().await {} });
        };
        // A peer that does not confirm is left behind: the connection goes when the socket is dropped.
        let _ = timeout(2 * CLOSE, said).await;
    }

    async fn heard(&mut self, message: Option<Result<Message, tungstenite::Error>>) -> Heard {
        match message {
            Some(Ok(Message::Text(text))) => Heard::Text(text),
            Some(Ok(Message::Close(frame))) => {
                // Reading on sends the confirmation.
                let _ = timeout(CLOSE, async { while let Some(Ok(_)) = self.reader.next().await {} }).await;
                Heard::Closed(frame.map(|frame| (CloseCode(frame.code.into()), frame.reason.to_string())))
            }
            Some(Ok(Message::Binary(_) | Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {
                Heard::Alive
            }
            Some(Err(error)) => {
                tracing::debug!(%error, "the link broke");
                Heard::Closed(None)
            }
            None => Heard::Closed(None),
        }
    }

    async fn last_words(&mut self) -> Closed {
        let close = async {
            while let Some(Ok(message)) = self.reader.next().await {
                if let Message::Close(Some(frame)) = message {
                    return Some((CloseCode(frame.code.into()), frame.reason.to_string()));
                }
            }
            None
        };
        timeout(CLOSE, close).await.unwrap_or_default()
    }
}

/// Writes frames, as many as wait with one flush, until the connection fails, the peer takes nothing, or there are no more.
async fn write(mut sink: SplitSink<Socket, Message>, mut frames: mpsc::Receiver<Message>) {
    while let Some(first) = frames.recv().await {
        let round = async {
            sink.feed(first).await?;
            while let Ok(frame) = frames.try_recv() {
                sink.feed(frame).await?;
            }
            sink.flush().await
        };
        match timeout(WRITE, round).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return tracing::debug!(%error, "the link takes nothing any more"),
            Err(_) => return tracing::debug!("the relay accepted no byte for 45 s"),
        }
    }
}

/// What a failed connect says. A refusal is the relay's own if it is in the relay's words (§4): a proxy says 401, 403 or 400 while
/// what is behind it is being changed.
fn refusal(error: &tungstenite::Error) -> Closed {
    if let tungstenite::Error::Http(response) = error {
        let (status, body) = (response.status(), response.body().as_deref().unwrap_or_default());
        let said = ErrorBody::of_answer(status.as_u16(), body);
        if said.is_none() {
            tracing::warn!(%status, "the relay's address is answered by something else");
        }
        return said.map(|said| (said.code.close(), said.message));
    }
    if is_bad_certificate(error) {
        tracing::error!(
            %error,
            "the relay's certificate is not good: if its CA is one of your own, name its file by SSL_CERT_FILE"
        );
    } else {
        tracing::debug!(%error, "the relay cannot be reached");
    }
    None
}

fn is_bad_certificate(error: &tungstenite::Error) -> bool {
    let tungstenite::Error::Io(error) = error else { return false };
    let tls = error.get_ref().and_then(|error| error.downcast_ref());
    matches!(tls, Some(rustls::Error::InvalidCertificate(_)))
}

/// The system's root certificates where TLS is used; nothing is read from disk where it is not.
fn tls(used: bool) -> Result<ClientConfig, LinkError> {
    let failed = |source| LinkError::Tls { source };
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(failed)?;
    let builder = if used {
        builder.with_platform_verifier().map_err(failed)?
    } else {
        builder.with_root_certificates(RootCertStore::empty())
    };
    Ok(builder.with_no_client_auth())
}

#[cfg(test)]
mod tests;
