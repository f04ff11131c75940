//! What must be done outside once an event is committed.

use protocol::AgentId;

use crate::{Change, TownEvent};

/// Something to do outside of the town. Each may be done twice without harm: after a crash between the commit and the
/// deed, the worker finds out from the town what is missing and does it again.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Effect {
    /// Say in the agent's own log that it is registered, so that the log is there to be watched.
    Announce {
        /// Which.
        agent: AgentId,
    },
    /// Launch a wrapper.
    Launch {
        /// Whose.
        agent: AgentId,
        /// Its generation.
        generation: u64,
    },
    /// End a wrapper and report its exit.
    Stop {
        /// Whose.
        agent: AgentId,
        /// Which.
        generation: u64,
        /// It may finish the turn that runs.
        drain: bool,
    },
    /// Remove the agent's log and files.
    Forget {
        /// Whose.
        agent: AgentId,
    },
}

/// What must be done outside because of this event.
#[must_use]
pub fn effects(event: &TownEvent) -> Vec<Effect> {
    match &event.change {
        Change::AgentRegistered { agent, .. } => vec![Effect::Announce { agent: agent.clone() }],
        Change::AgentStarted { agent, generation, .. } => {
            vec![Effect::Launch { agent: agent.clone(), generation: *generation }]
        }
        Change::AgentStopping { agent, generation, drain, .. } => {
            vec![Effect::Stop { agent: agent.clone(), generation: *generation, drain: *drain }]
        }
        Change::AgentRemoved { agent, .. } => vec![Effect::Forget { agent: agent.clone() }],
        // Whoever checks links and tokens reads of them in the journal.
        Change::ShareIssued(_)
        | Change::ShareRevoked { .. }
        | Change::TokenIssued(_)
        | Change::TokenRevoked { .. } => Vec::new(),
        Change::AgentRestartScheduled { .. } | Change::AgentStopped { .. } | Change::AgentFailed { .. } => {
            Vec::new()
        }
    }
}
