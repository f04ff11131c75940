//! The dashboard over real sockets: pages, forms, assets, and the streams of `view=html`.

use futures_util::StreamExt as _;
use protocol::{
    Command, LogId, NewEvent, PermissionReply, Timestamp,
    frame::{PatchOp, ToViewer},
};
use reqwest::{Method, StatusCode};
use serde_json::json;
use tokio::net::TcpStream;
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async,
    tungstenite::{ClientRequestBuilder, Message},
};

use crate::support::{TestWorker, in_time, link::FakeLink};

#[tokio::test]
async fn p17_pages_are_for_those_who_are_logged_in() {
    let town = TestWorker::start().await;
    town.register("toast", false).await;
    for path in ["/agents", "/agents/toast", "/agents/nobody", "/agents/toast/events/1"] {
        let response = town.plain(Method::GET, path).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::SEE_OTHER, "{path}");
        assert_eq!(response.headers()["location"], format!("/login?next={path}").as_str());
    }
    let response = town.plain(Method::POST, "/agents/toast/abort").send().await.unwrap();
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_page_may_load_nothing_but_its_own_files_which_are_cached_for_ever() {
    let town = TestWorker::start().await;
    let response = town.request(Method::GET, "/agents").send().await.unwrap();
    let policy = response.headers()["content-security-policy"].to_str().unwrap().to_owned();
    assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
    assert_eq!(response.headers()["x-content-type-options"], "nosniff");
    assert_eq!(response.headers()["referrer-policy"], "same-origin");
    assert_eq!(response.headers()["cache-control"], "no-store");
    let page = response.text().await.unwrap();
    for start in ["/assets/app.", "/assets/live.", "/assets/theme.", "/assets/favicon."] {
        let at = page.find(start).unwrap_or_else(|| panic!("{start} in {page}"));
        let path = page[at..].split('"').next().unwrap();
        let asset = town.plain(Method::GET, path).send().await.unwrap();
        assert_eq!(asset.headers()["cache-control"], "public, max-age=31536000, immutable");
        let tag = asset.headers()["etag"].clone();
        let again = town.plain(Method::GET, path).header("if-none-match", tag).send().await.unwrap();
        assert_eq!(again.status(), StatusCode::NOT_MODIFIED, "{path}");
    }
}

#[tokio::test]
async fn text_that_an_agent_writes_reaches_a_page_as_it_is_written() {
    let town = TestWorker::start().await;
    town.register("toast", false).await;
    append(&town, "message.part.delta", &delta("One\n\nTw")).await;
    let page = page(&town, "/agents/toast").await;
    assert!(page.contains(">One</p>") && page.contains("data-stream=\"/v1/agents/toast/stream\""), "{page}");

    let mut stream = open(&town, &format!("/v1/agents/toast/stream?view=html&{}", cursor(&page))).await;
    until(&mut stream, |frame| matches!(frame, ToViewer::Live { .. })).await;
    append(&town, "message.part.delta", &delta("o <three>")).await;
    let ToViewer::Patch { ops, .. } = until(&mut stream, is_patch).await else {
        unreachable!("it is a patch")
    };
    assert!(ops.contains(&PatchOp::Append("msg_1/prt_1-text".into(), "o <three>".into())), "{ops:?}");
}

#[tokio::test]
async fn p2_a_page_that_was_away_is_given_what_changed_and_nothing_else() {
    let town = TestWorker::start().await;
    town.register("toast", false).await;
    append(&town, "message.part.updated", &part("prt_1", "first")).await;
    let before = page(&town, "/agents/toast").await;
    append(&town, "message.part.updated", &part("prt_2", "second")).await;

    let mut stream = open(&town, &format!("/v1/agents/toast/stream?view=html&{}", cursor(&before))).await;
    let ToViewer::Patch { ops, .. } = until(&mut stream, is_patch).await else {
        unreachable!("it is a patch")
    };
    let ops = format!("{ops:?}");
    assert!(ops.contains("second") && !ops.contains("first"), "{ops}");
}

#[tokio::test]
async fn an_ask_is_answered_by_a_form_without_script() {
    let town = TestWorker::start().await;
    let mut link = FakeLink::connect(&town.launch("toast").await).await;
    let asked = json!({ "id": "per_1", "sessionID": "ses_1", "permission": "bash", "patterns": ["rm x"], "always": ["rm *"], "metadata": {} });
    link.event("permission.asked", &asked).await;
    let page = page(&town, "/agents/toast").await;
    assert!(page.contains("id=\"per_1\"") && page.contains("action=\"/agents/toast/permission\""), "{page}");

    let cookie = town.cookie().await;
    let post = town
        .plain(Method::POST, "/agents/toast/permission")
        .header("cookie", cookie)
        .header("origin", town.url(""))
        .header("content-type", FORM)
        .body("id=per_1&reply=reject&message=move+it+instead");
    let (response, (_, command)) = tokio::join!(post.send(), link.command());
    let response = response.unwrap();
    assert_eq!(response.status(), StatusCode::SEE_OTHER);
    assert_eq!(response.headers()["location"], "/agents/toast#deck");
    let expected = Command::Permission {
        id: "per_1".into(),
        reply: PermissionReply::Reject,
        message: Some("move it instead".into()),
    };
    assert_eq!(command, expected);
}

#[tokio::test]
async fn what_is_refused_is_said_in_words() {
    let town = TestWorker::start().await;
    town.register("toast", false).await;
    let post = town
        .request(Method::POST, "/agents/toast/prompt")
        .header("accept", "application/json")
        .header("content-type", FORM)
        .body("text=hello");
    let response = post.send().await.unwrap();
    assert!(response.status().is_server_error());
    let body: serde_json::Value = response.json().await.unwrap();
    assert_eq!(body["code"], "agent_offline");
    assert!(!body["error"].as_str().unwrap().is_empty());
}

#[tokio::test]
async fn the_fleet_page_follows_every_agent() {
    let town = TestWorker::start().await;
    let mut link = FakeLink::connect(&town.launch("toast").await).await;
    let page = page(&town, "/agents").await;
    assert!(
        page.contains("id=\"agent-toast\"") && page.contains("data-stream=\"/v1/towns/main/stream\""),
        "{page}"
    );
    let mut stream = open(&town, &format!("/v1/towns/main/stream?view=html&{}", cursor(&page))).await;
    // The event is of a day long gone: an agent that was busy then and silent since has stalled.
    link.event("agent.status", &json!({ "state": "busy" })).await;
    let row = until(
        &mut stream,
        |frame| matches!(frame, ToViewer::Patch { ops, .. } if format!("{ops:?}").contains("Stalled")),
    )
    .await;
    assert!(format!("{row:?}").contains("agent-toast"), "{row:?}");
    town.register("maple", false).await;
    until(
        &mut stream,
        |frame| matches!(frame, ToViewer::Patch { ops, .. } if format!("{ops:?}").contains("agent-maple")),
    )
    .await;
}

#[tokio::test]
async fn the_first_fleet_page_shows_what_the_agents_have_said_so_far() {
    let town = TestWorker::start().await;
    let mut link = FakeLink::connect(&town.launch("toast").await).await;
    let asked =
        json!({ "id": "per_1", "sessionID": "ses_1", "permission": "bash", "patterns": ["rm -rf build"] });
    link.event("permission.asked", &asked).await;
    town.register("maple", false).await;
    let page = page(&town, "/agents").await;
    assert!(page.contains("rm -rf build") && page.contains("id=\"agent-maple\""), "{page}");
}

#[tokio::test]
async fn streams_that_may_not_be_served_are_closed_with_their_code() {
    let town = TestWorker::start().await;
    town.register("toast", false).await;
    for (path, token, code) in [
        ("/v1/agents/toast/stream?view=html", "", 4401),
        ("/v1/agents/toast/stream?view=html", "wrong", 4401),
        ("/v1/towns/main/stream?view=html", "wrong", 4401),
        ("/v1/agents/nobody/stream?view=html", town.token.as_str(), 4404),
        ("/v1/towns/other/stream?view=html", town.token.as_str(), 4404),
    ] {
        let mut stream = connect(&town, path, token).await;
        assert_eq!(closed(&mut stream).await, code, "{path} {token}");
    }
}

/// How a browser sends a form.
const FORM: &str = "application/x-www-form-urlencoded";

type Stream = WebSocketStream<MaybeTlsStream<TcpStream>>;

async fn page(town: &TestWorker, path: &str) -> String {
    let response = town.request(Method::GET, path).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::OK, "{path}");
    response.text().await.unwrap()
}

/// An event of the agent's only session.
async fn append(town: &TestWorker, kind: &str, data: &serde_json::Value) {
    let time = Timestamp::from_unix_ms(1_795_000_000_000);
    let event = NewEvent { session: Some("ses_1".into()), ..NewEvent::of(time, kind, data).unwrap() };
    town.worker.relay().append(&LogId::Agent("toast".parse().unwrap()), vec![event]).await.unwrap();
}

/// Where a page is, as the query of its stream.
fn cursor(page: &str) -> String {
    let attribute =
        |name: &str| page.split(&format!("{name}=\"")).nth(1).unwrap().split('"').next().unwrap().to_owned();
    format!("after={}&epoch={}", attribute("data-after"), attribute("data-epoch"))
}

async fn open(town: &TestWorker, path: &str) -> Stream {
    connect(town, path, &town.token).await
}

async fn connect(town: &TestWorker, path: &str, token: &str) -> Stream {
    let url = town.url(path).replacen("http", "ws", 1);
    let mut request = ClientRequestBuilder::new(url.parse().unwrap());
    if !token.is_empty() {
        request = request.with_header("Authorization", format!("Bearer {token}"));
    }
    in_time("the stream opens", connect_async(request)).await.unwrap().0
}

async fn until(stream: &mut Stream, is: impl Fn(&ToViewer) -> bool) -> ToViewer {
    in_time("the frame comes", async {
        loop {
            let Message::Text(text) = stream.next().await.unwrap().unwrap() else { continue };
            let frame: ToViewer = serde_json::from_str(&text).unwrap();
            if is(&frame) {
                return frame;
            }
        }
    })
    .await
}

async fn closed(stream: &mut Stream) -> u16 {
    in_time("the stream is closed", async {
        loop {
            if let Message::Close(frame) = stream.next().await.unwrap().unwrap() {
                return frame.unwrap().code.into();
            }
        }
    })
    .await
}

fn is_patch(frame: &ToViewer) -> bool {
    matches!(frame, ToViewer::Patch { .. })
}

fn delta(text: &str) -> serde_json::Value {
    json!({ "sessionID": "ses_1", "messageID": "msg_1", "partID": "prt_1", "field": "text", "delta": text })
}

fn part(id: &str, text: &str) -> serde_json::Value {
    json!({ "sessionID": "ses_1", "part": { "id": id, "messageID": "msg_1", "sessionID": "ses_1", "type": "text", "text": text, "time": { "start": 1, "end": 2 } } })
}
