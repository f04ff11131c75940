//! The standalone relay: arguments, logs and signals; all else is in the library.

use std::io::Write as _;

use anyhow::Context as _;
use clap::Parser;
use gastown_relay::{RelayArgs, runtime, service_token, start};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    sync::oneshot,
};

/// Takes events of coding agents from their wrappers, keeps them, and shows them to viewers
///
/// It lets in whoever has a token signed with its key: a worker started with the same --signing-key, its wrappers, and
/// whomever the worker sends. SIGTERM or Ctrl-C ends it in order, a second one at once.
///
/// What it does is logged to stderr; GASTOWN_LOG says how much (`debug`, `gastown_relay=trace`).
#[derive(Debug, Parser)]
#[command(version)]
struct Cli {
    #[command(flatten)]
    args: RelayArgs,
}

fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    runtime()?.block_on(run(cli))
}

async fn run(Cli { args }: Cli) -> anyhow::Result<()> {
    let filter = tracing_subscriber::EnvFilter::try_from_env("GASTOWN_LOG").unwrap_or_else(|_| "info".into());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    if let Some(town) = args.service_token.clone() {
        let token = service_token(&args, town, gastown_relay::server::now())?;
        return Ok(writeln!(std::io::stdout(), "{}", token.expose())?);
    }
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let mut signals = async || {
        tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
    };
    let listener = TcpListener::bind(&args.listen).await;
    let listener = listener.with_context(|| format!("cannot listen on {}", args.listen))?;
    let running = start(&args, listener).await?;
    std::io::stdout().write_all(running.announcement().as_bytes())?;
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
