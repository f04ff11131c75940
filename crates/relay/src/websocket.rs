//! The server's end of a WebSocket (RFC 6455), as bytes in and bytes out: no socket, no clock, no async.
//!
//! [`Decoder`] finds the messages in what a client sends, in place where they are whole, and refuses everything that the
//! RFC forbids. [`Connection`] adds what a server has to answer by itself: pongs, and the closing handshake. Frames to
//! clients are plain [`Bytes`] ([`text`]), so that one that goes to many is made once and shared.
//!
//! No extension is negotiated; compression is left out on purpose (what it saves on a network it costs per viewer).
//!
//! ```
//! use gastown_relay::websocket::{Connection, Incoming, text};
//!
//! let mut connection = Connection::new(1024);
//! // "hi", masked with zeros.
//! let mut bytes = [0x81, 0x82, 0, 0, 0, 0, b'h', b'i'];
//! let mut input = &mut bytes[..];
//! while let Some(incoming) = connection.receive(&mut input) {
//!     match incoming {
//!         Incoming::Text(message) => assert_eq!(message, "hi"),
//!         Incoming::Binary(_) | Incoming::SignOfLife | Incoming::Closed | Incoming::Fault(_) => panic!(),
//!     }
//! }
//! connection.send(text(b"welcome"));
//! let mut slices = [std::io::IoSlice::new(&[]); 4];
//! assert_eq!(connection.unsent(&mut slices).len(), 1);
//! connection.sent(9);
//! assert!(connection.is_all_sent());
//! ```

mod connection;
mod decoder;

use bytes::{BufMut as _, Bytes, BytesMut};

pub use connection::{Connection, Incoming};
pub use decoder::{Decoder, Received};

/// What a frame is (RFC 6455 §5.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Opcode {
    Continuation,
    Text,
    Binary,
    Close,
    Ping,
    Pong,
}

/// What a client did that RFC 6455 forbids, or more of it than is taken. The connection cannot go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// No frame of the protocol.
    #[error("protocol error: {0}")]
    Protocol(&'static str),
    /// Text that is not UTF-8.
    #[error("the text is not UTF-8")]
    NotUtf8,
    /// A message over the limit: known from its header, so that nothing of it is kept.
    #[error("the message has more than {limit} bytes")]
    TooLarge {
        /// Bytes of a message that are taken.
        limit: usize,
    },
}

impl Fault {
    /// The code to close with (RFC 6455 §7.4.1).
    #[must_use]
    pub fn close_code(&self) -> u16 {
        match self {
            Self::Protocol(_) => 1002,
            Self::NotUtf8 => 1007,
            Self::TooLarge { .. } => 1009,
        }
    }
}

/// A text message in one frame. The caller vouches that it is UTF-8.
#[must_use]
pub fn text(payload: &[u8]) -> Bytes {
    frame(Opcode::Text, payload)
}

/// The payload of a frame that [`text`] made.
#[must_use]
pub fn payload(frame: &Bytes) -> Bytes {
    let header = match frame.get(1) {
        Some(126) => 4,
        Some(127) => 10,
        Some(_) | None => 2,
    };
    frame.slice(header.min(frame.len())..)
}

/// A close frame; the reason is cut to what one holds (123 bytes).
pub(crate) fn close(code: Option<u16>, reason: &str) -> Bytes {
    let mut payload = Vec::new();
    if let Some(code) = code {
        payload.extend_from_slice(&code.to_be_bytes());
        payload.extend_from_slice(&reason.as_bytes()[..reason.floor_char_boundary(123)]);
    }
    frame(Opcode::Close, &payload)
}

pub(crate) fn frame(opcode: Opcode, payload: &[u8]) -> Bytes {
    let mut frame = begin(opcode, payload.len());
    frame.extend_from_slice(payload);
    frame.freeze()
}

fn begin(opcode: Opcode, len: usize) -> BytesMut {
    let mut frame = BytesMut::with_capacity(10 + len);
    frame.put_u8(0x80 | opcode.bits());
    match (u8::try_from(len), u16::try_from(len)) {
        (Ok(short @ ..126), _) => frame.put_u8(short),
        (_, Ok(medium)) => {
            frame.put_u8(126);
            frame.put_u16(medium);
        }
        (_, Err(_)) => {
            frame.put_u8(127);
            frame.put_u64(len as u64);
        }
    }
    frame
}

impl Opcode {
    fn of(bits: u8) -> Option<Self> {
        Some(match bits {
            0x0 => Self::Continuation,
            0x1 => Self::Text,
            0x2 => Self::Binary,
            0x8 => Self::Close,
            0x9 => Self::Ping,
            0xa => Self::Pong,
            _ => return None,
        })
    }

    fn bits(self) -> u8 {
        match self {
            Self::Continuation => 0x0,
            Self::Text => 0x1,
            Self::Binary => 0x2,
            Self::Close => 0x8,
            Self::Ping => 0x9,
            Self::Pong => 0xa,
        }
    }

    fn is_control(self) -> bool {
        match self {
            Self::Continuation | Self::Text | Self::Binary => false,
            Self::Close | Self::Ping | Self::Pong => true,
        }
    }
}

#[cfg(test)]
mod tests;
