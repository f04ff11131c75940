//! WebSocket (RFC 6455), the client's side, and the two frames of the floor's side.

use anyhow::{Result, bail};

pub(crate) const TEXT: u8 = 1;
pub(crate) const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// The request that opens one; `headers` are whole lines.
pub(crate) fn handshake(host: &str, path: &str, headers: &str) -> Vec<u8> {
    format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{headers}\r\n"
    )
    .into_bytes()
}

/// A client's end of a WebSocket: the answer to the handshake, then messages.
#[derive(Debug, Default)]
pub(crate) struct Socket {
    open: bool,
    /// The beginning of a message in several frames.
    fragments: Vec<u8>,
}

/// What became of some bytes.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fed {
    /// Bytes used.
    pub(crate) used: usize,
    /// The server accepted the handshake with these.
    pub(crate) opened: bool,
    /// The server closed.
    pub(crate) closed: bool,
}

impl Socket {
    /// Gives whole messages to `each`, and writes what must be answered to `reply`.
    pub(crate) fn feed(
        &mut self,
        bytes: &[u8],
        reply: &mut Vec<u8>,
        mut each: impl FnMut(&[u8]) -> Result<()>,
    ) -> Result<Fed> {
        let mut fed = Fed::default();
        if !self.open {
            let Some(used) = accepted(bytes)? else { return Ok(fed) };
            self.open = true;
            fed = Fed { used, opened: true, closed: false };
        }
        while let Some(frame) = server_frame(&bytes[fed.used..])? {
            fed.used += frame.len;
            match frame.opcode {
                0..=2 if frame.last && self.fragments.is_empty() => each(frame.payload)?,
                0..=2 => {
                    self.fragments.extend_from_slice(frame.payload);
                    if frame.last {
                        each(&std::mem::take(&mut self.fragments))?;
                    }
                }
                PING => client_frame(PONG, frame.payload, reply),
                PONG => {}
                CLOSE => {
                    fed.closed = true;
                    break;
                }
                opcode => bail!("the server sent an unknown opcode {opcode}"),
            }
        }
        Ok(fed)
    }
}

/// A client's frame. The mask is zero: the server must unmask it like any other, and the client need not mask it.
pub(crate) fn client_frame(opcode: u8, payload: &[u8], out: &mut Vec<u8>) {
    frame_head(opcode, payload.len(), 0x80, out);
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(payload);
}

/// A server's text frame.
pub(crate) fn server_text(payload: &[u8], out: &mut Vec<u8>) {
    frame_head(TEXT, payload.len(), 0, out);
    out.extend_from_slice(payload);
}

fn frame_head(opcode: u8, len: usize, masked: u8, out: &mut Vec<u8>) {
    out.push(0x80 | opcode);
    match (u8::try_from(len), u16::try_from(len)) {
        (Ok(len @ ..126), _) => out.push(masked | len),
        (_, Ok(len)) => {
            out.push(masked | 126);
            out.extend_from_slice(&len.to_be_bytes());
        }
        _ => {
            out.push(masked | 127);
            out.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
}

/// A client's frame at the front of `bytes`, unmasked, and its length.
pub(crate) fn unmasked(bytes: &[u8]) -> Option<(Vec<u8>, usize)> {
    let (len, head) = payload_len(bytes)?;
    let payload = bytes.get(head + 4..head + 4 + len)?;
    let key = &bytes[head..head + 4];
    let plain = payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key).collect();
    Some((plain, head + 4 + len))
}

struct Frame<'a> {
    last: bool,
    opcode: u8,
    payload: &'a [u8],
    len: usize,
}

fn server_frame(bytes: &[u8]) -> Result<Option<Frame<'_>>> {
    let Some((len, head)) = payload_len(bytes) else { return Ok(None) };
    if bytes[0] & 0x70 != 0 || bytes[1] & 0x80 != 0 {
        bail!("no frame of a server: {:#04x} {:#04x}", bytes[0], bytes[1]);
    }
    let Some(payload) = bytes.get(head..head + len) else { return Ok(None) };
    let (last, opcode) = (bytes[0] & 0x80 != 0, bytes[0] & 0x0f);
    Ok(Some(Frame { last, opcode, payload, len: head + len }))
}

/// Length of the payload, and of what is before it (without a mask).
fn payload_len(bytes: &[u8]) -> Option<(usize, usize)> {
    match bytes.get(1)? & 0x7f {
        126 => Some((usize::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?)), 4)),
        127 => Some((usize::try_from(u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?)).ok()?, 10)),
        len => Some((usize::from(len), 2)),
    }
}

/// Length of the server's answer to the handshake, once it is there.
fn accepted(bytes: &[u8]) -> Result<Option<usize>> {
    let Some(end) = memchr::memmem::find(bytes, b"\r\n\r\n") else { return Ok(None) };
    if !bytes.starts_with(b"HTTP/1.1 101") {
        bail!("the server does not upgrade: {}", String::from_utf8_lossy(&bytes[..end.min(200)]));
    }
    Ok(Some(end + 4))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACCEPT: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\n\r\n";

    #[test]
    fn messages_come_whole_however_the_bytes_are_cut() {
        let mut bytes = ACCEPT.to_vec();
        let messages = [vec![b'a'; 5], vec![b'b'; 300], vec![b'c'; 70_000]];
        for message in &messages {
            server_text(message, &mut bytes);
        }
        for cut in [1, 7, 40, 1000, bytes.len()] {
            let (mut socket, mut held, mut got) = (Socket::default(), Vec::new(), Vec::new());
            for piece in bytes.chunks(cut) {
                held.extend_from_slice(piece);
                let fed = socket
                    .feed(&held, &mut Vec::new(), |message| {
                        got.push(message.to_vec());
                        Ok(())
                    })
                    .unwrap();
                held.drain(..fed.used);
            }
            assert_eq!(got, messages, "cut into {cut}");
        }
    }

    #[test]
    fn fragments_are_joined_and_pings_between_them_are_answered() {
        let mut bytes = ACCEPT.to_vec();
        bytes.extend_from_slice(b"\x01\x02ab\x89\x01p\x80\x01c");
        let (mut reply, mut got) = (Vec::new(), Vec::new());
        Socket::default()
            .feed(&bytes, &mut reply, |message| {
                got.push(message.to_vec());
                Ok(())
            })
            .unwrap();
        assert_eq!(got, [b"abc"]);
        assert_eq!(reply, b"\x8a\x81\0\0\0\0p");
    }

    #[test]
    fn what_a_client_sends_is_read_back() {
        for len in [0, 125, 126, 70_000] {
            let (payload, mut bytes) = (vec![b'x'; len], Vec::new());
            client_frame(TEXT, &payload, &mut bytes);
            assert_eq!(unmasked(&bytes), Some((payload, bytes.len())));
            assert_eq!(unmasked(&bytes[..bytes.len() - 1]), None);
        }
    }

    #[test]
    fn a_refused_upgrade_is_an_error_that_says_what_the_server_said() {
        let refused = Socket::default().feed(b"HTTP/1.1 403 Forbidden\r\n\r\n", &mut Vec::new(), |_| Ok(()));
        assert!(refused.unwrap_err().to_string().contains("403"));
    }
}
