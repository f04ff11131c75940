//! The machine of the wrapper: whoever runs it starts it again when it has ended.

use std::{fs, sync::Arc, time::Duration};

use protocol::Timestamp;
use relay::auth::{Claims, WrapperClaims};
use tokio::{sync::mpsc, task::JoinHandle, time::sleep};
use wrapper::{
    Exit, Options, RunError, Shutdown, Surroundings,
    outbox::{Outbox, OutboxError, OutboxLimits},
};

use super::{Day, assert_budget};
use crate::{
    agents::{Order, agent_id},
    network::RELAY_URL,
    relay_host,
    world::World,
};

/// How long whoever runs a wrapper whose agent has failed for good looks at it.
const LOOKED_AT: Duration = Duration::from_secs(600);

type Life = JoinHandle<Result<Exit, RunError>>;

/// One life of the machine.
pub(crate) async fn live(world: World, day: Day, mut orders: mpsc::Receiver<Order>) -> turmoil::Result {
    fs::create_dir_all(world.folder().join("work"))?;
    let mut generation = 0;
    let mut wrapper: Option<Life> = None;
    loop {
        let running = async {
            match &mut wrapper {
                Some(life) => Some(life.await),
                None => {
                    sleep(LOOKED_AT).await;
                    None
                }
            }
        };
        let is_to_start = tokio::select! {
            biased;
            order = orders.recv() => match order {
                Some(Order::Start { .. }) => wrapper.is_none(),
                Some(Order::Kill { .. } | Order::Move { .. }) => {
                    if let Some(life) = wrapper.take() {
                        life.abort();
                        let _ = life.await;
                        judge(&world, &day);
                    }
                    false
                }
                None => return Ok(()),
            },
            ended = running => {
                wrapper = None;
                if let Some(ended) = &ended {
                    world.trace.say(format!("wrapper g{generation} is over: {ended:?}"));
                    if !matches!(ended, Ok(Ok(Exit::AgentFailed))) {
                        world.fail(format!("a wrapper ended that was not to: {ended:?}"));
                    }
                    judge(&world, &day);
                }
                ended.is_none()
            }
        };
        if is_to_start {
            generation += 1;
            wrapper = Some(tokio::spawn(run(world.clone(), day.clone(), generation)));
        }
    }
}

/// Of the starts in the life that has ended.
fn judge(world: &World, day: &Day) {
    let starts = std::mem::take(&mut day.server.held().starts);
    if let Err(broken) = assert_budget(&starts) {
        world.fail(broken);
    }
}

async fn run(world: World, day: Day, generation: u64) -> Result<Exit, RunError> {
    let (agent, folder) = (agent_id(0), world.folder());
    let token = relay_host::keys().sign(&Claims::Ingest(WrapperClaims {
        town: World::town(),
        agent: agent.clone(),
        generation,
        expires: Timestamp::from_unix_ms(1_000_000_000_000),
    }));
    fs::write(folder.join("token"), token.expose()).expect("the folder is there");
    let mut options = Options::new(RELAY_URL, agent, World::town(), folder.join("state"));
    options.generation = Some(generation);
    options.token_file = Some(folder.join("token"));
    options.dir = folder.join("work");
    let outbox = open(&world).await;
    world.begins(0, &outbox);
    world.trace.say(format!("wrapper g{generation} starts"));
    let dial = Arc::new(world.network.dialer(&format!("agent/0/g{generation}")));
    let (_trigger, shutdown) = Shutdown::new();
    let surroundings = Surroundings { runtime: Arc::new(day.server.clone()), outbox, dial, api: None };
    wrapper::run_in(surroundings, options, shutdown).await
}

/// The life before may not have let go of it yet.
async fn open(world: &World) -> Outbox {
    loop {
        match Outbox::open_in_task(world.folder().join("state/outbox"), OutboxLimits::default()) {
            Ok(outbox) => return outbox,
            Err(OutboxError::InUse { .. }) => sleep(Duration::from_millis(5)).await,
            Err(error) => panic!("the outbox cannot be opened: {error:?}"),
        }
    }
}
