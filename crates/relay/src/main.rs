//! The standalone relay: arguments, logs and signals; all else is in the library.

use clap::Parser;
use gastown_relay::{RelayArgs, run, service_token};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Takes events of coding agents from their wrappers, keeps them, and shows them to viewers.
#[derive(Debug, Parser)]
#[command(version)]
struct Cli {
    #[command(flatten)]
    args: RelayArgs,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let Cli { args } = Cli::parse();
    if let Some(town) = args.service_token.clone() {
        print_line(service_token(&args, town, gastown_relay::server::now())?.expose());
        return Ok(());
    }
    let shutdown = CancellationToken::new();
    let relay = run(
        args,
        |address| print_line(&format!("listening on http://{address}")),
        shutdown.clone().cancelled_owned(),
    );
    tokio::select! {
        ended = relay => Ok(ended?),
        ended = signals(&shutdown) => ended,
    }
}

/// The first signal ends the relay gently, the second at once.
async fn signals(shutdown: &CancellationToken) -> anyhow::Result<()> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    for times in 1.. {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        shutdown.cancel();
        if times == 2 {
            break;
        }
    }
    anyhow::bail!("ended at once by a second signal")
}

#[expect(clippy::print_stdout, reason = "this is what the command is asked to print")]
fn print_line(line: &str) {
    println!("{line}");
}
