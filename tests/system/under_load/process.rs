//! A `gastown relay` process: started on a free port, killed, stopped, told to end, started again on the same port.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use protocol::{AgentId, Timestamp};
use relay::{
    auth::{Claims, Keys, ServiceClaims, WrapperClaims},
    client::{Client, Credentials, Token},
};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    time::timeout,
};

use crate::support::server::{GASTOWN, PATIENCE};

/// The process and its data folder, which the caller keeps.
pub(crate) struct RelayProcess {
    child: Child,
    /// Its own pid, also where another program started it.
    pid: Pid,
    data: PathBuf,
    /// `127.0.0.1:port`, the same over all its lives.
    pub(crate) address: String,
    keys: Keys,
}

impl RelayProcess {
    /// Starts on a free port.
    pub(crate) async fn start(data: &Path) -> Self {
        Self::start_under(&[], data).await
    }

    /// The same, as the argument of another program (and its arguments).
    pub(crate) async fn start_under(program: &[&str], data: &Path) -> Self {
        let (child, pid, address) = spawn(program, data, "127.0.0.1:0").await;
        let keys = Keys::load(&data.join("signing-key")).expect("the relay made its key");
        Self { child, pid, data: data.to_owned(), address, keys }
    }

    /// SIGKILL.
    pub(crate) async fn kill9(&mut self) {
        self.child.kill().await.expect("the relay was there to be killed");
    }

    /// Starts it again where it was.
    pub(crate) async fn start_again(&mut self) {
        (self.child, self.pid, _) = spawn(&[], &self.data, &self.address).await;
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.pid, signal).expect("the relay is there");
    }

    /// Waits for its end.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        timeout(PATIENCE, self.child.wait()).await.expect("the relay ends").expect("it can be waited for")
    }

    /// Bytes of memory that it holds.
    pub(crate) fn resident_bytes(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid.as_raw_pid())).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a process has a size");
        line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024
    }

    /// P12: no more than 64 MiB, 32 KiB a viewer, 256 KiB an agent.
    pub(crate) fn assert_memory_bounded(&self, viewers: usize, agents: usize) {
        let allowed = (64 << 20) + viewers as u64 * (32 << 10) + agents as u64 * (256 << 10);
        let resident = self.resident_bytes();
        assert!(resident <= allowed, "P12: {resident} bytes are resident, {allowed} are allowed");
    }

    pub(crate) fn client(&self) -> Client {
        self.client_at(&self.address)
    }

    /// A client that goes another way.
    pub(crate) fn client_at(&self, address: &str) -> Client {
        Client::new(&format!("http://{address}"), Credentials::bearer(Token::new(&self.service_token())))
            .expect("the URL is good")
    }

    /// What reads every log of the town.
    pub(crate) fn service_token(&self) -> String {
        let claims = ServiceClaims { town: town(), service: "test".to_owned(), expires: never() };
        self.keys.sign(&Claims::Service(claims)).expose().to_owned()
    }

    /// What a wrapper of this generation shows.
    pub(crate) fn wrapper_token(&self, agent: &AgentId, generation: u64) -> wrapper::link::Token {
        let claims = WrapperClaims { town: town(), agent: agent.clone(), generation, expires: never() };
        wrapper::link::Token::new(self.keys.sign(&Claims::Ingest(claims)).expose())
    }
}

/// The town of every relay here.
pub(crate) fn town() -> protocol::TownId {
    "main".parse().expect("it is an id")
}

fn never() -> Timestamp {
    relay::server::now().after(Duration::from_secs(24 * 3600))
}

async fn spawn(program: &[&str], data: &Path, listen: &str) -> (Child, Pid, String) {
    let mut words: Vec<&str> = program.to_vec();
    words.extend([GASTOWN, "relay", "--json", "--listen", listen, "--data-dir"]);
    let mut child = Command::new(words[0])
        .args(&words[1..])
        .arg(data)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap_or_else(|error| panic!("{} does not start: {error}", words[0]));
    let mut lines = BufReader::new(child.stdout.take().expect("the output is piped")).lines();
    let line = timeout(PATIENCE, lines.next_line()).await.expect("the relay becomes ready");
    let line = line.expect("its output").expect("the relay did not end before it was ready");
    let ready: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
    let url = ready["url"].as_str().expect("it says its URL");
    let pid = ready["pid"].as_i64().and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
    (child, pid.expect("it says its pid"), url.strip_prefix("http://").expect("a plain URL").to_owned())
}
