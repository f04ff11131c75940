//! Who is let in where: every route × every credential.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use gastown_relay::{
    auth::{Capability, Claims, ClientClaims, Grant, Keys, LogScope, Secret, ServiceClaims, ShareClaims},
    server::{ROUTES, now},
};
use protocol::Timestamp;
use serde_json::json;
use tokio::{sync::Barrier, task::JoinSet};

use crate::support::{Server, Socket, http, within};

/// Every credential that there is, good and bad, with the letter that stands for it in the table.
#[rustfmt::skip]
const CREDENTIALS: &[(char, &str)] = &[
    ('-', "nothing"), ('g', "garbage"), ('k', "a service token of another key"), ('z', "an expired service token"),
    ('w', "a wrapper token of a1"), ('x', "a wrapper token of a2"),
    ('s', "a share link of a1"), ('q', "a share link that was never issued"),
    ('t', "a ticket of a1"), ('v', "a ticket of a2"), ('u', "a used ticket"), ('e', "an expired ticket"),
    ('o', "a ticket of another origin"),
    ('r', "a client that reads"), ('m', "a client that steers"), ('a', "a client that administers"),
    ('S', "a service token"), ('f', "a service token of another town"),
];

/// Who is let in where; what is asked of `a1`, or of the town. On `/v1/stream` and `/v1/search` the credential has to reach
/// some log: which one, is compared with what is asked for. Agents' names are those of the key, not of a town.
#[rustfmt::skip]
const TABLE: &[(&str, &str, &str)] = &[
    ("GET",    "/v1/stream",                    "wx s tv rma Sf"),
    ("GET",    "/v1/ingest",                    "wx"),
    ("GET",    "/v1/search",                    "wx rma Sf"),
    ("GET",    "/v1/agents/{agent}/stream",     "w s t rma Sf"),
    ("GET",    "/v1/agents/{agent}/events",     "w s t rma Sf"),
    ("GET",    "/v1/agents/{agent}/view",       "w rma Sf"),
    ("GET",    "/v1/agents/{agent}/presence",   "w rma Sf"),
    ("POST",   "/v1/agents/{agent}/events",     "a Sf"),
    ("POST",   "/v1/agents/{agent}/commands",   "ma Sf"),
    ("POST",   "/v1/agents/{agent}/config",     "a Sf"),
    ("DELETE", "/v1/agents/{agent}",            "a Sf"),
    ("GET",    "/v1/towns/{town}/stream",       "rma S"),
    ("GET",    "/v1/towns/{town}/events",       "rma S"),
    ("GET",    "/v1/towns/{town}/view",         "rma S"),
    ("POST",   "/v1/towns/{town}/events",       "a S"),
    ("DELETE", "/v1/towns/{town}",              "a S"),
    ("GET",    "/healthz",                      "-gkz wx sq tvueo rma Sf"),
    ("GET",    "/readyz",                       "-gkz wx sq tvueo rma Sf"),
    ("GET",    "/metrics",                      "rma Sf"),
];

#[test]
fn p17_every_route_has_a_row_and_every_row_a_route() {
    let routes = ROUTES.iter().map(|route| (route.method, route.path)).collect::<BTreeSet<_>>();
    let rows = TABLE.iter().map(|(method, path, _)| (*method, *path)).collect::<BTreeSet<_>>();
    assert_eq!(routes, rows);
    assert_eq!(routes.len(), ROUTES.len(), "no route is there twice");
}

#[tokio::test]
async fn p17_every_route_lets_in_exactly_whom_the_table_says() {
    let server = Server::start().await;
    let mut wrong = Vec::new();
    for (method, path, let_in) in TABLE {
        for (letter, name) in CREDENTIALS {
            server.append("agent/a1", &["1"]).await;
            server.append("town/main", &["1"]).await;
            let (token, is_in_query) = server.credential(*letter).await;
            let (was_let_in, code) = server.knock(method, path, token.as_ref(), is_in_query).await;
            if was_let_in != let_in.contains(*letter) || !(was_let_in || matches!(code, 401 | 403)) {
                wrong.push(format!("{method} {path} with {name}: let in: {was_let_in}, {code}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
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

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn p18_of_100_streams_that_are_opened_with_one_ticket_at_once_one_is() {
    let server = Server::start().await;
    server.append("agent/a1", &["1"]).await;
    let ticket = server.ticket("a1", None, now());
    let server = Arc::new(server);
    let start = Arc::new(Barrier::new(100));
    let mut tries = JoinSet::new();
    for n in 0..100 {
        let (server, start, ticket) = (server.clone(), start.clone(), ticket.expose().to_owned());
        tries.spawn(async move {
            start.wait().await;
            // By turns as a WebSocket and as server-sent events: it is one ticket for both.
            if n % 2 == 0 {
                let path = format!("/v1/agents/a1/stream?ticket={ticket}");
                server.stream_as(&path, None).await.next().await["type"] == "hello"
            } else {
                let get = http().get(server.http(&format!("/v1/agents/a1/events?ticket={ticket}")));
                within(get.header("accept", "text/event-stream").send()).await.unwrap().status() == 200
            }
        });
    }
    let opened = within(tries.join_all()).await;
    assert_eq!(opened.iter().filter(|opened| **opened).count(), 1);
}

#[tokio::test]
async fn p18_a_ticket_is_for_streams_only() {
    let server = Server::start().await;
    server.append("agent/a1", &["1"]).await;
    let ticket = server.ticket("a1", None, now());
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
    /// The credential of this letter, and whether it stands in the query, as those of browsers do.
    async fn credential(&self, letter: char) -> (Option<Secret>, bool) {
        let hour = now().after(Duration::from_secs(3600));
        let client = |capabilities: &[Capability]| {
            let (town, capabilities) = ("main".parse().unwrap(), capabilities.iter().copied().collect());
            let subject = "test".to_owned();
            Claims::Client(ClientClaims { town, subject, capabilities, user: None, expires: hour })
        };
        let claims = match letter {
            '-' => return (None, false),
            'g' => return (Some(Secret::new("garbage")), false),
            'k' => return (Some(Keys::random().sign(&service("main", hour))), false),
            'w' => return (Some(self.wrapper_token("a1", 1)), false),
            'x' => return (Some(self.wrapper_token("a2", 1)), false),
            's' => return (Some(self.share("a1", "s1").await), true),
            't' => return (Some(self.ticket("a1", None, now())), true),
            'v' => return (Some(self.ticket("a2", None, now())), true),
            'e' => return (Some(self.ticket("a1", None, Timestamp::from_unix_ms(0))), true),
            'o' => return (Some(self.ticket("a1", Some("http://localhost:1"), now())), true),
            'u' => {
                let ticket = self.ticket("a1", None, now());
                let path = format!("/v1/agents/a1/stream?ticket={}", ticket.expose());
                self.stream_as(&path, None).await.until("live").await;
                return (Some(ticket), true);
            }
            'q' => {
                let (town, log) = ("main".parse().unwrap(), "agent/a1".parse().unwrap());
                let claims = ShareClaims { jti: "never".to_owned(), town, log, expires: hour };
                return (Some(self.keys.sign(&Claims::Share(claims))), true);
            }
            'z' => service("main", Timestamp::from_unix_ms(0)),
            'r' => client(&[Capability::Read]),
            'm' => client(&[Capability::Read, Capability::Steer]),
            'a' => client(&[Capability::Read, Capability::Steer, Capability::Admin]),
            'S' => service("main", hour),
            'f' => service("other", hour),
            other => panic!("no credential {other}"),
        };
        (Some(self.keys.sign(&claims)), false)
    }

    /// A ticket to read an agent, made at this time for a page of this origin.
    pub(crate) fn ticket(&self, agent: &str, origin: Option<&str>, at: Timestamp) -> Secret {
        let issuer = Grant::new("operator", "main".parse().unwrap(), LogScope::All, [Capability::Read]);
        let (log, read) = (format!("agent/{agent}").parse().unwrap(), [Capability::Read].into());
        let ticket =
            self.tickets.issue(&self.keys, &issuer, [log].into(), &read, origin.map(str::to_owned), at);
        ticket.unwrap()
    }

    /// Asks for a route: was it let in, and with which status (for a WebSocket: close code, less 4000)?
    async fn knock(
        &self,
        method: &str,
        path: &str,
        token: Option<&Secret>,
        is_in_query: bool,
    ) -> (bool, u16) {
        let mut path = path.replace("{agent}", "a1").replace("{town}", "main");
        let is_socket = path.ends_with("/stream") || path.ends_with("/ingest");
        let is_ingest = path.ends_with("/ingest");
        if path.ends_with("/search") {
            path.push_str("?q=x");
        }
        let mut bearer = token;
        if let Some(ticket) = token.filter(|_| is_in_query) {
            path.push(if path.contains('?') { '&' } else { '?' });
            path.push_str(&format!("ticket={}", ticket.expose()));
            bearer = None;
        }
        if is_socket {
            let mut socket = self.stream_as(&path, bearer).await;
            if is_ingest {
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
        let mut request = http().request(method.parse().unwrap(), self.http(&path));
        if let Some(token) = bearer {
            request = request.bearer_auth(token.expose());
        }
        if method == "POST" {
            request = request.json(&json!({"type": "ping", "events": []}));
        }
        let status = within(request.send()).await.unwrap().status().as_u16();
        (!matches!(status, 401 | 403), status)
    }
}

fn service(town: &str, expires: Timestamp) -> Claims {
    Claims::Service(ServiceClaims { town: town.parse().unwrap(), service: "test".into(), expires })
}
