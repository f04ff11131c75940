//! Messages and parts of a view.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::Value;

use super::Stated;
use crate::{
    Key, RawData, Seq, Timestamp,
    model::{Message, PartBody, TextPart},
};

/// One message, with its parts.
#[derive(Debug, Clone, PartialEq)]
pub struct MessageView {
    pub(super) id: Arc<str>,
    pub(super) session: Option<Arc<str>>,
    pub(super) info: Option<Stated<Message>>,
    /// By id, which is their order.
    pub(super) parts: BTreeMap<Arc<str>, PartView>,
}

/// One part of a message.
#[derive(Debug, Clone, PartialEq)]
pub struct PartView {
    pub(super) id: Arc<str>,
    pub(super) message: Arc<str>,
    pub(super) session: Option<Arc<str>>,
    pub(super) body: PartBody,
    pub(super) raw: Option<RawData>,
    /// Deltas for fields other than a text's or a reasoning's `text`, by field, joined.
    pub(super) appended: BTreeMap<String, String>,
    pub(super) changed: Seq,
    pub(super) time: Timestamp,
    pub(super) malformed: Option<String>,
}

impl MessageView {
    pub(super) fn new(id: &str) -> Self {
        Self { id: id.into(), session: None, info: None, parts: BTreeMap::new() }
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> &Arc<str> {
        &self.id
    }

    /// Its session; absent only if no event of it named one.
    #[must_use]
    pub fn session(&self) -> Option<&Arc<str>> {
        let newest =
            || self.parts.values().max_by_key(|part| part.changed).and_then(|part| part.session.as_ref());
        self.session.as_ref().or_else(newest)
    }

    /// How the server describes it; absent until it did.
    #[must_use]
    pub fn info(&self) -> Option<&Message> {
        self.info.as_ref().map(|info| &info.value)
    }

    /// The same as the server wrote it.
    #[must_use]
    pub fn raw_info(&self) -> Option<&RawData> {
        self.info.as_ref().map(|info| &info.raw)
    }

    /// The position of the last `message.updated`; zero if there was none.
    #[must_use]
    pub fn info_changed(&self) -> Seq {
        self.info.as_ref().map_or(Seq::ZERO, |info| info.seq)
    }

    /// The position of the last event of the message or of one of its parts that are left.
    #[must_use]
    pub fn changed(&self) -> Seq {
        self.parts.values().map(|part| part.changed).fold(self.info_changed(), Seq::max)
    }

    /// Its parts, in order.
    pub fn parts(&self) -> impl DoubleEndedIterator<Item = &PartView> + ExactSizeIterator {
        self.parts.values()
    }

    /// One of its parts.
    #[must_use]
    pub fn part(&self, id: &str) -> Option<&PartView> {
        self.parts.get(id)
    }

    /// Its key in the log.
    #[must_use]
    pub fn key(&self) -> Key {
        Key::new(&format!("message/{}", self.id))
    }

    /// By the time it was made, those that do not say last; then by id.
    pub(super) fn order(&self) -> (bool, Option<Timestamp>, &Arc<str>) {
        let created = self.info().and_then(|info| info.time.created);
        (created.is_none(), created, &self.id)
    }

    pub(super) fn malformed(&self) -> usize {
        let info = usize::from(self.info.as_ref().is_some_and(Stated::is_malformed));
        info + self.parts.values().filter(|part| part.malformed.is_some()).count()
    }
}

impl PartView {
    /// A part of which only deltas are known: taken for text, which is what deltas are of.
    pub(super) fn of_deltas(message: &str, id: &str, time: Timestamp) -> Self {
        Self {
            id: id.into(),
            message: message.into(),
            session: None,
            body: PartBody::Text(TextPart::default()),
            raw: None,
            appended: BTreeMap::new(),
            changed: Seq::ZERO,
            time,
            malformed: None,
        }
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> &Arc<str> {
        &self.id
    }

    /// Its message.
    #[must_use]
    pub fn message(&self) -> &Arc<str> {
        &self.message
    }

    /// Its session; absent if its last event named none.
    #[must_use]
    pub fn session(&self) -> Option<&Arc<str>> {
        self.session.as_ref()
    }

    /// What it is, deltas included.
    #[must_use]
    pub fn body(&self) -> &PartBody {
        &self.body
    }

    /// The part as the server wrote it last, without the deltas since; absent if only deltas are known of it.
    #[must_use]
    pub fn raw(&self) -> Option<&RawData> {
        self.raw.as_ref()
    }

    /// The part as the server would write it with the deltas joined, fields that are not known included.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let mut value = match &self.raw {
            Some(raw) => raw.parse().unwrap_or(Value::Null),
            None => serde_json::json!({ "id": &*self.id, "messageID": &*self.message, "type": "text" }),
        };
        if let Some(fields) = value.as_object_mut() {
            if let Some(text) = self.body.text() {
                fields.insert("text".to_owned(), text.into());
            }
            for (field, more) in &self.appended {
                let before = fields.get(field).and_then(Value::as_str).unwrap_or_default();
                fields.insert(field.clone(), format!("{before}{more}").into());
            }
        }
        value
    }

    /// The word for its type on the wire, known or not; empty if it has none.
    #[must_use]
    pub fn kind(&self) -> String {
        #[derive(serde::Deserialize)]
        struct Typed {
            #[serde(rename = "type")]
            kind: String,
        }
        self.raw.as_ref().map_or_else(
            || "text".to_owned(),
            |raw| raw.parse::<Typed>().map(|typed| typed.kind).unwrap_or_default(),
        )
    }

    /// The position of its last change.
    #[must_use]
    pub fn changed(&self) -> Seq {
        self.changed
    }

    /// The time of its last change.
    #[must_use]
    pub fn time(&self) -> Timestamp {
        self.time
    }

    /// Why its newest statement was not understood.
    #[must_use]
    pub fn malformed(&self) -> Option<&str> {
        self.malformed.as_deref()
    }

    /// Its key in the log.
    #[must_use]
    pub fn key(&self) -> Key {
        Key::new(&format!("part/{}/{}", self.message, self.id))
    }
}
