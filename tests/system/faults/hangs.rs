//! Agent servers that live, and whose port is open, and that do nothing.

use rustix::process::Signal;
use serde_json::json;

use super::{
    Fault, fault,
    tried::{Tried, is_interrupted, slow_text},
};
use crate::support::process::{Role, lives, send};

pub(super) const FAULTS: &[Fault] = &[
    fault!(
        "The agent server hangs while text streams",
        "stopped (SIGSTOP) in the middle of a text, for good",
        "`agent.failed` says that it hangs; it is gone, the text that was shown stays and is marked as interrupted, and it \
     is started again",
        mid_stream,
    ),
    fault!(
        "The agent server falls silent for a while",
        "stopped (SIGSTOP) in the middle of a text, until its stream is given up, and let go on",
        "the stream is taken up again: the text is whole, from the same process",
        for_a_while,
    ),
    fault!(
        "The agent server wedges with its port open, and is prompted",
        "stopped (SIGSTOP) while it is idle, for good; its port still takes connections",
        "whoever prompts is told that nobody knows whether it was taken; `agent.failed` says that it hangs, and it is started again",
        idle,
    ),
];

async fn mid_stream(tried: &mut Tried) {
    tried.stream_slowly().await;
    let shown = slow_text(&tried.agent.viewer.view);
    let server = tried.processes.only(Role::AgentServer);
    send(server, Signal::STOP);
    tried.agent.viewer.until("the text is kept and marked", |view| is_interrupted(view, &shown)).await;
    let failed = tried.until_agent_says("agent.failed").await;
    assert!(failed["message"].as_str().is_some_and(|said| said.contains("hangs")), "{failed}");
    assert!(!lives(server), "it is gone");
    tried.agent.ready_again().await;
}

async fn for_a_while(tried: &mut Tried) {
    tried.stream_slowly().await;
    let shown = slow_text(&tried.agent.viewer.view);
    let server = tried.processes.only(Role::AgentServer);
    send(server, Signal::STOP);
    tried.until_wrapper_logs("silent").await;
    send(server, Signal::CONT);
    let more = |view: &protocol::view::SessionView| slow_text(view).len() > shown.len() + 100;
    tried.agent.viewer.until("the text goes on", more).await;
    assert!(slow_text(&tried.agent.viewer.view).starts_with(&shown), "where it was");
    assert_eq!(tried.processes.only(Role::AgentServer), server);
    tried.abort().await;
}

async fn idle(tried: &mut Tried) {
    let server = tried.processes.only(Role::AgentServer);
    send(server, Signal::STOP);
    let answer = tried.agent.command(json!({ "type": "prompt", "text": "[[plain]] are you there?" })).await;
    assert_eq!(answer["ok"], json!(false), "{answer}");
    let failed = tried.until_agent_says("agent.failed").await;
    assert!(failed["message"].as_str().is_some_and(|said| said.contains("hangs")), "{failed}");
    assert!(!lives(server), "it is gone");
    tried.agent.ready_again().await;
}
