//! NATS: viewers on its WebSocket listener, producers on TCP. `JetStream` keeps 2,000 messages per subject, and each viewer
//! has an ephemeral consumer with flow control that acknowledges nothing (what its clients call an ordered consumer).

use std::{
    collections::VecDeque,
    fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    path::Path,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use memchr::memmem;

use super::{
    Acked, Heard, Peer, ProducerCodec, Running, ViewerCodec,
    process::{Process, first_line, free_port, loopback},
};
use crate::wire::websocket::{BINARY, Socket, client_frame, handshake};

const CONNECT: &str = "CONNECT {\"verbose\":false,\"pedantic\":false,\"headers\":true,\"no_responders\":true,\
                       \"lang\":\"load\",\"version\":\"1\",\"protocol\":1}\r\n";
const STREAM: &str = r#"{"name":"AG","subjects":["ag.>"],"retention":"limits","max_msgs_per_subject":2000,"storage":"file","discard":"old","num_replicas":1,"max_msgs":-1,"max_bytes":-1,"max_age":0,"max_consumers":-1}"#;

/// Subjects on which answers come.
static INBOX: AtomicU64 = AtomicU64::new(1);

pub(super) fn version() -> Result<String> {
    first_line(Path::new("nats-server"), "--version")
}

pub(super) fn start(directory: tempfile::TempDir, stored: bool) -> Result<Running> {
    let (address, socket_address) = (loopback(free_port()?), loopback(free_port()?));
    let store = if stored {
        "jetstream { store_dir: \"./js\", max_memory_store: 1GB, max_file_store: 8GB }"
    } else {
        ""
    };
    fs::write(
        directory.path().join("nats.conf"),
        format!(
            "listen: \"{address}\"\nmax_connections: 65536\n\
             websocket {{ listen: \"{socket_address}\", no_tls: true, compression: false }}\n{store}\n"
        ),
    )?;
    let mut command = Command::new("nats-server");
    command.args(["-c", "nats.conf"]);
    let mut process = Process::spawn(command, directory.path())?;
    process.wait_listening(address)?;
    process.wait_listening(socket_address)?;
    Ok(Running { peer: Arc::new(Nats { address, socket_address, stored }), process, directory })
}

struct Nats {
    address: SocketAddr,
    socket_address: SocketAddr,
    stored: bool,
}

impl Peer for Nats {
    fn viewer_address(&self) -> SocketAddr {
        self.socket_address
    }

    fn producer_address(&self) -> SocketAddr {
        self.address
    }

    /// One stream has all channels.
    fn prepare(&self, _channels: &[String]) -> Result<()> {
        if !self.stored {
            return Ok(());
        }
        let mut stream = TcpStream::connect(self.address)?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        let len = STREAM.len();
        write!(stream, "{CONNECT}SUB made 1\r\nPUB $JS.API.STREAM.CREATE.AG made {len}\r\n{STREAM}\r\n")?;
        let (mut answer, mut piece) = (Vec::new(), [0; 4096]);
        loop {
            let read = stream.read(&mut piece)?;
            answer.extend_from_slice(&piece[..read]);
            let text = String::from_utf8_lossy(&answer);
            if let Some((_, made)) = text.split_once("MSG made") {
                if made.contains("\"error\"") {
                    bail!("no stream: {made}");
                }
                if made.contains("\"type\"") {
                    return Ok(());
                }
            }
            if read == 0 {
                bail!("no stream: {text}");
            }
        }
    }

    fn viewer(&self, channel: &str) -> Box<dyn ViewerCodec> {
        let inbox = INBOX.fetch_add(1, Relaxed);
        let subscribe = if self.stored {
            let consumer = format!(
                r#"{{"stream_name":"AG","config":{{"deliver_policy":"all","ack_policy":"none","max_deliver":1,"filter_subject":"ag.{channel}","deliver_subject":"v.{inbox}","flow_control":true,"idle_heartbeat":5000000000,"num_replicas":1,"mem_storage":true}}}}"#
            );
            let len = consumer.len();
            format!(
                "SUB v.{inbox} 1\r\nSUB r.{inbox} 2\r\nPUB $JS.API.CONSUMER.CREATE.AG r.{inbox} {len}\r\n{consumer}\r\n"
            )
        } else {
            format!("SUB ag.{channel} 1\r\nPING\r\n")
        };
        Box::new(Viewer {
            hello: handshake(&self.socket_address.to_string(), "/", ""),
            subscribe: format!("{CONNECT}{subscribe}"),
            stored: self.stored,
            socket: Socket::default(),
            held: Vec::new(),
        })
    }

    fn producer(&self, channel: &str) -> Box<dyn ProducerCodec> {
        Box::new(Producer {
            stored: self.stored,
            subject: format!("ag.{channel}"),
            inbox: INBOX.fetch_add(1, Relaxed),
            unasked: 0,
            asked: VecDeque::new(),
            is_open: false,
        })
    }
}

/// What the server says.
enum Operation<'a> {
    Message { subscription: &'a [u8], reply: Option<&'a [u8]>, head: &'a [u8], body: &'a [u8] },
    Ping,
    Pong,
    Other,
}

/// The operation at the front of `bytes`, once it is there, and its length.
fn operation(bytes: &[u8]) -> Result<Option<(Operation<'_>, usize)>> {
    let Some(end) = memmem::find(bytes, b"\r\n") else { return Ok(None) };
    let line = &bytes[..end];
    let has_head = line.starts_with(b"HMSG ");
    if !has_head && !line.starts_with(b"MSG ") {
        let operation = match line {
            b"PING" => Operation::Ping,
            b"PONG" => Operation::Pong,
            _ if line.starts_with(b"-ERR") => bail!("{}", String::from_utf8_lossy(line)),
            _ => Operation::Other,
        };
        return Ok(Some((operation, end + 2)));
    }
    // MSG subject sid [reply] bytes; HMSG subject sid [reply] head-bytes bytes
    let words = std::str::from_utf8(line)?.split_ascii_whitespace().collect::<Vec<_>>();
    let lengths = if has_head { 2 } else { 1 };
    let (names, lengths) = words.split_at(words.len().saturating_sub(lengths));
    let total: usize = lengths.last().context("a message without a length")?.parse()?;
    let head: usize = if has_head { lengths[0].parse()? } else { 0 };
    let Some(message) = bytes.get(end + 2..end + 2 + total) else { return Ok(None) };
    if bytes.len() < end + 2 + total + 2 {
        return Ok(None);
    }
    let (head, body) = message.split_at(head);
    let subscription = names.get(2).context("a message without a subscription")?.as_bytes();
    let reply = names.get(3).map(|name| name.as_bytes());
    Ok(Some((Operation::Message { subscription, reply, head, body }, end + 2 + total + 2)))
}

struct Viewer {
    hello: Vec<u8>,
    subscribe: String,
    stored: bool,
    socket: Socket,
    /// The beginning of an operation in several messages.
    held: Vec<u8>,
}

impl ViewerCodec for Viewer {
    fn open(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.hello)
    }

    fn feed(&mut self, bytes: &[u8], heard: &mut Heard<'_>) -> Result<usize> {
        let (held, stored) = (&mut self.held, self.stored);
        let (events, ready, mut say) = (&mut *heard.events, &mut heard.ready, Vec::new());
        let fed = self.socket.feed(bytes, &mut heard.reply, |message| {
            if held.is_empty() {
                let used = listen(message, stored, events, ready, &mut say)?;
                held.extend_from_slice(&message[used..]);
            } else {
                held.extend_from_slice(message);
                let used = listen(held, stored, events, ready, &mut say)?;
                held.drain(..used);
            }
            Ok(())
        })?;
        if fed.opened {
            client_frame(BINARY, self.subscribe.as_bytes(), &mut heard.reply);
        }
        if !say.is_empty() {
            client_frame(BINARY, &say, &mut heard.reply);
        }
        heard.closed |= fed.closed;
        Ok(fed.used)
    }
}

/// Takes a viewer's operations: 1 is the subscription of events, 2 that of the answer to its creation.
fn listen(
    bytes: &[u8],
    stored: bool,
    events: &mut dyn FnMut(&[u8]),
    ready: &mut bool,
    say: &mut Vec<u8>,
) -> Result<usize> {
    let mut used = 0;
    while let Some((operation, len)) = operation(&bytes[used..])? {
        used += len;
        match operation {
            Operation::Ping => say.extend_from_slice(b"PONG\r\n"),
            Operation::Pong => *ready |= !stored,
            Operation::Message { subscription: b"1", reply, head, body } => {
                if !head.starts_with(b"NATS/1.0 100") {
                    events(body);
                } else if let Some(reply) = reply.or_else(|| stalled(head)) {
                    // Flow control asks for an empty answer.
                    say.extend_from_slice(&[b"PUB ", reply, b" 0\r\n\r\n"].concat());
                }
            }
            Operation::Message { body, .. } => {
                if memmem::find(body, b"\"error\"").is_some() {
                    bail!("no consumer: {}", String::from_utf8_lossy(body));
                }
                *ready = true;
            }
            Operation::Other => {}
        }
    }
    Ok(used)
}

/// Where a consumer that waits for flow control says so in its heartbeat.
fn stalled(head: &[u8]) -> Option<&[u8]> {
    const NAME: &[u8] = b"Nats-Consumer-Stalled: ";
    let rest = &head[memmem::find(head, NAME)? + NAME.len()..];
    Some(&rest[..memchr::memchr(b'\r', rest)?])
}

struct Producer {
    stored: bool,
    subject: String,
    inbox: u64,
    /// Events sent since the last ping, and with each ping before.
    unasked: u64,
    asked: VecDeque<u64>,
    is_open: bool,
}

impl ProducerCodec for Producer {
    fn open(&mut self) -> Vec<u8> {
        let subscribe = if self.stored { format!("SUB a.{} 1\r\n", self.inbox) } else { String::new() };
        format!("{CONNECT}{subscribe}PING\r\n").into_bytes()
    }

    fn encode(&mut self, events: &[Vec<u8>], out: &mut Vec<u8>) {
        let answer = if self.stored { format!("a.{} ", self.inbox) } else { String::new() };
        for event in events {
            out.extend_from_slice(format!("PUB {} {answer}{}\r\n", self.subject, event.len()).as_bytes());
            out.extend_from_slice(event);
            out.extend_from_slice(b"\r\n");
        }
        self.unasked += events.len() as u64;
    }

    /// Without a store there is no ack: a pong says that what came before it was handled.
    fn flush(&mut self, out: &mut Vec<u8>) {
        if !self.stored && self.unasked > 0 {
            out.extend_from_slice(b"PING\r\n");
            self.asked.push_back(std::mem::take(&mut self.unasked));
        }
    }

    fn feed(&mut self, bytes: &[u8], acked: &mut Acked) -> Result<usize> {
        let mut used = 0;
        while let Some((operation, len)) = operation(&bytes[used..])? {
            used += len;
            match operation {
                Operation::Ping => acked.reply.extend_from_slice(b"PONG\r\n"),
                Operation::Pong if !self.is_open => (self.is_open, acked.ready) = (true, true),
                Operation::Pong => acked.events += self.asked.pop_front().unwrap_or(0),
                Operation::Message { head, body, .. } => {
                    if head.starts_with(b"NATS/1.0 503") || memmem::find(body, b"\"error\"").is_some() {
                        bail!("refused: {}", String::from_utf8_lossy(body));
                    }
                    acked.events += 1;
                }
                Operation::Other => {}
            }
        }
        Ok(used)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_with_and_without_head_and_reply_are_told_apart() {
        let bytes = b"MSG ag.a 1 5\r\nhello\r\nHMSG ag.a 1 x.y 12 17\r\nNATS/1.0\r\n\r\nhello\r\nPING\r\n";
        let mut got = Vec::new();
        let mut used = 0;
        while let Some((operation, len)) = operation(&bytes[used..]).unwrap() {
            used += len;
            match operation {
                Operation::Message { reply, body, .. } => got.push((reply, body)),
                Operation::Ping => got.push((None, b"ping")),
                Operation::Pong | Operation::Other => panic!(),
            }
        }
        let reply = Some(&b"x.y"[..]);
        assert_eq!(got, [(None, &b"hello"[..]), (reply, b"hello"), (None, b"ping")]);
    }

    #[test]
    fn flow_control_is_answered_and_is_no_event() {
        let head = b"NATS/1.0 100 FlowControl Request\r\n\r\n";
        let mut bytes = format!("HMSG v.1 1 fc.1 {0} {0}\r\n", head.len()).into_bytes();
        bytes.extend_from_slice(head);
        bytes.extend_from_slice(b"\r\n");
        let (mut events, mut ready, mut say) = (0, false, Vec::new());
        listen(&bytes, true, &mut |_| events += 1, &mut ready, &mut say).unwrap();
        assert_eq!((events, say), (0, b"PUB fc.1 0\r\n\r\n".to_vec()));
    }
}
