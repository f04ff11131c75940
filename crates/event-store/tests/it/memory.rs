//! The conformance suite on [`MemoryStore`].

use gastown_event_store::{
    MemoryStore, RetentionPolicy, conformance::Fixture, conformance_tests, search_conformance_tests,
};

conformance_tests!(Memory);
search_conformance_tests!(Memory);

struct Memory;

impl Fixture for Memory {
    type Store = MemoryStore;

    fn open(&mut self, policy: RetentionPolicy) -> MemoryStore {
        MemoryStore::new(policy)
    }
}
