//! Runs seeds, each in a process of its own: this binary again, with the seed in its environment.

use std::{
    env,
    ffi::OsStr,
    fs,
    process::{Command, Output},
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use rand::{SeedableRng, rngs::StdRng};

use crate::world::{self, Mode};

const SEED: &str = "GASTOWN_SIM_SEED";
const SEEDS: &str = "GASTOWN_SIM_SEEDS";
const TRACE: &str = "GASTOWN_SIM_TRACE";
const PLANTED: &str = "GASTOWN_SIM_PLANTED";

/// Seeds of every run. More, and new ones, are tried with `GASTOWN_SIM_SEEDS`.
const ALWAYS: u64 = 12;
/// The same of days, each of which takes longer.
const ALWAYS_DAYS: u64 = 4;
/// CPU seconds after which a run counts as hung.
const CPU_LIMIT: u64 = 300;

/// A fault of the store itself, to see that the simulation finds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Planted {
    /// It takes what it is sent again as new.
    NoDedupe,
}

impl Planted {
    fn of_environment() -> Option<Self> {
        match env::var(PLANTED).ok()?.as_str() {
            "no-dedupe" => Some(Self::NoDedupe),
            other => panic!("{PLANTED} names no fault: {other:?}"),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::NoDedupe => "no-dedupe",
        }
    }
}

/// Runs the seed of the environment in this process, or all of them in others.
pub(crate) fn hold_for_each(mode: Mode) {
    if let Some(seed) = asked(SEED) {
        return run_here(mode, seed);
    }
    let seeds: Vec<u64> = match asked(SEEDS) {
        Some(count) => (0..count).map(|_| rand::random::<u32>().into()).collect(),
        None if matches!(mode, Mode::Day { .. }) => (1..=ALWAYS_DAYS).collect(),
        None => (1..=ALWAYS).collect(),
    };
    eprintln!("{mode:?}: {} seeds, {:?} to {:?}", seeds.len(), seeds.first(), seeds.last());
    let (next, failures) = (AtomicUsize::new(0), std::sync::Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(2, std::num::NonZero::get) {
            scope.spawn(|| {
                while let Some(seed) = seeds.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let output = run_there(mode, *seed, &[]);
                    if !output.status.success() {
                        failures.lock().expect("no thread panics").push(describe(mode, *seed, &output));
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().expect("no thread panicked");
    assert!(failures.is_empty(), "{} of {} seeds:\n{}", failures.len(), seeds.len(), failures.join("\n"));
}

/// Runs a seed twice, and another one, and compares their traces.
pub(crate) fn assert_repeatable(mode: Mode) {
    if asked(SEED).is_some() {
        return;
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let trace_of = |seed: u64, name: &str| {
        let path = folder.path().join(name);
        let output = run_there(mode, seed, &[(TRACE, path.as_os_str())]);
        assert!(output.status.success(), "{}", describe(mode, seed, &output));
        fs::read_to_string(path).expect("the run left its trace")
    };
    let first = trace_of(1, "first");
    assert!(first.lines().count() > 500, "a run is more than this:\n{first}");
    let second = trace_of(1, "second");
    for (line, (one, other)) in first.lines().zip(second.lines()).enumerate() {
        assert_eq!(one, other, "the runs of one seed part in line {line}");
    }
    assert_eq!(first.len(), second.len(), "one of the runs is longer");
    assert_ne!(first, trace_of(2, "other"));
}

/// Runs seeds with a planted fault until one finds it, by a violation of this name.
pub(crate) fn assert_finds(planted: Planted, violation: &str) {
    if asked(SEED).is_some() {
        return;
    }
    let found = (1..=ALWAYS).find_map(|seed| {
        let output = run_there(Mode::Safety, seed, &[(PLANTED, planted.name().as_ref())]);
        (!output.status.success()).then(|| describe(Mode::Safety, seed, &output))
    });
    let found = found.unwrap_or_else(|| panic!("{planted:?} was found by none of {ALWAYS} seeds"));
    assert!(found.contains(violation), "{planted:?} was found, but as something else:\n{found}");
}

fn asked(variable: &str) -> Option<u64> {
    let text = env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is a number, not {text:?}")))
}

/// The process's randomness and clock are the simulation's from here on.
fn run_here(mode: Mode, seed: u64) {
    eprintln!("seed {seed}, {mode:?}");
    let limit = rustix::process::Rlimit { current: Some(CPU_LIMIT), maximum: Some(CPU_LIMIT) };
    rustix::process::setrlimit(rustix::process::Resource::Cpu, limit).expect("a limit may be lowered");
    mad_turmoil::rand::set_rng(StdRng::seed_from_u64(seed));
    let _clocks = mad_turmoil::time::SimClocksGuard::init();
    let planted = Planted::of_environment();
    // A thread of its own: what this one has drawn already came from the system.
    let run =
        thread::Builder::new().stack_size(16 * 1024 * 1024).spawn(move || world::run(mode, planted, seed));
    let run = run.expect("a thread starts").join();
    let Ok((trace, verdict)) = run else { panic!("the run of seed {seed} panicked") };
    if let Ok(path) = env::var(TRACE) {
        fs::write(path, &trace).expect("the trace can be written");
    }
    if let Err(broken) = verdict {
        let lines: Vec<&str> = trace.lines().collect();
        let end = lines[lines.len().saturating_sub(40)..].join("\n");
        panic!("{broken}\n--- the end of the trace:\n{end}");
    }
}

fn run_there(mode: Mode, seed: u64, more: &[(&str, &OsStr)]) -> Output {
    let mut command = Command::new(env::current_exe().expect("this binary has a path"));
    command.args([mode.test(), "--exact", "--nocapture", "--include-ignored"]).env(SEED, seed.to_string());
    command.env_remove(TRACE).env_remove(PLANTED).envs(more.iter().copied());
    command.output().expect("this binary runs")
}

fn describe(mode: Mode, seed: u64, output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stderr);
    let test = mode.test();
    format!(
        "seed {seed} ({}): repeat with {SEED}={seed} cargo test --test simulation {test}\n{said}",
        output.status
    )
}
