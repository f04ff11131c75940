//! Follows the server's event stream, and takes it up again when it breaks off.

use std::{borrow::Cow, time::Duration};

use futures_util::StreamExt as _;
use protocol::{NewEvent, RawData, Timestamp, session_of};
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::{
    sync::mpsc,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    api::{Api, ApiError, EventStream},
    server_state,
};
use crate::{Clock, runtime::Signal};

/// A server says something every 10 s; one that is silent for longer has a broken stream (§10).
const SILENCE: Duration = Duration::from_secs(15);

/// Between two tries to take the stream up again.
const RETRY: Duration = Duration::from_millis(250);

/// How long the rest of the stream may take to come when the server is gone.
const LAST_EVENTS: Duration = Duration::from_secs(1);

/// The stream of one server.
pub(super) struct Follow {
    pub(super) api: Api,
    pub(super) session: String,
    pub(super) signals: mpsc::Sender<Signal>,
    pub(super) clock: Clock,
    /// The server is gone.
    pub(super) gone: CancellationToken,
}

/// Nobody takes the signals any more.
struct Unheard;

impl Follow {
    /// Hands everything on until the server is gone or nobody listens.
    pub(super) async fn run(self, stream: EventStream) {
        let mut stream = stream;
        let mut generation = 1_u64;
        while self.hand_on(stream).await.is_ok() {
            let Some(next) = self.take_up().await else { return };
            generation += 1;
            tracing::info!(generation, "the event stream was taken up again");
            stream = next;
        }
    }

    /// Until the stream ends, breaks or is silent for too long.
    async fn hand_on(&self, mut stream: EventStream) -> Result<(), Unheard> {
        loop {
            let next = tokio::select! {
                next = timeout(SILENCE, stream.next()) => next,
                // What the server sent before its end is still to be read, also if somebody else holds its socket open.
                () = after(&self.gone, LAST_EVENTS) => return Ok(()),
            };
            let data = match next {
                Ok(Some(Ok(data))) => data,
                Ok(Some(Err(error))) => {
                    tracing::debug!(error, "the event stream broke off");
                    return Ok(());
                }
                Ok(None) => {
                    tracing::debug!("the event stream ended");
                    return Ok(());
                }
                Err(_) => {
                    tracing::warn!("the agent server was silent for {} s", SILENCE.as_secs());
                    return Ok(());
                }
            };
            if let Some(signal) = signal_of(&data, self.clock.timestamp()) {
                self.signals.send(signal).await.map_err(|_| Unheard)?;
            }
        }
    }

    /// A new stream, what the server says of its sessions handed on before its first event. Nothing once the server is gone.
    async fn take_up(&self) -> Option<EventStream> {
        loop {
            tokio::select! {
                biased;
                () = self.gone.cancelled() => return None,
                taken_up = self.try_to_take_up() => match taken_up {
                    Ok((stream, signal)) => {
                        self.signals.send(signal).await.ok()?;
                        return Some(stream);
                    }
                    Err(error) => tracing::debug!(%error, "the event stream cannot be taken up"),
                },
            }
            tokio::select! {
                () = self.gone.cancelled() => return None,
                () = self.signals.closed() => return None,
                () = sleep(RETRY) => {}
            }
        }
    }

    async fn try_to_take_up(&self) -> Result<(EventStream, Signal), ApiError> {
        self.api.health().await?;
        // Events first, state then: what happens between is in both, and in none it could not be.
        let stream = self.api.subscribe().await?;
        let state = server_state::fetch(&self.api, &self.session).await?;
        Ok((stream, Signal::CaughtUp(Box::new(state))))
    }
}

async fn after(event: &CancellationToken, delay: Duration) {
    event.cancelled().await;
    sleep(delay).await;
}

/// An event as servers send it. Its `id` is left out: it is for telling repetitions, and a stream has none.
#[derive(Deserialize)]
struct Wire<'a> {
    #[serde(borrow, rename = "type")]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    properties: Option<&'a RawValue>,
}

fn signal_of(data: &str, now: Timestamp) -> Option<Signal> {
    let Ok(Wire { kind, properties }) = serde_json::from_str::<Wire<'_>>(data) else {
        tracing::warn!(bytes = data.len(), "an event is not understood");
        return None;
    };
    match &*kind {
        "server.heartbeat" | "server.connected" => return Some(Signal::Alive),
        // Says a second time, in a shape of its own, what the other events say.
        "sync" => return None,
        _ => {}
    }
    let data = properties.map_or("{}", RawValue::get);
    let session = session_of(&kind, data);
    let data = RawData::from_json(data).ok()?;
    Some(Signal::Event(NewEvent { time: now, kind: kind.as_ref().into(), session, data }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signal(data: &str) -> Option<Signal> {
        signal_of(data, Timestamp::from_unix_ms(7))
    }

    #[test]
    fn an_event_keeps_its_payload_to_the_letter_and_gets_its_session() {
        let data = r#"{"id":"evt_1","type":"message.part.updated","properties":{"part":{"sessionID":"ses_1","n":1.50,"a":"\u00e9"}}}"#;
        let Some(Signal::Event(event)) = signal(data) else { panic!("an event") };
        assert_eq!((&*event.kind, event.session.as_deref()), ("message.part.updated", Some("ses_1")));
        assert_eq!(event.data.json(), r#"{"part":{"sessionID":"ses_1","n":1.50,"a":"\u00e9"}}"#);
        assert_eq!(event.time, Timestamp::from_unix_ms(7));
    }

    #[test]
    fn a_heartbeat_is_a_sign_of_life_and_no_event() {
        assert!(matches!(signal(r#"{"type":"server.heartbeat","properties":{}}"#), Some(Signal::Alive)));
    }

    #[test]
    fn an_unknown_type_goes_on_and_a_repetition_or_rubbish_does_not() {
        let Some(Signal::Event(event)) = signal(r#"{"type":"new.thing"}"#) else { panic!("an event") };
        assert_eq!((&*event.kind, event.data.json(), event.session), ("new.thing", "{}", None));
        assert!(signal(r#"{"type":"sync","syncEvent":{"type":"message.updated.1"}}"#).is_none());
        for rubbish in ["", "{", "[]", r#"{"properties":{}}"#] {
            assert!(signal(rubbish).is_none(), "{rubbish:?}");
        }
    }
}
