//! How a wrapper ends.

/// Why a wrapper ended, and the exit code that says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Exit {
    /// It was told to stop, or the agent finished.
    Done,
    /// The agent could not be started, or failed more often than its restart budget allows: `agent.failed` says why.
    AgentFailed,
    /// A newer generation has the agent; nothing is to be restarted.
    Superseded,
    /// The relay refuses this wrapper for good: wrong token, wrong scope or another protocol version.
    Refused,
    /// The link was down for longer than `--give-up-after`.
    GaveUp,
}

impl Exit {
    /// The process exit code: 0 done, 20 agent failed, 21 superseded, 22 refused, 23 gave up. 1 and 2 stay for errors
    /// of the program and its arguments.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::AgentFailed => 20,
            Self::Superseded => 21,
            Self::Refused => 22,
            Self::GaveUp => 23,
        }
    }
}
