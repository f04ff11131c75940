//! What else real agent servers can, through the wrapper: slash commands, models and agents by name, attachments, revert and fork, MCP
//! servers, kilo's questions about the network, its queue and its parts that come and go.

use std::path::{Path, PathBuf};

use protocol::Event;
use serde_json::{Value, json};

use super::{Agent, Place, Server, messages_of, text_of};
use crate::{
    oracle::Seen,
    support::agent_server::{on_agent, on_both_servers},
};

on_both_servers!(
    slash_commands_a_model_an_agent_and_an_attachment,
    a_slash_command_that_is_aborted_is_not_said_to_have_failed,
    a_revert_is_taken_back_and_a_fork_is_another_session,
    an_mcp_server_given_at_the_start_is_used,
    prompts_that_waited_come_in_their_order_though_their_ids_are_older_than_the_answers_before,
);

on_agent!(
    kilo_alone, Kilo:
    a_lost_network_is_answered_and_declined,
    its_queue_is_shown_and_its_transient_parts_go_away,
);

async fn slash_commands_a_model_an_agent_and_an_attachment(server: Server) {
    let mut agent = Agent::start(server).await;
    agent.take(json!({ "type": "command", "name": "greet", "arguments": "Ada" })).await;
    agent.viewer.until("the command's text is a prompt", |view| text_of(view).contains("greet Ada")).await;
    agent.turn_over().await;
    let unknown = agent.command(json!({ "type": "command", "name": "nope" })).await;
    assert_eq!(unknown["error"]["code"], json!("not_found"), "{unknown}");

    let note = json!({
        "type": "file", "mime": "text/plain", "filename": "note.txt", "url": "data:text/plain;base64,aGVsbG8gdGhlcmU=",
    });
    let prompt = json!({
        "type": "prompt", "parts": [{ "type": "text", "text": "[[plain]] read this" }, note],
        "model": { "providerID": "local", "modelID": "second" }, "agent": "plan",
    });
    agent.take(prompt).await;
    agent.viewer.until("the prompt is in the log", |view| text_of(view).contains("read this")).await;
    agent.turn_over().await;
    let root = agent.root().expect("a session");
    let messages = messages_of(&agent.viewer.view, &root);
    let answer = &messages.last().expect("an answer")["info"];
    assert_eq!((&answer["modelID"], &answer["agent"]), (&json!("second"), &json!("plan")), "{answer}");
    let mut parts = messages.iter().filter_map(|message| message["parts"].as_array()).flatten();
    assert!(parts.any(|part| part["filename"] == "note.txt"), "the attachment is shown");
    agent.agrees_with_its_server().await;
}

async fn a_slash_command_that_is_aborted_is_not_said_to_have_failed(server: Server) {
    let mut agent = Agent::start(server).await;
    agent.take(json!({ "type": "command", "name": "linger" })).await;
    agent.viewer.until("text streams in", |view| text_of(view).len() > 150).await;
    agent.take(json!({ "type": "abort" })).await;
    agent.turn_over().await;
    agent.turn("[[plain]] go on").await;
    let failed =
        |seen: &&Seen| matches!(seen, Seen::Event(event) if event.data.json().contains("CommandFailed"));
    let said = agent.viewer.history.seen.iter().find(failed);
    assert!(said.is_none(), "{said:?}");
    agent.agrees_with_its_server().await;
}

async fn a_revert_is_taken_back_and_a_fork_is_another_session(server: Server) {
    let mut agent = Agent::start_with_snapshots(server).await;
    let file = agent.directory().join("calc.py");
    agent.turn("[[plain]] hi").await;
    agent.turn(&format!("[[tools dir={}]] build it", agent.directory().display())).await;
    assert!(file.exists());
    let root = agent.root().expect("a session");
    let messages = messages_of(&agent.viewer.view, &root);
    let asked = messages.iter().rfind(|message| message["info"]["role"] == "user").expect("a prompt");
    let asked = asked["info"]["id"].as_str().expect("an id").to_owned();

    agent.take(json!({ "type": "revert", "message_id": asked })).await;
    agent.viewer.until_event("the revert is in the log", |event| reverted(event) == Some(true)).await;
    assert!(!file.exists(), "the file is as it was before the message");
    agent.take(json!({ "type": "unrevert" })).await;
    agent.viewer.until_event("so is its end", |event| reverted(event) == Some(false)).await;
    assert!(file.exists(), "the file is there again");

    let forked = agent.take(json!({ "type": "fork", "message_id": asked })).await;
    let fork = forked["data"]["sessionId"].as_str().expect("the fork's id").to_owned();
    assert_ne!(fork, root);
    let theirs = agent.truth().messages(&fork).await;
    assert_eq!(theirs.len(), 2, "what was said before the message: {theirs:?}");
    agent.turn("[[plain]] go on").await;
    agent.agrees_with_its_server().await;
    assert!(agent.viewer.view.session(&fork).is_none(), "the agent goes on in its own session");
}

async fn an_mcp_server_given_at_the_start_is_used(server: Server) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let list = echo_server(folder.path());
    let runtime = json!({ "kind": server.runtime(), "agent_bin": server.binary(), "mcp_servers": list });
    let mut agent = Agent::start_at(server, Place::new(runtime)).await;
    agent.turn("[[mcp tool=echo_echo]] use it").await;
    let tool =
        agent.parts().iter().map(protocol::view::PartView::to_json).find(|part| part["tool"] == "echo_echo");
    let state = tool.expect("the tool of the MCP server")["state"].clone();
    assert_eq!(
        (&state["status"], &state["output"]),
        (&json!("completed"), &json!("echo: hello!")),
        "{state}"
    );
    agent.agrees_with_its_server().await;
}

/// The local API names a message when it takes the prompt, and agent servers make ids that ascend.
async fn prompts_that_waited_come_in_their_order_though_their_ids_are_older_than_the_answers_before(
    server: Server,
) {
    let mut agent = Agent::start(server).await;
    agent.prompt("[[brief]] first").await;
    let second = agent.queue("[[reason]] second").await;
    let third = agent.queue("[[plain]] third").await;
    agent.viewer.until("all are answered", |view| text_of(view).contains("🚀")).await;
    agent.turn_over().await;
    agent.agrees_with_its_server().await;
    let messages = messages_of(&agent.viewer.view, &agent.root().expect("a session"));
    let told = told(&messages);
    let first = told[0].clone();
    let answers = [&first, &second, &third].map(|prompt| format!("to {prompt}"));
    let [to_first, to_second, to_third] = answers;
    let before = messages[3]["info"]["id"].as_str().expect("an id");
    assert!(
        before > third.as_str(),
        "the third prompt waited for an answer that began after it came: {before}, {third}"
    );
    assert_eq!(told, [first, to_first, second, to_second, third, to_third]);
}

async fn a_lost_network_is_answered_and_declined(server: Server) {
    let mut agent = Agent::start(server).await;
    agent.prompt("[[drop]] talk").await;
    let first = agent.asked("network").await;
    agent.take(json!({ "type": "network", "id": first })).await;
    let again =
        |event: &Event| event.kind.as_ref() == "session.network.asked" && !event.data.json().contains(&first);
    // It tries once more, and loses the connection again.
    agent.viewer.until_event("it asks again", again).await;
    let second = agent.asked("network").await;
    agent.take(json!({ "type": "network_reject", "id": second })).await;
    agent.turn_over().await;
    assert!(agent.viewer.view.pending().is_empty(), "nothing waits any more");
    let late = agent.command(json!({ "type": "network", "id": first })).await;
    assert_eq!(late["error"]["code"], json!("already_answered"), "{late}");
    agent.agrees_with_its_server().await;
}

async fn its_queue_is_shown_and_its_transient_parts_go_away(server: Server) {
    let mut agent = Agent::start_with_snapshots(server).await;
    agent.prompt("[[slow]] take your time").await;
    agent.viewer.until("it speaks", |view| text_of(view).contains("The wrapper owns")).await;
    agent.take(json!({ "type": "prompt", "text": "[[plain]] and this", "delivery": "boundary" })).await;
    let queue = |event: &Event| event.kind.as_ref() == "session.queue.changed";
    agent.viewer.until_event("the queue is shown", queue).await;
    agent.take(json!({ "type": "abort" })).await;
    agent.turn_over().await;
    // Whether it showed parts for a while is a matter of its model's pace; none of them may stay.
    agent.agrees_with_its_server().await;
}

impl Agent {
    /// Sends a command that is to be taken.
    pub(super) async fn take(&self, command: Value) -> Value {
        let result = self.command(command).await;
        assert_eq!(result["ok"], json!(true), "{result}");
        result
    }

    /// Prompts it through its wrapper's own API, and gives the message's id.
    pub(super) async fn queue(&self, text: &str) -> String {
        let path = self.state_dir.join("api.json");
        let api: Value = std::fs::read_to_string(path).expect("it is there").parse().expect("it is JSON");
        let (port, token) = (&api["port"], api["token"].as_str().expect("a token"));
        let url = format!("http://127.0.0.1:{port}/job/prompt");
        let request = self.gastown.http.post(url).bearer_auth(token).json(&json!({ "text": text }));
        let answer: Value = request.send().await.expect("it answers").json().await.expect("it is JSON");
        answer["messageId"].as_str().unwrap_or_else(|| panic!("no id in {answer}")).to_owned()
    }
}

/// Prompts by their ids, and answers by whom they answer.
pub(super) fn told(messages: &[Value]) -> Vec<String> {
    let told = |message: &Value| {
        let info = &message["info"];
        let id = |name: &str| info[name].as_str().unwrap_or_default().to_owned();
        if info["role"] == "user" { id("id") } else { format!("to {}", id("parentID")) }
    };
    messages.iter().map(told).collect()
}

/// A file that names one MCP server, which is made in this folder, too.
pub(super) fn echo_server(folder: &Path) -> PathBuf {
    let (program, list) = (folder.join("echo.cjs"), folder.join("mcp.json"));
    std::fs::write(&program, ECHO_SERVER).expect("it is writable");
    let servers = json!([{ "name": "echo", "command": "node", "args": [program], "env": [{ "name": "MARK", "value": "!" }] }]);
    std::fs::write(&list, servers.to_string()).expect("it is writable");
    list
}

/// Whether an event says that the session is taken back, or that it is not any more.
fn reverted(event: &Event) -> Option<bool> {
    let data: Value = event.data.parse().ok().filter(|_| event.kind.as_ref() == "session.updated")?;
    Some(data["info"]["revert"].is_object())
}

/// An MCP server with one tool, which says what it is given.
const ECHO_SERVER: &str = r#"
const lines = require("node:readline").createInterface({ input: process.stdin });
const schema = { type: "object", properties: { text: { type: "string" } } };
const answers = {
  initialize: (asked) => ({
    protocolVersion: asked.protocolVersion, capabilities: { tools: {} }, serverInfo: { name: "echo", version: "1" },
  }),
  "tools/list": () => ({ tools: [{ name: "echo", description: "Says it again", inputSchema: schema }] }),
  "tools/call": (asked) => ({ content: [{ type: "text", text: `echo: ${asked.arguments.text}${process.env.MARK}` }] }),
};
lines.on("line", (line) => {
  const { id, method, params } = JSON.parse(line);
  if (id === undefined) return;
  const result = answers[method] ? answers[method](params) : {};
  console.log(JSON.stringify({ jsonrpc: "2.0", id, result }));
});
"#;
