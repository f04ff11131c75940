//! Developer commands: `cargo xtask test` installs what the tests need and runs everything, `cargo xtask setup` only
//! installs.
#![expect(clippy::print_stdout, reason = "a developer command talks on the terminal")]

mod autobahn;
mod bench;
mod command;
mod fuzz;
mod promises;
mod purity;
mod setup;
mod test;

use clap::{Parser, Subcommand};

/// Developer commands of Gastown.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Install what the tests need, then run all checks and tests, and end with the table promise → tests.
    Test {
        /// Run only the stages of these names: format, purity, clippy, tests, docs, fuzz, autobahn.
        #[arg(long, value_delimiter = ',')]
        only: Vec<test::Stage>,
    },
    /// Try the relay's WebSockets with Autobahn's test suite, where there is a Python 2.7.
    Autobahn,
    /// Fuzz every decoder, or one of them, with libFuzzer.
    Fuzz {
        /// The target, as the folders in fuzz/corpus are named.
        target: Option<String>,
        /// How long each target is tried.
        #[arg(long, default_value_t = 20)]
        seconds: u64,
    },
    /// Install what the tests need: Chromium and its driver, ripgrep, git, and the agent servers from npm.
    Setup,
    /// Measure the relay beside other servers, and write docs/benchmarks.md if everything was measured.
    Bench(bench::Bench),
}

fn main() -> anyhow::Result<()> {
    match Cli::parse().command {
        Command::Autobahn => autobahn::run(),
        Command::Fuzz { target, seconds } => fuzz::run(target.as_deref(), seconds),
        Command::Setup => setup::run(),
        Command::Bench(bench) => bench.run(),
        Command::Test { only } => test::run(&only),
    }
}
