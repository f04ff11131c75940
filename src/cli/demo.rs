//! `gastown demo`.

mod fleet;

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::Context as _;
use clap::Args;
use relay::DataDirArgs;
use town::Request;
use worker::{Running, WorkerConfig, start};

use super::{
    Exit, print, progress,
    server::DEFAULT_LISTEN,
    serving::{bind, bind_or_any_port},
    signals::Signals,
    up::serve_town,
};

/// Start a town with scripted agents to look around: no network, no key, nothing to install
#[derive(Debug, Args)]
#[command(after_help = "\
Five agents: a mayor, one that asks for permission to run something, one with a sub-agent and a question, one that \
fails and tries again, and one that replays the recording of a real agent. Everything is in a temporary folder, which \
is removed at the end. Ctrl-C ends it.")]
pub(super) struct Demo {
    /// Address to listen on [default: 127.0.0.1:4280, or another port if that is taken]
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
    /// Keep the folder at the end
    #[arg(long)]
    keep: bool,
    /// Do not open a browser
    #[arg(long)]
    no_open: bool,
    /// Print one line of JSON (url, login, town, token_file, pid) once it serves
    #[arg(long)]
    json: bool,
}

/// How long an agent of the demo may take to end: nothing of it is kept.
const STOP_GRACE: Duration = Duration::from_secs(2);

impl Demo {
    pub(super) async fn run(self) -> anyhow::Result<Exit> {
        let mut signals = Signals::follow()?;
        let folder = Folder::make(self.keep)?;
        let listener = match &self.listen {
            Some(address) => bind(address).await?,
            None => bind_or_any_port(DEFAULT_LISTEN).await?,
        };
        let config = WorkerConfig::new(folder.path()).with_stop_grace(STOP_GRACE);
        let running = progress::shown("opening the store", start(config, listener)).await?;
        populate(&running, folder.path()).await?;
        if self.json {
            print(&worker::args::json_line(&running))?;
        } else {
            print(&greeting(&running, folder.path()))?;
            if !self.no_open {
                // Its link is one of its own: the printed one stays good.
                open_browser(&running.worker().one_use_login_url());
            }
        }
        let exit = serve_town(running, &mut signals).await;
        if self.keep {
            print(&format!("kept: gastown up --data-dir {}\n", folder.path().display()))?;
        }
        exit
    }
}

/// Registers and starts the agents.
async fn populate(running: &Running, dir: &Path) -> anyhow::Result<()> {
    for registration in fleet::lay_out(dir)? {
        let name = registration.name.clone();
        let command = town::Command::Register { registration, start: true };
        let asked = running.worker().ask(Request::by("operator", command)).await;
        asked.with_context(|| format!("{name} cannot be started"))?;
    }
    Ok(())
}

fn greeting(running: &Running, dir: &Path) -> String {
    format!(
        "a town with scripted agents; Ctrl-C ends it\n\n  {}\n\nin another terminal:\n  \
         gastown agents --data-dir {dir}\n  gastown watch amber --data-dir {dir}\n",
        running.worker().one_use_login_url(),
        dir = dir.display(),
    )
}

/// Opens a browser if there is a screen; it is no harm if not, since the link is printed too.
fn open_browser(url: &str) {
    let has_screen = ["DISPLAY", "WAYLAND_DISPLAY"].iter().any(|name| std::env::var_os(name).is_some());
    let opener = match std::env::consts::OS {
        "macos" => "open",
        _ if has_screen => "xdg-open",
        _ => return,
    };
    let opened = Command::new(opener)
        .arg(url)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    if let Err(error) = opened {
        tracing::info!(%error, opener, "no browser was opened");
    }
}

/// The demo's folder: removed at the end, also when something fails.
struct Folder {
    path: PathBuf,
    keep: bool,
}

impl Folder {
    fn make(keep: bool) -> anyhow::Result<Self> {
        let path = std::env::temp_dir().join(format!("gastown-demo-{}", uuid::Uuid::new_v4().simple()));
        let path = DataDirArgs { data_dir: Some(path) }.make()?;
        Ok(Self { path, keep })
    }

    fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if self.keep {
            return;
        }
        if let Err(error) = std::fs::remove_dir_all(&self.path) {
            tracing::warn!(%error, path = %self.path.display(), "the demo's folder cannot be removed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folder_goes_unless_it_is_kept() {
        let gone = Folder::make(false).unwrap();
        let path = gone.path().to_owned();
        assert!(path.is_dir());
        drop(gone);
        assert!(!path.exists());

        let kept = Folder::make(true).unwrap();
        let path = kept.path().to_owned();
        drop(kept);
        assert!(path.is_dir());
        std::fs::remove_dir(&path).unwrap();
    }
}
