//! WebSockets within limits: how they are accepted, refused and closed.

use std::{error::Error as _, time::Duration};

use axum::{
    extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket, WebSocketUpgrade},
    response::Response,
};
use bytes::Bytes;
use protocol::{CloseCode, ErrorCode, ErrorDetail, codec::Frame as _, frame::ToViewer, limits};
use tungstenite::error::{CapacityError, Error as WsError};

use super::Relay;
use crate::viewer::close_reason;

/// A read buffer is taken with the upgrade: it is most of what an idle viewer costs.
const READ_BUFFER: usize = 4 * 1024;
/// Small frames up to this leave together.
const WRITE_BUFFER: usize = 16 * 1024;
/// Never reached: a frame is offered when the one before it has left the buffer, and holds one read or one event.
const WRITE_BUFFER_MAX: usize = 8 * limits::BATCH_BYTES;
/// Time for the other side to answer a close.
const CLOSE_WITHIN: Duration = Duration::from_secs(2);

/// An upgrade whose messages have at most a little more than `max_bytes`: one that is over the protocol's limit is
/// still read, and answered with its code.
pub(super) fn limited(upgrade: WebSocketUpgrade, max_bytes: usize) -> WebSocketUpgrade {
    upgrade
        .max_message_size(max_bytes + READ_BUFFER)
        .max_frame_size(max_bytes + READ_BUFFER)
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(WRITE_BUFFER)
        .max_write_buffer_size(WRITE_BUFFER_MAX)
}

/// Upgrades and closes at once, with the code that says why (§4).
pub(super) fn refuse(relay: &Relay, upgrade: WebSocketUpgrade, why: ErrorDetail) -> Response {
    let token = relay.tracker().token();
    limited(upgrade, limits::VIEWER_FRAME_BYTES).on_upgrade(move |mut socket| async move {
        let _token = token;
        let close = why.code.close();
        let ErrorDetail { code, message, retry_after_ms } = why;
        let reason = message.clone();
        let error = ToViewer::Error { code, message, log: None, retry_after_ms };
        if let Ok(Ok(())) = tokio::time::timeout(CLOSE_WITHIN, socket.send(text(error.encode()))).await {
            self::close(&mut socket, close, &reason).await;
        }
    })
}

/// A text message of a frame that was encoded.
pub(super) fn text(frame: Bytes) -> Message {
    Message::Text(Utf8Bytes::try_from(frame).expect("a frame is JSON, and JSON is UTF-8"))
}

/// Closes, and reads on until the other side has answered: otherwise the close is not clean.
pub(super) async fn close(socket: &mut WebSocket, code: CloseCode, reason: &str) {
    let frame = CloseFrame { code: code.0, reason: close_reason(reason).into() };
    let closing = async {
        socket.send(Message::Close(Some(frame))).await?;
        while let Some(message) = socket.recv().await {
            message?;
        }
        Ok::<_, axum::Error>(())
    };
    // Who does not answer is gone already.
    let _ = tokio::time::timeout(CLOSE_WITHIN, closing).await;
}

/// What the other side did wrong; `None` if the connection is just gone.
pub(super) fn fault_of(error: &axum::Error) -> Option<ErrorDetail> {
    let found = error.source().and_then(|source| source.downcast_ref::<WsError>());
    match found {
        Some(WsError::Capacity(CapacityError::MessageTooLong { size, max_size })) => {
            let message = format!("the message has {size} bytes, at most {max_size} are taken");
            Some(ErrorDetail::new(ErrorCode::TooLarge, message))
        }
        Some(WsError::Capacity(_)) => Some(ErrorDetail::new(ErrorCode::TooLarge, "the message is too large")),
        Some(WsError::Utf8(_)) => Some(ErrorDetail::new(ErrorCode::BadRequest, "the text is not UTF-8")),
        Some(WsError::Protocol(tungstenite::error::ProtocolError::ResetWithoutClosingHandshake)) => None,
        Some(WsError::Protocol(error)) => Some(ErrorDetail::new(ErrorCode::BadRequest, error.to_string())),
        Some(_) | None => None,
    }
}
