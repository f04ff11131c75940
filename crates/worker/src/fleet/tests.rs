//! Engine and fleet on virtual time: what happens when, to the millisecond.

mod flaky_store;

use std::{
    collections::VecDeque,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use async_trait::async_trait;
use futures_util::{StreamExt as _, stream::BoxStream};
use protocol::{
    CommandId, CommandResult, ErrorCode, Seq, Timestamp,
    config::SealedConfig,
    frame::{StartAt, WrapperPresence, WrapperState},
};
use relay::{ApiError, AppendedAt, Delivery, Presence};
use store::{MemoryStore, RetentionPolicy};
use tokio::{sync::mpsc, task::JoinHandle, time::Instant};
use tokio_util::sync::CancellationToken;
use town::{Registration, Role, Runtime, RuntimeKind};

use self::flaky_store::FlakyStore;
use super::*;
use crate::{LaunchError, agent_config::AgentConfigs, engine::Engine, journal::Journal};

/// The build that wrappers are to be of.
const BUILD: &str = "1.2.0";
const GRACE: Duration = Duration::from_secs(8);
const DRAIN: Duration = Duration::from_secs(600);
const RECONNECT: Duration = Duration::from_secs(50);

#[tokio::test(start_paused = true)]
async fn a_wrapper_that_crashes_is_launched_again_exactly_when_its_wait_is_over() {
    let mut town = Desk::open(Set::default()).await;
    town.register().await;
    let mut wrapper = town.launched().await;
    for (generation, seconds) in [(2, 1), (3, 2), (4, 4)] {
        let crashed = Instant::now();
        wrapper.end(crash());
        wrapper = town.launched().await;
        assert_eq!(crashed.elapsed().as_secs_f64().round(), f64::from(seconds));
        assert_eq!(wrapper.generation, generation);
    }
    wrapper.end(crash());
    assert_eq!(town.phase("failed").await.generation, 4);
    town.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_wrapper_that_does_not_end_is_killed_after_its_grace() {
    let mut town = Desk::open(Set::default()).await;
    town.register().await;
    let wrapper = town.launched().await;
    let asked = Instant::now();
    town.ask(Command::Stop { agent: id(), drain: false }).await;
    wrapper.is(|signals| signals.terminated == 1).await;
    assert_eq!(asked.elapsed(), Duration::ZERO);
    wrapper.is(|signals| signals.terminated == 2).await;
    assert_eq!(asked.elapsed(), GRACE / 2, "a second signal does not wait for the turn");
    wrapper.is(|signals| signals.killed).await;
    assert_eq!(asked.elapsed(), GRACE);
    town.phase("stopped").await;
    town.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_drained_agent_has_its_time_and_an_offline_one_is_ended_at_once() {
    for (online, patience) in [(true, DRAIN), (false, Duration::ZERO)] {
        let mut town = Desk::open(Set { online, ..Set::default() }).await;
        town.register().await;
        let wrapper = town.launched().await;
        let asked = Instant::now();
        town.ask(Command::Stop { agent: id(), drain: true }).await;
        wrapper.is(|signals| signals.terminated > 0).await;
        assert_eq!(asked.elapsed(), patience, "online: {online}");
        wrapper.end(WrapperExit::Finished);
        town.phase("stopped").await;
        town.close().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_wrapper_that_is_to_end_is_told_over_its_link_first() {
    let mut town = Desk::open(Set { online: true, ..Set::default() }).await;
    town.register().await;
    let wrapper = town.launched().await;
    town.ask(Command::Stop { agent: id(), drain: false }).await;
    wrapper.is(|signals| signals.terminated > 0).await;
    assert_eq!(*town.relay.commands.lock().unwrap(), [AgentCommand::Stop { drain: false }]);
    wrapper.end(WrapperExit::Finished);
    town.close().await;
}

#[tokio::test(start_paused = true)]
async fn p15_a_drain_outlives_the_worker_that_was_asked_for_it() {
    let set = Set { online: true, ..Set::default() };
    let mut town = Desk::open(set).await;
    town.register().await;
    town.launched().await;
    town.ask(Command::Stop { agent: id(), drain: true }).await;
    town.task.abort();

    let set = Set { store: town.store, adoption: Adopt::Found, ..Set::default() };
    let mut town = Desk::open(set).await;
    let wrapper = town.launched().await;
    tokio::time::sleep(RECONNECT / 2).await;
    town.relay.presence.send_replace(WrapperPresence::Connected);
    tokio::time::sleep(DRAIN / 2).await;
    assert_eq!(*town.relay.commands.lock().unwrap(), [AgentCommand::Stop { drain: true }]);
    assert_eq!(wrapper.signals.borrow().terminated, 0, "the turn that runs is waited for");
    wrapper.end(WrapperExit::Finished);
    assert_eq!(town.phase("stopped").await.generation, 1);
    town.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_drained_wrapper_that_does_not_come_back_to_the_next_worker_is_ended() {
    let mut town = Desk::open(Set { online: true, ..Set::default() }).await;
    town.register().await;
    town.launched().await;
    town.ask(Command::Stop { agent: id(), drain: true }).await;
    town.task.abort();

    let began = Instant::now();
    let mut town = Desk::open(Set { store: town.store, adoption: Adopt::Found, ..Set::default() }).await;
    let wrapper = town.launched().await;
    wrapper.end_when_asked();
    wrapper.is(|signals| signals.terminated > 0).await;
    assert_eq!(began.elapsed(), RECONNECT);
    town.phase("stopped").await;
    assert!(town.launches.try_recv().is_err(), "it is not replaced");
    town.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_removal_does_not_wait_for_a_drain_that_goes_on() {
    let mut town = Desk::open(Set { online: true, ..Set::default() }).await;
    town.register().await;
    let wrapper = town.launched().await;
    town.ask(Command::Stop { agent: id(), drain: true }).await;
    let asked = Instant::now();
    town.ask(Command::Remove { agent: id() }).await;
    wrapper.is(|signals| signals.terminated > 0).await;
    assert_eq!(asked.elapsed(), Duration::ZERO);
    wrapper.end(WrapperExit::Finished);
    town.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_wrapper_that_died_with_its_worker_is_replaced_at_once() {
    let town = Desk::open(Set::default()).await.left_running().await;
    let began = Instant::now();
    let mut town = Desk::open(Set { store: town, ..Set::default() }).await;
    assert_eq!(town.launched().await.generation, 2);
    assert_eq!(began.elapsed(), Duration::ZERO);
    town.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_wrapper_that_nobody_can_see_has_its_grace_to_come_back() {
    let store = Desk::open(Set::default()).await.left_running().await;
    let began = Instant::now();
    let mut town = Desk::open(Set { store, adoption: Adopt::Unknown, ..Set::default() }).await;
    assert_eq!(town.launched().await.generation, 2);
    assert_eq!(began.elapsed(), RECONNECT);
    town.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_wrapper_that_lives_and_does_not_come_back_is_ended_before_it_is_replaced() {
    let store = Desk::open(Set::default()).await.left_running().await;
    let began = Instant::now();
    let mut town = Desk::open(Set { store, adoption: Adopt::Found, ..Set::default() }).await;
    let older = town.launched().await;
    older.is(|signals| signals.terminated > 0).await;
    assert_eq!((older.generation, began.elapsed()), (1, RECONNECT));
    assert!(town.launches.is_empty(), "one wrapper at a time");
    older.end(WrapperExit::Finished);
    assert_eq!(town.launched().await.generation, 2);
    town.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_wrapper_that_comes_back_stays_and_is_restarted_when_it_crashes() {
    let store = Desk::open(Set::default()).await.left_running().await;
    let mut town = Desk::open(Set { store, online: true, adoption: Adopt::Found, ..Set::default() }).await;
    let older = town.launched().await;
    tokio::time::advance(2 * RECONNECT).await;
    assert_eq!(town.town().generation, 1);
    older.end(crash());
    assert_eq!(town.launched().await.generation, 2);
    town.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_wrapper_known_by_its_link_only_is_gone_when_its_link_stays_away() {
    let store = Desk::open(Set::default()).await.left_running().await;
    let mut town = Desk::open(Set { store, online: true, adoption: Adopt::Unknown, ..Set::default() }).await;
    town.settle().await;
    town.relay.presence.send_replace(WrapperPresence::Disconnected);
    let away = Instant::now();
    assert_eq!(town.launched().await.generation, 2);
    assert_eq!(
        away.elapsed(),
        RECONNECT + Duration::from_secs(1),
        "its grace, then the wait before a restart"
    );
    town.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_worker_goes_down_while_it_waits_for_a_wrapper_to_come_back() {
    let store = Desk::open(Set::default()).await.left_running().await;
    let mut town = Desk::open(Set { store, adoption: Adopt::Found, ..Set::default() }).await;
    let older = town.launched().await;
    older.end_when_asked();
    let began = Instant::now();
    town.close().await;
    assert_eq!(began.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn wrappers_are_left_alone_by_a_worker_that_was_told_so() {
    let mut town = Desk::open(Set { stop_on_exit: false, ..Set::default() }).await;
    town.register().await;
    let wrapper = town.launched().await;
    town.close().await;
    assert_eq!(wrapper.signals.borrow().terminated, 0);
}

#[tokio::test(start_paused = true)]
async fn a_launch_that_fails_is_told_in_the_agents_log() {
    let town = Desk::open(Set { unlaunchable: true, ..Set::default() }).await;
    town.register().await;
    let agent = town.phase("failed").await;
    let AgentPhase::Failed { reason } = agent.phase else { panic!("it failed") };
    assert!(reason.starts_with("the wrapper command \"/no/wrapper\" cannot be started: "), "{reason}");
    let told = town.relay.told.lock().unwrap().clone();
    assert_eq!(
        told.iter().map(|event| &*event.kind).collect::<Vec<_>>(),
        ["agent.registered", "agent.failed"]
    );
    assert!(told[1].data.json().contains("cannot be started"));
    town.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_report_is_repeated_until_the_journal_takes_it() {
    let mut town = Desk::open(Set::default()).await;
    town.register().await;
    let wrapper = town.launched().await;
    town.store.failures.store(3, Ordering::SeqCst);
    let ended = Instant::now();
    wrapper.end(WrapperExit::Finished);
    town.phase("stopped").await;
    assert_eq!(ended.elapsed(), 3 * REPORT_RETRY);
    town.close().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_due_is_done_once_the_journal_works_again() {
    let mut town = Desk::open(Set::default()).await;
    town.register().await;
    let wrapper = town.launched().await;
    wrapper.end(crash());
    town.phase("backing_off").await;
    town.store.failures.store(5, Ordering::SeqCst);
    let crashed = Instant::now();
    assert_eq!(town.launched().await.generation, 2);
    assert_eq!(crashed.elapsed(), Duration::from_secs(1 + 5), "a try every second, not a storm of them");
    town.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_request_that_the_journal_did_not_take_is_refused_and_changes_nothing() {
    let mut town = Desk::open(Set::default()).await;
    town.store.failures.store(1, Ordering::SeqCst);
    let registration = registration();
    let request = Request::by("operator", Command::Register { registration, start: true });
    let error = town.engine.ask(request).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::StoreFull);
    assert!(town.engine.town().borrow().agents().is_empty());
    assert!(town.launches.try_recv().is_err(), "nothing is done that is not written down");
    town.close().await;
}

#[tokio::test(start_paused = true)]
async fn an_idle_wrapper_of_another_build_is_ended_after_its_turn_and_replaced_at_once() {
    let store = Desk::open(Set::default()).await.left_running().await;
    let set = Set { store, adoption: Adopt::Found, online: true, build: "1.1.0", ..Set::default() };
    let mut town = Desk::open(set).await;
    let old = town.launched().await;
    town.asked(AgentCommand::Stop { drain: true }).await;
    assert_eq!(old.signals.borrow().terminated, 0, "nobody is in a hurry");
    let ended = Instant::now();
    old.end(WrapperExit::Finished);
    assert_eq!(town.launched().await.generation, 2);
    assert_eq!(ended.elapsed(), Duration::ZERO, "it is no crash to wait after");
    town.phase("running").await;
    town.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_busy_wrapper_of_another_build_is_left_alone_until_it_is_idle() {
    let store = Desk::open(Set::default()).await.left_running().await;
    let state = WrapperState::Active;
    let set = Set { store, adoption: Adopt::Found, online: true, build: "1.1.0", state, ..Set::default() };
    let mut town = Desk::open(set).await;
    let old = town.launched().await;
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert!(town.relay.commands.lock().unwrap().is_empty());
    town.relay.wrapper.lock().unwrap().1 = Some(WrapperState::Idle);
    town.relay.presence.send_replace(WrapperPresence::Connected);
    town.asked(AgentCommand::Stop { drain: true }).await;
    old.end(WrapperExit::Finished);
    assert_eq!(town.launched().await.generation, 2);
    town.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_wrapper_of_this_build_is_kept_and_one_that_is_to_stop_is_not_replaced() {
    let store = Desk::open(Set::default()).await.left_running().await;
    let mut town = Desk::open(Set { store, adoption: Adopt::Found, online: true, ..Set::default() }).await;
    town.launched().await.end_when_asked();
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert!(town.relay.commands.lock().unwrap().is_empty());
    let store = town.store.clone();
    town.task.abort();

    let set = Set { store, adoption: Adopt::Found, online: true, build: "1.1.0", ..Set::default() };
    let mut town = Desk::open(set).await;
    let old = town.launched().await;
    town.asked(AgentCommand::Stop { drain: true }).await;
    town.ask(Command::Stop { agent: id(), drain: true }).await;
    town.settle().await;
    old.end(WrapperExit::Finished);
    assert_eq!(town.phase("stopped").await.generation, 1);
    assert!(town.launches.try_recv().is_err());
    town.close().await;
}

#[tokio::test(start_paused = true)]
async fn the_relay_has_an_agents_config_before_its_wrapper_comes() {
    let mut town = Desk::open(Set::default()).await;
    town.register().await;
    town.launched().await.end_when_asked();
    assert_eq!(town.relay.configs.lock().unwrap().len(), 1);
    town.close().await;
}

/// An engine with its fleet, and a world that the test decides on.
struct Desk {
    engine: EngineHandle,
    store: Arc<FlakyStore>,
    relay: Arc<FakeRelay>,
    launches: mpsc::Receiver<Wrapper>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

/// How the world is.
struct Set {
    store: Arc<FlakyStore>,
    adoption: Adopt,
    online: bool,
    unlaunchable: bool,
    stop_on_exit: bool,
    /// The build of the wrapper that is there, and its state.
    build: &'static str,
    state: WrapperState,
}

impl Default for Set {
    fn default() -> Self {
        let inner = MemoryStore::new(RetentionPolicy::default());
        let store = Arc::new(FlakyStore { inner, failures: AtomicUsize::new(0) });
        Self {
            store,
            adoption: Adopt::Gone,
            online: false,
            unlaunchable: false,
            stop_on_exit: true,
            build: BUILD,
            state: WrapperState::Idle,
        }
    }
}

impl Desk {
    async fn open(set: Set) -> Self {
        let clock = Clock::of_runtime(Timestamp::from_unix_ms(1_795_000_000_000));
        let journal = Journal::open(set.store.clone(), "main".parse().unwrap()).await.unwrap();
        let (engine, handle) = Engine::new(journal, clock.clone());
        let presence = if set.online { WrapperPresence::Connected } else { WrapperPresence::Disconnected };
        let relay = Arc::new(FakeRelay {
            presence: watch::channel(presence).0,
            told: Mutex::default(),
            commands: Mutex::default(),
            configs: Mutex::default(),
            wrapper: Mutex::new((set.build.to_owned(), Some(set.state))),
        });
        let (launched, launches) = mpsc::channel(8);
        let launcher = FakeLauncher { launched, adoption: set.adoption, unlaunchable: set.unlaunchable };
        let folder = tempfile::tempdir().unwrap();
        let keys = Keys::load_or_create(&folder.path().join("key")).unwrap();
        let fleet = Fleet::new(Outside {
            town: "main".parse().unwrap(),
            launcher: Arc::new(launcher),
            relay: relay.clone(),
            relay_url: "http://127.0.0.1:1".into(),
            keys,
            configs: Arc::new(AgentConfigs::open(folder.path()).unwrap()),
            build: BUILD.to_owned(),
            engine: handle.clone(),
            clock,
            stop_grace: GRACE,
            drain_grace: DRAIN,
            reconnect_grace: RECONNECT,
            stop_on_exit: set.stop_on_exit,
        });
        let stop = CancellationToken::new();
        let task = tokio::spawn(engine.run(fleet, stop.clone()));
        Self { engine: handle, store: set.store, relay, launches, stop, task }
    }

    /// The store of a worker that died with an agent running.
    async fn left_running(mut self) -> Arc<FlakyStore> {
        self.register().await;
        self.launched().await;
        self.task.abort();
        self.store
    }

    async fn ask(&self, command: Command) {
        self.engine.ask(Request::by("operator", command)).await.unwrap();
    }

    async fn register(&self) {
        self.ask(Command::Register { registration: registration(), start: true }).await;
    }

    /// The next wrapper that is launched or adopted.
    async fn launched(&mut self) -> Wrapper {
        self.launches.recv().await.unwrap()
    }

    fn town(&self) -> Agent {
        self.engine.town().borrow().agent(&id()).unwrap().clone()
    }

    async fn phase(&self, word: &str) -> Agent {
        let mut town = self.engine.town();
        let is = |town: &Arc<Town>| town.agent(&id()).is_some_and(|agent| agent.phase.word() == word);
        town.wait_for(is).await.unwrap();
        self.town()
    }

    /// Waits until the wrapper was asked for this.
    async fn asked(&self, command: AgentCommand) {
        while !self.relay.commands.lock().unwrap().contains(&command) {
            self.settle().await;
        }
    }

    /// Lets every task go as far as it can without time.
    async fn settle(&self) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }

    async fn close(mut self) {
        while let Ok(wrapper) = self.launches.try_recv() {
            wrapper.end_when_asked();
        }
        self.stop.cancel();
        self.task.await.unwrap();
    }
}

/// A wrapper that the test plays.
#[derive(Debug, Clone)]
struct Wrapper {
    generation: u64,
    signals: watch::Sender<Signals>,
}

#[derive(Debug, Clone, Default)]
struct Signals {
    terminated: u32,
    killed: bool,
    ended: Option<WrapperExit>,
    obedient: bool,
}

impl Wrapper {
    fn end(&self, exit: WrapperExit) {
        self.signals.send_modify(|signals| signals.ended = Some(exit));
    }

    fn end_when_asked(&self) {
        self.signals.send_modify(|signals| signals.obedient = true);
    }

    async fn is(&self, what: impl FnMut(&Signals) -> bool) {
        self.signals.subscribe().wait_for(what).await.unwrap();
    }
}

#[async_trait]
impl WrapperProcess for Wrapper {
    async fn wait(&mut self) -> WrapperExit {
        let mut signals = self.signals.subscribe();
        let ended =
            |signals: &Signals| signals.ended.is_some() || (signals.obedient && signals.terminated > 0);
        signals.wait_for(ended).await.unwrap().ended.clone().unwrap_or(WrapperExit::Finished)
    }

    async fn terminate(&mut self) {
        self.signals.send_modify(|signals| signals.terminated += 1);
    }

    async fn kill(&mut self) {
        self.signals.send_modify(|signals| {
            signals.killed = true;
            signals.ended.get_or_insert(WrapperExit::Crashed { reason: "killed".into() });
        });
    }
}

#[derive(Debug, Clone, Copy)]
enum Adopt {
    Found,
    Gone,
    Unknown,
}

#[derive(Debug)]
struct FakeLauncher {
    launched: mpsc::Sender<Wrapper>,
    adoption: Adopt,
    unlaunchable: bool,
}

impl FakeLauncher {
    fn wrapper(&self, generation: u64) -> Box<Wrapper> {
        let wrapper = Wrapper { generation, signals: watch::channel(Signals::default()).0 };
        self.launched.try_send(wrapper.clone()).expect("the test takes what is launched");
        Box::new(wrapper)
    }
}

#[async_trait]
impl Launcher for FakeLauncher {
    async fn launch(&self, spec: LaunchSpec) -> Result<Box<dyn WrapperProcess>, LaunchError> {
        if self.unlaunchable {
            let source = std::io::ErrorKind::NotFound.into();
            return Err(LaunchError::Spawn { command: "/no/wrapper".into(), source });
        }
        Ok(self.wrapper(spec.generation))
    }

    async fn adopt(&self, _: &AgentId, generation: u64) -> Adoption {
        match self.adoption {
            Adopt::Found => Adoption::Found(self.wrapper(generation)),
            Adopt::Gone => Adoption::Gone,
            Adopt::Unknown => Adoption::Unknown,
        }
    }

    async fn forget(&self, _: &AgentId) -> std::io::Result<()> {
        Ok(())
    }
}

/// A relay that knows whether one wrapper is connected.
struct FakeRelay {
    presence: watch::Sender<WrapperPresence>,
    told: Mutex<VecDeque<NewEvent>>,
    commands: Mutex<Vec<AgentCommand>>,
    configs: Mutex<Vec<SealedConfig>>,
    /// Build and state of the wrapper.
    wrapper: Mutex<(String, Option<WrapperState>)>,
}

#[async_trait]
impl RelayApi for FakeRelay {
    fn follow(&self, _: LogId, _: Option<StartAt>) -> BoxStream<'static, Delivery> {
        let mut presence = self.presence.subscribe();
        presence.mark_changed();
        futures_util::stream::unfold(presence, |mut presence| async {
            presence.changed().await.ok()?;
            let wrapper = *presence.borrow_and_update();
            Some((Delivery::Presence { wrapper, since: Timestamp::default() }, presence))
        })
        .boxed()
    }

    async fn command(
        &self,
        _: &AgentId,
        id: CommandId,
        command: AgentCommand,
    ) -> Result<CommandResult, ApiError> {
        self.commands.lock().unwrap().push(command);
        match *self.presence.borrow() {
            WrapperPresence::Connected => Ok(CommandResult::ok(id)),
            WrapperPresence::Disconnected => {
                Ok(CommandResult::refused(id, ErrorCode::AgentOffline, "no wrapper is connected"))
            }
        }
    }

    async fn configure(&self, _: &AgentId, config: SealedConfig) -> Result<(), ApiError> {
        self.configs.lock().unwrap().push(config);
        Ok(())
    }

    async fn append(&self, _: &LogId, events: Vec<NewEvent>) -> Result<AppendedAt, ApiError> {
        self.told.lock().unwrap().extend(events);
        Ok(AppendedAt { epoch: protocol::Epoch::new("e"), head: Seq::new(1) })
    }

    async fn presence(&self, _: &AgentId) -> Result<Presence, ApiError> {
        let wrapper = *self.presence.borrow();
        let (version, state) = self.wrapper.lock().unwrap().clone();
        Ok(Presence {
            wrapper,
            since: Timestamp::default(),
            state,
            last_activity: None,
            version: Some(version),
            protocol: Some(protocol::PROTOCOL),
        })
    }

    async fn remove_log(&self, _: &LogId) -> Result<(), ApiError> {
        Ok(())
    }
}

fn registration() -> Registration {
    Registration {
        name: "toast".into(),
        role: Role::Polecat,
        runtime: Runtime::of(RuntimeKind::Opencode),
        directory: "/src".into(),
        repository: None,
    }
}

fn crash() -> WrapperExit {
    WrapperExit::Crashed { reason: "exit code 3".into() }
}

fn id() -> AgentId {
    "toast".parse().unwrap()
}
