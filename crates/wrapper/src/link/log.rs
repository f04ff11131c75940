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

#[cfg(test)]
mod tests {
    use protocol::{LogId, NewEvent, Seq};

    use super::{
        super::testing::{Relay, config},
        *,
    };
    use crate::testing::event;

    #[tokio::test]
    async fn what_was_said_before_this_run_is_told_apart_from_the_rest() {
        let log = || LogId::Agent("a".parse().expect("an id"));
        let resumed =
            |generation: u64| event("wrapper.resumed", &format!(r#"{{"generation":{generation}}}"#));
        let events = [begun("s1"), resumed(1), begun("s2"), resumed(2), begun("s3"), resumed(2), begun("s4")];
        let events = events.into_iter().zip(1..).map(|(event, seq)| event.at(Seq::new(seq))).collect();
        let said =
            [ToViewer::Events { log: log(), events }, ToViewer::Live { log: log(), head: Seq::new(7) }];
        let Past { whole, before } = read(&said).await.unwrap();
        let has = |view: &SessionView| ["s1", "s2", "s3", "s4"].map(|id| view.session(id).is_some());
        assert_eq!(has(&whole), [true; 4]);
        assert_eq!(has(&before), [true, true, false, false], "a run may say more than once that it goes on");
    }

    #[tokio::test]
    async fn a_log_that_the_relay_does_not_give_is_an_error_in_its_words() {
        let message = "the log is damaged".to_owned();
        let refused = ToViewer::Error { code: ErrorCode::Internal, message, log: None, retry_after_ms: None };
        let error = read(&[refused]).await.unwrap_err();
        assert_eq!(error.to_string(), "the relay refused: internal the log is damaged");
    }

    /// What the run with generation 2 makes of this.
    async fn read(said: &[ToViewer]) -> Result<Past, LogError> {
        let (dial, mut relay) = Relay::new();
        let log = Log::of(&config(), dial).expect("a relay's URL");
        let says = async {
            let mut peer = relay.accept().await;
            for frame in said {
                peer.say(frame).await;
            }
            peer.close(CloseCode::NORMAL).await;
        };
        tokio::join!(log.read(2), says).0
    }

    fn begun(session: &str) -> NewEvent {
        event("session.created", &format!(r#"{{"sessionID":"{session}","info":{{"id":"{session}"}}}}"#))
    }
}
