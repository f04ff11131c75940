//! `gastown-worker`: the control plane as a process of its own.

use std::{net::SocketAddr, path::PathBuf};

use anyhow::Context as _;
use clap::Parser;
use gastown_worker::{Mode, WorkerConfig, start};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};

/// Keeps a town: its agents, their wrappers, the HTTP API and the dashboard.
///
/// Without --relay it is the relay too. The operator token is made at the first start and printed once; it stays in
/// <data-dir>/operator-token. SIGTERM or Ctrl-C ends the agents' wrappers in order, a second one ends at once.
///
/// Exit codes: 0 ended as it was asked to, 1 could not start or run, 2 wrong arguments, 130 ended by a second signal.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// Address to listen on. One that other machines reach needs --allow-host and an operator token that is there.
    #[arg(long, default_value = "127.0.0.1:4280", value_name = "ADDRESS", env = "GASTOWN_LISTEN")]
    listen: SocketAddr,
    /// Folder of everything it keeps.
    #[arg(long, value_name = "DIR", env = "GASTOWN_DATA_DIR")]
    data_dir: PathBuf,
    /// The town.
    #[arg(long, default_value = "main", value_name = "ID")]
    town: protocol::TownId,
    /// Base URL of a relay in another process, with the same signing key.
    #[arg(long, value_name = "URL")]
    relay: Option<String>,
    /// File of the signing key that is shared with that relay (default: <data-dir>/signing-key).
    #[arg(long, value_name = "FILE", requires = "relay")]
    signing_key: Option<PathBuf>,
    /// A host name (without port) by which the worker may be called, beside those of loopback.
    #[arg(long, value_name = "NAME")]
    allow_host: Vec<String>,
    /// Base URL by which browsers reach it, if that is not the address it listens on.
    #[arg(long, value_name = "URL")]
    public_url: Option<String>,
    /// Program that wrappers are started with.
    #[arg(long, default_value = "gastown-wrapper", value_name = "PROGRAM")]
    wrapper: PathBuf,
    /// Let wrappers run on when the worker ends; they come back to the next one.
    #[arg(long)]
    keep_agents: bool,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let arguments = Arguments::parse();
    let listen = arguments.listen;
    let listener = TcpListener::bind(listen).await.with_context(|| format!("cannot listen on {listen}"))?;
    let running = start(config(arguments), listener).await?;
    announce(&running);
    let shutdown = signals().context("cannot wait for signals")?;
    Ok(running.run_until(shutdown).await?)
}

fn config(arguments: Arguments) -> WorkerConfig {
    let mode = match arguments.relay {
        Some(relay) => Mode::Remote { relay, signing_key: arguments.signing_key },
        None => Mode::Embedded,
    };
    let mut config = WorkerConfig::new(arguments.data_dir)
        .with_town(arguments.town)
        .with_mode(mode)
        .with_wrapper_command(vec![arguments.wrapper.into_os_string()])
        .with_stop_agents_on_exit(!arguments.keep_agents);
    for host in arguments.allow_host {
        config = config.with_allowed_host(host);
    }
    match arguments.public_url {
        Some(url) => config.with_public_url(url),
        None => config,
    }
}

#[expect(clippy::print_stdout, reason = "the token is shown once, on the terminal, and goes into no log")]
fn announce(running: &gastown_worker::Running) {
    println!("{}", running.worker().url());
    if let Some(token) = running.new_operator_token() {
        println!("operator token (shown once): {}", token.expose());
    }
}

/// Ends at the first SIGTERM or SIGINT; the second one ends the process.
fn signals() -> std::io::Result<impl Future<Output = ()>> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
        tracing::info!("going down; a second signal ends at once");
        // Nobody waits for this: it ends with the process, or ends the process.
        tokio::spawn(async move {
            tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
            std::process::exit(130);
        });
    })
}
