//! The API of an agent server with one session, its sub-agent and a stranger, all of which wait for something.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use axum::{
    Json, Router,
    body::{Body, Bytes},
    extract::{Request, State},
    http::{StatusCode, header},
    response::{IntoResponse as _, Response},
};
use base64::Engine as _;
use serde_json::{Value, json};
use tokio::sync::{Notify, mpsc};

/// The session that the server makes for whoever asks.
pub(crate) const ROOT: &str = "ses_root";

/// A call as it came.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) login: String,
    pub(crate) directory: String,
    /// What else its query says.
    query: BTreeMap<String, String>,
    pub(crate) body: Value,
}

pub(crate) struct Fake {
    pub(crate) url: String,
    shared: Arc<Shared>,
    server: tokio::task::JoinHandle<()>,
}

#[derive(Default)]
struct Shared {
    directory: String,
    calls: Mutex<Vec<Call>>,
    stream: Mutex<Option<mpsc::Sender<String>>>,
    refuses: AtomicBool,
    /// The root session was deleted.
    is_deleted: AtomicBool,
    /// Messages of the root session; one if it is 0.
    messages: AtomicUsize,
    /// Slash commands that are to fail late do so now.
    fails: Notify,
    /// Calls whose path begins so are never answered.
    hangs: Mutex<Option<&'static str>>,
}

impl Fake {
    pub(crate) async fn start(work: &Path) -> Self {
        let directory = work.canonicalize().unwrap().display().to_string();
        let shared = Arc::new(Shared { directory, ..Shared::default() });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new().fallback(answer).with_state(shared.clone());
        let server = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { url, shared, server }
    }

    /// Says this on the newest event stream.
    pub(crate) fn say(&self, event: &str) {
        let stream = self.shared.stream.lock().unwrap();
        stream.as_ref().expect("somebody follows").try_send(event.to_owned()).unwrap();
    }

    /// Ends the newest event stream.
    pub(crate) fn break_stream(&self) {
        self.shared.stream.lock().unwrap().take().expect("somebody follows");
    }

    /// Is as a dead server is: no stream, no answers.
    pub(crate) fn refuse(&self) {
        self.shared.refuses.store(true, Ordering::SeqCst);
        self.break_stream();
    }

    /// Takes calls whose path begins so and never answers them; its stream stays open and silent.
    pub(crate) fn hang(&self, path: &'static str) {
        *self.shared.hangs.lock().unwrap() = Some(path);
    }

    /// Refuses a slash command with the argument `late` that it took.
    pub(crate) fn fail_late(&self) {
        self.shared.fails.notify_one();
    }

    /// Has its root session no more.
    pub(crate) fn delete_session(&self) {
        self.shared.is_deleted.store(true, Ordering::SeqCst);
    }

    /// Has so many messages in its root session: `msg_0` is the oldest.
    pub(crate) fn has_messages(&self, count: usize) {
        self.shared.messages.store(count, Ordering::SeqCst);
    }

    pub(crate) fn calls(&self) -> Vec<Call> {
        self.shared.calls.lock().unwrap().clone()
    }

    pub(crate) fn forget_calls(&self) {
        self.shared.calls.lock().unwrap().clear();
    }

    /// Path and body of the calls that change something.
    pub(crate) fn posts(&self) -> Vec<(String, Value)> {
        let calls = self.calls().into_iter().filter(|call| call.method == "POST");
        calls.map(|call| (call.path, call.body)).collect()
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn answer(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    if shared.refuses.load(Ordering::SeqCst) {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    let call = read(request).await;
    let hangs = *shared.hangs.lock().unwrap();
    if hangs.is_some_and(|path| call.path.starts_with(path)) {
        std::future::pending::<()>().await;
    }
    shared.calls.lock().unwrap().push(call.clone());
    let segments: Vec<&str> = call.path.trim_start_matches('/').split('/').collect();
    if shared.is_deleted.load(Ordering::SeqCst) && segments.starts_with(&["session", ROOT]) {
        return not_found();
    }
    let messages = shared.messages.load(Ordering::SeqCst);
    let answer = match (call.method.as_str(), segments.as_slice()) {
        ("GET", ["event"]) => return events(&shared),
        ("GET", ["global", "health"]) => json!({ "healthy": true, "version": "9.9.9" }),
        ("POST", ["session"]) | ("GET", ["session", ROOT]) => {
            json!({ "id": ROOT, "directory": shared.directory })
        }
        ("GET", ["session", "status"]) => json!({ ROOT: { "type": "busy" } }),
        ("GET", ["session", ROOT, "children"]) => json!([{ "id": "ses_child", "parentID": ROOT }]),
        ("GET", ["session", _, "children"]) => json!([]),
        ("GET", ["session", ROOT, "message"]) if messages > 0 => return page(messages, &call.query),
        ("GET", ["session", session, "message"]) => {
            json!([{ "info": { "sessionID": session }, "parts": [] }])
        }
        ("GET", ["session", ROOT, "message", "msg_1"]) => json!({ "info": { "id": "msg_1" }, "parts": [] }),
        ("GET", ["command"]) => json!([{ "name": "init" }]),
        ("GET", ["permission"]) => asks("per_1", "ses_child"),
        ("GET", ["question"]) => asks("que_1", ROOT),
        ("GET", ["network"]) => asks("que_net", ROOT),
        ("POST", ["session", ROOT, "command"]) if call.body["arguments"] == "late" => {
            shared.fails.notified().await;
            let refusal = json!({ "name": "UnknownError", "data": { "message": "exit code 7" } });
            return (StatusCode::INTERNAL_SERVER_ERROR, Json(refusal)).into_response();
        }
        ("POST", ["session", ROOT, "prompt_async"]) if call.body["parts"][0]["text"] == "refuse me" => {
            let refusal = json!({ "name": "BadRequest", "data": { "message": "too rude" } });
            return (StatusCode::BAD_REQUEST, Json(refusal)).into_response();
        }
        ("POST", ["session", ROOT, "prompt_async"]) => return StatusCode::NO_CONTENT.into_response(),
        ("POST", ["commit-message"]) => json!({ "message": "feat: a line" }),
        ("POST", ["session", ROOT, "abort" | "revert" | "command" | "summarize"])
        | ("POST", ["permission", "per_1", "reply"])
        | ("POST", ["question", "que_1", "reply" | "reject"])
        | ("POST", ["network", "que_net", "reject"]) => json!(true),
        _ => return not_found(),
    };
    Json(answer).into_response()
}

fn not_found() -> Response {
    let missing = json!({ "name": "NotFoundError", "data": { "message": "not found" } });
    (StatusCode::NOT_FOUND, Json(missing)).into_response()
}

/// The newest messages before a cursor, and the cursor of what is older.
fn page(count: usize, query: &BTreeMap<String, String>) -> Response {
    let number = |name: &str| query.get(name).map(|number| number.parse::<usize>().unwrap());
    let end = number("before").unwrap_or(count);
    let begin = number("limit").map_or(0, |limit| end.saturating_sub(limit));
    let message =
        |number| json!({ "info": { "id": format!("msg_{number}"), "sessionID": ROOT }, "parts": [] });
    let messages = Json((begin..end).map(message).collect::<Vec<_>>());
    match begin {
        0 => messages.into_response(),
        begin => ([("x-next-cursor", begin.to_string())], messages).into_response(),
    }
}

/// One of the agent's and one of a session that is none of its business.
fn asks(id: &str, session: &str) -> Value {
    json!([{ "id": id, "sessionID": session }, { "id": "other", "sessionID": "ses_stranger" }])
}

async fn read(request: Request) -> Call {
    let (head, body) = request.into_parts();
    let login =
        head.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let login = login.strip_prefix("Basic ").unwrap_or_default();
    let login = base64::engine::general_purpose::STANDARD.decode(login).unwrap_or_default();
    let url = reqwest::Url::parse(&format!("http://fake{}", head.uri)).unwrap();
    let mut query: BTreeMap<String, String> =
        url.query_pairs().map(|(name, value)| (name.into_owned(), value.into_owned())).collect();
    let body: Bytes = axum::body::to_bytes(body, 1 << 20).await.unwrap();
    Call {
        method: head.method.to_string(),
        path: head.uri.path().to_owned(),
        login: String::from_utf8(login).unwrap(),
        directory: query.remove("directory").unwrap_or_default(),
        query,
        body: serde_json::from_slice(&body).unwrap_or_default(),
    }
}

fn events(shared: &Shared) -> Response {
    let (sender, receiver) = mpsc::channel::<String>(64);
    sender.try_send(r#"{"type":"server.connected","properties":{}}"#.to_owned()).unwrap();
    *shared.stream.lock().unwrap() = Some(sender);
    let stream = futures_util::stream::unfold(receiver, |mut receiver| async move {
        let event = receiver.recv().await?;
        Some((Ok::<_, Infallible>(format!("data: {event}\n\n")), receiver))
    });
    ([(header::CONTENT_TYPE, "text/event-stream")], Body::from_stream(stream)).into_response()
}
