//! `gastown relay`.

use clap::Args;
use relay::{RelayArgs, server::now, service_token, start};

use super::{
    Exit, print, progress,
    serving::{bind, serve_until_signal},
    signals::Signals,
};

/// Start a relay by itself: logs and streams, without agents or dashboard
#[derive(Debug, Args)]
#[command(after_help = "\
It lets in whoever has a token signed with its key: a worker started with the same --signing-key, its wrappers, and \
whomever the worker sends.

Example:
  gastown relay  --listen 127.0.0.1:4281 --data-dir /var/lib/gastown-relay
  gastown worker --relay http://127.0.0.1:4281 --signing-key /var/lib/gastown-relay/signing-key")]
pub(super) struct Relay {
    #[command(flatten)]
    args: RelayArgs,
}

impl Relay {
    pub(super) async fn run(self) -> anyhow::Result<Exit> {
        if let Some(town) = &self.args.service_token {
            let token = service_token(&self.args, town.clone(), now())?;
            print(&format!("{}\n", token.expose()))?;
            return Ok(Exit::Done);
        }
        let mut signals = Signals::follow()?;
        let listener = bind(&self.args.listen).await?;
        let running = progress::shown("opening the store", start(&self.args, listener)).await?;
        print(&running.announcement())?;
        let end = "telling viewers and wrappers to come back";
        serve_until_signal(end, &mut signals, |shutdown| running.run_until(shutdown)).await
    }
}
