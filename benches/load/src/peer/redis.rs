//! Redis: publish/subscribe, and streams of 2,000 entries that viewers read in a loop.

use std::{net::SocketAddr, path::Path, process::Command, sync::Arc};

use anyhow::{Result, bail};

use super::{
    Acked, Heard, Peer, ProducerCodec, Running, ViewerCodec,
    process::{Process, first_line, free_port, loopback},
};
use crate::wire::resp::{Reply, command, reply};

/// What is measured of it.
#[derive(Debug, Clone, Copy)]
pub(super) enum Mode {
    PubSub,
    /// `sync` is its `appendfsync`.
    Stream {
        sync: &'static str,
    },
}

pub(super) fn version() -> Result<String> {
    let line = first_line(Path::new("redis-server"), "--version")?;
    let version = line.split(' ').find_map(|word| word.strip_prefix("v="));
    Ok(format!("Redis {}", version.unwrap_or(&line)))
}

pub(super) fn start(directory: tempfile::TempDir, mode: Mode) -> Result<Running> {
    let address = loopback(free_port()?);
    let mut command = Command::new("redis-server");
    command.args(["--port", &address.port().to_string(), "--bind", "127.0.0.1", "--save", ""]);
    command.args(["--maxclients", "19900", "--tcp-backlog", "4096"]);
    let is_stream = match mode {
        Mode::PubSub => {
            command.args(["--appendonly", "no"]);
            false
        }
        Mode::Stream { sync } => {
            command.args(["--appendonly", "yes", "--appendfsync", sync]);
            true
        }
    };
    let mut process = Process::spawn(command, directory.path())?;
    process.wait_listening(address)?;
    Ok(Running { peer: Arc::new(Redis { address, is_stream }), process, directory })
}

struct Redis {
    address: SocketAddr,
    is_stream: bool,
}

impl Peer for Redis {
    fn viewer_address(&self) -> SocketAddr {
        self.address
    }

    fn viewer(&self, channel: &str) -> Box<dyn ViewerCodec> {
        let channel = channel.to_owned();
        if self.is_stream {
            Box::new(Reader { channel, last: b"0".to_vec() })
        } else {
            Box::new(Subscriber { channel })
        }
    }

    fn producer(&self, channel: &str) -> Box<dyn ProducerCodec> {
        Box::new(Producer { channel: channel.to_owned(), is_stream: self.is_stream })
    }
}

struct Subscriber {
    channel: String,
}

impl ViewerCodec for Subscriber {
    fn open(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        command(&[b"SUBSCRIBE", self.channel.as_bytes()], &mut out);
        out
    }

    fn feed(&mut self, bytes: &[u8], heard: &mut Heard<'_>) -> Result<usize> {
        each_reply(bytes, |reply| {
            match reply {
                Reply::Error(error) => bail!("{}", String::from_utf8_lossy(error)),
                Reply::Array(items) => match items[..] {
                    [Reply::Bulk(b"message"), _, Reply::Bulk(event)] => (heard.events)(event),
                    _ => heard.ready = true,
                },
                Reply::Simple | Reply::Integer | Reply::Nothing | Reply::Bulk(_) => {}
            }
            Ok(())
        })
    }
}

/// A viewer of a stream: it asks for what is after the last entry it has, and waits.
struct Reader {
    channel: String,
    last: Vec<u8>,
}

impl Reader {
    fn ask(&self, out: &mut Vec<u8>) {
        let stream = self.channel.as_bytes();
        command(&[b"XREAD", b"COUNT", b"1000", b"BLOCK", b"0", b"STREAMS", stream, &self.last], out);
    }
}

impl ViewerCodec for Reader {
    fn open(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        command(&[b"PING"], &mut out);
        self.ask(&mut out);
        out
    }

    fn feed(&mut self, bytes: &[u8], heard: &mut Heard<'_>) -> Result<usize> {
        each_reply(bytes, |reply| {
            match reply {
                Reply::Error(error) => bail!("{}", String::from_utf8_lossy(error)),
                // The answer to the ping.
                Reply::Simple => heard.ready = true,
                Reply::Array(streams) => {
                    for entry in entries(streams) {
                        let Reply::Array(entry) = entry else { continue };
                        let [Reply::Bulk(id), Reply::Array(fields)] = &entry[..] else { continue };
                        self.last = id.to_vec();
                        if let [_, Reply::Bulk(event)] = fields[..] {
                            (heard.events)(event);
                        }
                    }
                    self.ask(&mut heard.reply);
                }
                Reply::Nothing => self.ask(&mut heard.reply),
                Reply::Integer | Reply::Bulk(_) => {}
            }
            Ok(())
        })
    }
}

/// The entries in an answer to `XREAD` for one stream.
fn entries(streams: Vec<Reply<'_>>) -> Vec<Reply<'_>> {
    let Some(Reply::Array(mut stream)) = streams.into_iter().next() else { return Vec::new() };
    match stream.pop() {
        Some(Reply::Array(entries)) => entries,
        Some(_) | None => Vec::new(),
    }
}

struct Producer {
    channel: String,
    is_stream: bool,
}

impl ProducerCodec for Producer {
    fn open(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        command(&[b"PING"], &mut out);
        out
    }

    fn encode(&mut self, events: &[Vec<u8>], out: &mut Vec<u8>) {
        let channel = self.channel.as_bytes();
        for event in events {
            if self.is_stream {
                command(&[b"XADD", channel, b"MAXLEN", b"~", b"2000", b"*", b"d", event], out);
            } else {
                command(&[b"PUBLISH", channel, event], out);
            }
        }
    }

    fn feed(&mut self, bytes: &[u8], acked: &mut Acked) -> Result<usize> {
        each_reply(bytes, |reply| {
            match reply {
                Reply::Error(error) => bail!("{}", String::from_utf8_lossy(error)),
                // The answer to the ping.
                Reply::Simple => acked.ready = true,
                Reply::Integer | Reply::Bulk(_) => acked.events += 1,
                Reply::Nothing | Reply::Array(_) => {}
            }
            Ok(())
        })
    }
}

fn each_reply(bytes: &[u8], mut each: impl FnMut(Reply<'_>) -> Result<()>) -> Result<usize> {
    let mut used = 0;
    while let Some((reply, len)) = if used < bytes.len() { reply(&bytes[used..])? } else { None } {
        used += len;
        each(reply)?;
    }
    Ok(used)
}
