//! User tokens: made, shown, used, revoked; what they opened ends with them.

use futures_util::StreamExt as _;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async,
    tungstenite::{ClientRequestBuilder, Message},
};

use crate::support::{Answer, TestWorker, answer, in_time};

const TOKENS: &str = "/api/towns/main/tokens";
const TICKET: &str = "/api/towns/main/agents/toast/stream-ticket";

#[tokio::test]
async fn p19_a_token_is_shown_to_its_maker_once_and_to_nobody_else() {
    let town = TestWorker::start().await;
    let made = town.post(TOKENS, &json!({ "name": "ann", "scope": "read", "expires_in_s": 3600 })).await;
    assert_eq!(made.status, StatusCode::CREATED, "{made:?}");
    let (token, id) = (made.data()["token"].as_str().unwrap(), made.data()["id"].as_str().unwrap());
    assert!(token.starts_with(&format!("gtu_{id}_")) && token.len() > 80, "it can be searched for");
    let forever = town.post(TOKENS, &json!({ "name": "ci", "scope": "admin", "expires_in_s": null })).await;
    assert_eq!(forever.data()["expires"], json!(null));
    let listed = town.get(TOKENS).await;
    let expected = [&made, &forever].map(|made| {
        let mut shown = made.data().clone();
        shown.as_object_mut().unwrap().remove("token");
        shown
    });
    assert_eq!(listed.data(), &json!(expected));

    town.delete(&format!("{TOKENS}/ci")).await.data();
    let again = town.delete(&format!("{TOKENS}/ci")).await;
    let gone = "there is no user token \"ci\": it was revoked, has expired, or never was";
    assert_eq!(again.refusal(), ("not_found", gone));
    let wrong = bearer(&town, Method::GET, "/api/towns", &format!("{token}0")).await;
    let journal = town.get("/v1/towns/main/events").await;
    let told = journal.body.to_string();
    assert!(told.contains("town.token.issued") && told.contains("town.token.revoked"), "{told}");
    let (_, secret) = token.rsplit_once('_').unwrap();
    for said in [listed.body.to_string(), told, again.body.to_string(), wrong.body.to_string()] {
        assert!(!said.contains(secret), "{said}");
    }
    let secret = secret.to_owned();
    let (folder, _) = town.stop().await;
    for entry in std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path()) {
        let bytes = if entry.is_file() { std::fs::read(&entry).unwrap() } else { Vec::new() };
        assert!(!bytes.windows(secret.len()).any(|part| part == secret.as_bytes()), "{}", entry.display());
    }
}

#[tokio::test]
async fn what_is_no_name_scope_or_time_is_said_with_what_would_be() {
    let town = TestWorker::start().await;
    user(&town, "ann", "read").await;
    for (body, code, words) in [
        (json!({ "name": "Ann", "scope": "read" }), "conflict", "the name \"Ann\" is taken by another token"),
        (
            json!({ "name": "a b", "scope": "read" }),
            "bad_request",
            "cannot be a token's name: it has 1 to 64",
        ),
        (json!({ "name": "ben", "scope": "root" }), "bad_request", "use one of read, steer, admin"),
        (json!({ "name": "ben", "scope": "read", "expires_in_s": 0 }), "bad_request", "lasts from 1 s to"),
        (
            json!({ "name": "ben", "scope": "read", "expires_in_s": u64::MAX }),
            "bad_request",
            "lasts from 1 s",
        ),
        (json!({ "name": "ben", "scope": "read", "expires_in_s": "1d" }), "bad_request", "expected u64"),
        (json!({ "scope": "read" }), "bad_request", "name"),
    ] {
        let refused = town.post(TOKENS, &body).await;
        let (refused_code, sentence) = refused.refusal();
        assert!(refused_code == code && sentence.contains(words), "{body}: {refused:?}");
    }
    assert_eq!(town.get(TOKENS).await.data().as_array().unwrap().len(), 1);
    town.stop().await;
}

#[tokio::test]
async fn p17_a_revoked_token_ends_at_once_all_that_came_of_it() {
    let town = TestWorker::start().await;
    town.register("toast", false).await;
    let (token, other) = (user(&town, "ann", "steer").await, user(&town, "ben", "read").await);
    let cookie = log_in(&town, &token).await;
    let client = client_token(&town, &token).await;
    let (opened, unused) = (ticket(&town, &token).await, ticket(&town, &token).await);
    let stream = "/v1/agents/toast/stream";
    let mut streams = vec![
        ("a bearer's", open(&town, stream, Some(("authorization", &format!("Bearer {token}")))).await),
        ("a client token's", open(&town, stream, Some(("authorization", &format!("Bearer {client}")))).await),
        ("a ticket's", open(&town, &format!("{stream}?ticket={opened}"), None).await),
        ("a page's", open(&town, &format!("{stream}?view=html"), Some(("cookie", &cookie))).await),
        ("the fleet's", open(&town, "/v1/towns/main/stream?view=html", Some(("cookie", &cookie))).await),
    ];
    let mut others = open(&town, stream, Some(("authorization", &format!("Bearer {other}")))).await;
    let events = town.plain(Method::GET, "/v1/agents/toast/events").bearer_auth(&token);
    let events = events.header("accept", "text/event-stream").send().await.unwrap();
    assert_eq!(events.status(), StatusCode::OK);

    assert_eq!(town.delete(&format!("{TOKENS}/ann")).await.status, StatusCode::OK);
    for token in [&token, &client] {
        assert_eq!(bearer(&town, Method::GET, "/api/towns", token).await.refusal().0, "unauthenticated");
    }
    let with_cookie = town.plain(Method::GET, "/api/towns").header("cookie", &cookie);
    assert_eq!(answer(with_cookie).await.status, StatusCode::UNAUTHORIZED);
    let page = town.plain(Method::GET, "/agents/toast").header("cookie", &cookie).send().await.unwrap();
    assert_eq!(page.headers()["location"], "/login?next=/agents/toast");
    for (whose, stream) in &mut streams {
        assert_eq!(closed(stream).await, 4401, "{whose} stream");
    }
    in_time("the events end", events.bytes()).await.unwrap();
    let mut late = open(&town, &format!("{stream}?ticket={unused}"), None).await;
    assert_eq!(closed(&mut late).await, 4401, "a ticket that was not used");
    let again = town.plain(Method::POST, "/login").form(&[("token", &token)]).send().await.unwrap();
    assert_eq!(again.status(), StatusCode::UNAUTHORIZED);
    assert!(again.text().await.unwrap().contains("This token was revoked, or it has expired."));

    // Another's goes on: what is said now reaches it.
    town.register("nux", false).await;
    assert_eq!(bearer(&town, Method::GET, "/api/towns", &other).await.status, StatusCode::OK);
    others.close(None).await.unwrap();
    town.stop().await;
}

#[tokio::test]
async fn p17_a_token_ends_when_its_time_is_over_and_so_does_its_stream() {
    let town = TestWorker::start().await;
    town.register("toast", false).await;
    let made = town.post(TOKENS, &json!({ "name": "ann", "scope": "read", "expires_in_s": 3 })).await;
    let token = made.data()["token"].as_str().unwrap();
    let shown = format!("Bearer {token}");
    let mut stream = open(&town, "/v1/agents/toast/stream", Some(("authorization", &shown))).await;
    assert_eq!(closed(&mut stream).await, 4401);
    let late = bearer(&town, Method::GET, "/api/towns", token).await;
    assert_eq!(late.refusal(), ("unauthenticated", "the credentials were revoked, or have expired"));
    assert_eq!(town.get(TOKENS).await.data(), &json!([]));
    user(&town, "ann", "read").await;
    town.stop().await;
}

#[tokio::test]
async fn p17_tokens_and_their_sessions_outlive_a_restart_and_revoked_ones_do_not() {
    let town = TestWorker::start().await;
    let (stays, goes) = (user(&town, "ann", "read").await, user(&town, "ben", "read").await);
    let (cookie, gone) = (log_in(&town, &stays).await, log_in(&town, &goes).await);
    town.delete(&format!("{TOKENS}/ben")).await.data();
    let (folder, store) = town.stop().await;
    let town = TestWorker::start_in(folder, store, |config| config).await;
    for (token, cookie, status) in [(&stays, &cookie, 200), (&goes, &gone, 401)] {
        assert_eq!(bearer(&town, Method::GET, "/api/towns", token).await.status, status);
        let with_cookie = town.plain(Method::GET, "/api/towns").header("cookie", cookie);
        assert_eq!(answer(with_cookie).await.status, status);
    }
    // The name is free again, and its new token does not bring the old one's session back.
    user(&town, "ben", "read").await;
    let with_cookie = town.plain(Method::GET, "/api/towns").header("cookie", &gone);
    assert_eq!(answer(with_cookie).await.status, 401);
    town.stop().await;
}

#[tokio::test]
async fn the_journal_names_the_user_who_asked() {
    let town = TestWorker::start().await;
    let token = user(&town, "ann", "admin").await;
    town.register("toast", false).await;
    let start = "/api/towns/main/agents/toast/start";
    assert_eq!(bearer(&town, Method::POST, start, &token).await.status, StatusCode::OK);
    let body = json!({ "name": "ben", "scope": "read" });
    let made = town.plain(Method::POST, TOKENS).bearer_auth(&token).json(&body);
    assert_eq!(answer(made).await.status, StatusCode::CREATED);
    // A client token, which is shown in its place, is the same user's.
    let client = client_token(&town, &token).await;
    assert_eq!(bearer(&town, Method::DELETE, &format!("{TOKENS}/ben"), &client).await.status, StatusCode::OK);
    let journal = town.get("/v1/towns/main/events").await;
    let told: Vec<_> = journal.body["events"].as_array().unwrap().iter().map(told).collect();
    let expected = [
        ("town.token.issued", "operator"),
        ("town.agent.registered", "operator"),
        ("town.agent.started", "user ann"),
        ("town.token.issued", "user ann"),
        ("town.token.revoked", "user ann"),
    ];
    assert_eq!(told, expected);
    town.stop().await;
}

#[tokio::test]
async fn p17_a_page_of_one_who_may_only_read_has_no_prompt_and_takes_none() {
    let town = TestWorker::start().await;
    town.register("toast", false).await;
    let page = async |cookie: &str| {
        let page = town.plain(Method::GET, "/agents/toast").header("cookie", cookie).send().await.unwrap();
        assert_eq!(page.status(), StatusCode::OK);
        page.text().await.unwrap()
    };
    let form = async |cookie: &str, what: &str| {
        let form = town.plain(Method::POST, &format!("/agents/toast/{what}")).form(&[("text", "hello")]);
        let form = form.header("cookie", cookie).header("origin", town.url(""));
        answer(form.header("accept", "application/json")).await
    };
    let reads = log_in(&town, &user(&town, "ann", "read").await).await;
    let shown = page(&reads).await;
    assert!(!shown.contains("/agents/toast/prompt") && shown.contains("Sign out"), "{shown}");
    let refused = form(&reads, "prompt").await;
    assert_eq!(refused.refusal(), ("forbidden", "Your token may only read: this takes one of scope steer."));

    let steers = log_in(&town, &user(&town, "ben", "steer").await).await;
    assert!(page(&steers).await.contains("/agents/toast/prompt"));
    assert_eq!(form(&steers, "prompt").await.refusal().0, "agent_offline", "it was let through");
    let refused = form(&steers, "start").await;
    let words = "Your token does not reach this far: starting and stopping takes one of scope admin.";
    assert_eq!(refused.refusal(), ("forbidden", words));
    town.stop().await;
}

/// The token of a new user.
pub(crate) async fn user(town: &TestWorker, name: &str, scope: &str) -> String {
    let made = town.post(TOKENS, &json!({ "name": name, "scope": scope })).await;
    assert_eq!(made.status, StatusCode::CREATED, "{made:?}");
    made.data()["token"].as_str().unwrap().to_owned()
}

/// The cookie of a browser that signs in with a token.
pub(crate) async fn log_in(town: &TestWorker, token: &str) -> String {
    let request = town.plain(Method::POST, "/login").header("origin", town.url(""));
    let response = request.form(&[("token", token)]).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::SEE_OTHER);
    response.headers()["set-cookie"].to_str().unwrap().split(';').next().unwrap().to_owned()
}

/// What the town's relay is shown in place of a token.
pub(crate) async fn client_token(town: &TestWorker, token: &str) -> String {
    let answer = bearer(town, Method::GET, "/api/towns/main/relay", token).await;
    answer.data()["token"].as_str().unwrap().to_owned()
}

async fn ticket(town: &TestWorker, token: &str) -> String {
    bearer(town, Method::POST, TICKET, token).await.data()["ticket"].as_str().unwrap().to_owned()
}

async fn bearer(town: &TestWorker, method: Method, path: &str, token: &str) -> Answer {
    answer(town.plain(method, path).bearer_auth(token)).await
}

pub(crate) type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// A stream that has begun, or been refused.
async fn open(town: &TestWorker, path: &str, header: Option<(&str, &str)>) -> Socket {
    let url = town.url(path).replacen("http", "ws", 1);
    let mut request = ClientRequestBuilder::new(url.parse().unwrap());
    if let Some((name, value)) = header {
        request = request.with_header(name, value);
    }
    in_time("the upgrade", connect_async(request)).await.unwrap().0
}

/// The code that a stream is closed with.
pub(crate) async fn closed(socket: &mut Socket) -> u16 {
    loop {
        match in_time("the stream is closed", socket.next()).await {
            Some(Ok(Message::Close(Some(close)))) => return close.code.into(),
            Some(Ok(_)) => {}
            other => panic!("{other:?}"),
        }
    }
}

fn told(event: &Value) -> (&str, &str) {
    (event["type"].as_str().unwrap(), event["data"]["by"]["actor"].as_str().unwrap())
}
