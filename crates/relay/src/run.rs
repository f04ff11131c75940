//! The standalone relay: its own SQLite store, its worker's key, one listener. `gastown-relay` and `gastown relay` are two
//! shells around this.

use std::{
    fmt,
    future::Future,
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use protocol::{Timestamp, TownId};
use store::{EventStore, OpenError, SqliteOptions, SqliteStore};
use tokio::{
    net::TcpListener,
    runtime::{Builder, Runtime},
};
use tokio_util::sync::CancellationToken;

use crate::{
    auth::{Claims, CredentialBook, JwtAuthority, KeyError, Keys, Secret, ServiceClaims, TicketBook},
    limit_args::LimitArgs,
    server::{Relay, RelayConfig, ServeLimits, now, serve},
};

/// The file of the store. Not the one of a worker with a relay inside: both may have one data directory.
const STORE_FILE: &str = "relay.db";
/// The file of the key by which tokens are known.
const KEY_FILE: &str = "signing-key";
/// Life of a service token that is asked for on the command line.
const SERVICE_TOKEN_LIFE: std::time::Duration = std::time::Duration::from_secs(365 * 24 * 3600);

/// How the standalone relay is started.
#[derive(Debug, clap::Args)]
#[non_exhaustive]
pub struct RelayArgs {
    /// Address to listen on; port 0 lets the system choose
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:4281")]
    pub listen: String,
    /// File of the signing key, which the worker has too [default: signing-key in the data directory, made if it is not
    /// there]
    #[arg(long, value_name = "FILE")]
    pub signing_key: Option<PathBuf>,
    /// A host name by which it may be called, beside localhost; may be given several times
    #[arg(long, value_name = "HOST")]
    pub allow_host: Vec<String>,
    /// Serve this town alone: tokens of other towns are refused, even if the same key has signed them
    #[arg(long, value_name = "TOWN")]
    pub town: Option<TownId>,
    /// Answer /metrics without credentials
    #[arg(long)]
    pub open_metrics: bool,
    /// Print a token that opens everything of this town, and exit
    #[arg(long, value_name = "TOWN")]
    pub service_token: Option<TownId>,
    /// Print one line of JSON (url, pid) once it serves
    #[arg(long)]
    pub json: bool,
    /// Where everything is kept
    #[command(flatten)]
    pub data_dir: DataDirArgs,
    /// How much is kept, and how many may read it.
    #[command(flatten)]
    pub limits: LimitArgs,
}

/// Where a server keeps everything.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct DataDirArgs {
    /// Where the server keeps everything [default: ~/.gastown]
    #[arg(long, env = "GASTOWN_DATA_DIR", hide_env_values = true, value_name = "DIR", global = true)]
    pub data_dir: Option<PathBuf>,
}

/// Nobody said where to keep things, and there is no home directory to keep them in.
#[derive(Debug, thiserror::Error)]
#[error("no home directory is known: say where with --data-dir DIR")]
pub struct NoHome;

impl DataDirArgs {
    /// The folder, whether it is there or not.
    ///
    /// # Errors
    /// When nobody said, and no home directory is known.
    pub fn path(&self) -> Result<PathBuf, NoHome> {
        if let Some(path) = &self.data_dir {
            return Ok(path.clone());
        }
        let home = std::env::home_dir().filter(|home| !home.as_os_str().is_empty());
        home.map(|home| home.join(".gastown")).ok_or(NoHome)
    }

    /// The folder; one that is not there is made, for its owner only.
    ///
    /// # Errors
    /// As [`Self::path`], and when it cannot be made.
    pub fn make(&self) -> Result<PathBuf, DataDirError> {
        let path = self.path()?;
        let mut builder = std::fs::DirBuilder::new();
        builder.recursive(true);
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        match builder.create(&path) {
            Ok(()) => Ok(path),
            Err(source) => Err(DataDirError::Make { path, source }),
        }
    }
}

/// Why there is no data directory.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataDirError {
    /// Nobody said where.
    #[error(transparent)]
    NoHome(#[from] NoHome),
    /// It cannot be made.
    #[error("the data directory {path} cannot be made")]
    Make {
        /// Where.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
}

/// Why the relay did not start, or ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// It would be open to a network without what its operator chose.
    #[error(
        "{address} can be reached from other machines: give the worker's signing key (--signing-key FILE) and name the \
         hosts it is called by (--allow-host HOST), or listen on 127.0.0.1"
    )]
    OpenBind {
        /// Where it was to listen.
        address: SocketAddr,
    },
    /// There is no data directory.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// There is no signing key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The store cannot be opened.
    #[error("the event store {path} cannot be opened")]
    Store {
        /// The file.
        path: PathBuf,
        /// What the store says.
        #[source]
        source: OpenError,
    },
    /// The listener failed.
    #[error("the listener failed")]
    Listener(#[source] io::Error),
}

/// Opens the store; what arrives at the listener waits there until [`Running::run_until`].
///
/// # Errors
/// See [`RunError`].
pub async fn start(args: &RelayArgs, listener: TcpListener) -> Result<Running, RunError> {
    let address = listener.local_addr().map_err(RunError::Listener)?;
    let is_prepared = args.signing_key.is_some() && !args.allow_host.is_empty();
    if !address.ip().is_loopback() && !is_prepared {
        return Err(RunError::OpenBind { address });
    }
    let data_dir = args.data_dir.make()?;
    let keys = keys(args, &data_dir)?;
    let path = data_dir.join(STORE_FILE);
    let file = path.clone();
    args.limits.claim_descriptors();
    let options = SqliteOptions::default().with_retention(args.limits.retention());
    let opened = tokio::task::spawn_blocking(move || SqliteStore::open(file, options)).await;
    let opened = opened.expect("opening a store does not panic");
    let store: Arc<dyn EventStore> = Arc::new(opened.map_err(|source| RunError::Store { path, source })?);
    let book = Arc::new(CredentialBook::default());
    let tickets = Arc::new(TicketBook::new(now()));
    let authority = JwtAuthority::new(keys, tickets).with_book(book.clone());
    let authority = match &args.town {
        Some(town) => authority.with_town(town.clone()),
        None => authority,
    };
    let relay = Relay::new(store.clone(), Arc::new(authority), config(args));
    let (limits, json) = (args.limits.serve(), args.json);
    Ok(Running { relay, listener, address, store, book, limits, json })
}

/// A relay that was started. It must be driven with [`Running::run_until`].
pub struct Running {
    relay: Relay,
    listener: TcpListener,
    address: SocketAddr,
    store: Arc<dyn EventStore>,
    book: Arc<CredentialBook>,
    limits: ServeLimits,
    json: bool,
}

impl Running {
    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The line to print once it serves.
    #[must_use]
    pub fn announcement(&self) -> String {
        let url = format!("http://{}", reachable(self.address));
        if self.json {
            return format!("{}\n", serde_json::json!({ "url": url, "pid": std::process::id() }));
        }
        format!("relay on {url}\n")
    }

    /// Serves until `shutdown`, then tells viewers and wrappers when to come back.
    ///
    /// # Errors
    /// When the listener fails.
    pub async fn run_until(self, shutdown: impl Future<Output = ()> + Send) -> Result<(), RunError> {
        let Self { relay, listener, store, book, limits, .. } = self;
        let ends = CancellationToken::new();
        let serving = serve(listener, relay.router(), limits, ends.clone().cancelled_owned());
        let serving = async {
            // Who comes back after a restart is not to be told that their token is unknown.
            ends.run_until_cancelled(book.ready()).await;
            let served = serving.await;
            ends.cancel();
            served
        };
        let ending = async {
            tokio::select! {
                () = shutdown => ends.cancel(),
                () = ends.cancelled() => {}
            }
            relay.drain().await;
        };
        let (served, (), (), ()) =
            tokio::join!(serving, ending, book.follow(store, ends.clone()), relay.sweep());
        served.map_err(RunError::Listener)
    }
}

impl fmt::Debug for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Running").field("address", &self.address).finish_non_exhaustive()
    }
}

/// The threads of a relay that has a process to itself: half as many as there are processors. The store, the system and the
/// other side have work to do as well, and what comes together is done together (docs/performance.md).
///
/// # Errors
/// When the system does not start them.
pub fn runtime() -> io::Result<Runtime> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from).div_ceil(2);
    Builder::new_multi_thread().worker_threads(threads).enable_all().build()
}

/// A token with which everything can be done in a town, as `--service-token` prints it.
///
/// # Errors
/// When there is no signing key.
pub fn service_token(args: &RelayArgs, town: TownId, now: Timestamp) -> Result<Secret, RunError> {
    let claims =
        ServiceClaims { town, service: "command line".to_owned(), expires: now.after(SERVICE_TOKEN_LIFE) };
    Ok(keys(args, &args.data_dir.make()?)?.sign(&Claims::Service(claims)))
}

/// The address to call, of one that is listened on: "every address" is none.
#[must_use]
pub fn reachable(address: SocketAddr) -> SocketAddr {
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip @ (IpAddr::V4(_) | IpAddr::V6(_)) => ip,
    };
    SocketAddr::new(ip, address.port())
}

fn config(args: &RelayArgs) -> RelayConfig {
    let config = RelayConfig::default().with_viewers(args.limits.viewers());
    let config = args.allow_host.iter().fold(config, |config, host| config.with_host(host));
    if args.open_metrics { config.with_open_metrics() } else { config }
}

/// The signing key: that of the file, which must be there, or the data directory's own.
fn keys(args: &RelayArgs, data_dir: &Path) -> Result<Keys, RunError> {
    Ok(match &args.signing_key {
        Some(path) => Keys::load(path)?,
        None => Keys::load_or_create(&data_dir.join(KEY_FILE))?,
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Defaults {
        #[command(flatten)]
        limits: LimitArgs,
    }

    #[tokio::test]
    async fn p17_an_address_that_is_not_loopback_needs_a_key_and_a_name() {
        let dir = tempfile::tempdir().unwrap();
        let key = dir.path().join("key");
        Keys::load_or_create(&key).unwrap();
        for (signing_key, allow_host) in
            [(None, vec![]), (Some(key.clone()), vec![]), (None, vec!["relay.example".to_owned()])]
        {
            let open = RelayArgs { signing_key, allow_host, ..args(dir.path()) };
            let refused = start(&open, listener("0.0.0.0:0").await).await;
            assert!(matches!(refused, Err(RunError::OpenBind { .. })), "{refused:?}");
        }
        let allow_host = vec!["relay.example".to_owned()];
        let prepared = RelayArgs { signing_key: Some(key), allow_host, ..args(dir.path()) };
        let running = start(&prepared, listener("0.0.0.0:0").await).await.unwrap();
        let url = format!("relay on http://127.0.0.1:{}\n", running.address().port());
        assert_eq!(running.announcement(), url);
        running.run_until(std::future::ready(())).await.unwrap();
    }

    #[tokio::test]
    async fn a_key_file_that_was_named_must_be_there() {
        let dir = tempfile::tempdir().unwrap();
        let args = RelayArgs { signing_key: Some(dir.path().join("none")), ..args(dir.path()) };
        let refused = start(&args, listener("127.0.0.1:0").await).await;
        assert!(matches!(refused, Err(RunError::Key(_))), "{refused:?}");
    }

    #[tokio::test]
    async fn it_starts_twice_on_the_same_data_with_the_same_key() {
        let dir = tempfile::tempdir().unwrap();
        let mut tokens = Vec::new();
        for _ in 0..2 {
            let running = start(&args(dir.path()), listener("127.0.0.1:0").await).await.unwrap();
            running.run_until(std::future::ready(())).await.unwrap();
            let town = "main".parse().unwrap();
            tokens.push(service_token(&args(dir.path()), town, Timestamp::from_unix_ms(0)).unwrap());
        }
        assert!(tokens[0].is(tokens[1].expose()));
    }

    #[test]
    fn the_data_directory_is_for_its_owner_only() {
        let dir = tempfile::tempdir().unwrap();
        let path = DataDirArgs { data_dir: Some(dir.path().join("a/b")) }.make().unwrap();
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        }
        assert!(path.is_dir());
    }

    async fn listener(address: &str) -> TcpListener {
        TcpListener::bind(address).await.unwrap()
    }

    fn args(dir: &Path) -> RelayArgs {
        RelayArgs {
            listen: "127.0.0.1:0".to_owned(),
            signing_key: None,
            allow_host: Vec::new(),
            town: None,
            open_metrics: false,
            limits: Defaults::parse_from(["relay"]).limits,
            service_token: None,
            json: false,
            data_dir: DataDirArgs { data_dir: Some(dir.to_owned()) },
        }
    }
}
