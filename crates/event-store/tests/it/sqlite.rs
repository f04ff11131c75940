//! The conformance suite on [`SqliteStore`]: with its defaults, with next to nothing in memory, so that every append loads
//! its log, and with a journal that holds next to nothing, so that every read comes from segments.

use gastown_event_store::{
    RetentionPolicy, SqliteOptions, SqliteStore, conformance::Fixture, conformance_tests,
    durable_conformance_tests, search_conformance_tests,
};

mod with_defaults {
    use super::*;
    conformance_tests!(Sqlite::with(SqliteOptions::default()));
    search_conformance_tests!(Sqlite::with(SqliteOptions::default()));
    durable_conformance_tests!(Sqlite::with(SqliteOptions::default()));
}

mod with_nothing_in_memory {
    use super::*;
    conformance_tests!(Sqlite::with(cold()));
    search_conformance_tests!(Sqlite::with(cold()));
    durable_conformance_tests!(Sqlite::with(cold()));
}

mod with_everything_filed {
    use super::*;
    conformance_tests!(Sqlite::with(cold().with_journal_bytes(0)));
    durable_conformance_tests!(Sqlite::with(cold().with_journal_bytes(0)));
}

struct Sqlite {
    directory: tempfile::TempDir,
    options: SqliteOptions,
}

impl Sqlite {
    fn with(options: SqliteOptions) -> Self {
        Self { directory: tempfile::tempdir().unwrap(), options }
    }
}

impl Fixture for Sqlite {
    type Store = SqliteStore;

    fn open(&mut self, policy: RetentionPolicy) -> SqliteStore {
        SqliteStore::open(self.directory.path().join("events.db"), self.options.with_retention(policy))
            .unwrap()
    }
}

fn cold() -> SqliteOptions {
    SqliteOptions::default().with_hot(0, 0).with_open_logs(1).with_readers(1)
}
