//! Stream tickets, and the streams that they open.

use futures_util::StreamExt as _;
use protocol::ErrorBody;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio_tungstenite::{connect_async, tungstenite::Message};

use crate::support::{TestWorker, answer, in_time};

#[tokio::test]
async fn p18_a_ticket_opens_one_stream_and_no_second_one() {
    let town = TestWorker::start().await;
    town.register("toast", false).await;
    let ticket = town.post("/api/towns/main/agents/toast/stream-ticket", &json!({})).await;
    assert_eq!(ticket.status, StatusCode::CREATED);
    let url = ticket.data()["url"].as_str().unwrap();
    assert!(url.starts_with(&format!("ws://{}/v1/agents/toast/stream?ticket=", town.address)), "{url}");
    assert_eq!(first_frames(url, 2).await[..], [json!("hello"), json!("subscribed")]);
    assert_eq!(close_code(url).await, 4401, "it was used");
    town.stop().await;
}

#[tokio::test]
async fn p18_of_a_hundred_tries_with_one_ticket_one_succeeds() {
    let town = TestWorker::start().await;
    town.register("toast", false).await;
    let ticket = town.post("/api/towns/main/agents/toast/stream-ticket", &json!({})).await;
    let url = ticket.data()["url"].as_str().unwrap();
    let tries = (0..100).map(|_| async move { opens(url).await });
    let opened = futures_util::future::join_all(tries).await.into_iter().filter(|opened| *opened).count();
    assert_eq!(opened, 1);
    town.stop().await;
}

#[tokio::test]
async fn p18_a_ticket_is_good_for_its_agent_only() {
    let town = TestWorker::start().await;
    town.register("toast", false).await;
    town.register("jam", false).await;
    let ticket = town.post("/api/towns/main/agents/toast/stream-ticket", &json!({})).await;
    let url = ticket.data()["url"].as_str().unwrap().replace("/agents/toast/", "/agents/jam/");
    assert_eq!(close_code(&url).await, 4403);
    town.stop().await;
}

#[tokio::test]
async fn a_ticket_says_when_it_ends_and_there_is_none_for_an_unknown_agent() {
    let town = TestWorker::start().await;
    town.register("toast", false).await;
    let ticket = town.post("/api/towns/main/agents/toast/stream-ticket", &json!({})).await;
    let expires: protocol::Timestamp = ticket.data()["expiresAt"].as_str().unwrap().parse().unwrap();
    let left = expires.since(town.worker.now()).as_secs();
    assert!((1..=60).contains(&left), "{left} s");
    let unknown = town.post("/api/towns/main/agents/jam/stream-ticket", &json!({})).await;
    assert_eq!(unknown.refusal(), ("not_found", "there is no agent \"jam\" in this town"));
    town.stop().await;
}

#[tokio::test]
async fn a_stream_and_a_page_have_their_names_under_api_too() {
    let town = TestWorker::start().await;
    town.register("toast", false).await;
    let log = town.request(Method::GET, "/v1/agents/toast/events?wait=10");
    let first = in_time("the first event", log.send()).await.unwrap().json::<Value>().await.unwrap();
    assert_eq!(first["events"][0]["type"], "agent.registered");
    let head = first["head"].as_u64().unwrap();
    let rest = town.request(Method::GET, &format!("/api/towns/main/agents/toast/events?after_id={head}"));
    let rest = rest.send().await.unwrap().json::<Value>().await.unwrap();
    assert_eq!((&rest["events"], &rest["head"]), (&json!([]), &json!(head)));

    let ticket = town.post("/api/towns/main/agents/toast/stream-ticket", &json!({})).await;
    let url = ticket.data()["url"].as_str().unwrap().replace("/v1/", "/api/towns/main/");
    assert_eq!(first_frames(&url, 2).await[..], [json!("hello"), json!("subscribed")]);
    town.stop().await;
}

#[tokio::test]
async fn the_relay_inside_refuses_in_its_own_words() {
    let town = TestWorker::start().await;
    let unknown = town.request(Method::GET, "/v1/agents/nobody/events").send().await.unwrap();
    assert_eq!(unknown.status(), StatusCode::NOT_FOUND);
    let body: ErrorBody = unknown.json().await.unwrap();
    assert_eq!(body.error.code, protocol::ErrorCode::UnknownLog);
    let health = town.plain(Method::GET, "/healthz").send().await.unwrap();
    assert_eq!(health.status(), StatusCode::OK);
    let open = answer(town.plain(Method::GET, "/api/towns")).await;
    assert_eq!(open.status, StatusCode::UNAUTHORIZED);
    town.stop().await;
}

/// The types of the first frames of a stream.
pub(crate) async fn first_frames(url: &str, count: usize) -> Vec<Value> {
    let (socket, _) = in_time("the stream opens", connect_async(url)).await.unwrap();
    let texts = socket.filter_map(|message| async { message.ok()?.into_text().ok() });
    let frames = texts.map(|text| serde_json::from_str::<Value>(&text).unwrap()["type"].clone());
    in_time("the first frames", frames.take(count).collect()).await
}

/// Whether a stream opens: its second frame is no refusal.
async fn opens(url: &str) -> bool {
    let (mut socket, _) = in_time("the upgrade", connect_async(url)).await.unwrap();
    let mut subscribed = false;
    while let Some(Ok(message)) = in_time("a frame or the end", socket.next()).await {
        let Message::Text(text) = message else { break };
        if text.contains("\"subscribed\"") {
            subscribed = true;
            break;
        }
    }
    subscribed
}

/// The code that a stream is closed with.
async fn close_code(url: &str) -> u16 {
    let (mut socket, _) = in_time("the upgrade", connect_async(url)).await.unwrap();
    loop {
        if let Message::Close(Some(frame)) = in_time("a close", socket.next()).await.unwrap().unwrap() {
            return frame.code.into();
        }
    }
}
