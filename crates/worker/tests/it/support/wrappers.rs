//! Wrappers that are no processes: the test says how they end.

use async_trait::async_trait;
use gastown_worker::{Adoption, LaunchError, LaunchSpec, Launcher, WrapperProcess};
use protocol::AgentId;
use tokio::sync::{mpsc, watch};
use town::WrapperExit;

use super::in_time;

/// A launcher whose wrappers the test plays.
#[derive(Debug)]
pub(crate) struct FakeLauncher {
    launched: mpsc::Sender<Launched>,
    launches: tokio::sync::Mutex<mpsc::Receiver<Launched>>,
    /// Agents whose files were removed.
    forgotten: watch::Sender<Vec<AgentId>>,
    /// Whether it cannot tell what became of wrappers that an earlier worker launched.
    blind: bool,
}

impl Default for FakeLauncher {
    fn default() -> Self {
        let (launched, launches) = mpsc::channel(64);
        let (forgotten, _) = watch::channel(Vec::new());
        Self { launched, launches: launches.into(), forgotten, blind: false }
    }
}

impl FakeLauncher {
    /// One that cannot tell what became of wrappers that an earlier worker launched.
    pub(crate) fn blind() -> Self {
        Self { blind: true, ..Self::default() }
    }

    /// Waits until an agent's files were removed.
    pub(crate) async fn forgot(&self, agent: &str) {
        let mut forgotten = self.forgotten.subscribe();
        let has = |forgotten: &Vec<AgentId>| forgotten.iter().any(|one| one.as_str() == agent);
        in_time("the agent is forgotten", forgotten.wait_for(has)).await.unwrap();
    }

    /// The next wrapper that is launched.
    pub(crate) async fn next(&self) -> Launched {
        in_time("a wrapper is launched", async { self.launches.lock().await.recv().await }).await.unwrap()
    }

    /// Whether one was launched that the test has not taken.
    pub(crate) async fn has_more(&self) -> bool {
        !self.launches.lock().await.is_empty()
    }
}

/// A wrapper that was launched.
#[derive(Debug)]
pub(crate) struct Launched {
    pub(crate) spec: LaunchSpec,
    state: watch::Sender<State>,
}

#[derive(Debug, Clone, Default)]
struct State {
    terminated: bool,
    ended: Option<WrapperExit>,
}

impl Launched {
    /// It ends.
    pub(crate) fn end(&self, exit: WrapperExit) {
        self.state.send_modify(|state| state.ended = Some(exit));
    }

    /// Waits until it was asked to end.
    pub(crate) async fn terminated(&self) {
        let mut state = self.state.subscribe();
        in_time("the wrapper is asked to end", state.wait_for(|state| state.terminated)).await.unwrap();
    }
}

#[async_trait]
impl Launcher for FakeLauncher {
    async fn launch(&self, spec: LaunchSpec) -> Result<Box<dyn WrapperProcess>, LaunchError> {
        let (state, _) = watch::channel(State::default());
        let process = FakeProcess { state: state.clone() };
        self.launched.try_send(Launched { spec, state }).expect("the test takes what is launched");
        Ok(Box::new(process))
    }

    async fn adopt(&self, _: &AgentId, _: u64) -> Adoption {
        if self.blind { Adoption::Unknown } else { Adoption::Gone }
    }

    async fn forget(&self, agent: &AgentId) -> std::io::Result<()> {
        self.forgotten.send_modify(|forgotten| forgotten.push(agent.clone()));
        Ok(())
    }
}

#[derive(Debug)]
struct FakeProcess {
    state: watch::Sender<State>,
}

#[async_trait]
impl WrapperProcess for FakeProcess {
    async fn wait(&mut self) -> WrapperExit {
        let mut state = self.state.subscribe();
        let ended = state.wait_for(|state| state.ended.is_some()).await.unwrap();
        ended.ended.clone().unwrap()
    }

    async fn terminate(&mut self) {
        self.state.send_modify(|state| {
            state.terminated = true;
            state.ended.get_or_insert(WrapperExit::Finished);
        });
    }

    async fn kill(&mut self) {
        self.state.send_modify(|state| {
            state.ended.get_or_insert(WrapperExit::Crashed { reason: "killed".into() });
        });
    }
}
