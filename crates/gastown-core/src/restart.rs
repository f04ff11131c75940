//! Whether and when a wrapper that crashed is started again.

use std::time::Duration;

use protocol::Timestamp;

use crate::limits::{RESTART_DELAY_MAX, RESTART_DELAY_MIN, RESTART_WINDOW, RESTARTS};

/// The wait before the next restart, or `None` if the budget of the window is used up.
///
/// `earlier` are the restarts so far, oldest first. The wait doubles with each restart in the window.
pub(crate) fn delay(earlier: &[Timestamp], now: Timestamp) -> Option<Duration> {
    let recent = earlier.iter().filter(|at| counts(**at, now)).count();
    if recent >= RESTARTS {
        return None;
    }
    let doublings = u32::try_from(recent).unwrap_or(u32::MAX).min(16);
    Some(RESTART_DELAY_MIN.saturating_mul(1 << doublings).min(RESTART_DELAY_MAX))
}

/// Whether a restart still counts. One in the future does: after a jump of the clock the budget must not be endless.
pub(crate) fn counts(at: Timestamp, now: Timestamp) -> bool {
    now.since(at) < RESTART_WINDOW
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_wait_doubles_and_the_fourth_restart_is_not_granted() {
        let mut earlier = Vec::new();
        let mut waits = Vec::new();
        let mut now = at(0);
        while let Some(wait) = delay(&earlier, now) {
            waits.push(wait.as_secs());
            now = now.after(wait);
            earlier.push(now);
        }
        assert_eq!(waits, [1, 2, 4]);
    }

    #[test]
    fn a_restart_counts_for_ten_minutes() {
        let earlier = [at(0), at(1), at(2)];
        assert_eq!(delay(&earlier, at(599)), None);
        assert_eq!(delay(&earlier, at(600)), Some(Duration::from_secs(4)));
    }

    proptest! {
        #[test]
        fn p21_restarts_in_any_window_are_bounded(gaps in prop::collection::vec(0_i64..400, 1..200)) {
            let mut granted: Vec<Timestamp> = Vec::new();
            let mut now = at(0);
            for gap in gaps {
                now = now.after(Duration::from_secs(gap.unsigned_abs()));
                if let Some(wait) = delay(&granted, now) {
                    prop_assert!((RESTART_DELAY_MIN..=RESTART_DELAY_MAX).contains(&wait));
                    now = now.after(wait);
                    granted.push(now);
                }
            }
            for (index, first) in granted.iter().enumerate() {
                let within = granted[index..].iter().filter(|later| later.since(*first) < RESTART_WINDOW).count();
                prop_assert!(within <= RESTARTS);
            }
        }
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_unix_ms(seconds * 1000)
    }
}
