//! What the journal says: events of type `town.*` with stable JSON.

use protocol::{AgentId, Event, NewEvent, RawData, Timestamp};
use serde::{Deserialize, Serialize};

use crate::{Registration, Share, UserToken};

/// One change of a town, with when, by whom and on what request. In the journal its type is [`Change::kind`] and its
/// data `{"by": {…}, "change": {…}}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TownEvent {
    /// When it was decided.
    pub time: Timestamp,
    /// On whose request.
    pub by: By,
    /// What changed.
    pub change: Change,
}

/// On whose request something changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct By {
    /// Who asked.
    pub actor: String,
    /// What was asked: the command's name.
    pub command: String,
    /// The request's idempotency key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}

/// What changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", content = "change")]
#[non_exhaustive]
pub enum Change {
    /// There is a new agent.
    #[serde(rename = "town.agent.registered")]
    AgentRegistered {
        /// Its id.
        agent: AgentId,
        /// What it is.
        registration: Registration,
    },
    /// A wrapper is to be launched.
    #[serde(rename = "town.agent.started")]
    AgentStarted {
        /// Whose.
        agent: AgentId,
        /// Its generation.
        generation: u64,
        /// Why.
        cause: StartCause,
    },
    /// A wrapper died and the next one waits.
    #[serde(rename = "town.agent.restart_scheduled")]
    AgentRestartScheduled {
        /// Whose.
        agent: AgentId,
        /// Which died.
        generation: u64,
        /// When the next one is to be launched.
        at: Timestamp,
        /// What it died of.
        reason: String,
    },
    /// A wrapper is to end.
    #[serde(rename = "town.agent.stopping")]
    AgentStopping {
        /// Whose.
        agent: AgentId,
        /// Which.
        generation: u64,
        /// It may finish the turn that runs.
        drain: bool,
        /// The agent is removed afterwards.
        remove: bool,
    },
    /// An agent has no wrapper any more, and shall have none.
    #[serde(rename = "town.agent.stopped")]
    AgentStopped {
        /// Whose.
        agent: AgentId,
        /// Which ended.
        generation: u64,
        /// Why, where there is more to say than that somebody asked for it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
    /// An agent's wrapper died and is not started again until somebody asks for it.
    #[serde(rename = "town.agent.failed")]
    AgentFailed {
        /// Whose.
        agent: AgentId,
        /// Which died.
        generation: u64,
        /// What it died of, and what to do.
        reason: String,
    },
    /// An agent is gone for ever.
    #[serde(rename = "town.agent.removed")]
    AgentRemoved {
        /// Which.
        agent: AgentId,
        /// Its last generation: a later agent of this name starts above it.
        generation: u64,
    },
    /// Whoever has a link may read an agent's log.
    #[serde(rename = "town.share.issued")]
    ShareIssued(Share),
    /// A link is good for nothing any more.
    #[serde(rename = "town.share.revoked")]
    ShareRevoked {
        /// Whose log it showed.
        agent: AgentId,
        /// Its id.
        share: String,
    },
    /// Somebody has a token of their own.
    #[serde(rename = "town.token.issued")]
    TokenIssued(UserToken),
    /// A token is good for nothing any more.
    #[serde(rename = "town.token.revoked")]
    TokenRevoked {
        /// Its id.
        token: String,
        /// Its name.
        name: String,
    },
}

/// Why a wrapper was launched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum StartCause {
    /// Somebody asked for it.
    Requested,
    /// The one before crashed.
    Crashed,
    /// The one before was lost with the worker or its machine.
    Lost,
}

/// Why an event of a journal cannot be understood.
#[derive(Debug, thiserror::Error)]
#[error("event {seq} of the journal, a {kind}, does not have the shape of one")]
pub struct JournalError {
    /// Its position.
    pub seq: protocol::Seq,
    /// Its type.
    pub kind: String,
    /// What is wrong.
    #[source]
    pub source: serde_json::Error,
}

impl Change {
    /// Its type in the journal.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::AgentRegistered { .. } => "town.agent.registered",
            Self::AgentStarted { .. } => "town.agent.started",
            Self::AgentRestartScheduled { .. } => "town.agent.restart_scheduled",
            Self::AgentStopping { .. } => "town.agent.stopping",
            Self::AgentStopped { .. } => "town.agent.stopped",
            Self::AgentFailed { .. } => "town.agent.failed",
            Self::AgentRemoved { .. } => "town.agent.removed",
            Self::ShareIssued(_) => "town.share.issued",
            Self::ShareRevoked { .. } => "town.share.revoked",
            Self::TokenIssued(_) => "town.token.issued",
            Self::TokenRevoked { .. } => "town.token.revoked",
        }
    }

    /// Whom it is about: the id of an agent, or the name of a token.
    #[must_use]
    pub fn about(&self) -> &str {
        match self {
            Self::AgentRegistered { agent, .. }
            | Self::AgentStarted { agent, .. }
            | Self::AgentRestartScheduled { agent, .. }
            | Self::AgentStopping { agent, .. }
            | Self::AgentStopped { agent, .. }
            | Self::AgentFailed { agent, .. }
            | Self::AgentRemoved { agent, .. }
            | Self::ShareIssued(Share { agent, .. })
            | Self::ShareRevoked { agent, .. } => agent.as_str(),
            Self::TokenIssued(UserToken { name, .. }) | Self::TokenRevoked { name, .. } => name,
        }
    }
}

/// Every type that this version understands.
const KINDS: &[&str] = &[
    "town.agent.registered",
    "town.agent.started",
    "town.agent.restart_scheduled",
    "town.agent.stopping",
    "town.agent.stopped",
    "town.agent.failed",
    "town.agent.removed",
    "town.share.issued",
    "town.share.revoked",
    "town.token.issued",
    "town.token.revoked",
];

/// The data of a journal event.
#[derive(Deserialize)]
struct Data {
    by: By,
    change: serde_json::Value,
}

impl TownEvent {
    /// The event for the journal.
    #[must_use]
    pub fn to_journal(&self) -> NewEvent {
        let invariant = "a change serialises: its keys are strings";
        let mut tagged = serde_json::to_value(&self.change).expect(invariant);
        let data = serde_json::json!({ "by": self.by, "change": tagged["change"].take() });
        NewEvent {
            time: self.time,
            kind: self.change.kind().into(),
            session: None,
            data: RawData::of(&data).expect(invariant),
        }
    }

    /// Reads an event of a journal; `None` if its type is of another version or another part of the town.
    ///
    /// # Errors
    /// When the type is known and the data has not its shape.
    pub fn from_journal(event: &Event) -> Result<Option<Self>, JournalError> {
        if !KINDS.contains(&&*event.kind) {
            return Ok(None);
        }
        let malformed = |source| JournalError { seq: event.seq, kind: event.kind.to_string(), source };
        let data: Data = event.data.parse().map_err(malformed)?;
        let tagged = serde_json::json!({ "type": &*event.kind, "change": data.change });
        let change = serde_json::from_value(tagged).map_err(malformed)?;
        Ok(Some(Self { time: event.time, by: data.by, change }))
    }
}

#[cfg(test)]
mod tests {
    use protocol::Seq;

    use super::*;
    use crate::{Role, Runtime, RuntimeKind};

    #[test]
    fn the_json_of_a_registration_is_stable() {
        let event = by_operator(Change::AgentRegistered {
            agent: id("toast"),
            registration: Registration {
                name: "Toast".into(),
                role: Role::Polecat,
                runtime: Runtime::of(RuntimeKind::Scripted).with_scenario("/s.json"),
                directory: "/src".into(),
                repository: None,
            },
        });
        let journal = event.to_journal();
        assert_eq!(&*journal.kind, "town.agent.registered");
        assert_eq!(
            journal.data.json(),
            r#"{"by":{"actor":"operator","command":"register","key":"k1"},"change":{"agent":"toast","registration":{"directory":"/src","name":"Toast","role":"polecat","runtime":{"kind":"scripted","scenario":"/s.json"}}}}"#
        );
    }

    #[test]
    fn the_json_of_a_share_is_stable_since_relays_read_it() {
        let [.., issued, revoked, _, _] = &one_of_each()[..] else { panic!("tokens are last, after shares") };
        assert!(
            json(issued).ends_with(
                r#""change":{"agent":"toast","expires":"1970-01-01T00:00:00.002Z","issued":"1970-01-01T00:00:00.001Z","label":"for the review","share":"s1"}}"#
            ),
            "{}",
            json(issued)
        );
        assert!(json(revoked).ends_with(r#""change":{"agent":"toast","share":"s1"}}"#), "{}", json(revoked));
    }

    #[test]
    fn the_json_of_a_token_is_stable_since_relays_read_it() {
        let [.., issued, revoked] = &one_of_each()[..] else { panic!("tokens are last") };
        assert!(
            json(issued).ends_with(
                r#""change":{"digest":"d1","expires":"1970-01-01T00:00:00.002Z","issued":"1970-01-01T00:00:00.001Z","name":"ann","scope":"steer","token":"t1"}}"#
            ),
            "{}",
            json(issued)
        );
        assert!(json(revoked).ends_with(r#""change":{"name":"ann","token":"t1"}}"#), "{}", json(revoked));
    }

    #[test]
    fn every_change_comes_back_from_the_journal_as_it_went_in() {
        for change in one_of_each() {
            let event = by_operator(change);
            let back = TownEvent::from_journal(&event.to_journal().at(Seq::new(7))).unwrap();
            assert_eq!(back, Some(event));
        }
    }

    #[test]
    fn every_kind_is_in_the_list_of_known_ones() {
        let kinds: Vec<_> = one_of_each().iter().map(Change::kind).collect();
        assert_eq!(kinds, KINDS);
        for change in one_of_each() {
            assert_eq!(serde_json::to_value(&change).unwrap()["type"], change.kind());
        }
    }

    #[test]
    fn an_unknown_type_is_not_an_error_and_a_malformed_known_one_is() {
        let unknown =
            NewEvent::of(Timestamp::default(), "town.bead.created", &serde_json::json!({ "x": 1 })).unwrap();
        assert!(matches!(TownEvent::from_journal(&unknown.at(Seq::new(1))), Ok(None)));
        let malformed =
            NewEvent::of(Timestamp::default(), "town.agent.started", &serde_json::json!({})).unwrap();
        let error = TownEvent::from_journal(&malformed.at(Seq::new(3))).unwrap_err();
        assert_eq!(
            error.to_string(),
            "event 3 of the journal, a town.agent.started, does not have the shape of one"
        );
    }

    #[test]
    fn an_unknown_field_is_ignored() {
        let data = r#"{"by":{"actor":"a","command":"start","via":"cli"},"change":{"agent":"toast","generation":2,"cause":"lost","host":"h"}}"#;
        let event = NewEvent {
            time: Timestamp::default(),
            kind: "town.agent.started".into(),
            session: None,
            data: RawData::from_json(data).unwrap(),
        };
        let read = TownEvent::from_journal(&event.at(Seq::new(1))).unwrap().unwrap();
        assert_eq!(
            read.change,
            Change::AgentStarted { agent: id("toast"), generation: 2, cause: StartCause::Lost }
        );
    }

    fn one_of_each() -> Vec<Change> {
        let agent = id("toast");
        let registration = Registration {
            name: "Toast".into(),
            role: Role::Crew,
            runtime: Runtime::of(RuntimeKind::Kilo),
            directory: "/src".into(),
            repository: None,
        };
        vec![
            Change::AgentRegistered { agent: agent.clone(), registration },
            Change::AgentStarted { agent: agent.clone(), generation: 1, cause: StartCause::Requested },
            Change::AgentRestartScheduled {
                agent: agent.clone(),
                generation: 1,
                at: Timestamp::from_unix_ms(9),
                reason: "exit code 3".into(),
            },
            Change::AgentStopping { agent: agent.clone(), generation: 1, drain: true, remove: false },
            Change::AgentStopped { agent: agent.clone(), generation: 1, reason: None },
            Change::AgentFailed { agent: agent.clone(), generation: 1, reason: "no binary".into() },
            Change::AgentRemoved { agent: agent.clone(), generation: 1 },
            Change::ShareIssued(Share {
                share: "s1".into(),
                agent: agent.clone(),
                issued: Timestamp::from_unix_ms(1),
                expires: Timestamp::from_unix_ms(2),
                label: Some("for the review".into()),
            }),
            Change::ShareRevoked { agent, share: "s1".into() },
            Change::TokenIssued(UserToken {
                token: "t1".into(),
                name: "ann".into(),
                scope: crate::Scope::Steer,
                digest: "d1".into(),
                issued: Timestamp::from_unix_ms(1),
                expires: Some(Timestamp::from_unix_ms(2)),
            }),
            Change::TokenRevoked { token: "t1".into(), name: "ann".into() },
        ]
    }

    fn json(change: &Change) -> String {
        by_operator(change.clone()).to_journal().data.json().to_owned()
    }

    fn by_operator(change: Change) -> TownEvent {
        let by = By { actor: "operator".into(), command: "register".into(), key: Some("k1".into()) };
        TownEvent { time: Timestamp::from_unix_ms(1_000), by, change }
    }

    fn id(text: &str) -> AgentId {
        text.parse().unwrap()
    }
}
