//! `gastown record`: what an agent did, written to a file, plays as an agent that shows the same.

use std::{path::Path, process::Stdio};

use protocol::view::{Lifecycle, SessionView};
use serde_json::json;
use tokio::{
    process::{Child, Command},
    time::timeout,
};

use crate::{
    oracle::shown,
    support::{
        server::{GASTOWN, Gastown, PATIENCE, log_of},
        viewer::Viewer,
    },
};

const SCENARIO: &str = r#"{ "title": "Tidy up", "agent": "build", "model": { "providerID": "p", "modelID": "m" }, "turns": [
  { "name": "tidy", "free": true, "steps": [
    { "actions": [
      { "reasoning": { "text": "What is there to do?" } }, { "text": { "text": "I shall ask first." } },
      { "bash": { "command": "echo done", "description": "Do it", "ask": { "always": ["echo *"] } } },
      { "question": { "questions": [
        { "question": "Which?", "header": "Which", "options": [{ "label": "This", "description": "" }] } ] } },
      { "todo": { "todos": [ { "content": "tidy up", "status": "completed", "priority": "low" } ] } },
      { "task": { "description": "Help", "prompt": "Look", "agent": "general", "steps": [
        { "actions": [ { "text": { "text": "I looked." } } ] } ] } } ] },
    { "actions": [ { "text": { "text": "You chose ${answer}." } } ] } ] } ] }"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p10_a_replay_of_a_recording_shows_what_the_agent_showed_with_its_prompts_and_answers() {
    let gastown = Gastown::up(&[]).await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let scenario = folder.path().join("scenario.json");
    std::fs::write(&scenario, SCENARIO).expect("it is writable");
    let runtime = json!({ "kind": "scripted", "scenario": scenario, "speed": "max" });
    let (agent, mut viewer) = start(&gastown, "toast", folder.path(), runtime).await;
    let live = folder.path().join("live.jsonl");
    let mut recorder = record(&gastown, &["--out", live.to_str().expect("a path")]);

    gastown.prompt(&agent, "tidy up, please").await;
    answer(&gastown, &mut viewer, "permission").await;
    answer(&gastown, &mut viewer, "question").await;
    viewer.until("the turn is over", |view| text(view).contains("You chose This.") && is_quiet(view)).await;
    let (status, taken) = gastown.command(&agent, json!({ "type": "stop" })).await;
    assert_eq!((status, &taken["ok"]), (200, &json!(true)), "{taken}");
    viewer.until("the agent is gone", has_ended).await;
    // The one that followed ends with the agent; the other one comes when all is over, and the log is compacted.
    let followed = timeout(PATIENCE, recorder.wait()).await.expect("the recorder ends").expect("it ran");
    assert!(followed.success(), "{followed}");
    let past = folder.path().join("past.jsonl");
    let arguments = ["--no-follow", "--out", past.to_str().expect("a path")];
    let written =
        timeout(PATIENCE, record(&gastown, &arguments).wait()).await.expect("it ends").expect("it ran");
    assert!(written.success(), "{written}");
    let again =
        timeout(PATIENCE, record(&gastown, &arguments).wait()).await.expect("it ends").expect("it ran");
    assert_eq!(again.code(), Some(6), "a recording overwrites nothing");

    for (name, recording) in [("live", live), ("past", past)] {
        let runtime = json!({ "kind": "replay", "recording": recording, "speed": "max" });
        let (_, mut replayed) = start(&gastown, name, folder.path(), runtime).await;
        replayed.until("the recording is through", has_ended).await;
        assert_eq!(shown(&replayed.view), shown(&viewer.view), "{name}");
        assert!(text(&replayed.view).contains("tidy up, please"), "the prompt is in it");
        assert_eq!(replayed.view.answered().len(), 2, "the answers are in it");
    }
}

async fn start(
    gastown: &Gastown,
    name: &str,
    folder: &Path,
    runtime: serde_json::Value,
) -> (protocol::AgentId, Viewer) {
    let registration =
        json!({ "name": name, "role": "polecat", "directory": folder, "start": true, "runtime": runtime });
    let agent = gastown.start_agent(registration).await;
    let mut viewer = Viewer::of(&gastown.client(), log_of(&agent));
    viewer.until_event("the agent starts", |event| event.kind.as_ref() == "agent.started").await;
    (agent, viewer)
}

async fn answer(gastown: &Gastown, viewer: &mut Viewer, kind: &str) {
    let prefix = format!("{kind}/");
    let open = |view: &SessionView| {
        view.pending().iter().find_map(|ask| ask.key().as_str().strip_prefix(&prefix).map(str::to_owned))
    };
    viewer.until(&format!("a {kind} is asked"), |view| open(view).is_some()).await;
    let id = open(&viewer.view).expect("it is open");
    let command = match kind {
        "permission" => json!({ "type": kind, "id": id, "reply": "once" }),
        _ => json!({ "type": kind, "id": id, "answers": [["This"]] }),
    };
    let (status, taken) = gastown.command(&"toast".parse().expect("an id"), command).await;
    assert_eq!((status, &taken["ok"]), (200, &json!(true)), "{taken}");
}

fn record(gastown: &Gastown, arguments: &[&str]) -> Child {
    let mut command = Command::new(GASTOWN);
    command.args(["record", "toast", "--data-dir"]).arg(gastown.data_dir()).args(arguments);
    command.stdin(Stdio::null()).kill_on_drop(true).spawn().expect("the binary starts")
}

fn has_ended(view: &SessionView) -> bool {
    matches!(view.agent().lifecycle, Lifecycle::Exited(_))
}

fn is_quiet(view: &SessionView) -> bool {
    view.roots().iter().all(|session| !session.is_turn_open())
}

fn text(view: &SessionView) -> String {
    shown(view).to_string()
}
