//! The tables.

use crate::{
    peer::PeerKind,
    record::{
        Figure::{self, *},
        Measured, Results,
    },
    workload::Workload,
};

/// How a figure is shown: the column's head, what it is multiplied with, and its digits.
pub(super) struct Column {
    head: &'static str,
    figure: Figure,
    scale: f64,
    digits: usize,
}

const fn column(head: &'static str, figure: Figure, scale: f64, digits: usize) -> Column {
    Column { head, figure, scale, digits }
}

const FAN_OUT: &[Column] = &[
    column("deliveries, k/s", DeliveriesPerSecond, 1e-3, 0),
    column("events/s", EventsPerSecond, 1.0, 0),
    column("p50, ms", LatencyP50Ms, 1.0, 1),
    column("p99, ms", LatencyP99Ms, 1.0, 1),
    column("server CPU, s per million", CpuPerMillionS, 1.0, 2),
    column("server, MiB", ServerMib, 1.0, 0),
    column("client, cores", ClientCores, 1.0, 2),
];
const PACED: &[Column] = &[
    column("p50, ms", LatencyP50Ms, 1.0, 1),
    column("p99, ms", LatencyP99Ms, 1.0, 1),
    column("server CPU, s per million", CpuPerMillionS, 1.0, 1),
    column("server, cores", ServerCores, 1.0, 2),
    column("client, cores", ClientCores, 1.0, 2),
];
const APPEND: &[Column] = &[
    column("events/s", EventsPerSecond, 1.0, 0),
    column("ack p50, ms", AckP50Ms, 1.0, 2),
    column("ack p99, ms", AckP99Ms, 1.0, 2),
    column("server CPU, s per million", CpuPerMillionS, 1.0, 1),
    column("client, cores", ClientCores, 1.0, 2),
];
const REPLAY: &[Column] = &[
    column("p50 to the last event, ms", ToLastP50Ms, 1.0, 1),
    column("p99, ms", ToLastP99Ms, 1.0, 1),
    column("events, k/s", DeliveriesPerSecond, 1e-3, 0),
    column("server CPU, s per million", CpuPerMillionS, 1.0, 2),
    column("server, MiB", ServerMib, 1.0, 0),
];
const FLEET: &[Column] = &[
    column("events/s (10,000 offered)", EventsPerSecond, 1.0, 0),
    column("p50, ms", LatencyP50Ms, 1.0, 2),
    column("p99, ms", LatencyP99Ms, 1.0, 2),
    column("server CPU, s per million", CpuPerMillionS, 1.0, 1),
    column("server, MiB", ServerMib, 1.0, 0),
    column("client, cores", ClientCores, 1.0, 2),
];
const IDLE: &[Column] = &[
    column("server, MiB", ServerMib, 1.0, 0),
    column("KiB per viewer", KibPerViewer, 1.0, 1),
    column("server, cores", ServerCores, 1.0, 2),
];
const STALLED: &[Column] = &[
    column("the others' p99, ms", LatencyP99Ms, 1.0, 1),
    column("… over that without stalled ones", BesideStalled, 1.0, 2),
    column("KiB per stalled viewer", KibPerStalled, 1.0, 0),
    column("server, MiB", ServerMib, 1.0, 0),
];
const STORE: &[Column] = &[
    column("appends with fdatasync the disk takes, /s", SyncsPerSecond, 1.0, 0),
    column("1 producer, /s", StoreAppend1PerSecond, 1.0, 0),
    column("64 producers, /s", StoreAppend64PerSecond, 1.0, 0),
    column("64 × batches of 64, /s", StoreBatch64PerSecond, 1.0, 0),
    column("read, pages cached, k/s", StoreReadWarmPerSecond, 1e-3, 0),
    column("read, cold, k/s", StoreReadColdPerSecond, 1e-3, 0),
];

/// A table per workload. What was lost, repeated or out of order stands in each whose viewers count.
pub(super) const TABLES: &[(Workload, &[Column])] = &[
    (Workload::FanOut1000, FAN_OUT),
    (Workload::FanOut4000, FAN_OUT),
    (Workload::Paced, PACED),
    (Workload::Append1, APPEND),
    (Workload::Append64, APPEND),
    (Workload::AppendBatch, APPEND),
    (Workload::Replay, REPLAY),
    (Workload::Herd, REPLAY),
    (Workload::Fleet, FLEET),
    (Workload::Idle, IDLE),
    (Workload::Stalled, STALLED),
    (Workload::Store, STORE),
];

/// The table of a workload, with every server that can do it.
pub(super) fn workload(results: &Results, workload: Workload) -> String {
    let columns = TABLES.iter().find(|(of, _)| *of == workload).map_or(&[][..], |(_, columns)| columns);
    let judged = workload.peers().iter().any(|&peer| {
        matches!(results.of(workload, peer), Some(Ok(measured)) if measured.figures.get(Lost).is_some())
    });
    let mut heads = vec!["server"];
    heads.extend(columns.iter().map(|column| column.head));
    heads.extend(judged.then_some("lost / repeated / out of order"));
    heads.push("runs");
    let mut rows = vec![heads.iter().map(ToString::to_string).collect()];
    for &peer in workload.peers() {
        let mut row = vec![peer.about().title.to_owned()];
        match of(results, workload, peer) {
            Ok(measured) => {
                let show = |column: &Column| {
                    number(measured.figures.get(column.figure), column.scale, column.digits)
                };
                row.extend(columns.iter().map(show));
                row.extend(judged.then(|| faults(&measured)));
                row.push(runs(&measured));
            }
            Err(why) => {
                row.push(why);
                row.resize(heads.len(), String::new());
            }
        }
        rows.push(row);
    }
    table(&rows)
}

/// What was measured, or why it was not.
pub(super) fn of(results: &Results, workload: Workload, peer: PeerKind) -> Result<Measured, String> {
    match (results.of(workload, peer), results.header.peers.get(&peer)) {
        (Some(Ok(measured)), _) => Ok(measured),
        (Some(Err(why)), _) => Err(format!("failed: {}", one_line(&why))),
        (None, Some(Err(why))) => Err(format!("not measured: {}", one_line(why))),
        (None, Some(Ok(_)) | None) => Err("not measured".to_owned()),
    }
}

pub(super) fn machine(results: &Results) -> String {
    let header = &results.header;
    let mut rows =
        vec![vec!["".to_owned(), "".to_owned()], vec!["measured".to_owned(), header.started.clone()]];
    if header.quick {
        rows.push(vec!["how".to_owned(), "quickly: each once and shorter".to_owned()]);
    }
    rows.extend(header.machine.iter().map(|(name, value)| vec![name.clone(), value.clone()]));
    if let Some((middle, most)) = results.disturbed() {
        let cores = |cores| number(Some(cores), 1.0, 2);
        let text = format!("{} cores in the median, {} at most", cores(middle), cores(most));
        rows.push(vec!["used by other processes meanwhile".to_owned(), text]);
    }
    table(&rows) + disturbance(results.disturbed())
}

/// What a reader has to know where the machine was not the harness's alone.
fn disturbance(disturbed: Option<(f64, f64)>) -> &'static str {
    match disturbed {
        Some((middle, _)) if middle > QUIET => {
            "**The machine was not quiet.** Others used its cores and its disk during this run: rates are too low and latencies too high, \
             those of the synced appends most of all. Compare lines, not runs; CPU per million and memory hardly suffer.\n\n"
        }
        Some(_) | None => "",
    }
}

/// Cores that other processes may use without disturbing.
const QUIET: f64 = 0.15;

pub(super) fn servers(results: &Results) -> String {
    let mut rows =
        vec![["server", "version", "an ack means", "late joiners read what was"].map(str::to_owned).to_vec()];
    for (peer, version) in &results.header.peers {
        let about = peer.about();
        let version = match version {
            Ok(version) => version.clone(),
            Err(why) => format!("**not measured**: {}", one_line(why)),
        };
        let history = if about.keeps_history { "yes" } else { "no" };
        rows.push(vec![about.title.to_owned(), version, about.durability.to_owned(), history.to_owned()]);
    }
    table(&rows)
}

/// Lost, repeated, out of order; and whether the server said that events were lost.
fn faults(measured: &Measured) -> String {
    let count = |figure| number(measured.figures.get(figure), 1.0, 0);
    let told = match measured.figures.get(Gaps) {
        Some(gaps) if gaps > 0.0 => format!(" ({} gaps were named)", count(Gaps)),
        Some(_) | None => String::new(),
    };
    format!("{} / {} / {}{told}", count(Lost), count(Duplicates), count(Disordered))
}

fn runs(measured: &Measured) -> String {
    match measured.failed {
        0 => measured.runs.to_string(),
        failed => format!("{}, {failed} failed", measured.runs),
    }
}

/// A number with its thousands apart; a dash, where there is none.
pub(super) fn number(value: Option<f64>, scale: f64, digits: usize) -> String {
    let Some(value) = value else { return "–".to_owned() };
    let text = format!("{:.digits$}", value * scale);
    let (whole, rest) = text
        .split_once('.')
        .map_or((text.as_str(), String::new()), |(whole, rest)| (whole, format!(".{rest}")));
    let (sign, whole) = whole.strip_prefix('-').map_or(("", whole), |whole| ("-", whole));
    let apart = |(n, digit): (usize, char)| {
        let comma = (n > 0 && (whole.len() - n).is_multiple_of(3)).then_some(',');
        comma.into_iter().chain([digit])
    };
    format!("{sign}{}{rest}", whole.chars().enumerate().flat_map(apart).collect::<String>())
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "/")
}

/// A Markdown table; the first row is its head.
pub(super) fn table(rows: &[Vec<String>]) -> String {
    let mut text = String::from("\n");
    for (n, row) in rows.iter().enumerate() {
        text += &format!("| {} |\n", row.join(" | "));
        if n == 0 {
            text += &format!("|{}\n", " --- |".repeat(row.len()));
        }
    }
    text + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_their_thousands_apart() {
        let cases =
            [(0.5, 1, "0.5"), (999.0, 0, "999"), (1000.0, 0, "1,000"), (-1234567.891, 2, "-1,234,567.89")];
        for (value, digits, text) in cases {
            assert_eq!(number(Some(value), 1.0, digits), text);
        }
        assert_eq!(number(Some(2e6), 1e-3, 0), "2,000");
        assert_eq!(number(None, 1.0, 0), "–");
    }

    #[test]
    fn a_machine_that_was_not_quiet_is_said_to_be_so() {
        assert!(disturbance(Some((0.5, 1.0))).contains("not quiet"));
        assert_eq!([disturbance(Some((0.05, 1.9))), disturbance(None)], ["", ""]);
    }

    #[test]
    fn every_workload_that_is_no_curve_has_a_table() {
        use clap::ValueEnum as _;
        for workload in Workload::value_variants().iter().filter(|workload| !workload.is_curve()) {
            assert!(TABLES.iter().any(|(of, _)| of == workload), "{workload:?}");
        }
    }
}
