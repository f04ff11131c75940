//! What one viewer got, against what the producer's events are: 1, 2, 3, …, each once, in order.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Watches the numbers that one viewer receives.
#[derive(Debug)]
pub(crate) struct Judge {
    /// The number after the highest one seen.
    next: u64,
    /// The ranges below `next` that were not seen: first number → the one after the last.
    missing: BTreeMap<u64, u64>,
    distinct: u64,
    duplicates: u64,
    disordered: u64,
}

/// What is wrong with what viewers got.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Verdict {
    /// Events that were acked to the producer and never came.
    pub(crate) lost: u64,
    /// Events that came again.
    pub(crate) duplicates: u64,
    /// Events that came after one with a higher number.
    pub(crate) disordered: u64,
}

impl Judge {
    pub(crate) fn new() -> Self {
        Self { next: 1, missing: BTreeMap::new(), distinct: 0, duplicates: 0, disordered: 0 }
    }

    /// This number came.
    pub(crate) fn see(&mut self, number: u64) {
        if number == self.next {
            self.next += 1;
            self.distinct += 1;
        } else if number > self.next {
            self.missing.insert(self.next, number);
            self.next = number + 1;
            self.distinct += 1;
        } else if self.find(number) {
            self.disordered += 1;
            self.distinct += 1;
        } else {
            self.duplicates += 1;
        }
    }

    /// Different numbers that came.
    pub(crate) fn distinct(&self) -> u64 {
        self.distinct
    }

    /// The judgement, when the numbers from 1 to `through` had to come.
    pub(crate) fn verdict(&self, through: u64) -> Verdict {
        let missing = self.missing.iter().map(|(first, end)| (*end).min(through + 1).saturating_sub(*first));
        let lost = missing.sum::<u64>() + (through + 1).saturating_sub(self.next);
        Verdict { lost, duplicates: self.duplicates, disordered: self.disordered }
    }

    /// The judgement of one that joined in the middle and left before the end: what lies between is to be whole.
    pub(crate) fn verdict_between(&self) -> Verdict {
        let Some(joined) = self.missing.get(&1) else { return self.verdict(self.next - 1) };
        let all = self.verdict(self.next - 1);
        Verdict { lost: all.lost - (joined - 1), ..all }
    }

    /// Takes a number out of what is missing, if it was.
    fn find(&mut self, number: u64) -> bool {
        let Some((&first, &end)) = self.missing.range(..=number).next_back() else { return false };
        if number >= end {
            return false;
        }
        self.missing.remove(&first);
        if first < number {
            self.missing.insert(first, number);
        }
        if number + 1 < end {
            self.missing.insert(number + 1, end);
        }
        true
    }
}

impl std::ops::AddAssign for Verdict {
    fn add_assign(&mut self, other: Self) {
        self.lost += other.lost;
        self.duplicates += other.duplicates;
        self.disordered += other.disordered;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_in_order_is_without_fault() {
        assert_eq!(judged(&[1, 2, 3, 4], 4), Verdict::default());
        assert_eq!(judged(&[], 0), Verdict::default());
    }

    #[test]
    fn a_hole_is_lost_and_so_is_a_missing_end() {
        assert_eq!(judged(&[1, 4, 5], 7), Verdict { lost: 4, ..Verdict::default() });
        assert_eq!(judged(&[], 3), Verdict { lost: 3, ..Verdict::default() });
    }

    #[test]
    fn what_comes_late_is_disordered_and_not_lost() {
        assert_eq!(judged(&[1, 4, 3, 2, 5], 5), Verdict { disordered: 2, ..Verdict::default() });
    }

    #[test]
    fn what_comes_again_is_a_duplicate_also_when_it_was_late() {
        assert_eq!(judged(&[1, 2, 2, 1], 2), Verdict { duplicates: 2, ..Verdict::default() });
        assert_eq!(judged(&[1, 3, 2, 2], 3), Verdict { duplicates: 1, disordered: 1, ..Verdict::default() });
    }

    #[test]
    fn an_event_that_was_seen_before_its_ack_is_no_fault() {
        assert_eq!(judged(&[1, 2, 3], 2), Verdict::default());
        // Number 2 was not acked either: it did not have to come.
        assert_eq!(judged(&[1, 3], 1), Verdict::default());
    }

    #[test]
    fn who_joins_in_the_middle_misses_only_what_lies_between() {
        for (numbers, lost) in [(&[][..], 0), (&[5, 6, 7], 0), (&[5, 8], 2), (&[1, 2, 4], 1)] {
            let mut judge = Judge::new();
            numbers.iter().for_each(|&number| judge.see(number));
            assert_eq!(judge.verdict_between().lost, lost, "{numbers:?}");
        }
    }

    #[test]
    fn any_permutation_loses_nothing_and_counts_each_inversion_once() {
        let order = [5, 1, 9, 3, 2, 8, 4, 7, 6, 10];
        let verdict = judged(&order, 10);
        let highest_before = |i: usize| order[..i].iter().max().copied().unwrap_or(0);
        let late = (0..order.len()).filter(|&i| order[i] < highest_before(i)).count() as u64;
        assert_eq!(verdict, Verdict { disordered: late, ..Verdict::default() });
    }

    fn judged(numbers: &[u64], through: u64) -> Verdict {
        let mut judge = Judge::new();
        for &number in numbers {
            judge.see(number);
        }
        judge.verdict(through)
    }
}
