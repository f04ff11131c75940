//! An agent whose turn is over, and whose work is being committed.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::tried::{Tried, put_program};
use crate::{oracle::Seen, real_agents::git, support::process::until};

/// Waits in the commit until somebody opens the gate.
const HOOK: &str = "#!/bin/sh\necho > .git/committing\nuntil [ -e .git/gate ]; do sleep 0.05; done\n";

/// Has the agent write a file, and its commit wait in a hook.
pub(super) async fn begin(tried: &mut Tried) {
    let hook = in_git(tried, "hooks/pre-commit");
    git(tried.work_disk.path(), &["switch", "--quiet", "--force-create", "topic"]);
    std::fs::create_dir_all(hook.parent().expect("a folder")).expect("the work folder is there");
    put_program(&hook, HOOK);
    for file in ["committing", "gate"] {
        // Of an earlier run of this.
        let _ = std::fs::remove_file(in_git(tried, file));
    }
    configure(tried, true).await;
    write(tried).await;
    tried.until_agent_says("wrapper.auto_commit.started").await;
    let mark = in_git(tried, "committing");
    until("the hook runs", || mark.exists().then_some(()).ok_or("it does not")).await;
}

/// The agent server is gone.
pub(super) async fn server_is_gone(tried: &mut Tried) {
    open_gate(tried);
    tried.until_agent_says("agent.failed").await;
    let expected =
        ["auto_commit.started", "auto_commit.completed", "condense.started", "condense.failed", "over"];
    assert_eq!(said(tried), expected);
}

/// The wrapper is gone, and so is its git; had that been killed as well, it had left its lock.
pub(super) async fn broke_off(tried: &mut Tried) {
    std::fs::write(in_git(tried, "index.lock"), "").expect("the work folder is there");
    open_gate(tried);
    tried.until_agent_says("session.idle").await;
    assert_eq!(said(tried), ["auto_commit.started", "auto_commit.failed", "over"]);
}

/// The relay was gone.
pub(super) async fn goes_on(tried: &mut Tried) {
    open_gate(tried);
    tried.agent.turn_over().await;
    let expected =
        ["auto_commit.started", "auto_commit.completed", "condense.started", "condense.completed", "over"];
    assert_eq!(said(tried), expected);
}

/// The next turn is committed, with all that was left; what comes then is not.
pub(super) async fn next_turn(tried: &mut Tried) {
    write(tried).await;
    let committed = tried.until_agent_says("wrapper.auto_commit.completed").await;
    tried.agent.turn_over().await;
    let work = tried.work_disk.path();
    assert_eq!(git(work, &["rev-parse", "topic"]), committed["hash"], "{committed}");
    assert_eq!(git(work, &["status", "--porcelain"]), "", "nothing is left out");
    configure(tried, false).await;
}

async fn write(tried: &mut Tried) {
    let (dir, n) = (tried.work_disk.path().display().to_string(), tried.number());
    tried.prompt(&format!("[[fill dir={dir} n={n}]] write")).await;
}

async fn configure(tried: &Tried, on: bool) {
    let config = json!({ "autoCommit": on, "condenseOnComplete": on });
    let path = format!("/agents/{}/config", tried.agent.id);
    let _: Value = tried.agent.gastown.api("PATCH", &path, Some(config)).await;
}

fn open_gate(tried: &Tried) {
    std::fs::write(in_git(tried, "gate"), "").expect("the work folder is there");
}

/// What was said since the commit began: by the wrapper of its work, and that the turn is over.
fn said(tried: &Tried) -> Vec<&str> {
    let mut said: Vec<&str> = Vec::new();
    for seen in &tried.agent.viewer.history.seen {
        let Seen::Event(event) = seen else { continue };
        match event.kind.strip_prefix("wrapper.") {
            Some("auto_commit.started") => said = vec!["auto_commit.started"],
            Some(kind) if kind.starts_with("auto_commit.") || kind.starts_with("condense.") => {
                said.push(kind)
            }
            Some(_) => {}
            // Agent servers say it once or twice.
            None if matches!(&*event.kind, "session.idle" | "session.turn.close")
                && said.last() != Some(&"over") =>
            {
                said.push("over");
            }
            None => {}
        }
    }
    said
}

fn in_git(tried: &Tried, file: &str) -> PathBuf {
    tried.work_disk.path().join(".git").join(file)
}
