//! `cargo xtask fuzz`: libFuzzer over every decoder, on stable Rust and without cargo-fuzz.
//!
//! `fuzz/` is one binary of all targets, built with the coverage that libFuzzer goes by and no sanitizer (those need a
//! nightly compiler). The corpus in `fuzz/corpus` is where it begins; what it adds stays below `target/`, and an input that
//! fails is left there for whoever mends the cause: as a file of the corpus it becomes a test of its crate.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use anyhow::{Context, bail};

use crate::command::{self, root};

/// The passes of LLVM that count which code an input reached.
const COVERAGE: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
     -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table --cfg fuzzing";
/// An input that takes longer counts as one that hangs.
const INPUT_SECONDS: u32 = 5;
/// Memory at which a target counts as one that leaks.
const MEMORY_MIB: u32 = 1024;

/// Fuzzes each target, or the one of this name, for so many seconds; as many at once as there are cores.
pub(crate) fn run(only: Option<&str>, seconds: u64) -> anyhow::Result<()> {
    let targets = targets(only)?;
    let folder = target_folder();
    let binary = build(&folder)?;
    let at_once = std::thread::available_parallelism().map_or(1, usize::from);
    println!("fuzz: {} targets, {seconds} s each, {at_once} at once", targets.len());
    let mut failed = Vec::new();
    for group in targets.chunks(at_once) {
        let runs = group.iter().map(|target| Run::start(&binary, &folder, target, seconds));
        let runs = runs.collect::<anyhow::Result<Vec<_>>>()?;
        for run in runs {
            failed.extend(run.finish()?);
        }
    }
    if !failed.is_empty() {
        bail!("fuzzing found inputs that fail: {}", failed.join(", "));
    }
    Ok(())
}

/// The targets, by their folders in the corpus.
fn targets(only: Option<&str>) -> anyhow::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(corpus()).context("the corpus cannot be read")? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    match only {
        None => Ok(names),
        Some(only) if names.iter().any(|name| name == only) => Ok(vec![only.to_owned()]),
        Some(only) => bail!("there is no target {only}: they are {}", names.join(", ")),
    }
}

fn build(folder: &Path) -> anyhow::Result<PathBuf> {
    let version = command::output("rustc", &["-vV"])?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: ")).context("rustc names no host")?;
    let folder_name = folder.display().to_string();
    // With a target, the flags are not those of build scripts and macros, which have nothing to count into.
    let args = [
        "build",
        "--manifest-path",
        "fuzz/Cargo.toml",
        "--release",
        "--target",
        host,
        "--target-dir",
        &folder_name,
    ];
    command::run("cargo", &args, &[("RUSTFLAGS", COVERAGE)])?;
    Ok(folder.join(host).join("release/gastown-fuzz"))
}

/// One target at work.
struct Run {
    target: String,
    process: Child,
    log: PathBuf,
    artifacts: String,
}

impl Run {
    fn start(binary: &Path, folder: &Path, target: &str, seconds: u64) -> anyhow::Result<Self> {
        let found = folder.join("corpus").join(target);
        fs::create_dir_all(&found)?;
        let log = folder.join(format!("{target}.log"));
        let artifacts = folder.join(format!("{target}-")).display().to_string();
        let output = File::create(&log)?;
        let process = Command::new(binary)
            .env("FUZZ_TARGET", target)
            .arg(found)
            .arg(corpus().join(target))
            .arg(format!("-dict={}", root().join("fuzz/json.dict").display()))
            .arg(format!("-max_total_time={seconds}"))
            .arg(format!("-timeout={INPUT_SECONDS}"))
            .arg(format!("-rss_limit_mb={MEMORY_MIB}"))
            .arg(format!("-artifact_prefix={artifacts}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(output)
            .spawn()
            .with_context(|| format!("the fuzzer of {target} did not start"))?;
        Ok(Self { target: target.to_owned(), process, log, artifacts })
    }

    /// Waits for the end, and says what failed.
    fn finish(mut self) -> anyhow::Result<Option<String>> {
        let status = self.process.wait()?;
        let log = String::from_utf8_lossy(&fs::read(&self.log)?).into_owned();
        let done = log.lines().rev().find(|line| line.starts_with("Done ")).unwrap_or("");
        if status.success() {
            println!("fuzz {:<10} {done}", self.target);
            return Ok(None);
        }
        let tail = log.lines().filter(|line| !line.starts_with('#')).collect::<Vec<_>>();
        println!(
            "fuzz {}: FAILED ({status})\n{}",
            self.target,
            tail[tail.len().saturating_sub(40)..].join("\n")
        );
        println!(
            "the input is at {}*: mend the cause, and put it in fuzz/corpus/{}",
            self.artifacts, self.target
        );
        Ok(Some(self.target))
    }
}

fn corpus() -> PathBuf {
    root().join("fuzz/corpus")
}

fn target_folder() -> PathBuf {
    let folder = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from);
    folder.join("fuzz")
}
