//! Who has appended to a log: repetitions, holes and fences.

use protocol::{LogId, NewEvent};
use serde::Deserialize;

use super::PreparedEvent;
use crate::{AppendError, ProducerBatch, ProducerState};

/// Producers remembered per log. A wrapper keeps its id over restarts, so there are few; this bounds what somebody
/// who makes up a producer per batch can make the log keep.
const REMEMBERED: usize = 64;

/// The producers of a log, the one with the newest generation last.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Producers(Vec<ProducerState>);

/// What becomes of a producer's batch.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Admission {
    /// How many of its first events are repetitions.
    pub(crate) repeated: usize,
    /// The producer's last number once the batch is committed.
    pub(crate) acked: u64,
}

impl Producers {
    #[cfg_attr(
        not(any(feature = "sqlite", test)),
        expect(dead_code, reason = "only durable backends restore")
    )]
    /// From what was kept, in any order.
    pub(crate) fn restore(mut states: Vec<ProducerState>) -> Self {
        states.sort_by_key(|state| state.generation);
        Self(states)
    }

    /// The one that may append.
    pub(crate) fn newest(&self) -> Option<&ProducerState> {
        self.0.last()
    }

    /// Checks a batch; changes nothing.
    pub(crate) fn admit(
        &self,
        log: &LogId,
        batch: &ProducerBatch,
        events: &[PreparedEvent],
    ) -> Result<Admission, AppendError> {
        let &ProducerBatch { ref producer, generation, first } = batch;
        if let Some(newest) = self.newest() {
            let is_older = generation < newest.generation;
            if is_older || (generation == newest.generation && *producer != newest.producer) {
                return Err(AppendError::Fenced { log: log.clone(), generation, latest: newest.generation });
            }
        }
        let known = self.0.iter().find(|state| state.producer == *producer).map_or(0, |state| state.acked);
        if events.is_empty() {
            return Ok(Admission { repeated: 0, acked: known });
        }
        let hole = || AppendError::Hole { log: log.clone(), acked: known, first };
        let last = first.checked_add(events.len() as u64 - 1).ok_or_else(hole)?;
        // A producer of which no event is known may begin anywhere: its earlier ones went with a removed log.
        let acked = if known == 0 { first.saturating_sub(1) } else { known };
        if first > acked.saturating_add(1) && !names_the_hole(events[0].event(), acked, first) {
            return Err(hole());
        }
        let repeated = acked.saturating_add(1).saturating_sub(first).min(events.len() as u64);
        Ok(Admission {
            repeated: usize::try_from(repeated).expect("at most the length of the batch"),
            acked: last.max(acked),
        })
    }

    #[cfg_attr(not(feature = "sqlite"), expect(dead_code, reason = "only durable backends keep them"))]
    /// All that are remembered, the newest last.
    pub(crate) fn all(&self) -> &[ProducerState] {
        &self.0
    }

    /// Keeps what was admitted; gives the newest producer, if it is other than before.
    pub(crate) fn record(&mut self, batch: &ProducerBatch, acked: u64) -> Option<ProducerState> {
        let &ProducerBatch { ref producer, generation, first: _ } = batch;
        let newest = ProducerState { producer: producer.clone(), generation, acked };
        if self.newest() == Some(&newest) {
            return None;
        }
        self.put(newest.clone());
        Some(newest)
    }

    /// Makes this one the newest, and forgets the oldest if there are too many.
    pub(crate) fn put(&mut self, newest: ProducerState) {
        self.0.retain(|known| known.producer != newest.producer);
        self.0.push(newest);
        if self.0.len() > REMEMBERED {
            self.0.remove(0);
        }
    }
}

/// Whether the event says that the numbers between are lost: `wrapper.events_dropped {from, to}` (§6).
fn names_the_hole(event: &NewEvent, acked: u64, first: u64) -> bool {
    #[derive(Deserialize)]
    struct Dropped {
        from: u64,
        to: u64,
    }
    &*event.kind == "wrapper.events_dropped"
        && event.data.parse::<Dropped>().is_ok_and(|d| d.from <= acked + 1 && d.to >= first - 1)
}

#[cfg(test)]
mod tests {
    use protocol::Timestamp;

    use super::*;

    #[test]
    fn p5_numbers_that_are_known_are_repetitions() {
        let producers = known(3, 10);
        assert_eq!(admit(&producers, "p", 3, 8, 5), Ok((3, 12)));
        assert_eq!(admit(&producers, "p", 3, 1, 10), Ok((10, 10)));
        assert_eq!(admit(&producers, "p", 3, 1, 4), Ok((4, 10)));
        assert_eq!(admit(&producers, "p", 3, 11, 2), Ok((0, 12)));
    }

    #[test]
    fn p5_a_hole_is_refused() {
        assert!(admit(&known(3, 10), "p", 3, 12, 1).unwrap_err().contains("through 10"));
    }

    #[test]
    fn p5_a_producer_that_comes_back_after_another_is_still_known() {
        let mut producers = known(3, 10);
        producers.record(&batch("q", 4, 1), 7);
        assert_eq!(admit(&producers, "p", 5, 9, 4), Ok((2, 12)));
    }

    #[test]
    fn p7_a_hole_that_is_named_is_taken() {
        let producers = known(3, 10);
        let drop =
            |from, to| vec![event("wrapper.events_dropped", &serde_json::json!({"from": from, "to": to}))];
        let admit = |events: &[PreparedEvent], first| producers.admit(&log(), &batch("p", 3, first), events);
        assert_eq!(admit(&drop(11, 20), 21).unwrap(), Admission { repeated: 0, acked: 21 });
        assert!(matches!(admit(&drop(12, 20), 21), Err(AppendError::Hole { acked: 10, first: 21, .. })));
        assert!(matches!(admit(&drop(11, 19), 21), Err(AppendError::Hole { .. })));
    }

    #[test]
    fn p6_an_older_generation_and_a_rival_of_the_same_are_fenced() {
        let producers = known(3, 10);
        assert!(admit(&producers, "p", 2, 11, 1).unwrap_err().contains("fenced"));
        assert!(admit(&producers, "q", 3, 1, 1).unwrap_err().contains("fenced"));
        assert_eq!(admit(&producers, "q", 4, 1, 1), Ok((0, 1)));
    }

    #[test]
    fn the_first_number_of_a_stranger_is_taken_as_it_is() {
        assert_eq!(admit(&Producers::default(), "p", 1, 501, 2), Ok((0, 502)));
        assert_eq!(admit(&known(3, 0), "p", 3, 501, 2), Ok((0, 502)));
    }

    #[test]
    fn numbers_at_the_end_of_their_range_do_not_overflow() {
        assert!(admit(&known(3, 10), "p", 3, u64::MAX, 2).unwrap_err().contains("through 10"));
        assert!(admit(&known(3, u64::MAX), "p", 3, u64::MAX, 1).is_ok());
        assert_eq!(admit(&Producers::default(), "p", 3, 0, 1), Ok((1, 0)));
    }

    #[test]
    fn only_so_many_producers_are_remembered_and_the_newest_are() {
        let mut producers = Producers::default();
        for generation in 1..=REMEMBERED as u64 + 2 {
            let newest = producers.record(&batch(&format!("p{generation}"), generation, 1), generation);
            assert_eq!(newest.as_ref(), producers.newest());
        }
        assert_eq!(producers.all()[0].producer, "p3".parse().unwrap());
        assert_eq!(producers.newest().map(|p| p.generation), Some(REMEMBERED as u64 + 2));
        assert_eq!(producers.0.len(), REMEMBERED);
    }

    fn known(generation: u64, acked: u64) -> Producers {
        Producers::restore(vec![ProducerState { producer: "p".parse().unwrap(), generation, acked }])
    }

    fn admit(
        producers: &Producers,
        producer: &str,
        generation: u64,
        first: u64,
        events: usize,
    ) -> Result<(usize, u64), String> {
        let events = vec![event("file.edited", &serde_json::json!({})); events];
        let admission = producers.admit(&log(), &batch(producer, generation, first), &events);
        admission.map(|a| (a.repeated, a.acked)).map_err(|e| e.to_string())
    }

    fn batch(producer: &str, generation: u64, first: u64) -> ProducerBatch {
        ProducerBatch { producer: producer.parse().unwrap(), generation, first }
    }

    fn event(kind: &str, data: &serde_json::Value) -> PreparedEvent {
        PreparedEvent::of(NewEvent::of(Timestamp::from_unix_ms(0), kind, data).unwrap())
    }

    fn log() -> LogId {
        "agent/a".parse().unwrap()
    }
}
