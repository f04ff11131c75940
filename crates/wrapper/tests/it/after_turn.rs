//! What is done after a turn: commits in real repositories, with hooks that fail or hang, and the outcome last whatever happens.

use std::{
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use gastown_wrapper::{Exit, ShutdownLevel};
use protocol::agent::{AfterTurnFailed, AutoCommitCompleted, NotPushed, SkipReason, Skipped};
use serde_json::{Value, json};

use super::wrapper::{World, is_idle};

/// What tells the outcome of a scripted agent's turn.
const OUTCOME: &str = "session.turn.close";

#[tokio::test]
async fn what_a_turn_changed_is_committed_and_pushed_before_the_outcome_is_told() {
    let mut world = world(|_| {}).await;
    turn(&mut world, "Add a line to the notes\nand nothing else").await;
    let said = after(&world);
    assert_eq!(said.kinds, ["wrapper.auto_commit.started", "wrapper.auto_commit.completed", OUTCOME]);
    let completed: AutoCommitCompleted = said.data("wrapper.auto_commit.completed");
    assert_eq!((completed.branch.as_str(), completed.upstream.as_deref()), ("topic", Some("origin/topic")));
    assert_eq!((completed.pushed, completed.not_pushed, completed.hooks_skipped), (true, None, None));
    assert_eq!(completed.subject, "Add a line to the notes");
    let work = world.folder.path().join("work");
    assert_eq!(git(&work, &["rev-parse", "HEAD"]), completed.hash);
    assert_eq!(git(&remote(&world), &["rev-parse", "topic"]), completed.hash);
    assert_eq!(git(&work, &["status", "--porcelain"]), "", "all of it is in the commit");
    let body = git(&work, &["log", "-1", "--format=%B"]);
    assert!(body.contains("Gastown-Agent: a1\nGastown-Session: ses"), "{body}");
    world.wrapper.end().await.unwrap();
}

#[tokio::test]
async fn what_is_not_to_be_committed_is_left_alone_and_told_why() {
    let mut world = world(|_| {}).await;
    let work = world.folder.path().join("work");
    git(&work, &["switch", "--quiet", "--detach"]);
    assert_eq!(skipped_after_a_turn(&mut world).await, SkipReason::DetachedHead);
    git(&work, &["switch", "--quiet", "main"]);
    assert_eq!(skipped_after_a_turn(&mut world).await, SkipReason::DefaultBranch);
    git(&work, &["switch", "--quiet", "topic"]);
    std::fs::write(work.join(".git/MERGE_HEAD"), git(&work, &["rev-parse", "main"])).unwrap();
    assert_eq!(skipped_after_a_turn(&mut world).await, SkipReason::Unfinished);
    std::fs::remove_file(work.join(".git/MERGE_HEAD")).unwrap();
    std::fs::write(work.join(".git/info/exclude"), "notes\n").unwrap();
    git(&work, &["rm", "--quiet", "--cached", "--ignore-unmatch", "notes"]);
    assert_eq!(skipped_after_a_turn(&mut world).await, SkipReason::Clean);
    std::fs::rename(work.join(".git"), world.folder.path().join("elsewhere")).unwrap();
    assert_eq!(skipped_after_a_turn(&mut world).await, SkipReason::NoRepository);
    assert_eq!(git(&remote(&world), &["branch", "--format=%(refname:short)"]), "main\ntopic");
    world.wrapper.end().await.unwrap();
}

#[tokio::test]
async fn the_default_branch_is_committed_on_if_the_config_names_it() {
    let mut world = world(|options| options.after_turn.upstream_branch = Some("main".to_owned())).await;
    git(&world.folder.path().join("work"), &["switch", "--quiet", "main"]);
    turn(&mut world, "go").await;
    let completed: AutoCommitCompleted = after(&world).data("wrapper.auto_commit.completed");
    assert_eq!((completed.pushed, completed.upstream.as_deref()), (true, Some("origin/main")));
    world.wrapper.end().await.unwrap();
}

#[tokio::test]
async fn a_hook_that_fails_is_left_out_and_what_it_set_right_is_kept() {
    let mut world = world(|_| {}).await;
    let work = world.folder.path().join("work");
    hook(&work, "pre-commit", "echo tidy > tidied; echo 'not tidy' >&2; exit 1");
    turn(&mut world, "go").await;
    let completed: AutoCommitCompleted = after(&world).data("wrapper.auto_commit.completed");
    let why = completed.hooks_skipped.expect("the hooks were left out");
    assert!(why.contains("not tidy"), "{why}");
    assert_eq!(git(&work, &["show", "HEAD:tidied"]), "tidy");
    world.wrapper.end().await.unwrap();
}

#[tokio::test]
async fn p16_a_hook_that_hangs_is_ended_with_all_it_began_and_the_outcome_comes() {
    let mut world = world(|options| options.after_turn.hook_limit = 2).await;
    let work = world.folder.path().join("work");
    let pid = world.folder.path().join("pid");
    hook(&work, "pre-commit", &format!("setsid sleep 1000 & echo $! > '{}'; wait", pid.display()));
    turn(&mut world, "go").await;
    let said = after(&world);
    assert_eq!(said.kinds.last().map(String::as_str), Some(OUTCOME));
    let completed: AutoCommitCompleted = said.data("wrapper.auto_commit.completed");
    assert!(completed.hooks_skipped.is_some_and(|why| why.contains("longer than 2 s")));
    assert!(completed.pushed);
    assert!(!lives(&pid), "the hook's child lives on");
    world.wrapper.end().await.unwrap();
}

#[tokio::test]
async fn p16_an_end_in_the_middle_of_a_hook_tells_the_outcome_before_the_exit() {
    let mut world = world(|_| {}).await;
    let work = world.folder.path().join("work");
    let pid = world.folder.path().join("pid");
    hook(&work, "pre-commit", &format!("setsid sleep 1000 & echo $! > '{}'; wait", pid.display()));
    world.prompt("go").await;
    world.until(|_| pid.exists() && std::fs::read(&pid).is_ok_and(|pid| pid.ends_with(b"\n"))).await;
    world.wrapper.trigger.ask(ShutdownLevel::Now);
    assert_eq!(world.wrapper.end().await.unwrap(), Exit::Done);
    let said = after(&world);
    let expected = ["wrapper.auto_commit.started", "wrapper.auto_commit.failed", OUTCOME, "agent.exited"];
    assert_eq!(said.kinds, expected);
    gone(&pid).await;
    assert_eq!(git(&work, &["log", "--format=%s"]), "begin", "nothing was committed");
}

#[tokio::test]
async fn p7_locks_that_a_killed_git_left_do_not_stop_the_commit() {
    let mut world = world(|_| {}).await;
    let work = world.folder.path().join("work");
    std::fs::write(work.join(".git/index.lock"), "").unwrap();
    std::fs::write(work.join(".git/HEAD.lock"), "").unwrap();
    turn(&mut world, "go").await;
    let completed: AutoCommitCompleted = after(&world).data("wrapper.auto_commit.completed");
    assert_eq!((completed.hooks_skipped, completed.pushed), (None, true));
    assert!(lines(&work).is_empty(), "all of it is in the commit");
    world.wrapper.end().await.unwrap();
}

#[tokio::test]
async fn a_lock_is_left_alone_while_a_git_runs_in_the_work_tree() {
    let mut world = world(|_| {}).await;
    let work = world.folder.path().join("work");
    let lock = work.join(".git/index.lock");
    std::fs::write(&lock, "").unwrap();
    let mut theirs = Command::new("git");
    theirs.args(["hash-object", "--stdin"]).current_dir(&work).stdin(Stdio::piped()).stdout(Stdio::null());
    let mut theirs = theirs.spawn().unwrap();
    turn(&mut world, "go").await;
    let failed: AfterTurnFailed = after(&world).data("wrapper.auto_commit.failed");
    assert!(failed.message.contains("index.lock"), "{}", failed.message);
    assert!(lock.exists(), "it may be theirs");
    drop(theirs.stdin.take());
    theirs.wait().unwrap();
    world.wrapper.end().await.unwrap();
}

#[tokio::test]
async fn a_remote_that_is_ahead_is_never_forced() {
    let mut world = world(|_| {}).await;
    let other = world.folder.path().join("other");
    git(world.folder.path(), &["clone", "--quiet", "--branch", "topic", "remote.git", "other"]);
    named(&other);
    std::fs::write(other.join("theirs"), "theirs").unwrap();
    git(&other, &["add", "theirs"]);
    git(&other, &["commit", "--quiet", "--message", "theirs"]);
    git(&other, &["push", "--quiet"]);
    turn(&mut world, "go").await;
    let completed: AutoCommitCompleted = after(&world).data("wrapper.auto_commit.completed");
    assert_eq!((completed.pushed, completed.not_pushed), (false, Some(NotPushed::Rejected)));
    assert_eq!(git(&remote(&world), &["log", "-1", "--format=%s", "topic"]), "theirs");
    world.wrapper.end().await.unwrap();
}

#[tokio::test]
async fn a_branch_without_an_upstream_is_committed_and_stays_here() {
    let mut world = world(|_| {}).await;
    git(&world.folder.path().join("work"), &["switch", "--quiet", "--create", "alone"]);
    turn(&mut world, "go").await;
    let completed: AutoCommitCompleted = after(&world).data("wrapper.auto_commit.completed");
    assert_eq!((completed.pushed, completed.not_pushed), (false, Some(NotPushed::NoUpstream)));
    git(&world.folder.path().join("work"), &["config", "branch.alone.remote", "origin"]);
    git(&world.folder.path().join("work"), &["config", "branch.alone.merge", "refs/heads/alone"]);
    git(&world.folder.path().join("work"), &["remote", "set-url", "origin", "/no/such/place"]);
    turn(&mut world, "go").await;
    let completed: AutoCommitCompleted = after(&world).data("wrapper.auto_commit.completed");
    assert_eq!((completed.pushed, completed.not_pushed), (false, Some(NotPushed::Failed)));
    assert!(completed.detail.is_some_and(|said| said.contains("/no/such/place")));
    world.wrapper.end().await.unwrap();
}

#[tokio::test]
async fn an_agent_that_cannot_condense_is_said_so_and_the_outcome_comes_last() {
    let mut world = world(|options| {
        options.after_turn.condense_on_complete = true;
        options.keep_output = Some("kept".into());
    })
    .await;
    world.until(is_idle).await;
    std::fs::write(world.folder.path().join("work/kept/whole"), "the wrapper's own").unwrap();
    turn(&mut world, "go").await;
    let said = after(&world);
    let expected = [
        "wrapper.auto_commit.started",
        "wrapper.auto_commit.completed",
        "wrapper.condense.started",
        "wrapper.condense.skipped",
        OUTCOME,
    ];
    assert_eq!(said.kinds, expected);
    assert_eq!(said.data::<Skipped>("wrapper.condense.skipped").reason, SkipReason::Unsupported);
    assert_eq!(
        git(&world.folder.path().join("work"), &["ls-files"]),
        "begin\nnotes",
        "the wrapper's own is left out"
    );
    world.wrapper.end().await.unwrap();
}

#[tokio::test]
async fn an_aborted_turn_is_not_committed() {
    let mut world = world(|_| {}).await;
    std::fs::write(world.folder.path().join("work/half"), "half").unwrap();
    std::fs::write(world.folder.path().join("work/slow"), "").unwrap();
    world.prompt("go").await;
    world.until(|_| world.folder.path().join("work/notes").exists()).await;
    assert!(world.command(&json!({ "type": "abort" })).await.ok);
    world.until(|view| is_idle(view) && world.relay.kinds().contains(&OUTCOME.to_owned())).await;
    let said = after(&world);
    assert_eq!(said.data::<Skipped>("wrapper.auto_commit.skipped").reason, SkipReason::Aborted);
    assert!(lines(&world.folder.path().join("work")).contains(&"?? half".to_owned()));
    world.wrapper.end().await.unwrap();
}

#[tokio::test]
async fn the_next_prompt_waits_for_the_commit() {
    let mut world = world(|_| {}).await;
    let work = world.folder.path().join("work");
    let gate = world.folder.path().join("gate");
    assert!(Command::new("mkfifo").arg(&gate).status().unwrap().success());
    hook(&work, "pre-commit", &format!("read line < '{}'", gate.display()));
    world.prompt("first").await;
    let first = || world.relay.kinds().contains(&"wrapper.auto_commit.started".to_owned());
    world.until(|_| first()).await;
    let relay = world.relay.clone();
    // Opening a FIFO to write waits for the hook, which reads it.
    let open = tokio::task::spawn_blocking(move || {
        assert!(!relay.kinds().contains(&OUTCOME.to_owned()), "the outcome waits");
        std::fs::write(gate, "go\ngo\n")
    });
    assert!(world.command(&json!({ "type": "prompt", "text": "second" })).await.ok);
    open.await.unwrap().unwrap();
    std::fs::remove_file(work.join(".git/hooks/pre-commit")).unwrap();
    world.until(|view| is_idle(view) && subjects(&work).contains(&"second".to_owned())).await;
    assert_eq!(subjects(&work), ["second", "first", "begin"]);
    world.wrapper.end().await.unwrap();
}

/// A world whose agent adds a line to `notes`, in a clone of `remote.git` that is on the branch `topic`.
async fn world(configure: impl FnOnce(&mut gastown_wrapper::Options)) -> World {
    let command = "echo line >> notes; if test -e slow; then sleep 1000; fi";
    World::start_with(
        &json!({ "bash": { "command": command, "description": "write" } }),
        |folder, options| {
            let work = folder.join("work");
            git(folder, &["init", "--quiet", "--bare", "--initial-branch", "main", "remote.git"]);
            git(folder, &["clone", "--quiet", "remote.git", "work"]);
            named(&work);
            git(&work, &["switch", "--quiet", "--create", "main"]);
            std::fs::write(work.join("begin"), "").unwrap();
            git(&work, &["add", "begin"]);
            git(&work, &["commit", "--quiet", "--message", "begin"]);
            git(&work, &["push", "--quiet", "--set-upstream", "origin", "main"]);
            git(&work, &["remote", "set-head", "origin", "main"]);
            git(&work, &["switch", "--quiet", "--create", "topic"]);
            git(&work, &["push", "--quiet", "--set-upstream", "origin", "topic"]);
            options.after_turn.auto_commit = true;
            options.guard_command =
                vec![env!("CARGO_BIN_EXE_gastown-wrapper").to_owned(), "guard".to_owned()];
            configure(options);
        },
    )
    .await
}

/// Has the agent do its one turn, to its outcome.
async fn turn(world: &mut World, prompt: &str) {
    let outcomes = |world: &World| world.relay.kinds().iter().filter(|kind| *kind == OUTCOME).count();
    let before = outcomes(world);
    world.prompt(prompt).await;
    world.until(|view| is_idle(view) && outcomes(world) > before).await;
}

async fn skipped_after_a_turn(world: &mut World) -> SkipReason {
    turn(world, "go").await;
    let said = after(world);
    assert_eq!(said.kinds, ["wrapper.auto_commit.skipped", OUTCOME]);
    said.data::<Skipped>("wrapper.auto_commit.skipped").reason
}

/// What was said at the end of the last turn, but for what the agent does.
struct After {
    kinds: Vec<String>,
    data: Vec<Value>,
}

impl After {
    fn data<T: serde::de::DeserializeOwned>(&self, kind: &str) -> T {
        let at = self.kinds.iter().position(|found| found == kind);
        let at = at.unwrap_or_else(|| panic!("no {kind} in {:?}: {:?}", self.kinds, self.data));
        serde_json::from_value(self.data[at].clone()).unwrap()
    }
}

fn after(world: &World) -> After {
    let mut after = After { kinds: Vec::new(), data: Vec::new() };
    for event in world.relay.events() {
        match &*event.kind {
            "agent.status" => {}
            kind if kind.starts_with("wrapper.") || kind == OUTCOME || kind == "agent.exited" => {
                // A turn of before.
                if after.kinds.last().is_some_and(|last| last == OUTCOME) && kind != "agent.exited" {
                    after = After { kinds: Vec::new(), data: Vec::new() };
                }
                after.kinds.push(kind.to_owned());
                after.data.push(event.data.parse().unwrap());
            }
            _ => {}
        }
    }
    after
}

fn remote(world: &World) -> PathBuf {
    world.folder.path().join("remote.git")
}

fn hook(work: &Path, name: &str, script: &str) {
    let path = work.join(".git/hooks").join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

fn named(work: &Path) {
    git(work, &["config", "user.name", "A Test"]);
    git(work, &["config", "user.email", "test@example.invalid"]);
}

fn subjects(work: &Path) -> Vec<String> {
    git(work, &["log", "--format=%s"]).lines().map(str::to_owned).collect()
}

fn lines(work: &Path) -> Vec<String> {
    git(work, &["status", "--porcelain"]).lines().map(str::to_owned).collect()
}

fn lives(pid: &Path) -> bool {
    let pid = std::fs::read_to_string(pid).unwrap();
    Path::new("/proc").join(pid.trim()).exists()
}

/// Waits until the process whose pid is in this file is gone.
async fn gone(pid: &Path) {
    let pid = pid.to_owned();
    let waited = tokio::task::spawn_blocking(move || {
        while lives(&pid) {
            std::thread::yield_now();
        }
    });
    tokio::time::timeout(std::time::Duration::from_secs(20), waited).await.expect("it ends").unwrap();
}

pub(crate) fn git(directory: &Path, arguments: &[&str]) -> String {
    let output = Command::new("git").args(arguments).current_dir(directory).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "git {arguments:?}: {said}");
    String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
}
