//! The agent's own log, read back the way that the link goes (§4).

use std::sync::Arc;

use protocol::{
    CloseCode, ErrorCode, Event,
    agent::Resumed,
    codec::{DecodeError, Frame as _},
    frame::ToViewer,
    view::SessionView,
};

use super::{
    Dial, LinkConfig, LinkError,
    connection::{Connection, Endpoint, Heard},
};

/// The log of the agent that a link is for.
#[derive(Debug, Clone)]
pub(crate) struct Log {
    endpoint: Endpoint,
}

/// What was said in a log by now.
#[derive(Debug, Default)]
pub(crate) struct Past {
    /// The fold of all of it.
    pub(crate) whole: SessionView,
    /// The fold of what was said before the run of the wrapper that asks began; nothing, if the log does not say (any more) that it did.
    pub(crate) before: SessionView,
}

/// Why a log was not read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LogError {
    #[error("the relay cannot be reached")]
    Unreachable,
    #[error("the relay refused: {} {message}", code.0)]
    Refused { code: CloseCode, message: String },
    #[error("the relay refused: {code} {message}")]
    Error { code: ErrorCode, message: String },
    #[error("the relay said what is not understood")]
    Frame(#[from] DecodeError),
}

impl Log {
    pub(crate) fn of(config: &LinkConfig, dial: Arc<dyn Dial>) -> Result<Self, LinkError> {
        let endpoint = Endpoint::of_log(&config.relay, &config.agent, config.token.clone(), dial)?;
        Ok(Self { endpoint })
    }

    /// What the relay has by now, and what of it was said before the run with this generation.
    pub(crate) async fn read(&self, generation: u64) -> Result<Past, LogError> {
        let mut whole = SessionView::default();
        let mut before = None;
        let mut connection = self.endpoint.clone().connect().await.map_err(ended)?;
        loop {
            let text = match connection.next().await {
                Heard::Text(text) => text,
                Heard::Alive | Heard::Room => continue,
                Heard::Closed(closed) => return Err(ended(closed)),
            };
            match ToViewer::decode(text.as_bytes())? {
                ToViewer::Events { events, .. } => {
                    for event in &events {
                        if begins_run(event, generation) {
                            before.get_or_insert_with(|| whole.clone());
                        }
                        whole.apply(event);
                    }
                }
                ToViewer::Live { .. } => break,
                ToViewer::Error { code, message, .. } => return Err(LogError::Error { code, message }),
                // It is not read for so long that a heartbeat is to be answered.
                ToViewer::Hello { .. }
                | ToViewer::Subscribed { .. }
                | ToViewer::Gap { .. }
                | ToViewer::Presence { .. }
                | ToViewer::Patch { .. }
                | ToViewer::Heartbeat { .. }
                | ToViewer::Ended { .. }
                | ToViewer::Result { .. }
                | _ => {}
            }
        }
        Connection::close(connection, CloseCode::NORMAL, "it was read").await;
        Ok(Past { whole, before: before.unwrap_or_default() })
    }
}

/// Whether a run of the wrapper says with this that it goes on with the agent.
fn begins_run(event: &Event, generation: u64) -> bool {
    &*event.kind == "wrapper.resumed"
        && event.data.parse::<Resumed>().is_ok_and(|resumed| resumed.generation == generation)
}

fn ended(closed: Option<(CloseCode, String)>) -> LogError {
    match closed {
        Some((code, message)) => LogError::Refused { code, message },
        None => LogError::Unreachable,
    }
}
