//! `gastown up` and `gastown worker`.

use clap::Args;
use worker::{Mode, Running, ServeArgs, WorkerArgs, start};

use super::{
    Exit, print, progress,
    serving::{bind, serve_until_signal},
    signals::Signals,
};

/// Start a town: control plane, relay, store and dashboard in one process
#[derive(Debug, Args)]
#[command(after_help = "\
Everything is kept in the data directory; agents that were running are started again. The first Ctrl-C ends the agents \
and then the server, a second one does not wait.

Examples:
  gastown up                                   then open the URL that it prints
  gastown up --listen 127.0.0.1:0 --json       for a script: one line of JSON once it serves
  gastown up --listen 0.0.0.0:4280 --allow-host town.example --public-url https://town.example")]
pub(super) struct Up {
    #[command(flatten)]
    serve: ServeArgs,
}

/// Start the control plane and the dashboard, with the relay elsewhere
#[derive(Debug, Args)]
#[command(after_help = "\
Worker and relay must have the same signing key: the relay knows by it which tokens the worker gave out. On one data \
directory they have. Without --relay this is `gastown up`.

Example:
  gastown relay  --listen 127.0.0.1:4281 --data-dir /var/lib/gastown-relay
  gastown worker --relay http://127.0.0.1:4281 --signing-key /var/lib/gastown-relay/signing-key")]
pub(super) struct Worker {
    #[command(flatten)]
    args: WorkerArgs,
}

impl Up {
    pub(super) async fn run(self) -> anyhow::Result<Exit> {
        serve(&self.serve, Mode::Embedded).await
    }
}

impl Worker {
    pub(super) async fn run(self) -> anyhow::Result<Exit> {
        serve(&self.args.serve, self.args.mode()).await
    }
}

async fn serve(args: &ServeArgs, mode: Mode) -> anyhow::Result<Exit> {
    args.limits.claim_descriptors();
    let mut signals = Signals::follow()?;
    let listener = bind(&args.listen).await?;
    let running = progress::shown("opening the store", start(args.config(mode)?, listener)).await?;
    print(&args.announcement(&running))?;
    serve_town(running, &mut signals).await
}

/// Serves until a signal, then ends the agents and the server.
pub(super) async fn serve_town(running: Running, signals: &mut Signals) -> anyhow::Result<Exit> {
    serve_until_signal("ending the agents", signals, |shutdown| running.run_until(shutdown)).await
}
