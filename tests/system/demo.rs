//! `gastown demo`: a live town on nothing but the binary.

use std::process::Stdio;

use relay::client::{Client, Credentials, Token};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::Command,
    time::timeout,
};

use crate::support::{
    process::running,
    server::{GASTOWN, PATIENCE, log_of},
    viewer::Viewer,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p16_the_demo_shows_agents_at_work_and_leaves_nothing_behind() {
    let mut child = Command::new(GASTOWN)
        .args(["demo", "--json", "--listen", "127.0.0.1:0"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("the binary starts");
    let mut lines = BufReader::new(child.stdout.take().expect("the output is piped")).lines();
    let line =
        timeout(PATIENCE, lines.next_line()).await.expect("the demo becomes ready").expect("its output");
    let ready: Value = serde_json::from_str(&line.expect("a line")).expect("it is JSON");
    let url = ready["url"].as_str().expect("a URL");
    let token_file = ready["token_file"].as_str().expect("a token file");
    let token = std::fs::read_to_string(token_file).expect("the token can be read");
    let client = Client::new(url, Credentials::bearer(Token::new(token.trim()))).expect("the URL is good");

    let agents: Value = crate::support::http()
        .get(format!("{url}/api/towns/{}/agents", ready["town"].as_str().expect("a town")))
        .bearer_auth(token.trim())
        .send()
        .await
        .expect("the demo answers")
        .json()
        .await
        .expect("JSON");
    let agents = agents["data"].as_array().or(agents["data"]["agents"].as_array()).expect("a list").clone();
    assert!(agents.len() >= 4, "{agents:?}");

    let viewer = |name: &str| {
        let agent = agents.iter().find(|agent| agent["name"] == name).unwrap_or_else(|| panic!("no {name}"));
        Viewer::of(&client, log_of(&agent["id"].as_str().expect("an id").parse().expect("an id")))
    };
    viewer("amber").until("a permission is asked", |view| !view.pending().is_empty()).await;
    viewer("birch")
        .until("a sub-agent is at work", |view| view.sessions().iter().any(|s| !s.is_root()))
        .await;
    viewer("cedar").until_event("a retry", |event| event.data.json().contains("\"retry\"")).await;
    viewer("drift").until("a recording plays", |view| !view.sessions().is_empty()).await;

    let data_dir = std::path::Path::new(token_file).parent().expect("a folder").display().to_string();
    assert!(!running(&["wrapper", &data_dir]).is_empty(), "its agents are processes");
    let pid = Pid::from_raw(i32::try_from(child.id().expect("it runs")).expect("a pid")).expect("a pid");
    kill_process(pid, Signal::TERM).expect("it is there");
    let status = timeout(PATIENCE, child.wait()).await.expect("the demo ends").expect("it can be waited for");
    assert!(status.success(), "{status}");
    assert_eq!(running(&[&data_dir]), [], "nothing is left behind");
}
