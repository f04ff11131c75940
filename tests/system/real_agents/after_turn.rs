//! What is done after a turn of a real agent server and before its outcome: a commit of what it changed, and a summary of its session.

use protocol::Event;
use serde_json::{Value, json};

use super::{Agent, Server, git, messages_of};
use crate::{oracle::Seen, support::agent_server::on_both_servers};

on_both_servers!(a_turn_is_committed_and_its_session_condensed_before_its_outcome);

async fn a_turn_is_committed_and_its_session_condensed_before_its_outcome(server: Server) {
    let mut agent = Agent::start(server).await;
    let folder = agent.directory().to_owned();
    git(&folder, &["switch", "--create", "topic"]);
    let config = json!({ "autoCommit": true, "condenseOnComplete": true });
    agent.gastown.api("PATCH", &format!("/agents/{}/config", agent.id), Some(config)).await;
    agent.turn(&format!("Build a calculator\n[[tools dir={}]]", folder.display())).await;
    agent.agrees_with_its_server().await;

    let said = said_after_a_turn(&agent);
    let expected = [
        "wrapper.auto_commit.started",
        "wrapper.auto_commit.completed",
        "wrapper.condense.started",
        "wrapper.condense.completed",
        outcome(server),
    ];
    let kinds: Vec<&str> = said.iter().map(|event| event.kind.as_ref()).collect();
    assert!(kinds.starts_with(&expected), "{kinds:?}");

    let commit: Value = said[1].data.parse().expect("it is JSON");
    assert_eq!(git(&folder, &["rev-parse", "topic"]), commit["hash"], "{commit}");
    assert!(
        git(&folder, &["show", "--name-only"]).contains("calc.py"),
        "what the turn made is in the commit"
    );
    assert_eq!(git(&folder, &["status", "--porcelain"]), "", "nothing is left out");
    // kilo has its model write the message; opencode cannot be asked for one.
    let subject = if server == Server::Kilo { "Scripted title" } else { "Build a calculator" };
    let root = agent.root().expect("a session");
    let message = format!("{subject}\n\nGastown-Agent: {}\nGastown-Session: {root}", agent.id);
    assert_eq!(git(&folder, &["log", "-1", "--format=%B"]), message);

    let messages = messages_of(&agent.viewer.view, &root);
    let summary = messages.last().expect("there are messages");
    assert_eq!(summary["info"]["summary"], json!(true), "the session is condensed: {summary}");
    agent.turn("[[plain]] go on").await;
    agent.agrees_with_its_server().await;
}

/// What the wrapper says of its work after a turn, and the turn's outcome.
fn said_after_a_turn(agent: &Agent) -> Vec<&Event> {
    let events = agent.viewer.history.seen.iter().filter_map(|seen| match seen {
        Seen::Event(event) => Some(event),
        Seen::Gap { .. } => None,
    });
    let is_said = |kind: &str| {
        kind == outcome(agent.server)
            || kind.starts_with("wrapper.auto_commit.")
            || kind.starts_with("wrapper.condense.")
    };
    events.filter(|event| is_said(&event.kind)).collect()
}

/// The event that closes a turn.
fn outcome(server: Server) -> &'static str {
    if server == Server::Kilo { "session.turn.close" } else { "session.idle" }
}
