//! Who is let in where: every route × every credential.

use gastown_relay::{
    auth::{Capability, Claims, Grant, Lease, LogScope, Secret, ServiceClaims},
    server::{Needs, ROUTES, RelayConfig, Route, now},
};
use protocol::Timestamp;
use serde_json::json;
use std::time::Duration;
use store::{MemoryStore, RetentionPolicy};

use crate::support::{Server, Socket, http, within};

/// A credential, what it may do to which agent (`*` for every log), and whether it reaches every log.
type Row = (&'static str, &'static [(Capability, &'static str)], bool);

/// What each credential is good for, of the logs `agent/a1`, `agent/a2` and `town/main`.
#[rustfmt::skip]
const CREDENTIALS: &[Row] = &[
    ("none", &[], false),
    ("garbage", &[], false),
    ("expired", &[], false),
    ("another relay's", &[], false),
    ("wrapper a1", &[(Capability::Read, "a1"), (Capability::Ingest, "a1")], false),
    ("share a1", &[(Capability::Read, "a1")], false),
    ("ticket a1", &[(Capability::Read, "a1")], false),
    ("service", &[(Capability::Read, "*"), (Capability::Steer, "*"), (Capability::Admin, "*")], true),
];

#[tokio::test]
async fn p17_every_route_lets_in_exactly_whom_the_table_says() {
    let server = Server::start().await;
    for route in ROUTES {
        for (name, rights, everywhere) in CREDENTIALS {
            for agent in ["a1", "a2"] {
                server.append(&format!("agent/{agent}"), &["1"]).await;
                server.append("town/main", &["1"]).await;
                let has = |capability, id: &str| {
                    rights.iter().any(|(c, on)| *c == capability && (*on == id || *on == "*"))
                };
                let id = if route.path.contains("{town}") { "main" } else { agent };
                let expected = match route.needs {
                    Needs::Nothing => true,
                    Needs::OnLog(capability) => has(capability, id),
                    Needs::OnSomeLog(capability) => rights.iter().any(|(c, _)| *c == capability),
                    Needs::OnEveryLog(capability) => *everywhere && has(capability, "*"),
                };
                let token = server.credential(name).await;
                let (let_in, code) = server.knock(route, agent, token.as_ref()).await;
                let what = format!("{} {} of {agent} with {name}: {code}", route.method, route.path);
                assert_eq!(let_in, expected, "{what}");
                assert!(let_in || matches!(code, 401 | 403), "{what}");
            }
        }
    }
}

#[tokio::test]
async fn p17_what_is_no_route_is_not_there() {
    let server = Server::start().await;
    for path in ["/", "/v1", "/v1/agents", "/v1/agents/a1", "/v1/agents/a1/files", "/v1/towns/main/commands"]
    {
        let status = server.get(path).await.status().as_u16();
        assert!(matches!(status, 404 | 405), "{path}: {status}");
    }
}

#[tokio::test]
async fn p17_a_foreign_host_or_origin_is_refused_everywhere() {
    let server = Server::start().await;
    server.append("agent/a1", &["1"]).await;
    let own = format!("http://localhost:{}", server.address.port());
    for (header, value, allowed) in [
        ("origin", "http://evil.example", false),
        ("origin", "null", false),
        ("origin", "http://localhost.evil.example", false),
        ("origin", own.as_str(), true),
        ("host", "evil.example", false),
        ("host", "127.0.0.1.evil.example:80", false),
        ("host", "localhost", true),
        ("host", "LOCALHOST:1234", true),
    ] {
        for accept in ["application/json", "text/event-stream"] {
            let get = http().get(server.http("/v1/agents/a1/events")).bearer_auth(server.operator().expose());
            let answer = within(get.header(header, value).header("accept", accept).send()).await.unwrap();
            assert_eq!(answer.status() == 200, allowed, "{header}: {value}");
        }
        let mut upgrade = server.upgrade("/v1/agents/a1/stream");
        let bearer = format!("Bearer {}", server.operator().expose()).parse().unwrap();
        upgrade.headers_mut().insert("authorization", bearer);
        upgrade.headers_mut().insert(header, value.parse().unwrap());
        let mut socket = Socket::connect(upgrade).await;
        match allowed {
            true => assert_eq!(socket.next().await["type"], "hello"),
            false => assert_eq!(socket.close_code().await, 4403, "{header}: {value}"),
        }
    }
}

#[tokio::test]
async fn p18_a_ticket_opens_one_stream() {
    let server = Server::start().await;
    server.append("agent/a1", &["1"]).await;
    let ticket = server.credential("ticket a1").await.unwrap();
    let path = format!("/v1/agents/a1/stream?ticket={}", ticket.expose());
    let mut first = server.stream_as(&path, None).await;
    first.until("live").await;
    let mut second = server.stream_as(&path, None).await;
    let (said, code) = second.closed().await;
    assert_eq!((&said[0]["code"], code), (&json!("unauthenticated"), 4401));
}

#[tokio::test]
async fn p18_a_ticket_is_for_streams_only() {
    let server = Server::start().await;
    server.append("agent/a1", &["1"]).await;
    let ticket = server.credential("ticket a1").await.unwrap();
    let view = http().get(server.http(&format!("/v1/agents/a1/view?ticket={}", ticket.expose())));
    assert_eq!(within(view.send()).await.unwrap().status(), 401);
    let mut stream = server.stream_as(&format!("/v1/stream?ticket={}", ticket.expose()), None).await;
    stream.next().await;
    stream.send(&json!({"type": "subscribe", "log": "agent/a2"})).await;
    assert_eq!(stream.next().await["code"], "forbidden");
    stream.send(&json!({"type": "command", "id": "c1", "agent": "a1", "command": {"type": "ping"}})).await;
    assert_eq!(stream.next().await["error"]["code"], "forbidden");
    stream.send(&json!({"type": "subscribe", "log": "agent/a1"})).await;
    assert_eq!(stream.next().await["type"], "subscribed");
}

#[tokio::test]
async fn metrics_count_what_passes_and_may_be_opened() {
    let config = RelayConfig::default().with_open_metrics();
    let server = Server::with(MemoryStore::new(RetentionPolicy::default()), config).await;
    server.append("agent/a1", &["1", "2"]).await;
    let mut viewer = server.stream("/v1/agents/a1/stream").await;
    viewer.until("live").await;
    let text = within(http().get(server.http("/metrics")).send()).await.unwrap().text().await.unwrap();
    for line in
        ["gastown_relay_events_in_total 2", "gastown_relay_events_out_total 2", "gastown_relay_viewers 1"]
    {
        assert!(text.lines().any(|found| found == line), "{line} in {text}");
    }
}

#[tokio::test]
async fn p19_no_answer_repeats_a_credential() {
    let server = Server::start().await;
    let canary = "canary-of-a-token";
    for path in ["/v1/agents/a1/view", "/v1/agents/a1/events?ticket=canary-of-a-token"] {
        let get = http().get(server.http(path)).bearer_auth(canary).header("idempotency-key", canary);
        let answer = within(get.send()).await.unwrap();
        assert_eq!(answer.status(), 401);
        assert_eq!(answer.headers()["content-type"], "application/problem+json");
        let text = answer.text().await.unwrap();
        assert!(!text.contains(canary), "{text}");
    }
}

impl Server {
    async fn credential(&self, name: &str) -> Option<Secret> {
        let (town, log) = ("main".parse().unwrap(), "agent/a1".parse().unwrap());
        let hour = now().after(Duration::from_secs(3600));
        let claims = match name {
            "none" => return None,
            "garbage" => return Some(Secret::new("garbage")),
            "another relay's" => return Some(gastown_relay::auth::Keys::random().sign(&service(hour))),
            "expired" => service(Timestamp::from_unix_ms(0)),
            "service" => service(hour),
            "wrapper a1" => return Some(self.wrapper_token("a1", 1)),
            "share a1" => return Some(self.share("a1", "s1").await),
            "ticket a1" => {
                let issuer = Grant {
                    subject: "operator".into(),
                    town,
                    logs: LogScope::All,
                    capabilities: [Capability::Read].into(),
                    generation: None,
                    lease: Lease::default(),
                };
                let read = [Capability::Read].into();
                let ticket = self.tickets.issue(&self.keys, &issuer, [log].into(), &read, None, now());
                return Some(ticket.unwrap());
            }
            other => panic!("no credential {other}"),
        };
        Some(self.keys.sign(&claims))
    }

    /// Asks for a route: was it let in, and with which status (for a WebSocket: close code, less 4000)?
    async fn knock(&self, route: &Route, agent: &str, token: Option<&Secret>) -> (bool, u16) {
        let path = route.path.replace("{agent}", agent).replace("{town}", "main");
        if path.ends_with("/stream") || path.ends_with("/ingest") {
            let mut socket = self.stream_as(&path, token).await;
            if path.ends_with("/ingest") {
                socket.send(&json!({"type": "heartbeat"})).await;
                let code = socket.close_code().await;
                return (code == 4400, code - 4000);
            }
            let first = socket.next().await;
            return match first["type"].as_str() {
                Some("hello") => (true, 0),
                _ => (false, socket.close_code().await - 4000),
            };
        }
        let method = route.method.parse::<reqwest::Method>().unwrap();
        let mut request = http().request(method, self.http(&path));
        if let Some(token) = token {
            request = request.bearer_auth(token.expose());
        }
        if route.method == "POST" {
            request = request.json(&json!({"type": "ping", "events": []}));
        }
        let status = within(request.send()).await.unwrap().status().as_u16();
        (!matches!(status, 401 | 403), status)
    }
}

fn service(expires: Timestamp) -> Claims {
    Claims::Service(ServiceClaims { town: "main".parse().unwrap(), service: "test".into(), expires })
}
