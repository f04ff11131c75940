//! Starts that go wrong, and agents that are started twice.

use std::{net::TcpListener, process::Stdio};

use relay::auth::{Claims, Keys, WrapperClaims};
use serde_json::json;
use tokio::{process::Command, time::timeout};

use super::{FENCED, Fault, fault, tried::Tried};
use crate::support::{
    agent_server::Server,
    process::{NO_AGENT, Role, gone_within},
    server::{GASTOWN, PATIENCE},
};

pub(super) const FAULTS: &[Fault] = &[
    fault!(
        "The agent server's program is not there",
        "moved away while the agent is stopped",
        "one `agent.failed` that names it; the town knows the agent as failed; put back and started, it goes on",
        not_there,
    ),
    fault!(
        "The agent server dies at its start",
        "it writes a line to stderr and exits with 3, each time",
        "four times `agent.failed` with the code and the line; then the town knows the agent as failed",
        dies_at_start,
    ),
    fault!(
        "The agent server's configuration is broken",
        "no JSON",
        "opencode: `agent.failed` with its own words, and it comes up with the first try after it is mended; kilo starts without it",
        bad_config,
    ),
    fault!(
        "The port is taken",
        "somebody else listens on 4096, which `--port 0` means where it is free",
        "the agent server listens elsewhere, and its wrapper finds it by what it says",
        squatted,
    ),
    fault!(
        "Started twice through the town",
        "a second start while it runs",
        "the same process goes on",
        started_twice,
    ),
    fault!(
        "A second wrapper in the same state dir",
        "the wrapper's command again, with a higher generation",
        "it exits at once and says that the outbox is in use; the agent goes on",
        same_state_dir,
    ),
    fault!(
        "A wrapper of an older generation",
        "one with a good token comes after the newer one",
        "it is refused, exits with 21 and leaves nothing; the agent goes on",
        older_generation,
    ),
    fault!(
        "A wrapper of a newer generation",
        "one comes elsewhere with the same session",
        "the older one stops its agent within 10 s and exits; the session goes on under the newer one",
        newer_generation,
    ),
];

async fn not_there(tried: &mut Tried) {
    tried.stop().await;
    tried.program_is_there(false);
    tried.request_start().await;
    let failed = tried.until_agent_says("agent.failed").await;
    assert!(failed["message"].as_str().is_some_and(|said| said.contains("launcher")), "{failed}");
    tried.until_town_says("town.agent.failed").await;
    tried.processes.settle(NO_AGENT).await;
    tried.program_is_there(true);
    tried.request_start().await;
    tried.agent.ready_again().await;
}

async fn dies_at_start(tried: &mut Tried) {
    tried.stop().await;
    tried.before_start("echo 'cannot find libwonder.so' >&2; exit 3\n");
    tried.request_start().await;
    for _ in 0..4 {
        let failed = tried.until_agent_says("agent.failed").await;
        assert_eq!(
            (&failed["exit_code"], &failed["stderr"]),
            (&json!(3), &json!(["cannot find libwonder.so"]))
        );
    }
    tried.until_town_says("town.agent.failed").await;
    tried.processes.settle(NO_AGENT).await;
    tried.before_start("");
    tried.request_start().await;
    tried.agent.ready_again().await;
}

async fn bad_config(tried: &mut Tried) {
    tried.stop().await;
    tried.before_start(
        "export OPENCODE_CONFIG_CONTENT='{\"model\": 7,' KILO_CONFIG_CONTENT='{\"model\": 7,'\n",
    );
    tried.request_start().await;
    if tried.agent.server == Server::Opencode {
        let failed = tried.until_agent_says("agent.failed").await;
        assert!(
            failed["message"].as_str().is_some_and(|said| said.contains("CloseBraceExpected")),
            "{failed}"
        );
        tried.before_start("");
    } else {
        tried.agent.ready_again().await;
        tried.before_start("");
        tried.stop().await;
        tried.request_start().await;
    }
    tried.agent.ready_again().await;
}

async fn squatted(tried: &mut Tried) {
    tried.stop().await;
    // Held by this test, or by whoever has it already: it is taken in either case.
    let held = TcpListener::bind("127.0.0.1:4096");
    tried.request_start().await;
    tried.agent.ready_again().await;
    assert!(held.is_err() || !tried.agent.truth().url.ends_with(":4096"), "{}", tried.agent.truth().url);
}

async fn started_twice(tried: &mut Tried) {
    let server = tried.processes.only(Role::AgentServer);
    tried.request_start().await;
    assert_eq!(tried.processes.only(Role::AgentServer), server);
}

async fn same_state_dir(tried: &mut Tried) {
    let generation = tried.generation() + 1;
    let second = wrapper(tried, &tried.agent.state_dir, generation).output();
    let output = timeout(PATIENCE, second).await.expect("it ends").expect("it starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("in use by another wrapper"), "{output:?}");
}

async fn older_generation(tried: &mut Tried) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let generation = tried.generation() - 1;
    let second = wrapper(tried, folder.path(), generation).output();
    let output = timeout(PATIENCE, second).await.expect("it ends").expect("it starts");
    assert_eq!(output.status.code(), Some(SUPERSEDED), "{output:?}");
}

async fn newer_generation(tried: &mut Tried) {
    let older = tried.processes.only(Role::AgentServer);
    let state_dir = tried.agent.home().join("stranger");
    let generation = tried.generation() + 1;
    let stranger = wrapper(tried, &state_dir, generation).spawn().expect("the binary starts");
    tried.stranger = Some(stranger);
    tried.until_wrapper_logs("Superseded").await;
    gone_within(FENCED, &[older]).await;
    tried.agent.state_dir = state_dir;
    tried.until_stopped().await;
    let started = tried.until_agent_says("agent.started").await;
    assert_eq!(started["generation"], json!(generation), "{started}");
}

/// How a wrapper exits that is not, or no longer, the agent's.
const SUPERSEDED: i32 = 21;

/// A wrapper of this generation, as somebody might start it elsewhere.
fn wrapper(tried: &Tried, state_dir: &std::path::Path, generation: u64) -> Command {
    let agent = &tried.agent;
    let keys = Keys::load(&agent.gastown.data_dir().join("signing-key")).expect("the town made its key");
    let expires = relay::server::now().after(std::time::Duration::from_secs(3600));
    let town = "main".parse().expect("a town");
    let token =
        keys.sign(&Claims::Ingest(WrapperClaims { town, agent: agent.id.clone(), generation, expires }));
    let mut command = Command::new(GASTOWN);
    command
        .args(["wrapper", "--relay", &agent.gastown.url, "--agent", agent.id.as_str()])
        .args(["--generation", &generation.to_string(), "--runtime", agent.server.runtime()])
        .arg("--agent-bin")
        .arg(agent.server.binary())
        .arg("--dir")
        .arg(tried.work_disk.path())
        .arg("--state-dir")
        .arg(state_dir)
        .args(["--session-id", &agent.root().expect("a session")])
        .envs(agent.gastown.environment())
        .env("GASTOWN_WRAPPER_TOKEN", token.expose())
        .stdin(Stdio::null())
        .kill_on_drop(true);
    command
}
