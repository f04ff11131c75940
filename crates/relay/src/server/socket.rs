//! WebSockets over whatever stream hyper was given: the upgrade, by hand, and reading and writing without a copy.

use std::{
    cell::RefCell,
    future::{Future, poll_fn},
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::{
    extract::FromRequestParts,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header, request::Parts},
    response::{IntoResponse as _, Response},
};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use protocol::{ErrorCode, ErrorDetail, codec::Frame as _, frame::ToViewer, limits};
use sha1::{Digest as _, Sha1};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tracing::Instrument as _;

use super::{Relay, crowd::Place, problem::Problem};
use crate::websocket::{self, Connection, Incoming};

/// Pieces of one write.
pub(super) const PIECES: usize = 32;
/// Bytes of one read. The buffer is shared by all sockets of a thread: one that is idle has none.
const READ_BYTES: usize = 64 * 1024;
/// Time for both sides to close.
pub(super) const CLOSE_WITHIN: Duration = Duration::from_secs(2);

/// The stream below a WebSocket, and the place that it takes.
#[derive(Debug)]
pub(super) struct Io {
    stream: TokioIo<Upgraded>,
    place: Option<Place>,
}

/// A request that asks for a WebSocket (RFC 6455 §4.2.1).
pub(super) struct Upgrade {
    accept: HeaderValue,
    upgraded: OnUpgrade,
    place: Option<Place>,
}

impl<S: Sync> FromRequestParts<S> for Upgrade {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Response> {
        std::future::ready(Self::of(parts)).await
    }
}

impl Upgrade {
    /// Takes the upgrade out of a request; the answer to one that asks for none, or for another.
    #[expect(clippy::result_large_err, reason = "a rejection is a response, as everywhere in axum")]
    pub(super) fn of(parts: &mut Parts) -> Result<Self, Response> {
        let headers = &parts.headers;
        let names = |name, word| values(headers, &name).any(|value| value.trim().eq_ignore_ascii_case(word));
        let refused = |message: &str| Problem::new(ErrorCode::BadRequest, message).into_response();
        if !names(header::CONNECTION, "upgrade") || !names(header::UPGRADE, "websocket") {
            return Err(refused("this route is a WebSocket: ask for an upgrade"));
        }
        if !names(header::SEC_WEBSOCKET_VERSION, "13") {
            let mut response = refused("this relay speaks version 13 of WebSocket");
            *response.status_mut() = StatusCode::UPGRADE_REQUIRED;
            response.headers_mut().insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
            return Err(response);
        }
        let key = headers.get(header::SEC_WEBSOCKET_KEY).map(HeaderValue::as_bytes);
        let key = key.filter(|key| BASE64_STANDARD.decode(key).is_ok_and(|nonce| nonce.len() == 16));
        let accept = key.map(accept_of).ok_or_else(|| refused("Sec-WebSocket-Key is no key"))?;
        let upgraded = parts.extensions.remove::<OnUpgrade>();
        let upgraded = upgraded.ok_or_else(|| refused("this connection cannot be upgraded"))?;
        Ok(Self { accept, upgraded, place: None })
    }

    /// The same, which takes this place for as long as it is open.
    pub(super) fn at(mut self, place: Place) -> Self {
        self.place = Some(place);
        self
    }

    /// Answers 101, and has the stream served once that answer has left.
    pub(super) fn accept<F>(self, relay: &Relay, serve: impl FnOnce(Io) -> F + Send + 'static) -> Response
    where
        F: Future<Output = ()> + Send,
    {
        let Self { accept, upgraded, place } = self;
        let served = async move {
            match upgraded.await {
                Ok(upgraded) => serve(Io { stream: TokioIo::new(upgraded), place }).await,
                Err(error) => tracing::debug!(%error, "a connection ended before it was upgraded"),
            }
        };
        relay.tracker().spawn(served.in_current_span());
        let headers = [
            (header::CONNECTION, HeaderValue::from_static("upgrade")),
            (header::UPGRADE, HeaderValue::from_static("websocket")),
            (header::SEC_WEBSOCKET_ACCEPT, accept),
        ];
        (StatusCode::SWITCHING_PROTOCOLS, headers).into_response()
    }

    /// Upgrades and closes at once, with the code that says why (§4): browsers hide a status.
    pub(super) fn refuse(self, relay: &Relay, why: ErrorDetail) -> Response {
        self.accept(relay, async move |io| {
            let mut socket = Socket::new(io, limits::VIEWER_FRAME_BYTES);
            let close = why.code.close();
            let ErrorDetail { code, message, retry_after_ms } = why;
            let reason = message.clone();
            let error = ToViewer::Error { code, message, log: None, retry_after_ms };
            socket.frames.send(websocket::text(&error.encode()));
            socket.frames.close(close.0, &reason);
            socket.finish().await;
        })
    }
}

fn values<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','))
}

/// What proves that the key was read (RFC 6455 §4.2.2).
fn accept_of(key: &[u8]) -> HeaderValue {
    let digest =
        Sha1::new().chain_update(key).chain_update("258EAFA5-E914-47DA-95CA-C5AB0DC85B11").finalize();
    HeaderValue::try_from(BASE64_STANDARD.encode(digest)).expect("base64 may stand in a header")
}

/// A WebSocket: its stream, and what is on its way in and out.
#[derive(Debug)]
pub(super) struct Socket {
    io: TokioIo<Upgraded>,
    _place: Option<Place>,
    pub(super) frames: Connection,
    /// The stream may hold back what was written.
    flush: bool,
}

/// The stream ended, or failed.
#[derive(Debug)]
pub(super) struct Gone;

thread_local! {
    static READ: RefCell<Vec<u8>> = RefCell::new(vec![0; READ_BYTES]);
}

impl Socket {
    /// For messages of at most `limit` bytes.
    pub(super) fn new(io: Io, limit: usize) -> Self {
        let Io { stream: io, place } = io;
        Self { io, _place: place, frames: Connection::new(limit), flush: false }
    }

    /// Reads once, and passes on each message that is whole.
    pub(super) fn poll_receive(
        &mut self,
        context: &mut Context<'_>,
        mut hear: impl FnMut(Incoming<'_>),
    ) -> Poll<Result<(), Gone>> {
        READ.with_borrow_mut(|bytes| {
            let mut buffer = ReadBuf::new(bytes);
            match ready!(Pin::new(&mut self.io).poll_read(context, &mut buffer)) {
                Ok(()) if !buffer.filled().is_empty() => {}
                Ok(()) | Err(_) => return Poll::Ready(Err(Gone)),
            }
            let mut input = buffer.filled_mut();
            while let Some(incoming) = self.frames.receive(&mut input) {
                hear(incoming);
            }
            Poll::Ready(Ok(()))
        })
    }

    /// Writes what is to be sent, as far as the stream takes it: `progress` counts the bytes.
    pub(super) fn poll_send(
        &mut self,
        context: &mut Context<'_>,
        progress: &mut usize,
    ) -> Poll<Result<(), Gone>> {
        while !self.frames.is_all_sent() {
            let mut slices = [IoSlice::new(&[]); PIECES];
            let written = match self.frames.unsent(&mut slices) {
                // The system has a shorter way for a single piece.
                [piece] => Pin::new(&mut self.io).poll_write(context, piece),
                pieces => Pin::new(&mut self.io).poll_write_vectored(context, pieces),
            };
            match ready!(written) {
                Ok(bytes) if bytes > 0 => {
                    *progress += bytes;
                    self.flush = true;
                    self.frames.sent(bytes);
                }
                Ok(_) | Err(_) => return Poll::Ready(Err(Gone)),
            }
        }
        if self.flush {
            if ready!(Pin::new(&mut self.io).poll_flush(context)).is_err() {
                return Poll::Ready(Err(Gone));
            }
            self.flush = false;
        }
        Poll::Ready(Ok(()))
    }

    /// Ends the server's half of the stream.
    pub(super) fn poll_shutdown(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }

    /// Sends everything.
    pub(super) async fn send_all(&mut self) -> Result<(), Gone> {
        poll_fn(|context| self.poll_send(context, &mut 0)).await
    }

    /// Sends the rest, close included, and reads on until the other side has closed as well: otherwise the close is not
    /// a clean one. Who does not answer in time is gone already.
    pub(super) async fn finish(mut self) {
        let closing = async {
            self.send_all().await?;
            while !self.frames.is_over() {
                poll_fn(|context| self.poll_receive(context, |_| {})).await?;
                self.send_all().await?;
            }
            poll_fn(|context| self.poll_shutdown(context)).await.map_err(|_| Gone)?;
            loop {
                poll_fn(|context| self.poll_receive(context, |_| {})).await?;
            }
        };
        let _: Result<Result<std::convert::Infallible, Gone>, _> =
            tokio::time::timeout(CLOSE_WITHIN, closing).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_of_the_rfc_has_the_answer_of_the_rfc() {
        assert_eq!(accept_of(b"dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }
}
