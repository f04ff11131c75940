//! The agent's own log, read back the way that the link goes (§4).

use std::sync::Arc;

use protocol::{
    CloseCode, ErrorCode,
    codec::{DecodeError, Frame as _},
    frame::ToViewer,
    view::SessionView,
};

use super::{
    Dial, LinkConfig, LinkError,
    connection::{Connection, Endpoint, Heard},
};

/// The log of the agent that a link is for.
#[derive(Debug)]
pub(crate) struct Log {
    endpoint: Endpoint,
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

    /// The fold of all that the relay has by now.
    pub(crate) async fn fold(self) -> Result<SessionView, LogError> {
        let mut view = SessionView::default();
        let mut connection = self.endpoint.connect().await.map_err(ended)?;
        loop {
            let text = match connection.next().await {
                Heard::Text(text) => text,
                Heard::Alive | Heard::Room => continue,
                Heard::Closed(closed) => return Err(ended(closed)),
            };
            match ToViewer::decode(text.as_bytes())? {
                ToViewer::Events { events, .. } => events.iter().for_each(|event| view.apply(event)),
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
        Ok(view)
    }
}

fn ended(closed: Option<(CloseCode, String)>) -> LogError {
    match closed {
        Some((code, message)) => LogError::Refused { code, message },
        None => LogError::Unreachable,
    }
}
