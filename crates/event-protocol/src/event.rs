//! One change, as an agent reported it or as Gastown added it (§1).

use std::{fmt, sync::Arc};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{Class, Classified, Effect, Key, Seq, Timestamp, classify};

/// An event's payload: JSON text, kept byte for byte. Cheap to clone.
#[derive(Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RawData(Arc<RawValue>);

impl RawData {
    /// The JSON text of a value.
    ///
    /// # Errors
    /// When the value does not serialise (a map with keys that are no strings).
    pub fn of(value: &impl Serialize) -> Result<Self, serde_json::Error> {
        Ok(Self(serde_json::value::to_raw_value(value)?.into()))
    }

    /// Takes a JSON text as it is.
    ///
    /// # Errors
    /// When the text is not one JSON value.
    pub fn from_json(text: impl Into<String>) -> Result<Self, serde_json::Error> {
        Ok(Self(RawValue::from_string(text.into())?.into()))
    }

    /// The JSON text.
    #[must_use]
    pub fn json(&self) -> &str {
        self.0.get()
    }

    /// Reads the text as `T`.
    ///
    /// # Errors
    /// When the text has another shape.
    pub fn parse<'de, T: Deserialize<'de>>(&'de self) -> Result<T, serde_json::Error> {
        serde_json::from_str(self.json())
    }
}

impl From<&RawValue> for RawData {
    fn from(raw: &RawValue) -> Self {
        Self(raw.to_owned().into())
    }
}

impl fmt::Debug for RawData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.json())
    }
}

impl PartialEq for RawData {
    fn eq(&self, other: &Self) -> bool {
        self.json() == other.json()
    }
}

impl Eq for RawData {}

impl schemars::JsonSchema for RawData {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "RawData".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "description": "the agent's own payload, unchanged" })
    }
}

/// An event on its way to a log: it has no position yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct NewEvent {
    /// When it happened, by the producer's clock.
    pub time: Timestamp,
    /// What happened: `message.part.updated`, `agent.started`, …
    #[serde(rename = "type")]
    pub kind: Arc<str>,
    /// The session it speaks of, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<Arc<str>>,
    /// The payload.
    pub data: RawData,
}

impl NewEvent {
    /// An event that Gastown itself adds (`agent.*`, `wrapper.*`, `town.*`).
    ///
    /// # Errors
    /// When `data` does not serialise.
    pub fn of(time: Timestamp, kind: &str, data: &impl Serialize) -> Result<Self, serde_json::Error> {
        Ok(Self { time, kind: kind.into(), session: None, data: RawData::of(data)? })
    }

    /// What the log needs to know of this event (§3).
    #[must_use]
    pub fn classify(&self) -> Classified {
        classify(&self.kind, self.session.as_deref(), self.data.json())
    }

    /// The event at its place in the log.
    #[must_use]
    pub fn at(self, seq: Seq) -> Event {
        let key = self.classify().key;
        Event { seq, time: self.time, kind: self.kind, session: self.session, key, data: self.data }
    }
}

/// An event in a log: the envelope that viewers see (§1). Its JSON text is made once, when it gets its position.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Event {
    /// Position in the log.
    pub seq: Seq,
    /// When it happened, by the producer's clock.
    pub time: Timestamp,
    /// What happened.
    #[serde(rename = "type")]
    pub kind: Arc<str>,
    /// The session it speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<Arc<str>>,
    /// The entity it speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<Key>,
    /// The payload.
    pub data: RawData,
}

impl Event {
    /// The class of its type (§3).
    #[must_use]
    pub fn class(&self) -> Class {
        Class::of(&self.kind)
    }

    /// What it does to earlier events with its key (§3): nothing, if it has none.
    #[must_use]
    pub fn effect(&self) -> Effect {
        if self.key.is_none() { Effect::Append } else { Effect::of(&self.kind) }
    }

    /// The envelope as JSON: these bytes are stored and sent, live and replayed, over every transport.
    #[must_use]
    pub fn encode(&self) -> bytes::Bytes {
        let mut out = Vec::with_capacity(self.data.json().len() + 160);
        serde_json::to_writer(&mut out, self)
            .expect("an event serialises: its keys are strings and its data is JSON");
        out.into()
    }
}
