//! The state of a town: a fold of its journal, and nothing else.

use std::collections::BTreeMap;

use protocol::{AgentId, Event, Timestamp, TownId};

use crate::{
    Agent, AgentPhase, Change, Desired, JournalError, Registration, Share, StartCause, TownEvent, UserToken,
    limits::{KEY_LIFE, KEYS},
    restart,
};

/// One workspace: its agents and what is wanted of them. Every query is answered from here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Town {
    id: TownId,
    /// Keyed by id, so that two names that differ in case only cannot both be there.
    agents: BTreeMap<AgentId, Agent>,
    /// Agents that were removed, with their last generation: whoever takes the name again starts above it, so that a
    /// wrapper of the removed one stays fenced.
    retired: BTreeMap<AgentId, u64>,
    /// Links that were issued and not taken back, by id; some may have expired.
    shares: BTreeMap<String, Share>,
    /// Tokens that were issued and not taken back, by id; some may have expired.
    tokens: BTreeMap<String, UserToken>,
    /// What was done on requests with a key, by actor and key.
    pub(crate) done: BTreeMap<(String, String), Done>,
}

/// What was done on a request with a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Done {
    pub(crate) time: Timestamp,
    pub(crate) command: String,
    /// [`Change::about`].
    pub(crate) about: String,
}

impl Town {
    /// A town without agents.
    #[must_use]
    pub fn new(id: TownId) -> Self {
        Self {
            id,
            agents: BTreeMap::new(),
            retired: BTreeMap::new(),
            shares: BTreeMap::new(),
            tokens: BTreeMap::new(),
            done: BTreeMap::new(),
        }
    }

    /// The town that a journal tells of. Events of types that this version does not know are passed over.
    ///
    /// # Errors
    /// When an event of a known type has not its shape.
    pub fn fold<'a>(id: TownId, journal: impl IntoIterator<Item = &'a Event>) -> Result<Self, JournalError> {
        let mut town = Self::new(id);
        for event in journal {
            if let Some(event) = TownEvent::from_journal(event)? {
                town.evolve(&event);
            }
        }
        Ok(town)
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> &TownId {
        &self.id
    }

    /// Its agents, by id.
    #[must_use]
    pub fn agents(&self) -> &BTreeMap<AgentId, Agent> {
        &self.agents
    }

    /// One agent.
    #[must_use]
    pub fn agent(&self, id: &AgentId) -> Option<&Agent> {
        self.agents.get(id)
    }

    /// Agents that were removed and whose name nobody took since, with their last generation.
    #[must_use]
    pub fn retired(&self) -> &BTreeMap<AgentId, u64> {
        &self.retired
    }

    /// The share links that are good at `now`, by id.
    pub fn shares(&self, now: Timestamp) -> impl Iterator<Item = &Share> {
        self.shares.values().filter(move |share| share.expires > now)
    }

    /// The user tokens that are good at `now`, by id.
    pub fn user_tokens(&self, now: Timestamp) -> impl Iterator<Item = &UserToken> {
        self.tokens.values().filter(move |token| token.is_good(now))
    }

    /// The user token with this id, if it is good at `now`.
    #[must_use]
    pub fn user_token(&self, id: &str, now: Timestamp) -> Option<&UserToken> {
        self.tokens.get(id).filter(|token| token.is_good(now))
    }

    /// When something is due that nobody asks for: [`crate::Command::Tick`] must be decided on then, and not before.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Timestamp> {
        self.agents
            .values()
            .filter_map(|agent| match &agent.phase {
                AgentPhase::BackingOff { until, .. } => Some(*until),
                AgentPhase::Stopped { .. }
                | AgentPhase::Running
                | AgentPhase::Stopping { .. }
                | AgentPhase::Failed { .. } => None,
            })
            .min()
    }

    /// Takes a committed event in. It cannot fail: an event that does not fit (of an agent that is not there, or of a
    /// generation that is not the newest) changes nothing.
    pub fn evolve(&mut self, event: &TownEvent) {
        self.remember(event);
        match &event.change {
            Change::AgentRegistered { agent, registration } => self.register(event.time, agent, registration),
            Change::AgentRemoved { agent, .. } => {
                if let Some(gone) = self.agents.remove(agent) {
                    self.retired.insert(agent.clone(), gone.generation);
                }
                // Whoever takes the name next has not shared anything.
                self.shares.retain(|_, share| share.agent != *agent);
            }
            Change::ShareIssued(share) => {
                if self.agents.contains_key(&share.agent) {
                    self.shares.retain(|_, share| share.expires > event.time);
                    self.shares.insert(share.share.clone(), share.clone());
                }
            }
            Change::ShareRevoked { share, .. } => drop(self.shares.remove(share)),
            Change::TokenIssued(token) => {
                self.tokens.retain(|_, token| token.is_good(event.time));
                self.tokens.insert(token.token.clone(), token.clone());
            }
            Change::TokenRevoked { token, .. } => drop(self.tokens.remove(token)),
            Change::AgentStarted { agent, generation, cause } => {
                if let Some(agent) = self.agents.get_mut(agent) {
                    agent.start(event.time, *generation, *cause);
                }
            }
            Change::AgentRestartScheduled { agent, generation, at, reason } => self.change(
                event.time,
                (agent, *generation),
                AgentPhase::BackingOff { until: *at, reason: reason.clone() },
            ),
            Change::AgentStopping { agent, generation, drain, remove } => {
                let phase = AgentPhase::Stopping { drain: *drain, remove: *remove };
                self.change(event.time, (agent, *generation), phase);
            }
            Change::AgentStopped { agent, generation, reason } => {
                self.change(event.time, (agent, *generation), AgentPhase::Stopped { reason: reason.clone() });
            }
            Change::AgentFailed { agent, generation, reason } => {
                self.change(event.time, (agent, *generation), AgentPhase::Failed { reason: reason.clone() });
            }
        }
    }

    fn register(&mut self, time: Timestamp, id: &AgentId, registration: &Registration) {
        if self.agents.contains_key(id) {
            return;
        }
        let agent = Agent {
            id: id.clone(),
            name: registration.name.clone(),
            role: registration.role,
            runtime: registration.runtime.clone(),
            directory: registration.directory.clone(),
            repository: registration.repository.clone(),
            desired: Desired::Stopped,
            phase: AgentPhase::Stopped { reason: None },
            generation: self.retired.remove(id).unwrap_or(0),
            registered: time,
            changed: time,
            restarts: Vec::new(),
        };
        self.agents.insert(id.clone(), agent);
    }

    /// Changes the phase of an agent, if the event speaks of its newest wrapper.
    fn change(&mut self, time: Timestamp, (id, generation): (&AgentId, u64), phase: AgentPhase) {
        let Some(agent) = self.agents.get_mut(id) else { return };
        if agent.generation != generation {
            return;
        }
        agent.desired = match &phase {
            AgentPhase::Running | AgentPhase::BackingOff { .. } => Desired::Running,
            AgentPhase::Stopped { .. } | AgentPhase::Stopping { .. } | AgentPhase::Failed { .. } => {
                Desired::Stopped
            }
        };
        agent.phase = phase;
        agent.changed = time;
    }

    /// Remembers the request's key, and forgets those that are too old or too many.
    fn remember(&mut self, event: &TownEvent) {
        let Some(key) = &event.by.key else { return };
        self.done.retain(|_, done| event.time.since(done.time) < KEY_LIFE);
        let done = Done {
            time: event.time,
            command: event.by.command.clone(),
            about: event.change.about().to_owned(),
        };
        self.done.insert((event.by.actor.clone(), key.clone()), done);
        while self.done.len() > KEYS {
            let oldest = self.done.iter().min_by_key(|(_, done)| done.time).map(|(name, _)| name.clone());
            self.done.remove(&oldest.expect("a map above its limit is not empty"));
        }
    }
}

impl Agent {
    fn start(&mut self, time: Timestamp, generation: u64, cause: StartCause) {
        if generation <= self.generation {
            return;
        }
        self.generation = generation;
        self.desired = Desired::Running;
        self.phase = AgentPhase::Running;
        self.changed = time;
        match cause {
            StartCause::Requested => self.restarts.clear(),
            StartCause::Crashed => {
                self.restarts.retain(|at| restart::counts(*at, time));
                self.restarts.push(time);
            }
            StartCause::Lost => {}
        }
    }
}
