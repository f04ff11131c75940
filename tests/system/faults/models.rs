//! The model does not do what it should.

use protocol::view::SessionView;
use serde_json::json;

use super::{Fault, fault, tried::Tried};
use crate::{
    real_agents::{messages_of, parts_of, text_of},
    support::agent_server::Server,
};

pub(super) const FAULTS: &[Fault] = &[
    fault!(
        "The model falls silent",
        "no byte for a minute in the middle of an answer",
        "the turn stays open, with what was said; an abort ends it at once",
        silent,
    ),
    fault!(
        "The model drops the connection",
        "closed in the middle of an answer, each time",
        "opencode says that it tries again, kilo asks what to do (`session.network.asked`); an abort ends it",
        drops,
    ),
    fault!(
        "The model answers 429",
        "twice, with `retry-after`",
        "the retry is shown; then the answer",
        recovers,
        "[[e429]] try",
        "Recovered after 429.",
    ),
    fault!(
        "The model answers 500",
        "once",
        "the retry is shown; then the answer",
        recovers,
        "[[e500]] try",
        "Recovered after 500.",
    ),
    fault!(
        "The model answers 401",
        "to everything",
        "`session.error` with the model's own words, the turn is over, and no retry",
        refuses,
    ),
    fault!(
        "The context is too long",
        "the model answers 400 as OpenAI does for too many tokens",
        "the conversation is condensed, which is shown, and asked again; then the answer",
        too_long,
    ),
];

async fn silent(tried: &mut Tried) {
    tried.prompt("[[stall]] talk").await;
    let said = |view: &SessionView| text_of(view).trim_end().ends_with("Starting...");
    tried.agent.viewer.until("it begins to talk", said).await;
    tried.abort().await;
    assert!(said(&tried.agent.viewer.view), "what was said stays");
}

async fn drops(tried: &mut Tried) {
    tried.prompt("[[drop]] talk").await;
    let waits: fn(&protocol::Event) -> bool = if tried.agent.server == Server::Kilo {
        |event| event.kind.as_ref() == "session.network.asked"
    } else {
        |event| event.kind.as_ref() == "session.status" && event.data.json().contains("\"retry\"")
    };
    tried.agent.viewer.until_event("the agent waits for its model", waits).await;
    tried.abort().await;
}

async fn recovers(tried: &mut Tried, prompt: &str, answer: &str) {
    tried.prompt(prompt).await;
    let retries = |event: &protocol::Event| event.data.json().contains("\"retry\"");
    tried.agent.viewer.until_event("a retry is shown", retries).await;
    tried.agent.viewer.until("the answer", |view| text_of(view).contains(answer)).await;
    tried.agent.turn_over().await;
}

async fn refuses(tried: &mut Tried) {
    tried.prompt("[[e401]] try").await;
    let says_why = |event: &protocol::Event| {
        event.kind.as_ref() == "session.error" && event.data.json().contains("Incorrect API key provided")
    };
    tried.agent.viewer.until_event("the error is shown", says_why).await;
    tried.agent.turn_over().await;
    let tries = tried.agent.model.asked().into_iter().filter(|asked| asked.script == "e401").count();
    assert_eq!(tries, 1, "it would be refused again");
}

async fn too_long(tried: &mut Tried) {
    tried.prompt("[[long_context]] try").await;
    let is_condensed = |view: &SessionView| parts_of(view).iter().any(|part| part.kind() == "compaction");
    tried.agent.viewer.until("that it was condensed is shown", is_condensed).await;
    let root = tried.agent.root().expect("a session");
    let is_answered = |view: &SessionView| {
        messages_of(view, &root).last().is_some_and(|message| {
            message["info"]["finish"] == json!("stop") && message["info"]["summary"] != json!(true)
        })
    };
    tried.agent.viewer.until("the answer", is_answered).await;
    tried.agent.turn_over().await;
}
