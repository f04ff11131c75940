//! The binary `gastown-worker`: started as its users start it.

use std::{
    io::{BufRead as _, BufReader},
    process::{Command, Stdio},
};

use reqwest::Client;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::support::in_time;

const WORKER: &str = env!("CARGO_BIN_EXE_gastown-worker");

#[tokio::test]
async fn the_binary_serves_a_town_and_ends_when_it_is_asked_to() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = Command::new(WORKER)
        .args(["--listen", "127.0.0.1:0", "--json", "--data-dir"])
        .arg(dir.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let ready: Value = serde_json::from_str(&line).unwrap();
    let url = ready["url"].as_str().unwrap();
    assert_eq!(std::fs::read_to_string(dir.path().join("url")).unwrap().trim(), url);
    let token = std::fs::read_to_string(ready["token_file"].as_str().unwrap()).unwrap();
    // Another test may have been first; nothing is encrypted on loopback anyway.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let agents = Client::new().get(format!("{url}/api/towns/main/agents")).bearer_auth(token.trim()).send();
    assert_eq!(in_time("an answer", agents).await.unwrap().status(), 200);

    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    assert!(child.wait().unwrap().success());
    assert!(!dir.path().join("url").exists(), "nobody is sent to a worker that is gone");
}

#[test]
fn the_binary_says_what_is_wrong_with_its_arguments() {
    let refused = Command::new(WORKER).args(["--relay", "127.0.0.1:4281"]).output().unwrap();
    assert_eq!(refused.status.code(), Some(2));
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(said.contains("it is a URL such as http://127.0.0.1:4281"), "{said}");
}
