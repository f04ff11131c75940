//! The workloads: what is asked of every server that can do it.

mod append;
mod fan_out;
mod fleet;
mod growth;
mod idle;
mod replay;
mod soak;
mod store;

use std::{path::PathBuf, time::Duration};

use anyhow::Result;
use clap::ValueEnum;
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

pub(crate) use soak::{Sample, Soaked, soak};

use crate::{
    client::Load,
    peer::{PeerKind, Programs, Running},
    record::{Figure, Figures},
};
use PeerKind::{
    Floor, FloorPerEvent, Gastown, Jetstream, Nats, Nchan, RedisPubsub, RedisStream, RedisStreamAlways,
    S2Lite,
};

/// Bytes of an event.
const SIZE: usize = 512;
/// Time for a server to settle after viewers have come.
const SETTLE: Duration = Duration::from_millis(300);

/// A workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[value(rename_all = "kebab-case")]
pub(crate) enum Workload {
    /// 1 agent to 1,000 viewers, as fast as acked.
    #[value(name = "fan-out-1000")]
    FanOut1000,
    /// 1 agent to 4,000 viewers, as fast as acked.
    #[value(name = "fan-out-4000")]
    FanOut4000,
    /// 20 events a second to 1,000 viewers.
    Paced,
    /// 1 producer, one event outstanding.
    #[value(name = "append-1")]
    Append1,
    /// 64 producers, one event outstanding each.
    #[value(name = "append-64")]
    Append64,
    /// 1 producer, batches of 64, four outstanding.
    AppendBatch,
    /// One joiner reads 2,000 events.
    Replay,
    /// 1,000 joiners read 2,000 events at once.
    Herd,
    /// 1,000 agents with 10 events a second and 2 viewers each.
    Fleet,
    /// 10,000 viewers that get nothing.
    Idle,
    /// Stalled viewers beside 100 that read.
    Stalled,
    /// The store, in process.
    Store,
    /// What a delivery costs, by viewers.
    GrowthViewers,
    /// What an event costs, by agents.
    GrowthAgents,
    /// What an event costs, by length of the log.
    GrowthLog,
}

impl Workload {
    /// The servers that can do it, in the order of the table.
    pub(crate) fn peers(self) -> &'static [PeerKind] {
        match self {
            Self::FanOut1000 => {
                &[Gastown, Floor, FloorPerEvent, RedisPubsub, RedisStream, Nats, Jetstream, Nchan, S2Lite]
            }
            Self::FanOut4000 => &[Gastown, Floor, RedisPubsub, RedisStream, Nats, Jetstream, Nchan],
            Self::Paced => &[Gastown, Floor, RedisPubsub, RedisStream, Nats, Jetstream, Nchan, S2Lite],
            Self::Append1 | Self::Append64 => {
                &[Gastown, RedisStreamAlways, RedisStream, Jetstream, Nchan, S2Lite]
            }
            Self::AppendBatch => &[Gastown, RedisStreamAlways, RedisStream, S2Lite],
            Self::Replay | Self::Herd => &[Gastown, RedisStream, Jetstream, Nchan, S2Lite],
            Self::Fleet | Self::Idle => &[Gastown, RedisPubsub, RedisStream, Nats, Jetstream, Nchan, S2Lite],
            Self::Stalled => &[Gastown, RedisPubsub, RedisStream, Nats, Nchan],
            Self::GrowthViewers => &[Gastown, Floor, RedisPubsub, Nats],
            Self::Store | Self::GrowthAgents | Self::GrowthLog => &[Gastown],
        }
    }

    /// A curve, which is measured once.
    pub(crate) fn is_curve(self) -> bool {
        matches!(self, Self::GrowthViewers | Self::GrowthAgents | Self::GrowthLog)
    }

    /// Does it, and gives each measurement to `done`, with its place on the curve.
    pub(crate) fn run(self, bench: &Bench<'_>, done: &mut dyn FnMut(Option<u64>, Result<Figures>)) {
        match self {
            Self::FanOut1000 => done(None, fan_out::fast(bench, 1_000)),
            Self::FanOut4000 => done(None, fan_out::fast(bench, 4_000)),
            Self::Paced => done(None, fan_out::paced(bench)),
            Self::Append1 => done(None, append::one_outstanding(bench, 1)),
            Self::Append64 => done(None, append::one_outstanding(bench, 64)),
            Self::AppendBatch => done(None, append::batches(bench)),
            Self::Replay => done(None, replay::one(bench)),
            Self::Herd => done(None, replay::herd(bench)),
            Self::Fleet => done(None, fleet::fleet(bench)),
            Self::Idle => done(None, idle::idle(bench)),
            Self::Stalled => done(None, fan_out::stalled(bench)),
            Self::Store => done(None, store::store(bench)),
            Self::GrowthViewers => growth::viewers(bench, done),
            Self::GrowthAgents => growth::agents(bench, done),
            Self::GrowthLog => growth::log(bench, done),
        }
    }
}

/// One server that is to be measured, and how.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bench<'a> {
    pub(crate) peer: PeerKind,
    pub(crate) programs: &'a Programs,
    /// Where servers keep their data.
    pub(crate) data: &'a PathBuf,
    /// Shorter, where that does not change what is measured.
    pub(crate) quick: bool,
}

impl Bench<'_> {
    /// An empty directory for data.
    fn directory(&self) -> Result<tempfile::TempDir> {
        Ok(tempfile::Builder::new().prefix("server-").tempdir_in(self.data)?)
    }

    /// A fresh server.
    fn start(&self) -> Result<Running> {
        self.peer.start(self.programs, self.directory()?)
    }

    /// A fresh server with channels.
    fn start_with(&self, channels: usize) -> Result<(Running, Vec<String>)> {
        let running = self.start()?;
        let channels: Vec<_> = (0..channels).map(|n| format!("a{n}")).collect();
        running.peer.prepare(&channels)?;
        Ok((running, channels))
    }

    /// This long in a full run, and half of it in a quick one.
    fn time(&self, full: Duration) -> Duration {
        if self.quick { full / 2 } else { full }
    }
}

/// As fast as it is acked, 64 outstanding.
fn fast_load(time: Duration) -> Load {
    Load { events: u64::MAX, time, rate: None, window: 64, batch: 1, size: SIZE, phase: 0.0 }
}

fn quantile_ms(latency: &Histogram<u64>, quantile: f64) -> f64 {
    let ns = latency.value_at_quantile(quantile) as f64;
    ns / 1e6
}

fn set_latency(figures: &mut Figures, latency: &Histogram<u64>) {
    figures.set(Figure::LatencyP50Ms, quantile_ms(latency, 0.5));
    figures.set(Figure::LatencyP99Ms, quantile_ms(latency, 0.99));
}

fn set_ack(figures: &mut Figures, latency: &Histogram<u64>) {
    figures.set(Figure::AckP50Ms, quantile_ms(latency, 0.5));
    figures.set(Figure::AckP99Ms, quantile_ms(latency, 0.99));
}

/// A count as a number to divide by.
fn count(events: u64) -> f64 {
    events as f64
}
