//! SIGKILL of the agent server, of its wrapper and of the relay, whatever the agent does.

use rustix::process::Signal;
use serde_json::json;

use super::{
    Fault, NO_ORPHAN, committing, fault,
    states::{Before, State, broken_off, goes_on, reach},
    tried::Tried,
};
use crate::support::process::{Role, gone_within, send};

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
        "SIGKILL of the agent server while it is drained",
        "told to end after its turn, and killed in the middle of a text",
        "the text that was shown stays and is marked as interrupted; `agent.failed`, then `agent.exited`, and no restart; started on request, it goes on",
        killed,
        Victim::AgentServer,
        State::Draining,
    ),
    fault!(
        "SIGKILL of the wrapper while its agent is drained",
        "the same, the wrapper killed",
        "the guard ends the agent server; the town knows the agent as stopped and starts nothing; started on request, the text that was shown is marked as interrupted",
        killed,
        Victim::Wrapper,
        State::Draining,
    ),
    fault!(
        "SIGKILL of the relay while the agent is drained",
        "the same, the relay killed and started again",
        "the text goes on where it was: the town still waits for the turn; at its end comes `agent.exited`",
        killed,
        Victim::Relay,
        State::Draining,
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
    fault!(
        "SIGKILL of the agent server with a question open",
        "killed while it asks which database to take",
        "the question is taken back, and the call that asked ends as an error, `interrupted`",
        killed,
        Victim::AgentServer,
        State::QuestionOpen,
    ),
    fault!(
        "SIGKILL of the wrapper with a question open",
        "killed while its agent asks which database to take",
        "the question is taken back, and the call that asked ends as an error, `interrupted`",
        killed,
        Victim::Wrapper,
        State::QuestionOpen,
    ),
    fault!(
        "SIGKILL of the relay with a question open",
        "killed while the agent asks which database to take, and started again",
        "the question is still open; the answer given then counts",
        killed,
        Victim::Relay,
        State::QuestionOpen,
    ),
    fault!(
        "SIGKILL of the agent server during the work after a turn",
        "killed while a hook of the commit runs",
        "the commit is made, and the session cannot be condensed, which is said; then the outcome of the turn, `agent.failed`, and `agent.started` with the same session",
        killed,
        Victim::AgentServer,
        State::AfterTurn,
    ),
    fault!(
        "SIGKILL of the wrapper during the work after a turn",
        "killed while a hook of the commit runs, and a lock of the index left as by a git that is killed with it",
        "git and its hook are gone; the next generation says that the commit failed, and then that the turn is over; the next turn commits what both changed",
        killed,
        Victim::Wrapper,
        State::AfterTurn,
    ),
    fault!(
        "SIGKILL of the relay during the work after a turn",
        "killed while a hook of the commit runs, and started again",
        "the commit is made, and the session condensed; the outcome comes last",
        killed,
        Victim::Relay,
        State::AfterTurn,
    ),
];

/// Who is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Victim {
    AgentServer,
    Wrapper,
    Relay,
}

async fn killed(tried: &mut Tried, victim: Victim, state: State) {
    reach(tried, state).await;
    let (before, generation) = (Before::of(tried), tried.generation());
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
            broken_off(tried, victim, state, &before).await;
            if victim == Victim::Wrapper {
                tried.until_agent_says("wrapper.resumed").await;
            }
            let started = tried.until_agent_says("agent.started").await;
            assert_eq!(started["resumed"], json!(true), "the session goes on: {started}");
            let is_next = tried.generation() > generation;
            assert_eq!(is_next, victim == Victim::Wrapper || state.ends_the_agent(), "{started}");
        }
        Victim::Relay => goes_on(tried, state, &before).await,
    }
    let is_same = tried.processes.only(Role::AgentServer) == server;
    let should_be = victim == Victim::Relay && !state.ends_the_agent();
    assert_eq!(is_same, should_be, "whether the agent server is the same process");
    if state == State::AfterTurn {
        committing::next_turn(tried).await;
    }
}
