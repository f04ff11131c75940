//! P19: no secret is in anything that comes out: logs, metrics, answers, frames, events.

use std::{
    io,
    sync::{Arc, Mutex, OnceLock},
};

use gastown_relay::auth::Secret;
use serde_json::json;
use tracing_subscriber::fmt::MakeWriter;

use crate::support::{Server, append, hello, http, within};

/// The code under test: its peers are in this process as well, and may log what they like.
const OURS: &str = "gastown_relay=trace,gastown_event_store=trace,gastown_event_protocol=trace";

/// Everything that the code under test logs in this process, at every level, while the tests here run.
#[derive(Clone, Default)]
struct Captured(Arc<Mutex<Vec<u8>>>);

#[tokio::test]
async fn p19_no_credential_is_in_a_log_line_a_metric_an_answer_a_frame_or_an_event() {
    let logs = captured();
    let server = Server::start().await;
    let mut secrets = vec![server.operator(), server.wrapper_token("a1", 1), server.share("a1", "s1").await];
    let canary = Secret::new("canary-5f1c7a90");
    secrets.push(canary.clone());
    let mut said = String::new();

    // Good and bad, in every place where a credential may stand.
    let mut wrapper = server.stream_as("/v1/ingest", Some(&secrets[1])).await;
    wrapper.send(&hello("a1", "p1", 1)).await;
    said += &wrapper.next_text().await;
    wrapper.send(&append(1, &["1"])).await;
    said += &wrapper.next_text().await;
    let mut shared =
        server.stream_as(&format!("/v1/agents/a1/stream?ticket={}", secrets[2].expose()), None).await;
    said += &json!(shared.until("live").await).to_string();
    for secret in &secrets {
        let text = secret.expose();
        for path in [
            "/v1/agents/a1/events".to_owned(),
            "/v1/agents/a1/view".to_owned(),
            "/v1/agents/a1/presence".to_owned(),
            "/v1/towns/main/events".to_owned(),
            format!("/v1/agents/a1/events?ticket={text}"),
            format!("/v1/agents/{text}/events"),
            format!("/v1/search?q=x&ticket={text}"),
            format!("/metrics?ticket={text}"),
            "/metrics".to_owned(),
            "/readyz".to_owned(),
        ] {
            for bearer in [true, false] {
                let mut request = http().get(server.http(&path)).header("cookie", format!("gastown={text}"));
                if bearer {
                    request = request.bearer_auth(text);
                }
                let answer = within(request.send()).await.unwrap();
                said += &format!("{:?}", answer.headers());
                said += &answer.text().await.unwrap();
            }
        }
        let mut refused = server.stream_as(&format!("/v1/stream?ticket={text}"), Some(&canary)).await;
        said += &json!(refused.closed().await.0).to_string();
        let command = http().post(server.http("/v1/agents/a1/commands")).bearer_auth(text);
        let command = command.header("idempotency-key", "c1").body(format!("{{\"type\": \"{text}\"}}"));
        let answer = within(command.send()).await.unwrap().text().await.unwrap();
        // What a body says is said back to whoever sent it, as far as it explains what is wrong with it.
        said += &answer.replace(text, "");
    }
    drop((wrapper, shared));
    let page = server.get("/v1/agents/a1/events").await.text().await.unwrap();
    let metrics = server.get("/metrics").await.text().await.unwrap();
    server.stop().await;

    let logs = String::from_utf8_lossy(&logs.0.lock().unwrap()).into_owned();
    assert!(logs.contains("a wrapper is connected"), "the log was captured");
    for secret in &secrets {
        // The signature is what is secret of a token: its claims are names.
        let secret = secret.expose().rsplit('.').next().unwrap();
        for (place, text) in
            [("a log line", &logs), ("an answer", &said), ("an event", &page), ("a metric", &metrics)]
        {
            let found = text.find(secret).map(|at| &text[at.saturating_sub(200)..text.len().min(at + 80)]);
            assert_eq!(found, None, "{place} shows a secret");
        }
    }
}

fn captured() -> Captured {
    static CAPTURED: OnceLock<Captured> = OnceLock::new();
    let captured = CAPTURED.get_or_init(|| {
        let captured = Captured::default();
        let subscriber = tracing_subscriber::fmt().with_env_filter(OURS).with_writer(captured.clone());
        subscriber.init();
        captured
    });
    captured.clone()
}

impl io::Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Captured {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}
