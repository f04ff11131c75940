//! What was measured: one line of JSON per measurement, written when it is made.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
};

use anyhow::{Context as _, Result};
use meter::processes::Used;
use serde::{Deserialize, Serialize};

use crate::{judge::Verdict, peer::PeerKind, workload::Workload};

/// Something that was measured. Times are in milliseconds unless named otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Figure {
    /// Events that came to viewers.
    DeliveriesPerSecond,
    /// Events that were acked to producers.
    EventsPerSecond,
    /// From sending to arrival.
    LatencyP50Ms,
    LatencyP99Ms,
    /// From sending to ack.
    AckP50Ms,
    AckP99Ms,
    /// The server's CPU time per million deliveries, or per million appends where nobody views.
    CpuPerMillionS,
    /// The server's memory (PSS) after the run.
    ServerMib,
    /// The server's memory per idle viewer.
    KibPerViewer,
    /// Memory of one stalled viewer.
    KibPerStalled,
    /// The p99 of the others beside stalled viewers, over that without them.
    BesideStalled,
    /// From the common start to a joiner's last event.
    ToLastP50Ms,
    ToLastP99Ms,
    ServerCores,
    ClientCores,
    OtherCores,
    /// Appends of 512 bytes with `fdatasync` that the disk takes, one after the other.
    SyncsPerSecond,
    /// In process, without the relay.
    StoreAppend1PerSecond,
    StoreAppend64PerSecond,
    StoreBatch64PerSecond,
    StoreReadWarmPerSecond,
    StoreReadColdPerSecond,
    /// In process, at a length of the log.
    AppendUs,
    ReadUs,
    DiskMib,
    /// Losses that the server named.
    Gaps,
    Lost,
    Duplicates,
    Disordered,
}

impl Figure {
    /// Of several runs the worst counts, not the median: promises have no median.
    fn is_promise(self) -> bool {
        matches!(self, Self::Gaps | Self::Lost | Self::Duplicates | Self::Disordered)
    }
}

/// The figures of one measurement.
#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Figures(BTreeMap<Figure, f64>);

impl Figures {
    pub(crate) fn set(&mut self, figure: Figure, value: f64) {
        self.0.insert(figure, value);
    }

    pub(crate) fn with(mut self, figure: Figure, value: f64) -> Self {
        self.set(figure, value);
        self
    }

    pub(crate) fn get(&self, figure: Figure) -> Option<f64> {
        self.0.get(&figure).copied()
    }

    pub(crate) fn set_verdict(&mut self, verdict: Verdict, gaps: u64) {
        self.set(Figure::Lost, verdict.lost as f64);
        self.set(Figure::Duplicates, verdict.duplicates as f64);
        self.set(Figure::Disordered, verdict.disordered as f64);
        self.set(Figure::Gaps, gaps as f64);
    }

    pub(crate) fn set_used(&mut self, used: Used) {
        self.set(Figure::ServerCores, used.server_cores);
        self.set(Figure::ClientCores, used.client_cores);
        self.set(Figure::OtherCores, used.other_cores);
    }

    /// The median of each figure, and of promises the worst.
    fn median(all: &[&Self]) -> Self {
        let mut values: BTreeMap<Figure, Vec<f64>> = BTreeMap::new();
        for (&figure, &value) in all.iter().flat_map(|figures| &figures.0) {
            values.entry(figure).or_default().push(value);
        }
        let of = |(figure, mut values): (Figure, Vec<f64>)| {
            values.sort_by(f64::total_cmp);
            let middle = (values[(values.len() - 1) / 2] + values[values.len() / 2]) / 2.0;
            (figure, if figure.is_promise() { values[values.len() - 1] } else { middle })
        };
        Self(values.into_iter().map(of).collect())
    }
}

/// One line.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) workload: Workload,
    pub(crate) peer: PeerKind,
    /// Of a growth curve: where on it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) at: Option<u64>,
    #[serde(default)]
    pub(crate) figures: Figures,
    /// Why there are no figures.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<String>,
}

/// The machine, the servers and the time: the first line.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Header {
    pub(crate) started: String,
    pub(crate) quick: bool,
    pub(crate) machine: Vec<(String, String)>,
    /// The version of each server, or why it was not there.
    pub(crate) peers: BTreeMap<PeerKind, Result<String, String>>,
}

/// Writes a run as it happens.
#[derive(Debug)]
pub(crate) struct Writer(File);

impl Writer {
    /// Begins a file anew.
    pub(crate) fn create(path: &Path, header: &Header) -> Result<Self> {
        fs::create_dir_all(path.parent().context("a file lies in a directory")?)?;
        let mut file = OpenOptions::new().create(true).write(true).truncate(true).open(path)?;
        writeln!(file, "{}", serde_json::to_string(header)?)?;
        Ok(Self(file))
    }

    pub(crate) fn write(&mut self, record: &Record) -> Result<()> {
        Ok(writeln!(self.0, "{}", serde_json::to_string(record)?)?)
    }
}

/// A run that was written.
#[derive(Debug)]
pub(crate) struct Results {
    pub(crate) header: Header,
    records: Vec<Record>,
}

impl Results {
    pub(crate) fn load(path: &Path) -> Result<Self> {
        let file = File::open(path).with_context(|| format!("{} cannot be read", path.display()))?;
        let mut lines = BufReader::new(file).lines();
        let header = serde_json::from_str(&lines.next().context("the file is empty")??)?;
        let records = lines.map(|line| Ok(serde_json::from_str(&line?)?)).collect::<Result<_>>()?;
        Ok(Self { header, records })
    }

    /// The median of a workload's runs against a server; `Err` says why there is none, `None` that it was not tried.
    pub(crate) fn of(&self, workload: Workload, peer: PeerKind) -> Option<Result<Measured, String>> {
        self.at(workload, peer, None)
    }

    pub(crate) fn at(
        &self,
        workload: Workload,
        peer: PeerKind,
        at: Option<u64>,
    ) -> Option<Result<Measured, String>> {
        let mine = |record: &&Record| record.workload == workload && record.peer == peer && record.at == at;
        let all = self.records.iter().filter(mine).collect::<Vec<_>>();
        let good = all.iter().filter(|record| record.error.is_none()).map(|record| &record.figures);
        let good = good.collect::<Vec<_>>();
        match (good.len(), all.first()) {
            (0, None) => None,
            (0, Some(record)) => Some(Err(record.error.clone().unwrap_or_default())),
            (runs, _) => {
                Some(Ok(Measured { figures: Figures::median(&good), runs, failed: all.len() - runs }))
            }
        }
    }

    /// Cores that others used while this was measured: in the middle, and at most.
    pub(crate) fn disturbed(&self) -> Option<(f64, f64)> {
        let cores = |record: &Record| record.figures.get(Figure::OtherCores);
        let mut cores: Vec<f64> = self.records.iter().filter_map(cores).collect();
        cores.sort_by(f64::total_cmp);
        Some((*cores.get(cores.len() / 2)?, *cores.last()?))
    }

    /// The points of a growth curve.
    pub(crate) fn curve(&self, workload: Workload, peer: PeerKind) -> Vec<(u64, Figures)> {
        let mut points =
            self.records.iter().filter(|record| record.workload == workload && record.peer == peer);
        let mut places = points.by_ref().filter_map(|record| record.at).collect::<Vec<_>>();
        places.sort_unstable();
        places.dedup();
        let point = |at| Some((at, self.at(workload, peer, Some(at))?.ok()?.figures));
        places.into_iter().filter_map(point).collect()
    }
}

/// What came of a workload against a server.
#[derive(Debug)]
pub(crate) struct Measured {
    pub(crate) figures: Figures,
    pub(crate) runs: usize,
    pub(crate) failed: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_taken_of_rates_and_the_worst_of_promises() {
        let run =
            |rate, lost| Figures::default().with(Figure::EventsPerSecond, rate).with(Figure::Lost, lost);
        let runs = [run(5.0, 0.0), run(100.0, 7.0), run(6.0, 0.0)];
        assert_eq!(Figures::median(&runs.each_ref()), run(6.0, 7.0));
        assert_eq!(Figures::median(&[&runs[0], &runs[2]]), run(5.5, 0.0));
    }

    #[test]
    fn what_is_written_is_read_back_and_a_failed_run_does_not_hide_the_others() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("runs/results.jsonl");
        let peers = [(PeerKind::Nchan, Err("not installed".to_owned()))].into();
        let header = Header { started: "today".to_owned(), quick: true, machine: Vec::new(), peers };
        let mut writer = Writer::create(&path, &header).unwrap();
        let (workload, peer) = (Workload::FanOut1000, PeerKind::Gastown);
        let good = |rate| Figures::default().with(Figure::DeliveriesPerSecond, rate);
        let record = Record { workload, peer, at: None, figures: good(1.0), error: None };
        writer.write(&record).unwrap();
        writer
            .write(&Record {
                figures: Figures::default(),
                error: Some("it ended".to_owned()),
                ..record.clone()
            })
            .unwrap();
        writer.write(&Record { peer: PeerKind::Nats, error: Some("no".to_owned()), ..record }).unwrap();

        let results = Results::load(&path).unwrap();
        assert_eq!(results.header.peers[&PeerKind::Nchan], Err("not installed".to_owned()));
        let measured = results.of(workload, peer).unwrap().unwrap();
        assert_eq!((measured.figures, measured.runs, measured.failed), (good(1.0), 1, 1));
        assert_eq!(results.of(workload, PeerKind::Nats).unwrap().unwrap_err(), "no");
        assert!(results.of(workload, PeerKind::S2Lite).is_none());
        assert_eq!(results.disturbed(), None);
    }
}
