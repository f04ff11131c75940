//! What a server says by itself: pongs, and its half of the closing handshake (RFC 6455 §5.5, §7).

use std::{collections::VecDeque, io::IoSlice};

use bytes::{Buf as _, Bytes};

use super::{Decoder, Fault, Opcode, Received, close, frame};

/// Pings are answered one by one while fewer frames than this wait to be sent.
const PONGS: usize = 32;
/// A queue that was longer than this gives its memory back when it is empty.
const KEEP_FRAMES: usize = 4;

/// One client's connection, seen from the server: what came in, and what is to go out.
#[derive(Debug)]
pub struct Connection {
    decoder: Decoder,
    out: VecDeque<Bytes>,
    /// Part of the first of them was written.
    begun: bool,
    /// The answer to the newest ping, where there were too many: the others need none (§5.5.3).
    pong: Option<Bytes>,
    /// A close frame was queued: nothing follows it.
    closed: bool,
    /// The client closed, or nothing more that it sends can be understood.
    deaf: bool,
}

/// What a client sent, as far as it concerns anyone but the connection.
#[derive(Debug, PartialEq, Eq)]
pub enum Incoming<'a> {
    /// A text message.
    Text(&'a str),
    /// A binary message.
    Binary(&'a [u8]),
    /// A ping, which is answered, or a pong.
    SignOfLife,
    /// The client closes, and was answered.
    Closed,
    /// The client broke the protocol: say why if there is a way to, then [`Connection::close`].
    Fault(Fault),
}

impl Connection {
    /// A connection that was just upgraded, for messages of at most `limit` bytes.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        let decoder = Decoder::new(limit);
        Self { decoder, out: VecDeque::new(), begun: false, pong: None, closed: false, deaf: false }
    }

    /// What comes next in these bytes, taken from their front; `None` when all of them were taken.
    pub fn receive<'s, 'i: 's>(&'s mut self, input: &mut &'i mut [u8]) -> Option<Incoming<'s>> {
        if self.deaf {
            *input = &mut [];
            return None;
        }
        let Self { decoder, out, begun: _, pong, closed, deaf } = self;
        Some(match decoder.next(input) {
            Ok(None) => return None,
            Ok(Some(Received::Ping(payload))) => {
                let answer = frame(Opcode::Pong, payload);
                match *closed {
                    true => {}
                    false if out.len() < PONGS => out.push_back(answer),
                    false => *pong = Some(answer),
                }
                Incoming::SignOfLife
            }
            Ok(Some(Received::Pong)) => Incoming::SignOfLife,
            // The server has closed: what was on its way is not read any more.
            Ok(Some(Received::Text(_) | Received::Binary(_))) if *closed => Incoming::SignOfLife,
            Ok(Some(Received::Text(text))) => Incoming::Text(text),
            Ok(Some(Received::Binary(bytes))) => Incoming::Binary(bytes),
            Ok(Some(Received::Close { code })) => {
                *deaf = true;
                if !std::mem::replace(closed, true) {
                    out.push_back(close(code, ""));
                }
                Incoming::Closed
            }
            Err(fault) => {
                *deaf = true;
                Incoming::Fault(fault)
            }
        })
    }

    /// Queues a frame that [`super::text`] made; nothing, once the connection is closed.
    pub fn send(&mut self, frame: Bytes) {
        if !self.closed {
            self.out.push_back(frame);
        }
    }

    /// Closes, after what is queued.
    pub fn close(&mut self, code: u16, reason: &str) {
        if !std::mem::replace(&mut self.closed, true) {
            self.out.push_back(close(Some(code), reason));
        }
    }

    /// Drops what no byte was written of, so that a close comes next; a frame that was begun is finished.
    pub fn clear_unsent(&mut self) {
        self.out.truncate(usize::from(self.begun));
    }

    /// What is to be written next, as many pieces as fit.
    pub fn unsent<'a>(&'a self, slices: &'a mut [IoSlice<'a>]) -> &'a [IoSlice<'a>] {
        let pieces = slices.len().min(self.out.len());
        for (slice, piece) in slices.iter_mut().zip(&self.out) {
            *slice = IoSlice::new(piece);
        }
        &slices[..pieces]
    }

    /// This many bytes of it were written.
    pub fn sent(&mut self, mut bytes: usize) {
        while let Some(first) = self.out.front_mut() {
            if bytes < first.len() {
                first.advance(bytes);
                self.begun |= bytes > 0;
                return;
            }
            bytes -= first.len();
            self.begun = false;
            self.out.pop_front();
        }
        if self.out.capacity() > KEEP_FRAMES {
            self.out = VecDeque::new();
        }
        if !self.closed {
            self.out.extend(self.pong.take());
        }
    }

    /// Whether nothing is to be written.
    #[must_use]
    pub fn is_all_sent(&self) -> bool {
        self.out.is_empty()
    }

    /// Whether a close was sent or queued: no frame follows it.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// Whether both sides have said all they had to: the server closes the stream first (§7.1.1).
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.closed && self.deaf && self.out.is_empty()
    }
}
