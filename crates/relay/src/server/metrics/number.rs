//! Numbers that any thread adds to, in a fixed amount of memory.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use crate::server::feed::lock;

/// A counter or a gauge.
pub(in crate::server) type Number = AtomicU64;

/// One of a number of things that are open.
#[derive(Debug)]
pub(in crate::server) struct Held<'a>(&'a Number);

impl<'a> Held<'a> {
    pub(super) fn new(number: &'a Number) -> Self {
        number.fetch_add(1, Relaxed);
        Self(number)
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// How often something had which size: one counter for each bound, and one for what is above all of them. It keeps no
/// single value, so that it stays as small as it is however seldom it is read.
#[derive(Debug)]
pub(super) struct Histogram {
    bounds: &'static [f64],
    counts: Box<[Number]>,
    /// The sum, as the bits of an `f64`.
    sum: Number,
}

impl Histogram {
    /// With these upper bounds, in increasing order.
    pub(super) fn new(bounds: &'static [f64]) -> Self {
        Self { bounds, counts: (0..=bounds.len()).map(|_| Number::default()).collect(), sum: Number::new(0) }
    }

    pub(super) fn record(&self, value: f64) {
        let place = self.bounds.partition_point(|bound| *bound < value);
        self.counts[place].fetch_add(1, Relaxed);
        let add = |bits| Some((f64::from_bits(bits) + value).to_bits());
        // It is tried again until nobody comes between, so that it does not fail.
        let _ = self.sum.fetch_update(Relaxed, Relaxed, add);
    }

    /// Each bound with how many values were at or below it; then how many there were, and their sum.
    pub(super) fn cumulative(&self) -> (Vec<(f64, u64)>, u64, f64) {
        let mut below = 0;
        let mut bound = |(bound, count): (&f64, &Number)| {
            below += count.load(Relaxed);
            (*bound, below)
        };
        let bounds = self.bounds.iter().zip(&self.counts).map(&mut bound).collect();
        let above = self.counts[self.bounds.len()].load(Relaxed);
        (bounds, below + above, f64::from_bits(self.sum.load(Relaxed)))
    }
}

/// Counters of one kind, told apart by a label with few values. For what happens seldom: it locks.
#[derive(Debug, Default)]
pub(super) struct ByLabel(Mutex<BTreeMap<String, u64>>);

impl ByLabel {
    pub(super) fn add(&self, label: String) {
        *lock(&self.0).entry(label).or_default() += 1;
    }

    pub(super) fn all(&self) -> BTreeMap<String, u64> {
        lock(&self.0).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_histogram_counts_each_value_once_and_cumulates() {
        let histogram = Histogram::new(&[1.0, 2.0, 4.0]);
        for value in [0.5, 1.0, 1.5, 4.0, 4.5, 100.0] {
            histogram.record(value);
        }
        assert_eq!(histogram.cumulative(), (vec![(1.0, 2), (2.0, 3), (4.0, 4)], 6, 111.5));
    }

    #[test]
    fn concurrent_records_lose_nothing() {
        let histogram = Histogram::new(&[1.0]);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..1000).for_each(|_| histogram.record(0.5)));
            }
        });
        assert_eq!(histogram.cumulative(), (vec![(1.0, 4000)], 4000, 2000.0));
    }

    #[test]
    fn what_is_held_counts_until_it_is_dropped() {
        let number = Number::default();
        let held = [Held::new(&number), Held::new(&number)];
        assert_eq!(number.load(Relaxed), 2);
        drop(held);
        assert_eq!(number.load(Relaxed), 0);
    }
}
