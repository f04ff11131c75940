//! The README's `curl` lines, run as they stand there against a live agent.

use std::process::Stdio;

use serde_json::{Value, json};
use tokio::{process::Command, time::timeout};

use crate::support::{
    server::{Gastown, PATIENCE, log_of},
    viewer::Viewer,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p9_the_lines_of_the_readme_show_the_same_log() {
    let gastown = Gastown::up(&[]).await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let scenario = concat!(env!("CARGO_MANIFEST_DIR"), "/demo/feature.json");
    let agent = gastown
        .start_agent(json!({
            "name": "toast", "role": "polecat", "directory": folder.path(), "start": true,
            "runtime": { "kind": "scripted", "scenario": scenario, "speed": "50" },
        }))
        .await;
    let mut viewer = Viewer::of(&gastown.client(), log_of(&agent));
    viewer.until("the agent asks", |view| !view.pending().is_empty()).await;

    let readme = include_str!("../../README.md");
    let lines: Vec<&str> = readme.lines().filter(|line| line.starts_with("curl ")).collect();
    assert_eq!(lines.len(), 4, "a page, a long poll, a stream, and a stream that resumes: {lines:?}");
    let epoch = viewer.epoch().expect("it is subscribed");
    let mut outputs = Vec::new();
    for line in lines {
        outputs.push(run(&gastown, line, &format!("{epoch}:3")).await);
    }

    let page: Value = serde_json::from_str(&outputs[0]).expect("the page is JSON");
    let first = page["events"][0].clone();
    assert_eq!(page["epoch"], json!(epoch.as_str()));
    assert!(first["seq"].as_u64().is_some_and(|seq| seq > 0), "{first}");
    let polled: Value = serde_json::from_str(&outputs[1]).expect("the long poll is JSON");
    assert!(polled["events"].is_array(), "{polled}");
    // An event has a position; the other frames of the stream (a subscription begins, it is live) have none.
    let data = |output: &str| -> Vec<String> {
        let data = output.lines().filter_map(|line| line.strip_prefix("data: "));
        data.filter(|data| data.starts_with("{\"seq\":")).map(str::to_owned).collect()
    };
    // The bytes of an event are the same on every way.
    let events = data(&outputs[2]);
    assert!(outputs[0].contains(&events[0]), "{}\n{}", outputs[0], events[0]);
    let resumed: Value = serde_json::from_str(&data(&outputs[3])[0]).expect("an event");
    assert!(resumed["seq"].as_u64().is_some_and(|seq| seq > 3), "it goes on after the cursor: {resumed}");
}

async fn run(gastown: &Gastown, line: &str, cursor: &str) -> String {
    let line = line.replace("http://127.0.0.1:4280", &gastown.url);
    let child = Command::new("sh")
        .args(["-c", &line])
        .env("TOKEN", &gastown.token)
        .env("CURSOR", cursor)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = timeout(PATIENCE, child).await.expect("curl ends").expect("sh is there");
    String::from_utf8(output.stdout).expect("UTF-8")
}
