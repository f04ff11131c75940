//! The machine of the wrappers: for each agent the real outbox and the real link, with an agent that never stops talking.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use protocol::{AgentId, LogId, Timestamp, frame::RuntimeInfo};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use relay::auth::{Claims, WrapperClaims};
use tokio::{sync::mpsc, task::JoinHandle, time::sleep};
use wrapper::{
    Clock,
    link::{self, LinkConfig, LinkState, Token},
    outbox::{Outbox, OutboxError, OutboxLimits},
};

use crate::{
    life,
    network::RELAY_URL,
    oracle::{Acked, Sent},
    relay_host,
    world::World,
};

/// What becomes of a wrapper.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// It starts, on what its last run left.
    Start { agent: usize },
    /// SIGKILL.
    Kill { agent: usize },
    /// It is started on another machine, with nothing of what the last run left. That one goes on until it is told.
    Move { agent: usize },
}

/// One life of the machine.
pub(crate) async fn live(world: World, mut orders: mpsc::Receiver<Order>) -> turmoil::Result {
    let mut wrappers: BTreeMap<usize, Run> = BTreeMap::new();
    // Those that were left running somewhere else.
    let mut elsewhere = Vec::new();
    while let Some(order) = orders.recv().await {
        match order {
            Order::Start { agent } => {
                let run = wrappers.entry(agent).or_insert_with(|| Run::none(agent));
                if run.task.as_ref().is_none_or(JoinHandle::is_finished) {
                    run.start(&world);
                }
            }
            Order::Kill { agent } => {
                if let Some(task) = wrappers.get_mut(&agent).and_then(|run| run.task.take()) {
                    task.abort();
                    // It may have been superseded, and be over.
                    let _ = task.await;
                }
            }
            Order::Move { agent } => {
                let run = wrappers.entry(agent).or_insert_with(|| Run::none(agent));
                elsewhere.extend(run.task.take());
                run.home += 1;
                run.start(&world);
            }
        }
    }
    Ok(())
}

/// Of one agent: how often it was started, where, and the wrapper that has it.
struct Run {
    agent: usize,
    generation: u64,
    home: u64,
    task: Option<JoinHandle<()>>,
}

impl Run {
    fn none(agent: usize) -> Self {
        Self { agent, generation: 0, home: 0, task: None }
    }

    fn start(&mut self, world: &World) {
        self.generation += 1;
        let wrapper = Wrapper {
            world: world.clone(),
            agent: self.agent,
            id: agent_id(self.agent),
            generation: self.generation,
            home: world.folder().join(format!("{}-{}", self.agent, self.home)),
        };
        self.task = Some(tokio::spawn(wrapper.live()));
    }
}

/// The name of an agent.
pub(crate) fn agent_id(agent: usize) -> AgentId {
    format!("a{agent}").parse().expect("it is an id")
}

pub(crate) fn log_of(agent: usize) -> LogId {
    LogId::Agent(agent_id(agent))
}

/// One run of a wrapper.
struct Wrapper {
    world: World,
    agent: usize,
    id: AgentId,
    generation: u64,
    home: PathBuf,
}

impl Wrapper {
    async fn live(self) {
        let outbox = self.open().await;
        let token = relay_host::keys().sign(&Claims::Ingest(WrapperClaims {
            town: World::town(),
            agent: self.id.clone(),
            generation: self.generation,
            expires: Timestamp::from_unix_ms(1_000_000_000_000),
        }));
        let config = LinkConfig {
            relay: RELAY_URL.to_owned(),
            token: Token::new(token.expose()),
            agent: self.id.clone(),
            town: World::town(),
            generation: self.generation,
            runtime: RuntimeInfo { name: "simulated".to_owned(), version: "1".to_owned() },
            seed: self.world.seed ^ self.generation,
        };
        self.world.trace.say(format!("{} g{} starts", self.id, self.generation));
        let dialer = self.world.network.dialer(&self.owner());
        let link = link::spawn_over(Arc::new(dialer), config, outbox.clone(), Clock::start())
            .expect("the relay's URL is one");
        let mut state = link.handle().state();
        self.world.begins(self.agent, &outbox);
        tokio::select! {
            biased;
            over = state.wait_for(|state| matches!(state, LinkState::Superseded | LinkState::Refused { .. })) => {
                let state = over.expect("the link is held").clone();
                self.world.trace.say(format!("{} g{} is over: {state:?}", self.id, self.generation));
                if state != LinkState::Superseded {
                    self.world.fail(format!("{} g{}: {state:?}", self.id, self.generation));
                }
            }
            () = self.watch(&outbox) => {}
            () = self.talk(&outbox) => {}
        }
    }

    /// By what the network knows its connections.
    fn owner(&self) -> String {
        format!("agent/{}/g{}", self.agent, self.generation)
    }

    /// The run before may not have let go of it yet.
    async fn open(&self) -> Outbox {
        let mut limits = OutboxLimits::default();
        (limits.bytes, limits.segment_bytes) = (self.world.outbox_bytes, 16 * 1024);
        loop {
            match Outbox::open_in_task(&self.home, limits.clone()) {
                Ok(outbox) => return outbox,
                Err(OutboxError::InUse { .. }) => sleep(Duration::from_millis(5)).await,
                Err(error) => panic!("{} cannot be opened: {error:?}", self.home.display()),
            }
        }
    }

    /// Notes what is acked.
    async fn watch(&self, outbox: &Outbox) {
        let mut progress = outbox.progress();
        let producer = outbox.producer().to_string();
        loop {
            let through = progress.borrow_and_update().acked;
            self.world.trace.say(format!("{} g{} acked {through}", self.id, self.generation));
            self.world.book().acked(self.agent, Acked { producer: producer.clone(), through });
            if progress.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }

    /// Says one thing after the other, as long as there is to be noise.
    async fn talk(&self, outbox: &Outbox) {
        let mut random = StdRng::seed_from_u64(self.world.seed ^ (self.generation << 8) ^ self.agent as u64);
        let producer = outbox.producer().to_string();
        let mut quiet = self.world.quiet.subscribe();
        loop {
            if *quiet.borrow() {
                return std::future::pending().await;
            }
            tokio::select! {
                biased;
                changed = quiet.changed() => if changed.is_err() { return },
                () = sleep(Duration::from_millis(random.random_range(5..400))) => {}
            }
            let events: Vec<_> = (0..random.random_range(1..12))
                .map(|_| {
                    let mark = self.world.book().next_mark();
                    life::event(self.id.as_str(), mark, self.world.time_of_day(self.agent), &mut random)
                })
                .collect();
            // They count as sent from before the push: a run that is killed while it pushes may have sent them.
            let first = outbox.progress().borrow().next;
            for (event, pseq) in events.iter().zip(first..) {
                let sent = Sent {
                    producer: producer.clone(),
                    generation: self.generation,
                    pseq,
                    event: event.clone(),
                };
                self.world.book().sent(self.agent, sent);
            }
            if let Err(error) = outbox.push(events).await {
                return self.world.fail(format!("{}: {error:?}", self.id));
            }
        }
    }
}
