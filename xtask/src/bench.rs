//! Builds the load harness and the relay as users run it, and measures. The harness is a crate of its own
//! (`benches/load`), so that nothing else waits for it to be built.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};

use crate::{
    command::{self, root},
    setup,
};

/// Servers to compare with: a file that is there when they are, and the Debian package that brings it.
const PEERS: &[(&str, &str)] = &[
    ("/usr/bin/redis-server", "redis-server"),
    ("/usr/sbin/nats-server", "nats-server"),
    ("/usr/lib/nginx/modules/ngx_nchan_module.so", "libnginx-mod-nchan"),
];
/// The one that comes from crates.io; its program is called `server`.
const S2: (&str, &str) = ("s2-lite", "0.43.4");

/// What `cargo xtask bench` takes.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Bench {
    #[command(subcommand)]
    action: Option<Action>,
    /// Each workload once, and shorter. docs/benchmarks.md stays as it is.
    #[arg(long)]
    quick: bool,
    /// Begin no measurement after so long: each is made once before any is repeated.
    #[arg(long)]
    minutes: Option<String>,
    /// Only these workloads; `--only help` names them.
    #[arg(long, value_name = "WORKLOAD,…")]
    only: Option<String>,
    /// Only these servers; `--peer help` names them.
    #[arg(long, value_name = "SERVER,…")]
    peer: Option<String>,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Install the servers to compare with: Redis, NATS and Nchan from Debian, s2-lite from crates.io.
    Setup,
    /// Run a fleet whose viewers come and go, and fail if memory, tasks or files grow.
    Soak {
        /// For how long.
        #[arg(long, default_value = "10")]
        minutes: String,
    },
    /// Play a turn to wrappers and to bare clients, and write what it cost into docs/benchmarks.md.
    Wrapper {
        /// Each measurement once. docs/benchmarks.md stays as it is.
        #[arg(long)]
        quick: bool,
    },
    /// Write docs/benchmarks.md again from the last full run's measurements.
    Report,
}

impl Bench {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let harness = Harness::of_target();
        match self.action {
            Some(Action::Setup) => install_peers(),
            Some(Action::Report) => {
                harness.build()?;
                harness.report()
            }
            Some(Action::Wrapper { quick }) => harness.wrapper(quick),
            Some(Action::Soak { minutes }) => {
                harness.build()?;
                let results = root().join(SOAKED).display().to_string();
                harness.run("soak", &["--minutes", &minutes, "--results", &results])?;
                // Before the first full run there is nothing to write it beside.
                if root().join(RESULTS).exists() { harness.report() } else { Ok(()) }
            }
            None => {
                let is_full = !self.quick && self.only.is_none() && self.peer.is_none();
                let results =
                    if is_full { root().join(RESULTS) } else { harness.folder.join("results.jsonl") };
                let mut args = vec!["--results".to_owned(), results.display().to_string()];
                args.extend(self.quick.then(|| "--quick".to_owned()));
                args.extend(self.minutes.map(|minutes| format!("--minutes={minutes}")));
                args.extend(self.only.map(|only| format!("--only={only}")));
                args.extend(self.peer.map(|peer| format!("--peer={peer}")));
                harness.build()?;
                harness.run("run", &args.iter().map(String::as_str).collect::<Vec<_>>())?;
                if is_full { harness.report() } else { Ok(()) }
            }
        }
    }
}

/// What the last full run has measured.
const RESULTS: &str = "docs/benchmarks/results.jsonl";

/// What the last soak has shown.
const SOAKED: &str = "docs/benchmarks/soak.json";

/// What the last full run against wrappers has measured.
const WRAPPER: &str = "docs/benchmarks/wrapper.json";

/// The built programs.
struct Harness {
    /// Where cargo puts release builds.
    release: PathBuf,
    /// Where servers keep their data while they are measured.
    folder: PathBuf,
}

impl Harness {
    fn of_target() -> Self {
        let target =
            std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from);
        Self { release: target.join("release"), folder: target.join("bench") }
    }

    fn build(&self) -> anyhow::Result<()> {
        command::run("cargo", &["build", "--release", "--package", "gastown-load"], &[])?;
        let relay = ["--package", "gastown-relay", "--features", "bin", "--bin", "gastown-relay"];
        command::run("cargo", &[&["build", "--release"], &relay[..]].concat(), &[])
    }

    fn run(&self, what: &str, args: &[&str]) -> anyhow::Result<()> {
        let text = |path: PathBuf| path.display().to_string();
        let relay = text(self.release.join("gastown-relay"));
        let (s2, data) = (text(root().join("target/tools/bin/server")), text(self.folder.clone()));
        let places = [what, "--relay", &relay, "--s2", &s2, "--data", &data];
        self.load(&[&places, args].concat())
    }

    /// Measures wrappers: they have a harness of their own, which needs none of the servers.
    fn wrapper(&self, quick: bool) -> anyhow::Result<()> {
        let packages = ["--package", "gastown-wrapper-load", "--package", "gastown-wrapper"];
        command::run("cargo", &[&["build", "--release"], &packages[..]].concat(), &[])?;
        let text = |path: PathBuf| path.display().to_string();
        let (program, data) = (text(self.release.join("gastown-wrapper")), text(self.folder.clone()));
        let harness = text(self.release.join("gastown-wrapper-load"));
        let results = if quick { text(self.folder.join("wrapper.json")) } else { WRAPPER.to_owned() };
        let mut args = vec!["run", "--wrapper", &program, "--data", &data, "--results", &results];
        args.extend(quick.then_some("--quick"));
        command::run(&harness, &args, &[])?;
        if quick {
            return Ok(());
        }
        command::run(&harness, &["report", "--results", &results, "--into", "docs/benchmarks.md"], &[])
    }

    fn report(&self) -> anyhow::Result<()> {
        self.load(&["report", "--results", RESULTS, "--into", "docs/benchmarks.md"])
    }

    fn load(&self, args: &[&str]) -> anyhow::Result<()> {
        command::run(&self.release.join("gastown-load").display().to_string(), args, &[])
    }
}

/// Installs what can be installed. What cannot is said, and again in the tables.
fn install_peers() -> anyhow::Result<()> {
    let missing: Vec<&str> =
        PEERS.iter().filter(|(file, _)| !Path::new(file).exists()).map(|&(_, package)| package).collect();
    if let Err(error) = setup::install(&missing) {
        println!("setup: the tables will be without {}: {error:#}", missing.join(", "));
    }
    let (package, version) = S2;
    if root().join("target/tools/bin/server").exists() {
        println!("setup: {package} is there");
    } else {
        println!(
            "setup: building {package} {version} into target/tools: about 500 crates, ten minutes or more"
        );
        let args = ["install", package, "--version", version, "--locked", "--root", "target/tools"];
        if let Err(error) = command::run("cargo", &args, &[]) {
            println!("setup: the tables will be without {package}: {error:#}");
        }
    }
    Ok(())
}
