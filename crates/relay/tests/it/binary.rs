//! The binary `gastown-relay`: started as its users start it.

use std::{
    io::{BufRead as _, BufReader},
    process::{Command, Stdio},
};

use serde_json::Value;

use crate::support::{http, within};

const RELAY: &str = env!("CARGO_BIN_EXE_gastown-relay");

#[tokio::test]
async fn the_binary_serves_whoever_has_a_token_of_its_key_and_ends_when_it_is_asked_to() {
    let dir = tempfile::tempdir().unwrap();
    let relay = |arguments: &[&str]| {
        let mut command = Command::new(RELAY);
        command.args(arguments).arg("--data-dir").arg(dir.path()).stdout(Stdio::piped());
        command
    };
    let mut child = relay(&["--listen", "127.0.0.1:0", "--json"]).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let ready: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(ready["pid"], child.id());
    let token = relay(&["--service-token", "main"]).output().unwrap();
    let token = String::from_utf8(token.stdout).unwrap();
    let url = format!("{}/v1/agents/a1/events", ready["url"].as_str().unwrap());
    let known = http().get(&url).bearer_auth(token.trim()).send();
    assert_eq!(within(known).await.unwrap().status(), 404, "it is let in, and there is no such log");
    assert_eq!(within(http().get(&url).send()).await.unwrap().status(), 401);

    assert!(Command::new("kill").arg(child.id().to_string()).status().unwrap().success());
    assert!(child.wait().unwrap().success());
}

#[test]
fn p17_the_binary_does_not_listen_to_a_network_without_a_key_and_a_name() {
    let dir = tempfile::tempdir().unwrap();
    let refused =
        Command::new(RELAY).args(["--listen", "0.0.0.0:0", "--data-dir"]).arg(dir.path()).output().unwrap();
    assert!(!refused.status.success());
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(said.contains("--signing-key") && said.contains("--allow-host"), "{said}");
}
