//! What earlier runs of this wrapper said: the agent's log, read back from the relay and folded.

use std::time::Duration;

use protocol::{AgentId, Event, Seq, view::SessionView};
use serde::Deserialize;

use crate::{
    link::{LinkHandle, Token},
    outbox::{Outbox, OutboxError},
};

/// How long the start waits for the relay. Without it the agent starts all the same.
const PATIENCE: Duration = Duration::from_secs(10);

/// The fold of what was said before, and whether anything was.
pub(super) async fn recall(
    outbox: &Outbox,
    link: &LinkHandle,
    relay: &str,
    agent: &AgentId,
    token: &Token,
) -> Result<Option<SessionView>, OutboxError> {
    if outbox.progress().borrow().next <= 1 {
        return Ok(None);
    }
    let left = outbox.pending().await?;
    // What was left is on its way while the log is waited for: only then the log holds all that was said.
    let read = async {
        if !link.flush(PATIENCE).await {
            return None;
        }
        match read(relay, agent, token).await {
            Ok(view) => Some(view),
            Err(error) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "the agent's log cannot be read back"
                );
                None
            }
        }
    };
    if let Ok(Some(view)) = tokio::time::timeout(PATIENCE, read).await {
        return Ok(Some(view));
    }
    let mut view = SessionView::default();
    for (seq, (_, event)) in (1_u64..).zip(left) {
        view.apply(&event.at(Seq::new(seq)));
    }
    Ok(Some(view))
}

/// Folds the whole log, page by page (§4.1).
async fn read(relay: &str, agent: &AgentId, token: &Token) -> Result<SessionView, reqwest::Error> {
    let http = client()?;
    let url = format!("{}/v1/agents/{agent}/events", http_url(relay));
    let mut view = SessionView::default();
    let mut cursor: Option<(String, Seq)> = None;
    loop {
        let mut request = http.get(&url).bearer_auth(token.reveal()).query(&[("limit", "1000")]);
        if let Some((epoch, after)) = &cursor {
            request = request.query(&[("epoch", epoch.as_str()), ("after", &after.to_string())]);
        }
        let page: Page = request.send().await?.error_for_status()?.json().await?;
        for event in &page.events {
            view.apply(event);
        }
        match page.events.last() {
            Some(last) if page.more => cursor = Some((page.epoch, last.seq)),
            Some(_) | None => return Ok(view),
        }
    }
}

fn client() -> Result<reqwest::Client, reqwest::Error> {
    // The provider may be set already: by the link, or by whoever embeds the wrapper.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder().timeout(PATIENCE).redirect(reqwest::redirect::Policy::none()).build()
}

/// The relay's URL for requests, whichever of its forms was given.
fn http_url(relay: &str) -> String {
    let relay = relay.trim_end_matches('/');
    match relay.split_once("://") {
        Some(("ws", rest)) => format!("http://{rest}"),
        Some(("wss", rest)) => format!("https://{rest}"),
        Some(_) | None => relay.to_owned(),
    }
}

#[derive(Deserialize)]
struct Page {
    epoch: String,
    events: Vec<Event>,
    #[serde(default)]
    more: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_relay_is_asked_over_http_however_it_is_written() {
        assert_eq!(http_url("ws://127.0.0.1:1/"), "http://127.0.0.1:1");
        assert_eq!(http_url("wss://relay.example"), "https://relay.example");
        assert_eq!(http_url("http://127.0.0.1:1"), "http://127.0.0.1:1");
    }
}
