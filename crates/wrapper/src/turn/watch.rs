//! Turns that come to no end (§10): how long one may take, and how long nothing may happen in it. Pure.
//!
//! A tool that runs, or a person who is asked, is a reason for silence. They are looked for when the time is up, not before: whoever
//! has the fold says what [holds](Held) the turn.

use std::time::Duration;

use crate::Moment;

/// When a turn is ended.
#[derive(Debug, Clone, clap::Args)]
#[non_exhaustive]
pub struct TurnLimitArgs {
    /// End a turn that takes more than so many seconds; without it, none (the worker has a limit of its own)
    #[arg(long, value_name = "SECONDS")]
    pub turn_limit: Option<u64>,
    /// End a turn in which nothing happened for so many seconds while no tool ran and nobody was asked
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    pub turn_silence: u64,
    /// The same while a tool runs that says nothing
    #[arg(long, value_name = "SECONDS", default_value_t = 7200)]
    pub tool_silence: u64,
    /// Start an agent again that does not end an aborted turn within so many seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 15)]
    pub abort_limit: u64,
}

impl Default for TurnLimitArgs {
    fn default() -> Self {
        Self { turn_limit: None, turn_silence: 600, tool_silence: 7200, abort_limit: 15 }
    }
}

/// Why a turn may be silent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Held {
    /// There is no reason.
    No,
    /// A tool runs.
    Tool,
    /// A person is asked.
    Person,
}

/// Why a turn is to be ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Expired {
    /// It took too long.
    #[error("the turn took longer than {} s", .0.as_secs())]
    Turn(Duration),
    /// Nothing happened.
    #[error("nothing happened in the turn for {} s", .0.as_secs())]
    Silence(Duration),
    /// Nothing happened, though a tool ran.
    #[error("a tool ran and said nothing for {} s", .0.as_secs())]
    Tool(Duration),
}

/// The watch over the turns of one agent.
#[derive(Debug)]
pub(crate) struct Watch {
    turn: Option<Duration>,
    silence: Duration,
    tool: Duration,
    open: Option<Open>,
}

/// The turn that runs.
#[derive(Debug)]
struct Open {
    since: Moment,
    last_event: Moment,
    /// When it is looked at next.
    look: Moment,
}

impl Watch {
    /// No turn runs.
    pub(crate) fn new(limits: &TurnLimitArgs) -> Self {
        Self {
            turn: limits.turn_limit.map(Duration::from_secs),
            silence: Duration::from_secs(limits.turn_silence),
            tool: Duration::from_secs(limits.tool_silence.max(limits.turn_silence)),
            open: None,
        }
    }

    /// Whether a turn runs.
    pub(crate) fn turn(&mut self, now: Moment, runs: bool) {
        match (&self.open, runs) {
            (None, true) => self.open = Some(Open { since: now, last_event: now, look: now + self.silence }),
            (Some(_), false) => self.open = None,
            (None, false) | (Some(_), true) => {}
        }
    }

    /// Something happened. A sign of life is not enough.
    pub(crate) fn event(&mut self, now: Moment) {
        if let Some(open) = &mut self.open {
            open.last_event = now;
            open.look = now + self.silence;
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) is to be called.
    pub(crate) fn due(&self) -> Option<Moment> {
        let open = self.open.as_ref()?;
        Some(self.turn.map_or(open.look, |limit| open.look.min(open.since + limit)))
    }

    /// Says why the turn is to be ended, if its time is up. It is said again only when the turn has not ended by the next look.
    pub(crate) fn handle_timeout(&mut self, now: Moment, held: Held) -> Option<Expired> {
        let open = self.open.as_mut()?;
        if let Some(limit) = self.turn
            && open.since + limit <= now
        {
            open.since = now;
            return Some(Expired::Turn(limit));
        }
        if now < open.look {
            return None;
        }
        let until_now = now.since(open.last_event);
        let (expired, look) = match held {
            Held::No => (Some(Expired::Silence(until_now)), now + self.silence),
            Held::Tool if until_now >= self.tool => (Some(Expired::Tool(until_now)), now + self.silence),
            Held::Tool => (None, open.last_event + self.tool),
            // Whoever is asked may sleep over it; the answer is an event.
            Held::Person => (None, now + self.silence),
        };
        open.look = look;
        expired
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_turn_in_which_nothing_happens_is_ended() {
        let mut watch = running(None);
        watch.event(at(100));
        assert_eq!(watch.due(), Some(at(700)));
        assert_eq!(watch.handle_timeout(at(700), Held::No), Some(Expired::Silence(secs(600))));
    }

    #[test]
    fn a_tool_of_half_an_hour_holds_the_watch_and_one_that_never_ends_does_not() {
        let mut watch = running(None);
        assert_eq!(watch.handle_timeout(at(600), Held::Tool), None);
        assert_eq!(watch.due(), Some(at(7200)), "its own limit");
        watch.event(at(1800));
        assert_eq!(watch.due(), Some(at(2400)), "the tool is through: the usual limit");
        assert_eq!(watch.handle_timeout(at(2400), Held::Tool), None);
        assert_eq!(watch.handle_timeout(at(9000), Held::Tool), Some(Expired::Tool(secs(7200))));
    }

    #[test]
    fn nobody_who_is_asked_is_hurried() {
        let mut watch = running(None);
        for _ in 0..100 {
            let due = watch.due().unwrap();
            assert_eq!(watch.handle_timeout(due, Held::Person), None);
        }
    }

    #[test]
    fn a_turn_that_takes_too_long_is_ended_whatever_it_does() {
        let mut watch = running(Some(1000));
        for second in (0..1000).step_by(100) {
            watch.event(at(second));
            assert_eq!(watch.handle_timeout(at(second), Held::Tool), None);
        }
        assert_eq!(watch.due(), Some(at(1000)));
        assert_eq!(watch.handle_timeout(at(1000), Held::Person), Some(Expired::Turn(secs(1000))));
    }

    #[test]
    fn nothing_is_due_between_turns() {
        let mut watch = running(Some(1000));
        watch.turn(at(1), false);
        assert_eq!(watch.due(), None);
        assert_eq!(watch.handle_timeout(at(100_000), Held::No), None);
    }

    proptest! {
        #[test]
        fn p14_an_open_turn_always_has_a_time_at_which_it_is_looked_at(
            steps in prop::collection::vec((0_u64..5_000, 0_u8..4), 1..60),
            limit in prop::option::of(1_u64..20_000),
        ) {
            let mut watch = running(limit);
            let mut now = Moment::START;
            for (later, what) in steps {
                now = now + secs(later);
                match what {
                    0 => watch.event(now),
                    1 => drop(watch.handle_timeout(now, Held::No)),
                    2 => drop(watch.handle_timeout(now, Held::Tool)),
                    _ => drop(watch.handle_timeout(now, Held::Person)),
                }
                let due = watch.due().unwrap();
                prop_assert!(due <= now + secs(7200));
                // Looking does not go round in a circle.
                watch.handle_timeout(due.max(now), Held::Person);
                prop_assert!(watch.due().unwrap() > now);
            }
        }
    }

    fn running(limit: Option<u64>) -> Watch {
        let mut watch = Watch::new(&TurnLimitArgs { turn_limit: limit, ..TurnLimitArgs::default() });
        watch.turn(Moment::START, true);
        watch
    }

    fn at(second: u64) -> Moment {
        Moment::from_ms(second * 1_000)
    }

    fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }
}
