//! The load harness: our relay beside the floor and beside other servers, with the same client for all of them, on one
//! machine, in one run. Every event carries its number, and every viewer's numbers are judged: throughput is worth nothing
//! where events are lost.
//!
//! `cargo xtask bench` builds and runs it. `workload/` says what is measured, `peer/` how each server is started and
//! spoken to, `client/` is the one client, `judge.rs` the one judge, and `report/` writes `docs/benchmarks.md` from the
//! lines that a run leaves.
#![expect(clippy::print_stdout, reason = "a command talks on the terminal")]

mod client;
mod event;
mod judge;
mod machine;
mod peer;
mod record;
mod report;
mod run;
mod wire;
mod workload;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use clap::{Parser, Subcommand, ValueEnum as _};

use crate::{
    peer::{PeerKind, Programs},
    run::Plan,
    workload::{Bench, Workload, soak},
};

/// Measures the relay beside other servers.
#[derive(Debug, Parser)]
#[command(name = "gastown-load")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs workloads against servers.
    Run {
        #[command(flatten)]
        places: Places,
        /// Each once, and shorter.
        #[arg(long)]
        quick: bool,
        /// Begin no measurement after so long: each is made once before any is repeated.
        #[arg(long, default_value_t = f64::INFINITY)]
        minutes: f64,
        /// Only these workloads.
        #[arg(long, value_delimiter = ',')]
        only: Vec<Workload>,
        /// Only these servers.
        #[arg(long, value_delimiter = ',')]
        peer: Vec<PeerKind>,
        /// Where the measurements are written, a line of JSON each.
        #[arg(long, value_name = "FILE")]
        results: PathBuf,
    },
    /// Runs a fleet whose viewers come and go, and fails if anything grows.
    Soak {
        #[command(flatten)]
        places: Places,
        /// For how long.
        #[arg(long, default_value_t = 10.0)]
        minutes: f64,
        /// Where what was seen is written, as JSON.
        #[arg(long, value_name = "FILE")]
        results: PathBuf,
    },
    /// Writes tables and plots from what a run has written.
    Report {
        /// What a run has written.
        #[arg(long, value_name = "FILE")]
        results: PathBuf,
        /// The text with the marks between which the tables go; the plots go beside it.
        #[arg(long, value_name = "FILE")]
        into: PathBuf,
    },
    /// Serves as the floor.
    #[command(hide = true)]
    Floor {
        #[arg(long)]
        port: u16,
        #[arg(long)]
        coalesce: bool,
    },
}

/// Where things are.
#[derive(Debug, clap::Args)]
struct Places {
    /// The relay's release build.
    #[arg(long, value_name = "PROGRAM")]
    relay: PathBuf,
    /// The server of s2-lite.
    #[arg(long, value_name = "PROGRAM", default_value = "s2-lite")]
    s2: PathBuf,
    /// Where servers keep their data: on the disk that is to be measured.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
}

impl Places {
    fn programs(&self) -> Programs {
        Programs { relay: self.relay.clone(), s2: self.s2.clone() }
    }
}

fn main() -> Result<()> {
    peer::end_servers_on_a_signal()?;
    match Cli::parse().command {
        Command::Floor { port, coalesce } => peer::serve_floor(port, coalesce),
        Command::Run { places, quick, minutes, only, peer, results } => {
            let plan = Plan {
                workloads: or_all(only, Workload::value_variants()),
                peers: or_all(peer, PeerKind::value_variants()),
                quick,
                minutes,
                programs: places.programs(),
                data: places.data,
            };
            plan.run(&results, |line| println!("{line}"))
        }
        Command::Soak { places, minutes, results } => soaked(&places, minutes, &results),
        Command::Report { results, into } => report::write(&results, &into),
    }
}

fn or_all<T: Copy>(only: Vec<T>, all: &[T]) -> Vec<T> {
    if only.is_empty() { all.to_vec() } else { only }
}

fn soaked(places: &Places, minutes: f64, results: &Path) -> Result<()> {
    std::fs::create_dir_all(&places.data)?;
    machine::raise_open_files()?;
    let (programs, data) = (places.programs(), &places.data);
    let bench = Bench { peer: PeerKind::Gastown, programs: &programs, data, quick: false };
    let soaked = soak(&bench, Duration::from_secs_f64(minutes * 60.0), |sample| {
        println!(
            "{:.0} s: {:.1} MiB, WAL {:.1} MiB, {} tasks, {} threads, {} descriptors",
            sample.at_s, sample.memory_mib, sample.wal_mib, sample.tasks, sample.threads, sample.descriptors
        );
    })?;
    println!("{} events, {} joins, {:?}", soaked.events, soaked.joins, soaked.verdict);
    std::fs::write(results, serde_json::to_vec(&soaked)?)
        .with_context(|| format!("{} cannot be written", results.display()))?;
    if !soaked.faults.is_empty() {
        bail!("not flat: {}", soaked.faults.join("; "));
    }
    println!("flat");
    Ok(())
}
