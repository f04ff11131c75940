//! Share links over the API: made, listed, used, revoked.

use reqwest::{Method, StatusCode};
use serde_json::json;

use crate::support::{TestWorker, answer, in_time};

const SHARES: &str = "/api/towns/main/agents/toast/shares";

#[tokio::test]
async fn p17_a_share_link_reads_its_agent_and_nothing_else() {
    let town = TestWorker::start().await;
    town.register("toast", false).await;
    town.register("nux", false).await;
    let made = town.post(SHARES, &json!({ "expires_in_s": 60, "label": "for the review" })).await;
    assert_eq!(made.status, StatusCode::CREATED, "{made:?}");
    let token = token(made.data()["url"].as_str().unwrap(), &town);
    let ask = |method: Method, path: &str| town.plain(method, path).bearer_auth(&token).send();
    for (method, path, status) in [
        (Method::GET, "/v1/agents/toast/events", 200),
        (Method::GET, "/api/towns/main/agents/toast", 200),
        (Method::GET, "/v1/agents/nux/events", 403),
        (Method::GET, "/v1/towns/main/events", 403),
        (Method::GET, "/api/towns/main/agents", 403),
        (Method::GET, "/api/towns/main/relay", 403),
        (Method::GET, SHARES, 403),
        (Method::POST, SHARES, 403),
        (Method::POST, "/api/towns/main/agents/toast/abort", 403),
        (Method::POST, "/api/towns/main/agents/toast/stream-ticket", 401),
    ] {
        assert_eq!(ask(method, path).await.unwrap().status(), status, "{path}");
    }
    let shared = town.worker.shared(&token).unwrap();
    assert_eq!(shared.agent.as_str(), "toast");
    assert!(town.worker.shared(&town.token).is_err(), "the operator's token is no link");
    town.stop().await;
}

#[tokio::test]
async fn p17_a_revoked_share_link_is_good_for_nothing_also_after_a_restart() {
    let town = TestWorker::start().await;
    town.register("toast", false).await;
    let made = town.post(SHARES, &json!({})).await;
    let stays = town.post(SHARES, &json!({})).await;
    let id = made.data()["id"].as_str().unwrap();
    let (gone, stays) = (made.data()["url"].as_str().unwrap(), stays.data()["url"].as_str().unwrap());
    let (gone, stays) = (token(gone, &town), token(stays, &town));
    let lease = town.worker.shared(&gone).unwrap().grant.lease;
    let one = format!("{SHARES}/{id}");
    assert_eq!(town.delete(&one).await.status, StatusCode::OK);
    in_time("what it opened ends", lease.ended()).await;
    assert_eq!(town.delete(&one).await.refusal().0, "not_found");
    let (folder, store) = town.stop().await;
    let town = TestWorker::start_in(folder, store, |config| config).await;
    // A link is answered once it is good, and then all of the journal was read.
    town.post(SHARES, &json!({})).await;
    assert!(town.worker.shared(&stays).is_ok());
    assert!(town.worker.shared(&gone).is_err());
    town.stop().await;
}

#[tokio::test]
async fn share_links_are_listed_without_their_secrets() {
    let town = TestWorker::start().await;
    town.register("toast", false).await;
    let made = town.post(SHARES, &json!({ "expires_in_s": 3600, "label": "for the review" })).await;
    let listed = town.get(SHARES).await;
    let mut expected = made.data().clone();
    expected.as_object_mut().unwrap().remove("url");
    assert_eq!(listed.data(), &json!([expected]));
    let journal = town.get("/v1/towns/main/events").await.body.to_string();
    assert!(journal.contains("town.share.issued"), "{journal}");
    let token = token(made.data()["url"].as_str().unwrap(), &town);
    assert!(!journal.contains(&token) && !listed.body.to_string().contains(&token));
    town.stop().await;
}

#[tokio::test]
async fn a_share_link_is_made_for_an_agent_that_is_there_and_a_time_that_is_one() {
    let town = TestWorker::start().await;
    town.register("toast", false).await;
    let too_long = town.post(SHARES, &json!({ "expires_in_s": 0 })).await;
    assert_eq!(too_long.refusal(), ("bad_request", "a share link lasts from 1 s to 365 days"));
    let nobody = town.post("/api/towns/main/agents/nobody/shares", &json!({})).await;
    assert_eq!(nobody.refusal().0, "not_found");
    let not_a_number = answer(town.request(Method::POST, SHARES).body(r#"{"expires_in_s":"x"}"#)).await;
    assert_eq!(not_a_number.refusal().0, "bad_request");
    town.stop().await;
}

/// The token in a share link's URL.
fn token(url: &str, town: &TestWorker) -> String {
    url.strip_prefix(&town.url("/shared/")).unwrap().to_owned()
}
