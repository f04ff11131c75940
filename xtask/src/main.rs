//! Developer commands: `cargo xtask test` installs what the tests need and runs everything, `cargo xtask setup` only
//! installs.
#![expect(clippy::print_stdout, reason = "a developer command talks on the terminal")]

mod command;
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
        /// Run only the stages of these names: format, clippy, purity, tests, docs.
        #[arg(long, value_delimiter = ',')]
        only: Vec<test::Stage>,
    },
    /// Install what the tests need: Chromium and its driver, ripgrep, git, and the agent servers from npm.
    Setup,
}

fn main() -> anyhow::Result<()> {
    match Cli::parse().command {
        Command::Setup => setup::run(),
        Command::Test { only } => test::run(&only),
    }
}
