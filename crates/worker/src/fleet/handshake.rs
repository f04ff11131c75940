//! Whether a wrapper that an earlier worker launched is to be replaced (`docs/protocol.md` §10): it is of another build and idle,
//! or speaks another protocol.

use std::{fmt, sync::Arc};

use futures_util::{StreamExt as _, stream::BoxStream};
use protocol::{
    AgentId, LogId,
    agent::{State, Status},
    frame::{StartAt, WrapperState},
};
use relay::{Delivery, Presence, RelayApi};

/// Follows one wrapper until it is known to be of this build, or is to be replaced.
pub(super) struct Handshake {
    relay: Arc<dyn RelayApi>,
    agent: AgentId,
    /// The build that wrappers are to be of.
    build: String,
    /// None once the verdict is final.
    deliveries: Option<BoxStream<'static, Delivery>>,
    /// What the log said last of the agent, since this began.
    idle: Option<bool>,
    /// Something may have changed since it was looked at.
    look: bool,
    outdated: bool,
}

/// What is to become of a wrapper.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// It is of this build.
    Stays,
    /// Nothing is known yet, or it is busy.
    Later,
    /// It is to be replaced.
    Goes,
}

impl Handshake {
    pub(super) fn new(relay: Arc<dyn RelayApi>, agent: AgentId, build: String) -> Self {
        let deliveries = Some(relay.follow(LogId::Agent(agent.clone()), Some(StartAt::Head)));
        Self { relay, agent, build, deliveries, idle: None, look: true, outdated: false }
    }

    /// Waits until the wrapper is to be replaced; for ever if it is of this build. Cancel-safe, and may be called again.
    pub(super) async fn outdated(&mut self) {
        while !self.outdated {
            if self.look {
                let presence = self.relay.presence(&self.agent).await;
                self.look = false;
                match presence.map_or(Verdict::Later, |presence| verdict(&presence, self.idle, &self.build)) {
                    Verdict::Goes => self.outdated = true,
                    Verdict::Stays => self.deliveries = None,
                    Verdict::Later => {}
                }
                continue;
            }
            let delivery = match &mut self.deliveries {
                Some(deliveries) => deliveries.next().await,
                None => None,
            };
            match delivery {
                Some(Delivery::Event(event)) if &*event.kind == "agent.status" => {
                    let state = event.data.parse::<Status>().map(|status| status.state);
                    self.idle = Some(matches!(state, Ok(State::Idle)));
                    self.look = true;
                }
                Some(Delivery::Presence { .. }) => self.look = true,
                Some(_) => {}
                None => std::future::pending().await,
            }
        }
    }
}

impl fmt::Debug for Handshake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handshake")
            .field("agent", &self.agent)
            .field("outdated", &self.outdated)
            .finish_non_exhaustive()
    }
}

/// Decides by what the relay knows of the wrapper. `idle` is what its log said since, which is newer.
fn verdict(presence: &Presence, idle: Option<bool>, build: &str) -> Verdict {
    let (Some(version), Some(protocol)) = (&presence.version, presence.protocol) else {
        return Verdict::Later;
    };
    if protocol != protocol::PROTOCOL {
        return Verdict::Goes;
    }
    if version == build {
        return Verdict::Stays;
    }
    if idle.unwrap_or(presence.state == Some(WrapperState::Idle)) { Verdict::Goes } else { Verdict::Later }
}

#[cfg(test)]
mod tests {
    use protocol::{Timestamp, frame::WrapperPresence};

    use super::*;

    #[test]
    fn one_of_this_build_stays_whatever_it_does() {
        for state in [None, Some(WrapperState::Idle), Some(WrapperState::Active)] {
            assert_eq!(verdict(&speaks("1.2.0", 1, state), None, "1.2.0"), Verdict::Stays);
        }
    }

    #[test]
    fn one_of_another_build_goes_when_it_is_idle_and_not_before() {
        let (idle, active) = (Some(WrapperState::Idle), Some(WrapperState::Active));
        assert_eq!(verdict(&speaks("1.1.0", 1, idle), None, "1.2.0"), Verdict::Goes);
        assert_eq!(verdict(&speaks("1.3.0", 1, active), None, "1.2.0"), Verdict::Later);
        assert_eq!(verdict(&speaks("1.1.0", 1, None), None, "1.2.0"), Verdict::Later);
        assert_eq!(
            verdict(&speaks("1.1.0", 1, active), Some(true), "1.2.0"),
            Verdict::Goes,
            "its log is newer"
        );
        assert_eq!(verdict(&speaks("1.1.0", 1, idle), Some(false), "1.2.0"), Verdict::Later);
    }

    #[test]
    fn one_of_another_protocol_goes_at_once() {
        let active = Some(WrapperState::Active);
        assert_eq!(verdict(&speaks("1.2.0", 2, active), Some(false), "1.2.0"), Verdict::Goes);
    }

    #[test]
    fn one_that_did_not_speak_yet_is_waited_for() {
        let silent = Presence { version: None, protocol: None, ..speaks("", 1, None) };
        assert_eq!(verdict(&silent, Some(true), "1.2.0"), Verdict::Later);
    }

    fn speaks(version: &str, protocol: u32, state: Option<WrapperState>) -> Presence {
        Presence {
            wrapper: WrapperPresence::Connected,
            since: Timestamp::default(),
            state,
            last_activity: None,
            version: Some(version.to_owned()),
            protocol: Some(protocol),
        }
    }
}
