//! Frames between wrapper and relay (§6).

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use super::tagged;
use crate::{
    AgentId, Command, CommandId, ErrorCode, ErrorDetail, NewEvent, ProducerId, Seq, Timestamp, TownId,
    config::SealedConfig, limits,
};

/// What a wrapper says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(remote = "Self", tag = "type", rename_all = "snake_case")]
#[non_exhaustive]
pub enum FromWrapper {
    /// First, always.
    Hello {
        /// The protocol's version: 1.
        protocol: u32,
        /// The wrapper's build.
        wrapper_version: String,
        /// The agent it owns.
        agent: AgentId,
        /// Its town.
        town: TownId,
        /// This wrapper run.
        producer: ProducerId,
        /// Its generation: a higher one supersedes.
        generation: u64,
        /// What it runs.
        runtime: RuntimeInfo,
        /// The number its next event will have.
        next: u64,
    },
    /// Events, numbered from `first` on.
    Append {
        /// The number of the first of them.
        first: u64,
        /// The events.
        events: Vec<NewEvent>,
    },
    /// How the wrapper is. Not part of the log.
    Presence {
        /// Its state.
        state: WrapperState,
        /// When the agent last gave a sign of life.
        last_activity: Timestamp,
    },
    /// Answer to a command.
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
        data: Option<Value>,
    },
    /// Nothing else was to be said.
    Heartbeat,
    /// The wrapper ends by its own will.
    Bye {
        /// Why.
        reason: String,
    },
}

impl Serialize for FromWrapper {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Self::serialize(self, serializer)
    }
}

impl<'de> Deserialize<'de> for FromWrapper {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Append {
            first: u64,
            events: Vec<NewEvent>,
        }
        tagged::read(
            deserializer,
            "append",
            |Append { first, events }| Self::Append { first, events },
            |json| Self::deserialize(json),
        )
    }
}

impl FromWrapper {
    /// Reads an `append`, which almost every frame is, in one pass over its text; `None` of any other text.
    pub(crate) fn read_append(text: &[u8]) -> Option<Self> {
        #[derive(Deserialize)]
        struct Append<'t> {
            #[serde(rename = "type")]
            kind: &'t str,
            first: u64,
            events: Vec<NewEvent>,
        }
        let Append { kind, first, events } = serde_json::from_slice(text).ok()?;
        (kind == "append").then_some(Self::Append { first, events })
    }
}

/// What a wrapper runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct RuntimeInfo {
    /// `opencode`, `kilo`, `acp`, `scripted`, `replay`.
    pub name: String,
    /// Its version, as it says itself.
    pub version: String,
}

/// The state of a wrapper.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum WrapperState {
    /// The agent is being started.
    Starting,
    /// It waits for a prompt.
    Idle,
    /// A turn runs.
    Active,
    /// It ends after this turn.
    Draining,
    /// It ends.
    Stopping,
}

/// What a relay says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
#[expect(clippy::large_enum_variant, reason = "frames are handled one at a time: none is kept")]
#[non_exhaustive]
pub enum ToWrapper {
    /// The link is up; the wrapper sends from `acked + 1`.
    Welcome {
        /// The protocol's version: 1.
        protocol: u32,
        /// The last number of this producer and generation that is committed; 0 if none.
        acked: u64,
        /// What the relay accepts.
        limits: IngestLimits,
        /// The resolved town config.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        config: Option<SealedConfig>,
    },
    /// Everything through this number is committed.
    Ack {
        /// That number.
        through: u64,
        /// The position of the event of that number, or of the head if it was a repetition.
        seq: Seq,
    },
    /// Events were refused; nothing from `first` on was appended.
    Nack {
        /// The number of the first event refused.
        first: u64,
        /// The stable word.
        code: ErrorCode,
        /// What was wrong and what to do.
        message: String,
        /// When to send again, where that helps.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        retry_after_ms: Option<u64>,
    },
    /// Do this.
    Command {
        /// Names the command: it is carried out at most once.
        id: CommandId,
        /// What.
        command: Command,
        /// The resolved town config.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        config: Option<SealedConfig>,
    },
    /// Nothing else was to be said.
    Heartbeat,
    /// A newer generation has the agent: stop it and exit.
    Superseded,
    /// The relay goes down: reconnect.
    Draining {
        /// After this many milliseconds.
        retry_after_ms: u64,
    },
}

/// What a relay accepts on the ingest link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct IngestLimits {
    /// Bytes of one event's `data`.
    pub max_event_bytes: usize,
    /// Events in one `append`.
    pub max_batch_events: usize,
    /// Events sent and not yet acked.
    pub window: usize,
}

impl Default for IngestLimits {
    fn default() -> Self {
        Self {
            max_event_bytes: limits::EVENT_DATA_HARD_BYTES,
            max_batch_events: limits::BATCH_EVENTS,
            window: limits::INGEST_WINDOW_EVENTS,
        }
    }
}
