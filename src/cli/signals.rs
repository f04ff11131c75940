//! The signals that ask a command to end.

use anyhow::Context as _;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// SIGINT and SIGTERM, from the moment it is made: none is missed between two waits.
#[derive(Debug)]
pub(super) struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    /// Follows them, which they would otherwise end the process with.
    pub(super) fn follow() -> anyhow::Result<Self> {
        let follow = |kind| signal(kind).context("signals cannot be followed");
        Ok(Self { interrupt: follow(SignalKind::interrupt())?, terminate: follow(SignalKind::terminate())? })
    }

    /// Waits for the next one. Cancel-safe.
    pub(super) async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
