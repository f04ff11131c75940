//! Viewers: WebSocket, SSE, pages and long polls of one log.

use futures_util::StreamExt as _;
use gastown_relay::{Delivery, RelayApi as _};
use protocol::{Cursor, Epoch, Seq, frame::StartAt};
use serde_json::{Value, json};
use store::{MemoryStore, Retention, RetentionPolicy};

use crate::support::{Server, event, http, texts, within};

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
async fn p2_a_viewer_that_reconnects_with_its_cursor_sees_each_event_once() {
    for server in [Server::start().await, Server::on_disk().await] {
        server.append("agent/a1", &["1"]).await;
        let (mut seen, mut cursor) = (Vec::new(), None::<(String, u64)>);
        for n in 2..12 {
            let query = cursor.as_ref().map(|(epoch, after)| format!("?epoch={epoch}&after={after}"));
            let mut viewer =
                server.stream(&format!("/v1/agents/a1/stream{}", query.unwrap_or_default())).await;
            let mut frames = viewer.until("live").await;
            server.append("agent/a1", &[&n.to_string()]).await;
            frames.extend(viewer.until("events").await);
            let epoch = frames[1]["epoch"].as_str().unwrap().to_owned();
            let events = frames.iter().filter_map(|frame| frame["events"].as_array()).flatten();
            let last = events.last().unwrap()["seq"].as_u64().unwrap();
            seen.extend(texts(&frames));
            cursor = Some((epoch, last));
        }
        assert_eq!(seen, (1..12).map(|n| n.to_string()).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn p9_an_event_has_the_same_bytes_live_replayed_and_over_every_transport() {
    for server in [Server::start().await, Server::on_disk().await] {
        let odd = r#"{"text":  "é\u00e9",
            "n": 1.10, "a":[ ]}"#;
        let mut live = server.stream("/v1/agents/a1/stream?after=0").await;
        assert_eq!(live.close_code().await, 4404, "there is nothing yet");
        server.append("agent/a1", &["first"]).await;
        live = server.stream("/v1/agents/a1/stream").await;
        live.until("live").await;
        let mut odd_event = event("note", &json!(null));
        odd_event.data = protocol::RawData::from_json(odd).unwrap();
        server.relay.append(&"agent/a1".parse().unwrap(), vec![odd_event]).await.unwrap();

        let live = envelope(&live.next_text().await);
        assert!(live.contains(odd), "{live}");
        let mut replayed = server.stream("/v1/agents/a1/stream").await;
        let replayed = loop {
            let text = replayed.next_text().await;
            if text.contains("\"type\":\"events\"") {
                break text;
            }
        };
        assert!(replayed.contains(&live), "{replayed}");
        let page = server.get("/v1/agents/a1/events").await.text().await.unwrap();
        assert!(page.contains(&live), "{page}");
        let mut sse = Sse::open(&server, "/v1/agents/a1/events", None).await;
        let data = sse.events(2).await;
        assert_eq!(data[1].1, live);
    }
}

#[tokio::test]
async fn p3_a_cursor_of_another_epoch_gets_a_gap_on_every_transport() {
    let server = Server::start().await;
    server.append("agent/a1", &["one"]).await;
    let frames = server.stream("/v1/agents/a1/stream?after=7&epoch=other").await.until("live").await;
    assert_eq!(gap(&frames), json!({"type": "gap", "log": "agent/a1", "reason": "epoch"}));
    assert_eq!(texts(&frames), ["one"]);
    let page = server.get("/v1/agents/a1/events?after=7&epoch=other").await.json::<Value>().await.unwrap();
    assert_eq!((&page["gap"], page["events"].as_array().unwrap().len()), (&json!({"reason": "epoch"}), 1));
    let mut sse = Sse::open(&server, "/v1/agents/a1/events", Some("other:7")).await;
    assert_eq!(sse.event("gap").await["reason"], "epoch");
}

#[tokio::test]
async fn p3_a_cursor_ahead_of_the_head_gets_a_gap_and_does_not_wait() {
    let server = Server::start().await;
    server.append("agent/a1", &["one"]).await;
    let frames = server.stream("/v1/agents/a1/stream?after=99").await.until("live").await;
    assert_eq!(gap(&frames)["reason"], "ahead");
    assert_eq!(texts(&frames), ["one"]);
    let page = server.get("/v1/agents/a1/events?after=99&wait=30").await.json::<Value>().await.unwrap();
    assert_eq!(page["gap"], json!({"from": 2, "to": 99, "reason": "ahead"}));
}

#[tokio::test]
async fn p3_cursor_below_the_floor_gets_a_gap_before_the_events() {
    let agent = Retention { events: 3, ..Retention::AGENT };
    let store = MemoryStore::new(RetentionPolicy { agent, ..RetentionPolicy::default() });
    let server = Server::with(store, Default::default()).await;
    server.append("agent/a1", &["1"]).await;
    let mut viewer = server.stream("/v1/agents/a1/stream").await;
    viewer.until("live").await;
    for n in 2..200 {
        server.append("agent/a1", &[&n.to_string()]).await;
    }
    let frames = server.stream("/v1/agents/a1/stream?after=1").await.until("live").await;
    let gap = gap(&frames);
    let floor = frames[1]["floor"].as_u64().unwrap();
    assert!(floor > 1, "the log is bounded");
    assert_eq!((&gap["from"], &gap["to"]), (&json!(2), &json!(floor)));
    let first = frames.iter().find_map(|frame| frame["events"][0]["seq"].as_u64()).unwrap();
    assert_eq!(first, floor + 1);
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
async fn a_long_poll_is_answered_by_the_commit() {
    let server = Server::start().await;
    server.append("agent/a1", &["1"]).await;
    let poll = server.get("/v1/agents/a1/events?after=1&wait=30");
    let (page, ()) = tokio::join!(poll, server.append("agent/a1", &["2"]));
    let page = page.json::<Value>().await.unwrap();
    assert_eq!(page["events"][0]["data"]["text"], "2");
    let page = server.get("/v1/agents/a1/events?after=2&wait=0").await.json::<Value>().await.unwrap();
    assert_eq!(page["events"], json!([]));
}

#[tokio::test]
async fn p2_sse_goes_on_after_its_last_event_id() {
    let server = Server::start().await;
    server.append("agent/a1", &["1", "2"]).await;
    let mut sse = Sse::open(&server, "/v1/agents/a1/events", None).await;
    let first = sse.events(1).await;
    let mut sse = Sse::open(&server, "/v1/agents/a1/events?after=0", Some(&first[0].0)).await;
    assert_eq!(sse.events(1).await[0].1.parse::<Value>().unwrap()["data"]["text"], "2", "the id wins");
    server.append("agent/a1", &["3"]).await;
    assert_eq!(sse.events(1).await[0].1.parse::<Value>().unwrap()["data"]["text"], "3");
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

/// Server-sent events, read as a browser does.
struct Sse {
    body: futures_util::stream::BoxStream<'static, reqwest::Result<bytes::Bytes>>,
    buffer: String,
}

impl Sse {
    async fn open(server: &Server, path: &str, last_event_id: Option<&str>) -> Self {
        let mut request = http().get(server.http(path)).bearer_auth(server.operator().expose());
        request = request.header("accept", "text/event-stream");
        if let Some(id) = last_event_id {
            request = request.header("last-event-id", id);
        }
        let response = within(request.send()).await.unwrap();
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Self { body: response.bytes_stream().boxed(), buffer: String::new() }
    }

    /// The next block: its `event`, its `id` and its `data`.
    async fn block(&mut self) -> (Option<String>, Option<String>, String) {
        loop {
            if let Some((block, rest)) = self.buffer.split_once("\n\n") {
                let (block, rest) = (block.to_owned(), rest.to_owned());
                self.buffer = rest;
                let field =
                    |name: &str| block.lines().find_map(|line| line.strip_prefix(name).map(str::to_owned));
                let data = block
                    .lines()
                    .filter_map(|line| line.strip_prefix("data: "))
                    .collect::<Vec<_>>()
                    .join("\n");
                return (field("event: "), field("id: "), data);
            }
            let chunk = within(self.body.next()).await.expect("the stream goes on").unwrap();
            self.buffer.push_str(std::str::from_utf8(&chunk).unwrap());
        }
    }

    /// The next events of the log: id and envelope.
    async fn events(&mut self, n: usize) -> Vec<(String, String)> {
        let mut events = Vec::new();
        while events.len() < n {
            if let (None, Some(id), data) = self.block().await {
                events.push((id, data));
            }
        }
        events
    }

    /// The next frame of this type.
    async fn event(&mut self, kind: &str) -> Value {
        loop {
            if let (Some(found), _, data) = self.block().await
                && found == kind
            {
                return data.parse().unwrap();
            }
        }
    }
}

fn kinds(frames: &[Value]) -> Vec<&str> {
    frames.iter().map(|frame| frame["type"].as_str().unwrap()).collect()
}

fn gap(frames: &[Value]) -> Value {
    frames.iter().find(|frame| frame["type"] == "gap").expect("a gap is named").clone()
}

/// The one envelope in an `events` frame.
fn envelope(frame: &str) -> String {
    let start = frame.find(r#""events":["#).expect("an `events` frame") + r#""events":["#.len();
    frame[start..frame.len() - 2].to_owned()
}
