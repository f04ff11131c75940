//! The dashboard in a real browser: a person logs in, watches, answers, asks, and sits through a crash of the server.

use serde_json::{Value, json};

use crate::support::{
    browser::Browser,
    server::{Gastown, log_of},
    viewer::{Viewer, wrapper_is_back},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p2_a_person_watches_answers_and_sits_through_a_crash() {
    let mut gastown = Gastown::up(&[]).await;
    let agent = start_scripted(&gastown).await;
    let browser = Browser::open(1440, 1300).await;

    // Not logged in: the page asks for the token, and a wrong one is told so.
    browser.page.goto(&format!("{}/agents/{agent}", gastown.url)).await.expect("the page loads");
    sign_in(&browser, "wrong").await;
    browser.find("#token-error").await;
    sign_in(&browser, &gastown.token).await;
    browser.until("the agent's page", &format!("location.pathname === '/agents/{agent}'")).await;
    browser.until("the page is live", "document.querySelector('#agent-conn').dataset.state === 'live'").await;

    // Text streams in, and a tool can be opened; what the reader opened stays open.
    browser
        .until("text of the agent", "document.querySelector('#transcript .prose').innerText.length > 40")
        .await;
    browser.until("a tool", "document.querySelector('#transcript details.tool')").await;
    browser
        .script(
            "const tool = document.querySelector('#transcript details.tool:not([open])')
               ?? document.querySelector('#transcript details.tool');
             window.opened = tool.id || tool.closest('[id]').id;
             if (!tool.open) tool.querySelector('summary').click();",
        )
        .await;

    // The permission is answered on the page.
    browser.until("a permission is asked", "document.querySelector('#dock [name=reply][value=once]')").await;
    browser.screenshot("agent-asks").await;
    let mut viewer = Viewer::of(&gastown.client(), log_of(&agent));
    viewer.until("the agent asks", |view| !view.pending().is_empty()).await;
    browser.script("document.querySelector('#dock [name=reply][value=once]').click()").await;
    viewer.until("the answer arrived", |view| view.pending().is_empty()).await;
    browser.until("the ask is answered on the page", "!document.querySelector('#dock [name=reply]')").await;
    assert_eq!(
        browser
            .script("const el = document.getElementById(window.opened); return (el.matches('details') ? el : el.querySelector('details')).open")
            .await,
        json!(true),
        "what the reader opened stays open"
    );

    // A prompt from the page.
    browser
        .find("#prompt")
        .await
        .send_keys("Say it in your own words, please")
        .await
        .expect("the field takes text");
    browser.script("document.querySelector('#composer').requestSubmit()").await;
    browser
        .until(
            "the prompt is in the transcript",
            "document.querySelector('#transcript').innerText.includes('in your own words')",
        )
        .await;

    // The server dies and comes back; the page goes on by itself, without a reload.
    browser.script("window.sameDocument = true").await;
    gastown.kill9().await;
    browser.until("the page notices", "document.querySelector('#agent-conn').dataset.state !== 'live'").await;
    gastown.start_again().await;
    browser
        .until("the page is live again", "document.querySelector('#agent-conn').dataset.state === 'live'")
        .await;
    wrapper_is_back(&gastown.client(), log_of(&agent)).await;
    gastown.prompt(&agent, "Still with me?").await;
    browser
        .until(
            "what came after the crash",
            "document.querySelector('#transcript').innerText.includes('Still with me?')",
        )
        .await;
    assert_eq!(browser.script("return window.sameDocument === true").await, json!(true), "without a reload");

    // Nothing stands there twice, and the page shows what a fresh one shows.
    let repeated = browser
        .script(
            "const ids = [...document.querySelectorAll('[id]')].map((el) => el.id);
             return ids.filter((id, i) => ids.indexOf(id) !== i);",
        )
        .await;
    assert_eq!(repeated, json!([]), "no element is there twice");
    browser.screenshot("agent").await;
    browser.page.goto(&format!("{}/agents", gastown.url)).await.expect("the page loads");
    browser.until("the fleet", &format!("document.querySelector('#agent-{agent}')")).await;
    browser.screenshot("fleet").await;
    browser.page.set_window_size(390, 844).await.expect("the window can be a phone's");
    browser.screenshot("fleet-phone").await;
    browser.page.goto(&format!("{}/agents/{agent}", gastown.url)).await.expect("the page loads");
    browser
        .until("the phone is live", "document.querySelector('#agent-conn').dataset.state === 'live'")
        .await;
    browser.screenshot("agent-phone").await;
    assert_eq!(errors(&browser).await, Vec::<Value>::new(), "no error on the console");
    browser.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p10_a_person_goes_to_the_past_and_comes_back_to_a_page_that_lives() {
    let gastown = Gastown::up(&[]).await;
    let agent = start_scripted(&gastown).await;
    let browser = Browser::open(1440, 900).await;
    browser.page.goto(&gastown.login).await.expect("the link signs in");
    let page = format!("{}/agents/{agent}", gastown.url);
    browser.page.goto(&page).await.expect("the page loads");
    browser.until("a permission is asked", "document.querySelector('#dock [name=reply]')").await;
    browser
        .until("the chips count", "document.querySelector('#show [data-show=prompt] b').innerText >= 1")
        .await;

    // The timeline grew out of patches; half of it back, what came later is not there.
    browser.until("the log is drawn", "document.querySelector('#scrub-past path, #scrub-now path')").await;
    let rows = "return document.querySelectorAll('#transcript > .part:not([hidden])').length";
    let now = browser.script(rows).await.as_u64().expect("a number");
    browser
        .script(
            "const scrub = document.querySelector('#scrub-at');
             scrub.value = 0;
             scrub.dispatchEvent(new Event('input', { bubbles: true }));
             window.label = document.querySelector('#scrub-label').value;
             sessionStorage.setItem('label', window.label);
             scrub.dispatchEvent(new Event('change', { bubbles: true }));",
        )
        .await;
    browser.until("the past", "document.querySelector('#past') && location.search.startsWith('?at=')").await;
    let then = browser.script(rows).await.as_u64().expect("a number");
    assert!(then < now, "{then} rows of the past, {now} by now");
    assert_ne!(
        browser.script("return sessionStorage.getItem('label')").await,
        json!(""),
        "it said where it leads"
    );
    assert_eq!(
        browser.script("return document.querySelectorAll('#composer, #dock, form.ask button').length").await,
        json!(0),
        "nobody steers the past"
    );
    browser.screenshot("agent-past").await;

    // Played ten times as fast from there, the past comes to the present, and the page lives.
    browser.script("document.querySelector('#scrub-speed a[href$=\"speed=10\"]').click()").await;
    browser
        .until(
            "live again",
            "!location.search && document.querySelector('#agent-conn').dataset.state === 'live'",
        )
        .await;

    // An answered ask still says what was asked.
    browser.script("document.querySelector('#dock [name=reply][value=reject]').click()").await;
    browser
        .until(
            "what was rejected",
            "document.querySelector('.ask-done code')?.innerText.includes('rm -rf build')",
        )
        .await;
    assert_eq!(errors(&browser).await, Vec::<Value>::new(), "no error on the console");
    browser.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p17_who_has_a_share_link_watches_one_agent_and_nothing_else() {
    let gastown = Gastown::up(&[]).await;
    let agent = start_scripted(&gastown).await;
    let shares = format!("/api/towns/main/agents/{agent}/shares");
    let (status, answer) = gastown.call("POST", &shares, Some(json!({}))).await;
    assert!(status < 300, "{status} {answer}");
    let (link, share) = (answer["data"]["url"].as_str().expect("a link"), &answer["data"]["id"]);
    let browser = Browser::open(1440, 900).await;
    browser.page.goto(link).await.expect("the page loads");
    browser
        .until("the guest's page is live", "document.querySelector('#agent-conn').dataset.state === 'live'")
        .await;
    browser
        .until("the agent writes", "document.querySelector('#transcript .prose')?.innerText.length > 40")
        .await;
    let mut viewer = Viewer::of(&gastown.client(), log_of(&agent));
    viewer.until("the agent asks", |view| !view.pending().is_empty()).await;
    browser
        .until("the guest sees that it waits", "document.querySelector('#agent-state [data-state=waiting]')")
        .await;
    let ways = "return document.querySelectorAll('#composer, #dock, .ask, #stop form, #lifecycle form, .nav, .search, #events').length";
    assert_eq!(browser.script(ways).await, json!(0), "no ask, no composer, no way on");
    browser.screenshot("shared").await;

    // Taken back: the stream ends, and the page says so.
    let share = share.as_str().expect("its id");
    let (status, answer) = gastown.call("DELETE", &format!("{shares}/{share}"), None).await;
    assert!(status < 300, "{status} {answer}");
    browser.until("the link is over", "document.body.innerText.includes('revoked')").await;
    browser.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_said_is_found_and_leads_to_its_part() {
    let gastown = Gastown::up(&[]).await;
    let agent = start_scripted(&gastown).await;
    let mut viewer = Viewer::of(&gastown.client(), log_of(&agent));
    viewer.until("the agent asks", |view| !view.pending().is_empty()).await;
    let browser = Browser::open(1440, 900).await;
    browser.page.goto(&gastown.login).await.expect("the link signs in");
    browser.page.goto(&format!("{}/agents", gastown.url)).await.expect("the page loads");
    browser.find("#search").await.send_keys("retry").await.expect("the field takes text");
    browser.script("document.querySelector('#search').form.requestSubmit()").await;
    browser.until("hits", "document.querySelector('.hits mark')").await;
    browser.screenshot("search").await;
    let to = browser
        .script("const link = document.querySelector('.hit-link[href*=\"?part=\"]'); link.click(); return link.hash.slice(1)")
        .await;
    let part = to.as_str().expect("an id");
    browser.until("the part is marked", "document.querySelector('.part.is-marked')").await;
    let marked = browser.script("return document.querySelector('.part.is-marked').id").await;
    assert_eq!(marked, json!(part));
    assert_eq!(
        browser
            .script(
                "const box = document.querySelector('.part.is-marked').getBoundingClientRect();
                 return box.bottom > 0 && box.top < innerHeight"
            )
            .await,
        json!(true),
        "it is in sight"
    );
    assert_eq!(errors(&browser).await, Vec::<Value>::new(), "no error on the console");
    browser.close().await;
}

async fn start_scripted(gastown: &Gastown) -> protocol::AgentId {
    let folder = gastown.data_dir().join("work");
    std::fs::create_dir_all(&folder).expect("the folder can be made");
    gastown
        .start_agent(json!({
            "name": "amber", "role": "polecat", "directory": folder, "start": true,
            "runtime": {
                "kind": "scripted", "scenario": concat!(env!("CARGO_MANIFEST_DIR"), "/demo/feature.json"), "speed": "8",
            },
        }))
        .await
}

async fn sign_in(browser: &Browser, token: &str) {
    let field = browser.find("#token").await;
    field.clear().await.expect("the field can be cleared");
    field.send_keys(token).await.expect("the field takes text");
    browser.find("form button[type=submit]").await.click().await.expect("the form is sent");
}

/// What the browser's console complained of, less the connections that failed while the server was dead.
async fn errors(browser: &Browser) -> Vec<Value> {
    let log = browser.log().await;
    let expected = |entry: &Value| {
        let message = entry["message"].as_str().unwrap_or_default();
        message.contains("ERR_CONNECTION_REFUSED")
            || message.contains("ERR_CONNECTION_RESET")
            || message.contains("401")
    };
    log.into_iter().filter(|entry| entry["level"] == json!("SEVERE") && !expected(entry)).collect()
}
