//! Registering, starting, stopping and removing agents over the API.

use protocol::LogId;
use reqwest::{Method, StatusCode};
use serde_json::json;
use store::ReadLimit;
use town::WrapperExit;

use crate::support::{TestWorker, answer, in_time, registration};

#[tokio::test]
async fn an_agent_is_registered_started_and_stopped() {
    let town = TestWorker::start().await;
    let answer = town.post("/api/towns/main/agents", &registration("Toast", town.folder.path(), false)).await;
    assert_eq!(answer.status, StatusCode::CREATED);
    assert_eq!(answer.data()["id"], "toast");
    assert_eq!(answer.data()["phase"], json!({ "state": "stopped" }));

    let answer = town.post("/api/towns/main/agents/toast/start", &json!({})).await;
    assert_eq!(
        (&answer.data()["phase"]["state"], &answer.data()["generation"]),
        (&json!("running"), &json!(1))
    );
    let wrapper = town.launcher.next().await;
    assert_eq!(wrapper.spec.relay, format!("http://{}", town.address));
    assert_eq!((wrapper.spec.agent.name.as_str(), wrapper.spec.generation), ("Toast", 1));

    let answer = town.post("/api/towns/main/agents/toast/stop", &json!({})).await;
    assert_eq!(answer.data()["phase"]["state"], "stopping");
    wrapper.terminated().await;
    town.phase("toast", "stopped").await;
    town.stop().await;
}

#[tokio::test]
async fn what_there_is_can_be_listed_and_looked_at() {
    let town = TestWorker::start().await;
    town.register("toast", false).await;
    town.register("jam", false).await;
    assert_eq!(town.get("/api/towns").await.data(), &json!([{ "id": "main", "agents": 2 }]));
    assert_eq!(town.get("/api/towns/main").await.data(), &json!({ "id": "main", "agents": 2 }));
    let list = town.get("/api/towns/main/agents").await;
    let names: Vec<_> = list.data().as_array().unwrap().iter().map(|agent| agent["name"].clone()).collect();
    assert_eq!(names, ["jam", "toast"]);
    let shown = town.get("/api/towns/main/agents/toast").await;
    assert_eq!(shown.data()["agent"]["runtime"], json!({ "kind": "opencode" }));
    assert_eq!(shown.data()["presence"]["wrapper"], "disconnected");
    town.stop().await;
}

#[tokio::test]
async fn an_agent_with_a_repository_is_given_a_folder_of_the_workers() {
    let town = TestWorker::start().await;
    let body = json!({
        "name": "Toast", "runtime": { "kind": "opencode" },
        "repository": { "url": "https://example.org/acme/app.git", "branch": "trunk" },
    });
    let answer = town.post("/api/towns/main/agents", &body).await;
    assert_eq!(answer.status, StatusCode::CREATED);
    let directory = answer.data()["directory"].as_str().unwrap().to_owned();
    assert!(directory.starts_with('/') && directory.ends_with("/work/toast"), "{directory}");
    assert_eq!(answer.data()["repository"], body["repository"]);

    let nowhere = json!({ "name": "nux", "runtime": { "kind": "opencode" } });
    assert_eq!(town.post("/api/towns/main/agents", &nowhere).await.status, StatusCode::BAD_REQUEST);
    let secret = json!({
        "name": "nux", "runtime": { "kind": "opencode" }, "repository": { "url": "https://me:hunter2@example.org/app" },
    });
    let refused = town.post("/api/towns/main/agents", &secret).await;
    assert_eq!(refused.status, StatusCode::BAD_REQUEST);
    town.stop().await;
}

#[tokio::test]
async fn a_registration_is_told_in_the_agents_own_log() {
    let town = TestWorker::start().await;
    let log = LogId::Agent("toast".parse().unwrap());
    let mut tail = town.store.tail(&log);
    town.register("toast", false).await;
    in_time("the log has its first event", tail.changed()).await.unwrap();
    let page = town.store.read(&log, protocol::Seq::ZERO, ReadLimit::default()).await.unwrap();
    let event = page.records[0].event().unwrap();
    assert_eq!(&*event.kind, "agent.registered");
    assert_eq!(event.data.json(), r#"{"name":"toast","role":"polecat","runtime":"opencode"}"#);
    town.stop().await;
}

#[tokio::test]
async fn a_running_agent_is_stopped_then_removed_with_its_log_and_files() {
    let town = TestWorker::start().await;
    let wrapper = town.launch("toast").await;
    let answer = town.delete("/api/towns/main/agents/toast").await;
    assert_eq!(answer.status, StatusCode::ACCEPTED);
    wrapper.terminated().await;
    town.gone("toast").await;
    town.launcher.forgot("toast").await;
    let logs = town.store.list().await.unwrap();
    assert!(!logs.iter().any(|log| log.log.agent().is_some()), "{logs:?}");
    assert_eq!(town.get("/api/towns/main/agents/toast").await.status, StatusCode::NOT_FOUND);
    let again = town.launch("toast").await;
    assert_eq!(again.spec.generation, 2, "the removed agent's wrapper stays fenced");
    town.stop().await;
}

#[tokio::test]
async fn an_agent_that_was_never_started_is_removed_at_once() {
    let town = TestWorker::start().await;
    town.register("toast", false).await;
    let answer = town.delete("/api/towns/main/agents/toast").await;
    assert_eq!((answer.status, answer.data()), (StatusCode::OK, &json!({ "id": "toast", "removed": true })));
    town.stop().await;
}

#[tokio::test]
async fn each_refusal_says_what_to_do() {
    let town = TestWorker::start().await;
    town.register("toast", false).await;
    let folder = town.folder.path();
    let agents = "/api/towns/main/agents";
    let kilo = json!({ "kind": "kilo" });
    for (body, status, code, sentence) in [
        (
            registration("TOAST", folder, false),
            409,
            "conflict",
            "the name \"TOAST\" is taken: agent toast has it",
        ),
        (
            registration("a b", folder, false),
            400,
            "bad_request",
            "\"a b\" cannot be an agent's name: an agent id may hold only",
        ),
        (registration("jam", &folder.join("nowhere"), false), 400, "bad_request", "there is no directory"),
        (
            json!({ "name": "jam", "runtime": { "kind": "codex" }, "directory": folder }),
            400,
            "bad_request",
            "\"codex\" is no runtime: use one of opencode, kilo, acp, scripted, replay",
        ),
        (
            json!({ "name": "jam", "runtime": kilo, "directory": "src" }),
            400,
            "bad_request",
            "must be an absolute path",
        ),
        (
            json!({ "name": "jam", "runtime": kilo, "directory": folder, "role": "boss" }),
            400,
            "bad_request",
            "\"boss\" is no role: use one of mayor, polecat, refinery, witness, crew",
        ),
        (
            json!({ "name": "jam", "runtime": { "kind": "scripted" }, "directory": folder }),
            400,
            "bad_request",
            "a scripted agent needs a scenario",
        ),
        (
            json!({ "name": "jam", "runtime": { "kind": "replay", "recording": "/no/file" }, "directory": folder }),
            400,
            "bad_request",
            "there is no recording \"/no/file\"",
        ),
        (json!({ "name": "jam" }), 400, "bad_request", "missing field `runtime`"),
    ] {
        let answer = town.post(agents, &body).await;
        let (found, text) = answer.refusal();
        assert_eq!((answer.status.as_u16(), found), (status, code), "{body}");
        assert!(text.contains(sentence), "{body}: {text}");
    }
    for (path, sentence) in [
        ("/api/towns/main/agents/jam", "there is no agent \"jam\" in this town"),
        ("/api/towns/other/agents/toast", "there is no such town here"),
        ("/api/nothing", "there is no such route"),
    ] {
        let answer = town.get(path).await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{path}");
        assert_eq!(answer.refusal(), ("not_found", sentence), "{path}");
    }
    let answer = town.post("/api/towns/main/agents/jam/start", &json!({})).await;
    assert_eq!(answer.refusal(), ("not_found", "there is no agent \"jam\" in this town"));
    town.stop().await;
}

#[tokio::test]
async fn a_method_that_a_route_does_not_take_is_named_so() {
    let town = TestWorker::start().await;
    let answer = town.delete("/api/towns").await;
    assert_eq!(answer.status, StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(answer.refusal().1, "this route does not take this method");
    town.stop().await;
}

#[tokio::test]
async fn a_body_of_the_limit_is_read_and_one_byte_more_is_refused() {
    let town = TestWorker::start().await;
    town.register("toast", false).await;
    let padded = |len: usize| {
        let frame = r#"{"drain":false,"pad":""}"#;
        format!(r#"{{"drain":false,"pad":"{}"}}"#, "x".repeat(len - frame.len()))
    };
    let path = "/api/towns/main/agents/toast/stop";
    let limit = protocol::limits::HTTP_BODY_BYTES;
    let at_limit = answer(town.request(Method::POST, path).body(padded(limit))).await;
    assert_eq!(at_limit.status, StatusCode::OK, "{at_limit:?}");
    let beyond = answer(town.request(Method::POST, path).body(padded(limit + 1))).await;
    assert_eq!(beyond.status, StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(beyond.refusal(), ("too_large", "a body has at most 65536 bytes"));
    town.stop().await;
}

#[tokio::test]
async fn p20_a_body_that_is_no_json_is_refused_with_a_reason() {
    let town = TestWorker::start().await;
    let deep = "[".repeat(2000);
    for body in [&b"{"[..], b"\xff\xfe", b"[]", b"null", deep.as_bytes()] {
        let answer = answer(town.request(Method::POST, "/api/towns/main/agents").body(body.to_vec())).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{answer:?}");
        assert!(answer.refusal().1.starts_with("the body is not what this route takes"), "{answer:?}");
    }
    town.stop().await;
}

#[tokio::test]
async fn a_registration_that_is_sent_again_with_its_key_is_carried_out_once() {
    let town = TestWorker::start().await;
    let register = || {
        let body = registration("toast", town.folder.path(), true);
        town.request(Method::POST, "/api/towns/main/agents").header("Idempotency-Key", "k1").json(&body)
    };
    assert_eq!(answer(register()).await.status, StatusCode::CREATED);
    assert_eq!(answer(register()).await.status, StatusCode::CREATED);
    town.launcher.next().await;
    assert!(!town.launcher.has_more().await);
    let other =
        town.request(Method::POST, "/api/towns/main/agents/toast/stop").header("Idempotency-Key", "k1");
    assert_eq!(answer(other).await.refusal().0, "conflict");
    town.stop().await;
}

#[tokio::test]
async fn a_wrapper_that_cannot_run_its_agent_is_shown_with_the_reason() {
    let town = TestWorker::start().await;
    let wrapper = town.launch("toast").await;
    wrapper.end(WrapperExit::Unusable { reason: "there is no opencode on PATH: install it".into() });
    town.phase("toast", "failed").await;
    let shown = town.get("/api/towns/main/agents/toast").await;
    assert_eq!(
        shown.data()["agent"]["phase"],
        json!({ "state": "failed", "reason": "there is no opencode on PATH: install it" })
    );
    town.stop().await;
}
