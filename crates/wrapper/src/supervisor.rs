//! How long an agent is kept running: its states, its restart budget, its deadlines. Pure.

use std::{collections::VecDeque, time::Duration};

use protocol::{agent::Failed, frame::WrapperState};

use crate::{Exit, Moment};

/// Restarts within [`BUDGET_WINDOW`].
pub(crate) const BUDGET: usize = 3;
/// The time the budget is for.
pub(crate) const BUDGET_WINDOW: Duration = Duration::from_secs(600);
/// Before the first restart; doubled for each further one within the window.
pub(crate) const BACK_OFF: Duration = Duration::from_secs(1);
/// The longest wait before a restart.
pub(crate) const BACK_OFF_MAX: Duration = Duration::from_secs(30);
/// How long a turn may go on after a signal to end.
pub(crate) const SIGNAL_GRACE: Duration = Duration::from_secs(10);
/// How long a turn may go on after `stop` with `drain` (§10, health: 30 min is the worker's).
pub(crate) const DRAIN_GRACE: Duration = Duration::from_secs(600);

/// Where the wrapper's agent is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// It is being started.
    Starting,
    /// It is there.
    Running,
    /// It died, and is started again at this time.
    Resting {
        /// Then.
        until: Moment,
    },
    /// It is stopped once its turn is over, or at this time.
    Draining {
        /// Then.
        until: Moment,
    },
    /// It is being stopped.
    Stopping,
    /// It is gone for good.
    Over,
}

/// The life of an agent.
#[derive(Debug)]
pub(crate) struct Supervisor {
    phase: Phase,
    deaths: VecDeque<Moment>,
    /// How the wrapper is to end, once that is known.
    exit: Option<Exit>,
    reason: &'static str,
}

impl Supervisor {
    /// An agent that is to be started.
    pub(crate) fn new() -> Self {
        Self { phase: Phase::Starting, deaths: VecDeque::new(), exit: None, reason: "stopped" }
    }

    /// Where it is.
    pub(crate) fn phase(&self) -> Phase {
        self.phase
    }

    /// How the wrapper ends: done, if nothing else was said.
    pub(crate) fn exit(&self) -> Exit {
        self.exit.unwrap_or(Exit::Done)
    }

    /// Why the agent was stopped, as `agent.exited` says it.
    pub(crate) fn reason(&self) -> &'static str {
        self.reason
    }

    /// The agent takes prompts.
    pub(crate) fn started(&mut self) {
        if matches!(self.phase, Phase::Starting | Phase::Resting { .. }) {
            self.phase = Phase::Running;
        }
    }

    /// The agent died, or could not be started. A start that failed before any process ran (a binary or a file that is not
    /// there) would fail again: it does not spend the budget, but ends the wrapper.
    pub(crate) fn died(&mut self, now: Moment, failed: &Failed) {
        match self.phase {
            Phase::Starting if failed.exit_code.is_none() && failed.stderr.is_empty() => self.fail(),
            Phase::Starting | Phase::Running | Phase::Resting { .. } => self.rest(now),
            Phase::Draining { .. } | Phase::Stopping | Phase::Over => self.phase = Phase::Over,
        }
    }

    /// The agent ended as it was meant to.
    pub(crate) fn exited(&mut self) {
        self.phase = Phase::Over;
    }

    /// The agent is to be stopped for this reason; `after_turn` for at most so long lets a turn that runs end first. Once it is
    /// said how the wrapper ends, that stays.
    pub(crate) fn stop(
        &mut self,
        now: Moment,
        reason: &'static str,
        exit: Exit,
        after_turn: Option<Duration>,
    ) {
        if self.phase == Phase::Over {
            return;
        }
        if self.exit.is_none() {
            self.exit = Some(exit);
            self.reason = reason;
        }
        self.phase = match (after_turn, self.phase) {
            (_, Phase::Stopping) => Phase::Stopping,
            (Some(grace), Phase::Running) => Phase::Draining { until: now + grace },
            (Some(grace), Phase::Draining { until }) => Phase::Draining { until: until.min(now + grace) },
            (_, Phase::Resting { .. }) => Phase::Over,
            (None, Phase::Running | Phase::Draining { .. }) | (_, Phase::Starting) => Phase::Stopping,
            (_, Phase::Over) => Phase::Over,
        };
    }

    /// The turn that a drain waited for is over.
    pub(crate) fn turn_over(&mut self) {
        if matches!(self.phase, Phase::Draining { .. }) {
            self.phase = Phase::Stopping;
        }
    }

    /// Does what is due.
    pub(crate) fn handle_timeout(&mut self, now: Moment) {
        match self.phase {
            Phase::Resting { until } if until <= now => self.phase = Phase::Starting,
            Phase::Draining { until } if until <= now => self.phase = Phase::Stopping,
            Phase::Starting
            | Phase::Running
            | Phase::Resting { .. }
            | Phase::Draining { .. }
            | Phase::Stopping
            | Phase::Over => {}
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) is to be called.
    pub(crate) fn due(&self) -> Option<Moment> {
        match self.phase {
            Phase::Resting { until } | Phase::Draining { until } => Some(until),
            Phase::Starting | Phase::Running | Phase::Stopping | Phase::Over => None,
        }
    }

    /// The state as the relay is told it (§6).
    pub(crate) fn presence(&self, busy: bool) -> WrapperState {
        match self.phase {
            Phase::Starting | Phase::Resting { .. } => WrapperState::Starting,
            Phase::Running if busy => WrapperState::Active,
            Phase::Running => WrapperState::Idle,
            Phase::Draining { .. } => WrapperState::Draining,
            Phase::Stopping | Phase::Over => WrapperState::Stopping,
        }
    }

    fn rest(&mut self, now: Moment) {
        self.deaths.retain(|death| now.since(*death) < BUDGET_WINDOW);
        if self.deaths.len() >= BUDGET {
            return self.fail();
        }
        let doublings = u32::try_from(self.deaths.len()).unwrap_or(u32::MAX);
        let wait = BACK_OFF.saturating_mul(2_u32.saturating_pow(doublings)).min(BACK_OFF_MAX);
        self.deaths.push_back(now);
        self.phase = Phase::Resting { until: now + wait };
    }

    fn fail(&mut self) {
        self.phase = Phase::Over;
        self.exit = self.exit.or(Some(Exit::AgentFailed));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn p21_a_fourth_death_within_ten_minutes_is_the_last() {
        let mut supervisor = running();
        let mut now = Moment::START;
        for wait in [1, 2, 4] {
            supervisor.died(now, &death());
            let until = now + Duration::from_secs(wait);
            assert_eq!(supervisor.phase(), Phase::Resting { until });
            now = until;
            supervisor.handle_timeout(now);
            assert_eq!(supervisor.phase(), Phase::Starting);
            supervisor.started();
        }
        supervisor.died(now, &death());
        assert_eq!((supervisor.phase(), supervisor.exit()), (Phase::Over, Exit::AgentFailed));
    }

    #[test]
    fn deaths_long_ago_do_not_count() {
        let mut supervisor = running();
        for hour in 0..10 {
            supervisor.died(Moment::from_ms(hour * 3_600_000), &death());
            supervisor.handle_timeout(Moment::from_ms(hour * 3_600_000 + 1_000));
            supervisor.started();
            assert_eq!(supervisor.phase(), Phase::Running);
        }
    }

    #[test]
    fn a_binary_that_is_not_there_spends_no_budget() {
        let mut supervisor = Supervisor::new();
        supervisor
            .died(Moment::START, &Failed { message: "no opencode on PATH".into(), ..Failed::default() });
        assert_eq!((supervisor.phase(), supervisor.exit()), (Phase::Over, Exit::AgentFailed));
    }

    #[test]
    fn a_drain_waits_for_the_turn() {
        let mut supervisor = running();
        supervisor.stop(Moment::START, "drained", Exit::Done, Some(SIGNAL_GRACE));
        assert_eq!(supervisor.phase(), Phase::Draining { until: Moment::START + SIGNAL_GRACE });
        supervisor.turn_over();
        assert_eq!(supervisor.phase(), Phase::Stopping);
    }

    #[test]
    fn a_drain_does_not_wait_for_ever() {
        let mut supervisor = running();
        supervisor.stop(Moment::START, "drained", Exit::Done, Some(SIGNAL_GRACE));
        supervisor.handle_timeout(Moment::START + SIGNAL_GRACE);
        assert_eq!(supervisor.phase(), Phase::Stopping);
    }

    #[test]
    fn a_second_signal_ends_the_drain() {
        let mut supervisor = running();
        supervisor.stop(Moment::START, "drained", Exit::Done, Some(SIGNAL_GRACE));
        supervisor.stop(Moment::START, "stopped", Exit::Done, None);
        assert_eq!(supervisor.phase(), Phase::Stopping);
    }

    #[test]
    fn why_it_ended_first_stays() {
        let mut supervisor = running();
        supervisor.stop(Moment::START, "superseded", Exit::Superseded, None);
        supervisor.stop(Moment::START, "stopped", Exit::Done, None);
        assert_eq!((supervisor.exit(), supervisor.reason()), (Exit::Superseded, "superseded"));
    }

    proptest! {
        #[test]
        fn p21_no_order_of_deaths_starts_more_than_the_budget_in_a_window(gaps in proptest::collection::vec(0_u64..400_000, 1..40)) {
            let mut supervisor = running();
            let mut now = Moment::START;
            let mut restarts = Vec::new();
            for gap in gaps {
                now = now + Duration::from_millis(gap);
                supervisor.died(now, &death());
                if let Phase::Resting { until } = supervisor.phase() {
                    restarts.push(now);
                    now = until;
                    supervisor.handle_timeout(now);
                    supervisor.started();
                } else {
                    break;
                }
            }
            for window in restarts.windows(BUDGET + 1) {
                prop_assert!(window[BUDGET].since(window[0]) >= BUDGET_WINDOW);
            }
        }
    }

    fn running() -> Supervisor {
        let mut supervisor = Supervisor::new();
        supervisor.started();
        supervisor
    }

    fn death() -> Failed {
        Failed { message: "it died".into(), exit_code: Some(137), ..Failed::default() }
    }
}
