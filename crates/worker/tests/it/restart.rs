//! What survives a restart of the worker, and two workers of one town.

use std::{sync::Arc, time::Duration};

use protocol::LogId;
use reqwest::{Method, StatusCode};
use serde_json::json;
use store::{EventStore, SqliteOptions, SqliteStore};
use town::{Command, Request};

use crate::support::{TestWorker, answer, link::FakeLink, wrappers::FakeLauncher};

#[tokio::test]
async fn agents_cookies_and_the_token_survive_a_restart() {
    let town = TestWorker::start().await;
    town.register("toast", false).await;
    let cookie = town.cookie().await;
    let token = town.token.clone();
    let (folder, store) = town.stop().await;

    let town = TestWorker::start_in(folder, store, |config| config).await;
    assert_eq!(town.token, token);
    let list = answer(town.plain(Method::GET, "/api/towns/main/agents").header("cookie", cookie)).await;
    assert_eq!(list.data()[0]["id"], "toast");
    assert!(!town.launcher.has_more().await, "what was stopped stays so");
    town.stop().await;
}

#[tokio::test]
async fn the_same_with_sqlite_on_disk() {
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let open = || -> Arc<dyn EventStore> {
        let path = folder.path().join("gastown.db");
        Arc::new(SqliteStore::open(path, SqliteOptions::default()).unwrap())
    };
    let town = TestWorker::start_in(folder.clone(), open(), |config| config).await;
    town.register("toast", false).await;
    let before = town.worker.town().borrow().clone();
    drop(town.stop().await);

    let town = TestWorker::start_in(folder.clone(), open(), |config| config).await;
    assert_eq!(*town.worker.town().borrow(), before);
    town.stop().await;
}

#[tokio::test]
async fn wrappers_end_with_the_worker_and_agents_start_again_with_it() {
    let town = TestWorker::start().await;
    let wrapper = town.launch("toast").await;
    let (folder, store) = town.stop().await;
    wrapper.terminated().await;

    let town = TestWorker::start_in(folder, store, |config| config).await;
    let next = town.launcher.next().await;
    assert_eq!((next.spec.agent.id.as_str(), next.spec.generation), ("toast", 2));
    town.stop().await;
}

#[tokio::test]
async fn a_wrapper_that_outlived_its_worker_comes_back_with_its_old_token() {
    let town = TestWorker::start_with(|config| config.with_stop_agents_on_exit(false)).await;
    let mut wrapper = town.launch("toast").await;
    let mut link = FakeLink::connect(&wrapper).await;
    link.event("agent.started", &json!({ "generation": 1, "runtime": "fake", "version": "1" })).await;
    drop(link);
    let (folder, store) = town.stop().await;

    let town = TestWorker::start_over(folder, store, FakeLauncher::blind(), |config| {
        config.with_reconnect_grace(Duration::from_secs(600))
    })
    .await;
    wrapper.spec.relay = town.url("");
    let mut link = FakeLink::connect(&wrapper).await;
    let body = json!({ "text": "still there?" });
    let (answer, _) = tokio::join!(town.post("/api/towns/main/agents/toast/message", &body), link.command());
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(town.phase("toast", "running").await.generation, 1, "it was not replaced");
    assert!(!town.launcher.has_more().await);

    let stop = json!({});
    let (_, (_, command)) =
        tokio::join!(town.post("/api/towns/main/agents/toast/stop", &stop), link.command());
    assert_eq!(command, protocol::Command::Stop { drain: false }, "its link is the only way to it");
    drop(link);
    town.phase("toast", "stopped").await;
    town.stop().await;
}

#[tokio::test]
async fn a_wrapper_of_an_older_build_is_replaced_when_it_is_idle() {
    let town = TestWorker::start_with(|config| config.with_stop_agents_on_exit(false)).await;
    let mut wrapper = town.launch("toast").await;
    let (folder, store) = town.stop().await;

    let town = TestWorker::start_over(folder, store, FakeLauncher::blind(), |config| {
        config.with_reconnect_grace(Duration::from_secs(1)).with_wrapper_build("99.0.0")
    })
    .await;
    wrapper.spec.relay = town.url("");
    let mut link = FakeLink::connect(&wrapper).await;
    link.event("agent.status", &json!({ "state": "busy" })).await;
    link.event("agent.status", &json!({ "state": "idle" })).await;
    assert_eq!(link.command().await.1, protocol::Command::Stop { drain: true });
    drop(link);
    let next = town.launcher.next().await;
    assert_eq!(next.spec.generation, 2);
    town.stop().await;
}

#[tokio::test]
async fn a_wrapper_of_another_protocol_is_replaced_at_once() {
    let town = TestWorker::start_with(|config| config.with_stop_agents_on_exit(false)).await;
    let mut wrapper = town.launch("toast").await;
    let (folder, store) = town.stop().await;

    let town = TestWorker::start_over(folder, store, FakeLauncher::blind(), |config| {
        config.with_reconnect_grace(Duration::from_secs(600))
    })
    .await;
    wrapper.spec.relay = town.url("");
    FakeLink::refused(&wrapper, 2).await;
    assert_eq!(town.launcher.next().await.spec.generation, 2);
    town.stop().await;
}

#[tokio::test]
async fn p22_two_workers_of_one_town_agree() {
    let one = TestWorker::start().await;
    let other =
        TestWorker::start_in(Arc::new(tempfile::tempdir().unwrap()), one.store.clone(), |config| config)
            .await;
    let register = async |town: &TestWorker, name: &str| {
        let registration = town::Registration {
            name: name.into(),
            role: town::Role::Crew,
            runtime: town::Runtime::of(town::RuntimeKind::Kilo),
            directory: "/".into(),
            repository: None,
        };
        town.worker.ask(Request::by("operator", Command::Register { registration, start: false })).await
    };
    let names: Vec<String> = (0..20).map(|n| format!("a{n}")).collect();
    let races = names.iter().map(|name| async { tokio::join!(register(&one, name), register(&other, name)) });
    for (a, b) in futures_util::future::join_all(races).await {
        assert!(a.is_ok() != b.is_ok(), "one of them got the name: {a:?} {b:?}");
    }
    for town in [&one, &other] {
        let mut seen = town.worker.town();
        let all =
            crate::support::in_time("all are seen", seen.wait_for(|town| town.agents().len() == 20)).await;
        assert_eq!(all.unwrap().agents().len(), 20);
    }
    assert_eq!(*one.worker.town().borrow(), *other.worker.town().borrow());
    let journal = one.store.bounds(&LogId::Town("main".parse().unwrap())).await.unwrap();
    assert_eq!(journal.head.get(), 20);
    other.stop().await;
    one.stop().await;
}
