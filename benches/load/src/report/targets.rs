//! What was aimed at, and whether it was reached.

use crate::{
    peer::PeerKind,
    record::{Figure, Results},
    report::tables::{self, number},
    workload::Workload,
};

/// Something to be reached.
#[derive(Debug, Clone, Copy)]
struct Target {
    what: &'static str,
    workload: Workload,
    figure: Figure,
    bound: Bound,
    /// What the figure is divided by before it is compared.
    over: Over,
    unit: &'static str,
    scale: f64,
    digits: usize,
}

#[derive(Debug, Clone, Copy)]
enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

#[derive(Debug, Clone, Copy)]
enum Over {
    Nothing,
    /// The same figure of the floor, in the same run.
    Floor,
    /// Another figure of the same measurement.
    Figure(Figure),
}

use Bound::{AtLeast, AtMost};

const fn target(
    what: &'static str,
    workload: Workload,
    figure: Figure,
    bound: Bound,
    (unit, scale, digits): (&'static str, f64, usize),
) -> Target {
    Target { what, workload, figure, bound, over: Over::Nothing, unit, scale, digits }
}

const fn over(target: Target, over: Over) -> Target {
    Target { over, ..target }
}

const MILLIONS: (&str, f64, usize) = ("M/s", 1e-6, 2);
const THOUSANDS: (&str, f64, usize) = ("k/s", 1e-3, 0);
const TIMES: (&str, f64, usize) = ("×", 1.0, 2);
const MS: (&str, f64, usize) = ("ms", 1.0, 2);
const MIB: (&str, f64, usize) = ("MiB", 1.0, 0);

/// All of them, in the order of the workloads.
#[rustfmt::skip]
const TARGETS: &[Target] = &[
    target("1 agent → 1,000 viewers, deliveries", Workload::FanOut1000, Figure::DeliveriesPerSecond, AtLeast(6e6), MILLIONS),
    target("… server CPU per million deliveries", Workload::FanOut1000, Figure::CpuPerMillionS, AtMost(0.2), ("s", 1.0, 2)),
    target("1 agent → 4,000 viewers, deliveries", Workload::FanOut4000, Figure::DeliveriesPerSecond, AtLeast(5e6), MILLIONS),
    over(target("20 events/s to 1,000 viewers, p99, over the floor's", Workload::Paced, Figure::LatencyP99Ms, AtMost(1.15), TIMES), Over::Floor),
    target("append, 64 producers, one outstanding each, in process", Workload::Store, Figure::StoreAppend64PerSecond, AtLeast(100e3), THOUSANDS),
    target("… through the link", Workload::Append64, Figure::EventsPerSecond, AtLeast(60e3), THOUSANDS),
    target("append, batches of 64, in process", Workload::Store, Figure::StoreBatch64PerSecond, AtLeast(200e3), THOUSANDS),
    over(target("append, 1 producer, in process, over the disk's syncs", Workload::Store, Figure::StoreAppend1PerSecond, AtLeast(0.8), TIMES), Over::Figure(Figure::SyncsPerSecond)),
    target("replay of 2,000, one joiner, hot", Workload::Replay, Figure::ToLastP50Ms, AtMost(1.5), MS),
    target("… from the store, pages cached", Workload::Store, Figure::StoreReadWarmPerSecond, AtLeast(3e6), MILLIONS),
    target("… from the store, cold", Workload::Store, Figure::StoreReadColdPerSecond, AtLeast(0.4e6), MILLIONS),
    target("herd, 1,000 joiners × 2,000 events, p99", Workload::Herd, Figure::ToLastP99Ms, AtMost(600.0), ("ms", 1.0, 0)),
    target("… memory", Workload::Herd, Figure::ServerMib, AtMost(60.0), MIB),
    target("fleet, 1,000 agents × 10 events/s × 2 viewers, p99", Workload::Fleet, Figure::LatencyP99Ms, AtMost(4.0), MS),
    target("10,000 idle viewers, memory", Workload::Idle, Figure::ServerMib, AtMost(50.0), MIB),
    target("stalled viewers, the others' p99 over that without them", Workload::Stalled, Figure::BesideStalled, AtMost(1.1), TIMES),
    target("… memory of a stalled viewer", Workload::Stalled, Figure::KibPerStalled, AtMost(256.0), ("KiB", 1.0, 0)),
];

/// Each target with what was measured, and what the best of the other servers had in the same run.
pub(super) fn table(results: &Results) -> String {
    let head = [
        "what",
        "target",
        "measured",
        "",
        "floor",
        "best of the other servers (of appends: that sync before the ack)",
    ];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    rows.extend(TARGETS.iter().map(|target| target.row(results)));
    rows.push(lost(results));
    tables::table(&rows)
}

impl Target {
    fn row(&self, results: &Results) -> Vec<String> {
        let show = |value| format!("{} {}", number(Some(value), self.scale, self.digits), self.unit);
        let (sign, bound) = match self.bound {
            AtLeast(bound) => ("≥", bound),
            AtMost(bound) => ("≤", bound),
        };
        let value = self.value(results, PeerKind::Gastown);
        let verdict = match value {
            Some(value) if self.bound.is_met_by(value) => "met",
            Some(_) => "**missed**",
            None => "not measured",
        };
        let shown = |value: Option<f64>| value.map_or_else(|| "–".to_owned(), show);
        vec![
            self.what.to_owned(),
            format!("{sign} {}", show(bound)),
            shown(value),
            verdict.to_owned(),
            shown(self.value(results, PeerKind::Floor)),
            self.best_other(results).map_or_else(
                || "–".to_owned(),
                |(peer, value)| format!("{}, {}", show(value), peer.about().title),
            ),
        ]
    }

    fn value(&self, results: &Results, peer: PeerKind) -> Option<f64> {
        let figures = |peer| Some(results.of(self.workload, peer)?.ok()?.figures);
        let mine = figures(peer)?;
        let value = mine.get(self.figure)?;
        match self.over {
            Over::Nothing => Some(value),
            Over::Floor => Some(value / figures(PeerKind::Floor)?.get(self.figure)?),
            Over::Figure(figure) => Some(value / mine.get(figure)?),
        }
    }

    fn best_other(&self, results: &Results) -> Option<(PeerKind, f64)> {
        // An ack that says less is cheaper.
        let is_append =
            matches!(self.workload, Workload::Append1 | Workload::Append64 | Workload::AppendBatch);
        let is_comparable = |peer: &&PeerKind| {
            let is_other = !matches!(peer, PeerKind::Gastown | PeerKind::Floor | PeerKind::FloorPerEvent);
            is_other && (peer.about().is_synced || !is_append)
        };
        let others = self.workload.peers().iter().filter(is_comparable);
        let values = others.filter_map(|&peer| Some((peer, self.value(results, peer)?)));
        values.reduce(|best, other| if self.bound.prefers(other.1, best.1) { other } else { best })
    }
}

impl Bound {
    fn is_met_by(self, value: f64) -> bool {
        match self {
            AtLeast(bound) => value >= bound,
            AtMost(bound) => value <= bound,
        }
    }

    fn prefers(self, one: f64, other: f64) -> bool {
        match self {
            AtLeast(_) => one > other,
            AtMost(_) => one < other,
        }
    }
}

/// What no viewer of ours may see, over all workloads.
fn lost(results: &Results) -> Vec<String> {
    let of_all = |figure| {
        let workloads = tables::TABLES.iter().map(|(workload, _)| results.of(*workload, PeerKind::Gastown));
        let figures = workloads.filter_map(|measured| measured?.ok()?.figures.get(figure));
        figures.reduce(|sum, value| sum + value)
    };
    let faults = [Figure::Lost, Figure::Duplicates, Figure::Disordered].map(of_all);
    let verdict = match faults.iter().copied().sum::<Option<f64>>() {
        None => "not measured",
        Some(sum) if sum > 0.0 => "**missed**",
        Some(_) => "met",
    };
    let shown = faults.map(|fault| number(fault, 1.0, 0)).join(" / ");
    let what = "lost / repeated / out of order, all workloads, all runs";
    [what, "0 / 0 / 0", &shown, verdict, "–", "–"].map(str::to_owned).to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Figures, Header, Record, Writer};

    #[test]
    fn a_target_is_met_at_its_bound_and_missed_beyond() {
        for (value, verdict) in [(6e6, "met"), (5.99e6, "**missed**")] {
            let results = results(&[(PeerKind::Gastown, Figure::DeliveriesPerSecond, value)]);
            assert_eq!(TARGETS[0].row(&results)[3], verdict);
        }
        assert_eq!(TARGETS[0].row(&results(&[]))[3], "not measured");
    }

    #[test]
    fn the_best_of_the_others_is_the_lowest_where_low_is_good() {
        let results = results(&[
            (PeerKind::Gastown, Figure::CpuPerMillionS, 0.1),
            (PeerKind::Floor, Figure::CpuPerMillionS, 0.05),
            (PeerKind::Nats, Figure::CpuPerMillionS, 0.8),
            (PeerKind::RedisPubsub, Figure::CpuPerMillionS, 0.5),
        ]);
        let row = TARGETS[1].row(&results);
        assert_eq!(row[2..], ["0.10 s", "met", "0.05 s", "0.50 s, Redis pub/sub"]);
    }

    #[test]
    fn one_lost_event_is_a_miss() {
        for (value, verdict) in [(0.0, "met"), (1.0, "**missed**")] {
            let results = results(&[
                (PeerKind::Gastown, Figure::Lost, value),
                (PeerKind::Gastown, Figure::Duplicates, 0.0),
                (PeerKind::Gastown, Figure::Disordered, 0.0),
            ]);
            assert_eq!(lost(&results)[3], verdict);
        }
    }

    /// Figures of the fan-out to 1,000.
    fn results(figures: &[(PeerKind, Figure, f64)]) -> Results {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("results.jsonl");
        let header = Header { started: String::new(), quick: false, machine: Vec::new(), peers: [].into() };
        let mut writer = Writer::create(&path, &header).unwrap();
        for &(peer, figure, value) in figures {
            let figures = Figures::default().with(figure, value);
            let record = Record { workload: Workload::FanOut1000, peer, at: None, figures, error: None };
            writer.write(&record).unwrap();
        }
        Results::load(&path).unwrap()
    }
}
