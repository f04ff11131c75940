//! A peer that writes any bytes at all, and holds the relay to what a server may send.

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::support::{Server, hello, within};

/// Opcodes (RFC 6455 §5.2).
pub(super) const CONTINUATION: u8 = 0;
pub(super) const TEXT: u8 = 1;
pub(super) const BINARY: u8 = 2;
pub(super) const CLOSE: u8 = 8;
pub(super) const PING: u8 = 9;
pub(super) const PONG: u8 = 10;

/// The close codes of what breaks RFC 6455 (its §7.4.1).
pub(super) const BROKEN: u16 = 1002;
pub(super) const NOT_TEXT: u16 = 1003;
pub(super) const NOT_UTF8: u16 = 1007;
/// And of what breaks Gastown's protocol (§8).
pub(super) const BAD_REQUEST: u16 = 4400;
pub(super) const TOO_LARGE: u16 = 4413;

/// Which socket of the relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Viewer,
    Wrapper,
}

/// How bytes are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Chop {
    /// As few segments as the system makes of them.
    Whole,
    /// One at a time.
    Bytes,
}

/// Both sides, both ways.
pub(super) const EVERY: [(Side, Chop); 4] = [
    (Side::Viewer, Chop::Whole),
    (Side::Viewer, Chop::Bytes),
    (Side::Wrapper, Chop::Whole),
    (Side::Wrapper, Chop::Bytes),
];

/// A frame to send. Masked, unless a test says otherwise.
#[derive(Debug, Clone)]
pub(super) struct Frame {
    pub(super) is_final: bool,
    pub(super) reserved: u8,
    pub(super) opcode: u8,
    pub(super) mask: Option<[u8; 4]>,
    pub(super) payload: Vec<u8>,
    pub(super) length: Length,
}

/// How a frame says its length (RFC 6455 §5.2).
#[derive(Debug, Clone, Copy)]
pub(super) enum Length {
    /// As it is, in as few bytes as it takes.
    True,
    /// As it is, in eight bytes, whatever it is.
    Long,
    /// Another one.
    Lie(u64),
}

impl Frame {
    pub(super) fn new(opcode: u8, payload: impl Into<Vec<u8>>) -> Self {
        let mask = Some([0xa5, 0x00, 0x7f, 0x3c]);
        Self { is_final: true, reserved: 0, opcode, mask, payload: payload.into(), length: Length::True }
    }

    pub(super) fn text(payload: impl Into<Vec<u8>>) -> Self {
        Self::new(TEXT, payload)
    }

    /// A close with a code and a reason.
    pub(super) fn close(code: u16, reason: &[u8]) -> Self {
        Self::new(CLOSE, [&code.to_be_bytes(), reason].concat())
    }

    /// The same, with more of its message to follow.
    pub(super) fn unfinished(self) -> Self {
        Self { is_final: false, ..self }
    }

    pub(super) fn reserved(self, reserved: u8) -> Self {
        Self { reserved, ..self }
    }

    pub(super) fn masked(self, mask: Option<[u8; 4]>) -> Self {
        Self { mask, ..self }
    }

    pub(super) fn saying(self, length: Length) -> Self {
        Self { length, ..self }
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![u8::from(self.is_final) << 7 | self.reserved << 4 | self.opcode];
        let masked = u8::from(self.mask.is_some()) << 7;
        let len = match self.length {
            Length::True | Length::Long => self.payload.len() as u64,
            Length::Lie(len) => len,
        };
        match (self.length, len) {
            (Length::True | Length::Lie(_), 0..126) => bytes.push(masked | len as u8),
            (Length::True | Length::Lie(_), 126..=0xffff) => {
                extended(&mut bytes, masked | 126, &(len as u16).to_be_bytes());
            }
            (Length::True | Length::Lie(_) | Length::Long, _) => {
                extended(&mut bytes, masked | 127, &len.to_be_bytes());
            }
        }
        bytes.extend(self.mask.into_iter().flatten());
        let mask = self.mask.unwrap_or_default();
        bytes.extend(self.payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        bytes
    }
}

fn extended(bytes: &mut Vec<u8>, first: u8, length: &[u8]) {
    bytes.push(first);
    bytes.extend_from_slice(length);
}

/// What the relay sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Received {
    Text(String),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    /// The code and the reason, if there is one.
    Close(Option<(u16, String)>),
}

/// A connection past the upgrade.
pub(super) struct Raw {
    side: Side,
    chop: Chop,
    stream: TcpStream,
    read: Vec<u8>,
    /// The number of the wrapper's next event.
    next: u64,
}

impl Raw {
    /// A socket that is past its greeting: events and subscriptions may be sent.
    pub(super) async fn open(server: &Server, side: Side, chop: Chop) -> Self {
        let (path, token) = match side {
            Side::Viewer => ("/v1/stream", server.operator()),
            Side::Wrapper => ("/v1/ingest", server.wrapper_token("raw", 1)),
        };
        let bearer = format!("Authorization: Bearer {}\r\n", token.expose());
        let (head, mut raw) = Self::upgrade(server, path, &bearer, side, chop).await;
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        if side == Side::Wrapper {
            raw.write(&Frame::text(hello("raw", "raw", 1).to_string()).bytes()).await;
        }
        let greeting = raw.json().await;
        match side {
            Side::Viewer => assert_eq!(greeting["type"], "hello"),
            Side::Wrapper => raw.next = greeting["acked"].as_u64().unwrap() + 1,
        }
        raw
    }

    /// Asks for an upgrade, with more headers: the answer's head, and the connection.
    pub(super) async fn upgrade(
        server: &Server,
        path: &str,
        headers: &str,
        side: Side,
        chop: Chop,
    ) -> (String, Self) {
        let stream = within(TcpStream::connect(server.address)).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let mut raw = Self { side, chop, stream, read: Vec::new(), next: 1 };
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n{headers}\r\n",
            server.address
        );
        raw.write(request.as_bytes()).await;
        (raw.head().await, raw)
    }

    /// A connection on which a request was written as it is.
    pub(super) async fn request(server: &Server, request: &[u8]) -> (String, Self) {
        let stream = within(TcpStream::connect(server.address)).await.unwrap();
        let mut raw = Self { side: Side::Viewer, chop: Chop::Whole, stream, read: Vec::new(), next: 1 };
        raw.write(request).await;
        (raw.head().await, raw)
    }

    /// Sends frames.
    pub(super) async fn send(&mut self, frames: &[Frame]) {
        let bytes = frames.iter().flat_map(Frame::bytes).collect::<Vec<_>>();
        self.write(&bytes).await;
    }

    /// Writes bytes. A peer that has closed already takes no more of them, which is no error here: what it said is read.
    pub(super) async fn write(&mut self, bytes: &[u8]) {
        let step = match self.chop {
            Chop::Whole => bytes.len().max(1),
            Chop::Bytes => 1,
        };
        for chunk in bytes.chunks(step) {
            if within(self.stream.write_all(chunk)).await.is_err() {
                return;
            }
        }
    }

    /// A frame of the protocol that has this many bytes and is answered: a subscription to a log that is not there, or
    /// an event.
    pub(super) fn message(&mut self, len: usize) -> String {
        self.message_around("x", len)
    }

    /// As [`Raw::message`], with this text in it.
    pub(super) fn message_around(&mut self, text: &str, len: usize) -> String {
        let of = |pad: &str| match self.side {
            Side::Viewer => json!({"type": "subscribe", "log": "agent/none", "text": text, "pad": pad}),
            Side::Wrapper => {
                let data = json!({ "text": text });
                let event = json!({"time": "2026-11-20T18:10:16.123Z", "type": "note", "data": data});
                json!({"type": "append", "first": self.next, "events": [event], "pad": pad})
            }
        };
        let pad = len.saturating_sub(of("").to_string().len());
        let message = of(&"x".repeat(pad)).to_string();
        self.next += 1;
        message
    }

    /// Takes the answer to a message.
    pub(super) async fn answered(&mut self) {
        let answer = self.json().await;
        match self.side {
            Side::Viewer => assert_eq!(answer["code"], "unknown_log", "{answer}"),
            Side::Wrapper => {
                assert_eq!((&answer["type"], &answer["through"]), (&json!("ack"), &json!(self.next - 1)))
            }
        }
    }

    /// The next frame is a text, and this is its JSON.
    pub(super) async fn json(&mut self) -> Value {
        let frame = self.next().await;
        let Received::Text(text) = &frame else { panic!("a text was to come, not {frame:?}") };
        serde_json::from_str(text).unwrap()
    }

    /// The next frame.
    ///
    /// # Panics
    /// When it is one that no server may send: masked, fragmented, with reserved bits, or with a length in more bytes
    /// than it takes.
    pub(super) async fn next(&mut self) -> Received {
        let [first, second] = self.take().await;
        assert_eq!(first & 0xf0, 0x80, "the relay sends whole messages without extensions");
        assert_eq!(second & 0x80, 0, "a server masks nothing");
        let len = match second {
            126 => u64::from(u16::from_be_bytes(self.take().await)),
            127 => u64::from_be_bytes(self.take().await),
            len => u64::from(len),
        };
        let least = match second {
            126 => 126,
            127 => 0x1_0000,
            _ => 0,
        };
        assert!(len >= least, "{len} fits in fewer bytes");
        let payload = self.take_all(usize::try_from(len).unwrap()).await;
        let is_control = first & 0x08 != 0;
        assert!(!is_control || payload.len() <= 125, "a control frame has at most 125 bytes");
        match first & 0x0f {
            TEXT => Received::Text(String::from_utf8(payload).unwrap()),
            PING => Received::Ping(payload),
            PONG => Received::Pong(payload),
            CLOSE if payload.is_empty() => Received::Close(None),
            CLOSE => {
                let code = u16::from_be_bytes([payload[0], payload[1]]);
                Received::Close(Some((code, String::from_utf8(payload[2..].to_vec()).unwrap())))
            }
            other => panic!("the relay sends no frames of opcode {other}"),
        }
    }

    /// Nothing was answered to what was sent so far: the answer to a ping is the next frame.
    pub(super) async fn silent(&mut self) {
        self.send(&[Frame::new(PING, *b"still there?")]).await;
        assert_eq!(self.next().await, Received::Pong(b"still there?".to_vec()));
    }

    /// The relay gives this connection up: it says why with this code (a viewer is told in a frame as well), and when
    /// the close was answered, ends the connection without a reset.
    pub(super) async fn failed(&mut self, code: u16) {
        let first = self.next().await;
        self.failed_after(first, code).await;
    }

    /// As [`Raw::failed`], of which the first frame was read.
    pub(super) async fn failed_after(&mut self, mut frame: Received, code: u16) {
        if self.side == Side::Viewer {
            let Received::Text(error) = &frame else { panic!("an error was to come, not {frame:?}") };
            let error = serde_json::from_str::<Value>(error).unwrap();
            let word = if code == TOO_LARGE { "too_large" } else { "bad_request" };
            assert_eq!((&error["type"], &error["code"]), (&json!("error"), &json!(word)), "{error}");
            frame = self.next().await;
        }
        let Received::Close(Some((found, reason))) = &frame else {
            panic!("a close with {code} was to come, not {frame:?}")
        };
        assert_eq!(*found, code, "{reason}");
        self.send(&[Frame::close(code, b"")]).await;
        self.ended().await;
    }

    /// The relay has ended the connection in order.
    pub(super) async fn ended(&mut self) {
        let mut rest = Vec::new();
        within(self.stream.read_to_end(&mut rest)).await.expect("no reset");
        self.read.append(&mut rest);
        assert!(self.read.is_empty(), "nothing follows a close: {:x?}", self.read);
    }

    /// The relay has ended the connection, with or without a reset, and said nothing more.
    pub(super) async fn gone(&mut self) {
        // A reset is an end as well.
        let _ = within(self.stream.read_to_end(&mut self.read)).await;
        assert!(self.read.is_empty(), "nothing follows a close: {:x?}", self.read);
    }

    async fn head(&mut self) -> String {
        loop {
            if let Some(end) = self.read.windows(4).position(|four| four == b"\r\n\r\n") {
                let head = self.read.drain(..end + 4).collect();
                return String::from_utf8(head).unwrap();
            }
            self.read_more().await;
        }
    }

    async fn take<const N: usize>(&mut self) -> [u8; N] {
        self.take_all(N).await.try_into().unwrap()
    }

    async fn take_all(&mut self, len: usize) -> Vec<u8> {
        while self.read.len() < len {
            self.read_more().await;
        }
        self.read.drain(..len).collect()
    }

    async fn read_more(&mut self) {
        let found = within(self.stream.read_buf(&mut self.read)).await.expect("no reset");
        assert_ne!(found, 0, "the connection ended: {:x?}", self.read);
    }
}
