//! Whether an agent server is well, by what is heard of it (§10, health, layer 1).
//!
//! Pure: what happened goes in with its time, and [`Health::doing`] says what to do next and until when. A stream that breaks or is
//! silent for longer than a heartbeat takes is taken up again: a probe, a subscription of a new generation, then what was missed. A
//! server that does not come back in time hangs, though its process lives and its port is open: it is ended.

use std::time::Duration;

use super::Patience;
use crate::Moment;

/// Between a failed try and the next one, and between two streams.
const PAUSE: Duration = Duration::from_millis(500);

/// What is to be done, each until a time at which [`Health::handle_timeout`] is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Doing {
    /// Read the stream; silence until then is its end.
    Follow { until: Moment },
    /// Ask the server whether it is well.
    Probe { until: Moment },
    /// Subscribe again and fetch what was missed.
    TakeUp { until: Moment },
    /// Nothing.
    Rest { until: Moment },
    /// End the server: it hangs.
    End,
}

/// The health of one server.
#[derive(Debug)]
pub(super) struct Health {
    patience: Patience,
    doing: Doing,
    /// Subscriptions by now.
    generation: u64,
    /// When the stream was subscribed to.
    subscribed: Moment,
    /// Tries to get the stream back.
    lost: Option<Lost>,
}

#[derive(Debug)]
struct Lost {
    since: Moment,
    why: String,
    failures: u32,
    last_failure: String,
}

impl Health {
    /// A server whose first stream begins.
    pub(super) fn new(now: Moment, patience: Patience) -> Self {
        let doing = Doing::Follow { until: now + patience.silence };
        Self { patience, doing, generation: 1, subscribed: now, lost: None }
    }

    pub(super) fn doing(&self) -> Doing {
        self.doing
    }

    /// Which subscription the stream is: nothing of an earlier one counts any more.
    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    /// Something came on the stream.
    pub(super) fn heard(&mut self, now: Moment) {
        if let Doing::Follow { until } = &mut self.doing {
            *until = now + self.patience.silence;
        }
    }

    /// The stream is no more.
    pub(super) fn lost(&mut self, now: Moment, why: String) {
        if matches!(self.doing, Doing::Follow { .. }) {
            self.lost = Some(Lost { since: now, why, failures: 0, last_failure: String::new() });
            // A server that ends each stream at once is not asked for the next one in a loop.
            self.rest_until(now, self.subscribed + PAUSE);
        }
    }

    /// The server answered the probe.
    pub(super) fn probed(&mut self, now: Moment) {
        if matches!(self.doing, Doing::Probe { .. }) {
            self.doing = Doing::TakeUp { until: self.by(now + self.patience.answer) };
        }
    }

    /// A new stream is there, and what was missed.
    pub(super) fn taken_up(&mut self, now: Moment) {
        if matches!(self.doing, Doing::TakeUp { .. }) {
            self.generation += 1;
            self.subscribed = now;
            self.lost = None;
            self.doing = Doing::Follow { until: now + self.patience.silence };
        }
    }

    /// The probe or the subscription failed.
    pub(super) fn failed(&mut self, now: Moment, why: String) {
        if let (Doing::Probe { .. } | Doing::TakeUp { .. }, Some(lost)) = (self.doing, &mut self.lost) {
            lost.failures += 1;
            lost.last_failure = why;
            self.rest_until(now, now + PAUSE);
        }
    }

    /// Does what is due.
    pub(super) fn handle_timeout(&mut self, now: Moment) {
        match self.doing {
            Doing::Follow { until } if until <= now => {
                self.lost(now, format!("it was silent for {}", seconds(self.patience.silence)));
            }
            Doing::Probe { until } if until <= now => self.failed(now, "it did not answer in time".into()),
            Doing::TakeUp { until } if until <= now => {
                self.failed(now, "it gave no event stream in time".into());
            }
            Doing::Rest { until } if until <= now => self.rest_until(now, until),
            Doing::Follow { .. }
            | Doing::Probe { .. }
            | Doing::TakeUp { .. }
            | Doing::Rest { .. }
            | Doing::End => {}
        }
    }

    /// Why the server counts as hung, as `agent.failed` says it.
    pub(super) fn verdict(&self, server: &str) -> String {
        let Some(Lost { why, failures, last_failure, .. }) = &self.lost else {
            return format!("{server} hangs");
        };
        let tries = if *failures == 1 { "try" } else { "tries" };
        format!(
            "{server} hangs: {why} and did not come back within {} ({failures} failed {tries}, the last one: {last_failure})",
            seconds(self.patience.hung)
        )
    }

    /// Rests, then probes; ends the server if that is too late.
    fn rest_until(&mut self, now: Moment, until: Moment) {
        self.doing = if self.deadline().is_some_and(|deadline| deadline <= now) {
            Doing::End
        } else if until <= now {
            Doing::Probe { until: self.by(now + self.patience.probe) }
        } else {
            Doing::Rest { until: self.by(until) }
        };
    }

    /// This time, or when the server counts as hung.
    fn by(&self, until: Moment) -> Moment {
        self.deadline().map_or(until, |deadline| deadline.min(until))
    }

    fn deadline(&self) -> Option<Moment> {
        self.lost.as_ref().map(|lost| lost.since + self.patience.hung)
    }
}

fn seconds(duration: Duration) -> String {
    format!("{} s", duration.as_secs_f32())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_server_that_says_something_in_time_is_followed() {
        let mut health = health();
        for second in (10..100).step_by(10) {
            health.handle_timeout(at(second));
            health.heard(at(second));
            assert_eq!(health.doing(), Doing::Follow { until: at(second + 15) });
        }
        assert_eq!(health.generation(), 1);
    }

    #[test]
    fn a_silent_server_is_probed_and_its_stream_taken_up_in_a_new_generation() {
        let mut health = health();
        health.handle_timeout(at(15));
        assert_eq!(health.doing(), Doing::Probe { until: at(20) });
        health.probed(at(16));
        assert_eq!(health.doing(), Doing::TakeUp { until: at(45) });
        health.taken_up(at(17));
        assert_eq!((health.doing(), health.generation()), (Doing::Follow { until: at(32) }, 2));
    }

    #[test]
    fn a_server_that_answers_no_probe_hangs_half_a_minute_after_it_fell_silent() {
        let mut health = health();
        let end = run_out(&mut health);
        assert_eq!(end, at(15 + 30));
        let verdict = health.verdict("kilo");
        assert!(verdict.contains("silent for 15 s") && verdict.contains("6 failed tries"), "{verdict}");
    }

    #[test]
    fn a_server_that_is_well_but_gives_no_stream_hangs_too() {
        let mut health = health();
        health.handle_timeout(at(15));
        health.probed(at(15));
        health.failed(at(16), "404: no such path".to_owned());
        run_out(&mut health);
        assert_eq!(health.doing(), Doing::End);
    }

    #[test]
    fn streams_that_end_at_once_are_not_asked_for_in_a_loop() {
        let mut health = health();
        health.lost(at(0), "the stream ended".to_owned());
        assert_eq!(health.doing(), Doing::Rest { until: at(0) + PAUSE });
        health.handle_timeout(at(0) + PAUSE);
        health.probed(at(1));
        health.taken_up(at(1));
        health.lost(at(1), "the stream ended".to_owned());
        assert_eq!(health.doing(), Doing::Rest { until: at(1) + PAUSE });
    }

    #[test]
    fn a_stream_that_breaks_after_a_while_is_asked_for_at_once() {
        let mut health = health();
        health.heard(at(9));
        health.lost(at(9), "the stream ended".to_owned());
        assert_eq!(health.doing(), Doing::Probe { until: at(14) });
    }

    #[derive(Debug, Clone)]
    enum Happens {
        Heard,
        Lost,
        Probed,
        TakenUp,
        Failed,
        Timeout,
    }

    proptest! {
        /// Whatever happens, there is always something to do with an end, and a server that is lost is either back or ended
        /// half a minute later.
        #[test]
        fn p14_no_server_is_lost_for_longer_than_the_limit(happens in prop::collection::vec((happening(), 0_u64..20_000), 1..200)) {
            let mut health = health();
            let mut now = Moment::START;
            for (what, later) in happens {
                // A driver is never later than what is due.
                now = due(&health).map_or(now, |due| due.min(now + Duration::from_millis(later)));
                match what {
                    Happens::Heard => health.heard(now),
                    Happens::Lost => health.lost(now, String::new()),
                    Happens::Probed => health.probed(now),
                    Happens::TakenUp => health.taken_up(now),
                    Happens::Failed => health.failed(now, String::new()),
                    Happens::Timeout => health.handle_timeout(now),
                }
                let Some(due) = due(&health) else { break };
                prop_assert!(due >= now || matches!(what, Happens::Heard | Happens::Lost | Happens::Probed | Happens::TakenUp | Happens::Failed));
                if let Some(deadline) = health.deadline() {
                    prop_assert!(due <= deadline, "{:?} past {:?}", health.doing(), deadline);
                }
            }
            run_out(&mut health);
            prop_assert_eq!(health.doing(), Doing::End);
        }
    }

    fn happening() -> impl Strategy<Value = Happens> {
        prop_oneof![
            Just(Happens::Heard),
            Just(Happens::Lost),
            Just(Happens::Probed),
            Just(Happens::TakenUp),
            Just(Happens::Failed),
            Just(Happens::Timeout),
        ]
    }

    /// A server from which nothing comes any more. Returns when it is ended.
    fn run_out(health: &mut Health) -> Moment {
        let mut now = Moment::START;
        while let Some(due) = due(health) {
            now = now.max(due);
            health.handle_timeout(now);
        }
        now
    }

    fn due(health: &Health) -> Option<Moment> {
        match health.doing() {
            Doing::Follow { until }
            | Doing::Probe { until }
            | Doing::TakeUp { until }
            | Doing::Rest { until } => Some(until),
            Doing::End => None,
        }
    }

    fn health() -> Health {
        Health::new(Moment::START, Patience::default())
    }

    fn at(second: u64) -> Moment {
        Moment::from_ms(second * 1_000)
    }
}
