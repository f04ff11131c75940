//! One run: three machines, a network, a disk and a seed; what everyone sent and saw; and the verdict.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::FutureExt;
use protocol::{Event, LogId, Seq, Timestamp, TownId};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use store::{EventStore, ReadLimit, Retention, RetentionPolicy};
use tempfile::TempDir;
use tokio::sync::{mpsc, watch};
use turmoil::Sim;
use wrapper::outbox::{Outbox, Progress};

use crate::{
    agents::{self, Order, log_of},
    day::{self, Day},
    disk::Disk,
    faults::{Change, Schedule},
    network::{Condition, Network},
    oracle::{Acked, History, Seen, Sent, Viewer},
    relay_host,
    seeds::Planted,
    trace::Trace,
    viewers,
};

/// How long faults go on.
const FAULTS: Duration = Duration::from_secs(25);
/// Time after the faults in which everyone must have caught up (P14).
const CAUGHT_UP: Duration = Duration::from_secs(10);
/// The end of it, in which agents say nothing new: a lag of zero can be seen.
const SILENCE: Duration = Duration::from_secs(2);
/// Time that a run in safety mode is given to find dead connections, as long as a heartbeat takes, and catch up.
const SETTLED: Duration = Duration::from_secs(240);
const TICK: Duration = Duration::from_millis(5);
/// Of a day: a message takes at least so long.
const DAY_TICK: Duration = Duration::from_secs(1);

/// What a run is to show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// That no fault breaks a promise.
    Safety,
    /// That all go on once the faults are over.
    Liveness,
    /// The same of a whole wrapper, over and over for so many hours of its day.
    Day { hours: u64 },
}

/// A piece of a day, which is soon over, and all of it.
pub(crate) const MORNING: Mode = Mode::Day { hours: 3 };
pub(crate) const DAY: Mode = Mode::Day { hours: 24 };

impl Mode {
    /// The test that runs it.
    pub(crate) fn test(self) -> &'static str {
        match self {
            Self::Safety => "p1_p2_p3_p4_p5_p6_p7_p9_p10_nothing_is_lost_repeated_or_made_up_whatever_fails",
            Self::Liveness => "p14_ten_seconds_after_the_last_fault_every_agent_goes_on_and_no_viewer_lags",
            Self::Day { hours: 24 } => {
                "p2_p14_p21_through_a_whole_day_a_wrapper_answers_again_after_each_bad_hour"
            }
            Self::Day { .. } => "p2_p14_p21_after_each_bad_hour_of_a_morning_a_wrapper_answers_again",
        }
    }
}

/// Runs a seed; gives its trace, and what was broken.
pub(crate) fn run(mode: Mode, planted: Option<Planted>, seed: u64) -> (String, Result<(), String>) {
    let mut random = StdRng::seed_from_u64(seed);
    let mut run = Run::set_up(mode, planted, &mut random, seed);
    let verdict = run.play();
    (run.world.trace.text(), verdict)
}

/// What the machines share with whoever runs them. Cheap to clone.
#[derive(Clone)]
pub(crate) struct World {
    pub(crate) seed: u64,
    pub(crate) trace: Arc<Trace>,
    pub(crate) network: Network,
    pub(crate) disk: Disk,
    /// Counts the times the relay was told to drain.
    pub(crate) drain: watch::Sender<u64>,
    /// Whether agents are to say nothing new.
    pub(crate) quiet: watch::Sender<bool>,
    pub(crate) outbox_bytes: u64,
    folder: Arc<TempDir>,
    book: Arc<Mutex<Book>>,
}

/// What everyone sent and saw.
#[derive(Debug, Default)]
pub(crate) struct Book {
    marks: u64,
    sent: BTreeMap<LogId, Vec<Sent>>,
    acked: BTreeMap<LogId, Vec<Acked>>,
    /// By number; a viewer that began anew is the last of its own.
    viewers: BTreeMap<usize, Vec<(LogId, Viewer)>>,
    /// The outbox of each agent's newest wrapper.
    outboxes: BTreeMap<usize, watch::Receiver<Progress>>,
    /// How far an agent's clock is off.
    clocks: BTreeMap<usize, i64>,
    is_calm: bool,
    failures: Vec<String>,
}

impl World {
    pub(crate) fn town() -> TownId {
        "main".parse().expect("it is an id")
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether viewers are to read and stay.
    pub(crate) fn is_calm(&self) -> bool {
        self.book().is_calm
    }

    /// Something went wrong that no fault excuses.
    pub(crate) fn fail(&self, what: String) {
        self.trace.say(&what);
        self.book().failures.push(what);
    }

    /// The time of day as an agent's machine has it.
    pub(crate) fn time_of_day(&self, agent: usize) -> Timestamp {
        let off = self.book().clocks.get(&agent).copied().unwrap_or(0);
        let elapsed = turmoil::sim_elapsed().unwrap_or_default().as_millis();
        Timestamp::from_unix_ms(1_000_000_000 + off + i64::try_from(elapsed).expect("no run is so long"))
    }

    /// A wrapper has its outbox open.
    pub(crate) fn begins(&self, agent: usize, outbox: &Outbox) {
        self.book().outboxes.insert(agent, outbox.progress());
    }
}

impl Book {
    pub(crate) fn next_mark(&mut self) -> u64 {
        self.marks += 1;
        self.marks
    }

    pub(crate) fn sent(&mut self, agent: usize, sent: Sent) {
        self.sent.entry(log_of(agent)).or_default().push(sent);
    }

    pub(crate) fn acked(&mut self, agent: usize, acked: Acked) {
        self.acked.entry(log_of(agent)).or_default().push(acked);
    }

    /// A viewer begins, or begins anew.
    pub(crate) fn opens(&mut self, index: usize, log: &LogId) {
        let all = self.viewers.entry(index).or_default();
        let name = format!("viewer {index}, page {}", all.len());
        all.push((log.clone(), Viewer { name, ..Viewer::default() }));
    }

    pub(crate) fn seen(&mut self, index: usize, seen: Seen) {
        let pages = self.viewers.get_mut(&index).expect("it has begun");
        pages.last_mut().expect("it has begun").1.seen.push(seen);
    }

    /// Everything that was handed in is acked.
    fn all_acked(&self) -> bool {
        self.outboxes.values().all(|progress| progress.borrow().events == 0)
    }
}

/// What is left of one log.
struct Stored {
    events: Vec<Event>,
    floor: Seq,
    /// All that was ever committed to it.
    committed: Vec<Event>,
}

/// In memory where that is to be had: what a sync is worth, the simulated disk says. Its name is this process's alone, since
/// a name that is taken would cost another draw of the run's randomness.
fn folder() -> TempDir {
    let prefix = format!("gastown-simulation-{}-", std::process::id());
    let named = || {
        let mut builder = tempfile::Builder::new();
        builder.prefix(&prefix);
        builder
    };
    named().tempdir_in("/dev/shm").or_else(|_| named().tempdir()).expect("a temporary folder")
}

pub(crate) struct Run {
    mode: Mode,
    world: World,
    sim: Sim<'static>,
    schedule: Schedule,
    random: StdRng,
    orders: mpsc::Sender<Order>,
    agents: usize,
    /// When the relay starts again; else it runs.
    relay_is_down: Option<Duration>,
    day: Option<Day>,
}

impl Run {
    fn set_up(mode: Mode, planted: Option<Planted>, random: &mut StdRng, seed: u64) -> Self {
        let is_day = matches!(mode, Mode::Day { .. });
        let (agents, viewers) = (random.random_range(1..4), random.random_range(2..7));
        let agents = if is_day { 1 } else { agents };
        // Small enough, now and then, that logs are pruned under their readers and outboxes overflow.
        let events = if random.random_bool(0.4) && !is_day { random.random_range(10..60) } else { 100_000 };
        let outbox_bytes = if random.random_bool(0.3) { 20_000 } else { 64 << 20 };
        let retention = Retention { events, ..Retention::UNBOUNDED };
        let policy = RetentionPolicy { agent: retention, town: Retention::UNBOUNDED };
        let world = World {
            seed,
            trace: Arc::default(),
            network: Network::default(),
            disk: Disk::new(policy, planted, seed),
            drain: watch::Sender::new(0),
            quiet: watch::Sender::new(false),
            outbox_bytes,
            folder: Arc::new(folder()),
            book: Arc::default(),
        };
        let mut sim = turmoil::Builder::new()
            .rng_seed(seed)
            .tick_duration(if is_day { DAY_TICK } else { TICK })
            .simulation_duration(Duration::from_secs(30 * 3_600))
            .epoch(std::time::UNIX_EPOCH)
            .max_message_latency(Duration::from_millis(40))
            // Also what a listener holds that does not accept: more at once would end the run.
            .tcp_capacity(random.random_range(32..128))
            .build();
        let shared = world.clone();
        sim.host("relay", move || relay_host::live(shared.clone()));
        let (orders, inbox) = mpsc::channel(64);
        let day = is_day.then(|| Day::new(seed));
        match &day {
            None => {
                sim.client("agents", agents::live(world.clone(), inbox));
                sim.client("viewers", viewers::live(world.clone(), viewers, agents));
            }
            Some(day) => {
                sim.client("agents", day::wrapper_lives(world.clone(), day.clone(), inbox));
                sim.client("viewers", day.person.clone().live(world.clone()));
            }
        }
        let schedule = match mode {
            Mode::Day { .. } => Schedule::default(),
            Mode::Safety | Mode::Liveness => Schedule::draw(random, planted, FAULTS, agents, viewers),
        };
        world
            .trace
            .say_at(Duration::ZERO, format!("{agents} agents, {viewers} viewers, {events} events kept"));
        let random = StdRng::seed_from_u64(seed.wrapping_add(1));
        Self { mode, world, sim, schedule, random, orders, agents, relay_is_down: None, day }
    }

    fn play(&mut self) -> Result<(), String> {
        if let (Mode::Day { hours }, Some(day)) = (self.mode, self.day.clone()) {
            self.order(Order::Start { agent: 0 });
            day::play(self, &day, Duration::from_secs(hours * 3_600))?;
            return self.judge();
        }
        self.until(FAULTS, true)?;
        self.heal();
        match self.mode {
            Mode::Liveness => self.catch_up()?,
            Mode::Safety | Mode::Day { .. } => self.settle()?,
        }
        self.judge()
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.sim.elapsed()
    }

    pub(crate) fn say(&self, what: String) {
        self.world.trace.say_at(self.sim.elapsed(), what);
    }

    /// Randomness of the run's own.
    pub(crate) fn random(&mut self) -> StdRng {
        StdRng::seed_from_u64(self.random.random())
    }

    /// Lets time pass in which these things happen.
    pub(crate) fn until_with(&mut self, schedule: Schedule, end: Duration) -> Result<(), String> {
        self.schedule = schedule;
        self.until(end, true)
    }

    /// Lets time pass in which nothing fails.
    pub(crate) fn pass(&mut self, time: Duration) -> Result<(), String> {
        self.until(self.sim.elapsed() + time, false)
    }

    /// Everything that was handed in is acked.
    pub(crate) fn all_acked(&self) -> bool {
        self.world.book().all_acked()
    }

    /// Lets time pass; with what is due, if it is to happen.
    fn until(&mut self, end: Duration, with_faults: bool) -> Result<(), String> {
        while self.sim.elapsed() < end {
            let now = self.sim.elapsed();
            while with_faults && let Some(change) = self.schedule.next(now) {
                self.apply(change);
            }
            self.keep_relay_up(now);
            self.sim.step().map_err(|error| format!("a machine failed: {error}"))?;
        }
        match self.world.book().failures.first() {
            Some(failure) => Err(failure.clone()),
            None => Ok(()),
        }
    }

    /// Whoever runs the relay starts it again when it has ended.
    fn keep_relay_up(&mut self, now: Duration) {
        match self.relay_is_down {
            Some(at) if at <= now => {
                self.relay_is_down = None;
                self.sim.bounce("relay");
            }
            None if !self.sim.is_host_running("relay") => {
                self.relay_is_down = Some(now + Duration::from_millis(self.random.random_range(100..1_500)));
            }
            Some(_) | None => {}
        }
    }

    fn apply(&mut self, change: Change) {
        self.world.trace.say_at(self.sim.elapsed(), format!("FAULT {change:?}"));
        let World { network, disk, .. } = &self.world;
        match change {
            Change::RelayCrashes => {
                self.sim.crash("relay");
                disk.lose_power();
                self.relay_is_down = Some(Duration::MAX);
            }
            Change::RelayStarts => {
                self.relay_is_down = self.relay_is_down.map(|_| Duration::ZERO);
            }
            Change::RelayDrains => self.world.drain.send_modify(|times| *times += 1),
            Change::Wrapper(order) => self.order(order),
            Change::WrapperLosesPower { agent } => {
                network.set(&format!("agent/{agent}/"), Condition::HalfOpen);
                self.order(Order::Kill { agent });
            }
            Change::Connections { owner, condition } => network.set(&owner, condition),
            Change::Chop { owner, bytes } => network.chop(&owner, bytes),
            Change::Partition { machine } => self.sim.hold("relay", machine),
            Change::Join { machine } => self.sim.release("relay", machine),
            Change::Latency { ms } => self.sim.set_max_message_latency(Duration::from_millis(ms)),
            Change::DiskFull(is_full) => disk.set_full(is_full),
            Change::SyncFails => disk.fail_next_sync(),
            Change::SyncTakes { ms } => disk.set_sync_ms(ms),
            Change::ClockJumps { agent, ms } => drop(self.world.book().clocks.insert(agent, ms)),
            Change::Server(trouble) => self.day.iter().for_each(|day| day.server.befall(trouble)),
        }
    }

    fn order(&self, order: Order) {
        self.orders.try_send(order).expect("the machine of the wrappers takes its orders");
    }

    /// Ends every fault.
    pub(crate) fn heal(&mut self) {
        self.world.trace.say_at(self.sim.elapsed(), "HEAL");
        self.world.disk.heal();
        for machine in ["agents", "viewers"] {
            self.sim.release("relay", machine);
        }
        self.sim.set_max_message_latency(Duration::from_millis(40));
        self.world.network.set("", Condition::Good);
        if self.mode != Mode::Safety {
            self.world.network.tell_both_ends();
        }
        if self.relay_is_down.is_some() {
            self.relay_is_down = Some(Duration::ZERO);
        }
        for agent in 0..self.agents {
            self.order(Order::Start { agent });
        }
        self.world.book().is_calm = true;
    }

    /// P14.
    fn catch_up(&mut self) -> Result<(), String> {
        let healed = self.sim.elapsed();
        // A moment, so that every wrapper that is to run does.
        self.until(healed + Duration::from_millis(500), false)?;
        let before = self.progress();
        self.until(healed + CAUGHT_UP - SILENCE, false)?;
        self.world.quiet.send_replace(true);
        self.until(healed + CAUGHT_UP, false)?;
        let now = self.progress();
        for agent in 0..self.agents {
            let (was, is) = (before[&agent], now[&agent]);
            if is.acked <= was.acked || is.events > 0 {
                return Err(format!(
                    "P14: agent {agent} makes no progress: {was:?}, ten seconds later {is:?}"
                ));
            }
        }
        self.lags().map_or(Ok(()), |lag| Err(format!("P14: ten seconds later {lag}")))
    }

    /// Waits until everyone has everything, however long that takes.
    fn settle(&mut self) -> Result<(), String> {
        let end = self.sim.elapsed() + SETTLED;
        self.world.quiet.send_replace(true);
        while self.sim.elapsed() < end {
            self.until(self.sim.elapsed() + Duration::from_secs(1), false)?;
            if self.world.book().all_acked() && self.lags().is_none() {
                // What comes twice comes late.
                return self.until(self.sim.elapsed() + Duration::from_secs(2), false);
            }
        }
        let lag = self.lags().unwrap_or_else(|| format!("outboxes are not empty: {:?}", self.progress()));
        Err(format!("nobody is disturbed any more, and yet {lag}"))
    }

    fn progress(&self) -> BTreeMap<usize, Progress> {
        self.world.book().outboxes.iter().map(|(agent, progress)| (*agent, *progress.borrow())).collect()
    }

    /// A viewer that has not everything.
    fn lags(&self) -> Option<String> {
        let stored = self.stored();
        let book = self.world.book();
        book.viewers.iter().find_map(|(index, pages)| {
            let (log, viewer) = pages.last()?;
            let head = stored.get(log)?.events.last()?.seq;
            let position = viewers::position(&viewer.seen);
            (position < head).then(|| format!("viewer {index} of {log} is at {position}, the head is {head}"))
        })
    }

    /// What the disk holds of each log.
    fn stored(&self) -> BTreeMap<LogId, Stored> {
        let reading = async {
            let (store, mut committed) = self.world.disk.read_back().await;
            let mut all = BTreeMap::new();
            for agent in 0..self.agents {
                let (log, limit) = (log_of(agent), ReadLimit { events: usize::MAX, bytes: usize::MAX });
                let Ok(page) = store.read(&log, Seq::ZERO, limit).await else { continue };
                let events = page.records.iter().map(|record| record.event().expect("it was one")).collect();
                let committed = committed.remove(&log).unwrap_or_default();
                all.insert(log, Stored { events, floor: page.bounds.floor, committed });
            }
            all
        };
        reading.now_or_never().expect("a store in memory does not wait")
    }

    fn judge(&self) -> Result<(), String> {
        let mut broken = Vec::new();
        for (log, Stored { events, floor, committed }) in self.stored() {
            let book = self.world.book();
            let mut viewers = Vec::new();
            for pages in book.viewers.values() {
                let newest = pages.len() - 1;
                let of_log = pages.iter().enumerate().filter(|(_, (of, _))| *of == log);
                viewers
                    .extend(of_log.map(|(n, (_, viewer))| Viewer { stayed: n == newest, ..viewer.clone() }));
            }
            let history = History {
                sent: book.sent.get(&log).cloned().unwrap_or_default(),
                acked: book.acked.get(&log).cloned().unwrap_or_default(),
                viewers,
                stored: events,
                floor,
                committed: Some(committed),
            };
            broken.extend(history.verdict().err().map(|what| format!("{log}: {what}")));
        }
        if broken.is_empty() { Ok(()) } else { Err(broken.join("\n")) }
    }
}
