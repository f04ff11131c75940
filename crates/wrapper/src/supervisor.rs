//! How long an agent is kept running: its states, its restart budget, its deadlines. Pure.
//!
//! ```text
//!            ┌───────────── resting ◄──────────┐
//!            ▼                                 │
//! ──► starting ──► idle ◄──► active ──► hung ──┤
//!            │        │        │               ▼
//!            │        └► draining ─► stopping  failed
//!            └───────────────────────┴──► stopped
//! ```
//!
//! Each change of state has a reason and is told once, by [`Supervisor::poll`].

use std::{collections::VecDeque, time::Duration};

use protocol::frame::WrapperState;

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
/// How long a turn may go on after `stop` with `drain`: within the ten minutes that a worker waits there is the commit of what it
/// left, too.
pub(crate) const DRAIN_GRACE: Duration = Duration::from_secs(540);

/// Where the wrapper's agent is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// It is being started.
    Starting,
    /// It waits for a prompt.
    Idle,
    /// A turn runs.
    Active,
    /// It does not do what it is told, and is being ended in order to be started again.
    Hung,
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
    /// It is gone as it was meant to.
    Stopped,
    /// It failed too often, or cannot be started at all.
    Failed,
}

impl Phase {
    /// Its name in the log.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Idle => "idle",
            Self::Active => "active",
            Self::Hung => "hung",
            Self::Resting { .. } => "resting",
            Self::Draining { .. } => "draining",
            Self::Stopping => "stopping",
            Self::Stopped => "stopped",
            Self::Failed => "failed",
        }
    }

    /// Nothing comes after it.
    pub(crate) fn is_over(self) -> bool {
        matches!(self, Self::Stopped | Self::Failed)
    }
}

/// A change of state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Transition {
    pub(crate) from: Phase,
    pub(crate) to: Phase,
    /// Why, for people.
    pub(crate) reason: String,
}

/// The life of an agent.
#[derive(Debug)]
pub(crate) struct Supervisor {
    phase: Phase,
    deaths: VecDeque<Moment>,
    /// How the wrapper is to end, once that is known.
    exit: Option<Exit>,
    reason: &'static str,
    /// It was never to end at once.
    drains: bool,
    transitions: VecDeque<Transition>,
}

impl Supervisor {
    /// An agent that is to be started.
    pub(crate) fn new() -> Self {
        Self {
            phase: Phase::Starting,
            deaths: VecDeque::new(),
            exit: None,
            reason: "stopped",
            drains: false,
            transitions: VecDeque::new(),
        }
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

    /// Whether it is stopped, and there is time to do it well.
    pub(crate) fn drains(&self) -> bool {
        self.drains
    }

    /// The next change of state that was not told yet.
    pub(crate) fn poll(&mut self) -> Option<Transition> {
        self.transitions.pop_front()
    }

    /// The agent takes prompts.
    pub(crate) fn started(&mut self) {
        if self.phase == Phase::Starting {
            self.go(Phase::Idle, "it takes prompts");
        }
    }

    /// Whether a turn runs, its work after it included.
    pub(crate) fn turns(&mut self, busy: bool) {
        match self.phase {
            Phase::Idle if busy => self.go(Phase::Active, "a turn began"),
            Phase::Active if !busy => self.go(Phase::Idle, "the turn is over"),
            Phase::Draining { .. } if !busy => self.go(Phase::Stopping, "no turn runs any more"),
            Phase::Starting
            | Phase::Idle
            | Phase::Active
            | Phase::Hung
            | Phase::Resting { .. }
            | Phase::Draining { .. }
            | Phase::Stopping
            | Phase::Stopped
            | Phase::Failed => {}
        }
    }

    /// The agent does not do what it is told: it is to be ended, and counts as [dead](Self::died) when it is.
    pub(crate) fn hangs(&mut self, reason: &str) {
        match self.phase {
            Phase::Idle | Phase::Active => self.go(Phase::Hung, reason),
            Phase::Draining { .. } => self.go(Phase::Stopping, reason),
            Phase::Starting
            | Phase::Hung
            | Phase::Resting { .. }
            | Phase::Stopping
            | Phase::Stopped
            | Phase::Failed => {}
        }
    }

    /// The agent died, or did not start.
    pub(crate) fn died(&mut self, now: Moment, reason: &str) {
        match self.phase {
            Phase::Starting | Phase::Idle | Phase::Active | Phase::Hung => self.rest(now, reason),
            // What it left is seen to before it is over.
            Phase::Draining { .. } => self.go(Phase::Stopping, reason),
            Phase::Stopping => self.go(Phase::Stopped, reason),
            Phase::Resting { .. } | Phase::Stopped | Phase::Failed => {}
        }
    }

    /// A start failed before any process ran (a binary or a file that is not there): it would fail again. It does not spend the
    /// budget, but ends the wrapper.
    pub(crate) fn cannot_start(&mut self, reason: &str) {
        match self.phase {
            Phase::Starting => self.fail(reason),
            Phase::Stopping => self.go(Phase::Stopped, reason),
            Phase::Idle
            | Phase::Active
            | Phase::Hung
            | Phase::Resting { .. }
            | Phase::Draining { .. }
            | Phase::Stopped
            | Phase::Failed => {}
        }
    }

    /// The agent ended as it was meant to.
    pub(crate) fn exited(&mut self, reason: &str) {
        if !self.phase.is_over() {
            self.go(Phase::Stopped, reason);
        }
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
        if self.phase.is_over() {
            return;
        }
        self.drains = after_turn.is_some() && (self.drains || self.exit.is_none());
        if self.exit.is_none() {
            self.exit = Some(exit);
            self.reason = reason;
        }
        let to = match (after_turn, self.phase) {
            (Some(grace), Phase::Idle | Phase::Active) => Phase::Draining { until: now + grace },
            (Some(grace), Phase::Draining { until }) => Phase::Draining { until: until.min(now + grace) },
            (_, Phase::Resting { .. }) => Phase::Stopped,
            (None, Phase::Idle | Phase::Active | Phase::Draining { .. })
            | (_, Phase::Starting | Phase::Hung | Phase::Stopping) => Phase::Stopping,
            (_, Phase::Stopped | Phase::Failed) => return,
        };
        self.go(to, reason);
    }

    /// Does what is due.
    pub(crate) fn handle_timeout(&mut self, now: Moment) {
        match self.phase {
            Phase::Resting { until } if until <= now => self.go(Phase::Starting, "it has rested"),
            Phase::Draining { until } if until <= now => {
                self.go(Phase::Stopping, "the turn did not end in time");
            }
            Phase::Starting
            | Phase::Idle
            | Phase::Active
            | Phase::Hung
            | Phase::Resting { .. }
            | Phase::Draining { .. }
            | Phase::Stopping
            | Phase::Stopped
            | Phase::Failed => {}
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) is to be called.
    pub(crate) fn due(&self) -> Option<Moment> {
        match self.phase {
            Phase::Resting { until } | Phase::Draining { until } => Some(until),
            Phase::Starting
            | Phase::Idle
            | Phase::Active
            | Phase::Hung
            | Phase::Stopping
            | Phase::Stopped
            | Phase::Failed => None,
        }
    }

    /// The state as the relay is told it (§6).
    pub(crate) fn presence(&self) -> WrapperState {
        match self.phase {
            Phase::Starting | Phase::Hung | Phase::Resting { .. } => WrapperState::Starting,
            Phase::Idle => WrapperState::Idle,
            Phase::Active => WrapperState::Active,
            Phase::Draining { .. } => WrapperState::Draining,
            Phase::Stopping | Phase::Stopped | Phase::Failed => WrapperState::Stopping,
        }
    }

    fn rest(&mut self, now: Moment, reason: &str) {
        self.deaths.retain(|death| now.since(*death) < BUDGET_WINDOW);
        if self.deaths.len() >= BUDGET {
            return self.fail(&format!("{reason}; it was started {BUDGET} times again already"));
        }
        let doublings = u32::try_from(self.deaths.len()).unwrap_or(u32::MAX);
        let wait = BACK_OFF.saturating_mul(2_u32.saturating_pow(doublings)).min(BACK_OFF_MAX);
        self.deaths.push_back(now);
        self.go(Phase::Resting { until: now + wait }, reason);
    }

    fn fail(&mut self, reason: &str) {
        self.exit = self.exit.or(Some(Exit::AgentFailed));
        self.go(Phase::Failed, reason);
    }

    /// A drain that is to end earlier is no other state.
    fn go(&mut self, to: Phase, reason: &str) {
        let from = std::mem::replace(&mut self.phase, to);
        if from.name() != to.name() {
            self.transitions.push_back(Transition { from, to, reason: reason.to_owned() });
        }
    }
}

#[cfg(test)]
mod tests;
