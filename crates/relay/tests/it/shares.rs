//! Share links: what they open, and that it closes when they are taken back.

use serde_json::json;

use crate::support::{Server, http, within};

#[tokio::test]
async fn p17_revoking_a_share_link_closes_every_stream_that_it_opened() {
    let server = Server::start().await;
    server.append("agent/a1", &["1"]).await;
    let share = server.share("a1", "s1").await;
    let query = format!("ticket={}", share.expose());
    let mut socket = server.stream_as(&format!("/v1/agents/a1/stream?{query}"), None).await;
    socket.until("live").await;
    let mut many = server.stream_as("/v1/stream", Some(&share)).await;
    many.next().await;
    let events = server.http(&format!("/v1/agents/a1/events?{query}"));
    let events_stream = http().get(&events).header("accept", "text/event-stream").send();
    let events_stream = within(events_stream).await.unwrap();
    assert_eq!(events_stream.status(), 200);
    let poll = tokio::spawn(http().get(format!("{events}&after=1&wait=30")).send());
    // Another link goes on.
    let other = server.share("a1", "s2").await;
    let mut stays = server.stream_as("/v1/agents/a1/stream", Some(&other)).await;
    stays.until("live").await;

    server.tell("town.share.revoked", json!({ "share": "s1" })).await;
    assert_eq!((socket.close_code().await, many.close_code().await), (4401, 4401));
    within(events_stream.text()).await.unwrap();
    assert_eq!(within(poll).await.unwrap().unwrap().status(), 401);
    assert_eq!(within(http().get(&events).send()).await.unwrap().status(), 401);
    server.append("agent/a1", &["2"]).await;
    assert_eq!(stays.until("events").await.last().unwrap()["events"][0]["data"]["text"], "2");
    server.stop().await;
}
