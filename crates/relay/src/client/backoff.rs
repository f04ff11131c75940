//! How long to wait before the next attempt to connect (§8): 1 s·2ⁿ, at most 30 s, times 0.5 to 1.5.

use std::time::Duration;

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

/// The wait before the second attempt, without jitter.
const FIRST: Duration = Duration::from_secs(1);
/// The longest wait, without jitter: a relay that comes back is found again within a minute.
const LONGEST: Duration = Duration::from_secs(30);

/// The waits of one series of failed attempts. The same seed gives the same waits.
#[derive(Debug)]
pub(super) struct Backoff {
    failures: u32,
    jitter: StdRng,
}

impl Backoff {
    pub(super) fn new(seed: u64) -> Self {
        Self { failures: 0, jitter: StdRng::seed_from_u64(seed) }
    }

    /// Attempts that failed since the last [`Self::reset`].
    pub(super) fn failures(&self) -> u32 {
        self.failures
    }

    /// One more attempt failed: the wait before the next one.
    pub(super) fn fail(&mut self) -> Duration {
        let doublings = self.failures.min(16);
        self.failures = self.failures.saturating_add(1);
        self.spread(FIRST.saturating_mul(1 << doublings).min(LONGEST))
    }

    /// The wait that the server asked for; never shorter than asked, so that a crowd that was sent away does not come
    /// back too early, and up to half as long again, so that it does not come back at once.
    pub(super) fn asked(&mut self, wait: Duration) -> Duration {
        self.failures = self.failures.saturating_add(1);
        wait.mul_f64(self.jitter.random_range(1.0..1.5))
    }

    /// The server served: the next failure is the first of a series.
    pub(super) fn reset(&mut self) {
        self.failures = 0;
    }

    /// A wait between half and one and a half of this, so that a crowd does not move as one.
    pub(super) fn spread(&mut self, wait: Duration) -> Duration {
        wait.mul_f64(self.jitter.random_range(0.5..1.5))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_wait_that_was_asked_for_is_never_cut_short() {
        let mut backoff = Backoff::new(7);
        for _ in 0..100 {
            let wait = backoff.asked(Duration::from_millis(400));
            assert!((400..=600).contains(&wait.as_millis()), "{wait:?}");
        }
    }

    proptest! {
        #[test]
        fn waits_double_up_to_thirty_seconds_and_are_spread_by_half(seed: u64, failures in 0u32..40) {
            let mut backoff = Backoff::new(seed);
            for n in 0..failures {
                let whole = (1u128 << n.min(5)).min(30) * 1000;
                let wait = backoff.fail().as_millis();
                prop_assert!(wait >= whole / 2 && wait <= whole * 3 / 2, "attempt {} waited {} ms", n, wait);
            }
            prop_assert_eq!(backoff.failures(), failures);
            backoff.reset();
            prop_assert!(backoff.fail() <= Duration::from_millis(1500));
        }
    }
}
