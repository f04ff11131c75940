//! Viewers: what is not the same on every transport (see `transports`): frames, pages, views, following in process.

use futures_util::StreamExt as _;
use gastown_relay::{Delivery, RelayApi as _};
use protocol::{Cursor, Epoch, Seq, frame::StartAt};
use serde_json::{Value, json};

use crate::support::{Server, event, texts, within};

#[tokio::test]
async fn a_viewer_gets_history_then_live_then_what_comes() {
    let server = Server::start().await;
    server.append("agent/a1", &["one", "two"]).await;
    let mut viewer = server.stream("/v1/agents/a1/stream").await;
    let frames = viewer.until("live").await;
    assert_eq!(kinds(&frames), ["hello", "subscribed", "presence", "events", "live"]);
    assert_eq!(texts(&frames), ["one", "two"]);
    server.append("agent/a1", &["three"]).await;
    assert_eq!(texts(&viewer.until("events").await), ["three"]);
    server.append("agent/a1", &["four"]).await;
    assert_eq!(texts(&viewer.until("events").await), ["four"]);
}

#[tokio::test]
async fn many_logs_on_one_socket_with_filters() {
    let server = Server::start().await;
    server.append("agent/a1", &["a"]).await;
    server.append("town/main", &["t"]).await;
    let mut viewer = server.stream("/v1/stream").await;
    viewer.send(&json!({"type": "subscribe", "log": "agent/a1", "types": ["nothing.*"]})).await;
    viewer.send(&json!({"type": "subscribe", "log": "town/main", "cursor": {"seq": "head"}})).await;
    viewer.send(&json!({"type": "subscribe", "log": "agent/none"})).await;
    let frames = viewer.until("error").await;
    assert_eq!(frames[frames.len() - 1]["log"], "agent/none");
    server.append("town/main", &["later"]).await;
    server.append("agent/a1", &["filtered"]).await;
    assert_eq!(texts(&viewer.until("events").await), ["later"]);
    viewer.send(&json!({"type": "unsubscribe", "log": "town/main"})).await;
    viewer.send(&json!({"type": "subscribe", "log": "town/main"})).await;
    assert_eq!(
        texts(&viewer.until("live").await),
        ["t", "later"],
        "from the beginning, and none of the filtered"
    );
}

#[tokio::test]
async fn a_page_is_limited_and_says_that_there_is_more() {
    let server = Server::start().await;
    server.append("agent/a1", &["1", "2", "3"]).await;
    let page = server.get("/v1/agents/a1/events?limit=2").await.json::<Value>().await.unwrap();
    assert_eq!(
        (page["events"].as_array().unwrap().len(), &page["more"], &page["head"]),
        (2, &json!(true), &json!(3))
    );
    let page = server.get("/v1/agents/a1/events?after=2").await.json::<Value>().await.unwrap();
    assert_eq!((&page["events"][0]["seq"], &page["more"]), (&json!(3), &json!(false)));
    for query in [
        "limit=0",
        "limit=1001",
        "wait=31",
        "after=x",
        "after=9007199254740992",
        "limit=x",
        "types=*,".repeat(65).as_str(),
    ] {
        assert_eq!(server.get(&format!("/v1/agents/a1/events?{query}")).await.status(), 400, "{query}");
    }
}

#[tokio::test]
async fn the_view_is_the_fold_up_to_a_position() {
    let server = Server::start().await;
    let log = "agent/a1".parse().unwrap();
    for (id, title) in [("ses_1", "first"), ("ses_2", "second")] {
        let mut event =
            event("session.created", &json!({"info": {"id": id, "title": title}, "sessionID": id}));
        event.session = Some(id.into());
        server.relay.append(&log, vec![event]).await.unwrap();
    }
    let head = server.get("/v1/agents/a1/view").await.text().await.unwrap();
    assert!(head.contains("first") && head.contains("second"), "{head}");
    let at = server.get("/v1/agents/a1/view?at=1").await.text().await.unwrap();
    assert!(at.contains("first") && !at.contains("second"), "{at}");
    assert_eq!(server.get("/v1/agents/none/view").await.status(), 404);
}

#[tokio::test]
async fn a_log_is_followed_in_process_from_before_it_is_there() {
    let server = Server::start().await;
    let mut deliveries = server.relay.follow("agent/a1".parse().unwrap(), None);
    let (first, ()) = tokio::join!(within(deliveries.next()), server.append("agent/a1", &["1"]));
    let Some(Delivery::Subscribed { epoch, .. }) = first else { panic!("{first:?}") };
    let event = loop {
        if let Some(Delivery::Event(event)) = within(deliveries.next()).await {
            break event;
        }
    };
    assert_eq!(event.seq, Seq::new(1));
    let from = StartAt::After(Cursor { epoch: Epoch::new(epoch.as_str()), seq: event.seq });
    let mut rest = server.relay.follow("agent/a1".parse().unwrap(), Some(from));
    server.append("agent/a1", &["2"]).await;
    let rest = loop {
        if let Some(Delivery::Event(event)) = within(rest.next()).await {
            break event;
        }
    };
    assert_eq!(rest.seq, Seq::new(2));
    server.relay.drain().await;
    while within(deliveries.next()).await.is_some() {}
}

#[tokio::test]
async fn p3_a_log_that_is_removed_and_made_again_is_a_gap_to_who_followed_it() {
    let server = Server::start().await;
    server.append("agent/a1", &["1", "2"]).await;
    let mut viewer = server.stream("/v1/agents/a1/stream").await;
    viewer.until("live").await;
    let mut deliveries = server.relay.follow("agent/a1".parse().unwrap(), None);
    while !matches!(within(deliveries.next()).await, Some(Delivery::Live { .. })) {}
    server.relay.remove_log(&"agent/a1".parse().unwrap()).await.unwrap();
    server.append("agent/a1", &["anew"]).await;
    let gap = loop {
        match within(deliveries.next()).await {
            Some(Delivery::Gap { from: None, to: None, .. }) => break within(deliveries.next()).await,
            Some(Delivery::Presence { .. }) => {}
            other => panic!("{other:?}"),
        }
    };
    assert!(matches!(gap, Some(Delivery::Event(event)) if event.data.json().contains("anew")));
}

fn kinds(frames: &[Value]) -> Vec<&str> {
    frames.iter().map(|frame| frame["type"].as_str().unwrap()).collect()
}
