//! `cargo xtask test`: every check that the project has, in the order in which failures are cheapest to see.

use std::time::Instant;

use anyhow::bail;
use clap::ValueEnum;

use crate::{autobahn, command, fuzz, promises::Promises, purity, setup};

/// How long each decoder is fuzzed.
const FUZZ_SECONDS: u64 = 20;

/// A part of the checks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Stage {
    /// `cargo fmt --check`.
    Format,
    /// What the pure crates may depend on.
    Purity,
    /// `cargo clippy` with warnings as errors.
    Clippy,
    /// Unit, property, conformance, process and browser tests, doctests and examples.
    Tests,
    /// `cargo doc` with warnings as errors.
    Docs,
    /// libFuzzer over every decoder.
    Fuzz,
    /// Autobahn's WebSocket cases, where there is a Python 2.7.
    Autobahn,
}

/// Installs what is missing, runs the stages, and prints the table *promise → tests*.
pub(crate) fn run(only: &[Stage]) -> anyhow::Result<()> {
    setup::run()?;
    for stage in Stage::value_variants() {
        if !only.is_empty() && !only.contains(stage) {
            continue;
        }
        let started = now();
        match stage {
            Stage::Format => command::run("cargo", &["fmt", "--all", "--check"], &[])?,
            Stage::Purity => purity::check()?,
            Stage::Clippy => clippy()?,
            Stage::Tests => tests()?,
            Stage::Fuzz => fuzz::run(None, FUZZ_SECONDS)?,
            Stage::Autobahn => autobahn::run()?,
            Stage::Docs => {
                command::run(
                    "cargo",
                    &["doc", "--workspace", "--no-deps", "--locked"],
                    &[("RUSTDOCFLAGS", "-D warnings")],
                )?;
            }
        }
        println!("{stage:?}: done in {} s", started.elapsed().as_secs());
    }
    Ok(())
}

/// With all features, so that the thin binaries are looked at too.
fn clippy() -> anyhow::Result<()> {
    command::run(
        "cargo",
        &["clippy", "--workspace", "--all-targets", "--all-features", "--locked", "--", "-D", "warnings"],
        &[],
    )
}

fn tests() -> anyhow::Result<()> {
    let (mut lines, mut green) =
        command::run_read("cargo", &["test", "--workspace", "--locked", "--no-fail-fast"], &[])?;
    // The relay's pure core, without its drivers: the same tests, so that no feature hides a dependency.
    let core = [
        "test",
        "--package",
        "gastown-relay",
        "--no-default-features",
        "--lib",
        "--locked",
        "--no-fail-fast",
    ];
    let (more, core_green) = command::run_read("cargo", &core, &[])?;
    green &= core_green;
    lines.extend(more);
    println!("\n{}", Promises::of_lines(lines.iter().map(String::as_str)).table());
    if !green {
        bail!("tests failed: see above");
    }
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "says how long a stage took; nothing depends on it")]
fn now() -> Instant {
    Instant::now()
}
