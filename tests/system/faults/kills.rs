//! SIGKILL of the agent server, of its wrapper and of the relay, whatever the agent does.

use protocol::{
    agent::State as AgentState,
    model::PartBody,
    view::{Lifecycle, SessionView},
};
use rustix::process::Signal;
use serde_json::json;

use super::{
    Fault, NO_ORPHAN, fault,
    tried::{Tried, is_interrupted, slow_text},
};
use crate::{
    real_agents::parts_of,
    support::process::{Role, gone_within, send},
};

pub(super) const AT_REST: &[Fault] = &[
    fault!(
        "SIGKILL of the agent server while it starts",
        "killed as soon as its process is there",
        "`agent.failed` says that it ended before it was ready; it is started again, and its session goes on",
        killed,
        Victim::AgentServer,
        State::Starting,
    ),
    fault!(
        "SIGKILL of the wrapper while its agent server starts",
        "killed as soon as the agent server's process is there",
        "the half-started agent server is gone; the town starts the next generation, and the session goes on",
        killed,
        Victim::Wrapper,
        State::Starting,
    ),
    fault!(
        "SIGKILL of the relay while the agent server starts",
        "killed as soon as the agent server's process is there, and started again",
        "the start goes on meanwhile; `agent.started` is there when the relay is back",
        killed,
        Victim::Relay,
        State::Starting,
    ),
    fault!(
        "SIGKILL of the agent server, idle",
        "killed",
        "`agent.failed`, then `agent.started` with the same session",
        killed,
        Victim::AgentServer,
        State::Idle,
    ),
    fault!(
        "SIGKILL of the wrapper, idle",
        "killed",
        "its agent server is gone; the next generation says `wrapper.resumed`, and the session goes on",
        killed,
        Victim::Wrapper,
        State::Idle,
    ),
    fault!(
        "SIGKILL of the relay, idle",
        "killed and started again",
        "the agent server is the same process; the wrapper comes back by itself",
        killed,
        Victim::Relay,
        State::Idle,
    ),
    fault!(
        "SIGKILL of the agent server while it stops",
        "stopped (SIGSTOP) so that it does not heed TERM, told to stop, killed",
        "`agent.exited`, and no restart; started on request, it goes on",
        killed,
        Victim::AgentServer,
        State::Stopping,
    ),
    fault!(
        "SIGKILL of the wrapper while its agent server stops",
        "the same, the wrapper killed",
        "the guard ends the agent server; the town knows the agent as stopped and starts nothing",
        killed,
        Victim::Wrapper,
        State::Stopping,
    ),
    fault!(
        "SIGKILL of the relay while the agent server stops",
        "the same, the relay killed and started again",
        "the stop goes on meanwhile; `agent.exited` is there when the relay is back",
        killed,
        Victim::Relay,
        State::Stopping,
    ),
];

pub(super) const AT_WORK: &[Fault] = &[
    fault!(
        "SIGKILL of the agent server while text streams",
        "killed in the middle of a text",
        "the text that was shown stays and is marked as interrupted; `agent.failed`, then `agent.started` with the same session",
        killed,
        Victim::AgentServer,
        State::Streaming,
    ),
    fault!(
        "SIGKILL of the wrapper while text streams",
        "killed in the middle of a text",
        "the next generation marks the text as interrupted and says `wrapper.resumed`; the old agent server is gone",
        killed,
        Victim::Wrapper,
        State::Streaming,
    ),
    fault!(
        "SIGKILL of the relay while text streams",
        "killed in the middle of a text, and started again",
        "the text goes on where it was, whole",
        killed,
        Victim::Relay,
        State::Streaming,
    ),
    fault!(
        "SIGKILL of the agent server while a tool runs",
        "killed while a shell command counts",
        "the tool call ends as an error, `interrupted`; the command is gone",
        killed,
        Victim::AgentServer,
        State::ToolRunning,
    ),
    fault!(
        "SIGKILL of the wrapper while a tool runs",
        "killed while a shell command counts",
        "the tool call ends as an error, `interrupted`; the command is gone with the old agent server",
        killed,
        Victim::Wrapper,
        State::ToolRunning,
    ),
    fault!(
        "SIGKILL of the relay while a tool runs",
        "killed while a shell command counts, and started again",
        "the count goes on, and an abort ends it",
        killed,
        Victim::Relay,
        State::ToolRunning,
    ),
    fault!(
        "SIGKILL of the agent server with a permission open",
        "killed while it asks whether it may delete a file",
        "the question is taken back; the file is still there",
        killed,
        Victim::AgentServer,
        State::PermissionOpen,
    ),
    fault!(
        "SIGKILL of the wrapper with a permission open",
        "killed while its agent asks whether it may delete a file",
        "the question is taken back; the file is still there",
        killed,
        Victim::Wrapper,
        State::PermissionOpen,
    ),
    fault!(
        "SIGKILL of the relay with a permission open",
        "killed while the agent asks whether it may delete a file, and started again",
        "the question is still open; the answer given then counts",
        killed,
        Victim::Relay,
        State::PermissionOpen,
    ),
];

/// Who is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Victim {
    AgentServer,
    Wrapper,
    Relay,
}

/// What the agent does then.
#[derive(Debug, Clone, Copy)]
enum State {
    Starting,
    Idle,
    Streaming,
    ToolRunning,
    PermissionOpen,
    Stopping,
}

async fn killed(tried: &mut Tried, victim: Victim, state: State) {
    reach(tried, state).await;
    let before = Before {
        generation: tried.generation(),
        streamed: slow_text(&tried.agent.viewer.view),
        ticks: ticks(&tried.agent.viewer.view),
    };
    let server = tried.processes.only(Role::AgentServer);
    match victim {
        Victim::AgentServer => send(server, Signal::KILL),
        Victim::Wrapper => {
            let agent = tried.processes.of_the_agent();
            send(tried.processes.only(Role::Wrapper), Signal::KILL);
            gone_within(NO_ORPHAN, &agent).await;
        }
        Victim::Relay => {
            tried.agent.gastown.kill9().await;
            tried.agent.gastown.start_again().await;
        }
    }
    match victim {
        Victim::AgentServer | Victim::Wrapper => {
            broken_off(tried, state, &before).await;
            if victim == Victim::Wrapper {
                tried.until_agent_says("wrapper.resumed").await;
            }
            let started = tried.until_agent_says("agent.started").await;
            assert_eq!(started["resumed"], json!(true), "the session goes on: {started}");
            let is_next = tried.generation() > before.generation;
            assert_eq!(is_next, victim == Victim::Wrapper || matches!(state, State::Stopping), "{started}");
        }
        Victim::Relay => goes_on(tried, state, &before).await,
    }
    let is_same = tried.processes.only(Role::AgentServer) == server;
    let should_be = victim == Victim::Relay && !matches!(state, State::Stopping);
    assert_eq!(is_same, should_be, "whether the agent server is the same process");
}

/// What was seen before the kill.
struct Before {
    generation: u64,
    streamed: String,
    ticks: usize,
}

/// Brings the agent to where it is to be killed.
async fn reach(tried: &mut Tried, state: State) {
    match state {
        State::Starting => {
            tried.stop().await;
            tried.request_start().await;
            tried.processes.until_running(Role::AgentServer).await;
        }
        State::Idle => {}
        State::Streaming => tried.stream_slowly().await,
        State::ToolRunning => {
            tried.prompt("[[slowtool]] count").await;
            tried.agent.viewer.until("the command counts", |view| ticks(view) > 0).await;
        }
        State::PermissionOpen => {
            let n = tried.number();
            std::fs::write(tried.victim(n), "x").expect("the work folder is there");
            tried.prompt(&format!("[[perm n={n}]] delete it")).await;
            tried.agent.asked("permission").await;
        }
        State::Stopping => {
            send(tried.processes.only(Role::AgentServer), Signal::STOP);
            tried.request_stop().await;
            let stopping =
                |view: &SessionView| view.agent().lifecycle == Lifecycle::Running(AgentState::Stopping);
            tried.agent.viewer.until("it is being stopped", stopping).await;
        }
    }
}

/// The agent server is gone: what ran is closed.
async fn broken_off(tried: &mut Tried, state: State, before: &Before) {
    let viewer = &mut tried.agent.viewer;
    match state {
        State::Starting | State::Idle => {}
        State::Streaming => {
            let shown = &before.streamed;
            viewer.until("the text is kept and marked", |view| is_interrupted(view, shown)).await;
        }
        State::ToolRunning => viewer.until("the tool call is closed", tool_is_interrupted).await,
        State::PermissionOpen => {
            viewer.until("the question is taken back", |view| view.pending().is_empty()).await;
            assert!(tried.victim(tried.last_number()).exists(), "nobody allowed it to go");
        }
        State::Stopping => {
            tried.until_stopped().await;
            tried.request_start().await;
        }
    }
}

/// The relay was gone: everything else goes on where it was.
async fn goes_on(tried: &mut Tried, state: State, before: &Before) {
    match state {
        State::Starting => tried.agent.ready_again().await,
        State::Idle => {}
        State::Streaming => {
            let shown = &before.streamed;
            let more = |view: &SessionView| slow_text(view).len() > shown.len() + 40;
            tried.agent.viewer.until("the text goes on", more).await;
            assert!(slow_text(&tried.agent.viewer.view).starts_with(shown), "where it was");
        }
        State::ToolRunning => {
            tried.agent.viewer.until("the count goes on", |view| ticks(view) > before.ticks).await;
        }
        State::PermissionOpen => {}
        State::Stopping => {
            tried.until_stopped().await;
            tried.request_start().await;
            tried.agent.ready_again().await;
        }
    }
    tried.wrapper_is_back().await;
    match state {
        State::Streaming | State::ToolRunning => tried.abort().await,
        State::PermissionOpen => {
            let id = tried.agent.asked("permission").await;
            let taken = tried.agent.command(json!({ "type": "permission", "id": id, "reply": "once" })).await;
            assert_eq!(taken["ok"], json!(true), "{taken}");
            tried.agent.turn_over().await;
            assert!(!tried.victim(tried.last_number()).exists(), "it was allowed to go");
        }
        State::Starting | State::Idle | State::Stopping => {}
    }
}

/// How far the command that runs has counted.
fn ticks(view: &SessionView) -> usize {
    let newest = parts_of(view).into_iter().rfind(|part| matches!(part.body(), PartBody::Tool(_)));
    let Some(part) = newest.map(|part| part.to_json()) else { return 0 };
    let counted = part.pointer("/state/metadata/output").and_then(serde_json::Value::as_str);
    counted
        .filter(|_| part["state"]["status"] == "running")
        .map_or(0, |counted| counted.matches("tick").count())
}

fn tool_is_interrupted(view: &SessionView) -> bool {
    parts_of(view).iter().rev().find(|part| part.kind() == "tool").is_some_and(|part| {
        let state = &part.to_json()["state"];
        state["status"] == "error" && state["error"] == "interrupted"
    })
}
