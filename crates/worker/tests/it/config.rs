//! What agents are run with: set over the API, kept in a file, and told to wrappers.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::{TestWorker, answer, link::FakeLink};

#[tokio::test]
async fn a_config_goes_with_the_launch_the_greeting_and_every_command() {
    let town = TestWorker::start().await;
    patch(&town, "config", &json!({ "variant": "low", "env": { "KEY": "canary" } })).await;
    let wrapper = town.launch("toast").await;
    assert_eq!(wrapper.spec.config.turn.variant.as_deref(), Some("low"));
    let mut link = FakeLink::connect(&wrapper).await;
    assert_eq!(told(&link), json!({ "variant": "low", "env": { "KEY": "canary" } }));

    patch(&town, "agents/toast/config", &json!({ "variant": "high" })).await;
    let prompt = json!({ "text": "hi" });
    tokio::join!(town.post("/api/towns/main/agents/toast/message", &prompt), link.command());
    assert_eq!(told(&link)["variant"], "high");
    patch(&town, "config", &json!({ "system": "be brief" })).await;
    let nothing = json!({});
    tokio::join!(town.post("/api/towns/main/agents/toast/abort", &nothing), link.command());
    assert_eq!(told(&link), json!({ "variant": "high", "system": "be brief", "env": { "KEY": "canary" } }));
    drop(link);
    town.stop().await;
}

#[tokio::test]
async fn the_config_of_a_role_is_told_to_its_agents_and_says_where_it_is_from() {
    let town = TestWorker::start().await;
    patch(&town, "config", &json!({ "variant": "low" })).await;
    patch(&town, "roles/polecat/config", &json!({ "system": "be brief", "variant": "high" })).await;
    let answered = patch(&town, "roles/mayor/config", &json!({ "system": "plan" })).await;
    assert_eq!(answered["resolved"], json!({ "system": "plan", "variant": "low" }));
    let wrapper = town.launch("toast").await;
    let mut link = FakeLink::connect(&wrapper).await;
    assert_eq!(told(&link), json!({ "variant": "high", "system": "be brief" }));

    patch(&town, "roles/polecat/config", &json!({ "system": null })).await;
    let nothing = json!({});
    tokio::join!(town.post("/api/towns/main/agents/toast/abort", &nothing), link.command());
    assert_eq!(told(&link), json!({ "variant": "high" }));
    let shown = town.get("/api/towns/main/agents/toast/config").await;
    assert_eq!(
        *shown.data(),
        json!({ "config": {}, "resolved": { "variant": "high" }, "from": { "variant": "role/polecat" } })
    );
    let unknown = town.get("/api/towns/main/roles/cook/config").await;
    assert_eq!(unknown.status, StatusCode::NOT_FOUND);
    assert!(unknown.refusal().1.contains("mayor, polecat"), "{unknown:?}");
    drop(link);
    town.stop().await;
}

#[tokio::test]
async fn p19_a_config_is_read_masked_and_is_in_no_journal() {
    let town = TestWorker::start().await;
    town.register("toast", false).await;
    let own = json!({ "env": { "KEY": "canary" } });
    let answered = patch(&town, "agents/toast/config", &own).await;
    assert_eq!(answered["config"], json!({ "env": { "KEY": "***" } }));
    assert_eq!(answered["resolved"], answered["config"]);
    for path in ["", "/config", "/roles/polecat/config", "/agents", "/agents/toast", "/agents/toast/config"] {
        let text = town.request(Method::GET, &format!("/api/towns/main{path}")).send().await.unwrap();
        let text = text.text().await.unwrap();
        assert!(!text.contains("canary"), "{path}: {text}");
    }
    let journal = town.request(Method::GET, "/v1/towns/main/events").send().await.unwrap();
    let journal = journal.text().await.unwrap();
    assert!(journal.contains("toast") && !journal.contains("canary"), "{journal}");
    let (folder, _store) = town.stop().await;
    assert!(std::fs::read_to_string(folder.path().join("config.json")).unwrap().contains("canary"));
}

#[tokio::test]
async fn a_config_that_is_not_understood_is_refused_and_says_why() {
    let town = TestWorker::start().await;
    town.register("toast", false).await;
    for path in ["config", "roles/polecat/config", "agents/toast/config"] {
        let body = json!({ "colour": "canary" });
        let request = town.request(Method::PATCH, &format!("/api/towns/main/{path}")).json(&body);
        let refused = answer(request).await;
        assert_eq!(refused.status, StatusCode::BAD_REQUEST);
        let said = refused.body.to_string();
        assert!(said.contains("autoCommit") && !said.contains("canary"), "{said}");
    }
    let nobody = town.request(Method::PATCH, "/api/towns/main/agents/nobody/config").json(&json!({}));
    assert_eq!(answer(nobody).await.status, StatusCode::NOT_FOUND);
    town.stop().await;
}

/// The config that a wrapper was told last.
fn told(link: &FakeLink) -> Value {
    serde_json::to_value(link.config.as_ref().expect("a config")).unwrap()
}

async fn patch(town: &TestWorker, path: &str, body: &Value) -> Value {
    let request = town.request(Method::PATCH, &format!("/api/towns/main/{path}")).json(body);
    let answered = answer(request).await;
    assert_eq!(answered.status, StatusCode::OK, "{:?}", answered.body);
    answered.data().clone()
}
