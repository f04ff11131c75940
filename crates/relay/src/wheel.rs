//! Many deadlines, one timer: what falls into the same quarter of a second is due together.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

/// Deadlines are met at most this much late, and never early.
const TICK: Duration = Duration::from_millis(250);

/// Keys with the times at which they are to be looked at. A key may be in it more than once: whoever takes it out knows
/// whether it is still of interest.
#[derive(Debug)]
pub struct Wheel<K> {
    start: Instant,
    ticks: BTreeMap<u32, Vec<K>>,
}

impl<K> Wheel<K> {
    /// An empty one.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self { start: now, ticks: BTreeMap::new() }
    }

    /// Has a key looked at when this time has come.
    pub fn schedule(&mut self, key: K, at: Instant) {
        let since = at.saturating_duration_since(self.start);
        let tick = u32::try_from(since.as_millis().div_ceil(TICK.as_millis())).unwrap_or(u32::MAX);
        self.ticks.entry(tick).or_default().push(key);
    }

    /// When the next keys are due.
    #[must_use]
    pub fn next(&self) -> Option<Instant> {
        self.ticks.first_key_value().map(|(tick, _)| self.start + TICK * *tick)
    }

    /// Takes out one after the other the keys whose time has come.
    pub fn take_due(&mut self, now: Instant) -> Option<Vec<K>> {
        let first = self.ticks.first_entry()?;
        (self.start + TICK * *first.key() <= now).then(|| first.remove())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_key_is_due_once_never_early_and_at_most_a_tick_late(times in prop::collection::vec(0_u64..100_000, 0..50)) {
            let start = tokio::time::Instant::now().into_std();
            let mut wheel = Wheel::new(start);
            for ms in &times {
                wheel.schedule(*ms, start + Duration::from_millis(*ms));
            }
            let mut seen = Vec::new();
            while let Some(next) = wheel.next() {
                prop_assert!(wheel.take_due(next - Duration::from_nanos(1)).is_none());
                for ms in wheel.take_due(next).expect("it said so") {
                    let late = next - start - Duration::from_millis(ms);
                    prop_assert!(late < TICK, "{late:?}");
                    seen.push(ms);
                }
            }
            seen.sort_unstable();
            let mut times = times;
            times.sort_unstable();
            prop_assert_eq!(seen, times);
        }
    }
}
