//! What an agent produces, typed, in the wire shape of kilo and opencode, old and new.
//!
//! Agent servers add fields and types with every release. Reading here is therefore tolerant: fields that are not known
//! are skipped, fields that are absent have a default, and types that are not known become an `Unknown` variant. None
//! of that loses anything: the raw JSON stays beside the typed value wherever the fold keeps one
//! ([`crate::view`]), byte for byte. Times are unix milliseconds on this wire.

mod ask;
mod message;
mod part;
mod session;
mod tool;
mod usage;
mod wire;

pub use ask::{AskedAt, Network, Permission, Question, QuestionInfo, QuestionOption, ToolCall};
pub use message::{FileDiff, Message, MessageError, MessageSummary, MessageTime, Role};
pub use part::{
    AgentPart, CompactionPart, FilePart, Part, PartBody, PartTime, PatchPart, RetryPart, SnapshotPart,
    StepFinishPart, StepStartPart, SubtaskPart, TextPart,
};
pub use session::{ModelInUse, Revert, Session, SessionStatus, SessionSummary, SessionTime, Todo};
pub use tool::{ToolPart, ToolState, ToolStateCompleted, ToolStateError, ToolStatePending, ToolStateRunning};
pub use usage::{CacheTokens, Tokens, Usage};
