use std::os::unix::fs::PermissionsExt as _;

use protocol::PermissionReply;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::*;
use crate::link::LinkState;

#[tokio::test]
async fn its_port_and_token_are_in_a_file_for_the_owner_alone_as_long_as_it_runs() {
    let served = Served::start().await;
    let file = served.dir.path().join("api.json");
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(served.file["port"], served.api.address().port());
    assert!(served.api.address().ip().is_loopback());
    served.api.close().await;
    assert!(!file.exists());
}

#[tokio::test]
async fn p17_every_route_wants_the_token() {
    let served = Served::start().await;
    for route in ["health", "metrics", "job/status", "job/prompt", "nowhere"] {
        for token in [None, Some("wrong")] {
            let mut request = client().get(served.url(route));
            if let Some(token) = token {
                request = request.bearer_auth(token);
            }
            let response = request.send().await.unwrap();
            assert_eq!(response.status(), 401, "{route}");
            assert_eq!(response.json::<Value>().await.unwrap()["error"], "UNAUTHENTICATED");
        }
    }
}

#[tokio::test]
async fn the_status_is_the_latest() {
    let served = Served::start().await;
    served.status.send_modify(|status| {
        status.state = "busy".to_owned();
        status.session_id = Some("ses_1".to_owned());
        status.outbox = OutboxDepth { events: 2, bytes: 300 };
        status.inflight = vec!["msg_1".to_owned()];
        (status.restarts, status.last_error) = (1, Some("it died".to_owned()));
    });
    let (status, body) = served.get("job/status").await;
    let expected = json!({
        "state": "busy", "sessionId": "ses_1", "inflight": ["msg_1"], "outbox": { "events": 2, "bytes": 300 },
        "restarts": 1, "lastError": "it died",
    });
    assert_eq!((status, body), (200, expected));
}

#[tokio::test]
async fn health_says_where_the_wrapper_is_and_what_it_speaks() {
    let served = Served::start().await;
    let health = |healthy: bool, state: &str, session: Value| {
        let version = env!("CARGO_PKG_VERSION");
        json!({
            "healthy": healthy, "state": state, "version": version, "protocol": 1, "sessionId": session, "link": "live",
        })
    };
    assert_eq!(served.get("health").await, (200, health(false, "starting", Value::Null)));
    for (state, healthy, word) in [
        (WrapperState::Idle, true, "idle"),
        (WrapperState::Active, true, "active"),
        (WrapperState::Draining, true, "draining"),
        (WrapperState::Stopping, false, "stopping"),
    ] {
        served.status.send_modify(|status| {
            (status.wrapper, status.session_id) = (Some(state), Some("ses_1".to_owned()));
        });
        assert_eq!(served.get("health").await, (200, health(healthy, word, json!("ses_1"))));
    }
}

#[tokio::test]
async fn its_numbers_are_there_as_text() {
    let served = Served::start().await;
    served.status.send_modify(|status| status.outbox.events = 3);
    let response = served.request(reqwest::Method::GET, "metrics").send().await.unwrap();
    assert_eq!(response.headers()["content-type"], "text/plain; version=0.0.4");
    let text = response.text().await.unwrap();
    assert!(text.contains("gastown_wrapper_outbox_events 3\n"), "{text}");
    assert!(text.contains("gastown_wrapper_link{state=\"live\"} 1\n"), "{text}");
}

#[tokio::test]
async fn a_prompt_is_accepted_with_its_message_id_and_its_turn() {
    let mut served = Served::start().await;
    let body = json!({ "text": "hi", "model": "kilo/auto", "delivery": "interrupt", "autoCommit": true, "tools": { "bash": false } });
    let accepted = Ok(ApiAnswer::Accepted { message_id: "msg_1".to_owned() });
    let (answer, ask) = served.post("job/prompt", &body, accepted).await;
    assert_eq!(answer, (202, json!({ "messageId": "msg_1" })));
    let ApiAsk::Prompt { prompt, turn } = ask else { panic!("{ask:?}") };
    assert_eq!((prompt.text.as_deref(), prompt.delivery), (Some("hi"), protocol::Delivery::Interrupt));
    let model = json!({ "providerID": "kilo", "modelID": "auto" });
    assert_eq!(json!(turn), json!({ "autoCommit": true, "tools": { "bash": false }, "model": model }));
}

#[tokio::test]
async fn each_route_gives_its_command() {
    let mut served = Served::start().await;
    let permission = Command::Permission {
        id: "p".to_owned(),
        reply: PermissionReply::Reject,
        message: Some("no".to_owned()),
    };
    let question =
        Command::Question(protocol::Answer { id: "q".to_owned(), answers: vec![vec!["a".to_owned()]] });
    for (route, body, command) in [
        (
            "command",
            json!({ "name": "init" }),
            Command::Slash { name: "init".to_owned(), arguments: String::new() },
        ),
        ("answer-permission", json!({ "id": "p", "reply": "reject", "message": "no" }), permission),
        ("answer-question", json!({ "id": "q", "answers": [["a"]] }), question),
        ("reject-question", json!({ "id": "q" }), Command::QuestionReject { id: "q".to_owned() }),
        ("abort", json!({}), Command::Abort),
    ] {
        let (answer, ask) = served.post(&format!("job/{route}"), &body, Ok(ApiAnswer::Done(None))).await;
        assert_eq!((answer, ask), ((200, json!({ "ok": true })), ApiAsk::Command(command)));
    }
}

/// Every route of §10, its method, and a body that it takes.
const ROUTES: &[(&str, &str, &str)] = &[
    ("GET", "health", ""),
    ("GET", "metrics", ""),
    ("GET", "job/status", ""),
    ("POST", "job/prompt", r#"{"text":"hi"}"#),
    ("POST", "job/command", r#"{"name":"init"}"#),
    ("POST", "job/answer-permission", r#"{"id":"p","reply":"once"}"#),
    ("POST", "job/answer-question", r#"{"id":"q","answers":[]}"#),
    ("POST", "job/reject-question", r#"{"id":"q"}"#),
    ("POST", "job/abort", ""),
];

#[tokio::test]
async fn every_route_answers_every_error_with_its_status_and_word() {
    let mut served = Served::start().await;
    for (method, route, body) in ROUTES {
        let method: reqwest::Method = method.parse().unwrap();
        let request = |served: &Served| served.request(method.clone(), route).body(*body);
        let refused = |status: u16, (was, answer): (u16, Value), word: &str| {
            assert_eq!((was, &answer["error"]), (status, &json!(word)), "{method} {route}");
            assert!(answer["message"].as_str().is_some_and(|message| !message.is_empty()), "{route}");
        };
        let other = if method == reqwest::Method::GET { reqwest::Method::POST } else { reqwest::Method::GET };
        refused(405, answer(served.request(other, route)).await, "METHOD_NOT_ALLOWED");
        refused(404, answer(served.request(method.clone(), &format!("{route}/more"))).await, "NOT_FOUND");
        let odd = request(&served).header("X-Town-Config", r#"{"colour":"blue"}"#);
        refused(400, answer(odd).await, "INVALID_REQUEST");
        if method == reqwest::Method::GET {
            continue;
        }
        if !body.is_empty() {
            refused(
                400,
                answer(served.request(method.clone(), route).body("no JSON")).await,
                "INVALID_REQUEST",
            );
            let long = format!(r#"{{"text":"{}"}}"#, "x".repeat(protocol::limits::HTTP_BODY_BYTES));
            refused(400, answer(served.request(method.clone(), route).body(long)).await, "INVALID_REQUEST");
        }
        for (error, status, word) in [
            (ApiError::InvalidRequest("x".to_owned()), 400, "INVALID_REQUEST"),
            (ApiError::NoJob("x".to_owned()), 400, "NO_JOB"),
            (ApiError::NotFound("x".to_owned()), 404, "NOT_FOUND"),
            (ApiError::Conflict("x".to_owned()), 409, "JOB_CONFLICT"),
            (ApiError::TooMany("x".to_owned()), 429, "RATE_LIMITED"),
            (ApiError::Unsupported("x".to_owned()), 501, "UNSUPPORTED"),
            (ApiError::AgentRefused("x".to_owned()), 502, "AGENT_ERROR"),
            (ApiError::AgentUnreachable("x".to_owned()), 502, "AGENT_UNREACHABLE"),
            (ApiError::Internal("x".to_owned()), 500, "INTERNAL"),
        ] {
            let call = answer(request(&served));
            let requests = &mut served.requests;
            let refusal = async { requests.recv().await.unwrap().answer.send(Err(error)).unwrap() };
            refused(status, tokio::join!(call, refusal).0, word);
        }
    }
    assert_eq!(served.requests.len(), 0);
}

#[tokio::test]
async fn a_config_comes_before_what_is_asked_and_with_any_call() {
    let mut served = Served::start().await;
    for (method, route, body) in ROUTES {
        let request = served.request(method.parse().unwrap(), route).body(*body);
        let call = request.header("X-Town-Config", r#"{"variant":"high"}"#).send();
        let requests = &mut served.requests;
        let asked = async {
            let ApiRequest { ask, answer } = requests.recv().await.unwrap();
            let ApiAsk::Configure(config) = ask else { panic!("{ask:?}") };
            assert_eq!(config.turn.variant.as_deref(), Some("high"));
            answer.send(Ok(ApiAnswer::Done(None))).unwrap();
            if *method == "POST" {
                requests.recv().await.unwrap().answer.send(Ok(ApiAnswer::Done(None))).unwrap();
            }
        };
        assert_eq!(tokio::join!(call, asked).0.unwrap().status(), 200, "{route}");
    }
}

#[tokio::test]
async fn what_is_wrong_does_not_reach_the_agent() {
    let served = Served::start().await;
    for (route, body) in [
        ("prompt", "{}"),
        ("prompt", "{"),
        ("prompt", r#"{"text":"x","model":"nameless"}"#),
        ("answer-permission", r#"{"id":"p","reply":"perhaps"}"#),
        ("command", "[]"),
    ] {
        let request = served.request(reqwest::Method::POST, &format!("job/{route}")).body(body);
        assert_eq!(answer(request).await.1["error"], "INVALID_REQUEST", "{route} {body}");
    }
    assert_eq!(served.get("nowhere").await.0, 404);
    assert_eq!(served.get("job/abort").await.0, 405);
    assert_eq!(served.requests.len(), 0);
}

#[tokio::test]
async fn a_wrapper_that_ends_leaves_nobody_waiting() {
    let Served { api, file, status: _status, requests, dir: _dir } = Served::start().await;
    drop(requests);
    let url = format!("http://{}/job/abort", api.address());
    let request = client().post(url).bearer_auth(file["token"].as_str().unwrap());
    assert_eq!(answer(request).await.0, 500);
}

#[tokio::test(start_paused = true)]
async fn p17_strangers_who_say_nothing_keep_nobody_out() {
    let served = Served::start().await;
    let mut silent = Vec::new();
    for _ in 0..serve::CONNECTIONS {
        silent.push(TcpStream::connect(served.api.address()).await.unwrap());
    }
    // Half a header is none either.
    silent[0].write_all(b"GET /health HTTP/1.1\r\nauthor").await.unwrap();
    assert_eq!(served.get("health").await.0, 200);
    for mut stream in silent {
        let mut said = Vec::new();
        // It is closed, with a word or without.
        let _ = stream.read_to_end(&mut said).await;
        assert!(!said.starts_with(b"HTTP/1.1 200"));
    }
}

struct Served {
    api: Api,
    dir: tempfile::TempDir,
    file: Value,
    status: watch::Sender<JobStatus>,
    requests: mpsc::Receiver<ApiRequest>,
}

impl Served {
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (status, shown) = watch::channel(JobStatus::default());
        let (sender, requests) = mpsc::channel(4);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let api = Api::start(
            listener,
            dir.path(),
            shown,
            LinkHandle::still(LinkState::Live),
            sender,
            &LogTail::new(),
        )
        .unwrap();
        let file = serde_json::from_slice(&std::fs::read(dir.path().join("api.json")).unwrap()).unwrap();
        Self { api, dir, file, status, requests }
    }

    fn url(&self, route: &str) -> String {
        format!("http://{}/{route}", self.api.address())
    }

    fn request(&self, method: reqwest::Method, route: &str) -> reqwest::RequestBuilder {
        client().request(method, self.url(route)).bearer_auth(self.file["token"].as_str().unwrap())
    }

    async fn get(&self, route: &str) -> (u16, Value) {
        answer(self.request(reqwest::Method::GET, route)).await
    }

    /// Posts, and answers what the API then asks.
    async fn post(
        &mut self,
        route: &str,
        body: &Value,
        with: Result<ApiAnswer, ApiError>,
    ) -> ((u16, Value), ApiAsk) {
        let request = self.request(reqwest::Method::POST, route).json(body);
        let asked = async {
            let ApiRequest { ask, answer } = self.requests.recv().await.unwrap();
            answer.send(with).unwrap();
            ask
        };
        tokio::join!(answer(request), asked)
    }
}

async fn answer(request: reqwest::RequestBuilder) -> (u16, Value) {
    let response = request.send().await.unwrap();
    (response.status().as_u16(), response.json().await.unwrap())
}

fn client() -> reqwest::Client {
    // Another test may have been first.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::new()
}
