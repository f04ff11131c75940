//! The local API of a whole wrapper, with an agent server that writes down what it is told.

use std::{io::Write as _, os::unix::fs::PermissionsExt as _, time::Duration};

use gastown_wrapper::{LogTail, RuntimeKind};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::{
    opencode::{
        fake::{Fake, ROOT},
        guard,
    },
    wrapper::{World, is_idle},
};

/// Far more than anything here takes.
const SOON: Duration = Duration::from_secs(30);

#[tokio::test]
async fn a_config_reaches_the_agent_from_the_next_turn_on() {
    let mut job = Job::start().await;
    let config = r#"{"model":"p/m1","variant":"low","system":"be brief","tools":{"bash":false}}"#;
    job.accepted(&json!({ "text": "one", "tools": { "edit": true } }), Some(config)).await;
    let first = job.prompts(1).await;
    assert_eq!(first["model"], json!({ "providerID": "p", "modelID": "m1" }));
    assert_eq!((&first["variant"], &first["system"]), (&json!("low"), &json!("be brief")));
    assert_eq!(first["tools"], json!({ "bash": false, "edit": true }));
    job.agent_says("session.status", &json!({ "status": { "type": "busy" } }));
    job.agent_says("message.updated", &json!({ "info": message(&first) }));

    let config = r#"{"model":"p/m2","autoCommit":false}"#;
    job.accepted(&json!({ "text": "two", "delivery": "boundary" }), Some(config)).await;
    let second = job.prompts(2).await;
    assert_eq!(second["model"]["modelID"], "m1", "it goes into the turn that runs");
    job.agent_says("message.updated", &json!({ "info": message(&second) }));
    job.agent_says("session.idle", &json!({}));

    job.accepted(&json!({ "text": "three" }), None).await;
    let third = job.prompts(3).await;
    assert_eq!(third["model"]["modelID"], "m2");
    assert_eq!((&third["variant"], &third["tools"]), (&Value::Null, &Value::Null));
    job.world.wrapper.end().await.unwrap();
}

#[tokio::test]
async fn p19_a_config_that_is_not_understood_is_refused_without_quoting_it() {
    let mut job = Job::start().await;
    for (config, named) in
        [(r#"{"variant":["canary"]}"#, "variant"), ("canary", "JSON"), (r#"{"canari":1}"#, "canari")]
    {
        for route in ["job/prompt", "job/abort"] {
            let (status, answer) =
                job.call(Method::POST, route, &json!({ "text": "hi" }), Some(config)).await;
            assert_eq!((status, &answer["error"]), (400, &json!("INVALID_REQUEST")));
            let message = answer["message"].as_str().unwrap();
            assert!(message.contains(named) && !message.contains("canary"), "{message}");
        }
    }
    assert!(job.fake.posts().iter().all(|(path, _)| !path.ends_with("prompt_async")));
    job.world.wrapper.end().await.unwrap();
}

#[tokio::test]
async fn p19_the_last_lines_are_given_over_the_link_and_no_secret_is_in_them() {
    let mut job = Job::start().await;
    let mut log = job.log.clone();
    log.write_all(b"it starts\n").unwrap();
    let config = r#"{"env":{"API_KEY":"canary-of-the-env"}}"#;
    job.accepted(&json!({ "text": "hi" }), Some(config)).await;
    // As a subscriber writes: a line at a time.
    log.write_all(format!("Authorization: Bearer {}\n", job.token).as_bytes()).unwrap();
    log.write_all(b"API_KEY=canary-of-the-env token=a-wrapper-token\n").unwrap();
    let result = job.world.command(&json!({ "type": "logs", "lines": 2 })).await;
    assert_eq!(result.data.unwrap()["lines"], json!(["Authorization: Bearer ***", "API_KEY=*** token=***"]));
    let (_, status) = job.call(Method::GET, "job/status", &json!({}), None).await;
    let said: Vec<String> =
        job.world.relay.events().iter().map(|event| event.data.json().to_owned()).collect();
    for secret in ["canary-of-the-env", "a-wrapper-token", &job.token] {
        assert!(!said.concat().contains(secret) && !status.to_string().contains(secret), "{secret}");
    }
    job.world.wrapper.end().await.unwrap();
}

/// A wrapper, its agent server and its API.
struct Job {
    world: World,
    fake: Fake,
    address: String,
    token: String,
    log: LogTail,
}

impl Job {
    async fn start() -> Self {
        let work = tempfile::tempdir().unwrap();
        let fake = Fake::start(work.path()).await;
        let url = fake.url.clone();
        let log = LogTail::new();
        let world = World::start_with(&json!({}), |folder, options| {
            let binary = folder.join("server");
            let script = format!("#!/bin/sh\necho 'fake server listening on {url}'\nexec sleep 1000\n");
            std::fs::write(&binary, script).unwrap();
            std::fs::set_permissions(&binary, std::fs::Permissions::from_mode(0o755)).unwrap();
            std::fs::write(folder.join("token"), "a-wrapper-token").unwrap();
            options.log = log.clone();
            options.runtime = RuntimeKind::Opencode;
            options.agent_bin = Some(binary);
            options.guard_command = guard().into_iter().map(|word| word.into_string().unwrap()).collect();
        })
        .await;
        world.until(is_idle).await;
        let file = std::fs::read(world.folder.path().join("state/api.json")).unwrap();
        let file: Value = serde_json::from_slice(&file).unwrap();
        let address = format!("http://127.0.0.1:{}", file["port"]);
        Self { world, fake, address, token: file["token"].as_str().unwrap().to_owned(), log }
    }

    async fn call(&self, method: Method, route: &str, body: &Value, config: Option<&str>) -> (u16, Value) {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let request = reqwest::Client::new().request(method, format!("{}/{route}", self.address));
        let mut request = request.bearer_auth(&self.token).json(body);
        if let Some(config) = config {
            request = request.header("X-Town-Config", config);
        }
        let response = request.send().await.unwrap();
        (response.status().as_u16(), response.json().await.unwrap())
    }

    async fn accepted(&self, prompt: &Value, config: Option<&str>) {
        let (status, answer) = self.call(Method::POST, "job/prompt", prompt, config).await;
        assert_eq!(status, 202, "{answer}");
        assert!(answer["messageId"].as_str().unwrap().starts_with("msg_"));
    }

    /// The body of the so manieth prompt that the agent server got.
    async fn prompts(&self, count: usize) -> Value {
        let come = async {
            loop {
                let posts = self.fake.posts();
                let mut prompts = posts.iter().filter(|(path, _)| path.ends_with("prompt_async"));
                if let Some((_, body)) = prompts.nth(count - 1) {
                    return body.clone();
                }
                tokio::task::yield_now().await;
            }
        };
        timeout(SOON, come).await.expect("the prompt reaches the agent")
    }

    fn agent_says(&self, kind: &str, properties: &Value) {
        let mut properties = properties.clone();
        properties["sessionID"] = json!(ROOT);
        self.fake.say(&json!({ "type": kind, "properties": properties }).to_string());
    }
}

/// The user's message that a prompt becomes.
fn message(prompt: &Value) -> Value {
    json!({ "id": prompt["messageID"], "sessionID": ROOT, "role": "user", "time": { "created": 1 } })
}
