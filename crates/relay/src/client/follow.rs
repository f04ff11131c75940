//! Drives a [`Session`] over tokio-tungstenite: opens WebSockets, moves frames, keeps the deadline.

use std::{
    future::pending,
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{
    SinkExt as _, Stream, StreamExt as _,
    stream::{self, BoxStream},
};
use protocol::{
    CloseCode, ErrorBody, LogId,
    codec::Frame as _,
    frame::{FromViewer, StartAt, ToViewer},
};
use tokio::{
    sync::watch,
    time::{Instant, timeout, timeout_at},
};
use tokio_tungstenite::{
    Connector, MaybeTlsStream, WebSocketStream, client_async_tls_with_config,
    tungstenite::{
        self, Message, Utf8Bytes,
        client::IntoClientRequest as _,
        http::{HeaderValue, Request, header},
        protocol::{CloseFrame, WebSocketConfig, frame::coding::CloseCode as WireCloseCode},
    },
};

use super::{
    Connection, FollowError, TicketError, dial,
    endpoint::Endpoint,
    session::{Action, Loss, Session},
    trust::explained,
};
use crate::Delivery;

/// How long to wait for the other side to confirm a close before the connection is dropped.
const CLOSE: Duration = Duration::from_secs(1);

type Socket = WebSocketStream<MaybeTlsStream<Box<dyn dial::Stream>>>;

/// The events of one log, each once and in order, over as many connections as it takes.
///
/// The stream yields [`Delivery`]s; an error is its last item and says why no reconnect can help. It ends without one
/// when the relay ended the subscription. [`Delivery::Subscribed`] and [`Delivery::Live`] come once per connection.
/// Nothing happens while nobody polls: what is not read waits in the log, not in memory. Dropping it disconnects.
pub struct Follow {
    deliveries: BoxStream<'static, Result<Delivery, FollowError>>,
    connection: watch::Receiver<Connection>,
}

impl Follow {
    pub(super) fn new(endpoint: Endpoint, log: LogId, from: Option<StartAt>, waits_for_log: bool) -> Self {
        let (report, connection) = watch::channel(Connection::Connecting);
        let start = Start { endpoint, log, from, waits_for_log, report };
        let deliveries = stream::unfold(Stage::Start(Box::new(start)), |stage| async move {
            let mut driver = match stage {
                Stage::Start(start) => Box::new(Driver::new(*start)),
                Stage::Running(driver) => driver,
                Stage::Over => return None,
            };
            match driver.next().await? {
                Ok(delivery) => Some((Ok(delivery), Stage::Running(driver))),
                Err(error) => Some((Err(error), Stage::Over)),
            }
        });
        Self { deliveries: deliveries.boxed(), connection }
    }

    /// How the connection stands, for people: whoever wants to show *reconnecting* watches this.
    #[must_use]
    pub fn connection(&self) -> watch::Receiver<Connection> {
        self.connection.clone()
    }
}

impl std::fmt::Debug for Follow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Follow").field("connection", &*self.connection.borrow()).finish_non_exhaustive()
    }
}

impl Stream for Follow {
    type Item = Result<Delivery, FollowError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.deliveries.poll_next_unpin(context)
    }
}

/// What the stream is made of: nothing happens before it is polled.
enum Stage {
    Start(Box<Start>),
    Running(Box<Driver>),
    Over,
}

struct Start {
    endpoint: Endpoint,
    log: LogId,
    from: Option<StartAt>,
    waits_for_log: bool,
    report: watch::Sender<Connection>,
}

struct Driver {
    endpoint: Endpoint,
    log: LogId,
    session: Session,
    socket: Option<Socket>,
    report: watch::Sender<Connection>,
}

impl Driver {
    fn new(start: Start) -> Self {
        let Start { endpoint, log, from, waits_for_log, report } = start;
        let session = Session::new(log.clone(), from, rand::random(), now());
        let session = if waits_for_log { session.waiting_for_log() } else { session };
        Self { endpoint, log, session, socket: None, report }
    }

    /// The next delivery; `None` when it is over.
    async fn next(&mut self) -> Option<Result<Delivery, FollowError>> {
        loop {
            while let Some(action) = self.session.poll() {
                self.show();
                match action {
                    Action::Deliver(delivery) => return Some(Ok(delivery)),
                    Action::Connect => self.connect().await,
                    Action::Send(frame) => self.send(text(&frame)).await,
                    Action::Ping => self.send(Message::Ping(Bytes::new())).await,
                    Action::Disconnect(code) => self.disconnect(code).await,
                    Action::End(error) => {
                        self.disconnect(CloseCode::NORMAL).await;
                        return error.map(Err);
                    }
                }
            }
            self.show();
            self.wait().await;
        }
    }

    /// Says how the connection stands, if that has changed.
    fn show(&self) {
        let connection = self.session.connection();
        self.report.send_if_modified(|shown| {
            let changed = *shown != connection;
            if changed {
                tracing::debug!(log = %self.log, ?connection, "the connection of a follower has changed");
                *shown = connection;
            }
            changed
        });
    }

    async fn connect(&mut self) {
        self.disconnect(CloseCode::NORMAL).await;
        let Some(deadline) = self.session.deadline() else { return };
        match timeout_at(deadline.into(), self.open()).await {
            Ok(Ok(socket)) => {
                self.socket = Some(socket);
                self.session.handle_connected(now());
            }
            Ok(Err(OpenError::Lost(loss))) => self.session.handle_lost(now(), loss),
            Ok(Err(OpenError::Final(error))) => self.session.handle_no_credentials(error),
            Err(_) => self.session.handle_timeout(now()),
        }
    }

    async fn open(&self) -> Result<Socket, OpenError> {
        let request = self.request().await?;
        let config = WebSocketConfig::default()
            .max_message_size(Some(ToViewer::MAX_BYTES))
            .max_frame_size(Some(ToViewer::MAX_BYTES));
        let connector = Connector::Rustls(self.endpoint.tls());
        let lost = |error: io::Error| OpenError::Lost(Loss::Network(explained(&error)));
        let stream = self.endpoint.dial().await.map_err(lost)?;
        let opened = client_async_tls_with_config(request, stream, Some(config), Some(connector)).await;
        opened.map(|(socket, _)| socket).map_err(|error| OpenError::Lost(refusal(&error)))
    }

    async fn request(&self) -> Result<Request<()>, OpenError> {
        let mut url = self.endpoint.stream_url();
        let credentials = self.endpoint.credentials();
        let token = match credentials.tickets() {
            Some(source) => {
                let ticket = source.ticket(&self.log).await.map_err(|error| self.without(error))?;
                url.query_pairs_mut().append_pair("ticket", ticket.reveal());
                None
            }
            None => credentials.token().await.map_err(|error| self.without(error))?,
        };
        let lost = |error: &dyn std::fmt::Display| OpenError::Lost(Loss::Network(error.to_string()));
        let mut request = url.as_str().into_client_request().map_err(|error| lost(&error))?;
        if let Some(token) = token {
            let mut value = HeaderValue::try_from(format!("Bearer {}", token.reveal())).map_err(|_| {
                OpenError::Final(FollowError::Unauthenticated {
                    log: self.log.clone(),
                    message: "the token holds characters that no header may hold".to_owned(),
                })
            })?;
            value.set_sensitive(true);
            request.headers_mut().insert(header::AUTHORIZATION, value);
        }
        Ok(request)
    }

    /// There is nothing to show: for now, or for good.
    fn without(&self, error: TicketError) -> OpenError {
        match error {
            TicketError::Unavailable { source } => {
                OpenError::Lost(Loss::Network(format!("no credentials could be had just now: {source}")))
            }
            source @ TicketError::Refused { .. } => {
                OpenError::Final(FollowError::NoTicket { log: self.log.clone(), source })
            }
        }
    }

    async fn send(&mut self, message: Message) {
        let Some(socket) = &mut self.socket else { return };
        if let Err(error) = socket.send(message).await {
            self.socket = None;
            self.session.handle_lost(now(), Loss::Network(error.to_string()));
        }
    }

    /// Closes the socket and reads on until the other side has confirmed, so that the close is a clean one.
    async fn disconnect(&mut self, code: CloseCode) {
        let Some(mut socket) = self.socket.take() else { return };
        let close = CloseFrame { code: WireCloseCode::from(code.0), reason: Utf8Bytes::default() };
        let closed = async {
            if socket.close(Some(close)).await.is_ok() {
                while let Some(Ok(_)) = socket.next().await {}
            }
        };
        // A peer that does not confirm is left behind: the connection goes when the socket is dropped.
        let _ = timeout(CLOSE, closed).await;
    }

    /// Waits for a message or the deadline. What has arrived counts before the deadline does, so that a reader that
    /// was away for long does not take its own silence for the server's.
    async fn wait(&mut self) {
        let deadline = self.session.deadline();
        let timeout = async {
            match deadline {
                Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
                None => pending().await,
            }
        };
        let message = async {
            match &mut self.socket {
                Some(socket) => socket.next().await,
                None => pending().await,
            }
        };
        tokio::select! {
            biased;
            message = message => self.received(message),
            () = timeout => self.session.handle_timeout(now()),
        }
    }

    fn received(&mut self, message: Option<Result<Message, tungstenite::Error>>) {
        match message {
            Some(Ok(Message::Text(text))) => self.read(text.as_bytes()),
            Some(Ok(Message::Binary(bytes))) => self.read(&bytes),
            Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {
                self.session.handle_sign_of_life(now())
            }
            Some(Ok(Message::Close(frame))) => {
                let (code, reason) = match frame {
                    Some(frame) => (CloseCode(frame.code.into()), frame.reason.to_string()),
                    None => (CloseCode(1005), "the server closed the connection without a reason".to_owned()),
                };
                self.session.handle_lost(now(), Loss::Closed(code, reason));
            }
            Some(Err(error)) => {
                self.socket = None;
                self.session.handle_lost(now(), Loss::Network(error.to_string()));
            }
            None => {
                self.socket = None;
                self.session.handle_lost(now(), Loss::Network("the connection broke off".to_owned()));
            }
        }
    }

    fn read(&mut self, text: &[u8]) {
        match ToViewer::decode(text) {
            Ok(frame) => self.session.handle_frame(now(), frame),
            Err(error) if moves_cursor(text) => self.session.handle_unreadable(now(), error.to_string()),
            Err(_) => self.session.handle_sign_of_life(now()),
        }
    }
}

fn text(frame: &FromViewer) -> Message {
    Message::Text(Utf8Bytes::try_from(frame.encode()).expect("a frame is JSON, and JSON is UTF-8"))
}

/// Why no WebSocket was opened.
enum OpenError {
    Lost(Loss),
    Final(FollowError),
}

/// An upgrade that was refused in the relay's own words (§4) means what its close code means. Everything else is taken for the
/// network: a proxy says 401, 403 or 502 while what is behind it is being changed.
fn refusal(error: &tungstenite::Error) -> Loss {
    let tungstenite::Error::Http(response) = error else { return Loss::Network(explained(error)) };
    let status = response.status();
    match ErrorBody::of_answer(status.as_u16(), response.body().as_deref().unwrap_or_default()) {
        Some(said) => Loss::Closed(said.code.close(), said.message),
        None if status.as_u16() == 429 => {
            Loss::Closed(CloseCode::RATE_LIMITED, format!("the server answered {status}"))
        }
        None => Loss::Network(format!("the server answered {status}")),
    }
}

/// Whether a frame that cannot be read would have moved the cursor. Any other is a later protocol's, and is let go by.
fn moves_cursor(text: &[u8]) -> bool {
    #[derive(serde::Deserialize)]
    struct Tag<'a> {
        #[serde(rename = "type")]
        tag: &'a str,
    }
    match serde_json::from_slice::<Tag<'_>>(text) {
        Ok(Tag { tag }) => matches!(tag, "subscribed" | "events" | "gap"),
        Err(_) => true,
    }
}

/// The one clock of this driver: tokio's, which a test can hold still.
fn now() -> std::time::Instant {
    Instant::now().into_std()
}

#[cfg(test)]
mod tests;
