//! What the unit tests of several modules make.

use protocol::{NewEvent, RawData, Timestamp, session_of};

/// An event of this type and payload, its session taken from the payload.
pub(crate) fn event(kind: &str, data: &str) -> NewEvent {
    NewEvent {
        time: Timestamp::from_unix_ms(1_795_198_984_000),
        kind: kind.into(),
        session: session_of(kind, data),
        data: RawData::from_json(data).expect("a test's payload is JSON"),
    }
}
