//! A `gastown up` process: started on a free port, killed and started again, asked over its HTTP API.

use std::{
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use protocol::{AgentId, LogId};
use relay::client::{Client, Credentials, Token};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    time::timeout,
};

/// How long anything in these tests may take before it counts as hung. Nothing waits for this time to pass.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);

/// The binary under test.
pub(crate) const GASTOWN: &str = env!("CARGO_BIN_EXE_gastown");

/// A town in a process of its own. Dropping it kills the process; its wrappers give up by themselves.
pub(crate) struct Gastown {
    child: Child,
    pub(crate) url: String,
    /// A link that logs a browser in once.
    pub(crate) login: String,
    pub(crate) token: String,
    pub(crate) http: reqwest::Client,
    environment: Vec<(String, String)>,
    data: TempDir,
}

impl Gastown {
    /// Starts `gastown up` on a free port with a fresh data folder.
    pub(crate) async fn up(environment: &[(String, String)]) -> Self {
        let data = tempfile::Builder::new().prefix("gastown-").tempdir().expect("a temporary folder");
        let environment = environment.to_vec();
        let (child, ready) = spawn(data.path(), "127.0.0.1:0", &environment).await;
        let token =
            std::fs::read_to_string(data.path().join("operator-token")).expect("the operator token is there");
        let text =
            |key: &str| ready[key].as_str().unwrap_or_else(|| panic!("no {key} in {ready}")).to_owned();
        Self {
            child,
            url: text("url"),
            login: text("login"),
            token: token.trim().to_owned(),
            http: super::http(),
            environment,
            data,
        }
    }

    /// Ends the process at once, as a power cut does.
    pub(crate) async fn kill9(&mut self) {
        self.child.kill().await.expect("the server was there to be killed");
    }

    /// Asks the process to end, and waits for it.
    pub(crate) async fn terminate(&mut self) -> ExitStatus {
        kill_process(self.pid(), Signal::TERM).expect("the server is there");
        timeout(PATIENCE, self.child.wait()).await.expect("the server ends").expect("it can be waited for")
    }

    /// Starts the process again, on the same port and data.
    pub(crate) async fn start_again(&mut self) {
        let address = self.url.strip_prefix("http://").expect("a plain URL").to_owned();
        let (child, ready) = spawn(self.data.path(), &address, &self.environment).await;
        self.child = child;
        self.login = ready["login"].as_str().expect("a login link").to_owned();
    }

    pub(crate) fn pid(&self) -> Pid {
        let pid = self.child.id().expect("the server runs");
        Pid::from_raw(i32::try_from(pid).expect("a pid")).expect("a pid")
    }

    /// The variables it was started with, besides those of this process.
    pub(crate) fn environment(&self) -> impl Iterator<Item = (&str, &str)> {
        self.environment.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    pub(crate) fn data_dir(&self) -> &Path {
        self.data.path()
    }

    /// Where the wrapper of an agent keeps its state.
    pub(crate) fn state_dir(&self, agent: &AgentId) -> PathBuf {
        self.data.path().join("agents").join(agent.as_str())
    }

    pub(crate) fn client(&self) -> Client {
        Client::new(&self.url, Credentials::bearer(Token::new(&self.token))).expect("the URL is good")
    }

    /// Registers an agent and starts it.
    pub(crate) async fn start_agent(&self, registration: Value) -> AgentId {
        let answer = self.api("POST", "/agents", Some(registration)).await;
        answer["id"]
            .as_str()
            .or(answer["agent"]["id"].as_str())
            .expect("the agent has an id")
            .parse()
            .expect("an id")
    }

    /// Calls `/api/towns/main/…` and gives `data` back; panics on a refusal.
    pub(crate) async fn api(&self, method: &str, path: &str, body: Option<Value>) -> Value {
        let (status, answer) = self.call(method, &format!("/api/towns/main{path}"), body).await;
        assert!(answer["success"] == json!(true), "{method} {path}: {status} {answer}");
        answer["data"].clone()
    }

    /// Sends a command to an agent and gives its result back.
    pub(crate) async fn command(&self, agent: &AgentId, command: Value) -> (u16, Value) {
        self.call("POST", &format!("/v1/agents/{agent}/commands"), Some(command)).await
    }

    /// Sends a prompt and expects it to be taken.
    pub(crate) async fn prompt(&self, agent: &AgentId, text: &str) {
        let (status, answer) = self.command(agent, json!({ "type": "prompt", "text": text })).await;
        assert_eq!((status, &answer["ok"]), (200, &json!(true)), "{answer}");
    }

    /// One request with the operator token.
    pub(crate) async fn call(&self, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
        let method = method.parse().expect("a method");
        let mut request = self.http.request(method, format!("{}{path}", self.url)).bearer_auth(&self.token);
        if let Some(body) = body {
            request = request.json(&body);
        }
        let response = request.send().await.expect("the server answers");
        let status = response.status().as_u16();
        (status, response.json().await.unwrap_or(Value::Null))
    }
}

impl Drop for Gastown {
    fn drop(&mut self) {
        // Graceful first, so that wrappers and agent servers go with it; they are children of children.
        if let Some(pid) = self.child.id().and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?)) {
            let _ = kill_process(pid, Signal::TERM);
            let _ = rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty());
        }
        if std::thread::panicking() {
            self.show_logs();
        }
    }
}

impl Gastown {
    /// What the wrappers wrote, where a test failed.
    fn show_logs(&self) {
        for agent in std::fs::read_dir(self.data.path().join("agents")).into_iter().flatten().flatten() {
            let log = std::fs::read_to_string(agent.path().join("wrapper.log")).unwrap_or_default();
            let tail: Vec<&str> = log.lines().rev().take(40).collect();
            eprintln!("--- {}", agent.path().display());
            tail.iter().rev().for_each(|line| eprintln!("{line}"));
        }
    }
}

/// The name of an agent's log.
pub(crate) fn log_of(agent: &AgentId) -> LogId {
    LogId::Agent(agent.clone())
}

async fn spawn(data: &Path, listen: &str, environment: &[(String, String)]) -> (Child, Value) {
    let mut child = Command::new(GASTOWN)
        .args(["up", "--json", "--listen", listen, "--data-dir"])
        .arg(data)
        .envs(environment.iter().map(|(key, value)| (key, value)))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("the binary starts");
    let output = child.stdout.take().expect("the output is piped");
    let mut lines = BufReader::new(output).lines();
    let line =
        timeout(PATIENCE, lines.next_line()).await.expect("the server becomes ready").expect("its output");
    let Some(line) = line else {
        let status = child.wait().await;
        panic!("gastown up ended before it was ready: {status:?}");
    };
    (child, serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}")))
}
