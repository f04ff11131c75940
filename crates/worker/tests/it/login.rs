//! The way in and out of a browser.

use reqwest::{Method, Response, StatusCode};

use crate::support::{TestWorker, answer};

#[tokio::test]
async fn the_token_opens_the_door_and_logging_out_closes_it() {
    let town = TestWorker::start().await;
    let response = log_in(&town, &town.token, "/agents/toast").await;
    assert_eq!(response.status(), StatusCode::SEE_OTHER);
    assert_eq!(response.headers()["location"], "/agents/toast");
    let cookie = response.headers()["set-cookie"].to_str().unwrap().to_owned();
    for attribute in ["gastown_session=", "HttpOnly", "SameSite=Strict", "Path=/"] {
        assert!(cookie.contains(attribute), "{cookie}");
    }
    let cookie = cookie.split(';').next().unwrap();
    assert_eq!(towns(&town, cookie).await, StatusCode::OK);

    let out = town.plain(Method::POST, "/logout").header("cookie", cookie).header("origin", town.url(""));
    let out = out.send().await.unwrap();
    assert_eq!(
        (out.status(), &out.headers()["location"]),
        (StatusCode::SEE_OTHER, &"/login".parse().unwrap())
    );
    assert_eq!(towns(&town, cookie).await, StatusCode::UNAUTHORIZED);
    town.stop().await;
}

#[tokio::test]
async fn a_login_link_works_once() {
    let town = TestWorker::start().await;
    let link = town.worker.one_use_login_url();
    let path = link.strip_prefix(&town.url("")).unwrap();
    let first = town.plain(Method::GET, path).send().await.unwrap();
    assert_eq!(
        (first.status(), &first.headers()["location"]),
        (StatusCode::SEE_OTHER, &"/".parse().unwrap())
    );
    assert_eq!(first.headers()["referrer-policy"], "same-origin");
    let second = town.plain(Method::GET, path).send().await.unwrap();
    assert_eq!(second.status(), StatusCode::UNAUTHORIZED);
    assert!(second.headers().get("set-cookie").is_none());
    town.stop().await;
}

#[tokio::test]
async fn a_wrong_token_is_answered_with_the_page_and_too_many_with_a_wait() {
    let town = TestWorker::start().await;
    let limit = gastown_worker::limits::LOGIN_FAILURES;
    for _ in 0..limit {
        let response = log_in(&town, "gt_wrong", "/").await;
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
        assert!(response.text().await.unwrap().contains("This is no token of this town."));
    }
    let response = log_in(&town, &town.token, "/").await;
    assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
    assert!(response.headers().contains_key("retry-after"));
    town.stop().await;
}

#[tokio::test]
async fn the_login_sends_nobody_to_another_server() {
    let town = TestWorker::start().await;
    for next in ["https://evil.example/", "//evil.example", "/\\evil.example"] {
        let response = log_in(&town, &town.token, next).await;
        assert_eq!(response.headers()["location"], "/", "{next}");
    }
    town.stop().await;
}

#[tokio::test]
async fn the_login_page_is_there_without_credentials() {
    let town = TestWorker::start().await;
    let response = town.plain(Method::GET, "/login?next=/agents/toast").send().await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    let page = response.text().await.unwrap();
    assert!(page.contains(r#"action="/login""#) && page.contains("/agents/toast"), "{page}");
    town.stop().await;
}

#[tokio::test]
async fn p19_the_token_is_in_no_file_but_its_own() {
    let town = TestWorker::start().await;
    log_in(&town, &town.token, "/").await;
    let (token, (folder, _)) = (town.token.clone(), town.stop().await);
    for entry in std::fs::read_dir(folder.path()).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() && !path.ends_with("operator-token") {
            let bytes = std::fs::read(&path).unwrap();
            assert!(
                !bytes.windows(token.len()).any(|window| window == token.as_bytes()),
                "{}",
                path.display()
            );
        }
    }
}

async fn log_in(town: &TestWorker, token: &str, next: &str) -> Response {
    let request = town.plain(Method::POST, "/login").header("origin", town.url(""));
    request.form(&[("token", token), ("next", next)]).send().await.unwrap()
}

async fn towns(town: &TestWorker, cookie: &str) -> StatusCode {
    answer(town.plain(Method::GET, "/api/towns").header("cookie", cookie)).await.status
}
