//! Work trees in real repositories: begun, gone on with, begun again, and nothing lost by it.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use base64::Engine as _;
use gastown_wrapper::{Exit, Options, ShutdownLevel};
use protocol::{
    Command, Delivery,
    agent::{AutoCommitCompleted, WorkspaceReady},
    view::Lifecycle,
};
use serde::de::DeserializeOwned;
use serde_json::json;
use tokio::{net::TcpListener, time::timeout};

use super::{
    after_turn::git,
    puppet::Puppet,
    wrapper::{SOON, World, Wrapper, is_idle},
};

#[tokio::test]
async fn an_agent_works_on_a_branch_of_its_own_and_its_commits_reach_the_remote() {
    let mut world = world(|options| {
        options.after_turn.auto_commit = true;
        options.keep_output = Some("kept".into());
    })
    .await;
    world.prompt("Write a line").await;
    world.until(|view| is_idle(view) && said(&world, "wrapper.auto_commit.completed")).await;
    let ready: WorkspaceReady = data(&world, "wrapper.workspace.ready");
    assert_eq!((ready.branch.as_str(), ready.base.as_deref()), ("gt/a1/app-1", Some("trunk")));
    assert_eq!((ready.resumed, ready.rescued.len(), ready.stale.as_deref()), (false, 0, None));
    assert_eq!(ready.commit, git(&remote(&world), &["rev-parse", "trunk"]));
    let completed: AutoCommitCompleted = data(&world, "wrapper.auto_commit.completed");
    assert!(completed.pushed, "{completed:?}");
    assert_eq!(git(&remote(&world), &["rev-parse", "gt/a1/app-1"]), completed.hash);
    assert_eq!(git(&work(&world), &["ls-files"]), "begin\nnotes", "what the wrapper keeps is left out");
    let kinds = world.relay.kinds();
    let at = |kind: &str| kinds.iter().position(|found| found == kind).unwrap();
    assert!(at("wrapper.workspace.ready") < at("agent.started"));
    world.wrapper.end().await.unwrap();
}

#[tokio::test]
async fn p7_what_a_drained_agent_left_is_committed_and_pushed_before_its_exit_is_told() {
    let mut world = world(|_| {}).await;
    world.until(is_idle).await;
    std::fs::write(work(&world).join("half"), "half").unwrap();
    assert_eq!(world.wrapper.end().await.unwrap(), Exit::Done);
    let completed: AutoCommitCompleted = data(&world, "wrapper.auto_commit.completed");
    assert!(completed.pushed && completed.subject.starts_with("WIP: "), "{completed:?}");
    assert_eq!(git(&remote(&world), &["show", "gt/a1/app-1:half"]), "half");
    let kinds = world.relay.kinds();
    let commits = ["wrapper.auto_commit.started", "wrapper.auto_commit.completed", "agent.exited"];
    assert_eq!(kinds[kinds.len() - 3..], commits);
}

#[tokio::test]
async fn an_agent_that_is_ended_at_once_or_left_nothing_commits_nothing() {
    let mut world = world(|_| {}).await;
    world.until(is_idle).await;
    world.wrapper.end().await.unwrap();
    assert!(!world.relay.kinds().iter().any(|kind| kind.starts_with("wrapper.auto_commit")));
    start(&mut world, |_| {});
    world.until(is_idle).await;
    std::fs::write(work(&world).join("half"), "half").unwrap();
    world.wrapper.trigger.ask(ShutdownLevel::Now);
    timeout(SOON, &mut world.wrapper.run).await.unwrap().unwrap().unwrap();
    assert!(!world.relay.kinds().iter().any(|kind| kind.starts_with("wrapper.auto_commit")));
    assert!(work(&world).join("half").exists());
}

#[tokio::test]
async fn an_agent_that_works_is_told_that_it_ends_after_its_turn() {
    let puppet = Puppet::new();
    let mut world = World::played(&puppet, |options| {
        let folder = options.dir.parent().unwrap().to_owned();
        repository(&folder);
        set(&folder, options);
    })
    .await;
    world.prompt("Work").await;
    puppet.begins_turn("msg_1").await;
    world.until(|view| !is_idle(view)).await;
    assert!(world.command(&json!({ "type": "stop", "drain": true })).await.ok);
    let told = puppet.told(2).await;
    let Command::Prompt(told) = &told[1] else { panic!("it is a message") };
    assert_eq!(told.delivery, Delivery::Boundary);
    assert!(told.parts.as_ref().unwrap()[0]["text"].as_str().unwrap().contains("about to be stopped"));
    puppet.begins_turn("msg_2").await;
    std::fs::write(work(&world).join("half"), "half").unwrap();
    puppet.ends_turn().await;
    assert_eq!(timeout(SOON, &mut world.wrapper.run).await.unwrap().unwrap().unwrap(), Exit::Done);
    let completed: AutoCommitCompleted = data(&world, "wrapper.auto_commit.completed");
    assert_eq!(completed.subject, "WIP: fix it");
}

#[tokio::test]
async fn p7_what_an_agent_left_that_died_while_it_was_drained_is_committed_before_its_exit_is_told() {
    let puppet = Puppet::new();
    let mut world = World::played(&puppet, |options| {
        let folder = options.dir.parent().unwrap().to_owned();
        repository(&folder);
        set(&folder, options);
    })
    .await;
    world.prompt("Work").await;
    puppet.begins_turn("msg_1").await;
    world.until(|view| !is_idle(view)).await;
    std::fs::write(work(&world).join("half"), "half").unwrap();
    assert!(world.command(&json!({ "type": "stop", "drain": true })).await.ok);
    puppet.dies().await;
    assert_eq!(timeout(SOON, &mut world.wrapper.run).await.unwrap().unwrap().unwrap(), Exit::Done);
    assert_eq!(git(&remote(&world), &["show", "gt/a1/app-1:half"]), "half");
    let mut kinds = world.relay.kinds();
    // What it was told of its end is lost with it.
    kinds.retain(|kind| kind != "session.error");
    let expected =
        ["agent.failed", "wrapper.auto_commit.started", "wrapper.auto_commit.completed", "agent.exited"];
    assert_eq!(kinds[kinds.len() - 4..], expected);
}

#[tokio::test]
async fn a_retry_goes_on_with_the_tree_as_it_is() {
    let mut world = world(|_| {}).await;
    world.until(is_idle).await;
    world.wrapper.end().await.unwrap();
    std::fs::write(work(&world).join("half"), "half").unwrap();
    let ready = again(&mut world, |_| {}).await;
    assert_eq!((ready.resumed, ready.base, ready.rescued.len()), (true, None, 0));
    assert!(work(&world).join("half").exists());
}

#[tokio::test]
async fn a_retry_in_an_empty_folder_goes_on_with_the_branch() {
    let mut world = world(|_| {}).await;
    world.until(is_idle).await;
    world.wrapper.end().await.unwrap();
    let tip = commit(&work(&world), "mine");
    std::fs::remove_dir_all(work(&world)).unwrap();
    let ready = again(&mut world, |_| {}).await;
    assert_eq!((ready.resumed, ready.commit), (true, tip.clone()));
    // On another machine there is the remote's branch alone.
    git(&work(&world), &["push", "--quiet", "origin", "gt/a1/app-1"]);
    let elsewhere = world.folder.path().join("elsewhere");
    let ready = again(&mut world, |options| {
        options.workspace.rigs = Some(elsewhere.join("rigs"));
        options.dir = elsewhere.join("work");
    })
    .await;
    assert_eq!((ready.resumed, ready.commit), (true, tip));
}

#[tokio::test]
async fn a_fresh_start_loses_neither_what_is_dirty_nor_what_was_not_pushed() {
    let mut world = world(|_| {}).await;
    world.until(is_idle).await;
    world.wrapper.end().await.unwrap();
    let tip = commit(&work(&world), "mine");
    std::fs::write(work(&world).join("begin"), "changed").unwrap();
    std::fs::write(work(&world).join("half"), "half").unwrap();
    let ready = again(&mut world, |options| options.workspace.fresh = true).await;
    assert_eq!((ready.resumed, ready.base.as_deref()), (false, Some("trunk")));
    assert_eq!(ready.commit, git(&remote(&world), &["rev-parse", "trunk"]));
    assert!(!work(&world).join("half").exists());
    let [tree, branch] = &ready.rescued[..] else { panic!("{:?}", ready.rescued) };
    assert_eq!(git(&work(&world), &["show", &format!("{tree}:half")]), "half");
    assert_eq!(git(&work(&world), &["show", &format!("{tree}:begin")]), "changed");
    assert_eq!(git(&work(&world), &["rev-parse", &format!("{tree}^")]), tip);
    assert_eq!(git(&work(&world), &["rev-parse", branch]), tip);
}

#[tokio::test]
async fn the_next_bead_begins_from_what_the_remote_has_by_then() {
    let mut world = world(|_| {}).await;
    world.until(is_idle).await;
    world.wrapper.end().await.unwrap();
    std::fs::write(work(&world).join("half"), "half").unwrap();
    let seed = world.folder.path().join("seed");
    let newest = commit(&seed, "newer");
    git(&seed, &["push", "--quiet"]);
    let ready = again(&mut world, |options| options.workspace.bead = Some("app-2".to_owned())).await;
    assert_eq!((ready.branch.as_str(), ready.commit), ("gt/a1/app-2", newest));
    assert_eq!(git(&work(&world), &["show", &format!("{}:half", ready.rescued[0])]), "half");
    let back = again(&mut world, |options| options.workspace.bead = Some("app-1".to_owned())).await;
    assert!(back.resumed && back.rescued.is_empty());
}

#[tokio::test]
async fn a_tree_that_was_not_made_to_its_end_is_made_again() {
    let mut world = world(|_| {}).await;
    world.until(is_idle).await;
    world.wrapper.end().await.unwrap();
    let own = git(&work(&world), &["rev-parse", "--absolute-git-dir"]);
    std::fs::remove_file(Path::new(&own).join("gastown-ready")).unwrap();
    std::fs::remove_file(work(&world).join("begin")).unwrap();
    again(&mut world, |_| {}).await;
    assert_eq!(git(&work(&world), &["status", "--porcelain"]), "", "nothing is missing in it");
}

#[tokio::test]
async fn a_remote_that_is_away_stops_a_first_attempt_and_no_retry() {
    let mut world = world(|_| {}).await;
    world.until(is_idle).await;
    world.wrapper.end().await.unwrap();
    std::fs::rename(remote(&world), world.folder.path().join("away")).unwrap();
    let ready = again(&mut world, |_| {}).await;
    assert!(ready.resumed && ready.stale.is_some_and(|why| why.contains("fetch")));
    let elsewhere = world.folder.path().join("elsewhere");
    let failed = fails(&mut world, |options| {
        options.workspace.rigs = Some(elsewhere.join("rigs"));
        options.dir = elsewhere.join("work");
    })
    .await;
    assert!(failed.contains("git fetch failed"), "{failed}");
}

#[tokio::test]
async fn what_is_not_ours_is_left_alone() {
    let mut world = world(|_| {}).await;
    world.until(is_idle).await;
    world.wrapper.end().await.unwrap();
    let theirs = world.folder.path().join("theirs");
    std::fs::create_dir(&theirs).unwrap();
    std::fs::write(theirs.join("precious"), "precious").unwrap();
    let failed = fails(&mut world, |options| {
        options.dir = theirs.clone();
        options.workspace.fresh = true;
    })
    .await;
    assert!(failed.contains("something else") && theirs.join("precious").exists(), "{failed}");
    let failed = fails(&mut world, |options| options.workspace.base_branch = Some("gone".to_owned())).await;
    // The tree is there and goes on; what it was begun from is of no concern.
    assert_eq!(failed, "");
    let missing = world.folder.path().join("missing");
    let failed = fails(&mut world, |options| {
        options.dir = missing;
        options.workspace.bead = Some("app-3".to_owned());
        options.workspace.base_branch = Some("gone".to_owned());
    })
    .await;
    assert!(failed.contains("no branch gone"), "{failed}");
}

#[tokio::test]
async fn p19_a_token_is_told_to_its_server_and_in_no_url_setting_or_event() {
    let mut world = world(|_| {}).await;
    world.until(is_idle).await;
    world.wrapper.end().await.unwrap();
    let token = world.folder.path().join("git-token");
    std::fs::write(&token, "canary-5d1f\n").unwrap();
    let server = Server::start().await;
    let failed = fails(&mut world, |options| {
        options.workspace.git = Some(format!("{}/acme/app.git", server.url));
        options.workspace.git_token_file = Some(token);
        options.dir = options.dir.with_file_name("other");
    })
    .await;
    assert!(failed.contains("git fetch failed"), "{failed}");
    let told = server.told.lock().unwrap().clone();
    assert!(told.contains(&"x-access-token:canary-5d1f".to_owned()), "{told:?}");
    assert!(!format!("{:?}", world.relay.events()).contains("canary"));
    let rigs = world.folder.path().join("rigs");
    let mirror = std::fs::read_dir(&rigs).unwrap().map(|entry| entry.unwrap().path()).find(|path| {
        path.extension().is_some_and(|kind| kind == "git") && path.to_string_lossy().contains("app-")
    });
    let config = std::fs::read_to_string(mirror.unwrap().join("config")).unwrap();
    assert!(config.contains(&server.url) && config.contains(".token") && !config.contains("canary"));
}

/// A git server that lets nobody in, and remembers who came.
struct Server {
    url: String,
    told: Arc<Mutex<Vec<String>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Server {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let told: Arc<Mutex<Vec<String>>> = Arc::default();
        let router = Router::new().fallback(refuse).with_state(told.clone());
        let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { url, told, task }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn refuse(State(told): State<Arc<Mutex<Vec<String>>>>, headers: HeaderMap) -> Response {
    let login =
        headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()?.strip_prefix("Basic "));
    if let Some(login) = login {
        let login = base64::engine::general_purpose::STANDARD.decode(login).unwrap();
        told.lock().unwrap().push(String::from_utf8(login).unwrap());
    }
    (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, "Basic realm=\"git\"")]).into_response()
}

/// A world whose agent adds a line to `notes` in its work tree of `remote.git`, whose default branch is `trunk`.
async fn world(configure: impl FnOnce(&mut Options)) -> World {
    World::start_with(
        &json!({ "bash": { "command": "echo line >> notes", "description": "write" } }),
        |folder, options| {
            repository(folder);
            set(folder, options);
            configure(options);
        },
    )
    .await
}

/// Makes `remote.git`, whose default branch is `trunk`, and a clone of it.
fn repository(folder: &Path) {
    git(folder, &["init", "--quiet", "--bare", "--initial-branch", "trunk", "remote.git"]);
    git(folder, &["clone", "--quiet", "remote.git", "seed"]);
    let seed = folder.join("seed");
    git(&seed, &["switch", "--quiet", "--create", "trunk"]);
    commit(&seed, "begin");
    git(&seed, &["push", "--quiet", "--set-upstream", "origin", "trunk"]);
}

fn set(folder: &Path, options: &mut Options) {
    options.workspace.git = Some(format!("file://{}", folder.join("remote.git").display()));
    options.workspace.rigs = Some(folder.join("rigs"));
    options.workspace.bead = Some("app-1".to_owned());
    options.guard_command = vec![env!("CARGO_BIN_EXE_gastown-wrapper").to_owned(), "guard".to_owned()];
}

/// Starts a wrapper of the same agent again, until its work tree is ready, and ends it.
async fn again(world: &mut World, configure: impl FnOnce(&mut Options)) -> WorkspaceReady {
    let before = count(world, "wrapper.workspace.ready");
    start(world, configure);
    world.until(|_| count(world, "wrapper.workspace.ready") > before).await;
    world.until(is_idle).await;
    let ready = data(world, "wrapper.workspace.ready");
    world.wrapper.end().await.unwrap();
    ready
}

/// Starts a wrapper of the same agent again and gives what it fails of; nothing, if it comes up.
async fn fails(world: &mut World, configure: impl FnOnce(&mut Options)) -> String {
    start(world, configure);
    let started = count(world, "agent.started");
    let failed = count(world, "agent.failed");
    world.until(|_| count(world, "agent.started") > started || count(world, "agent.failed") > failed).await;
    let Lifecycle::Failed(failed) = world.relay.view().agent().lifecycle.clone() else {
        world.wrapper.end().await.unwrap();
        return String::new();
    };
    world.wrapper.trigger.ask(gastown_wrapper::ShutdownLevel::Now);
    let exit = timeout(SOON, &mut world.wrapper.run).await.unwrap().unwrap().unwrap();
    assert!(matches!(exit, Exit::AgentFailed | Exit::Done), "{exit:?}");
    failed.message
}

fn start(world: &mut World, configure: impl FnOnce(&mut Options)) {
    let mut options = Wrapper::options(&world.relay, &world.folder);
    set(world.folder.path(), &mut options);
    configure(&mut options);
    world.wrapper = Wrapper::start_with(options);
}

fn commit(work: &Path, name: &str) -> String {
    std::fs::write(work.join(name), name).unwrap();
    git(work, &["add", name]);
    let who = ["-c", "user.name=A Test", "-c", "user.email=test@example.invalid"];
    git(work, &[&who[..], &["commit", "--quiet", "--message", name]].concat());
    git(work, &["rev-parse", "HEAD"])
}

fn data<T: DeserializeOwned>(world: &World, kind: &str) -> T {
    let events = world.relay.events();
    let event = events.iter().rev().find(|event| &*event.kind == kind);
    event.unwrap_or_else(|| panic!("no {kind} in {:?}", world.relay.kinds())).data.parse().unwrap()
}

fn said(world: &World, kind: &str) -> bool {
    count(world, kind) > 0
}

fn count(world: &World, kind: &str) -> usize {
    world.relay.kinds().iter().filter(|found| *found == kind).count()
}

fn work(world: &World) -> PathBuf {
    world.folder.path().join("work")
}

fn remote(world: &World) -> PathBuf {
    world.folder.path().join("remote.git")
}
