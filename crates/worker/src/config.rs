//! How a worker behaves.

use std::{ffi::OsString, path::PathBuf, sync::Arc, time::Duration};

use protocol::TownId;
use relay::server::{ServeLimits, ViewerLimits};
use store::{EventStore, RetentionPolicy};

use crate::{
    Clock, Launcher,
    limits::{DRAIN_GRACE, RECONNECT_GRACE, STOP_GRACE},
};

/// How a worker behaves. Make one with [`WorkerConfig::new`] and change it with the `with_` methods.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct WorkerConfig {
    /// Its town.
    pub town: TownId,
    /// The folder of everything it keeps: `gastown.db`, `operator-token`, `signing-key`, `config.json`, `sessions`, `agents/<id>/…`.
    pub data_dir: PathBuf,
    /// Where its relay is.
    pub mode: Mode,
    /// The build that wrappers are of that this worker launches. One of another build that an earlier worker left is replaced when
    /// it is idle.
    pub wrapper_build: String,
    /// The command line that wrappers are started with; their options follow it. The default is this very program with
    /// the subcommand `wrapper`.
    pub wrapper_command: Vec<OsString>,
    /// Host names (without port) by which it may be called, beside those of this machine's loopback.
    pub allowed_hosts: Vec<String>,
    /// The base URL by which browsers and viewers reach it, where that is not the address it listens on.
    pub public_url: Option<String>,
    /// Whether its agents' wrappers are ended when it ends. The agents stay wanted, and start again with it.
    pub stop_agents_on_exit: bool,
    /// How long a wrapper may take to end before it is killed.
    pub stop_grace: Duration,
    /// How long an agent that is drained may take to finish its turn.
    pub drain_grace: Duration,
    /// How long a wrapper that outlived an earlier worker may take to come back before another one is launched.
    pub reconnect_grace: Duration,
    /// What its listener takes.
    pub serve: ServeLimits,
    /// How many streams the relay inside it takes.
    pub viewers: ViewerLimits,
    /// How much of which log is kept in its SQLite file.
    pub retention: RetentionPolicy,
    /// Its store, where that is not an SQLite file in the data folder.
    pub store: Option<Arc<dyn EventStore>>,
    /// Its launcher, where that is not the local one.
    pub launcher: Option<Arc<dyn Launcher>>,
    /// Its clock.
    pub clock: Clock,
}

/// Where a worker's relay is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Mode {
    /// Inside: one process is worker, relay and store.
    #[default]
    Embedded,
    /// Another process. Both have the same signing key, so that the relay knows the tokens that the worker issues.
    Remote {
        /// Its base URL, as the worker, the wrappers and viewers reach it.
        relay: String,
        /// The file of the signing key, where that is not the one in the data folder.
        signing_key: Option<PathBuf>,
    },
}

impl Mode {
    /// A relay in another process at this base URL, with the signing key of this file (or that of the data folder).
    #[must_use]
    pub fn remote(relay: impl Into<String>, signing_key: Option<PathBuf>) -> Self {
        Self::Remote { relay: relay.into(), signing_key }
    }
}

impl WorkerConfig {
    /// The defaults: town `main`, everything in one process, everything kept in this folder.
    #[must_use]
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self {
            town: "main".parse().expect("main is an id"),
            data_dir: data_dir.into(),
            mode: Mode::Embedded,
            wrapper_build: env!("CARGO_PKG_VERSION").to_owned(),
            wrapper_command: own_wrapper_command(),
            allowed_hosts: Vec::new(),
            public_url: None,
            stop_agents_on_exit: true,
            stop_grace: STOP_GRACE,
            drain_grace: DRAIN_GRACE,
            reconnect_grace: RECONNECT_GRACE,
            serve: ServeLimits::default(),
            viewers: ViewerLimits::default(),
            retention: RetentionPolicy::default(),
            store: None,
            launcher: None,
            clock: Clock::system(),
        }
    }

    /// With this town.
    #[must_use]
    pub fn with_town(mut self, town: TownId) -> Self {
        self.town = town;
        self
    }

    /// With its relay there.
    #[must_use]
    pub fn with_mode(mut self, mode: Mode) -> Self {
        self.mode = mode;
        self
    }

    /// With wrappers of this command line.
    #[must_use]
    pub fn with_wrapper_command(mut self, command: Vec<OsString>) -> Self {
        self.wrapper_command = command;
        self
    }

    /// With wrappers of this build.
    #[must_use]
    pub fn with_wrapper_build(mut self, build: impl Into<String>) -> Self {
        self.wrapper_build = build.into();
        self
    }

    /// With another host name (without port) by which it may be called.
    #[must_use]
    pub fn with_allowed_host(mut self, host: impl Into<String>) -> Self {
        self.allowed_hosts.push(host.into());
        self
    }

    /// With the base URL by which it is reached.
    #[must_use]
    pub fn with_public_url(mut self, url: impl Into<String>) -> Self {
        self.public_url = Some(url.into());
        self
    }

    /// Whether wrappers end with the worker.
    #[must_use]
    pub fn with_stop_agents_on_exit(mut self, stop: bool) -> Self {
        self.stop_agents_on_exit = stop;
        self
    }

    /// With this time for a wrapper to end.
    #[must_use]
    pub fn with_stop_grace(mut self, grace: Duration) -> Self {
        self.stop_grace = grace;
        self
    }

    /// With this time for a wrapper to come back.
    #[must_use]
    pub fn with_reconnect_grace(mut self, grace: Duration) -> Self {
        self.reconnect_grace = grace;
        self
    }

    /// With these limits of its listener.
    #[must_use]
    pub fn with_serve(mut self, limits: ServeLimits) -> Self {
        self.serve = limits;
        self
    }

    /// With room for so many streams, of the relay and of the listener.
    #[must_use]
    pub fn with_viewers(mut self, viewers: ViewerLimits) -> Self {
        self.serve = self.serve.for_viewers(&viewers);
        self.viewers = viewers;
        self
    }

    /// With logs that are kept so long.
    #[must_use]
    pub fn with_retention(mut self, retention: RetentionPolicy) -> Self {
        self.retention = retention;
        self
    }

    /// With this store.
    #[must_use]
    pub fn with_store(mut self, store: Arc<dyn EventStore>) -> Self {
        self.store = Some(store);
        self
    }

    /// With this launcher.
    #[must_use]
    pub fn with_launcher(mut self, launcher: Arc<dyn Launcher>) -> Self {
        self.launcher = Some(launcher);
        self
    }

    /// With this clock.
    #[must_use]
    pub fn with_clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }
}

fn own_wrapper_command() -> Vec<OsString> {
    let program = std::env::current_exe().map_or_else(|_| "gastown".into(), PathBuf::into_os_string);
    vec![program, "wrapper".into()]
}
