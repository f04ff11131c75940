//! `gastown up` and `gastown worker`.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;
use protocol::TownId;
use worker::{Mode, Running, WorkerConfig, start};

use super::{
    Exit, print, progress,
    server::{DEFAULT_LISTEN, DataDirArgs, TOKEN_FILE},
    serving::{Announcement, UrlFile, bind, url_of, wind_down},
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
Worker and relay must have the same signing key: the relay knows by it which tokens the worker gave out.

Example:
  gastown relay  --listen 127.0.0.1:4281 --data-dir /var/lib/gastown-relay
  gastown worker --relay http://127.0.0.1:4281 --signing-key /var/lib/gastown-relay/signing-key")]
pub(super) struct Worker {
    /// URL of the relay [default: one inside, as `gastown up`]
    #[arg(long, value_name = "URL")]
    relay: Option<String>,
    /// File of the signing key that the relay has too [default: signing-key in the data directory]
    #[arg(long, value_name = "FILE", requires = "relay")]
    signing_key: Option<PathBuf>,
    #[command(flatten)]
    serve: ServeArgs,
}

/// Where and how to serve.
#[derive(Debug, Args)]
struct ServeArgs {
    /// Address to listen on; port 0 lets the system choose
    #[arg(long, value_name = "ADDRESS", default_value = DEFAULT_LISTEN)]
    listen: String,
    /// The town
    #[arg(long, env = "GASTOWN_TOWN", hide_env_values = true, value_name = "ID", default_value = "main")]
    town: TownId,
    /// A host name by which it may be called, beside localhost; may be given several times
    #[arg(long, value_name = "HOST")]
    allow_host: Vec<String>,
    /// The URL by which browsers reach it, if that is not the address it listens on
    #[arg(long, value_name = "URL")]
    public_url: Option<String>,
    /// Let the agents run on when it ends; they come back to the next one
    #[arg(long)]
    leave_agents: bool,
    /// Print one line of JSON (url, login, town, token_file, pid) once it serves
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    data_dir: DataDirArgs,
}

impl Up {
    pub(super) async fn run(self) -> anyhow::Result<Exit> {
        self.serve.run(Mode::Embedded).await
    }
}

impl Worker {
    pub(super) async fn run(self) -> anyhow::Result<Exit> {
        let mode = match self.relay {
            Some(relay) => remote(relay, self.signing_key)?,
            None => Mode::Embedded,
        };
        self.serve.run(mode).await
    }
}

impl ServeArgs {
    async fn run(self, mode: Mode) -> anyhow::Result<Exit> {
        let mut signals = Signals::follow()?;
        let data_dir = self.data_dir.path()?;
        make_private_folder(&data_dir)?;
        let listener = bind(&self.listen).await?;
        let local_url = url_of(listener.local_addr()?);
        let config = self.config(&data_dir, mode);
        let running = progress::shown("opening the store", start(config, listener)).await?;
        let url_file = UrlFile::write(&data_dir, &local_url)?;
        let announcement = announce(&running, &data_dir);
        print(&if self.json { announcement.json_line()? } else { greeting(&running, &announcement) })?;
        let exit = serve_until_signal(running, &mut signals).await;
        drop(url_file);
        exit
    }

    fn config(&self, data_dir: &Path, mode: Mode) -> WorkerConfig {
        let mut config = WorkerConfig::new(data_dir)
            .with_town(self.town.clone())
            .with_mode(mode)
            .with_stop_agents_on_exit(!self.leave_agents);
        for host in &self.allow_host {
            config = config.with_allowed_host(host);
        }
        match &self.public_url {
            Some(url) => config.with_public_url(url),
            None => config,
        }
    }
}

/// Where a worker is reached, with a fresh login link.
pub(super) fn announce(running: &Running, data_dir: &Path) -> Announcement {
    let worker = running.worker();
    Announcement {
        url: worker.url().to_owned(),
        login: Some(worker.one_use_login_url()),
        town: Some(worker.town_id().to_string()),
        token_file: Some(data_dir.join(TOKEN_FILE)),
        pid: std::process::id(),
    }
}

/// Serves until a signal, then ends the agents and the server.
pub(super) async fn serve_until_signal(running: Running, signals: &mut Signals) -> anyhow::Result<Exit> {
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let serving = running.run_until(async {
        // Dropping the sender stops it as well.
        let _ = stopped.await;
    });
    let mut serving = Box::pin(serving);
    tokio::select! {
        ended = &mut serving => {
            ended?;
            return Ok(Exit::Done);
        }
        () = signals.next() => {}
    }
    drop(stop);
    wind_down("ending the agents", async { Ok(serving.await?) }, signals).await
}

/// Makes a folder that only its owner can look into; one that is there stays as it is.
pub(super) fn make_private_folder(path: &Path) -> anyhow::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.with_context(|| format!("the data directory {} cannot be made", path.display()))
}

fn remote(relay: String, signing_key: Option<PathBuf>) -> anyhow::Result<Mode> {
    if !relay.starts_with("http://") && !relay.starts_with("https://") {
        anyhow::bail!("--relay takes a URL such as http://127.0.0.1:4281, not {relay:?}");
    }
    Ok(Mode::Remote { relay, signing_key })
}

/// What people see at the start. The token is shown once, when it is made.
fn greeting(running: &Running, announcement: &Announcement) -> String {
    let mut text = format!("town {} on {}\n", running.worker().town_id(), announcement.url);
    if let Some(login) = &announcement.login {
        text.push_str(&format!("  open    {login}   (lets one browser in, once)\n"));
    }
    if let Some(token) = running.new_operator_token() {
        text.push_str(&format!("  token   {}   (made just now; not shown again)\n", token.expose()));
    }
    if let Some(file) = &announcement.token_file {
        text.push_str(&format!("          is in {}\n", file.display()));
    }
    text.push_str("  next    gastown agent start NAME --runtime opencode\n");
    text
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_relay_is_named_by_its_url() {
        assert!(remote("127.0.0.1:4281".to_owned(), None).is_err());
        let mode = remote("http://127.0.0.1:4281".to_owned(), None).unwrap();
        assert!(matches!(mode, Mode::Remote { .. }), "{mode:?}");
    }

    #[test]
    fn the_data_directory_is_for_its_owner_only() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b");
        make_private_folder(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
    }
}
