//! The standalone relay: its own SQLite store, its own key (or the worker's), one listener.

use std::{future::Future, io, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use protocol::{Timestamp, TownId};
use store::{EventStore, SqliteOptions, SqliteStore};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{
    auth::{Claims, JwtAuthority, KeyError, Keys, ServiceClaims, TicketBook},
    server::{Relay, RelayConfig, ServeLimits, now, serve},
};

/// Life of the service token that a worker is to use.
const SERVICE_TOKEN_LIFE: Duration = Duration::from_secs(365 * 24 * 3600);

/// How the standalone relay is started.
#[derive(Debug, clap::Args)]
#[non_exhaustive]
pub struct RelayArgs {
    /// Where to listen. An address that is not loopback needs --key-file.
    #[arg(long, default_value = "127.0.0.1:4281", env = "GASTOWN_RELAY_LISTEN")]
    pub listen: SocketAddr,
    /// Where the database and the signing key are kept.
    #[arg(long, value_name = "DIR", env = "GASTOWN_DATA_DIR")]
    pub data_dir: PathBuf,
    /// The signing key (64 hexadecimal digits, mode 0600), shared with the worker. Without it one is made in the data
    /// directory.
    #[arg(long, value_name = "FILE")]
    pub key_file: Option<PathBuf>,
    /// A host name, besides the loopback ones, under which this relay is reached.
    #[arg(long = "allow-host", value_name = "HOST")]
    pub allow_hosts: Vec<String>,
    /// Print a service token for this town, for its worker, and exit.
    #[arg(long, value_name = "TOWN")]
    pub service_token: Option<TownId>,
    /// Let anyone read /metrics.
    #[arg(long)]
    pub open_metrics: bool,
}

/// Why the relay did not start, or ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// It would be open to a network without credentials that its operator chose.
    #[error("refusing to listen on {listen}, which is not loopback: give the signing key with --key-file")]
    OpenWithoutKey {
        /// Where it was to listen.
        listen: SocketAddr,
    },
    /// There is no signing key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The store cannot be opened.
    #[error("the event store {path} cannot be opened")]
    Store {
        /// The file.
        path: String,
        /// What the store says.
        #[source]
        source: store::OpenError,
    },
    /// The data directory cannot be made, or the listener failed.
    #[error("cannot {doing}")]
    Io {
        /// What it was about to do.
        doing: String,
        /// What the system says.
        #[source]
        source: io::Error,
    },
}

/// Runs the standalone relay until `shutdown`; `started` is told the address that it listens on.
///
/// # Errors
/// When it does not start, or the listener fails.
pub async fn run(
    args: RelayArgs,
    started: impl FnOnce(SocketAddr),
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), RunError> {
    let keys = keys(&args)?;
    let path = args.data_dir.join("gastown.db");
    let store = SqliteStore::open(&path, SqliteOptions::default())
        .map_err(|source| RunError::Store { path: path.display().to_string(), source })?;
    let authority = JwtAuthority::new(keys, Arc::new(TicketBook::new(now())));
    let relay = Relay::new(Arc::new(store) as Arc<dyn EventStore>, Arc::new(authority), config(&args));
    let failed = |doing: String| |source| RunError::Io { doing, source };
    let listener =
        TcpListener::bind(args.listen).await.map_err(failed(format!("listen on {}", args.listen)))?;
    started(listener.local_addr().map_err(failed("learn its own address".to_owned()))?);
    let ends = CancellationToken::new();
    let serving = serve(listener, relay.router(), ServeLimits::default(), ends.clone().cancelled_owned());
    let ending = async {
        shutdown.await;
        ends.cancel();
        relay.drain().await;
    };
    let mut serving = std::pin::pin!(serving);
    tokio::select! {
        served = &mut serving => served,
        () = ending => serving.await,
    }
    .map_err(failed("accept connections".to_owned()))
}

/// A token with which a worker may do everything in its town, as `--service-token` prints it.
///
/// # Errors
/// When there is no signing key.
pub fn service_token(
    args: &RelayArgs,
    town: TownId,
    now: Timestamp,
) -> Result<crate::auth::Secret, RunError> {
    let claims = ServiceClaims { town, service: "worker".to_owned(), expires: now.after(SERVICE_TOKEN_LIFE) };
    Ok(keys(args)?.sign(&Claims::Service(claims)))
}

fn config(args: &RelayArgs) -> RelayConfig {
    let mut config = RelayConfig { open_metrics: args.open_metrics, ..RelayConfig::default() };
    config.allowed_hosts.extend(args.allow_hosts.iter().cloned());
    config
}

/// The signing key: that of the file, which must be there, or the data directory's own.
fn keys(args: &RelayArgs) -> Result<Keys, RunError> {
    if let Some(path) = &args.key_file {
        return Ok(Keys::load(path)?);
    }
    if !args.listen.ip().is_loopback() {
        return Err(RunError::OpenWithoutKey { listen: args.listen });
    }
    let dir = &args.data_dir;
    std::fs::create_dir_all(dir)
        .map_err(|source| RunError::Io { doing: format!("make the directory {}", dir.display()), source })?;
    Ok(Keys::load_or_create(&dir.join("signing-key"))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn p17_an_address_that_is_not_loopback_needs_a_key_file() {
        let dir = tempfile::tempdir().unwrap();
        let open = RelayArgs { listen: "0.0.0.0:0".parse().unwrap(), ..args(dir.path()) };
        let refused = run(open, |address| panic!("it listens on {address}"), std::future::ready(())).await;
        assert!(matches!(refused, Err(RunError::OpenWithoutKey { .. })), "{refused:?}");

        let key = dir.path().join("key");
        Keys::load_or_create(&key).unwrap();
        let keyed =
            RelayArgs { listen: "0.0.0.0:0".parse().unwrap(), key_file: Some(key), ..args(dir.path()) };
        run(keyed, |_| {}, std::future::ready(())).await.unwrap();
    }

    #[tokio::test]
    async fn a_key_file_that_was_named_must_be_there() {
        let dir = tempfile::tempdir().unwrap();
        let args = RelayArgs { key_file: Some(dir.path().join("none")), ..args(dir.path()) };
        assert!(matches!(run(args, |_| {}, std::future::ready(())).await, Err(RunError::Key(_))));
    }

    #[tokio::test]
    async fn it_starts_twice_on_the_same_data_with_the_same_key() {
        let dir = tempfile::tempdir().unwrap();
        let mut tokens = Vec::new();
        for _ in 0..2 {
            run(args(dir.path()), |address| assert!(address.ip().is_loopback()), std::future::ready(()))
                .await
                .unwrap();
            let town = "main".parse().unwrap();
            tokens.push(service_token(&args(dir.path()), town, Timestamp::from_unix_ms(0)).unwrap());
        }
        assert!(tokens[0].is(tokens[1].expose()));
    }

    fn args(dir: &std::path::Path) -> RelayArgs {
        RelayArgs {
            listen: "127.0.0.1:0".parse().unwrap(),
            data_dir: dir.to_owned(),
            key_file: None,
            allow_hosts: Vec::new(),
            service_token: None,
            open_metrics: false,
        }
    }
}
