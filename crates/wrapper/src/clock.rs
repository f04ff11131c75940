//! Time: the pure rules take a [`Moment`], the drivers have the one [`Clock`].

use std::{ops::Add, time::Duration};

use protocol::Timestamp;

/// Monotonic time since the wrapper began. The rules compare moments; only the [`Clock`] makes them out of nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Moment(Duration);

impl Moment {
    /// When the wrapper began.
    pub const START: Self = Self(Duration::ZERO);

    /// So many milliseconds after the wrapper began.
    #[must_use]
    pub const fn from_ms(ms: u64) -> Self {
        Self(Duration::from_millis(ms))
    }

    /// How long ago `earlier` was, zero if it is later than this.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<Duration> for Moment {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(duration))
    }
}

/// The wrapper's clock: monotonic by tokio's clock (so that tests can move it), wall-clock time for events.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    start: tokio::time::Instant,
}

impl Clock {
    /// A clock that begins here.
    #[must_use]
    pub fn start() -> Self {
        Self { start: tokio::time::Instant::now() }
    }

    /// Monotonic time by now.
    #[must_use]
    pub fn now(&self) -> Moment {
        Moment(self.start.elapsed())
    }

    /// The instant a timer is to be set to.
    #[must_use]
    pub fn instant(&self, moment: Moment) -> tokio::time::Instant {
        self.start + moment.0
    }

    /// Wall-clock time by now, for the time of an event.
    #[must_use]
    pub fn timestamp(&self) -> Timestamp {
        #[expect(clippy::disallowed_methods, reason = "the one place where the wrapper reads the wall clock")]
        let since_epoch =
            std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Timestamp::from_unix_ms(i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX))
    }
}
