//! Prompts, aborts and answers, from the API to the wrapper's link.

use protocol::{Answer, Command, Delivery, PermissionReply, Prompt};
use reqwest::{Method, StatusCode};
use serde_json::json;

use crate::support::{TestWorker, answer, link::FakeLink};

const AGENT: &str = "/api/towns/main/agents/toast";

#[tokio::test]
async fn every_way_of_steering_reaches_the_wrapper_as_its_command() {
    let town = TestWorker::start().await;
    let wrapper = town.launch("toast").await;
    let mut link = FakeLink::connect(&wrapper).await;
    let prompt = Prompt { text: Some("fix it".into()), delivery: Delivery::Interrupt, ..Prompt::default() };
    let answers = vec![vec!["yes".to_owned()]];
    for (what, body, command) in [
        ("message", json!({ "text": "fix it", "delivery": "interrupt" }), Command::Prompt(prompt)),
        ("abort", json!({}), Command::Abort),
        (
            "permission",
            json!({ "id": "per_1", "reply": "always" }),
            Command::Permission { id: "per_1".into(), reply: PermissionReply::Always, message: None },
        ),
        (
            "question",
            json!({ "id": "que_1", "answers": [["yes"]] }),
            Command::Question(Answer { id: "que_1".into(), answers }),
        ),
        (
            "question",
            json!({ "id": "que_2", "reject": true }),
            Command::QuestionReject { id: "que_2".into() },
        ),
    ] {
        let path = format!("{AGENT}/{what}");
        let (answer, (id, received)) = tokio::join!(town.post(&path, &body), link.command());
        assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
        assert_eq!(answer.data()["id"], id.as_str());
        assert_eq!(received, command);
    }
    drop(link);
    town.stop().await;
}

#[tokio::test]
async fn the_idempotency_key_is_the_commands_id_and_a_repetition_reaches_nobody() {
    let town = TestWorker::start().await;
    let wrapper = town.launch("toast").await;
    let mut link = FakeLink::connect(&wrapper).await;
    let prompt = |text: &str| {
        let body = json!({ "text": text });
        answer(
            town.request(Method::POST, &format!("{AGENT}/message"))
                .header("Idempotency-Key", text)
                .json(&body),
        )
    };
    let (_, (id, _)) = tokio::join!(prompt("one"), link.command());
    assert_eq!(id.as_str(), "one");
    assert_eq!(prompt("one").await.status, StatusCode::OK);
    let (_, (id, _)) = tokio::join!(prompt("two"), link.command());
    assert_eq!(id.as_str(), "two", "the repetition was not sent");
    drop(link);
    town.stop().await;
}

#[tokio::test]
async fn the_first_answer_wins_and_the_second_is_told_so() {
    let town = TestWorker::start().await;
    let wrapper = town.launch("toast").await;
    let mut link = FakeLink::connect(&wrapper).await;
    let path = format!("{AGENT}/permission");
    let (yes, no) = (json!({ "id": "per_1", "reply": "once" }), json!({ "id": "per_1", "reply": "reject" }));
    let (first, _) = tokio::join!(town.post(&path, &yes), link.command());
    assert_eq!(first.status, StatusCode::OK);
    let second = town.post(&path, &no).await;
    assert_eq!((second.status, second.refusal().0), (StatusCode::CONFLICT, "already_answered"));
    drop(link);
    town.stop().await;
}

#[tokio::test]
async fn an_agent_without_a_wrapper_is_offline_and_nothing_waits_for_it() {
    let town = TestWorker::start().await;
    town.register("toast", false).await;
    let answer = town.post(&format!("{AGENT}/message"), &json!({ "text": "hello" })).await;
    assert_eq!((answer.status, answer.refusal().0), (StatusCode::SERVICE_UNAVAILABLE, "agent_offline"));
    town.stop().await;
}

#[tokio::test]
async fn what_makes_no_sense_is_not_sent() {
    let town = TestWorker::start().await;
    town.register("toast", false).await;
    for (what, body) in [
        ("message", json!({})),
        ("message", json!({ "text": "  " })),
        ("message", json!({ "parts": [] })),
        ("message", json!({ "text": "x", "delivery": "now" })),
        ("permission", json!({ "id": "per_1", "reply": "perhaps" })),
        ("question", json!({ "id": "que_1" })),
        ("question", json!({ "id": "que_1", "answers": [], "reject": true })),
    ] {
        let answer = town.post(&format!("{AGENT}/{what}"), &body).await;
        assert_eq!(
            (answer.status, answer.refusal().0),
            (StatusCode::BAD_REQUEST, "bad_request"),
            "{what} {body}"
        );
    }
    let unknown = town.post("/api/towns/main/agents/jam/message", &json!({ "text": "hello" })).await;
    assert_eq!((unknown.status, unknown.refusal().0), (StatusCode::NOT_FOUND, "not_found"));
    town.stop().await;
}

#[tokio::test]
async fn a_drain_is_asked_of_the_wrapper_over_its_link() {
    let town = TestWorker::start().await;
    let wrapper = town.launch("toast").await;
    let mut link = FakeLink::connect(&wrapper).await;
    let body = json!({ "drain": true });
    let path = format!("{AGENT}/stop");
    let (_, (_, command)) = tokio::join!(town.post(&path, &body), link.command());
    assert_eq!(command, Command::Stop { drain: true });
    wrapper.end(town::WrapperExit::Finished);
    town.phase("toast", "stopped").await;
    drop(link);
    town.stop().await;
}
