//! Time, for measuring: one clock for producers and viewers, so that a latency is a difference.

use std::{
    sync::OnceLock,
    time::{Duration, Instant},
};

/// Nanoseconds since this process first asked.
pub(crate) fn now_ns() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    #[expect(clippy::disallowed_methods, reason = "the harness's one clock")]
    let (now, start) = (Instant::now(), *START.get_or_init(Instant::now));
    u64::try_from(now.duration_since(start).as_nanos()).unwrap_or(u64::MAX)
}

/// Seconds from one reading of [`now_ns`] to a later one.
pub(crate) fn seconds(from: u64, to: u64) -> f64 {
    to.saturating_sub(from) as f64 / 1e9
}

/// Lets the machine settle, or the clients go on, without touching them.
///
/// The main thread reads the clients' counters this way: being told of every event would cost the side that is measured
/// with.
pub(crate) fn pause(time: Duration) {
    #[expect(clippy::disallowed_methods, reason = "there is nothing to wait for but time")]
    std::thread::sleep(time);
}

/// The time of day in UTC, for people.
pub(crate) fn today() -> String {
    #[expect(clippy::disallowed_methods, reason = "the harness's one clock")]
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let ms = i64::try_from(since.as_millis()).unwrap_or(i64::MAX);
    protocol::Timestamp::from_unix_ms(ms).to_string()
}

/// How often a counter is looked at.
pub(crate) const TICK: Duration = Duration::from_millis(1);
