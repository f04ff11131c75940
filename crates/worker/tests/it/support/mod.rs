//! A worker on a port of its own, with a launcher whose wrappers the test plays.

pub(crate) mod link;
pub(crate) mod wrappers;

use std::{future::Future, net::SocketAddr, path::Path, sync::Arc, time::Duration};

use gastown_worker::{Worker, WorkerConfig, start};
use reqwest::{Client, Method, RequestBuilder, StatusCode, redirect::Policy};
use serde_json::{Value, json};
use store::{EventStore, MemoryStore, RetentionPolicy};
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use self::wrappers::{FakeLauncher, Launched};

/// How long anything may take on a machine that is busy with other things.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A worker that runs.
pub(crate) struct TestWorker {
    pub(crate) worker: Worker,
    pub(crate) address: SocketAddr,
    pub(crate) token: String,
    pub(crate) launcher: Arc<FakeLauncher>,
    pub(crate) folder: Arc<tempfile::TempDir>,
    pub(crate) store: Arc<dyn EventStore>,
    http: Client,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl TestWorker {
    /// One with an empty data folder and a store in memory.
    pub(crate) async fn start() -> Self {
        Self::start_with(|config| config).await
    }

    pub(crate) async fn start_with(configure: impl FnOnce(WorkerConfig) -> WorkerConfig) -> Self {
        let folder = Arc::new(tempfile::tempdir().unwrap());
        let store = Arc::new(MemoryStore::new(RetentionPolicy::default()));
        Self::start_in(folder, store, configure).await
    }

    /// One over what an earlier one left.
    pub(crate) async fn start_in(
        folder: Arc<tempfile::TempDir>,
        store: Arc<dyn EventStore>,
        configure: impl FnOnce(WorkerConfig) -> WorkerConfig,
    ) -> Self {
        Self::start_over(folder, store, FakeLauncher::default(), configure).await
    }

    /// The same with this launcher.
    pub(crate) async fn start_over(
        folder: Arc<tempfile::TempDir>,
        store: Arc<dyn EventStore>,
        launcher: FakeLauncher,
        configure: impl FnOnce(WorkerConfig) -> WorkerConfig,
    ) -> Self {
        let launcher = Arc::new(launcher);
        let config =
            WorkerConfig::new(folder.path()).with_store(store.clone()).with_launcher(launcher.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let running = start(configure(config), listener).await.unwrap();
        let worker = running.worker().clone();
        let stop = CancellationToken::new();
        let stopped = stop.clone().cancelled_owned();
        let task = tokio::spawn(async move { running.run_until(stopped).await.unwrap() });
        let token = std::fs::read_to_string(folder.path().join("operator-token")).unwrap().trim().to_owned();
        // Another test may have been first; nothing is encrypted on loopback anyway.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = Client::builder().redirect(Policy::none()).no_proxy().build().unwrap();
        Self { worker, address, token, launcher, folder, store, http, stop, task }
    }

    /// Goes down in order, and leaves its folder and store.
    pub(crate) async fn stop(self) -> (Arc<tempfile::TempDir>, Arc<dyn EventStore>) {
        self.stop.cancel();
        in_time("the worker goes down", self.task).await.unwrap();
        (self.folder, self.store)
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// A request without credentials.
    pub(crate) fn plain(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, self.url(path)).timeout(PATIENCE)
    }

    /// A request of the operator.
    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.plain(method, path).bearer_auth(&self.token)
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        answer(self.request(Method::GET, path)).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answer {
        answer(self.request(Method::POST, path).json(body)).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Answer {
        answer(self.request(Method::DELETE, path)).await
    }

    /// Registers an agent, and starts it if that is wanted.
    pub(crate) async fn register(&self, name: &str, start: bool) {
        let answer =
            self.post("/api/towns/main/agents", &registration(name, self.folder.path(), start)).await;
        assert_eq!(answer.status, StatusCode::CREATED, "{answer:?}");
    }

    /// Registers an agent, starts it, and gives the wrapper that was launched.
    pub(crate) async fn launch(&self, name: &str) -> Launched {
        self.register(name, true).await;
        self.launcher.next().await
    }

    /// Logs a browser in with a one-use link: the cookie to send.
    pub(crate) async fn cookie(&self) -> String {
        let url = self.worker.one_use_login_url();
        let response = in_time("the login link", self.http.get(url).send()).await.unwrap();
        assert_eq!(response.status(), StatusCode::SEE_OTHER);
        let cookie = response.headers()["set-cookie"].to_str().unwrap();
        cookie.split(';').next().unwrap().to_owned()
    }

    /// Waits until an agent's phase is this one.
    pub(crate) async fn phase(&self, agent: &str, phase: &str) -> town::Agent {
        let agent = agent.parse().unwrap();
        let mut town = self.worker.town();
        let is = |town: &Arc<town::Town>| town.agent(&agent).is_some_and(|agent| agent.phase.word() == phase);
        let found = in_time(&format!("{agent} is {phase}"), town.wait_for(is)).await.unwrap().clone();
        found.agent(&agent).unwrap().clone()
    }

    /// Waits until an agent is gone.
    pub(crate) async fn gone(&self, agent: &str) {
        let agent = agent.parse().unwrap();
        let mut town = self.worker.town();
        in_time(&format!("{agent} is gone"), town.wait_for(|town| town.agent(&agent).is_none()))
            .await
            .unwrap();
    }
}

/// What was answered, as JSON.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) body: Value,
}

impl Answer {
    /// The data of an answer that is a success.
    pub(crate) fn data(&self) -> &Value {
        assert_eq!(self.body["success"], true, "{self:?}");
        &self.body["data"]
    }

    /// The code and the sentence of an answer that is none.
    pub(crate) fn refusal(&self) -> (&str, &str) {
        assert_eq!(self.body["success"], false, "{self:?}");
        (self.body["code"].as_str().unwrap(), self.body["error"].as_str().unwrap())
    }
}

pub(crate) async fn answer(request: RequestBuilder) -> Answer {
    let response = request.send().await.unwrap();
    let status = response.status();
    Answer { status, body: response.json().await.unwrap() }
}

pub(crate) fn registration(name: &str, directory: &Path, start: bool) -> Value {
    json!({ "name": name, "runtime": { "kind": "opencode" }, "directory": directory, "start": start })
}

/// Waits for what must come.
pub(crate) async fn in_time<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("not in time: {what}"),
    }
}
