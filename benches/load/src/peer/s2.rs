//! s2-lite on local files: appends as JSON by POST, viewers on server-sent events.

use std::{collections::VecDeque, fs, net::SocketAddr, path::Path, process::Command, sync::Arc};

use anyhow::{Result, bail};

use super::{
    Acked, Heard, Peer, ProducerCodec, Running, ViewerCodec,
    process::{Process, first_line, free_port, loopback},
};
use crate::wire::http::{Asking, Chunks, Head, answer};

const BASIN: &str = "gastown-load";

pub(super) fn version(program: &Path) -> Result<String> {
    first_line(program, "--version")
}

pub(super) fn start(program: &Path, directory: tempfile::TempDir) -> Result<Running> {
    let address = loopback(free_port()?);
    fs::write(directory.path().join("init.json"), format!(r#"{{"basins":[{{"name":"{BASIN}"}}]}}"#))?;
    fs::create_dir(directory.path().join("store"))?;
    let mut command = Command::new(program);
    command.args([
        "--local-root",
        "store",
        "--init-file",
        "init.json",
        "--port",
        &address.port().to_string(),
    ]);
    let mut process = Process::spawn(command, directory.path())?;
    process.wait_listening(address)?;
    Ok(Running { peer: Arc::new(S2 { address }), process, directory })
}

struct S2 {
    address: SocketAddr,
}

impl S2 {
    fn head(&self, request: &str) -> String {
        format!("{request} HTTP/1.1\r\nHost: {}\r\nS2-Basin: {BASIN}\r\n", self.address)
    }
}

impl Peer for S2 {
    fn viewer_address(&self) -> SocketAddr {
        self.address
    }

    fn prepare(&self, channels: &[String]) -> Result<()> {
        let mut asking = Asking::connect(self.address)?;
        for channel in channels {
            let head = self.head(&format!("PUT /v1/streams/{channel}"));
            asking.ask(
                format!("{head}Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{{}}").as_bytes(),
            )?;
        }
        Ok(())
    }

    fn viewer(&self, channel: &str) -> Box<dyn ViewerCodec> {
        let head = self.head(&format!("GET /v1/streams/{channel}/records?seq_num=0"));
        let hello = format!("{head}Accept: text/event-stream\r\n\r\n").into_bytes();
        Box::new(Viewer { hello, chunks: None, body: Vec::new() })
    }

    fn producer(&self, channel: &str) -> Box<dyn ProducerCodec> {
        let head = self.head(&format!("POST /v1/streams/{channel}/records"));
        let head = format!("{head}Content-Type: application/json\r\n");
        Box::new(Producer { head, sent: VecDeque::new() })
    }
}

struct Viewer {
    hello: Vec<u8>,
    /// The body, once the head was read.
    chunks: Option<Chunks>,
    body: Vec<u8>,
}

impl ViewerCodec for Viewer {
    fn open(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.hello)
    }

    fn feed(&mut self, bytes: &[u8], heard: &mut Heard<'_>) -> Result<usize> {
        let mut used = 0;
        if self.chunks.is_none() {
            let Some(head) = Head::parse(bytes)? else { return Ok(0) };
            if head.status != 200 || !head.is_chunked() {
                bail!("no stream: {}", String::from_utf8_lossy(bytes));
            }
            used = head.len;
            heard.ready = true;
        }
        let chunks = self.chunks.get_or_insert_default();
        used += chunks.feed(&bytes[used..], &mut self.body)?;
        if let Some(end) = memchr::memrchr(b'\n', &self.body) {
            (heard.events)(&self.body[..=end]);
            self.body.drain(..=end);
        }
        heard.closed |= chunks.is_done();
        Ok(used)
    }
}

struct Producer {
    head: String,
    /// How many events each request has that is under way.
    sent: VecDeque<u64>,
}

impl ProducerCodec for Producer {
    fn open(&mut self) -> Vec<u8> {
        Vec::new()
    }

    fn encode(&mut self, events: &[Vec<u8>], out: &mut Vec<u8>) {
        let mut body = b"{\"records\":[".to_vec();
        for (i, event) in events.iter().enumerate() {
            body.extend_from_slice(if i == 0 { b"{\"body\":\"" } else { b",{\"body\":\"" });
            for &byte in event {
                // Of what must be escaped an event contains only quotes.
                if byte == b'"' {
                    body.push(b'\\');
                }
                body.push(byte);
            }
            body.extend_from_slice(b"\"}");
        }
        body.extend_from_slice(b"]}");
        out.extend_from_slice(format!("{}Content-Length: {}\r\n\r\n", self.head, body.len()).as_bytes());
        out.extend_from_slice(&body);
        self.sent.push_back(events.len() as u64);
    }

    fn feed(&mut self, bytes: &[u8], acked: &mut Acked) -> Result<usize> {
        let mut used = 0;
        while let Some((status, body, len)) = answer(&bytes[used..])? {
            used += len;
            if !(200..300).contains(&status) {
                bail!("refused with {status}: {}", String::from_utf8_lossy(&body));
            }
            acked.events += self.sent.pop_front().unwrap_or(0);
        }
        Ok(used)
    }
}
