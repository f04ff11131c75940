//! The live fleet page: a task that follows every agent of the town for as long as somebody looks.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::future::join_all;
use protocol::{AgentId, Epoch, LogId, Seq};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};
use tokio_util::task::TaskTracker;

use super::{
    board::Board,
    feeds::{Feeds, Viewing},
    lock,
    viewer::Source,
};
use crate::{
    Worker,
    dashboard::page::{
        fleet::{self, Resident},
        shell::Headline,
    },
};

/// How long the agents are followed after the last viewer.
const LINGER: Duration = Duration::from_secs(30);
/// The shortest time between two changes of the page: agents that write speak forty times a second.
const PACE: Duration = Duration::from_millis(200);
/// How long the first page waits for what the agents have said so far: one that is shown before that would say of each
/// that it is only starting.
const FIRST_LOOK: Duration = Duration::from_secs(2);
/// How often the density pictures move on though nothing happens.
const MINUTE: Duration = Duration::from_secs(60);

/// The fleet page of one town.
#[derive(Clone)]
pub(crate) struct Fleet {
    worker: Worker,
    feeds: Feeds,
    tasks: TaskTracker,
    running: Arc<Mutex<Option<Arc<Shared>>>>,
    /// Positions on this page have nothing to do with those of a log: they are valid in this process only.
    epoch: Epoch,
}

/// A viewer's hold on the fleet page.
pub(crate) struct FleetSource {
    shared: Arc<Shared>,
    /// Whether the viewer may steer.
    steer: bool,
}

struct Shared {
    boards: Mutex<BTreeMap<bool, Board>>,
    /// The number of the newest change; 0 until there is a page.
    changed: watch::Sender<u64>,
    viewers: watch::Sender<usize>,
}

impl Fleet {
    /// Nobody looks yet.
    pub(crate) fn new(worker: Worker, feeds: Feeds, tasks: TaskTracker, epoch: Epoch) -> Self {
        Self { worker, feeds, tasks, running: Arc::default(), epoch }
    }

    /// Follows the fleet until the handle is dropped, and a little longer.
    pub(crate) fn follow(&self, steer: bool) -> FleetSource {
        let mut running = lock(&self.running);
        let shared = running.get_or_insert_with(|| {
            let shared = Arc::new(Shared::new());
            self.tasks.spawn(self.clone().run(Arc::clone(&shared)));
            shared
        });
        shared.viewers.send_modify(|viewers| *viewers += 1);
        FleetSource { shared: Arc::clone(shared), steer }
    }

    async fn run(self, shared: Arc<Shared>) {
        let mut town = self.worker.town();
        let mut pulse = self.feeds.pulse();
        let mut followed: BTreeMap<AgentId, Viewing> = BTreeMap::new();
        let mut number = 0;
        loop {
            let current = Arc::clone(&town.borrow_and_update());
            pulse.mark_unchanged();
            followed.retain(|id, _| current.agents().contains_key(id));
            for agent in current.agents().values() {
                followed.entry(agent.id.clone()).or_insert_with(|| self.feeds.follow(&agent.id, &agent.name));
            }
            if number == 0 {
                // One that never started has no log to wait for.
                let started = current.agents().values().filter(|agent| agent.generation > 0);
                let feeds = started.filter_map(|agent| Some(followed.get(&agent.id)?.feed().live()));
                let _ = timeout(FIRST_LOOK, join_all(feeds)).await;
            }
            let residents: Vec<Resident> = current
                .agents()
                .values()
                .filter_map(|agent| {
                    let viewing = followed.get(&agent.id)?;
                    Some(Resident::new(agent, viewing.feed().state().model()))
                })
                .collect();
            self.feeds.set_headline(Headline {
                needs: residents.iter().filter(|resident| resident.needs_a_person()).count(),
                tokens: residents.iter().map(|resident| resident.tokens).sum(),
                cost: residents.iter().map(|resident| resident.cost).sum(),
            });
            number += 1;
            self.publish(&shared, &residents, Seq::new(number));
            // Whoever comes within the pace is shown together with what follows.
            sleep(PACE).await;
            tokio::select! {
                changed = pulse.changed() => if changed.is_err() { return },
                changed = town.changed() => if changed.is_err() { return },
                () = sleep(MINUTE) => {}
                () = shared.unwatched() => {
                    let mut running = lock(&self.running);
                    if *shared.viewers.borrow() == 0 {
                        *running = None;
                        return;
                    }
                }
            }
        }
    }

    fn publish(&self, shared: &Shared, residents: &[Resident], seq: Seq) {
        let now = self.worker.now();
        let mut boards = lock(&shared.boards);
        for steer in [false, true] {
            let regions = fleet::regions(residents, self.feeds.headline(), steer, now);
            match boards.get_mut(&steer) {
                Some(board) => board.publish(regions, seq, Seq::ZERO),
                None => {
                    let log = LogId::Town(self.worker.town_id().clone());
                    boards.insert(steer, Board::new(log, self.epoch.clone(), seq, seq, regions));
                }
            }
        }
        drop(boards);
        shared.changed.send_replace(seq.get());
    }
}

impl Shared {
    fn new() -> Self {
        Self { boards: Mutex::default(), changed: watch::Sender::new(0), viewers: watch::Sender::new(0) }
    }

    /// Until nobody has looked for a while.
    async fn unwatched(&self) {
        let mut viewers = self.viewers.subscribe();
        loop {
            // The sender is in `self`: neither wait can fail.
            let _ = viewers.wait_for(|viewers| *viewers == 0).await;
            tokio::select! {
                () = sleep(LINGER) => return,
                _ = viewers.wait_for(|viewers| *viewers > 0) => {}
            }
        }
    }
}

impl Drop for FleetSource {
    fn drop(&mut self) {
        self.shared.viewers.send_modify(|viewers| *viewers -= 1);
    }
}

impl Source for FleetSource {
    async fn ready(&self) {
        let mut changed = self.shared.changed.subscribe();
        let _ = changed.wait_for(|number| *number > 0).await;
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.shared.changed.subscribe()
    }

    fn with_board<T>(&self, look: impl FnOnce(&Board) -> T) -> T {
        look(lock(&self.shared.boards).get(&self.steer).expect("there is a page once it is ready"))
    }

    fn standing(&self) -> Vec<bytes::Bytes> {
        Vec::new()
    }
}
