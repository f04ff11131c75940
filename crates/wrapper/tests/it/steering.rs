//! A whole wrapper with an agent that the test plays: turns that come to no end, commands over a restart, sessions that are lost.

use gastown_wrapper::{Exit, runtime::ServerState};
use protocol::{Command, ErrorCode, Prompt, view::SessionView};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::{
    api::answer,
    puppet::Puppet,
    wrapper::{SOON, World, Wrapper, is_idle},
};

#[tokio::test]
async fn p14_a_turn_in_which_nothing_happens_is_ended_with_an_error_and_what_is_queued_goes_on() {
    let puppet = Puppet::new();
    let mut world = World::played(&puppet, |options| options.turn_limits.turn_silence = 1).await;
    world.prompt("a").await;
    puppet.begins_turn("msg_1").await;
    world.send(&json!({ "type": "prompt", "text": "b" }));
    assert!(matches!(puppet.told(2).await[1], Command::Abort));
    let error = world.until_said("session.error").await;
    assert_eq!(error["error"]["name"], "TurnLimitError");
    assert_eq!(error["error"]["data"]["message"], "nothing happened in the turn for 1 s");
    puppet.ends_turn().await;
    assert_eq!(text(&puppet.told(3).await[2]), "b");
    world.kill().await;
}

#[tokio::test]
async fn p14_an_agent_that_does_not_end_an_aborted_turn_is_started_again_with_its_session() {
    let puppet = Puppet::new();
    let mut world = World::played(&puppet, |options| options.turn_limits.abort_limit = 1).await;
    world.prompt("a").await;
    puppet.begins_turn("msg_1").await;
    puppet.says("msg_2", "half a sent").await;
    assert!(world.command(&json!({ "type": "abort" })).await.ok);
    puppet.started(2).await;
    let failed = world.until_said("agent.failed").await;
    assert_eq!(failed["message"], "the agent did not end its turn when it was told to");
    let view = world.until(is_idle).await;
    let said = view.message("msg_2").unwrap().part("prt_msg_2").unwrap().body().text_part().cloned().unwrap();
    assert!(said.is_interrupted() && said.text == "half a sent", "{said:?}");
    assert_eq!(view.agent().started.as_ref().map(|started| started.resumed), Some(true));
    assert_eq!(world.wrapper.end().await.unwrap(), Exit::Done);
}

#[tokio::test]
async fn an_abort_is_told_to_the_agent_whatever_it_does() {
    let puppet = Puppet::new();
    let mut world = World::played(&puppet, |_| {}).await;
    world.until(is_idle).await;
    // A sub-agent may work on.
    assert!(world.command(&json!({ "type": "abort" })).await.ok);
    assert!(matches!(puppet.told(1).await[..], [Command::Abort]));

    // The turn of a slash command begins with its message.
    assert!(world.command(&json!({ "type": "command", "name": "init" })).await.ok);
    let queued = world.send(&json!({ "type": "prompt", "text": "b" }));
    assert!(world.command(&json!({ "type": "abort" })).await.ok);
    assert_eq!(world.answer(&queued).await.error.unwrap().code, ErrorCode::Conflict);
    assert!(matches!(puppet.told(3).await[1..], [Command::Slash { .. }, Command::Abort]));
    puppet.begins_turn("msg_1").await;
    assert!(matches!(puppet.told(4).await[3], Command::Abort), "it came before its turn");
    puppet.ends_turn().await;
    world.until(is_idle).await;
    world.wrapper.end().await.unwrap();
}

#[tokio::test]
async fn a_prompt_that_the_agents_death_swallowed_is_told() {
    let puppet = Puppet::new();
    let mut world = World::played(&puppet, |_| {}).await;
    world.prompt("a").await;
    puppet.told(1).await;
    puppet.dies().await;
    let error = world.until_said("session.error").await;
    assert_eq!(error["error"]["name"], "PromptLostError");
    world.until(is_idle).await;
    world.wrapper.end().await.unwrap();
}

#[tokio::test]
async fn a_slash_command_that_fails_late_is_told_and_the_next_prompt_goes() {
    let puppet = Puppet::new();
    let mut world = World::played(&puppet, |_| {}).await;
    world.until(is_idle).await;
    assert!(world.command(&json!({ "type": "command", "name": "init" })).await.ok);
    world.send(&json!({ "type": "prompt", "text": "b" }));
    puppet.fails_late("the command /init failed: exit code 7").await;
    let error = world.until_said("session.error").await;
    assert_eq!(error["error"]["name"], "CommandFailedError");
    assert_eq!(error["error"]["data"]["message"], "the command /init failed: exit code 7");
    assert_eq!(text(&puppet.told(2).await[1]), "b");
    world.kill().await;
}

#[tokio::test]
async fn what_is_in_flight_is_what_was_taken_and_is_not_through() {
    let puppet = Puppet::new();
    let mut world = World::played(&puppet, |_| {}).await;
    world.until(is_idle).await;
    world.send(&json!({ "type": "prompt", "text": "a", "message_id": "msg_1" }));
    puppet.told(1).await;
    world.send(&json!({ "type": "prompt", "text": "b" }));
    world.until_inflight(&["msg_1", "c-2"]).await;
    puppet.begins_turn("msg_1").await;
    puppet.ends_turn().await;
    puppet.told(2).await;
    world.until_inflight(&["c-2"]).await;
    puppet.begins_turn("msg_2").await;
    puppet.ends_turn().await;
    world.until_inflight(&[]).await;
    world.wrapper.end().await.unwrap();
}

#[tokio::test]
async fn p5_a_command_that_was_handed_on_is_not_carried_out_again_by_the_next_run() {
    let puppet = Puppet::new();
    let mut world = World::played(&puppet, |_| {}).await;
    world.until(is_idle).await;
    let prompt = json!({ "type": "prompt", "text": "once" });
    let first = world.send(&prompt);
    assert!(world.answer(&first).await.ok);
    puppet.begins_turn("msg_1").await;
    let queued = world.send(&json!({ "type": "prompt", "text": "queued" }));
    assert!(world.command(&json!({ "type": "ping" })).await.ok);
    world.kill().await;
    puppet.forget_commands();
    world.wrapper = Wrapper::start_played(Wrapper::options(&world.relay, &world.folder), &puppet).await;
    puppet.started(2).await;
    world.until(is_idle).await;

    world.send_as(&first, &prompt);
    assert_eq!(world.answer(&first).await.error.unwrap().code, ErrorCode::Conflict);
    world.send_as(&queued, &json!({ "type": "prompt", "text": "queued" }));
    assert!(world.answer(&queued).await.ok, "it was not handed on");
    let told: Vec<String> = puppet.told(1).await.iter().map(text).collect();
    assert_eq!(told, ["queued"]);
    world.kill().await;
}

#[tokio::test]
async fn p1_a_text_that_was_broken_off_is_kept_though_the_relay_is_away_when_the_next_run_begins() {
    let puppet = Puppet::new();
    let mut world = World::played(&puppet, |_| {}).await;
    world.prompt("talk").await;
    puppet.begins_turn("msg_1").await;
    puppet.says("msg_2", "half a sent").await;
    world.until(|view| view.part("msg_2", "prt_msg_2").is_some()).await;
    world.kill().await;
    world.relay.is_away(true);
    world.wrapper = Wrapper::start_played(Wrapper::options(&world.relay, &world.folder), &puppet).await;
    let session = puppet.started(2).await;

    // The server has the text's beginning, and knows of no end.
    let info = json!({ "id": "msg_2", "sessionID": session, "role": "assistant", "time": { "created": 2 } });
    let part = json!({ "id": "prt_msg_2", "messageID": "msg_2", "sessionID": session, "type": "text", "text": "", "time": { "start": 2 } });
    let stored = ServerState {
        sessions: vec![json!({ "id": session })],
        messages: vec![json!({ "info": info, "parts": [part] })],
        ..ServerState::default()
    };
    puppet.catches_up(stored.clone()).await;
    puppet.begins_turn("msg_3").await;
    world.relay.is_away(false);
    puppet.is_asked_again().await;
    let mut now = stored;
    now.messages.push(json!({ "info": { "id": "msg_3", "sessionID": session, "role": "user", "time": { "created": 1 } },
        "parts": [{ "id": "prt_msg_3", "messageID": "msg_3", "sessionID": session, "type": "text", "text": "fix it" }] }));
    now.status.insert(session, json!({ "type": "busy" }));
    puppet.catches_up(now).await;
    puppet.ends_turn().await;
    let view = world.until(|view| is_idle(view) && view.message("msg_3").is_some()).await;
    let said = view.part("msg_2", "prt_msg_2").unwrap().body().text_part().cloned().unwrap();
    assert!(said.is_interrupted() && said.text == "half a sent", "{said:?}");
    assert!(view.message("msg_2").unwrap().info().unwrap().time.completed.is_some());
    world.wrapper.end().await.unwrap();
}

#[tokio::test]
async fn a_session_that_was_deleted_under_a_running_agent_is_begun_again() {
    let puppet = Puppet::new();
    let mut world = World::played(&puppet, |_| {}).await;
    world.prompt("fix it").await;
    puppet.begins_turn("msg_1").await;
    puppet.ends_turn().await;
    world.until(is_idle).await;
    puppet.forget_sessions();
    let refused = world.command(&json!({ "type": "prompt", "text": "go on" })).await;
    assert_eq!(refused.error.unwrap().code, ErrorCode::NotFound);
    assert_eq!(puppet.started(2).await, "ses_2");
    let failed = world.until_said("agent.failed").await;
    assert_eq!(failed["message"], "the agent's session was deleted on the agent server");

    // Nobody asked it for anything, but its stream was taken up again.
    puppet.forget_sessions();
    puppet.catches_up(ServerState::default()).await;
    assert_eq!(puppet.started(3).await, "ses_3");
    world.prompt("go on").await;
    let kinds = world.relay.kinds();
    assert_eq!(kinds.iter().filter(|kind| *kind == "wrapper.session_recreated").count(), 2, "{kinds:?}");
    world.wrapper.end().await.unwrap();
}

#[tokio::test]
async fn a_session_that_is_lost_is_begun_again_and_told_what_was_said_in_it() {
    let puppet = Puppet::new();
    let mut world = World::played(&puppet, |_| {}).await;
    world.prompt("fix it").await;
    puppet.begins_turn("msg_1").await;
    puppet.says("msg_2", "It is fixed.").await;
    puppet.ends_turn().await;
    world.until(is_idle).await;
    puppet.forget_sessions();
    puppet.dies().await;
    assert_eq!(puppet.started(2).await, "ses_2");
    let said = world.until_said("wrapper.session_recreated").await;
    assert_eq!(said, json!({ "lost": "ses_1", "session": "ses_2", "summarised": true }));

    // The next run goes on with the new session, which was told nothing yet.
    world.kill().await;
    world.wrapper = Wrapper::start_played(Wrapper::options(&world.relay, &world.folder), &puppet).await;
    assert_eq!(puppet.started(3).await, "ses_2");
    world.until(is_idle).await;
    puppet.forget_commands();
    assert!(world.command(&json!({ "type": "prompt", "text": "go on" })).await.ok);
    let Command::Prompt(Prompt { parts: Some(parts), text: None, .. }) = puppet.told(1).await.remove(0)
    else {
        panic!("a prompt in parts")
    };
    let told = parts[0]["text"].as_str().unwrap();
    assert!(told.contains("User: fix it") && told.contains("Assistant: It is fixed."), "{told}");
    assert_eq!((&parts[0]["synthetic"], &parts[1]["text"]), (&json!(true), &json!("go on")));
    puppet.begins_turn("msg_3").await;
    puppet.ends_turn().await;
    world.until(is_idle).await;
    assert!(world.command(&json!({ "type": "prompt", "text": "and on" })).await.ok);
    assert_eq!(text(&puppet.told(2).await[1]), "and on", "it is told once");
    world.kill().await;
}

/// What a prompt says, where it says nothing else.
fn text(command: &Command) -> String {
    let Command::Prompt(Prompt { text: Some(text), parts: None, .. }) = command else {
        panic!("{command:?} is no plain prompt")
    };
    text.clone()
}

impl World {
    /// Waits until the local API says that this is in flight.
    async fn until_inflight(&self, expected: &[&str]) {
        let said = async {
            while answer(self.request(Method::GET, "job/status")).await.1["inflight"] != json!(expected) {}
        };
        timeout(SOON, said).await.unwrap_or_else(|_| panic!("{expected:?} is never in flight"));
    }

    /// The payload of the first event of this type, once it was said.
    async fn until_said(&self, kind: &str) -> Value {
        self.until(|_: &SessionView| self.relay.kinds().iter().any(|said| said == kind)).await;
        let events = self.relay.events();
        let event = events.iter().find(|event| &*event.kind == kind).unwrap();
        event.data.parse().unwrap()
    }
}
