//! Frames between relay and viewer (§5).

use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::tagged;
use crate::{
    AgentId, Command, CommandId, Cursor, Epoch, ErrorCode, ErrorDetail, Event, LogId, Seq, Timestamp,
};

/// What a viewer is sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(remote = "Self", tag = "type", rename_all = "snake_case")]
#[non_exhaustive]
pub enum ToViewer {
    /// First, always.
    Hello {
        /// The protocol's version: 1.
        protocol: u32,
        /// Milliseconds without other traffic after which a heartbeat is sent.
        heartbeat_ms: u64,
        /// Who speaks: `gastown/<version>`.
        server: String,
    },
    /// A subscription begins.
    Subscribed {
        /// The log.
        log: LogId,
        /// Its incarnation.
        epoch: Epoch,
        /// What lies at or below this was pruned.
        floor: Seq,
        /// The newest position.
        head: Seq,
    },
    /// One or many events, in order.
    Events {
        /// The log.
        log: LogId,
        /// The events, strictly increasing in `seq`.
        events: Vec<Event>,
    },
    /// Once: history has been delivered up to the head at subscribe time.
    Live {
        /// The log.
        log: LogId,
        /// That head.
        head: Seq,
    },
    /// What the viewer can no longer get. It drops its state and goes on from the events that follow.
    Gap {
        /// The log.
        log: LogId,
        /// First position lost; absent for `epoch`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        from: Option<Seq>,
        /// Last position lost; absent for `epoch`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        to: Option<Seq>,
        /// Why.
        reason: GapReason,
    },
    /// Whether a wrapper is connected. Not part of the log.
    Presence {
        /// The log.
        log: LogId,
        /// The wrapper's link.
        wrapper: WrapperPresence,
        /// Since when.
        since: Timestamp,
    },
    /// Changes to a page rendered by the worker (`view=html`).
    Patch {
        /// The log.
        log: LogId,
        /// The position the page shows after these changes.
        seq: Seq,
        /// The changes, in order.
        ops: Vec<PatchOp>,
    },
    /// Nothing else was to be said for `heartbeat_ms`.
    Heartbeat {
        /// The server's time.
        time: Timestamp,
    },
    /// The agent has ended; the log stays readable.
    Ended {
        /// The log.
        log: LogId,
        /// Why, as the agent's last outcome says.
        reason: String,
    },
    /// Something was refused; the socket stays open unless a close follows.
    Error {
        /// The stable word.
        code: ErrorCode,
        /// What was wrong and what to do.
        message: String,
        /// The log it concerns.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        log: Option<LogId>,
        /// When to come back.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        retry_after_ms: Option<u64>,
    },
    /// Answer to a command sent on this socket.
    Result {
        /// The command.
        id: CommandId,
        /// It was taken.
        ok: bool,
        /// Why it was not.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        error: Option<ErrorDetail>,
        /// What the agent answered.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        data: Option<serde_json::Value>,
    },
}

impl Serialize for ToViewer {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Self::serialize(self, serializer)
    }
}

impl<'de> Deserialize<'de> for ToViewer {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Events {
            log: LogId,
            events: Vec<Event>,
        }
        tagged::read(
            deserializer,
            "events",
            |Events { log, events }| Self::Events { log, events },
            |json| Self::deserialize(json),
        )
    }
}

/// Why events cannot be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum GapReason {
    /// The log is bounded, and they were the oldest.
    Pruned,
    /// The cursor is of another incarnation of the log.
    Epoch,
    /// The cursor is above the head.
    Ahead,
}

/// The wrapper's link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum WrapperPresence {
    /// It is up.
    Connected,
    /// It is not.
    Disconnected,
}

/// One change to a page: a JSON array whose first element says which.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PatchOp {
    /// `["replace", id, html]`: the element becomes this one.
    Replace(String, String),
    /// `["append", id, text]`: this text is added at the end of the element.
    Append(String, String),
    /// `["insert", parent, before, html]`: a new element in `parent`, before the element `before` or at the end.
    Insert(String, Option<String>, String),
    /// `["remove", id]`.
    Remove(String),
}

impl Serialize for PatchOp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Replace(id, html) => ("replace", id, html).serialize(serializer),
            Self::Append(id, text) => ("append", id, text).serialize(serializer),
            Self::Insert(parent, before, html) => ("insert", parent, before, html).serialize(serializer),
            Self::Remove(id) => ("remove", id).serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for PatchOp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use serde::de::Error;
        let mut items = Vec::<Option<String>>::deserialize(deserializer)?;
        let len = items.len();
        let mut take =
            |i: usize| items.get_mut(i).and_then(Option::take).ok_or_else(|| D::Error::missing_field("op"));
        match (take(0)?.as_str(), len) {
            ("replace", 3) => Ok(Self::Replace(take(1)?, take(2)?)),
            ("append", 3) => Ok(Self::Append(take(1)?, take(2)?)),
            ("insert", 4) => Ok(Self::Insert(take(1)?, take(2).ok(), take(3)?)),
            ("remove", 2) => Ok(Self::Remove(take(1)?)),
            (other, _) => Err(D::Error::custom(format!("no patch operation {other:?} with {len} elements"))),
        }
    }
}

impl schemars::JsonSchema for PatchOp {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "PatchOp".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "array", "minItems": 2, "maxItems": 4,
            "prefixItems": [{ "enum": ["replace", "append", "insert", "remove"] }],
            "items": { "type": ["string", "null"] }
        })
    }
}

/// What a viewer may say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
#[non_exhaustive]
pub enum FromViewer {
    /// Send me this log.
    Subscribe {
        /// The log.
        log: LogId,
        /// From where: absent or `null` means from the beginning of what is kept.
        #[serde(default)]
        cursor: Option<StartAt>,
        /// Only events of these types (`message.*` globs); empty means all.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        types: Vec<String>,
    },
    /// No more of this log.
    Unsubscribe {
        /// The log.
        log: LogId,
    },
    /// Steer an agent.
    Command {
        /// Names the command: it is carried out at most once.
        id: CommandId,
        /// Who is to do it.
        agent: AgentId,
        /// What.
        command: Command,
    },
    /// Answer to a heartbeat.
    Pong,
}

/// Where a subscription starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StartAt {
    /// After this cursor: `{"epoch": …, "seq": 41}`.
    After(Cursor),
    /// From now on: `{"seq": "head"}`.
    Head,
}

impl Serialize for StartAt {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::After(cursor) => cursor.serialize(serializer),
            Self::Head => serde_json::json!({ "seq": "head" }).serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for StartAt {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use serde::de::Error;
        let value = serde_json::Value::deserialize(deserializer)?;
        if value.get("seq").and_then(serde_json::Value::as_str) == Some("head") {
            return Ok(Self::Head);
        }
        Cursor::deserialize(value).map(Self::After).map_err(D::Error::custom)
    }
}

impl schemars::JsonSchema for StartAt {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "StartAt".into()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        let cursor = generator.subschema_for::<Cursor>();
        schemars::json_schema!({
            "anyOf": [cursor, { "type": "object", "properties": { "seq": { "const": "head" } }, "required": ["seq"] }]
        })
    }
}

/// The `events` frame of envelopes that are encoded already: nothing is parsed or escaped again.
#[must_use]
pub fn encode_events<'a>(log: &LogId, envelopes: impl IntoIterator<Item = &'a Bytes>) -> Bytes {
    let mut frame = format!(r#"{{"type":"events","log":"{log}","events":["#).into_bytes();
    for (i, envelope) in envelopes.into_iter().enumerate() {
        if i > 0 {
            frame.push(b',');
        }
        frame.extend_from_slice(envelope);
    }
    frame.extend_from_slice(b"]}");
    frame.into()
}
