//! Time, for measuring: one clock for all that is sent and all that comes, so that a latency is a difference.

use std::{
    sync::OnceLock,
    thread::sleep,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// Nanoseconds since this process first asked.
#[must_use]
pub fn now_ns() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    #[expect(clippy::disallowed_methods, reason = "a harness's one clock")]
    let (now, start) = (Instant::now(), *START.get_or_init(Instant::now));
    u64::try_from(now.duration_since(start).as_nanos()).unwrap_or(u64::MAX)
}

/// Seconds from one reading of [`now_ns`] to a later one.
#[must_use]
pub fn seconds(from_ns: u64, to_ns: u64) -> f64 {
    to_ns.saturating_sub(from_ns) as f64 / 1e9
}

/// Lets the machine settle, or others go on, without touching them.
///
/// A harness's main thread reads counters this way: being told of every event would cost the side that is measured with.
pub fn pause(time: Duration) {
    #[expect(clippy::disallowed_methods, reason = "there is nothing to wait for but time")]
    sleep(time);
}

/// Waits until [`now_ns`] says this.
pub fn wait_until(due_ns: u64) {
    pause(Duration::from_nanos(due_ns.saturating_sub(now_ns())));
}

/// The time of day in UTC, for people.
#[must_use]
pub fn today() -> String {
    #[expect(clippy::disallowed_methods, reason = "a harness's one clock")]
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    protocol::Timestamp::from_unix_ms(i64::try_from(since.as_millis()).unwrap_or(i64::MAX)).to_string()
}
