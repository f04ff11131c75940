//! What a wrapper costs. A recorded turn is played to the real program by a server of the harness's own, whose frames come to a relay
//! of the harness's own: so one clock says when an event was written and when it came out. Beside it, a client that does nothing but
//! read reads the same.
//!
//! `cargo xtask bench wrapper` builds and runs it. `turn.rs` is what is played, `agent_server.rs` and `relay.rs` are the two ends,
//! `measure.rs` is one measurement, and `report.rs` writes its part of `docs/benchmarks.md`.
#![expect(clippy::print_stdout, reason = "a command talks on the terminal")]

mod agent_server;
mod bare;
mod measure;
mod process;
mod relay;
mod report;
mod turn;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use clap::{Parser, Subcommand};
use meter::clock;

use crate::{
    measure::{Bench, Measured, Pace, Reader},
    report::Results,
};

/// How often each measurement is made: tables show the median.
const REPEATS: usize = 3;
/// Events a second of the paced play: as many as an agent server sends while it writes.
const PACE: u32 = 300;

/// Measures what a wrapper costs.
#[derive(Debug, Parser)]
#[command(name = "gastown-wrapper-load")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Plays the turn to wrappers and to bare clients.
    Run {
        /// The wrapper's release build.
        #[arg(long, value_name = "PROGRAM")]
        wrapper: PathBuf,
        /// Where wrappers keep their outboxes: on the disk that is to be measured.
        #[arg(long, value_name = "DIR")]
        data: PathBuf,
        /// Each measurement once.
        #[arg(long)]
        quick: bool,
        /// Where the measurements are written, as JSON.
        #[arg(long, value_name = "FILE")]
        results: PathBuf,
    },
    /// Writes the tables from what a run has written.
    Report {
        /// What a run has written.
        #[arg(long, value_name = "FILE")]
        results: PathBuf,
        /// The text with the marks between which the tables go.
        #[arg(long, value_name = "FILE")]
        into: PathBuf,
    },
    /// Is the bare client.
    #[command(hide = true)]
    Bare {
        #[arg(long)]
        address: SocketAddr,
    },
}

fn main() -> Result<()> {
    match Cli::parse().command {
        Command::Bare { address } => bare::read(address),
        Command::Run { wrapper, data, quick, results } => run(&wrapper, &data, quick, &results),
        Command::Report { results, into } => report::write(&results, &into),
    }
}

fn run(wrapper: &Path, data: &Path, quick: bool, results: &Path) -> Result<()> {
    std::fs::create_dir_all(data).with_context(|| format!("{} cannot be made", data.display()))?;
    let turn = turn::turn();
    let bench = Bench { wrapper, data, turn: &turn };
    let mut runs = Vec::new();
    // Repeats are outermost: what disturbs the machine for a while disturbs one run of many, not all runs of one.
    for _ in 0..if quick { 1 } else { REPEATS } {
        for pace in [Pace::PerSecond(PACE), Pace::Full] {
            for reader in [Reader::Wrapper, Reader::Bare] {
                let run = bench.run(reader, pace).with_context(|| format!("{reader:?}, {pace:?}"))?;
                println!("{}", line(&run));
                runs.push(run);
            }
        }
    }
    let results_of_run = Results { started: clock::today(), runs };
    if let Some(folder) = results.parent() {
        std::fs::create_dir_all(folder)?;
    }
    std::fs::write(results, serde_json::to_vec(&results_of_run)?)
        .with_context(|| format!("{} cannot be written", results.display()))
}

/// A measurement, for people who watch.
fn line(run: &Measured) -> String {
    let Measured { reader, pace, cpu_s, rss_mib, pss_mib, .. } = run;
    let mut line = format!(
        "{reader:?} {pace:?}: {:.0} events/s, {:.1} % of a core, {:.1} ms of CPU per 1,000 events, {rss_mib:.1} MiB RSS, {pss_mib:.1} MiB PSS",
        run.events as f64 / run.seconds,
        100.0 * cpu_s / run.seconds,
        1e6 * cpu_s / run.events as f64,
    );
    for (name, latency) in [("deltas", run.deltas), ("others", run.others)] {
        if let Some(latency) = latency {
            line += &format!(", {name} {:.2} ms p50, {:.2} ms p99", latency.p50_ms, latency.p99_ms);
        }
    }
    format!("{line}; others used {:.2} cores", run.other_cores)
}
