//! How long a link waits before it connects again (§8): 1 s·2ⁿ, at most 30 s, times 0.5 to 1.5.

use std::time::Duration;

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(30);

/// The waits of a series of failures. The same seed gives the same waits.
#[derive(Debug)]
pub(super) struct Backoff {
    failures: u32,
    jitter: StdRng,
}

impl Backoff {
    pub(super) fn new(seed: u64) -> Self {
        Self { failures: 0, jitter: StdRng::seed_from_u64(seed) }
    }

    /// The wait after one more failure.
    pub(super) fn fail(&mut self) -> Duration {
        let doublings = self.failures.min(5);
        self.failures = self.failures.saturating_add(1);
        (FIRST * (1 << doublings)).min(LONGEST).mul_f64(self.jitter.random_range(0.5..1.5))
    }

    /// The connection held: the next failure is the first of a series.
    pub(super) fn reset(&mut self) {
        self.failures = 0;
    }
}
