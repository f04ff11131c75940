//! The control plane as a process of its own: arguments, logs and signals; all else is in the library.

use std::{io::Write as _, path::PathBuf};

use anyhow::Context as _;
use clap::Parser;
use gastown_worker::{WorkerArgs, start};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    sync::oneshot,
};

/// The program that wrappers are started with.
const WRAPPER: &str = "gastown-wrapper";

/// Keeps a town: its agents, their wrappers, the HTTP API and the dashboard
///
/// Without --relay it is the relay too. Wrappers are started with `gastown-wrapper`, which is beside this program or on
/// PATH. SIGTERM or Ctrl-C ends the agents and then the worker, a second one does not wait.
///
/// What it does is logged to stderr; GASTOWN_LOG says how much (`debug`, `gastown_worker=trace`).
#[derive(Debug, Parser)]
#[command(version)]
struct Cli {
    #[command(flatten)]
    args: WorkerArgs,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let Cli { args } = Cli::parse();
    let filter = tracing_subscriber::EnvFilter::try_from_env("GASTOWN_LOG").unwrap_or_else(|_| "info".into());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let mut signals = async || {
        tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
    };
    let listen = &args.serve.listen;
    let listener = TcpListener::bind(listen).await.with_context(|| format!("cannot listen on {listen}"))?;
    args.serve.limits.claim_descriptors();
    let config = args.serve.config(args.mode())?.with_wrapper_command(vec![wrapper().into()]);
    let running = start(config, listener).await?;
    std::io::stdout().write_all(args.serve.announcement(&running).as_bytes())?;
    let (stop, stopped) = oneshot::channel::<()>();
    let serving = running.run_until(async {
        // Dropping the sender stops it as well.
        let _ = stopped.await;
    });
    let twice = async {
        signals().await;
        drop(stop);
        signals().await;
    };
    tokio::select! {
        served = serving => Ok(served?),
        () = twice => anyhow::bail!("ended at once by a second signal"),
    }
}

/// The wrapper beside this program, else the one on PATH.
fn wrapper() -> PathBuf {
    let beside = std::env::current_exe().map(|program| program.with_file_name(WRAPPER));
    beside.ok().filter(|path| path.is_file()).unwrap_or_else(|| WRAPPER.into())
}
