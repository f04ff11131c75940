//! HTTP/1.1 answers: with a length, or in chunks.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};

/// The head of an answer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) status: u16,
    /// Bytes of the head itself.
    pub(crate) len: usize,
    body: Body,
}

#[derive(Debug, PartialEq, Eq)]
enum Body {
    Length(usize),
    Chunked,
    Unknown,
}

impl Head {
    /// The head at the front of `bytes`, once it is there.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Option<Self>> {
        let Some(end) = memchr::memmem::find(bytes, b"\r\n\r\n") else { return Ok(None) };
        let text = std::str::from_utf8(&bytes[..end])?;
        let mut lines = text.split("\r\n");
        let status =
            lines.next().and_then(|line| line.split(' ').nth(1)).context("no status line")?.parse()?;
        let mut body = if status == 204 { Body::Length(0) } else { Body::Unknown };
        for (name, value) in lines.filter_map(|line| line.split_once(':')) {
            if name.eq_ignore_ascii_case("content-length") {
                body = Body::Length(value.trim().parse()?);
            } else if name.eq_ignore_ascii_case("transfer-encoding") {
                body = Body::Chunked;
            }
        }
        Ok(Some(Self { status, len: end + 4, body }))
    }

    pub(crate) fn is_chunked(&self) -> bool {
        self.body == Body::Chunked
    }
}

/// A body in chunks.
#[derive(Debug, Default)]
pub(crate) struct Chunks {
    state: ChunkState,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum ChunkState {
    #[default]
    Size,
    /// Bytes of the chunk that are still to come.
    Data(usize),
    AfterData,
    Done,
}

impl Chunks {
    pub(crate) fn is_done(&self) -> bool {
        self.state == ChunkState::Done
    }

    /// Appends what the chunks hold to `body`, and says how many bytes were used.
    pub(crate) fn feed(&mut self, bytes: &[u8], body: &mut Vec<u8>) -> Result<usize> {
        let mut used = 0;
        loop {
            let rest = &bytes[used..];
            match self.state {
                ChunkState::Done => return Ok(used),
                ChunkState::Data(left) => {
                    let take = left.min(rest.len());
                    body.extend_from_slice(&rest[..take]);
                    used += take;
                    if take < left {
                        self.state = ChunkState::Data(left - take);
                        return Ok(used);
                    }
                    self.state = ChunkState::AfterData;
                }
                ChunkState::AfterData => {
                    if rest.len() < 2 {
                        return Ok(used);
                    }
                    used += 2;
                    self.state = ChunkState::Size;
                }
                ChunkState::Size => {
                    let Some(end) = memchr::memmem::find(rest, b"\r\n") else { return Ok(used) };
                    let line = std::str::from_utf8(&rest[..end])?;
                    let size = usize::from_str_radix(line.split(';').next().unwrap_or(line).trim(), 16)?;
                    if size > 0 {
                        used += end + 2;
                        self.state = ChunkState::Data(size);
                    } else if rest.len() >= end + 4 {
                        // No trailers are expected: an empty line ends the body.
                        used += end + 4;
                        self.state = ChunkState::Done;
                    } else {
                        return Ok(used);
                    }
                }
            }
        }
    }
}

/// A whole answer at the front of `bytes`: its status, its body, and its length.
pub(crate) fn answer(bytes: &[u8]) -> Result<Option<(u16, Vec<u8>, usize)>> {
    let Some(head) = Head::parse(bytes)? else { return Ok(None) };
    let rest = &bytes[head.len..];
    match head.body {
        Body::Unknown => bail!("an answer without a length"),
        Body::Length(len) => Ok(rest.get(..len).map(|body| (head.status, body.to_vec(), head.len + len))),
        Body::Chunked => {
            let (mut chunks, mut body) = (Chunks::default(), Vec::new());
            let used = chunks.feed(rest, &mut body)?;
            Ok(chunks.is_done().then_some((head.status, body, head.len + used)))
        }
    }
}

/// A connection that asks one thing after the other, for setting up.
#[derive(Debug)]
pub(crate) struct Asking {
    stream: TcpStream,
}

impl Asking {
    pub(crate) fn connect(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream })
    }

    /// Sends a whole request, and gives its body, if the status is one of success.
    pub(crate) fn ask(&mut self, request: &[u8]) -> Result<Vec<u8>> {
        self.stream.write_all(request)?;
        let (mut bytes, mut piece) = (Vec::new(), vec![0; 16 * 1024]);
        loop {
            let read = self.stream.read(&mut piece)?;
            bytes.extend_from_slice(&piece[..read]);
            match answer(&bytes)? {
                Some((200..300, body, _)) => return Ok(body),
                Some((status, body, _)) => bail!("{status}: {}", String::from_utf8_lossy(&body)),
                None if read == 0 => bail!("the connection ended before the answer did"),
                None => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_with_a_length_is_taken_whole() {
        let bytes = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabcHTTP";
        assert_eq!(answer(bytes).unwrap(), Some((200, b"abc".to_vec(), bytes.len() - 4)));
        assert_eq!(answer(&bytes[..bytes.len() - 5]).unwrap(), None);
    }

    #[test]
    fn chunks_are_joined_however_the_bytes_are_cut() {
        let bytes = b"3\r\nabc\r\n5;x=y\r\ndefgh\r\n0\r\n\r\n";
        for cut in 1..bytes.len() {
            let (mut chunks, mut held, mut body) = (Chunks::default(), Vec::new(), Vec::new());
            for piece in bytes.chunks(cut) {
                held.extend_from_slice(piece);
                let used = chunks.feed(&held, &mut body).unwrap();
                held.drain(..used);
            }
            assert!(chunks.is_done());
            assert_eq!(body, b"abcdefgh", "cut into {cut}");
        }
    }
}
