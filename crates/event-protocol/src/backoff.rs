//! How long to wait before the next attempt to connect (§8): 1 s·2ⁿ, at most 5 s, times 0.5 to 1.5. Wrappers and clients
//! wait the same way.

use std::time::Duration;

/// The wait before the second attempt, without jitter.
const FIRST: Duration = Duration::from_secs(1);
/// The longest wait, without jitter: however long a relay was away, ten seconds after it is back everyone has caught up.
const LONGEST: Duration = Duration::from_secs(5);

/// The waits of one series of failed attempts. The same seed gives the same waits.
#[derive(Debug, Clone)]
pub struct Backoff {
    failures: u32,
    jitter: u64,
}

impl Backoff {
    /// No attempt has failed. Those who may fail at the same time have different seeds.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { failures: 0, jitter: seed }
    }

    /// Attempts that failed since the last [`Self::reset`].
    #[must_use]
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// One more attempt failed: the wait before the next one.
    pub fn fail(&mut self) -> Duration {
        let doublings = self.failures.min(16);
        self.failures = self.failures.saturating_add(1);
        self.spread(FIRST.saturating_mul(1 << doublings).min(LONGEST))
    }

    /// The wait that the server asked for; never shorter than asked, so that a crowd that was sent away does not come
    /// back too early, and up to half as long again, so that it does not come back at once.
    pub fn asked(&mut self, wait: Duration) -> Duration {
        self.failures = self.failures.saturating_add(1);
        wait.mul_f64(1.0 + self.random() / 2.0)
    }

    /// The server served: the next failure is the first of a series.
    pub fn reset(&mut self) {
        self.failures = 0;
    }

    /// A wait between half and one and a half of this, so that a crowd does not move as one.
    pub fn spread(&mut self, wait: Duration) -> Duration {
        wait.mul_f64(0.5 + self.random())
    }

    /// From 0 up to 1, by SplitMix64 (Steele, Lea, Flood, 2014): nobody has to be unable to guess it.
    fn random(&mut self) -> f64 {
        self.jitter = self.jitter.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.jitter;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        // As many bits as a float holds exactly.
        (mixed >> 11) as f64 / (1_u64 << 53) as f64
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

    #[test]
    fn a_crowd_with_seeds_in_a_row_is_spread_evenly() {
        let waits = (0..10_000).map(|seed| Backoff::new(seed).spread(Duration::from_secs(1)).as_millis());
        let mut tenths = [0; 10];
        waits.for_each(|ms| tenths[usize::try_from((ms - 500) / 100).unwrap().min(9)] += 1);
        assert!(tenths.iter().all(|count| (900..1_100).contains(count)), "{tenths:?}");
    }

    proptest! {
        #[test]
        fn waits_double_up_to_five_seconds_and_are_spread_by_half(seed: u64, failures in 0u32..40) {
            let mut backoff = Backoff::new(seed);
            for n in 0..failures {
                let whole = (1u128 << n.min(5)).min(5) * 1000;
                let wait = backoff.fail().as_millis();
                prop_assert!(wait >= whole / 2 && wait <= whole * 3 / 2, "attempt {} waited {} ms", n, wait);
            }
            prop_assert_eq!(backoff.failures(), failures);
            backoff.reset();
            prop_assert!(backoff.fail() <= Duration::from_millis(1500));
        }

        #[test]
        fn the_same_seed_gives_the_same_waits(seed: u64) {
            let waits = || {
                let mut backoff = Backoff::new(seed);
                std::array::from_fn::<_, 8, _>(|_| backoff.fail())
            };
            prop_assert_eq!(waits(), waits());
        }
    }
}
