//! Worker and relay as two processes: everything that people type, and the dashboard, works as with one.

use std::{
    path::Path,
    process::{Output, Stdio},
};

use futures_util::StreamExt as _;
use relay::client::{Client, Credentials, Token};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader, Lines},
    process::{Child, ChildStdout, Command},
    time::timeout,
};
use tokio_tungstenite::{
    connect_async,
    tungstenite::{Message, client::IntoClientRequest as _},
};

use crate::support::{
    http,
    server::{GASTOWN, PATIENCE},
    viewer::wrapper_is_back,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p3_the_command_line_starts_watches_and_steers_an_agent_whose_log_is_at_a_relay_elsewhere() {
    let town = Split::start().await;
    let started = town.start_agent().await;
    assert!(started.starts_with("toast is up: scripted"), "{started}");
    let listed: Value = serde_json::from_str(&done(town.gastown(&["agents", "--json"]).await)).expect("JSON");
    assert_eq!(
        (&listed[0]["id"], &listed[0]["activity"]["state"]),
        (&json!("toast"), &json!("idle")),
        "{listed}"
    );

    let mut watch = town.watch(&["--json"]);
    done(town.gastown(&["prompt", "toast", "work"]).await);
    watch.until("permission.asked").await;
    done(town.gastown(&["permit", "toast", "once"]).await);
    watch.until("session.turn.close").await;

    done(town.gastown(&["prompt", "toast", "[[long]]"]).await);
    watch.until_text("it takes its time").await;
    done(town.gastown(&["abort", "toast"]).await);
    watch.until("session.error").await;
    let end = watch.until("session.turn.close").await;

    // From a cursor: what comes after it, and not one event twice.
    let page = town.relay_page().await;
    let cursor = format!("{}:{}", page["epoch"].as_str().expect("an epoch"), watch.seen[0]["seq"]);
    let again = done(town.gastown(&["watch", "toast", "--json", "--no-follow", "--after", &cursor]).await);
    let again: Vec<Value> = again.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let seqs: Vec<u64> = again.iter().map(|event| event["seq"].as_u64().expect("a seq")).collect();
    assert!(
        seqs.is_sorted_by(|a, b| a < b) && seqs[0] > watch.seen[0]["seq"].as_u64().expect("a seq"),
        "{seqs:?}"
    );
    assert!(again.contains(&end), "{again:?}");
    town.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_that_was_away_is_found_again_with_a_fresh_token() {
    let mut town = Split::start().await;
    town.start_agent().await;
    let mut watch = town.watch(&["--json"]);
    watch.until("agent.started").await;
    town.restart_relay().await;
    // The worker may not have found it yet: what the command line says then is what it says to people.
    let refused = town.gastown(&["permit", "toast", "once"]).await;
    assert_eq!(refused.status.code(), Some(5), "nobody asked for a permission: {refused:?}");
    town.wrapper_is_back().await;
    done(town.gastown(&["prompt", "toast", "work"]).await);
    watch.until("permission.asked").await;
    let seqs: Vec<u64> = watch.seen.iter().map(|event| event["seq"].as_u64().expect("a seq")).collect();
    assert!(seqs.is_sorted_by(|a, b| a < b), "nothing twice: {seqs:?}");
    town.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p17_a_link_to_an_agent_is_good_at_both_until_it_is_taken_back() {
    let town = Split::start().await;
    town.start_agent().await;
    let link = done(town.gastown(&["share", "toast", "--expires", "1h", "--label", "review"]).await);
    let token = link.trim().rsplit('/').next().expect("a token").to_owned();
    let stream =
        format!("{}/v1/agents/toast/stream?ticket={token}", town.relay.url.replacen("http", "ws", 1));
    // The relay reads of it in its copy of the journal, which is on its way.
    let let_in = async {
        loop {
            let (mut socket, _) = connect_async(&stream).await.expect("the relay is there");
            let said = socket.next().await.expect("a frame").expect("a frame").to_string();
            if said.contains("\"hello\"") {
                return socket;
            }
            assert!(said.contains("unauthenticated"), "{said}");
        }
    };
    let mut socket = timeout(PATIENCE, let_in).await.expect("the relay hears of it");
    let listed = done(town.gastown(&["share", "list", "toast"]).await);
    let id = listed.split_whitespace().next().expect("an id");
    assert!(listed.trim_end().ends_with("review") && !listed.contains(&token), "{listed}");
    done(town.gastown(&["share", "revoke", "toast", &id[..8]]).await);
    let closed = async {
        loop {
            if let Message::Close(Some(close)) = socket.next().await.expect("a frame").expect("a frame") {
                return u16::from(close.code);
            }
        }
    };
    assert_eq!(timeout(PATIENCE, closed).await.expect("it is closed"), 4401);
    town.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_dashboard_shows_an_agent_whose_log_is_at_a_relay_elsewhere() {
    let town = Split::start().await;
    town.start_agent().await;
    done(town.gastown(&["prompt", "toast", "work"]).await);
    town.watch(&["--json"]).until("permission.asked").await;
    let request = http().get(format!("{}/agents/toast", town.worker.url)).bearer_auth(&town.token);
    let page = request.send().await.expect("the worker answers").text().await.expect("a page");
    assert!(page.contains("data-stream=\"/v1/agents/toast/stream\""), "{page}");
    let url = format!("{}/v1/agents/toast/stream?view=html", town.worker.url.replacen("http", "ws", 1));
    let mut request = url.into_client_request().expect("a URL");
    let bearer = format!("Bearer {}", town.token).parse().expect("a header");
    request.headers_mut().insert("authorization", bearer);
    let (mut stream, _) = connect_async(request).await.expect("the worker streams pages");
    done(town.gastown(&["permit", "toast", "once"]).await);
    let patched = async {
        loop {
            let message = stream.next().await.expect("a frame").expect("a frame");
            if message.to_text().is_ok_and(|text| text.contains("\"patch\"")) {
                return;
            }
        }
    };
    timeout(PATIENCE, patched).await.expect("the page is told");
    town.stop().await;
}

/// A relay and a worker, each in a process and a data directory of its own.
pub(crate) struct Split {
    // Fields are dropped in this order: the worker says its last words while the relay is there.
    worker: Server,
    relay: Server,
    relay_dir: TempDir,
    worker_dir: TempDir,
    work: TempDir,
    scenario: String,
    token: String,
    /// Of the worker, and of everything that people type.
    environment: Vec<(String, String)>,
}

struct Server {
    child: Child,
    url: String,
}

impl Drop for Server {
    fn drop(&mut self) {
        // In order even when a test has failed: a wrapper whose worker was killed waits for the next one.
        if let Some(pid) = self.child.id().and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?)) {
            let _ = kill_process(pid, Signal::TERM);
            let _ = rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty());
        }
    }
}

impl Split {
    async fn start() -> Self {
        Self::start_with(&[], async |relay| relay.to_owned()).await
    }

    /// The same, with a relay that is reached elsewhere than where it says.
    pub(crate) async fn start_with(
        environment: &[(String, String)],
        reached: impl AsyncFnOnce(&str) -> String,
    ) -> Self {
        let folder = || tempfile::Builder::new().prefix("gastown-").tempdir().expect("a temporary folder");
        let (relay_dir, worker_dir, work) = (folder(), folder(), folder());
        let scenario = work.path().join("scenario.json");
        std::fs::write(&scenario, scenario_text().to_string()).expect("the scenario is written");
        let mut relay = serve("relay", relay_dir.path(), &["--listen", "127.0.0.1:0"], &[]).await;
        relay.url = reached(&relay.url).await;
        let key = relay_dir.path().join("signing-key").display().to_string();
        let arguments = ["--listen", "127.0.0.1:0", "--relay", &relay.url, "--signing-key", &key];
        let worker = serve("worker", worker_dir.path(), &arguments, environment).await;
        let token = std::fs::read_to_string(worker_dir.path().join("operator-token")).expect("a token");
        let scenario = scenario.display().to_string();
        let (token, environment) = (token.trim().to_owned(), environment.to_vec());
        Self { worker, relay, relay_dir, worker_dir, work, scenario, token, environment }
    }

    async fn restart_relay(&mut self) {
        self.relay.child.kill().await.expect("the relay was there");
        let address = self.relay.url.strip_prefix("http://").expect("a plain URL").to_owned();
        self.relay = serve("relay", self.relay_dir.path(), &["--listen", &address], &[]).await;
    }

    /// A command of the command line that knows nothing but the worker's data directory.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(GASTOWN);
        command.args(arguments).env("GASTOWN_DATA_DIR", self.worker_dir.path()).current_dir(self.work.path());
        command.envs(self.environment.iter().cloned()).stdin(Stdio::null()).kill_on_drop(true);
        command
    }

    pub(crate) async fn gastown(&self, arguments: &[&str]) -> Output {
        let output = self.command(arguments).output();
        timeout(PATIENCE, output).await.expect("the command ends").expect("the binary starts")
    }

    /// Starts `toast`, and gives back what the command line says of that.
    pub(crate) async fn start_agent(&self) -> String {
        let start = ["agent", "start", "toast", "--runtime", "scripted", "--scenario", &self.scenario];
        done(self.gastown(&start).await)
    }

    pub(crate) fn watch(&self, arguments: &[&str]) -> Watch {
        let mut command = self.command(&[&["watch", "toast"], arguments].concat());
        let mut child = command.stdout(Stdio::piped()).spawn().expect("the binary starts");
        let lines = BufReader::new(child.stdout.take().expect("the output is piped")).lines();
        Watch { _child: child, lines, seen: Vec::new() }
    }

    /// Waits until the relay has the agent's wrapper again.
    async fn wrapper_is_back(&self) {
        let client = Client::new(&self.relay.url, Credentials::bearer(Token::new(&self.relay_token().await)));
        wrapper_is_back(&client.expect("the URL is good"), "agent/toast".parse().expect("a log")).await;
    }

    /// What the relay has of the agent's log.
    async fn relay_page(&self) -> Value {
        let token = self.relay_token().await;
        let page = http().get(format!("{}/v1/agents/toast/events", self.relay.url)).bearer_auth(token);
        page.send().await.expect("an answer").json().await.expect("JSON")
    }

    /// What the worker gives a client for the relay.
    async fn relay_token(&self) -> String {
        let there = http().get(format!("{}/api/towns/main/relay", self.worker.url)).bearer_auth(&self.token);
        let there: Value = there.send().await.expect("an answer").json().await.expect("JSON");
        assert_eq!(there["data"]["url"], self.relay.url);
        there["data"]["token"].as_str().expect("a token").to_owned()
    }

    /// Both end in order.
    pub(crate) async fn stop(mut self) {
        for server in [&mut self.worker, &mut self.relay] {
            let pid = Pid::from_raw(i32::try_from(server.child.id().expect("it runs")).expect("a pid"));
            kill_process(pid.expect("a pid"), Signal::TERM).expect("it is there");
            let status = timeout(PATIENCE, server.child.wait()).await.expect("it ends").expect("a status");
            assert!(status.success(), "{status}");
        }
    }
}

/// A `gastown watch --json` that runs.
pub(crate) struct Watch {
    _child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    seen: Vec<Value>,
}

impl Watch {
    /// The next event of this type.
    pub(crate) async fn until(&mut self, kind: &str) -> Value {
        self.until_event(kind, |event| event["type"] == kind).await
    }

    /// The next event that holds this text.
    async fn until_text(&mut self, text: &str) -> Value {
        self.until_event(text, |event| event.to_string().contains(text)).await
    }

    async fn until_event(&mut self, what: &str, is_wanted: impl Fn(&Value) -> bool) -> Value {
        let reading = async {
            loop {
                let line = self.lines.next_line().await.expect("it can be read").expect("the watch goes on");
                let event: Value = serde_json::from_str(&line).expect("JSON");
                self.seen.push(event.clone());
                if is_wanted(&event) {
                    return event;
                }
            }
        };
        timeout(PATIENCE, reading).await.unwrap_or_else(|_| panic!("waited in vain for {what}"))
    }
}

async fn serve(what: &str, data_dir: &Path, arguments: &[&str], environment: &[(String, String)]) -> Server {
    let mut command = Command::new(GASTOWN);
    command.arg(what).args(arguments).args(["--json", "--data-dir"]).arg(data_dir);
    let mut child = command
        .envs(environment.iter().cloned())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("the binary starts");
    let mut lines = BufReader::new(child.stdout.take().expect("the output is piped")).lines();
    let line = timeout(PATIENCE, lines.next_line()).await.expect("it becomes ready").expect("its output");
    let ready: Value = serde_json::from_str(&line.expect("a line")).expect("JSON");
    Server { child, url: ready["url"].as_str().expect("a URL").to_owned() }
}

/// What a command that went well wrote.
pub(crate) fn done(output: Output) -> String {
    let Output { status, stdout, stderr } = output;
    assert!(status.success(), "{status}: {}", String::from_utf8_lossy(&stderr));
    String::from_utf8(stdout).expect("text")
}

fn scenario_text() -> Value {
    json!({
        "title": "Two processes",
        "model": { "providerID": "test", "modelID": "scripted" },
        "turns": [
            { "name": "work", "free": true, "steps": [{ "latency_ms": 0, "actions": [
                { "bash": { "command": "echo done", "description": "Do it", "ask": { "always": ["echo *"] } } },
                { "text": { "text": "That was it.", "delay_ms": 0 } },
            ] }] },
            { "name": "long", "steps": [{ "latency_ms": 0, "actions": [
                { "text": { "text": "Well, it takes its time …", "delay_ms": 0 } },
                { "pause": { "ms": 3_600_000 } },
            ] }] },
        ],
    })
}
