//! Time, for measuring: one clock for what is written and what comes out.

use std::{
    sync::OnceLock,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// Nanoseconds since this process first asked.
pub(crate) fn now_ns() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    #[expect(clippy::disallowed_methods, reason = "the harness's one clock")]
    let (now, start) = (Instant::now(), *START.get_or_init(Instant::now));
    u64::try_from(now.duration_since(start).as_nanos()).unwrap_or(u64::MAX)
}

/// Waits until [`now_ns`] says this: an agent server says nothing meanwhile.
pub(crate) fn wait_until(due_ns: u64) {
    #[expect(clippy::disallowed_methods, reason = "there is nothing to wait for but time")]
    std::thread::sleep(Duration::from_nanos(due_ns.saturating_sub(now_ns())));
}

/// The time of day in UTC, for people.
pub(crate) fn today() -> String {
    #[expect(clippy::disallowed_methods, reason = "the harness's one clock")]
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    protocol::Timestamp::from_unix_ms(i64::try_from(since.as_millis()).unwrap_or(i64::MAX)).to_string()
}
