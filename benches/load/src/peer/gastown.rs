//! Our relay, over the protocol of `docs/protocol.md`: viewers on `/v1/agents/{agent}/stream` (§5), producers on the ingest
//! link (§6).

use std::{
    io::{BufRead as _, BufReader},
    net::SocketAddr,
    path::Path,
    process::Command,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use protocol::{AgentId, Timestamp, TownId};
use relay::{
    auth::{Claims, Keys, ServiceClaims, WrapperClaims},
    server::now,
};

use super::{
    Acked, Heard, Peer, ProducerCodec, Running, ViewerCodec,
    process::{Process, first_line},
};
use crate::wire::{
    http::Asking,
    websocket::{Socket, TEXT, client_frame, handshake},
};

/// Events of one append (§11, `BATCH_EVENTS`).
const APPEND_EVENTS: usize = protocol::limits::BATCH_EVENTS;
const TOKEN_LIFE: Duration = Duration::from_secs(24 * 3600);

pub(super) fn version(program: &Path) -> Result<String> {
    first_line(program, "--version")
}

pub(super) fn start(program: &Path, directory: tempfile::TempDir) -> Result<Running> {
    let mut command = Command::new(program);
    command.args(["--listen", "127.0.0.1:0", "--open-metrics", "--data-dir", "."]);
    command.env("RUST_LOG", "warn");
    let (process, output) = Process::spawn_piped(command, directory.path())?;
    let mut line = String::new();
    BufReader::new(output).read_line(&mut line)?;
    let address = line.trim().rsplit('/').next().and_then(|address| address.parse().ok());
    let address = address.with_context(|| format!("the relay did not say where it listens: {line:?}"))?;
    let keys = Keys::load(&directory.path().join("signing-key"))?;
    let peer = Gastown::new(address, keys)?;
    Ok(Running { peer: Arc::new(peer), process, directory })
}

struct Gastown {
    address: SocketAddr,
    keys: Keys,
    town: TownId,
    expires: Timestamp,
    /// Reads and prepares everything.
    service: String,
}

impl Gastown {
    fn new(address: SocketAddr, keys: Keys) -> Result<Self> {
        let (town, expires): (TownId, _) = ("load".parse()?, now().after(TOKEN_LIFE));
        let claims = ServiceClaims { town: town.clone(), service: "load".to_owned(), expires };
        let service = authorization(&keys, &Claims::Service(claims));
        Ok(Self { address, keys, town, expires, service })
    }
}

/// The header line that shows a token.
fn authorization(keys: &Keys, claims: &Claims) -> String {
    format!("Authorization: Bearer {}\r\n", keys.sign(claims).expose())
}

impl Peer for Gastown {
    fn viewer_address(&self) -> SocketAddr {
        self.address
    }

    /// A viewer of an agent that nobody has heard of is refused: an append of nothing makes its log.
    fn prepare(&self, channels: &[String]) -> Result<()> {
        let mut asking = Asking::connect(self.address)?;
        for channel in channels {
            let (head, body) = (&self.service, r#"{"events":[]}"#);
            let request = format!(
                "POST /v1/agents/{channel}/events HTTP/1.1\r\nHost: {}\r\n{head}Content-Type: application/json\r\n\
                 Content-Length: {}\r\n\r\n{body}",
                self.address,
                body.len()
            );
            asking.ask(request.as_bytes())?;
        }
        Ok(())
    }

    fn viewer(&self, channel: &str) -> Box<dyn ViewerCodec> {
        let path = format!("/v1/agents/{channel}/stream");
        let hello = handshake(&self.address.to_string(), &path, &self.service);
        Box::new(Viewer { hello, socket: Socket::default() })
    }

    fn producer(&self, channel: &str) -> Box<dyn ProducerCodec> {
        let agent: AgentId = channel.parse().expect("channels are named so that they are ids");
        let claims = WrapperClaims { town: self.town.clone(), agent, generation: 1, expires: self.expires };
        let headers = authorization(&self.keys, &Claims::Ingest(claims));
        Box::new(Producer {
            handshake: handshake(&self.address.to_string(), "/v1/ingest", &headers),
            hello: format!(
                concat!(
                    r#"{{"type":"hello","protocol":1,"wrapper_version":"load","agent":"{}","town":"{}","#,
                    r#""producer":"load","generation":1,"runtime":{{"name":"load","version":"1"}},"next":1}}"#,
                ),
                channel, self.town
            ),
            socket: Socket::default(),
            next: 1,
            acked: 0,
            burst: Vec::new(),
        })
    }
}

struct Viewer {
    hello: Vec<u8>,
    socket: Socket,
}

impl ViewerCodec for Viewer {
    fn open(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.hello)
    }

    fn feed(&mut self, bytes: &[u8], heard: &mut Heard<'_>) -> Result<usize> {
        let (events, mut answers) = (&mut *heard.events, 0);
        let (ready, gaps) = (&mut heard.ready, &mut heard.gaps);
        let fed = self.socket.feed(bytes, &mut heard.reply, |message| {
            match kind(message) {
                b"events" => events(message),
                b"live" => *ready = true,
                b"gap" => *gaps += 1,
                b"heartbeat" => answers += 1,
                b"error" => bail!("{}", String::from_utf8_lossy(message)),
                _ => {}
            }
            Ok(())
        })?;
        for _ in 0..answers {
            client_frame(TEXT, br#"{"type":"pong"}"#, &mut heard.reply);
        }
        heard.closed |= fed.closed;
        Ok(fed.used)
    }
}

/// The type of a frame, which the relay writes first.
fn kind(message: &[u8]) -> &[u8] {
    let rest = message.strip_prefix(br#"{"type":""#).unwrap_or_default();
    &rest[..memchr::memchr(b'"', rest).unwrap_or(0)]
}

struct Producer {
    handshake: Vec<u8>,
    hello: String,
    socket: Socket,
    /// The number of the next event.
    next: u64,
    acked: u64,
    /// What is sent together goes in one append, as a wrapper does it.
    burst: Vec<Vec<u8>>,
}

impl ProducerCodec for Producer {
    fn open(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.handshake)
    }

    fn encode(&mut self, events: &[Vec<u8>], _out: &mut Vec<u8>) {
        self.burst.extend_from_slice(events);
    }

    fn flush(&mut self, out: &mut Vec<u8>) {
        for events in self.burst.chunks(APPEND_EVENTS) {
            let mut frame = format!(r#"{{"type":"append","first":{},"events":["#, self.next).into_bytes();
            frame.extend_from_slice(&events.join(&b','));
            frame.extend_from_slice(b"]}");
            client_frame(TEXT, &frame, out);
            self.next += events.len() as u64;
        }
        self.burst.clear();
    }

    fn feed(&mut self, bytes: &[u8], acked: &mut Acked) -> Result<usize> {
        let (mut through, mut welcome, mut beats) = (self.acked, false, 0);
        let fed = self.socket.feed(bytes, &mut acked.reply, |message| {
            match kind(message) {
                b"ack" => through = through.max(number(message, b"\"through\":")),
                b"welcome" => welcome = true,
                b"heartbeat" => beats += 1,
                b"nack" | b"superseded" | b"draining" => bail!("{}", String::from_utf8_lossy(message)),
                _ => {}
            }
            Ok(())
        })?;
        if fed.opened {
            client_frame(TEXT, self.hello.as_bytes(), &mut acked.reply);
        }
        for _ in 0..beats {
            client_frame(TEXT, br#"{"type":"heartbeat"}"#, &mut acked.reply);
        }
        acked.ready |= welcome;
        acked.events += through - self.acked;
        self.acked = through;
        if fed.closed {
            bail!("the relay closed the link");
        }
        Ok(fed.used)
    }
}

/// The number after a field's name.
fn number(message: &[u8], field: &[u8]) -> u64 {
    let Some(at) = memchr::memmem::find(message, field) else { return 0 };
    let digits = message[at + field.len()..].iter().take_while(|byte| byte.is_ascii_digit());
    digits.fold(0, |number, digit| number * 10 + u64::from(digit - b'0'))
}

#[cfg(test)]
mod tests {
    use protocol::{
        Seq,
        codec::Frame as _,
        frame::{FromWrapper, ToWrapper},
    };

    use super::*;
    use crate::{
        event,
        wire::websocket::{server_text, unmasked},
    };

    #[test]
    fn what_a_burst_holds_goes_in_one_append_that_the_relay_can_read() {
        let mut producer = producer();
        let (mut out, mut event) = (Vec::new(), Vec::new());
        for number in 1..=3 {
            event::encode(number, 0, 512, &mut event);
            producer.encode(std::slice::from_ref(&event), &mut out);
        }
        producer.flush(&mut out);
        let (payload, len) = unmasked(&out).unwrap();
        assert_eq!(len, out.len());
        let FromWrapper::Append { first, events } = FromWrapper::decode(&payload).unwrap() else { panic!() };
        assert_eq!((first, events.len()), (1, 3));
    }

    #[test]
    fn acks_are_cumulative_and_a_refusal_is_an_error() {
        let mut producer = producer();
        let mut bytes = b"HTTP/1.1 101 x\r\n\r\n".to_vec();
        for through in [2, 5] {
            server_text(&ToWrapper::Ack { through, seq: Seq::ZERO }.encode(), &mut bytes);
        }
        let mut acked = Acked::default();
        assert_eq!(producer.feed(&bytes, &mut acked).unwrap(), bytes.len());
        assert_eq!(acked.events, 5);
        assert!(FromWrapper::decode(&unmasked(&acked.reply).unwrap().0).is_ok(), "hello");

        let mut refused = Vec::new();
        server_text(&ToWrapper::Superseded.encode(), &mut refused);
        producer.feed(&refused, &mut Acked::default()).unwrap_err();
    }

    fn producer() -> Box<dyn ProducerCodec> {
        Gastown::new("127.0.0.1:1".parse().unwrap(), Keys::random()).unwrap().producer("a1")
    }
}
