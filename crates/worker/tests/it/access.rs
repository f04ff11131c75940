//! Every route × credential (P17), and what is refused before credentials are looked at.

use std::{collections::BTreeSet, time::Duration};

use futures_util::StreamExt as _;
use gastown_worker::{
    WorkerConfig,
    api::{Access, ROUTES, Route},
    start,
};
use protocol::{LogId, Timestamp};
use relay::auth::{Capability, Claims, Keys, ServiceClaims, ShareClaims, TicketBook, WrapperClaims};
use reqwest::{Method, RequestBuilder, StatusCode};
use tokio::net::TcpListener;
use tokio_tungstenite::{
    connect_async,
    tungstenite::{Message, client::IntoClientRequest as _},
};

use crate::{
    support::{TestWorker, answer},
    tokens::{client_token, log_in, user},
};

/// A credential, and what it is good for: nothing at all, reading one agent, reading or steering all, or everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reach {
    Nothing,
    ReadsToast,
    Reads,
    Steers,
    Everything,
}

#[tokio::test]
async fn p17_every_route_lets_in_exactly_those_whose_credentials_reach_it() {
    let town = TestWorker::start().await;
    let credentials = credentials(&town).await;
    for route in ROUTES {
        for (name, reach, with) in &credentials {
            // An agent of its own for each try: some routes take it away.
            if town.worker.town().borrow().agents().is_empty() {
                town.register("toast", false).await;
            }
            let method: Method = route.method.parse().unwrap();
            let path = route
                .path
                .replace("{town}", "main")
                .replace("{agent}", "toast")
                .replace("{role}", "crew")
                .replace("{token}", "nobody");
            let status = with(town.plain(method, &path)).send().await.unwrap().status();
            let refused = matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN);
            // The login page says 401 to a wrong token, whoever brings it.
            let expected = admits(route, *reach) || route.path == "/login";
            assert_eq!(
                !refused || route.path == "/login",
                expected,
                "{} {} with {name}: {status}",
                route.method,
                route.path
            );
            if refused && route.path != "/login" {
                // One of another town is good, but not here.
                let unknown = *reach == Reach::Nothing && !name.contains("another town");
                let wanted = if unknown { 401 } else { 403 };
                assert_eq!(status.as_u16(), wanted, "{} {} with {name}", route.method, route.path);
            }
        }
    }
    town.stop().await;
}

#[tokio::test]
async fn p17_every_route_of_the_table_is_mounted_and_none_is_named_twice() {
    let town = TestWorker::start().await;
    let mut seen = BTreeSet::new();
    for route in ROUTES {
        assert!(seen.insert((route.method, route.path)), "{} {} is there twice", route.method, route.path);
        let path = route
            .path
            .replace("{town}", "main")
            .replace("{agent}", "nobody")
            .replace("{role}", "crew")
            .replace("{token}", "nobody");
        let response = town.request(route.method.parse().unwrap(), &path).send().await.unwrap();
        let text = response.text().await.unwrap();
        assert!(
            !text.contains("no such route") && !text.contains("does not take this method"),
            "{}",
            route.path
        );
    }
    town.stop().await;
}

#[tokio::test]
async fn p17_the_dashboard_shows_nothing_without_credentials() {
    let town = TestWorker::start().await;
    town.register("toast", false).await;
    for path in ["/agents", "/agents/toast", "/agents/toast/events/1"] {
        let response = town.plain(Method::GET, path).send().await.unwrap();
        assert!(!response.status().is_success(), "{path}: {}", response.status());
    }
    let steer = town.plain(Method::POST, "/agents/toast/abort").send().await.unwrap();
    assert!(
        !steer.status().is_success() && steer.status() != StatusCode::SERVICE_UNAVAILABLE,
        "{}",
        steer.status()
    );
    town.stop().await;
}

#[tokio::test]
async fn p17_an_unknown_host_or_a_foreign_origin_is_refused_on_every_part() {
    let town = TestWorker::start().await;
    for path in ["/", "/api/towns", "/login", "/v1/agents/toast/events", "/healthz", "/assets/app.css"] {
        for (header, value) in
            [("host", "evil.example"), ("origin", "https://evil.example"), ("origin", "null")]
        {
            let response = town.request(Method::GET, path).header(header, value).send().await.unwrap();
            assert_eq!(response.status(), StatusCode::FORBIDDEN, "{path} with {header}: {value}");
        }
    }
    for path in ["/v1/agents/toast/stream", "/v1/agents/toast/stream?view=html", "/v1/stream"] {
        let mut request = town.url(path).replacen("http", "ws", 1).into_client_request().unwrap();
        request.headers_mut().insert("origin", "https://evil.example".parse().unwrap());
        let (mut socket, _) = connect_async(request).await.unwrap();
        match socket.next().await {
            Some(Ok(Message::Close(Some(close)))) => assert_eq!(u16::from(close.code), 4403, "{path}"),
            other => panic!("{path}: {other:?}"),
        }
    }
    town.stop().await;
}

#[tokio::test]
async fn p17_a_cookie_changes_nothing_from_a_page_of_another_site() {
    let town = TestWorker::start().await;
    town.register("toast", false).await;
    let cookie = town.cookie().await;
    let delete = || town.plain(Method::DELETE, "/api/towns/main/agents/toast").header("cookie", &cookie);
    for forged in [
        delete(),
        delete().header("origin", "https://evil.example"),
        delete().header("sec-fetch-site", "same-site"),
    ] {
        assert_eq!(answer(forged).await.refusal().0, "forbidden");
    }
    assert_eq!(answer(delete().header("origin", town.url(""))).await.status, StatusCode::OK);
    town.stop().await;
}

#[tokio::test]
async fn a_port_that_others_reach_needs_a_name_and_a_token_that_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let attempt =
        async |config: WorkerConfig| start(config, TcpListener::bind("0.0.0.0:0").await.unwrap()).await;
    let bare = || WorkerConfig::new(folder.path());
    let named = || bare().with_allowed_host("town.example");
    for config in [bare(), named()] {
        let error = attempt(config).await.unwrap_err().to_string();
        assert!(error.contains("--allow-host") && error.contains("gastown token"), "{error}");
    }
    gastown_worker::operator_token(folder.path()).unwrap();
    assert!(attempt(bare()).await.is_err());
    let running = attempt(named()).await.unwrap();
    running.run_until(async {}).await.unwrap();
}

type With = Box<dyn Fn(RequestBuilder) -> RequestBuilder>;

/// Every kind of credential.
async fn credentials(town: &TestWorker) -> Vec<(&'static str, Reach, With)> {
    let keys = Keys::load(&town.folder.path().join("signing-key")).unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    let other_keys = Keys::load_or_create(&elsewhere.path().join("signing-key")).unwrap();
    let now = town.worker.now();
    let expires = now.after(Duration::from_secs(600));
    let wrapper = |agent: &str, expires: Timestamp| {
        Claims::Ingest(WrapperClaims {
            town: "main".parse().unwrap(),
            agent: agent.parse().unwrap(),
            generation: 1,
            expires,
        })
    };
    let service = |town: &str| {
        Claims::Service(ServiceClaims { town: town.parse().unwrap(), service: "relay".into(), expires })
    };
    let toast = LogId::Agent("toast".parse().unwrap());
    // It was never issued, as far as the town knows; what one that was issued reaches: `shares.rs`.
    let share = Claims::Share(ShareClaims {
        jti: "share1".into(),
        town: "main".parse().unwrap(),
        log: toast.clone(),
        expires,
    });
    let grant = town.worker.authenticate(&bearer_headers(&town.token), None).unwrap();
    let read = [Capability::Read, Capability::Steer].into();
    let ticket = TicketBook::new(now).issue(&keys, &grant, [toast].into(), &read, None, now).unwrap();
    let bearer = |token: &str| -> With {
        let token = token.to_owned();
        Box::new(move |request| request.bearer_auth(&token))
    };
    let signed = |keys: &Keys, claims: &Claims| bearer(keys.sign(claims).expose());
    let (cookie, own) = (town.cookie().await, town.url(""));
    let cookie_of = |cookie: &str| -> With {
        let (cookie, own) = (cookie.to_owned(), own.clone());
        Box::new(move |request| request.header("cookie", &cookie).header("origin", &own))
    };
    let [reads, steers, admin, revoked] =
        [("ann", "read"), ("ben", "steer"), ("cy", "admin"), ("dee", "admin")]
            .map(async |(name, scope)| user(town, name, scope).await);
    let (reads, steers, admin, revoked) = (reads.await, steers.await, admin.await, revoked.await);
    let revoked_cookie = log_in(town, &revoked).await;
    town.delete("/api/towns/main/tokens/dee").await.data();
    let wrong_secret = format!("{}{}", &admin[..admin.len() - 64], "0".repeat(64));
    let ticket_text = ticket.expose().to_owned();
    let past = Timestamp::from_unix_ms(now.unix_ms() - 10_000);
    vec![
        ("nothing", Reach::Nothing, Box::new(|request| request)),
        ("a wrong token", Reach::Nothing, bearer("gt_wrong")),
        ("an empty token", Reach::Nothing, bearer("")),
        (
            "the token of another scheme",
            Reach::Nothing,
            Box::new(|request| request.header("authorization", "Basic eDp5")),
        ),
        ("a wrong cookie", Reach::Nothing, cookie_of("gastown_session=x")),
        (
            "a ticket in the query",
            Reach::Nothing,
            Box::new(move |request| request.query(&[("ticket", &ticket_text)])),
        ),
        ("a wrapper token that expired", Reach::Nothing, signed(&keys, &wrapper("toast", past))),
        ("a service token of another town", Reach::Nothing, signed(&keys, &service("other"))),
        ("a service token of another key", Reach::Nothing, signed(&other_keys, &service("main"))),
        ("a wrapper token", Reach::ReadsToast, signed(&keys, &wrapper("toast", expires))),
        ("a share token that was not issued", Reach::Nothing, signed(&keys, &share)),
        ("a service token", Reach::Everything, signed(&keys, &service("main"))),
        ("the operator's token", Reach::Everything, bearer(&town.token)),
        ("a cookie", Reach::Everything, cookie_of(&cookie)),
        ("the token of a user who may read", Reach::Reads, bearer(&reads)),
        ("the token of a user who may steer", Reach::Steers, bearer(&steers)),
        ("the token of a user who may do everything", Reach::Everything, bearer(&admin)),
        ("a user token that was revoked", Reach::Nothing, bearer(&revoked)),
        ("a user token with another secret", Reach::Nothing, bearer(&wrong_secret)),
        ("the cookie of a user who may read", Reach::Reads, cookie_of(&log_in(town, &reads).await)),
        ("the cookie of a user who may steer", Reach::Steers, cookie_of(&log_in(town, &steers).await)),
        ("the cookie of a revoked token", Reach::Nothing, cookie_of(&revoked_cookie)),
        ("the client token of a user who may read", Reach::Reads, bearer(&client_token(town, &reads).await)),
        (
            "the client token of a user who may steer",
            Reach::Steers,
            bearer(&client_token(town, &steers).await),
        ),
    ]
}

/// What the table says, in other words than the code that goes by it.
fn admits(route: &Route, reach: Reach) -> bool {
    match (route.access, reach) {
        (Access::Open, _) | (_, Reach::Everything) => true,
        (Access::Agent(capability), Reach::ReadsToast)
        | (Access::Agent(capability) | Access::Town(capability), Reach::Reads) => {
            capability == Capability::Read
        }
        (Access::Agent(capability) | Access::Town(capability), Reach::Steers) => {
            matches!(capability, Capability::Read | Capability::Steer)
        }
        (Access::Town(_), Reach::ReadsToast) | (_, Reach::Nothing) => false,
    }
}

fn bearer_headers(token: &str) -> http::HeaderMap {
    [(http::header::AUTHORIZATION, format!("Bearer {token}").parse().unwrap())].into_iter().collect()
}
