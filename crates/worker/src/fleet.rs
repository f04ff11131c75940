//! The wrappers of a town: each has one task, which launches it, waits for its end, ends it when it must, and reports.

mod handshake;
mod link;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use protocol::{AgentId, Command as AgentCommand, LogId, NewEvent, TownId};
use relay::{
    RelayApi,
    auth::{Claims, Keys, Secret, WrapperClaims},
};
use tokio::sync::watch;
use tokio_util::task::TaskTracker;
use town::{Agent, AgentPhase, Command, Effect, Request, Town, WrapperExit};

use self::{handshake::Handshake, link::Link};
use crate::{
    Adoption, Clock, LaunchSpec, Launcher, WrapperProcess,
    agent_config::{AgentConfigs, Layer},
    engine::{AskError, EngineHandle},
    limits::WRAPPER_TOKEN_LIFE,
};

/// How long the relay may take to remove a log before the town goes on without.
const FORGET_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the relay may take to begin a log before the town goes on without.
const ANNOUNCE_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a wrapper may take to answer that it stops.
const ASK_TIMEOUT: Duration = Duration::from_secs(1);
/// Wait before a report that the journal did not take is sent again.
const REPORT_RETRY: Duration = Duration::from_secs(1);

/// What wrappers are launched with and watched through.
pub(crate) struct Outside {
    pub(crate) town: TownId,
    pub(crate) launcher: Arc<dyn Launcher>,
    pub(crate) relay: Arc<dyn RelayApi>,
    /// Base URL of the relay, as wrappers reach it.
    pub(crate) relay_url: String,
    pub(crate) keys: Keys,
    pub(crate) configs: Arc<AgentConfigs>,
    /// The build that wrappers are to be of.
    pub(crate) build: String,
    pub(crate) engine: EngineHandle,
    pub(crate) clock: Clock,
    pub(crate) stop_grace: Duration,
    pub(crate) drain_grace: Duration,
    pub(crate) reconnect_grace: Duration,
    pub(crate) stop_on_exit: bool,
}

/// What a wrapper's task is told. Later ones are never taken back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    /// Let it run.
    Run,
    /// End it after the turn that runs.
    Drain,
    /// End it.
    Stop,
    /// The worker goes, the wrapper stays.
    Leave,
}

/// Every wrapper that this worker looks after.
pub(crate) struct Fleet {
    outside: Arc<Outside>,
    /// One per agent: a second wrapper is launched only after the first was reported.
    runs: BTreeMap<AgentId, Run>,
    tasks: TaskTracker,
}

struct Run {
    generation: u64,
    orders: watch::Sender<Order>,
}

impl Fleet {
    pub(crate) fn new(outside: Outside) -> Self {
        Self { outside: Arc::new(outside), runs: BTreeMap::new(), tasks: TaskTracker::new() }
    }

    /// Takes over what an earlier worker left: wrappers that live, those that are gone, and logs to be removed.
    pub(crate) async fn recover(&mut self, town: &Town) {
        for agent in town.retired().keys() {
            self.outside.forget(agent).await;
        }
        for agent in town.agents().values() {
            if agent.phase.has_wrapper() {
                let order = match agent.phase {
                    AgentPhase::Stopping { drain: true, .. } => Order::Drain,
                    AgentPhase::Stopping { drain: false, .. } => Order::Stop,
                    AgentPhase::Running
                    | AgentPhase::Stopped { .. }
                    | AgentPhase::BackingOff { .. }
                    | AgentPhase::Failed { .. }
                    | _ => Order::Run,
                };
                let orders = self.begin(agent, order);
                self.tasks.spawn(recover(self.outside.clone(), agent.clone(), orders));
            }
        }
    }

    /// Does what a committed event asks for.
    pub(crate) async fn perform(&mut self, effect: Effect, town: &Town) {
        match effect {
            Effect::Announce { agent } => {
                // Waited for, so that whoever registered it can watch it at once.
                if let Some(agent) = town.agent(&agent) {
                    self.outside.announce(agent).await;
                }
            }
            Effect::Launch { agent, generation } => {
                if let Some(agent) = town.agent(&agent).filter(|agent| agent.generation == generation) {
                    let orders = self.begin(agent, Order::Run);
                    self.tasks.spawn(launch(self.outside.clone(), agent.clone(), orders));
                }
            }
            Effect::Stop { agent, generation, drain } => {
                self.order(&agent, generation, if drain { Order::Drain } else { Order::Stop });
            }
            Effect::Forget { agent } => {
                self.runs.remove(&agent);
                // Waited for, so that an agent that takes the name next does not lose its log.
                self.outside.forget(&agent).await;
            }
            effect => tracing::error!(?effect, "an effect that this worker does not know is left undone"),
        }
    }

    /// Ends every wrapper, or lets go of them, and waits for their tasks.
    pub(crate) async fn shut_down(self) {
        let order = if self.outside.stop_on_exit { Order::Stop } else { Order::Leave };
        for run in self.runs.values() {
            run.orders.send_replace(order);
        }
        self.tasks.close();
        self.tasks.wait().await;
    }

    fn begin(&mut self, agent: &Agent, order: Order) -> watch::Receiver<Order> {
        let (orders, receiver) = watch::channel(order);
        self.runs.insert(agent.id.clone(), Run { generation: agent.generation, orders });
        receiver
    }

    fn order(&self, agent: &AgentId, generation: u64, order: Order) {
        if let Some(run) = self.runs.get(agent).filter(|run| run.generation == generation) {
            run.orders.send_replace(order);
        } else {
            // Another worker launched it, and reports its end; its link is the way to it.
            let (outside, agent) = (self.outside.clone(), agent.clone());
            let drain = order == Order::Drain;
            self.tasks.spawn(async move { outside.ask_to_stop(&agent, drain).await });
        }
    }
}

/// The task of a wrapper that is launched.
async fn launch(outside: Arc<Outside>, agent: Agent, orders: watch::Receiver<Order>) {
    outside.configs.tell(&*outside.relay, &agent).await;
    let exit = match outside.launcher.launch(outside.spec(&agent)).await {
        // What this worker launches is of the build that it has.
        Ok(mut process) => outside.attend(&agent, &mut *process, None, orders).await.map(Ended::exit),
        Err(error) => {
            tracing::error!(agent = %agent.id, error = &error as &dyn std::error::Error, "its wrapper cannot be launched");
            let reason = with_sources(&error);
            // There is no wrapper that could say so in the agent's log.
            let failed = protocol::agent::Failed { message: reason.clone(), ..Default::default() };
            outside.append(&agent.id, "agent.failed", &failed).await;
            Some(WrapperExit::Unusable { reason })
        }
    };
    if let Some(exit) = exit {
        let generation = agent.generation;
        outside.report(Command::WrapperExited { agent: agent.id, generation, exit }).await;
    }
}

/// The task of a wrapper that an earlier worker launched.
async fn recover(outside: Arc<Outside>, agent: Agent, mut orders: watch::Receiver<Order>) {
    outside.configs.tell(&*outside.relay, &agent).await;
    let mut link = Link::new(outside.relay.clone(), agent.id.clone(), outside.reconnect_grace);
    let mut handshake = Handshake::new(outside.relay.clone(), agent.id.clone(), outside.build.clone());
    let mut process = match outside.launcher.adopt(&agent.id, agent.generation).await {
        Adoption::Found(process) => Some(process),
        Adoption::Unknown => None,
        Adoption::Gone => return outside.report_lost(&agent).await,
    };
    let is_back = tokio::select! {
        is_back = link.comes_up_or_ends(&mut process) => is_back,
        // One of another protocol never comes back.
        () = handshake.outdated() => true,
        // Whoever wants it to end at once does not wait for it to come back; that its turn is to end first it is told over its link.
        _ = orders.wait_for(|order| matches!(order, Order::Stop | Order::Leave)) => true,
    };
    match &mut process {
        Some(process) if is_back => outside.attend_adopted(&agent, &mut **process, handshake, orders).await,
        None if is_back => outside.attend_adopted(&agent, &mut link, handshake, orders).await,
        Some(process) => {
            tracing::warn!(agent = %agent.id, "its wrapper lives and does not come back: it is replaced");
            outside.stop(&agent.id, &mut **process).await;
            outside.report_lost(&agent).await;
        }
        None => outside.report_lost(&agent).await,
    }
}

impl Outside {
    fn spec(&self, agent: &Agent) -> LaunchSpec {
        LaunchSpec {
            town: self.town.clone(),
            generation: agent.generation,
            relay: self.relay_url.clone(),
            token: self.wrapper_token(agent),
            config: self.configs.resolved(&Layer::of(agent)),
            agent: agent.clone(),
        }
    }

    fn wrapper_token(&self, agent: &Agent) -> Secret {
        self.keys.sign(&Claims::Ingest(WrapperClaims {
            town: self.town.clone(),
            agent: agent.id.clone(),
            generation: agent.generation,
            expires: self.clock.now().after(WRAPPER_TOKEN_LIFE),
        }))
    }

    /// Waits for a wrapper's end and carries out orders; `None` if it is left to itself. One that is outdated is ended after its
    /// turn, as if somebody had asked for that, and is replaced if nobody has.
    async fn attend(
        &self,
        agent: &Agent,
        process: &mut dyn WrapperProcess,
        mut handshake: Option<Handshake>,
        mut orders: watch::Receiver<Order>,
    ) -> Option<Ended> {
        let mut outdated = false;
        loop {
            let order = *orders.borrow_and_update();
            let ended = |exit| {
                Some(if outdated && order == Order::Run {
                    Ended::Replaced(exit)
                } else {
                    Ended::Itself(exit)
                })
            };
            let patience = match order {
                Order::Run if !outdated => None,
                Order::Run | Order::Drain if self.ask_to_stop(&agent.id, true).await => {
                    Some(self.drain_grace)
                }
                Order::Run | Order::Drain | Order::Stop => return ended(self.stop(&agent.id, process).await),
                Order::Leave => return None,
            };
            tokio::select! {
                exit = process.wait() => return ended(exit),
                changed = orders.changed() => if changed.is_err() {
                    // The agent was forgotten: nothing is left to look after.
                    return ended(self.stop(&agent.id, process).await);
                },
                () = elapsed(patience) => return ended(self.stop(&agent.id, process).await),
                () = is_outdated(&mut handshake) => {
                    tracing::info!(agent = %agent.id, build = self.build, "its wrapper is of another build: it is replaced");
                    (outdated, handshake) = (true, None);
                }
            }
        }
    }

    async fn attend_adopted(
        &self,
        agent: &Agent,
        process: &mut dyn WrapperProcess,
        handshake: Handshake,
        orders: watch::Receiver<Order>,
    ) {
        match self.attend(agent, process, Some(handshake), orders).await {
            Some(Ended::Itself(exit)) => {
                let (agent, generation) = (agent.id.clone(), agent.generation);
                self.report(Command::WrapperExited { agent, generation, exit }).await;
            }
            // The town launches the next one at once, which goes on with the session.
            Some(Ended::Replaced(_)) => self.report_lost(agent).await,
            None => {}
        }
    }

    /// Ends a wrapper: asks, waits, insists, waits, kills. It is asked over its link too, where that is up: what comes
    /// there says that the turn that runs is not to be waited for, which a first signal leaves open.
    async fn stop(&self, agent: &AgentId, process: &mut dyn WrapperProcess) -> WrapperExit {
        let deadline = tokio::time::Instant::now() + self.stop_grace;
        let _ = tokio::time::timeout(ASK_TIMEOUT, self.ask_to_stop(agent, false)).await;
        process.terminate().await;
        if let Ok(exit) = tokio::time::timeout(self.stop_grace / 2, process.wait()).await {
            return exit;
        }
        process.terminate().await;
        if let Ok(exit) = tokio::time::timeout_at(deadline, process.wait()).await {
            return exit;
        }
        tracing::warn!(%agent, ?process, "a wrapper did not end when it was asked to: it is killed");
        process.kill().await;
        process.wait().await
    }

    /// Asks a wrapper to stop over its link; whether it took that.
    async fn ask_to_stop(&self, agent: &AgentId, drain: bool) -> bool {
        let id = crate::worker::fresh_command_id();
        self.relay.command(agent, id, AgentCommand::Stop { drain }).await.is_ok_and(|result| result.ok)
    }

    /// Says in the agent's own log that it is there, so that it can be watched before it starts.
    async fn announce(&self, agent: &Agent) {
        let data = protocol::agent::Registered {
            name: agent.name.clone(),
            role: agent.role.as_str().to_owned(),
            runtime: agent.runtime.kind.as_str().to_owned(),
        };
        let said = self.append(&agent.id, "agent.registered", &data);
        if tokio::time::timeout(ANNOUNCE_TIMEOUT, said).await.is_err() {
            tracing::warn!(agent = %agent.id, "the relay does not answer: its log is not there yet");
        }
    }

    /// Says something in an agent's log that its wrapper cannot say.
    async fn append(&self, agent: &AgentId, kind: &str, data: &impl serde::Serialize) {
        let event =
            NewEvent::of(self.clock.now(), kind, data).expect("a payload serialises: its keys are strings");
        if let Err(error) = self.relay.append(&LogId::Agent(agent.clone()), vec![event]).await {
            tracing::warn!(%agent, kind, error = &error as &dyn std::error::Error, "its log could not be told");
        }
    }

    async fn report_lost(&self, agent: &Agent) {
        self.report(Command::WrapperLost { agent: agent.id.clone(), generation: agent.generation }).await;
    }

    /// Tells the town, as often as it takes.
    async fn report(&self, command: Command) {
        loop {
            match self.engine.ask(Request::by("worker", command.clone())).await {
                Ok(_) | Err(AskError::Closed) => return,
                Err(AskError::Rejected(rejection)) => {
                    tracing::debug!(%rejection, "a report came late");
                    return;
                }
                Err(AskError::Journal(error)) => {
                    tracing::error!(
                        error = &error as &dyn std::error::Error,
                        "a report is not written down yet"
                    );
                    tokio::time::sleep(REPORT_RETRY).await;
                }
            }
        }
    }

    async fn forget(&self, agent: &AgentId) {
        let log = LogId::Agent(agent.clone());
        match tokio::time::timeout(FORGET_TIMEOUT, self.relay.remove_log(&log)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::warn!(%agent, error = &error as &dyn std::error::Error, "its log is still there; the next start removes it");
            }
            Err(_) => tracing::warn!(%agent, "its log is still there; the next start removes it"),
        }
        let (configs, gone) = (Arc::clone(&self.configs), agent.clone());
        // Only a panic fails it.
        let _ = tokio::task::spawn_blocking(move || configs.forget(&gone)).await;
        if let Err(error) = self.launcher.forget(agent).await {
            tracing::warn!(%agent, %error, "its files are still there; the next start removes them");
        }
    }
}

/// How a wrapper ended.
#[derive(Debug)]
enum Ended {
    /// By itself, or as somebody had asked.
    Itself(WrapperExit),
    /// It was outdated, and is to be replaced.
    Replaced(WrapperExit),
}

impl Ended {
    fn exit(self) -> WrapperExit {
        match self {
            Self::Itself(exit) | Self::Replaced(exit) => exit,
        }
    }
}

async fn is_outdated(handshake: &mut Option<Handshake>) {
    match handshake {
        Some(handshake) => handshake.outdated().await,
        None => std::future::pending().await,
    }
}

async fn elapsed(patience: Option<Duration>) {
    match patience {
        Some(patience) => tokio::time::sleep(patience).await,
        None => std::future::pending().await,
    }
}

/// An error with what caused it, for people who see one line only.
fn with_sources(error: &dyn std::error::Error) -> String {
    std::iter::successors(Some(error), |error| error.source())
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ")
}

#[cfg(test)]
mod tests;
