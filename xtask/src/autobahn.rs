//! `cargo xtask autobahn`: the server cases of Autobahn's WebSocket test suite, spoken to an echo server over the relay's own
//! framing. The suite needs Python 2.7: where there is none, this says so, and the raw-frame tests of the relay
//! (`crates/relay/tests/it/websocket`), which cover the same sections, stand alone.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use anyhow::{Context, bail};

use crate::command::{self, root};

/// The suite, as PyPI has it. Later versions say Python 3 and are not ready for it.
const SUITE: &str = "autobahntestsuite==0.8.2";
/// Cases that are left out: compression, which the relay does not offer.
const EXCLUDED: &str = r#"["12.*", "13.*"]"#;
/// Verdicts that a case may end with.
const GOOD: &[&str] = &["OK", "NON-STRICT", "INFORMATIONAL"];

/// Runs the cases; fails if one fails, closes with a wrong code, or does not close cleanly.
pub(crate) fn run() -> anyhow::Result<()> {
    let folder = target_folder();
    fs::create_dir_all(&folder)?;
    let Some(python) = python() else {
        println!(
            "autobahn: SKIPPED: there is no Python 2.7 here, and Autobahn's suite needs one; the relay's raw-frame tests \
             cover the same sections"
        );
        return Ok(());
    };
    let packages = folder.join("packages");
    if !packages.join("autobahntestsuite").is_dir() {
        let target = packages.display().to_string();
        command::run(&python, &["-m", "pip", "install", "--quiet", "--target", &target, SUITE], &[])?;
    }
    let server = Echo::start()?;
    let specification = folder.join("fuzzingclient.json");
    let reports = folder.join("reports");
    let text = format!(
        r#"{{"outdir": "{}", "servers": [{{"agent": "gastown", "url": "{}"}}], "cases": ["*"],
            "exclude-cases": {EXCLUDED}, "exclude-agent-cases": {{}}}}"#,
        reports.display(),
        server.url
    );
    fs::write(&specification, text)?;
    // With `addsitedir`, packages that share a namespace are found.
    let start = format!(
        "import site; site.addsitedir({:?}); from autobahntestsuite.wstest import run; run()",
        packages.display().to_string()
    );
    let specification = specification.display().to_string();
    let args = ["-c", &start, "--mode", "fuzzingclient", "--spec", &specification];
    let output = Command::new(&python).args(args).output()?;
    if !output.status.success() {
        bail!("the suite did not run: {}", String::from_utf8_lossy(&output.stderr));
    }
    judge(&fs::read_to_string(reports.join("index.json")).context("the suite wrote no report")?, &reports)
}

/// Reads the suite's index: two verdicts a case, of what was answered and of how it was closed.
fn judge(index: &str, reports: &Path) -> anyhow::Result<()> {
    let (mut case, mut cases, mut bad) = ("", 0, Vec::new());
    for line in index.lines().map(str::trim) {
        if let Some(name) = line.strip_suffix(": {") {
            case = name;
        }
        for field in ["\"behavior\": ", "\"behaviorClose\": "] {
            let Some(verdict) = line.strip_prefix(field) else { continue };
            let verdict = verdict.trim_matches(['"', ',', ' ']);
            cases += usize::from(field.starts_with("\"behavior\""));
            if !GOOD.contains(&verdict) {
                bad.push(format!("{case} {field}{verdict}"));
            }
        }
    }
    println!("autobahn: {cases} cases, {} bad verdicts; {}/index.html", bad.len(), reports.display());
    if cases == 0 || !bad.is_empty() {
        bail!("Autobahn's cases failed: {bad:#?}");
    }
    Ok(())
}

/// A Python 2.7 that runs, if there is one.
fn python() -> Option<String> {
    let home = std::env::var("HOME").unwrap_or_default();
    let of_pyenv = fs::read_dir(Path::new(&home).join(".pyenv/versions")).into_iter().flatten().flatten();
    let of_pyenv = of_pyenv.filter(|entry| entry.file_name().to_string_lossy().starts_with("2.7"));
    let of_pyenv = of_pyenv.map(|entry| entry.path().join("bin/python").display().to_string());
    let candidates = ["python2.7", "python2"].map(str::to_owned).into_iter().chain(of_pyenv);
    let runs = |python: &String| {
        let version = Command::new(python).arg("-V").output();
        version.is_ok_and(|output| String::from_utf8_lossy(&output.stderr).starts_with("Python 2.7"))
    };
    candidates.into_iter().find(runs)
}

/// The echo server, until it is dropped.
struct Echo {
    process: Child,
    url: String,
}

impl Echo {
    fn start() -> anyhow::Result<Self> {
        let example = ["--package", "gastown-relay", "--example", "websocket_echo"];
        command::run("cargo", &[&["build", "--quiet"][..], &example].concat(), &[])?;
        let mut process = Command::new("cargo")
            .args(["run", "--quiet"])
            .args(example)
            .current_dir(root())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("the echo server did not start")?;
        let mut line = String::new();
        BufReader::new(process.stdout.take().expect("it is piped")).read_line(&mut line)?;
        let url =
            line.trim().strip_prefix("listening on ").context("the echo server says where it listens")?;
        Ok(Self { url: url.to_owned(), process })
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        // It is gone already, if this fails.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn target_folder() -> PathBuf {
    let folder = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from);
    folder.join("autobahn")
}
