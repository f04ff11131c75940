//! Headless Chromium, driven through WebDriver.

use std::{path::PathBuf, process::Stdio, sync::Mutex, time::Duration};

use fantoccini::{Client, ClientBuilder, Locator, elements::Element};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    time::timeout,
};

use super::server::PATIENCE;

/// How long one script looks at the page before it is sent again.
const LOOK: Duration = Duration::from_secs(1);

/// A browser with a profile of its own.
pub(crate) struct Browser {
    pub(crate) page: Client,
    driver: Child,
    driver_url: String,
    _profile: TempDir,
}

impl Browser {
    /// Starts a driver on a free port and a browser window of this size.
    pub(crate) async fn open(width: u32, height: u32) -> Self {
        let mut driver = Command::new("chromedriver")
            .args(["--port=0", "--allowed-ips=127.0.0.1"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("chromedriver is missing: run `cargo xtask setup`");
        let mut lines = BufReader::new(driver.stdout.take().expect("the output is piped")).lines();
        let port = timeout(PATIENCE, async {
            loop {
                let line = lines.next_line().await.expect("its output").expect("chromedriver goes on");
                if let Some((_, rest)) = line.split_once("started successfully on port ") {
                    return rest.trim_end_matches('.').to_owned();
                }
            }
        })
        .await
        .expect("chromedriver becomes ready");
        let driver_url = format!("http://127.0.0.1:{port}");
        let profile = tempfile::tempdir().expect("a temporary folder");
        let capabilities = json!({
            "goog:chromeOptions": { "args": [
                "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
                "--disable-background-networking", "--disable-component-update", "--disable-sync",
                "--disable-dev-shm-usage", "--hide-scrollbars",
                format!("--window-size={width},{height}"),
                format!("--user-data-dir={}", profile.path().display()),
            ] },
            "goog:loggingPrefs": { "browser": "ALL" },
        });
        let page = ClientBuilder::new(hyper_util::client::legacy::connect::HttpConnector::new())
            .capabilities(capabilities.as_object().expect("an object").clone())
            .connect(&driver_url)
            .await
            .expect("the browser starts");
        Self { page, driver, driver_url, _profile: profile }
    }

    /// Waits until an element is there.
    pub(crate) async fn find(&self, css: &str) -> Element {
        let found = self.page.wait().at_most(PATIENCE).for_element(Locator::Css(css)).await;
        match found {
            Ok(element) => element,
            Err(error) => {
                let source = self.page.source().await.unwrap_or_default();
                panic!("no {css} on the page: {error}\n{}", source.chars().take(4_000).collect::<String>());
            }
        }
    }

    /// Waits until a script returns true. The browser itself asks again at each frame, for a second at a time: a script
    /// that waits in a page which is being left is never answered, and the page that comes next must be asked anew.
    pub(crate) async fn until(&self, what: &str, condition: &str) {
        let script = format!(
            "const done = arguments[arguments.length - 1], limit = Date.now() + {};
             const look = () => {{
               let holds = false;
               try {{ holds = Boolean({condition}); }} catch (error) {{ holds = false; }}
               if (holds || Date.now() > limit) done(holds); else setTimeout(look, 16);
             }};
             look();",
            LOOK.as_millis()
        );
        let limits = fantoccini::wd::TimeoutConfiguration::new(Some(LOOK * 5), None, None);
        self.page.update_timeouts(limits).await.expect("the driver takes timeouts");
        let last = Mutex::new(None);
        let holds = async {
            loop {
                let answer = self.page.execute_async(&script, vec![]).await;
                if matches!(&answer, Ok(Value::Bool(true))) {
                    return;
                }
                *last.lock().expect("nobody panicked") = Some(answer);
            }
        };
        if timeout(PATIENCE, holds).await.is_err() {
            self.screenshot("failed").await;
            let text = self.script("return location.href + '\\n' + document.body.innerText").await;
            panic!("the page never showed: {what} ({last:?})\n{}", text.as_str().unwrap_or_default());
        }
    }

    /// Runs a script in the page.
    pub(crate) async fn script(&self, script: &str) -> Value {
        self.page.execute(script, vec![]).await.expect("the script runs")
    }

    /// What the console said since the last call (a command of Chromium's driver).
    pub(crate) async fn log(&self) -> Vec<Value> {
        let session = self.page.session_id().await.expect("a session").expect("it is open");
        let url = format!("{}/session/{session}/se/log", self.driver_url);
        let answer = super::http().post(url).json(&json!({ "type": "browser" })).send().await;
        let answer: Value = answer.expect("the driver answers").json().await.expect("JSON");
        answer["value"].as_array().unwrap_or_else(|| panic!("no log: {answer}")).clone()
    }

    /// Keeps a picture of the page below `target/screenshots`.
    pub(crate) async fn screenshot(&self, name: &str) {
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("../screenshots");
        std::fs::create_dir_all(&folder).expect("the folder can be made");
        let picture = self.page.screenshot().await.expect("the browser takes a picture");
        std::fs::write(folder.join(format!("{name}.png")), picture).expect("the picture is kept");
    }

    /// Ends the browser and its driver.
    pub(crate) async fn close(mut self) {
        self.page.clone().close().await.expect("the browser closes");
        self.driver.kill().await.expect("the driver ends");
    }
}
