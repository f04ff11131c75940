//! One run: the workloads against the servers, in turns, each measurement written down when it is made.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use meter::clock::{now_ns, seconds, today};

use crate::{
    machine,
    peer::{PeerKind, Programs},
    record::{Figure, Figures, Header, Record, Writer},
    workload::{Bench, Workload},
};

/// How often each workload is measured against each server in a full run: the table shows the median.
const REPEATS: usize = 3;

/// What is run.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) workloads: Vec<Workload>,
    pub(crate) peers: Vec<PeerKind>,
    /// Each once, and shorter.
    pub(crate) quick: bool,
    /// Nothing is begun after this many minutes: later repeats are then left out.
    pub(crate) minutes: f64,
    pub(crate) programs: Programs,
    /// Where servers keep their data while they run.
    pub(crate) data: PathBuf,
}

impl Plan {
    /// Runs it, and writes what is measured to a file. A measurement that fails is written too, and the others go on.
    pub(crate) fn run(&self, results: &Path, mut tell: impl FnMut(String)) -> Result<()> {
        std::fs::create_dir_all(&self.data).context("the directory for data cannot be made")?;
        let open_files = machine::raise_open_files()?;
        tell(format!("limit of open files: {open_files}, raised as far as the system lets it"));
        let header = self.header();
        for (peer, version) in &header.peers {
            let title = peer.about().title;
            match version {
                Ok(version) => tell(format!("{title}: {version}")),
                Err(why) => tell(format!("{title}: NOT MEASURED, {why}")),
            }
        }
        let mut writer = Writer::create(results, &header)?;
        let began = now_ns();
        // Repeats are outermost: what disturbs the machine for a while disturbs one run of many, not all runs of one.
        for repeat in 0..if self.quick { 1 } else { REPEATS } {
            for &workload in self.workloads.iter().filter(|workload| repeat == 0 || !workload.is_curve()) {
                for &peer in
                    workload.peers().iter().filter(|peer| matches!(header.peers.get(peer), Some(Ok(_))))
                {
                    if seconds(began, now_ns()) > self.minutes * 60.0 {
                        tell("the time is over: no other measurement is begun".to_owned());
                        return Ok(());
                    }
                    let (programs, data, quick) = (&self.programs, &self.data, self.quick);
                    let mut failed = None;
                    workload.run(&Bench { peer, programs, data, quick }, &mut |at, measured| {
                        let error = measured.as_ref().err().map(|error| format!("{error:#}"));
                        let figures = measured.unwrap_or_default();
                        tell(line(workload, peer, at, &figures, error.as_deref()));
                        failed = writer.write(&Record { workload, peer, at, figures, error }).err();
                    });
                    if let Some(error) = failed {
                        return Err(error);
                    }
                }
            }
        }
        tell(format!("{:.0} s", seconds(began, now_ns())));
        Ok(())
    }

    fn header(&self) -> Header {
        let version =
            |&peer: &PeerKind| (peer, peer.version(&self.programs).map_err(|error| format!("{error:#}")));
        let peers: BTreeMap<_, _> = self.peers.iter().map(version).collect();
        Header { started: today(), quick: self.quick, machine: machine::describe(&self.data), peers }
    }
}

/// A measurement, for people who watch.
fn line(
    workload: Workload,
    peer: PeerKind,
    at: Option<u64>,
    figures: &Figures,
    error: Option<&str>,
) -> String {
    let mut line = format!("{workload:?} {peer:?}");
    if let Some(at) = at {
        line += &format!(" at {at}");
    }
    if let Some(error) = error {
        return format!("{line}: FAILED: {error}");
    }
    let shown: [(Figure, &str, f64, usize); 22] = [
        (Figure::DeliveriesPerSecond, "k deliveries/s", 1e-3, 0),
        (Figure::EventsPerSecond, "events/s", 1.0, 0),
        (Figure::LatencyP50Ms, "ms p50", 1.0, 2),
        (Figure::LatencyP99Ms, "ms p99", 1.0, 2),
        (Figure::AckP50Ms, "ms ack p50", 1.0, 2),
        (Figure::AckP99Ms, "ms ack p99", 1.0, 2),
        (Figure::ToLastP50Ms, "ms to last p50", 1.0, 2),
        (Figure::ToLastP99Ms, "ms to last p99", 1.0, 2),
        (Figure::CpuPerMillionS, "s CPU per million", 1.0, 3),
        (Figure::ServerMib, "MiB", 1.0, 0),
        (Figure::KibPerViewer, "KiB per viewer", 1.0, 2),
        (Figure::KibPerStalled, "KiB per stalled viewer", 1.0, 0),
        (Figure::BesideStalled, "× p99 beside stalled", 1.0, 2),
        (Figure::SyncsPerSecond, "syncs/s", 1.0, 0),
        (Figure::StoreAppend1PerSecond, "appends/s by 1", 1.0, 0),
        (Figure::StoreAppend64PerSecond, "appends/s by 64", 1.0, 0),
        (Figure::StoreBatch64PerSecond, "appends/s in batches", 1.0, 0),
        (Figure::StoreReadColdPerSecond, "k cold reads/s", 1e-3, 0),
        (Figure::StoreReadWarmPerSecond, "k warm reads/s", 1e-3, 0),
        (Figure::AppendUs, "µs per append", 1.0, 2),
        (Figure::ReadUs, "µs per read", 1.0, 2),
        (Figure::DiskMib, "MiB on disk", 1.0, 0),
    ];
    for (figure, unit, scale, digits) in shown {
        if let Some(value) = figures.get(figure) {
            line += &format!(", {:.digits$} {unit}", value * scale);
        }
    }
    for (figure, name) in [
        (Figure::Lost, "LOST"),
        (Figure::Duplicates, "DUPLICATED"),
        (Figure::Disordered, "OUT OF ORDER"),
        (Figure::Gaps, "gaps named"),
    ] {
        if let Some(value) = figures.get(figure).filter(|value| *value > 0.0) {
            line += &format!(", {value:.0} {name}");
        }
    }
    let cores = |figure| figures.get(figure).unwrap_or(0.0);
    let (server, client, other) =
        (cores(Figure::ServerCores), cores(Figure::ClientCores), cores(Figure::OtherCores));
    format!("{line}; cores: server {server:.2}, client {client:.2}, others {other:.2}")
}
