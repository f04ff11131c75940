//! The local API of a whole wrapper, with an agent server that writes down what it is told.

use std::{io::Write as _, os::unix::fs::PermissionsExt as _, time::Duration};

use gastown_wrapper::{LogTail, RuntimeKind, runtime::CommandError};
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::{
    opencode::{
        fake::{Fake, ROOT},
        guard,
    },
    puppet::Puppet,
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

#[tokio::test]
async fn what_is_refused_has_the_status_and_the_word_of_its_reason() {
    type Refusal = fn() -> CommandError;
    let puppet = Puppet::new();
    let mut world = World::played(&puppet, |_| {}).await;
    world.until(is_idle).await;
    let refusals: [(Refusal, u16, &str, &str); 4] = [
        (|| CommandError::NotFound { what: "/init".to_owned() }, 404, "NOT_FOUND", "/init is not there"),
        (|| CommandError::Unsupported { what: "do it" }, 501, "UNSUPPORTED", "this agent cannot do it"),
        (
            || CommandError::Refused { message: "too rude".to_owned() },
            502,
            "AGENT_ERROR",
            "the agent server refused: too rude",
        ),
        (
            || CommandError::Unreachable { message: "reset".to_owned() },
            502,
            "AGENT_UNREACHABLE",
            "the agent server does not answer: reset",
        ),
    ];
    for (refusal, status, word, message) in refusals {
        puppet.refuses(Some(refusal));
        let said = world.api("job/command", &json!({ "name": "init" })).await;
        assert_eq!(said, (status, json!({ "error": word, "message": message })));
    }
    puppet.refuses(None);
    let prompt = world.request(Method::POST, "job/prompt").json(&json!({ "text": "hi" }));
    for _ in 0..65 {
        let (status, said) = answer(prompt.try_clone().unwrap()).await;
        assert_eq!(status, 202, "one is the agent's, and 64 wait: {said}");
    }
    for refused in [answer(prompt).await, world.api("job/command", &json!({ "name": "init" })).await] {
        assert_eq!((refused.0, &refused.1["error"]), (429, &json!("RATE_LIMITED")), "{refused:?}");
    }
    world.kill().await;
}

#[tokio::test]
async fn a_job_for_an_agent_that_ends_is_refused_and_says_what_to_do() {
    let puppet = Puppet::new();
    let mut world = World::played(&puppet, |_| {}).await;
    world.prompt("a").await;
    puppet.begins_turn("msg_1").await;
    assert!(world.command(&json!({ "type": "stop", "drain": true })).await.ok);
    for (route, body) in [("job/prompt", json!({ "text": "b" })), ("job/command", json!({ "name": "init" }))]
    {
        let message = "the agent ends after the turn that runs and takes nothing more: start it again, and send it then";
        let expected = (400, json!({ "error": "NO_JOB", "message": message }));
        assert_eq!(world.api(route, &body).await, expected);
    }
    puppet.ends_turn().await;
    world.wrapper.end().await.unwrap();
}

/// A wrapper with an agent server that writes down what it is told.
struct Job {
    world: World,
    fake: Fake,
    token: String,
    log: LogTail,
}

impl World {
    /// Posts to the local API. Returns the status and the answer.
    pub(crate) async fn api(&self, route: &str, body: &Value) -> (u16, Value) {
        answer(self.request(Method::POST, route).json(body)).await
    }

    /// A request to the local API, with its token.
    pub(crate) fn request(&self, method: Method, route: &str) -> RequestBuilder {
        let file = std::fs::read(self.folder.path().join("state/api.json")).unwrap();
        let file: Value = serde_json::from_slice(&file).unwrap();
        // It may be set already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let url = format!("http://127.0.0.1:{}/{route}", file["port"]);
        reqwest::Client::new().request(method, url).bearer_auth(file["token"].as_str().unwrap())
    }
}

/// The status and the body of what is answered.
pub(crate) async fn answer(request: RequestBuilder) -> (u16, Value) {
    let response = request.send().await.unwrap();
    (response.status().as_u16(), response.json().await.unwrap())
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
        Self { world, fake, token: file["token"].as_str().unwrap().to_owned(), log }
    }

    async fn call(&self, method: Method, route: &str, body: &Value, config: Option<&str>) -> (u16, Value) {
        let mut request = self.world.request(method, route).json(body);
        if let Some(config) = config {
            request = request.header("X-Town-Config", config);
        }
        answer(request).await
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
