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
        self.keyed(seq, key)
    }

    fn keyed(self, seq: Seq, key: Option<Key>) -> Event {
        Event { seq, time: self.time, kind: self.kind, session: self.session, key, data: self.data }
    }
}

/// The envelope of an event that has no position yet: all that is encoded before it has one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unplaced(Vec<u8>);

impl Unplaced {
    /// What an envelope begins with, at position 0.
    const HEAD: &[u8] = br#"{"seq":0"#;

    /// The envelope of this event, of which this is the key.
    #[must_use]
    pub fn of(event: &NewEvent, key: Option<&Key>) -> Self {
        Self(event.clone().keyed(Seq::ZERO, key.cloned()).encoded())
    }

    /// The envelope at its place: the bytes of [`Event::encode`].
    #[must_use]
    pub fn at(&self, seq: Seq) -> bytes::Bytes {
        let (head, rest) = (&Self::HEAD[..Self::HEAD.len() - 1], &self.0[Self::HEAD.len()..]);
        [head, seq.get().to_string().as_bytes(), rest].concat().into()
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
        self.encoded().into()
    }

    fn encoded(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.data.json().len() + 160);
        serde_json::to_writer(&mut out, self)
            .expect("an event serialises: its keys are strings and its data is JSON");
        out
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn p9_an_envelope_has_the_same_bytes_after_being_read() {
        let event = event(r#"{ "sessionID":"ses_1",  "odd": 1.50, "x":"\u00e9" }"#).at(Seq::new(7));
        let bytes = event.encode();
        let read: Event = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(read, event);
        assert_eq!(read.encode(), bytes);
    }

    #[test]
    fn the_envelope_is_the_one_of_the_document() {
        let event = event(r#"{"sessionID":"ses_1","todos":[]}"#).at(Seq::new(41));
        assert_eq!(
            event.encode(),
            r#"{"seq":41,"time":"2026-11-20T18:23:04.413Z","type":"todo.updated","session":"ses_1","key":"todo/ses_1","data":{"sessionID":"ses_1","todos":[]}}"#
        );
    }

    #[test]
    fn what_there_is_not_is_absent() {
        let event = NewEvent { session: None, kind: "file.edited".into(), ..event(r#"{"file":"a"}"#) }
            .at(Seq::new(1));
        let text = String::from_utf8(event.encode().to_vec()).unwrap();
        assert!(!text.contains("session") && !text.contains("key"), "{text}");
        assert_eq!(event.effect(), Effect::Append);
    }

    #[test]
    fn an_event_without_a_key_replaces_nothing() {
        let event = NewEvent { session: None, ..event("{}") }.at(Seq::new(1));
        assert_eq!((event.key.as_ref(), event.effect()), (None, Effect::Append));
    }

    #[test]
    fn data_must_be_one_json_value() {
        for refused in ["", "{", "{} {}", "nul", "\u{feff}{}"] {
            assert!(RawData::from_json(refused).is_err(), "{refused}");
        }
    }

    proptest! {
        #[test]
        fn an_event_survives_its_envelope(seq in 1_u64..1 << 53, ms in 0_i64..4_102_444_800_000, text in "\\PC{0,30}", kind in "[a-z.]{1,20}") {
            let data = RawData::of(&serde_json::json!({ "id": text, "sessionID": text })).unwrap();
            let time = Timestamp::from_unix_ms(ms);
            let new = NewEvent { time, kind: kind.as_str().into(), session: Some(text.as_str().into()), data };
            let event = new.clone().at(Seq::new(seq));
            prop_assert_eq!(serde_json::from_slice::<Event>(&event.encode()).unwrap(), event.clone());
            prop_assert_eq!(Unplaced::of(&new, event.key.as_ref()).at(Seq::new(seq)), event.encode());
        }
    }

    fn event(data: &str) -> NewEvent {
        NewEvent {
            time: Timestamp::from_unix_ms(1_795_198_984_413),
            kind: "todo.updated".into(),
            session: Some("ses_1".into()),
            data: RawData::from_json(data).unwrap(),
        }
    }
}
