//! The driver's two clocks.

use std::time::Instant;

use protocol::Timestamp;

/// The time of day, for what is stored and said: a driver has one place that reads it.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this is where the driver reads the time of day")]
pub fn now() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_unix_ms(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// The time that timers go by; tests may pause it.
pub(super) fn instant() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// Waits until a time of [`instant`].
pub(super) async fn sleep_until(deadline: Instant) {
    tokio::time::sleep_until(deadline.into()).await;
}
