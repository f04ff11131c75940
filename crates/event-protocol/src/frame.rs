//! Frames of the viewer stream (§5) and of the ingest link (§6).

mod ingest;
mod tagged;
mod viewer;

pub use ingest::{FromWrapper, IngestLimits, RuntimeInfo, ToWrapper, WrapperState};
pub use viewer::{FromViewer, GapReason, PatchOp, StartAt, ToViewer, WrapperPresence, encode_events};
