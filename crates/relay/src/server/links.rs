//! The wrappers that are connected, what they said of themselves, and the commands on their way to them.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use protocol::{
    AgentId, Command, CommandId, CommandResult, ErrorCode, ErrorDetail, Timestamp,
    config::SealedConfig,
    frame::{WrapperPresence, WrapperState},
};
use tokio::sync::{mpsc, oneshot};

use super::{clock, feed::lock};
use crate::{
    Presence,
    commands::{Begin, CommandBook},
    ingest::Hello,
};

/// Commands that wait for a link to take them.
const COMMANDS: usize = 32;
/// Time a wrapper has to answer a command.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// Every agent that ever had a link here.
#[derive(Debug)]
pub(super) struct Links {
    started: Timestamp,
    next_id: AtomicU64,
    agents: Mutex<HashMap<AgentId, Agent>>,
}

#[derive(Debug, Default)]
struct Agent {
    link: Option<Link>,
    since: Timestamp,
    state: Option<WrapperState>,
    last_activity: Option<Timestamp>,
    /// The build and the protocol of the wrapper that spoke last.
    version: Option<(String, u32)>,
    /// What goes with the greeting and the commands.
    config: Option<SealedConfig>,
    book: CommandBook,
    /// Who waits for the result of which command.
    waiting: BTreeMap<CommandId, Vec<oneshot::Sender<CommandResult>>>,
}

#[derive(Debug)]
struct Link {
    id: u64,
    generation: u64,
    commands: mpsc::Sender<Commanded>,
    end: oneshot::Sender<End>,
}

/// A command, and the config that goes with it.
pub(super) type Commanded = (CommandId, Command, Option<SealedConfig>);

/// Why a link is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// A newer generation has the agent.
    Superseded,
    /// The same wrapper came back.
    Replaced,
}

/// A link's own end of the table.
#[derive(Debug)]
pub(super) struct Registration {
    id: u64,
    /// The config to greet with.
    pub(super) config: Option<SealedConfig>,
    pub(super) commands: mpsc::Receiver<Commanded>,
    pub(super) end: oneshot::Receiver<End>,
}

impl Links {
    pub(super) fn new(started: Timestamp) -> Self {
        Self { started, next_id: AtomicU64::new(0), agents: Mutex::default() }
    }

    /// Puts a link in the table, and ends the one that was there.
    pub(super) fn register(&self, hello: &Hello, now: Timestamp) -> Result<Registration, ErrorDetail> {
        let (commands_in, commands) = mpsc::channel(COMMANDS);
        let (end_in, end) = oneshot::channel();
        let id = self.next_id.fetch_add(1, Relaxed);
        let mut agents = lock(&self.agents);
        let agent = agents.entry(hello.agent.clone()).or_default();
        if let Some(old) = &agent.link
            && old.generation > hello.generation
        {
            let message = format!("generation {} has the agent", old.generation);
            return Err(ErrorDetail::new(ErrorCode::Superseded, message));
        }
        let link = Link { id, generation: hello.generation, commands: commands_in, end: end_in };
        if let Some(old) = agent.link.replace(link) {
            let why = if old.generation < hello.generation { End::Superseded } else { End::Replaced };
            // A link that has ended meanwhile needs no telling.
            let _ = old.end.send(why);
            agent.give_up("the link that had the command was replaced");
        }
        agent.since = now;
        agent.version = Some((hello.wrapper_version.clone(), hello.protocol));
        Ok(Registration { id, config: agent.config.clone(), commands, end })
    }

    /// A wrapper was turned away, since it speaks another protocol.
    pub(super) fn turned_away(&self, hello: &Hello, now: Timestamp) {
        let mut agents = lock(&self.agents);
        let agent = agents.entry(hello.agent.clone()).or_default();
        if agent.link.is_none() {
            agent.since = now;
            agent.version = Some((hello.wrapper_version.clone(), hello.protocol));
        }
    }

    /// What goes with the greeting and the commands from here on.
    pub(super) fn configure(&self, agent: &AgentId, config: SealedConfig) {
        let mut agents = lock(&self.agents);
        let agent =
            agents.entry(agent.clone()).or_insert_with(|| Agent { since: self.started, ..Agent::default() });
        agent.config = Some(config);
    }

    /// Takes a link out of the table, and says whether it was the agent's.
    pub(super) fn unregister(&self, agent: &AgentId, registration: &Registration, now: Timestamp) -> bool {
        let mut agents = lock(&self.agents);
        let Some(agent) = agents.get_mut(agent) else { return false };
        if agent.link.take_if(|link| link.id == registration.id).is_none() {
            return false;
        }
        agent.since = now;
        agent.give_up("the link was lost: whether the command was carried out is not known");
        true
    }

    /// The wrapper said how it is.
    pub(super) fn said(&self, agent: &AgentId, state: WrapperState, last_activity: Timestamp) {
        if let Some(agent) = lock(&self.agents).get_mut(agent) {
            agent.state = Some(state);
            agent.last_activity = Some(last_activity);
        }
    }

    /// What is known of an agent's wrapper.
    pub(super) fn presence(&self, agent: &AgentId) -> Presence {
        match lock(&self.agents).get(agent) {
            None => Presence {
                wrapper: WrapperPresence::Disconnected,
                since: self.started,
                state: None,
                last_activity: None,
                version: None,
                protocol: None,
            },
            Some(agent) => Presence {
                wrapper: match agent.link {
                    Some(_) => WrapperPresence::Connected,
                    None => WrapperPresence::Disconnected,
                },
                since: agent.since,
                state: agent.state,
                last_activity: agent.last_activity,
                version: agent.version.as_ref().map(|(version, _)| version.clone()),
                protocol: agent.version.as_ref().map(|(_, protocol)| *protocol),
            },
        }
    }

    /// Gives a command to an agent's wrapper, at most once, and waits for what becomes of it.
    pub(super) async fn command(&self, agent: &AgentId, id: CommandId, command: Command) -> CommandResult {
        let waiter = match self.begin(agent, &id, command) {
            Ok(waiter) => waiter,
            Err(result) => return *result,
        };
        match tokio::time::timeout(ANSWER_WITHIN, waiter).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) | Err(_) => {
                let message =
                    "the wrapper did not answer in time: whether the command was carried out is not known";
                let result = CommandResult::refused(id, ErrorCode::AgentError, message);
                self.finish(agent, &result);
                result
            }
        }
    }

    fn begin(
        &self,
        agent: &AgentId,
        id: &CommandId,
        command: Command,
    ) -> Result<oneshot::Receiver<CommandResult>, Box<CommandResult>> {
        let refused = |code, message: &str| Box::new(CommandResult::refused(id.clone(), code, message));
        let offline = || refused(ErrorCode::AgentOffline, "no wrapper is connected, and nothing was queued");
        let mut agents = lock(&self.agents);
        let agent = agents.get_mut(agent).ok_or_else(offline)?;
        if agent.link.is_none() && !agent.book.knows(id) {
            return Err(offline());
        }
        match agent.book.begin(clock::instant(), id, &command) {
            Begin::Done(result) => return Err(Box::new(result)),
            Begin::Wait => {}
            Begin::Deliver => {
                let link = agent.link.as_ref().ok_or_else(offline)?;
                if link.commands.try_send((id.clone(), command, agent.config.clone())).is_err() {
                    let result =
                        refused(ErrorCode::RateLimited, "the wrapper has more commands than it takes");
                    agent.book.finish(clock::instant(), &result);
                    return Err(result);
                }
            }
        }
        let (result_in, result) = oneshot::channel();
        agent.waiting.entry(id.clone()).or_default().push(result_in);
        Ok(result)
    }

    /// What became of a command.
    pub(super) fn finish(&self, agent: &AgentId, result: &CommandResult) {
        if let Some(agent) = lock(&self.agents).get_mut(agent) {
            agent.finish(result);
        }
    }

    /// Forgets an agent that is gone for good.
    pub(super) fn forget(&self, agent: &AgentId) {
        let mut agents = lock(&self.agents);
        if agents.get(agent).is_some_and(|agent| agent.link.is_none()) {
            agents.remove(agent);
        }
    }
}

impl Agent {
    fn finish(&mut self, result: &CommandResult) {
        self.book.finish(clock::instant(), result);
        for waiting in self.waiting.remove(&result.id).into_iter().flatten() {
            // Who has stopped waiting can ask again.
            let _ = waiting.send(result.clone());
        }
    }

    /// No command that is on its way gets an answer any more.
    fn give_up(&mut self, message: &str) {
        for id in self.waiting.keys().cloned().collect::<Vec<_>>() {
            self.finish(&CommandResult::refused(id, ErrorCode::AgentOffline, message));
        }
    }
}
