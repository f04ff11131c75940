//! The servers that are measured: how each is started, and how it is spoken to.
//!
//! A codec touches neither sockets nor clocks: it says what to write when a connection opens, and turns bytes into events
//! or acks. All else is the same code for every server.

mod floor;
pub(crate) mod frames;
mod gastown;
mod nats;
mod nchan;
mod process;
mod redis;
mod s2;

use std::{net::SocketAddr, path::PathBuf};

use anyhow::Result;
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

pub(crate) use floor::serve as serve_floor;
pub(crate) use process::{Running, end_servers_on_a_signal};

/// What a viewer's codec made of some bytes.
pub(crate) struct Heard<'a> {
    /// To be sent back.
    pub(crate) reply: Vec<u8>,
    /// The subscription is in place.
    pub(crate) ready: bool,
    /// The server ended the stream.
    pub(crate) closed: bool,
    /// Losses that the server named.
    pub(crate) gaps: u64,
    /// Takes payload: any number of whole events.
    pub(crate) events: &'a mut dyn FnMut(&[u8]),
}

/// A viewer's side of a server's protocol.
pub(crate) trait ViewerCodec {
    /// What is written first.
    fn open(&mut self) -> Vec<u8>;
    /// Takes bytes, and says how many were used; the rest comes again with what follows.
    fn feed(&mut self, bytes: &[u8], heard: &mut Heard<'_>) -> Result<usize>;
}

/// What a producer's codec made of some bytes.
#[derive(Debug, Default)]
pub(crate) struct Acked {
    /// To be sent back.
    pub(crate) reply: Vec<u8>,
    /// Events may be sent.
    pub(crate) ready: bool,
    /// Events acked, oldest first.
    pub(crate) events: u64,
}

/// A producer's side of a server's protocol.
pub(crate) trait ProducerCodec {
    /// What is written first; nothing, where events may be sent at once.
    fn open(&mut self) -> Vec<u8>;
    /// Appends the requests that carry these events: one, where the server has requests with several.
    fn encode(&mut self, events: &[Vec<u8>], out: &mut Vec<u8>);
    /// What was encoded is about to be written.
    fn flush(&mut self, _out: &mut Vec<u8>) {}
    /// Takes bytes, and says how many were used. A refused event is an error.
    fn feed(&mut self, bytes: &[u8], acked: &mut Acked) -> Result<usize>;
}

/// A server that runs.
pub(crate) trait Peer: Send + Sync {
    fn viewer_address(&self) -> SocketAddr;
    fn producer_address(&self) -> SocketAddr {
        self.viewer_address()
    }
    /// Makes channels, where the server wants that.
    fn prepare(&self, _channels: &[String]) -> Result<()> {
        Ok(())
    }
    /// A viewer that begins with the oldest event that the server still has.
    fn viewer(&self, channel: &str) -> Box<dyn ViewerCodec>;
    fn producer(&self, channel: &str) -> Box<dyn ProducerCodec>;
}

/// The servers, as set up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum PeerKind {
    /// Our relay: release build, SQLite, every commit synced.
    Gastown,
    /// A loop that writes frames, one write per viewer for all that one read brought.
    Floor,
    /// The same with one write per viewer and event.
    FloorPerEvent,
    /// Redis publish/subscribe.
    RedisPubsub,
    /// Redis streams, synced each second.
    RedisStream,
    /// Redis streams, synced before each answer.
    RedisStreamAlways,
    /// NATS without `JetStream`, viewers on WebSockets.
    Nats,
    /// NATS `JetStream`, viewers on WebSockets.
    Jetstream,
    /// Nginx with Nchan, memory store.
    Nchan,
    /// s2-lite on local files.
    S2Lite,
}

/// Programs that are not on the search path.
#[derive(Debug, Clone)]
pub(crate) struct Programs {
    /// The relay's release build.
    pub(crate) relay: PathBuf,
    /// s2-lite's server.
    pub(crate) s2: PathBuf,
}

/// What a reader of the tables has to know of a server.
#[derive(Debug, Clone, Copy)]
pub(crate) struct About {
    pub(crate) title: &'static str,
    /// What an ack says of the disk.
    pub(crate) durability: &'static str,
    /// What is acked survives a loss of power.
    pub(crate) is_synced: bool,
    /// Late joiners can read what was.
    pub(crate) keeps_history: bool,
}

impl PeerKind {
    pub(crate) fn about(self) -> About {
        let (title, durability, is_synced, keeps_history) = match self {
            Self::Gastown => {
                ("**gastown-relay**", "SQLite, synced before the ack and before anybody sees it", true, true)
            }
            Self::Floor => ("floor", "nothing is stored", false, false),
            Self::FloorPerEvent => ("floor, a write per event", "nothing is stored", false, false),
            Self::RedisPubsub => ("Redis pub/sub", "nothing is stored", false, false),
            Self::RedisStream => ("Redis stream", "append-only file, synced each second", false, true),
            Self::RedisStreamAlways => {
                ("Redis stream, always", "append-only file, synced before the ack", true, true)
            }
            Self::Nats => ("NATS", "nothing is stored", false, false),
            Self::Jetstream => ("NATS JetStream", "file, synced every two minutes", false, true),
            Self::Nchan => ("Nchan", "shared memory", false, true),
            Self::S2Lite => ("s2-lite", "local files, synced every 5 ms, before the ack", true, true),
        };
        About { title, durability, is_synced, keeps_history }
    }

    /// Its version, if it can be started here.
    pub(crate) fn version(self, programs: &Programs) -> Result<String> {
        match self {
            Self::Gastown => gastown::version(&programs.relay),
            Self::Floor | Self::FloorPerEvent => Ok(env!("CARGO_PKG_VERSION").to_owned()),
            Self::RedisPubsub | Self::RedisStream | Self::RedisStreamAlways => redis::version(),
            Self::Nats | Self::Jetstream => nats::version(),
            Self::Nchan => nchan::version(),
            Self::S2Lite => s2::version(&programs.s2),
        }
    }

    /// Starts it in an empty directory.
    pub(crate) fn start(self, programs: &Programs, directory: tempfile::TempDir) -> Result<Running> {
        match self {
            Self::Gastown => gastown::start(&programs.relay, directory),
            Self::Floor => floor::start(directory, true),
            Self::FloorPerEvent => floor::start(directory, false),
            Self::RedisPubsub => redis::start(directory, redis::Mode::PubSub),
            Self::RedisStream => redis::start(directory, redis::Mode::Stream { sync: "everysec" }),
            Self::RedisStreamAlways => redis::start(directory, redis::Mode::Stream { sync: "always" }),
            Self::Nats => nats::start(directory, false),
            Self::Jetstream => nats::start(directory, true),
            Self::Nchan => nchan::start(directory),
            Self::S2Lite => s2::start(&programs.s2, directory),
        }
    }
}
