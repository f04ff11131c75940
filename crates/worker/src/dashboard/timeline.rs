//! How a log is spread over time: what the scrubber of an agent's page shows.
//!
//! Only time in which something happened has a place. An agent that waited for a night would otherwise leave no room for
//! what it did before and after: each such pause is one narrow break.

use protocol::{Seq, Timestamp};

/// Columns at most; with one more, two of them become one.
const COLUMNS: usize = 180;
/// The width of a column to begin with, in milliseconds.
const WIDTH_MS: i64 = 250;
/// Slots that a pause takes at most.
const BREAK: i64 = 4;
/// The moment at the right end of the scrubber.
pub(crate) const MOMENTS: usize = 1_000;

/// The log over time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Timeline {
    width_ms: i64,
    columns: Vec<Column>,
}

/// A stretch of time in which something happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Column {
    /// Its number since 1970, in widths.
    at: i64,
    /// Events.
    pub events: u32,
    /// Errors among them.
    pub errors: u32,
    /// The position of its last event.
    pub last: Seq,
    /// The time of its last event.
    pub time: Timestamp,
}

impl Default for Timeline {
    fn default() -> Self {
        Self { width_ms: WIDTH_MS, columns: Vec::new() }
    }
}

impl Timeline {
    /// Takes the next event of the log.
    pub(crate) fn push(&mut self, time: Timestamp, seq: Seq, is_error: bool) {
        let at = time.unix_ms().div_euclid(self.width_ms);
        let column = Column { at, events: 1, errors: u32::from(is_error), last: seq, time };
        match self.columns.last_mut() {
            // A clock that was set back must not make the picture run backwards.
            Some(last) if last.at >= at => last.absorb(column),
            Some(_) | None => self.columns.push(column),
        }
        while self.columns.len() > COLUMNS {
            self.widen();
        }
    }

    /// The columns with their slots, oldest first.
    pub(crate) fn slots(&self) -> impl Iterator<Item = (usize, &Column)> {
        let mut slot = 0;
        let mut before: Option<i64> = None;
        self.columns.iter().map(move |column| {
            let apart = before.map_or(0, |before| (column.at - before).min(1 + BREAK));
            slot += usize::try_from(apart).unwrap_or(0);
            before = Some(column.at);
            (slot, column)
        })
    }

    /// How many slots there are, breaks counted.
    pub(crate) fn len(&self) -> usize {
        self.slots().last().map_or(0, |(slot, _)| slot + 1)
    }

    /// The width of a column, in milliseconds.
    pub(crate) fn width_ms(&self) -> i64 {
        self.width_ms
    }

    /// When the first column begins, in milliseconds since 1970.
    pub(crate) fn start_ms(&self) -> i64 {
        self.columns.first().map_or(0, |column| column.at * self.width_ms)
    }

    /// Where columns follow each other without a pause: each run's first slot, and how many widths after the start it is.
    pub(crate) fn runs(&self) -> Vec<(usize, i64)> {
        let mut runs: Vec<(usize, i64)> = Vec::new();
        let start = self.columns.first().map_or(0, |column| column.at);
        for (slot, column) in self.slots() {
            let after = column.at - start;
            if runs
                .last()
                .is_none_or(|(at, before)| i64::try_from(slot - at).is_ok_and(|by| before + by != after))
            {
                runs.push((slot, after));
            }
        }
        runs
    }

    /// When the first event was.
    pub(crate) fn start(&self) -> Option<Timestamp> {
        self.columns.first().map(|column| column.time)
    }

    /// Where a time is, from 0 at the left end to [`MOMENTS`] at the right one.
    pub(crate) fn moment(&self, time: Timestamp) -> usize {
        let at = time.unix_ms().div_euclid(self.width_ms);
        let slot = self.slots().take_while(|(_, column)| column.at <= at).last().map_or(0, |(slot, _)| slot);
        let last = self.len().saturating_sub(1);
        (slot * MOMENTS + last / 2).checked_div(last).unwrap_or(MOMENTS)
    }

    /// What had happened by a moment; nothing in an empty log.
    pub(crate) fn column_at(&self, moment: usize) -> Option<&Column> {
        let slot = (moment.min(MOMENTS) * self.len().saturating_sub(1) + MOMENTS / 2) / MOMENTS;
        self.slots().take_while(|(at, _)| *at <= slot).last().map(|(_, column)| column)
    }

    fn widen(&mut self) {
        self.width_ms *= 2;
        let mut wide: Vec<Column> = Vec::with_capacity(COLUMNS);
        for column in &self.columns {
            let column = Column { at: column.at.div_euclid(2), ..*column };
            match wide.last_mut() {
                Some(last) if last.at == column.at => last.absorb(column),
                Some(_) | None => wide.push(column),
            }
        }
        self.columns = wide;
    }
}

impl Column {
    fn absorb(&mut self, later: Self) {
        self.events += later.events;
        self.errors += later.errors;
        (self.last, self.time) = (later.last, self.time.max(later.time));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_pause_of_any_length_is_a_narrow_break() {
        let timeline = timeline(&[0, 250, 750, 90_000_000, 90_000_500]);
        let slots: Vec<usize> = timeline.slots().map(|(slot, _)| slot).collect();
        assert_eq!(slots, [0, 1, 3, 8, 10]);
        assert_eq!(timeline.runs(), [(0, 0), (8, 360_000)], "what a page needs to name the time of a slot");
        assert_eq!(timeline.moment(ms(0)), 0);
        assert_eq!(timeline.moment(ms(40_000_000)), 300, "within the break: where it began");
        assert_eq!(timeline.moment(ms(90_000_500)), MOMENTS);
    }

    #[test]
    fn a_clock_that_was_set_back_adds_to_the_newest_column() {
        let timeline = timeline(&[10_000, 2_000]);
        assert_eq!(timeline.len(), 1);
        assert_eq!(timeline.column_at(0).map(|column| column.last), Some(Seq::new(2)));
    }

    #[test]
    fn an_empty_log_has_no_moment() {
        assert_eq!(Timeline::default().column_at(500), None);
        assert_eq!(Timeline::default().moment(ms(1)), MOMENTS);
    }

    proptest! {
        #[test]
        fn a_moment_leads_back_to_the_column_it_was_made_of(times in prop::collection::vec(0_i64..1 << 40, 1..600)) {
            let timeline = timeline(&times);
            prop_assert!(timeline.columns.len() <= COLUMNS);
            prop_assert_eq!(timeline.slots().map(|(_, column)| column.events as usize).sum::<usize>(), times.len());
            if timeline.len() < MOMENTS {
                for (_, column) in timeline.slots() {
                    prop_assert_eq!(timeline.column_at(timeline.moment(column.time)), Some(column));
                }
            }
            prop_assert_eq!(timeline.column_at(MOMENTS).map(|column| column.last), Some(Seq::new(times.len() as u64)));
        }
    }

    fn timeline(times: &[i64]) -> Timeline {
        let mut timeline = Timeline::default();
        for (n, time) in times.iter().enumerate() {
            timeline.push(ms(*time), Seq::new(n as u64 + 1), false);
        }
        timeline
    }

    fn ms(time: i64) -> Timestamp {
        Timestamp::from_unix_ms(time)
    }
}
