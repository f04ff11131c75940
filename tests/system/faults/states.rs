//! What an agent does when something is killed, and what is seen of it then.

use protocol::{
    agent::State as AgentState,
    model::PartBody,
    view::{Lifecycle, SessionView},
};
use rustix::process::Signal;
use serde_json::{Value, json};

use super::{
    committing,
    kills::Victim,
    tried::{Tried, is_interrupted, slow_text},
};
use crate::{
    real_agents::{parts_of, text_of},
    support::process::{NO_AGENT, Role, send},
};

/// What the agent does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Starting,
    Idle,
    Streaming,
    ToolRunning,
    PermissionOpen,
    QuestionOpen,
    Draining,
    AfterTurn,
    Stopping,
}

impl State {
    /// Whether the agent was told to end.
    pub(super) fn ends_the_agent(self) -> bool {
        matches!(self, Self::Draining | Self::Stopping)
    }
}

/// What was seen before the kill.
pub(super) struct Before {
    streamed: String,
    ticks: usize,
}

impl Before {
    pub(super) fn of(tried: &Tried) -> Self {
        let view = &tried.agent.viewer.view;
        Self { streamed: slow_text(view), ticks: ticks(view) }
    }
}

/// Brings the agent to where it is to be killed.
pub(super) async fn reach(tried: &mut Tried, state: State) {
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
        State::QuestionOpen => {
            tried.prompt("[[ask]] which one?").await;
            tried.agent.asked("question").await;
        }
        State::Draining => {
            tried.stream_slowly().await;
            tried.request_end(true).await;
            tried.until_wrapper_is("draining").await;
        }
        State::AfterTurn => committing::begin(tried).await,
        State::Stopping => {
            send(tried.processes.only(Role::AgentServer), Signal::STOP);
            tried.request_end(false).await;
            let stopping =
                |view: &SessionView| view.agent().lifecycle == Lifecycle::Running(AgentState::Stopping);
            tried.agent.viewer.until("it is being stopped", stopping).await;
        }
    }
}

/// The agent server is gone: what ran is closed.
pub(super) async fn broken_off(tried: &mut Tried, victim: Victim, state: State, before: &Before) {
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
        State::QuestionOpen => {
            viewer.until("the question is taken back", |view| view.pending().is_empty()).await;
            assert!(tool_is_interrupted(&viewer.view), "the call that asked is closed");
        }
        State::Draining => {
            if victim == Victim::AgentServer {
                tried.until_agent_says("agent.failed").await;
                tried.until_agent_says("agent.exited").await;
            }
            tried.until_stopped().await;
            tried.processes.settle(NO_AGENT).await;
            tried.request_start().await;
            let shown = &before.streamed;
            let is_marked = |view: &SessionView| is_interrupted(view, shown);
            tried.agent.viewer.until("the text is kept and marked", is_marked).await;
        }
        State::AfterTurn if victim == Victim::Wrapper => committing::broke_off(tried).await,
        State::AfterTurn => committing::server_is_gone(tried).await,
        State::Stopping => {
            tried.until_stopped().await;
            tried.request_start().await;
        }
    }
}

/// The relay was gone: everything else goes on where it was.
pub(super) async fn goes_on(tried: &mut Tried, state: State, before: &Before) {
    match state {
        State::Starting => tried.agent.ready_again().await,
        State::Idle | State::PermissionOpen | State::QuestionOpen | State::AfterTurn => {}
        State::Streaming | State::Draining => {
            let shown = &before.streamed;
            let more = |view: &SessionView| slow_text(view).len() > shown.len() + 40;
            tried.agent.viewer.until("the text goes on", more).await;
            assert!(slow_text(&tried.agent.viewer.view).starts_with(shown), "where it was");
        }
        State::ToolRunning => {
            tried.agent.viewer.until("the count goes on", |view| ticks(view) > before.ticks).await;
        }
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
        State::QuestionOpen => {
            let id = tried.agent.asked("question").await;
            let answer = json!({ "type": "question", "id": id, "answers": [["SQLite"]] });
            let taken = tried.agent.command(answer).await;
            assert_eq!(taken["ok"], json!(true), "{taken}");
            tried.agent.turn_over().await;
            assert!(text_of(&tried.agent.viewer.view).trim_end().ends_with("Understood."));
        }
        State::Draining => {
            tried.until_wrapper_is("draining").await;
            // The turn ends by it, and the agent server may be gone before it has answered.
            let _ = tried.agent.command(json!({ "type": "abort" })).await;
            tried.until_agent_says("agent.exited").await;
            tried.until_stopped().await;
            tried.request_start().await;
            tried.agent.ready_again().await;
        }
        State::AfterTurn => committing::goes_on(tried).await,
        State::Starting | State::Idle | State::Stopping => {}
    }
}

/// How far the command that runs has counted.
fn ticks(view: &SessionView) -> usize {
    let newest = parts_of(view).into_iter().rfind(|part| matches!(part.body(), PartBody::Tool(_)));
    let Some(part) = newest.map(|part| part.to_json()) else { return 0 };
    let counted = part.pointer("/state/metadata/output").and_then(Value::as_str);
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
