//! What a store may be opened with.

use crate::RetentionPolicy;

/// What an append waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Durability {
    /// Every commit is synced before its appends return: they survive the loss of power (`synchronous=FULL`).
    #[default]
    Full,
    /// Commits survive the death of the process, but the newest ones may be lost with the power
    /// (`synchronous=NORMAL`). Clause 3 then holds for crashes only.
    Normal,
}

/// How a [`SqliteStore`](crate::SqliteStore) is opened.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct SqliteOptions {
    /// How much of which log is kept. Default: [`RetentionPolicy::default`].
    pub retention: RetentionPolicy,
    /// What an append waits for. Default: [`Durability::Full`].
    pub durability: Durability,
    /// Bytes that the database may have; beyond them appends fail as on a full disk. Default: no limit.
    pub max_bytes: Option<u64>,
    /// Threads that read what is not in memory. Default: 2.
    pub readers: usize,
    /// Bytes of newest events, of all logs together, that stay in the journal before they are filed by log. They are in
    /// memory, and opening the store reads them. Default: 16 MiB.
    pub journal_bytes: u64,
    /// Newest events per log that are read from memory, beside those in the journal. Default: 256.
    pub hot_events: usize,
    /// Their bytes at most. Default: 128 KiB.
    pub hot_bytes: usize,
    /// Logs whose index and newest events are in memory at a time; the least recently written go first.
    /// Default: 16,384.
    pub open_logs: usize,
}

impl Default for SqliteOptions {
    fn default() -> Self {
        Self {
            retention: RetentionPolicy::default(),
            durability: Durability::Full,
            max_bytes: None,
            readers: 2,
            journal_bytes: 16 * 1024 * 1024,
            hot_events: 256,
            hot_bytes: 128 * 1024,
            open_logs: 16 * 1024,
        }
    }
}

impl SqliteOptions {
    /// The same with another retention.
    #[must_use]
    pub fn with_retention(mut self, retention: RetentionPolicy) -> Self {
        self.retention = retention;
        self
    }

    /// The same with another durability.
    #[must_use]
    pub fn with_durability(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }

    /// The same with a limit to the database's size.
    #[must_use]
    pub fn with_max_bytes(mut self, bytes: u64) -> Self {
        self.max_bytes = Some(bytes);
        self
    }

    /// The same with another number of reader threads; at least one is started.
    #[must_use]
    pub fn with_readers(mut self, readers: usize) -> Self {
        self.readers = readers;
        self
    }

    /// The same with another bound of the journal.
    #[must_use]
    pub fn with_journal_bytes(mut self, bytes: u64) -> Self {
        self.journal_bytes = bytes;
        self
    }

    /// The same with other bounds of what is read from memory per log.
    #[must_use]
    pub fn with_hot(mut self, events: usize, bytes: usize) -> Self {
        self.hot_events = events;
        self.hot_bytes = bytes;
        self
    }

    /// The same with another number of logs in memory.
    #[must_use]
    pub fn with_open_logs(mut self, logs: usize) -> Self {
        self.open_logs = logs;
        self
    }
}
