//! How long an agent server is waited for: every wait of its start, and its silence.

use std::time::Duration;

/// How long an agent server may take. A start that exceeds one of the first four fails, with an error that names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Patience {
    /// Until it says where it listens: a cold kilo on a busy machine takes 11 s.
    pub listen: Duration,
    /// Until it says that it is well.
    pub health: Duration,
    /// Until its event stream begins, and, later, until one that was lost is there again with what was missed.
    pub answer: Duration,
    /// Until its session is there.
    pub session: Duration,
    /// By then a slash command that is wrong was refused; one that is not is answered at the end of its turn.
    pub at_once: Duration,
    /// Its stream may be silent for so long (§10): it says something every 10 s.
    pub silence: Duration,
    /// It may take so long to answer whether it is well.
    pub probe: Duration,
    /// After its stream was lost it hangs when it is not back by then.
    pub hung: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            listen: Duration::from_secs(60),
            health: Duration::from_secs(30),
            answer: Duration::from_secs(30),
            session: Duration::from_secs(30),
            at_once: Duration::from_secs(2),
            silence: Duration::from_secs(15),
            probe: Duration::from_secs(5),
            hung: Duration::from_secs(30),
        }
    }
}
