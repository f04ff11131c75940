//! Following the head of a log without a timer and without a runtime: what a backend feeds, and what a reader awaits.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Poll, Waker},
};

use protocol::{Epoch, Seq};

/// The newest position of a log, as a tail sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// The log's incarnation.
    pub epoch: Epoch,
    /// The newest committed position.
    pub seq: Seq,
}

/// Follows the head of one log. Cheap; holds nothing of the log.
pub struct Tail {
    shared: Arc<Shared>,
    /// Names this tail among those that wait.
    id: u64,
    /// The version of the head that it returned last, or began with.
    seen: u64,
}

/// The backend's end: it says where the head is. Dropping it ends the tails.
#[derive(Debug)]
pub struct HeadFeed(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    head: Option<Head>,
    /// Counts changes of `head`.
    version: u64,
    is_closed: bool,
    next_id: u64,
    /// Keyed by [`Tail::id`]: a tail waits at most once at a time, so this is no longer than there are tails.
    waiting: BTreeMap<u64, Waker>,
}

impl HeadFeed {
    /// Of a log that is not there yet.
    #[must_use]
    pub fn new() -> Self {
        Self(Arc::default())
    }

    /// A tail that begins at the present head.
    #[must_use]
    pub fn tail(&self) -> Tail {
        let seen = self.0.lock().version;
        Tail::of(&self.0, seen)
    }

    /// Moves the head, after the commit; `None` when the log is removed. Wakes the tails if it is another head.
    pub fn publish(&self, head: Option<Head>) {
        let mut state = self.0.lock();
        if state.head != head {
            state.head = head;
            state.version += 1;
            wake(state);
        }
    }

    /// Whether anybody has a tail of it.
    #[must_use]
    pub fn is_followed(&self) -> bool {
        Arc::strong_count(&self.0) > 1
    }
}

impl Default for HeadFeed {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for HeadFeed {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.is_closed = true;
        wake(state);
    }
}

impl Tail {
    /// The head by now; `None` while the log is not there.
    #[must_use]
    pub fn head(&self) -> Option<Head> {
        self.shared.lock().head.clone()
    }

    /// Waits until the head is another than the one this tail returned last; `None` when the store is gone.
    /// Cancel-safe.
    pub async fn changed(&mut self) -> Option<Head> {
        std::future::poll_fn(|context| {
            let mut state = self.shared.lock();
            if state.version != self.seen {
                self.seen = state.version;
                if let Some(head) = &state.head {
                    return Poll::Ready(Some(head.clone()));
                }
            }
            if state.is_closed {
                return Poll::Ready(None);
            }
            state.waiting.insert(self.id, context.waker().clone());
            Poll::Pending
        })
        .await
    }

    fn of(shared: &Arc<Shared>, seen: u64) -> Self {
        let mut state = shared.lock();
        let id = state.next_id;
        state.next_id += 1;
        drop(state);
        Self { shared: Arc::clone(shared), id, seen }
    }
}

impl Clone for Tail {
    fn clone(&self) -> Self {
        Self::of(&self.shared, self.seen)
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        self.shared.lock().waiting.remove(&self.id);
    }
}

impl fmt::Debug for Tail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tail").field("head", &self.head()).finish_non_exhaustive()
    }
}

impl Shared {
    /// Nothing panics while the lock is held, so a poisoned one still guards a whole state.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Wakes whoever waits, without the lock: a waker may run anything.
fn wake(mut state: MutexGuard<'_, State>) {
    let waiting = std::mem::take(&mut state.waiting);
    drop(state);
    for waker in waiting.into_values() {
        waker.wake();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_tail_that_waits_is_woken_and_none_is_kept() {
        let feed = HeadFeed::new();
        let tail = feed.tail();
        let mut waiting = tokio::task::JoinSet::new();
        for _ in 0..10 {
            let mut tail = tail.clone();
            waiting.spawn(async move { tail.changed().await });
        }
        tokio::task::yield_now().await;
        assert_eq!(feed.0.lock().waiting.len(), 10);
        feed.publish(Some(head(1)));
        while let Some(woken) = waiting.join_next().await {
            assert_eq!(woken.unwrap(), Some(head(1)));
        }
        assert_eq!(feed.0.lock().waiting.len(), 0);
    }

    #[tokio::test]
    async fn a_wait_that_is_dropped_loses_nothing() {
        let feed = HeadFeed::new();
        let mut tail = feed.tail();
        tokio::select! {
            biased;
            _ = tail.changed() => panic!("nothing was published"),
            () = std::future::ready(()) => {}
        }
        feed.publish(Some(head(1)));
        assert_eq!(tail.changed().await, Some(head(1)));
        drop(tail);
        assert!(!feed.is_followed() && feed.0.lock().waiting.is_empty());
    }

    #[tokio::test]
    async fn the_last_head_is_seen_before_the_end() {
        let feed = HeadFeed::new();
        let mut tail = feed.tail();
        feed.publish(Some(head(1)));
        feed.publish(None);
        feed.publish(Some(head(2)));
        drop(feed);
        assert_eq!(tail.changed().await, Some(head(2)));
        assert_eq!(tail.changed().await, None);
        assert_eq!(tail.changed().await, None);
    }

    fn head(seq: u64) -> Head {
        Head { epoch: Epoch::new("e"), seq: Seq::new(seq) }
    }
}
