//! Bad input at the doors of a whole server: each gets its code of §8, or a message that says what to do.

use futures_util::{SinkExt, StreamExt};
use serde_json::json;
use tokio::time::timeout;
use tokio_tungstenite::{
    connect_async,
    tungstenite::{Message, client::IntoClientRequest},
};

use crate::support::{
    server::{Gastown, PATIENCE, log_of},
    viewer::Viewer,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p17_a_wrong_token_is_unauthenticated_everywhere() {
    let gastown = Gastown::up(&[]).await;
    for path in ["/v1/agents/toast/events", "/v1/agents/toast/view", "/api/towns/main/agents"] {
        let request = gastown.http.get(format!("{}{path}", gastown.url)).bearer_auth("wrong");
        let response = request.send().await.expect("an answer");
        assert_eq!(response.status(), 401, "{path}");
    }
    assert_eq!(closed(&gastown, "/v1/agents/toast/stream?ticket=wrong", None).await, 4401);
    assert_eq!(closed(&gastown, "/v1/ingest", None).await, 4401);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p18_a_ticket_opens_one_stream() {
    let gastown = Gastown::up(&[]).await;
    register(&gastown).await;
    let ticket = gastown.api("POST", "/agents/toast/stream-ticket", Some(json!({}))).await;
    let ticket = ticket["ticket"].as_str().expect("a ticket").to_owned();
    let path = format!("/v1/agents/toast/stream?ticket={ticket}");
    let (mut socket, _) = connect_async(ws(&gastown, &path)).await.expect("the first use opens the stream");
    let hello = timeout(PATIENCE, socket.next()).await.expect("in time").expect("a frame").expect("a frame");
    assert!(hello.to_text().expect("text").contains("\"hello\""));
    assert_eq!(closed(&gastown, &path, None).await, 4401, "the second use is refused");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unknown_agent_is_an_unknown_log() {
    let gastown = Gastown::up(&[]).await;
    let (status, answer) = gastown.call("GET", "/v1/agents/nobody/events", None).await;
    assert_eq!((status, &answer["error"]["code"]), (404, &json!("unknown_log")), "{answer}");
    assert_eq!(closed(&gastown, "/v1/agents/nobody/stream", Some(&gastown.token)).await, 4404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p20_malformed_frames_are_refused_and_the_server_goes_on() {
    let gastown = Gastown::up(&[]).await;
    register(&gastown).await;
    let path = "/v1/stream";
    for (frame, code) in [
        (Message::text("{"), 4400),
        (Message::text("[".repeat(10_000)), 4400),
        (Message::text("x".repeat(20_000)), 4413),
        (Message::binary(vec![0xff, 0xfe]), 1003),
    ] {
        let shown = frame.len();
        let mut request = ws(&gastown, path).into_client_request().expect("a request");
        let bearer = format!("Bearer {}", gastown.token).parse().expect("a header");
        request.headers_mut().insert("authorization", bearer);
        let (mut socket, _) = connect_async(request).await.expect("the stream opens");
        socket.send(frame).await.expect("the frame goes out");
        assert_eq!(close_code(&mut socket).await, code, "a frame of {shown} bytes");
    }
    let (status, _) = gastown.call("GET", "/v1/agents/toast/events", None).await;
    assert_eq!(status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_agent_binary_says_what_to_do() {
    let gastown = Gastown::up(&[]).await;
    let message = failure(&gastown, "/no/such/opencode").await;
    assert!(message.contains("/no/such/opencode"), "{message}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_dies_at_its_start_says_why() {
    let gastown = Gastown::up(&[]).await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let binary = folder.path().join("opencode");
    std::fs::write(&binary, "#!/bin/sh\necho 'the configuration is broken' >&2\nexit 3\n")
        .expect("it is writable");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&binary, mode).expect("it is ours");
    let message = failure(&gastown, binary.to_str().expect("UTF-8")).await;
    assert!(message.contains("the configuration is broken"), "{message}");
    assert!(message.contains('3'), "the exit code is told: {message}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p17_a_foreign_origin_is_refused() {
    let gastown = Gastown::up(&[]).await;
    for header in ["origin", "host"] {
        let request =
            gastown.http.get(format!("{}/v1/agents/toast/events", gastown.url)).bearer_auth(&gastown.token);
        let value = if header == "host" { "evil.example" } else { "http://evil.example" };
        let response = request.header(header, value).send().await.expect("an answer");
        assert_eq!(response.status(), 403, "{header}");
    }
}

/// Starts an agent that cannot work, and gives the whole `agent.failed` back.
async fn failure(gastown: &Gastown, binary: &str) -> String {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let agent = gastown
        .start_agent(json!({
            "name": "toast", "role": "polecat", "directory": folder.path(), "start": true,
            "runtime": { "kind": "opencode", "agent_bin": binary },
        }))
        .await;
    let mut viewer = Viewer::of(&gastown.client(), log_of(&agent));
    let event = viewer.until_event("the agent fails", |event| event.kind.as_ref() == "agent.failed").await;
    event.data.json().to_owned()
}

async fn register(gastown: &Gastown) {
    let registration = json!({
        "name": "toast", "role": "polecat", "directory": gastown.data_dir(), "runtime": { "kind": "opencode" },
    });
    gastown.start_agent(registration).await;
}

fn ws(gastown: &Gastown, path: &str) -> String {
    format!("{}{path}", gastown.url.replacen("http", "ws", 1))
}

/// Opens a stream that must not be served, and gives its close code: the upgrade itself succeeds (§4).
async fn closed(gastown: &Gastown, path: &str, token: Option<&str>) -> u16 {
    let mut request = ws(gastown, path).into_client_request().expect("a request");
    if let Some(token) = token {
        request.headers_mut().insert("authorization", format!("Bearer {token}").parse().expect("a header"));
    }
    let (mut socket, _) = connect_async(request).await.expect("the upgrade is accepted");
    close_code(&mut socket).await
}

async fn close_code<S>(socket: &mut tokio_tungstenite::WebSocketStream<S>) -> u16
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    loop {
        let frame =
            timeout(PATIENCE, socket.next()).await.expect("the server closes").expect("a close frame");
        if let Message::Close(Some(close)) = frame.expect("a frame") {
            return close.code.into();
        }
    }
}
