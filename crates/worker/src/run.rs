//! Putting it together: what is opened, in which order it goes down.

mod mount;

use std::{
    fmt, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use axum::Router;
use protocol::{LogId, Seq};
use relay::{
    RelayApi,
    auth::{Claims, CredentialBook, JwtAuthority, KeyError, Keys, Secret, ServiceClaims, TicketBook},
    client::{Client, ClientError, Credentials, Token},
    server::{Relay, RelayConfig, ServeLimits, serve},
};
use store::{EventStore, OpenError, SqliteOptions, SqliteStore};
use tokio::{net::TcpListener, sync::watch, task::JoinHandle};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    ConfigFileError, JournalError, LocalLauncher, Mode, Worker, WorkerAuthority, WorkerConfig,
    agent_config::AgentConfigs,
    auth::{LoginLimiter, LoginLinks, OperatorTokenError, Sessions, guard::Names, operator, operator_token},
    digest::Digest,
    engine::Engine,
    fleet::{Fleet, Outside},
    journal::Journal,
    limits::SERVICE_TOKEN_LIFE,
    publish::{Copied, Publisher},
    worker::Inner,
};

/// The file of the data folder that holds the URL of the worker that runs on it.
pub const URL_FILE: &str = "url";
/// How long tasks of the dashboard may take to end once their streams have.
const TASKS_GRACE: Duration = Duration::from_secs(1);

/// Starts a worker and serves it until `shutdown`: [`start`], then [`Running::run_until`].
///
/// # Errors
/// When it cannot start, or its listener fails.
pub async fn run(
    config: WorkerConfig,
    listener: TcpListener,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), StartError> {
    start(config, listener).await?.run_until(shutdown).await
}

/// Opens everything a worker needs, takes over the agents that an earlier one left, and begins to launch wrappers. What
/// arrives at the listener waits there until [`Running::run_until`].
///
/// # Errors
/// See [`StartError`]; nothing is left running then.
pub async fn start(config: WorkerConfig, listener: TcpListener) -> Result<Running, StartError> {
    let address = listener.local_addr().map_err(StartError::Listener)?;
    refuse_open_bind(&config, address)?;
    let (token, token_is_new) = operator_token(&config.data_dir)?;
    let keys = Keys::load_or_create(&key_path(&config))?;
    let store = open_store(&config).await?;
    let sessions = Arc::new(Sessions::open(config.data_dir.join("sessions")).map_err(StartError::Sessions)?);
    let tickets = Arc::new(TicketBook::new(config.clock.now()));
    let book = Arc::new(CredentialBook::default());
    book.attend(&config.town);
    let journal = Journal::open(store.clone(), config.town.clone()).await?;
    let (engine, handle) = Engine::new(journal, config.clock.clone());
    let signed = JwtAuthority::new(keys.clone(), tickets.clone());
    let authority = Arc::new(WorkerAuthority {
        id: config.town.clone(),
        operator: Digest::of(token.expose()),
        town: handle.town(),
        book: book.clone(),
        sessions: sessions.clone(),
        signed: signed.with_book(book.clone()).with_town(config.town.clone()),
    });
    let names = Names::new(address, &config.allowed_hosts, config.public_url.as_deref());
    let place = Relaying::open(&config, address, &store, &authority, &keys, &names)?;

    let configs = Arc::new(AgentConfigs::open(&config.data_dir)?);
    let fleet = Fleet::new(Outside {
        town: config.town.clone(),
        launcher: config.launcher.clone().unwrap_or_else(|| local_launcher(&config)),
        relay: place.api.clone(),
        relay_url: place.url.clone(),
        keys: keys.clone(),
        configs: configs.clone(),
        build: config.wrapper_build.clone(),
        engine: handle.clone(),
        clock: config.clock.clone(),
        stop_grace: config.stop_grace,
        drain_grace: config.drain_grace,
        reconnect_grace: config.reconnect_grace,
        stop_on_exit: config.stop_agents_on_exit,
    });
    let own_url = format!("http://{}", reachable(address));
    let (copied, copy) = watch::channel(Seq::ZERO);
    let copy = Copied { journal: store.tail(&LogId::Town(config.town.clone())), copied: copy };
    let url = config.public_url.as_deref().unwrap_or(&own_url).trim_end_matches('/').to_owned();
    let worker = Worker::new(Inner {
        town: config.town.clone(),
        engine: handle,
        relay: place.api.clone(),
        authority,
        keys,
        configs,
        tickets,
        book: book.clone(),
        copy: place.embedded.is_none().then_some(copy),
        sessions,
        login_links: LoginLinks::default(),
        login_limiter: LoginLimiter::default(),
        clock: config.clock.clone(),
        work: work_folders(&config.data_dir),
        stream_url: stream_url(if place.embedded.is_some() { &url } else { &place.url }),
        relay_url: place.embedded.is_none().then(|| place.url.clone()),
        url,
        tasks: TaskTracker::new(),
    });
    let routes = place.embedded.as_ref().map(Relay::router);
    let router = mount::router(worker.clone(), routes, names);
    let stop_engine = CancellationToken::new();
    let engine = tokio::spawn(engine.run(fleet, stop_engine.clone()));
    let readers = Readers::default();
    let (following, followed, end) = (book.clone(), store.clone(), readers.end.clone());
    readers.tasks.spawn(async move { following.follow(followed, end).await });
    // Who comes back after a restart is not to be told that their token is unknown.
    book.ready().await;
    if let Some(relay) = place.remote {
        let (id, town, configs) = (config.town.clone(), worker.town(), worker.configs().clone());
        readers.tasks.spawn(Publisher { store, id, town, configs, relay, copied }.run(readers.end.clone()));
    }
    let limits = config.serve;
    let new_token = token_is_new.then_some(token);
    Ok(Running {
        worker,
        new_token,
        token_file: config.data_dir.join(operator::FILE),
        _url_file: UrlFile::write(&config.data_dir, &own_url).map_err(StartError::UrlFile)?,
        listener,
        router,
        limits,
        relay: place.embedded,
        engine,
        stop_engine,
        readers,
    })
}

/// A worker that was started. It must be driven with [`Running::run_until`].
pub struct Running {
    worker: Worker,
    new_token: Option<Secret>,
    token_file: PathBuf,
    _url_file: UrlFile,
    listener: TcpListener,
    router: Router,
    limits: ServeLimits,
    relay: Option<Relay>,
    engine: JoinHandle<()>,
    stop_engine: CancellationToken,
    readers: Readers,
}

/// What follows the journal beside the engine.
#[derive(Default)]
struct Readers {
    tasks: TaskTracker,
    end: CancellationToken,
}

impl Running {
    /// Its handle.
    #[must_use]
    pub fn worker(&self) -> &Worker {
        &self.worker
    }

    /// The operator's token, if it was made just now: to be shown once.
    #[must_use]
    pub fn new_operator_token(&self) -> Option<&Secret> {
        self.new_token.as_ref()
    }

    /// The file of the operator's token.
    #[must_use]
    pub fn token_file(&self) -> &Path {
        &self.token_file
    }

    /// Serves until `shutdown`; then ends the wrappers (or lets go of them) while the relay still takes what they have
    /// to say, tells viewers when to come back, and stops to listen.
    ///
    /// # Errors
    /// When the listener fails; the rest is ended all the same.
    pub async fn run_until(self, shutdown: impl Future<Output = ()> + Send) -> Result<(), StartError> {
        let stop_serving = CancellationToken::new();
        let serving = tokio::spawn(serve(
            self.listener,
            self.router,
            self.limits,
            stop_serving.clone().cancelled_owned(),
        ));
        tokio::pin!(serving);
        let relay = self.relay.clone();
        let sweeping = async {
            match &relay {
                Some(relay) => relay.sweep().await,
                // Another process keeps the store.
                None => std::future::pending().await,
            }
        };
        let early = tokio::select! {
            () = shutdown => None,
            end = &mut serving => Some(end),
            () = sweeping => None,
        };
        self.stop_engine.cancel();
        self.engine.await.expect("the engine does not panic");
        if let Some(relay) = &self.relay {
            relay.drain().await;
        }
        stop_serving.cancel();
        let end = match early {
            Some(end) => end,
            None => serving.await,
        };
        self.readers.end.cancel();
        self.readers.tasks.close();
        self.readers.tasks.wait().await;
        self.worker.tasks().close();
        // What is left has no viewer any more, and holds nothing that is not in a log.
        let _ = tokio::time::timeout(TASKS_GRACE, self.worker.tasks().wait()).await;
        end.expect("the accept loop does not panic").map_err(StartError::Listener)
    }
}

impl fmt::Debug for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Running").field("worker", &self.worker).finish_non_exhaustive()
    }
}

/// Why a worker did not start, or stopped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The listener is not good, or failed.
    #[error("the listener failed")]
    Listener(#[source] io::Error),
    /// It would be open to a network that it was not prepared for.
    #[error(
        "{address} can be reached from other machines: name the hosts it is called by (--allow-host <name>) and make \
         its operator token first (`gastown token --data-dir {data_dir}`), or listen on 127.0.0.1"
    )]
    OpenBind {
        /// The address.
        address: SocketAddr,
        /// The data folder.
        data_dir: PathBuf,
    },
    /// There is no operator token.
    #[error(transparent)]
    OperatorToken(#[from] OperatorTokenError),
    /// There is no signing key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The config of its agents is not good.
    #[error(transparent)]
    Config(#[from] ConfigFileError),
    /// The sessions of browsers cannot be read.
    #[error("the file of browser sessions cannot be read")]
    Sessions(#[source] io::Error),
    /// The store cannot be opened.
    #[error("the event store cannot be opened")]
    Store(#[from] OpenError),
    /// The town cannot be read.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The file with its address cannot be written.
    #[error("the data folder cannot be written to")]
    UrlFile(#[source] io::Error),
    /// The relay's address is no good.
    #[error("the relay cannot be used")]
    Relay(#[from] ClientError),
}

/// The file by which programs on this machine find the worker of a data folder, as long as it runs.
struct UrlFile(PathBuf);

impl UrlFile {
    fn write(data_dir: &Path, url: &str) -> io::Result<Self> {
        let path = data_dir.join(URL_FILE);
        std::fs::write(&path, format!("{url}\n"))?;
        Ok(Self(path))
    }
}

impl Drop for UrlFile {
    fn drop(&mut self) {
        // One that stays points to a worker that does not answer; that is what whoever follows it is told then.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Where the relay is.
struct Relaying {
    api: Arc<dyn RelayApi>,
    /// Base URL for wrappers, without a slash at its end.
    url: String,
    embedded: Option<Relay>,
    remote: Option<Client>,
}

impl Relaying {
    fn open(
        config: &WorkerConfig,
        address: SocketAddr,
        store: &Arc<dyn EventStore>,
        authority: &Arc<WorkerAuthority>,
        keys: &Keys,
        names: &Names,
    ) -> Result<Self, StartError> {
        match &config.mode {
            Mode::Embedded => {
                let relay_config =
                    names.hosts().iter().fold(RelayConfig::default(), |config, host| config.with_host(host));
                let relay_config = relay_config.with_viewers(config.viewers);
                let relay = Relay::new(store.clone(), authority.clone(), relay_config);
                let url = format!("http://{}", reachable(address));
                Ok(Self { api: Arc::new(relay.clone()), url, embedded: Some(relay), remote: None })
            }
            Mode::Remote { relay, .. } => {
                let token = keys.sign(&Claims::Service(ServiceClaims {
                    town: config.town.clone(),
                    service: "worker".into(),
                    expires: config.clock.now().after(SERVICE_TOKEN_LIFE),
                }));
                let client = Client::new(relay, Credentials::bearer(Token::new(token.expose())))?;
                Ok(Self {
                    api: Arc::new(client.clone()),
                    url: relay.trim_end_matches('/').to_owned(),
                    embedded: None,
                    remote: Some(client),
                })
            }
        }
    }
}

/// An address beyond loopback is taken only by a worker that was prepared for it: somebody named the hosts it is called
/// by, and somebody has its token. The first start would otherwise print the token where nobody reads it.
fn refuse_open_bind(config: &WorkerConfig, address: SocketAddr) -> Result<(), StartError> {
    let is_named = !config.allowed_hosts.is_empty() || config.public_url.is_some();
    if address.ip().is_loopback() || (is_named && operator::exists(&config.data_dir)) {
        return Ok(());
    }
    Err(StartError::OpenBind { address, data_dir: config.data_dir.clone() })
}

fn key_path(config: &WorkerConfig) -> PathBuf {
    match &config.mode {
        Mode::Remote { signing_key: Some(path), .. } => path.clone(),
        Mode::Remote { signing_key: None, .. } | Mode::Embedded => config.data_dir.join("signing-key"),
    }
}

async fn open_store(config: &WorkerConfig) -> Result<Arc<dyn EventStore>, StartError> {
    if let Some(store) = &config.store {
        return Ok(store.clone());
    }
    let name = match &config.mode {
        Mode::Embedded => "gastown.db",
        // The journal only: the logs are the relay's.
        Mode::Remote { .. } => "worker.db",
    };
    let path = config.data_dir.join(name);
    let options = SqliteOptions::default().with_retention(config.retention);
    let open = move || SqliteStore::open(path, options);
    let store = tokio::task::spawn_blocking(open).await.expect("opening a store does not panic")?;
    Ok(Arc::new(store))
}

/// Where agents have their work trees. A wrapper is told an absolute path.
fn work_folders(data_dir: &Path) -> PathBuf {
    let folder = data_dir.join("work");
    std::path::absolute(&folder).unwrap_or(folder)
}

fn local_launcher(config: &WorkerConfig) -> Arc<dyn crate::Launcher> {
    Arc::new(LocalLauncher::new(config.wrapper_command.clone(), config.data_dir.join("agents")))
}

/// The address to call, of one that is listened on: "every address" is none.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip @ (IpAddr::V4(_) | IpAddr::V6(_)) => ip,
    };
    SocketAddr::new(ip, address.port())
}

/// `http://…` → `ws://…`, `https://…` → `wss://…`.
fn stream_url(url: &str) -> String {
    let url = url.trim_end_matches('/');
    url.strip_prefix("http").map_or_else(|| url.to_owned(), |rest| format!("ws{rest}"))
}
