//! Wrappers: the ingest link, fencing, commands, presence.

use std::time::Duration;

use gastown_relay::{RelayApi as _, server::RelayConfig};
use protocol::{Command, CommandId, ErrorCode, frame::WrapperPresence};
use serde_json::{Value, json};
use store::{MemoryStore, RetentionPolicy};

use crate::support::{Server, append, hello, http, texts, within};

#[tokio::test]
async fn events_are_acked_after_the_commit_and_shown() {
    for server in [Server::start().await, Server::on_disk().await] {
        let mut wrapper = server.wrapper("a1", "p1", 1).await;
        wrapper.send(&append(1, &["1", "2"])).await;
        assert_eq!(wrapper.next().await, json!({"type": "ack", "through": 2, "seq": 2}));
        let mut viewer = server.stream("/v1/agents/a1/stream").await;
        assert_eq!(texts(&viewer.until("live").await), ["1", "2"]);
        wrapper.send(&append(3, &["3"])).await;
        assert_eq!(texts(&viewer.until("events").await), ["3"]);
    }
}

#[tokio::test]
async fn p5_a_wrapper_that_reconnects_and_resends_makes_one_event_of_each() {
    let server = Server::on_disk().await;
    for round in 0..5_u64 {
        let mut wrapper = server.stream_as("/v1/ingest", Some(&server.wrapper_token("a1", 1))).await;
        wrapper.send(&hello("a1", "p1", 1)).await;
        assert_eq!(wrapper.next().await["acked"], round);
        wrapper.send(&append(1, &["1", "2", "3", "4", "5"][..usize::try_from(round + 1).unwrap()])).await;
        assert_eq!(wrapper.next().await["through"], round + 1);
    }
    let mut viewer = server.stream("/v1/agents/a1/stream").await;
    assert_eq!(texts(&viewer.until("live").await), ["1", "2", "3", "4", "5"]);
}

#[tokio::test]
async fn p6_a_higher_generation_closes_the_old_link_and_a_lower_one_is_refused() {
    let server = Server::start().await;
    let mut old = server.wrapper("a1", "p1", 1).await;
    let mut new = server.wrapper("a1", "p1", 2).await;
    let (said, code) = old.closed().await;
    assert_eq!((said, code), (vec![json!({"type": "superseded"})], 4409));
    let mut late = server.stream_as("/v1/ingest", Some(&server.wrapper_token("a1", 1))).await;
    late.send(&hello("a1", "p1", 1)).await;
    assert_eq!(late.close_code().await, 4409);
    new.send(&append(1, &["1"])).await;
    assert_eq!(new.next().await["through"], 1);
}

#[tokio::test]
async fn the_same_wrapper_on_a_new_link_replaces_its_old_one() {
    let server = Server::start().await;
    let mut old = server.wrapper("a1", "p1", 1).await;
    let mut new = server.wrapper("a1", "p1", 1).await;
    assert_eq!(old.close_code().await, 1000, "it is not told to stop");
    new.send(&append(1, &["1"])).await;
    assert_eq!(new.next().await["through"], 1);
}

#[tokio::test]
async fn p17_a_wrapper_is_held_to_its_token() {
    let server = Server::start().await;
    let token = server.wrapper_token("a1", 2);
    for (agent, generation, town) in
        [("a2", 2, "main"), ("a1", 3, "main"), ("a1", 1, "main"), ("a1", 2, "other")]
    {
        let mut wrapper = server.stream_as("/v1/ingest", Some(&token)).await;
        let mut hello = hello(agent, "p1", generation);
        hello["town"] = json!(town);
        wrapper.send(&hello).await;
        assert_eq!(wrapper.close_code().await, 4403, "{agent} {generation} {town}");
    }
    assert_eq!(server.get("/v1/agents/a1/view").await.status(), 404, "nothing was made");
}

#[tokio::test]
async fn a_hole_in_the_numbers_is_refused() {
    let server = Server::start().await;
    let mut wrapper = server.wrapper("a1", "p1", 1).await;
    wrapper.send(&append(1, &["1"])).await;
    wrapper.next().await;
    wrapper.send(&append(3, &["3"])).await;
    assert_eq!(wrapper.close_code().await, 4400);
}

#[tokio::test]
async fn a_command_reaches_the_wrapper_once_and_its_result_everyone_who_asked() {
    let server = Server::start().await;
    let mut wrapper = server.wrapper("a1", "p1", 1).await;
    let mut viewer = server.stream("/v1/stream").await;
    viewer.next().await;
    viewer.send(&json!({"type": "command", "id": "c1", "agent": "a1", "command": {"type": "abort"}})).await;
    assert_eq!(wrapper.next().await, json!({"type": "command", "id": "c1", "command": {"type": "abort"}}));
    wrapper.send(&json!({"type": "result", "id": "c1", "ok": true, "data": {"n": 1}})).await;
    let result = json!({"type": "result", "id": "c1", "ok": true, "data": {"n": 1}});
    assert_eq!(viewer.next().await, result);

    let post = http().post(server.http("/v1/agents/a1/commands")).bearer_auth(server.operator().expose());
    let post = post.header("idempotency-key", "c1").json(&json!({"type": "abort"}));
    let again = within(post.send()).await.unwrap();
    assert_eq!(again.status(), 200);
    assert_eq!(again.json::<Value>().await.unwrap(), json!({"id": "c1", "ok": true, "data": {"n": 1}}));
    wrapper.send(&append(1, &["1"])).await;
    assert_eq!(wrapper.next().await["type"], "ack", "the command did not come again");
}

#[tokio::test]
async fn the_first_answer_to_a_permission_wins() {
    let server = Server::start().await;
    let mut wrapper = server.wrapper("a1", "p1", 1).await;
    let answer = |id: &str| {
        let command = json!({"type": "permission", "id": "per_1", "reply": "once"});
        json!({"type": "command", "id": id, "agent": "a1", "command": command})
    };
    let mut viewer = server.stream("/v1/stream").await;
    viewer.next().await;
    viewer.send(&answer("c1")).await;
    wrapper.next().await;
    viewer.send(&answer("c2")).await;
    assert_eq!(viewer.next().await["error"]["code"], "already_answered");
    wrapper.send(&json!({"type": "result", "id": "c1", "ok": true})).await;
    assert_eq!(viewer.next().await, json!({"type": "result", "id": "c1", "ok": true}));
}

#[tokio::test]
async fn an_agent_without_a_wrapper_is_offline_and_nothing_is_queued() {
    let server = Server::start().await;
    server.append("agent/a1", &["1"]).await;
    let post = http().post(server.http("/v1/agents/a1/commands")).bearer_auth(server.operator().expose());
    let offline =
        within(post.header("idempotency-key", "c1").json(&json!({"type": "ping"})).send()).await.unwrap();
    assert_eq!(offline.status(), 503);
    assert_eq!(offline.json::<Value>().await.unwrap()["error"]["code"], "agent_offline");
    let mut wrapper = server.wrapper("a1", "p1", 1).await;
    wrapper.send(&append(1, &["2"])).await;
    assert_eq!(wrapper.next().await["type"], "ack", "no command was waiting");
}

#[tokio::test]
async fn a_command_whose_link_is_lost_is_answered() {
    let server = Server::start().await;
    let mut wrapper = server.wrapper("a1", "p1", 1).await;
    let agent = "a1".parse().unwrap();
    let command = server.relay.command(&agent, "c1".parse::<CommandId>().unwrap(), Command::Ping);
    let lost = async {
        wrapper.next().await;
        drop(wrapper);
    };
    let (result, ()) = tokio::join!(within(command), lost);
    assert_eq!(result.unwrap().error.unwrap().code, ErrorCode::AgentOffline);
}

#[tokio::test]
async fn viewers_are_told_when_the_wrapper_comes_and_goes() {
    let server = Server::start().await;
    server.append("agent/a1", &["1"]).await;
    let mut viewer = server.stream("/v1/agents/a1/stream").await;
    assert_eq!(viewer.until("presence").await.pop().unwrap()["wrapper"], "disconnected");
    let mut wrapper = server.wrapper("a1", "p1", 1).await;
    assert_eq!(viewer.until("presence").await.pop().unwrap()["wrapper"], "connected");
    let said = json!({"type": "presence", "state": "active", "last_activity": "2026-11-20T18:10:16.123Z"});
    wrapper.send(&said).await;
    wrapper.send(&append(1, &["2"])).await;
    wrapper.next().await;
    let presence = server.get("/v1/agents/a1/presence").await.json::<Value>().await.unwrap();
    assert_eq!((&presence["wrapper"], &presence["state"]), (&json!("connected"), &json!("active")));
    drop(wrapper);
    assert_eq!(viewer.until("presence").await.pop().unwrap()["wrapper"], "disconnected");
    assert_eq!(
        server.relay.presence(&"a1".parse().unwrap()).await.unwrap().wrapper,
        WrapperPresence::Disconnected
    );
}

#[tokio::test]
async fn a_wrapper_that_does_not_come_back_is_recorded_as_lost_and_one_that_said_bye_is_not() {
    let config = RelayConfig::default().with_lost_after(Duration::ZERO);
    let server = Server::with(MemoryStore::new(RetentionPolicy::default()), config).await;
    let mut leaves = server.wrapper("a1", "p1", 1).await;
    leaves.send(&json!({"type": "bye", "reason": "done"})).await;
    assert_eq!(leaves.close_code().await, 1000);
    let lost = server.wrapper("a2", "p1", 1).await;
    drop(lost);
    let page = server.get("/v1/agents/a2/events?after=0&wait=30").await.json::<Value>().await.unwrap();
    assert_eq!(page["events"][0]["type"], "wrapper.lost");
    let page = server.get("/v1/agents/a1/events").await.json::<Value>().await.unwrap();
    assert_eq!(page["events"], json!([]));
}

#[tokio::test]
async fn p15_a_wrapper_is_told_when_to_come_back() {
    let server = Server::start().await;
    let mut wrapper = server.wrapper("a1", "p1", 1).await;
    wrapper.send(&append(1, &["1"])).await;
    wrapper.next().await;
    let (closed, ()) = tokio::join!(wrapper.closed(), server.stop());
    assert_eq!((&closed.0[0]["type"], closed.1), (&json!("draining"), 1012));
    assert!(closed.0[0]["retry_after_ms"].as_u64().unwrap() >= 500);
}

#[tokio::test]
async fn events_are_appended_over_plain_http_once_per_number() {
    let server = Server::start().await;
    let body =
        json!({"producer": "p1", "generation": 1, "first": 1, "events": append(1, &["1", "2"])["events"]});
    for _ in 0..2 {
        let post = http().post(server.http("/v1/agents/a1/events")).bearer_auth(server.operator().expose());
        let answer = within(post.json(&body).send()).await.unwrap().json::<Value>().await.unwrap();
        assert_eq!((&answer["acked"], &answer["head"]), (&json!(2), &json!(2)));
    }
    let mut body = body;
    body["first"] = json!(9);
    let post = http().post(server.http("/v1/agents/a1/events")).bearer_auth(server.operator().expose());
    assert_eq!(within(post.json(&body).send()).await.unwrap().status(), 400);
}
