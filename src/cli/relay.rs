//! `gastown relay`.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::Context as _;
use clap::Args;
use relay::{
    auth::{JwtAuthority, Keys, TicketBook},
    server::{Relay as Serving, RelayConfig, ServeLimits, serve},
};
use store::{EventStore, SqliteOptions, SqliteStore};
use tokio::sync::oneshot;

use super::{
    Exit,
    exit::Refusal,
    print, progress,
    server::DataDirArgs,
    serving::{Announcement, bind, url_of, wind_down},
    signals::Signals,
    up::make_private_folder,
};

/// The file of the store.
const STORE_FILE: &str = "relay.db";
/// The file of the key by which tokens are known.
const KEY_FILE: &str = "signing-key";

/// Start a relay by itself: logs and streams, without agents or dashboard
#[derive(Debug, Args)]
#[command(after_help = "\
It lets in whoever has a token signed with its key: a worker started with the same --signing-key, its wrappers, and the \
tickets that it gives out.

Example:
  gastown relay  --listen 127.0.0.1:4281 --data-dir /var/lib/gastown-relay
  gastown worker --relay http://127.0.0.1:4281 --signing-key /var/lib/gastown-relay/signing-key")]
pub(super) struct Relay {
    /// Address to listen on; port 0 lets the system choose
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:4281")]
    listen: String,
    /// File of the signing key, made if it is not there [default: signing-key in the data directory]
    #[arg(long, value_name = "FILE")]
    signing_key: Option<PathBuf>,
    /// A host name by which it may be called, beside localhost; may be given several times
    #[arg(long, value_name = "HOST")]
    allow_host: Vec<String>,
    /// Answer /metrics without credentials
    #[arg(long)]
    open_metrics: bool,
    /// Print one line of JSON (url, pid) once it serves
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    data_dir: DataDirArgs,
}

impl Relay {
    pub(super) async fn run(self) -> anyhow::Result<Exit> {
        let mut signals = Signals::follow()?;
        let data_dir = self.data_dir.path()?;
        make_private_folder(&data_dir)?;
        let listener = bind(&self.listen).await?;
        let address = listener.local_addr()?;
        refuse_open_bind(address, &self.allow_host)?;
        let relay = progress::shown("opening the store", self.open(&data_dir)).await?;
        let announcement = Announcement {
            url: url_of(address),
            login: None,
            town: None,
            token_file: None,
            pid: std::process::id(),
        };
        print(&if self.json {
            announcement.json_line()?
        } else {
            format!("relay on {}\n", announcement.url)
        })?;

        let (stop, stopped) = oneshot::channel::<()>();
        let serving = serve(listener, relay.router(), ServeLimits::default(), async {
            // Dropping the sender stops it as well.
            let _ = stopped.await;
        });
        let mut serving = Box::pin(serving);
        tokio::select! {
            ended = &mut serving => {
                ended.context("the listener failed")?;
                return Ok(Exit::Done);
            }
            () = signals.next() => {}
        }
        let end = async {
            drop(stop);
            let (ended, ()) = tokio::join!(serving, relay.drain());
            ended.context("the listener failed")
        };
        wind_down("telling viewers and wrappers to come back", end, &mut signals).await
    }

    async fn open(&self, data_dir: &Path) -> anyhow::Result<Serving> {
        let key_file = self.signing_key.clone().unwrap_or_else(|| data_dir.join(KEY_FILE));
        let keys = Keys::load_or_create(&key_file)?;
        let file = data_dir.join(STORE_FILE);
        let opened = tokio::task::spawn_blocking(|| SqliteStore::open(file, SqliteOptions::default())).await;
        let store: Arc<dyn EventStore> = Arc::new(opened.context("the store was not opened")??);
        let tickets = Arc::new(TicketBook::new(worker::Clock::system().now()));
        let mut config = RelayConfig::default();
        for host in &self.allow_host {
            config = config.with_host(host);
        }
        if self.open_metrics {
            config = config.with_open_metrics();
        }
        Ok(Serving::new(store, Arc::new(JwtAuthority::new(keys, tickets)), config))
    }
}

/// Beyond loopback it serves only under names that somebody gave it (§9).
fn refuse_open_bind(address: SocketAddr, hosts: &[String]) -> anyhow::Result<()> {
    if address.ip().is_loopback() || !hosts.is_empty() {
        return Ok(());
    }
    let message = format!(
        "{address} can be reached from other machines: name the hosts it is called by (--allow-host)"
    );
    Err(Refusal::because(Exit::Usage, message))
}

#[cfg(test)]
mod tests {
    use super::{super::exit::exit_of, *};

    #[test]
    fn an_address_beyond_loopback_needs_a_name() {
        let open = "0.0.0.0:4281".parse().unwrap();
        assert_eq!(exit_of(&refuse_open_bind(open, &[]).unwrap_err()), Exit::Usage);
        assert!(refuse_open_bind(open, &["relay.example".to_owned()]).is_ok());
        assert!(refuse_open_bind("127.0.0.1:4281".parse().unwrap(), &[]).is_ok());
    }
}
