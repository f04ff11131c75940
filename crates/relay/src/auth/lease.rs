//! How long what somebody was let in for counts.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How long what somebody was let in for counts. Most credentials are looked at once, when a stream begins; a share link
/// and a user token end the streams that they opened.
#[derive(Debug, Clone, Default)]
pub struct Lease(Option<Arc<Limited>>);

#[derive(Debug)]
struct Limited {
    /// For ever, without.
    until: Option<Instant>,
    withdrawn: CancellationToken,
}

impl Lease {
    /// Waits until it is over; for ever, if it never is.
    pub async fn ended(&self) {
        let Some(limited) = &self.0 else { return std::future::pending().await };
        let over = async {
            match limited.until {
                Some(until) => tokio::time::sleep_until(until).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = limited.withdrawn.cancelled() => {}
            () = over => {}
        }
    }

    /// Whether it is over.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.0.as_ref().is_some_and(|limited| {
            limited.withdrawn.is_cancelled() || limited.until.is_some_and(|until| until <= Instant::now())
        })
    }

    /// Whether it can be over one day.
    #[must_use]
    pub fn is_limited(&self) -> bool {
        self.0.is_some()
    }
}

impl PartialEq for Lease {
    fn eq(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (None, None) => true,
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            (None, Some(_)) | (Some(_), None) => false,
        }
    }
}

impl Eq for Lease {}

/// Ends the leases of a credential when it is forgotten, for whatever reason.
#[derive(Debug, Default)]
pub(super) struct Withdrawal(CancellationToken);

impl Withdrawal {
    /// A lease that this ends, if its time is not over before.
    pub(super) fn lease(&self, left: Option<Duration>) -> Lease {
        // What no clock reaches is for ever.
        let until = left.and_then(|left| Instant::now().checked_add(left));
        Lease(Some(Arc::new(Limited { until, withdrawn: self.0.clone() })))
    }
}

impl Drop for Withdrawal {
    fn drop(&mut self) {
        self.0.cancel();
    }
}
