//! `opencode acp`, `kilo acp` and `claude-agent-acp` (Claude Code), started by the wrapper over the Agent Client Protocol: what a
//! viewer sees of them is what it sees of agent servers.

use std::path::Path;

use protocol::model::ToolState;
use serde_json::{Value, json};

use super::{Agent, Place, Server, text_of};
use crate::support::agent_server::{on_agent, on_both_servers};

on_both_servers!(
    a_plain_answer_and_reasoning,
    tools_that_edit_files,
    a_permission_once_and_rejected,
    a_turn_aborted_in_the_middle,
    a_slash_command_a_model_and_a_mode,
    the_session_goes_on_after_the_agent_was_killed,
);

on_agent!(
    claude, Claude:
    a_plain_answer_and_reasoning,
    claudes_tools_its_permissions_its_plan_and_its_thoughts,
    claudes_permission_once_and_rejected,
    a_turn_aborted_in_the_middle,
    the_session_goes_on_after_the_agent_was_killed,
);

async fn a_plain_answer_and_reasoning(server: Server) {
    let mut agent = start(server).await;
    agent.turn("[[plain]] hi").await;
    assert!(agent.text().contains("🚀"), "the text came through whole: {}", agent.text());
    agent.turn("[[reason]] why").await;
    assert!(agent.parts().iter().any(|part| part.kind() == "reasoning"), "the reasoning is shown");
}

async fn tools_that_edit_files(server: Server) {
    let mut agent = start(server).await;
    let dir = agent.directory().display().to_string();
    agent.turn(&format!("[[tools dir={dir}]] build it")).await;
    assert!(agent.directory().join("calc.py").exists(), "the tool wrote the file");
    let tools = agent.tools();
    // They send no plan: the todo list is what they call this tool with.
    for tool in ["bash", "write", "edit", "read", "todowrite"] {
        assert!(tools.iter().any(|(name, _)| name == tool), "no {tool} among {tools:?}");
    }
    let is_over = |state: &ToolState| matches!(state, ToolState::Completed(_) | ToolState::Error(_));
    assert!(tools.iter().all(|(_, state)| is_over(state)), "{tools:?}");
    let edited = agent.parts().iter().map(protocol::view::PartView::to_json).any(|part| {
        part["tool"] == "edit" && part["state"]["metadata"]["filediff"]["additions"].as_u64() > Some(0)
    });
    assert!(edited, "an edit shows its diff");
}

async fn a_slash_command_a_model_and_a_mode(server: Server) {
    let mut agent = start(server).await;
    agent.take(json!({ "type": "command", "name": "greet", "arguments": "Ada" })).await;
    agent.viewer.until("the command is answered", |view| text_of(view).contains("🚀")).await;
    agent.turn_over().await;
    let prompt = json!({
        "type": "prompt", "text": "[[reason]] with another model",
        "model": { "providerID": "local", "modelID": "second" }, "agent": "plan",
    });
    agent.take(prompt).await;
    agent.viewer.until("it is answered", |view| text_of(view).contains("42")).await;
    agent.turn_over().await;
    let unknown =
        json!({ "type": "prompt", "text": "hi", "model": { "providerID": "local", "modelID": "no-such" } });
    let refused = agent.command(unknown).await;
    assert_eq!(refused["error"]["code"], json!("not_found"), "{refused}");
}

async fn a_permission_once_and_rejected(server: Server) {
    let mut agent = start(server).await;
    permissions(&mut agent, "perm").await;
}

async fn a_turn_aborted_in_the_middle(server: Server) {
    let mut agent = start(server).await;
    agent.prompt("[[slow]] take your time").await;
    agent.viewer.until("text streams in", |view| text_of(view).len() > 40).await;
    let taken = agent.command(json!({ "type": "abort" })).await;
    assert_eq!(taken["ok"], json!(true), "{taken}");
    agent.turn_over().await;
    agent.turn("[[plain]] go on").await;
    assert!(agent.text().contains("🚀"), "it goes on after an abort");
}

async fn the_session_goes_on_after_the_agent_was_killed(server: Server) {
    let mut agent = start(server).await;
    agent.turn("[[plain]] hi").await;
    let root = agent.root().expect("a session");
    let pid = record(&agent.gastown.state_dir(&agent.id))["pid"].as_i64().expect("a pid");
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).expect("a pid")).expect("a pid");
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("it is there");
    agent.ready_again().await;
    agent.turn("[[reason]] and why").await;
    assert_eq!(agent.root(), Some(root), "the session is the same");
    assert_eq!(agent.text().matches("[[plain]] hi").count(), 1, "nothing is told twice");
}

async fn claudes_tools_its_permissions_its_plan_and_its_thoughts(server: Server) {
    let mut agent = start(server).await;
    let dir = agent.directory().display().to_string();
    agent.prompt(&format!("[[claude dir={dir}]] build it")).await;
    // It may look without a question; it asks before it writes a file and before it changes it.
    for _ in ["Write", "Edit"] {
        let id = agent.asked("permission").await;
        let taken = agent.command(json!({ "type": "permission", "id": id, "reply": "once" })).await;
        assert_eq!(taken["ok"], json!(true), "{taken}");
        let answered = |view: &protocol::view::SessionView| view.pending().is_empty();
        agent.viewer.until("the answer is in the log", answered).await;
    }
    agent.turn_over().await;
    let text = std::fs::read_to_string(agent.directory().join("calc.py")).expect("the tool wrote the file");
    assert!(text.contains("return b + a"), "{text}");
    let tools = agent.tools();
    for tool in ["bash", "write", "edit"] {
        assert!(tools.iter().any(|(name, _)| name == tool), "no {tool} among {tools:?}");
    }
    let wrote = |state: &ToolState| {
        let ToolState::Completed(done) = state else { panic!("{state:?}") };
        done.output.to_string()
    };
    assert!(
        tools.iter().any(|(_, state)| wrote(state).starts_with("one\n")),
        "as the command wrote it: {tools:?}"
    );
    let edited = agent.parts().iter().map(protocol::view::PartView::to_json).any(|part| {
        part["tool"] == "edit" && part["state"]["metadata"]["filediff"]["additions"].as_u64() > Some(0)
    });
    assert!(edited, "an edit shows its diff");
    assert!(agent.parts().iter().any(|part| part.kind() == "reasoning"), "the thought is shown");
    let root = agent.root().expect("a session");
    assert_eq!(agent.viewer.view.session(&root).expect("it is there").todos().len(), 2, "the plan is shown");
}

async fn claudes_permission_once_and_rejected(server: Server) {
    let mut agent = start(server).await;
    permissions(&mut agent, "claude_rm").await;
}

/// Lets the script of this name delete a file once, and not another time.
async fn permissions(agent: &mut Agent, script: &str) {
    for (n, reply) in ["once", "reject"].into_iter().enumerate() {
        let file = agent.directory().join(format!("victim-{n}.txt"));
        std::fs::write(&file, "x").expect("the work folder is there");
        agent.prompt(&format!("[[{script} n={n}]] delete it")).await;
        let id = agent.asked("permission").await;
        let taken = agent.command(json!({ "type": "permission", "id": id, "reply": reply })).await;
        assert_eq!(taken["ok"], json!(true), "{taken}");
        agent.turn_over().await;
        assert_eq!(file.exists(), reply == "reject", "{reply} decides what happens to the file");
    }
}

async fn start(server: Server) -> Agent {
    let runtime = json!({ "kind": "acp", "command": server.acp_command() });
    Agent::start_at(server, Place::new(runtime)).await
}

fn record(state_dir: &Path) -> Value {
    let text = std::fs::read_to_string(state_dir.join("agent-server.json")).expect("the record is there");
    serde_json::from_str(&text).expect("the record is JSON")
}
