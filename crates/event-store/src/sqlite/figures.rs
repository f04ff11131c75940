//! What the store counts, for metrics.

use std::{
    path::Path,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Instant,
};

use crate::{LogSummary, StoreFigures};

/// Counts since the store was opened.
#[derive(Debug, Default)]
pub(super) struct Counts {
    commits: AtomicU64,
    commit_nanos: AtomicU64,
    checkpoints: AtomicU64,
    checkpoint_nanos: AtomicU64,
    appended: AtomicU64,
    pruned: AtomicU64,
    compacted: AtomicU64,
    filed: AtomicU64,
    corrupt: AtomicU64,
}

/// What one commit did.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Commit {
    pub(super) appended: u64,
    pub(super) pruned: u64,
    pub(super) compacted: u64,
    pub(super) filed: u64,
}

impl Counts {
    /// A transaction is synced that began then.
    pub(super) fn committed(&self, commit: Commit, begun: Instant) {
        self.commits.fetch_add(1, Relaxed);
        self.commit_nanos.fetch_add(nanos_since(begun), Relaxed);
        self.appended.fetch_add(commit.appended, Relaxed);
        self.pruned.fetch_add(commit.pruned, Relaxed);
        self.compacted.fetch_add(commit.compacted, Relaxed);
        self.filed.fetch_add(commit.filed, Relaxed);
    }

    /// The write-ahead log was copied into the database, which began then.
    pub(super) fn checkpointed(&self, begun: Instant) {
        self.checkpoints.fetch_add(1, Relaxed);
        self.checkpoint_nanos.fetch_add(nanos_since(begun), Relaxed);
    }

    /// A read found damage.
    pub(super) fn found_damage(&self) {
        self.corrupt.fetch_add(1, Relaxed);
    }

    /// Together with what the store holds.
    pub(super) fn figures(&self, path: &Path, logs: &[LogSummary]) -> StoreFigures {
        let size = |suffix: &str| {
            let mut name = path.as_os_str().to_owned();
            name.push(suffix);
            std::fs::metadata(name).map_or(0, |file| file.len())
        };
        let wal_bytes = size("-wal");
        StoreFigures {
            logs: logs.len() as u64,
            events: logs.iter().map(|log| log.events).sum(),
            bytes: size("") + wal_bytes,
            wal_bytes,
            commits: self.commits.load(Relaxed),
            commit_nanos: self.commit_nanos.load(Relaxed),
            checkpoints: self.checkpoints.load(Relaxed),
            checkpoint_nanos: self.checkpoint_nanos.load(Relaxed),
            appended: self.appended.load(Relaxed),
            pruned: self.pruned.load(Relaxed),
            compacted: self.compacted.load(Relaxed),
            filed: self.filed.load(Relaxed),
            corrupt: self.corrupt.load(Relaxed),
        }
    }
}

fn nanos_since(begun: Instant) -> u64 {
    u64::try_from(now().duration_since(begun).as_nanos()).unwrap_or(u64::MAX)
}

/// The writer's clock: it measures, and decides nothing.
#[expect(clippy::disallowed_methods, reason = "the one clock of this driver")]
pub(super) fn now() -> Instant {
    Instant::now()
}
