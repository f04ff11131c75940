//! `opencode acp`, `kilo acp` and `claude-agent-acp` (Claude Code), started by the wrapper over the Agent Client Protocol: what a
//! viewer sees of them is what it sees of agent servers.

use std::path::Path;

use protocol::model::ToolState;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{
    Agent, Place, Server,
    features::{echo_server, told},
    messages_of, text_of,
};
use crate::support::agent_server::{on_agent, on_both_servers};

on_both_servers!(
    a_plain_answer_and_reasoning,
    tools_that_edit_files,
    a_permission_once_and_rejected,
    a_turn_aborted_in_the_middle,
    a_second_prompt_waits_for_the_first_turn,
    a_slash_command_a_model_and_a_mode,
    an_attachment_reaches_the_model,
    an_mcp_server_given_at_the_start_is_used,
    the_session_goes_on_after_the_agent_was_killed,
);

on_agent!(
    claude, Claude:
    a_plain_answer_and_reasoning,
    claudes_tools_its_permissions_its_plan_and_its_thoughts,
    claudes_permission_once_and_rejected,
    a_turn_aborted_in_the_middle,
    a_second_prompt_waits_for_the_first_turn,
    claudes_slash_command_a_model_and_a_mode,
    an_attachment_reaches_the_model,
    claude_uses_an_mcp_server_given_at_the_start,
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
    slash_command_model_and_mode(&mut agent, ["local", "second"]).await;
}

async fn claudes_slash_command_a_model_and_a_mode(server: Server) {
    let folder = tempfile::Builder::new().prefix("work-").tempdir().expect("a temporary folder");
    let commands = folder.path().join(".claude/commands");
    std::fs::create_dir_all(&commands).expect("it is writable");
    std::fs::write(commands.join("greet.md"), "[[plain]] greet $ARGUMENTS\n").expect("it is writable");
    let directory = Some(folder.path().to_owned());
    let mut agent = Agent::start_at(server, Place { directory, ..place(server) }).await;
    slash_command_model_and_mode(&mut agent, ["anthropic", "sonnet"]).await;
}

async fn slash_command_model_and_mode(agent: &mut Agent, [provider, model]: [&str; 2]) {
    agent.take(json!({ "type": "command", "name": "greet", "arguments": "Ada" })).await;
    agent.viewer.until("the command is answered", |view| text_of(view).contains("🚀")).await;
    agent.turn_over().await;
    let asked = agent.model.asked_last("plain");
    assert!(asked.messages.to_string().contains("greet Ada"), "{asked:?}");
    assert!(!asked.model.contains(model), "{asked:?}");
    let unknown = agent.command(json!({ "type": "command", "name": "no-such" })).await;
    assert_eq!(unknown["error"]["code"], json!("not_found"), "{unknown}");

    let prompt = json!({
        "type": "prompt", "text": "[[reason]] with another model",
        "model": { "providerID": provider, "modelID": model }, "agent": "plan",
    });
    agent.take(prompt).await;
    agent.viewer.until("it is answered", |view| text_of(view).contains("42")).await;
    agent.turn_over().await;
    let asked = agent.model.asked_last("reason");
    assert!(asked.model.contains(model), "{}", asked.model);
    assert!(asked.messages.to_string().to_lowercase().contains("plan mode"), "{}", asked.messages);
    // The agent stays with what it was told to take.
    agent.turn("[[brief]] go on").await;
    assert!(
        agent.model.asked_last("brief").model.contains(model),
        "{}",
        agent.model.asked_last("brief").model
    );
    for message in messages_of(&agent.viewer.view, &agent.root().expect("a session")).iter().skip(2) {
        let info = &message["info"];
        let shown = (info["modelID"].as_str().or(info["model"]["modelID"].as_str()), info["agent"].as_str());
        assert_eq!(shown, (Some(model), Some("plan")), "{info}");
    }
    for unknown in
        [json!({ "model": { "providerID": provider, "modelID": "no-such" } }), json!({ "agent": "no-such" })]
    {
        let mut prompt = json!({ "type": "prompt", "text": "hi" });
        prompt.as_object_mut().expect("an object").extend(unknown.as_object().expect("an object").clone());
        let refused = agent.command(prompt).await;
        assert_eq!(refused["error"]["code"], json!("not_found"), "{refused}");
    }
}

async fn a_second_prompt_waits_for_the_first_turn(server: Server) {
    let mut agent = start(server).await;
    agent.prompt("[[brief]] first").await;
    let second = agent.queue("[[plain]] second").await;
    agent.viewer.until("both are answered", |view| text_of(view).contains("🚀")).await;
    agent.turn_over().await;
    let asked = agent.model.asked_last("plain").messages.to_string();
    assert!(asked.contains("seven."), "the agent answered the first before: {asked}");
    let messages = messages_of(&agent.viewer.view, &agent.root().expect("a session"));
    let told = told(&messages);
    assert_eq!(told, [told[0].clone(), format!("to {}", told[0]), second.clone(), format!("to {second}")]);
    // Ids begin with their time.
    let end = messages[1]["parts"].as_array().and_then(|parts| parts.last()?["id"].as_str()).expect("an end");
    assert!(end.trim_start_matches("prt_") > second.trim_start_matches("msg_"), "it waited: {end}, {second}");
}

async fn an_attachment_reaches_the_model(server: Server) {
    let mut agent = start(server).await;
    let note = json!({
        "type": "file", "mime": "text/plain", "filename": "note.txt", "url": "data:text/plain;base64,aGVsbG8gdGhlcmU=",
    });
    let dot = json!({ "type": "file", "mime": "image/png", "filename": "dot.png", "url": format!("data:image/png;base64,{DOT}") });
    agent.take(json!({ "type": "prompt", "text": "[[plain]] read this", "parts": [note, dot] })).await;
    agent.viewer.until("it is answered", |view| text_of(view).contains("🚀")).await;
    agent.turn_over().await;
    let parts: Vec<Value> = agent.parts().iter().map(protocol::view::PartView::to_json).collect();
    for name in ["note.txt", "dot.png"] {
        assert!(parts.iter().any(|part| part["filename"] == name), "{name} is shown: {parts:?}");
    }
    let asked = agent.model.asked_last("plain").messages.to_string();
    assert!(asked.contains("hello there"), "the note reached the model: {asked}");
    assert!(asked.contains(DOT), "the picture reached the model: {asked}");
}

async fn an_mcp_server_given_at_the_start_is_used(server: Server) {
    let (_folder, mut agent) = with_echo_server(server).await;
    agent.turn("[[mcp tool=echo_echo]] use it").await;
    echoed(&agent);
}

async fn claude_uses_an_mcp_server_given_at_the_start(server: Server) {
    let (_folder, mut agent) = with_echo_server(server).await;
    agent.prompt("[[mcp tool=mcp__echo__echo]] use it").await;
    let id = agent.asked("permission").await;
    agent.take(json!({ "type": "permission", "id": id, "reply": "once" })).await;
    agent.turn_over().await;
    echoed(&agent);
}

async fn with_echo_server(server: Server) -> (TempDir, Agent) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut place = place(server);
    place.runtime["mcp_servers"] = json!(echo_server(folder.path()));
    (folder, Agent::start_at(server, place).await)
}

/// The tool of the MCP server was called: the log shows what it said, and the model was told.
fn echoed(agent: &Agent) {
    let said = |(_, state): &(String, ToolState)| matches!(state, ToolState::Completed(done) if done.output.contains("echo: hello!"));
    assert!(agent.tools().iter().any(said), "{:?}", agent.tools());
    let asked = agent.model.asked_last("mcp");
    assert!(asked.messages.to_string().contains("echo: hello!"), "{asked:?}");
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
    Agent::start_at(server, place(server)).await
}

fn place(server: Server) -> Place {
    Place::new(json!({ "kind": "acp", "command": server.acp_command() }))
}

fn record(state_dir: &Path) -> Value {
    let text = std::fs::read_to_string(state_dir.join("agent-server.json")).expect("the record is there");
    serde_json::from_str(&text).expect("the record is JSON")
}

/// A picture of one dot.
const DOT: &str =
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==";
