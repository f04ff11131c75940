//! Follows the server's event stream, and takes it up again when it breaks off: what [`Health`] says.

use std::{borrow::Cow, sync::Arc, time::Duration};

use futures_util::StreamExt as _;
use protocol::{NewEvent, RawData, Timestamp, session_of};
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::{
    sync::{Notify, mpsc},
    time::{sleep, sleep_until, timeout_at},
};
use tokio_util::sync::CancellationToken;

use super::{
    Flavour,
    api::{Api, ApiError, EventStream},
    health::{Doing, Health},
    server_state,
};
use crate::{
    Clock, Moment,
    runtime::{ServerState, Signal},
};

/// How long the rest of the stream may take to come when the server is gone.
const LAST_EVENTS: Duration = Duration::from_secs(1);

/// The stream of one server.
pub(super) struct Follow {
    pub(super) api: Api,
    pub(super) flavour: Flavour,
    pub(super) session: String,
    pub(super) signals: mpsc::Sender<Signal>,
    pub(super) clock: Clock,
    pub(super) health: Health,
    /// The server is gone.
    pub(super) gone: CancellationToken,
    /// Somebody wants to hear once more what the server says of its sessions.
    pub(super) again: Arc<Notify>,
}

/// Why a stream is followed no more.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Over {
    /// The server is gone.
    Gone,
    /// Nobody takes the signals any more.
    Unheard,
    /// The server hangs: [`Health::verdict`] says how.
    Hung,
}

impl Follow {
    /// Hands everything on until the server is gone, hangs, or nobody listens. Gives its health back.
    pub(super) async fn run(mut self, mut stream: EventStream) -> (Over, Health) {
        loop {
            let gone = self.gone.clone();
            let over = match self.health.doing() {
                Doing::Follow { until } => self.hand_on(&mut stream, until).await,
                Doing::Probe { until } => or_gone(&gone, self.probe(until)).await,
                Doing::TakeUp { until } => or_gone(&gone, self.take_up(&mut stream, until)).await,
                Doing::Rest { until } => or_gone(&gone, self.rest(until)).await,
                Doing::End => Err(Over::Hung),
            };
            if let Err(over) = over {
                return (over, self.health);
            }
        }
    }

    /// The next event, or the end of the stream.
    async fn hand_on(&mut self, stream: &mut EventStream, until: Moment) -> Result<(), Over> {
        let next = tokio::select! {
            next = timeout_at(self.clock.instant(until), stream.next()) => next,
            () = self.again.notified() => {
                self.health.lost(self.clock.now(), "its state was asked for".to_owned());
                return Ok(());
            }
            // What the server sent before its end is still to be read, also if somebody else holds its socket open.
            () = after(&self.gone, LAST_EVENTS) => return Err(Over::Gone),
        };
        let why = match next {
            Ok(Some(Ok(data))) => {
                if let Some(signal) = signal_of(&data, self.clock.timestamp()) {
                    self.signals.send(signal).await.map_err(|_| Over::Unheard)?;
                }
                // Also time in which the wrapper took nothing is no silence of the server.
                self.health.heard(self.clock.now());
                return Ok(());
            }
            Ok(Some(Err(error))) => format!("its event stream broke off ({error})"),
            Ok(None) => "its event stream ended".to_owned(),
            Err(_) => {
                tracing::warn!(generation = self.health.generation(), "the agent server is silent");
                self.health.handle_timeout(self.clock.now().max(until));
                return Ok(());
            }
        };
        tracing::debug!(generation = self.health.generation(), why, "the event stream is lost");
        self.health.lost(self.clock.now(), why);
        Ok(())
    }

    async fn probe(&mut self, until: Moment) -> Result<(), Over> {
        match timeout_at(self.clock.instant(until), self.api.health()).await {
            Ok(Ok(_)) => self.health.probed(self.clock.now()),
            Ok(Err(error)) => self.health.failed(self.clock.now(), error.to_string()),
            Err(_) => self.health.handle_timeout(self.clock.now().max(until)),
        }
        Ok(())
    }

    /// A new stream, what the server says of its sessions handed on before its first event.
    async fn take_up(&mut self, stream: &mut EventStream, until: Moment) -> Result<(), Over> {
        // Whatever the last subscription still has counts no more.
        *stream = futures_util::stream::empty().boxed();
        match timeout_at(self.clock.instant(until), self.subscribe()).await {
            Ok(Ok((next, state))) => {
                self.signals.send(Signal::CaughtUp(Box::new(state))).await.map_err(|_| Over::Unheard)?;
                *stream = next;
                self.health.taken_up(self.clock.now());
                tracing::info!(generation = self.health.generation(), "the event stream was taken up again");
            }
            Ok(Err(error)) => self.health.failed(self.clock.now(), error.to_string()),
            Err(_) => self.health.handle_timeout(self.clock.now().max(until)),
        }
        Ok(())
    }

    async fn subscribe(&self) -> Result<(EventStream, ServerState), ApiError> {
        // Events first, state then: what happens between is in both, and in none it could not be.
        let stream = self.api.subscribe().await?;
        let state = server_state::fetch(&self.api, self.flavour, &self.session).await?;
        Ok((stream, state))
    }

    async fn rest(&mut self, until: Moment) -> Result<(), Over> {
        tokio::select! {
            () = self.signals.closed() => Err(Over::Unheard),
            () = sleep_until(self.clock.instant(until)) => {
                self.health.handle_timeout(self.clock.now().max(until));
                Ok(())
            }
        }
    }
}

async fn or_gone(
    gone: &CancellationToken,
    doing: impl Future<Output = Result<(), Over>>,
) -> Result<(), Over> {
    tokio::select! {
        biased;
        () = gone.cancelled() => Err(Over::Gone),
        done = doing => done,
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
