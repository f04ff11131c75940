use std::{future::poll_fn, pin::Pin, task::Poll};

use protocol::{NewEvent, Timestamp};
use store::{Append, MemoryStore, RetentionPolicy};
use tokio::task::yield_now;

use super::*;

#[tokio::test]
async fn an_append_waits_for_every_writer_that_has_viewers_of_the_log() {
    let logs = Logs::new(9);
    let first = logs.append(1).await;
    let seat = logs.feeds.seat(&log()).unwrap();
    let wake = Arc::default();
    seat.feed().watch(&wake);
    logs.fed(&wake, &seat, first).await;
    for writer in [1, 2] {
        seat.feed().join(writer);
    }
    let head = logs.append(1).await;
    let mut shown = Box::pin(seat.feed().shown(head));
    assert!(is_waiting(&mut shown).await);
    logs.fed(&wake, &seat, head).await;
    seat.feed().passed(1, head);
    assert!(is_waiting(&mut shown).await, "the other writer has not offered it");
    seat.feed().passed(2, first);
    assert!(is_waiting(&mut shown).await, "what it has offered came before");
    seat.feed().passed(2, head);
    shown.await;
}

#[tokio::test]
async fn an_append_waits_for_no_writer_whose_viewers_have_left() {
    let logs = Logs::new(9);
    let seat = logs.feeds.seat(&log()).unwrap();
    seat.feed().join(1);
    let head = logs.append(1).await;
    let mut shown = Box::pin(seat.feed().shown(head));
    assert!(is_waiting(&mut shown).await);
    seat.feed().part(1);
    shown.await;
    drop(seat);
    logs.feeds.shown(&log(), logs.append(1).await).await;
}

#[tokio::test(start_paused = true)]
async fn a_writer_that_stands_still_holds_nobody_back_for_ever() {
    let logs = Logs::new(9);
    let seat = logs.feeds.seat(&log()).unwrap();
    seat.feed().join(1);
    let began = clock::instant();
    logs.feeds.shown(&log(), logs.append(1).await).await;
    assert_eq!(clock::instant() - began, SHOWN_WITHIN);
}

#[tokio::test]
async fn what_one_reader_read_of_history_is_there_for_the_next() {
    let logs = Logs::new(9);
    let head = logs.append(3 * READ.events as u64).await;
    let seat = logs.feeds.seat(&log()).unwrap();
    let epoch = logs.feeds.bounds(&log()).await.unwrap().epoch;
    assert!(matches!(logs.feeds.hot(seat.feed(), &epoch, Seq::ZERO), After::Behind));
    let read = logs.feeds.read(&log(), Seq::ZERO).await.unwrap().segment.unwrap();
    for position in [0, 1, READ.events as u64 - 1] {
        let After::Segment(found) = logs.feeds.hot(seat.feed(), &epoch, Seq::new(position)) else {
            panic!("{position} is in the page")
        };
        assert_eq!(found.frame().as_ptr(), read.frame().as_ptr(), "it is the same memory");
    }
    assert!(matches!(logs.feeds.hot(seat.feed(), &epoch, read.last()), After::Behind));
    let last = Seq::new(head.get() - 1);
    logs.feeds.read(&log(), last).await.unwrap();
    assert!(
        matches!(logs.feeds.hot(seat.feed(), &epoch, last), After::Behind),
        "the end of a log grows: it is the hot tail's"
    );
}

#[tokio::test]
async fn a_seat_that_is_left_is_free() {
    let logs = Logs::new(2);
    let first = logs.feeds.seat(&log()).unwrap();
    let _second = logs.feeds.seat(&log()).unwrap();
    assert_eq!(logs.feeds.seat(&log()).unwrap_err().code, ErrorCode::RateLimited);
    drop(first);
    assert!(logs.feeds.seat(&log()).is_ok());
    assert!(logs.feeds.seat(&"agent/other".parse().unwrap()).is_ok());
}

#[tokio::test]
async fn a_feed_ends_with_its_last_seat() {
    let logs = Logs::new(9);
    logs.append(1).await;
    drop(logs.feeds.seat(&log()).unwrap());
    logs.feeds.tracker.close();
    logs.feeds.tracker.wait().await;
}

struct Logs {
    store: Arc<MemoryStore>,
    feeds: Arc<Feeds>,
}

impl Logs {
    fn new(viewers_per_log: usize) -> Self {
        let store = Arc::new(MemoryStore::new(RetentionPolicy::default()));
        let (tracker, stopped) = (TaskTracker::new(), CancellationToken::new());
        let feeds = Feeds::new(store.clone(), tracker, stopped, viewers_per_log);
        Self { store, feeds }
    }

    async fn append(&self, count: u64) -> Seq {
        let event = |n| NewEvent::of(Timestamp::from_unix_ms(0), "note", &n).unwrap();
        self.store.append(&log(), Append::of((0..count).map(event).collect())).await.unwrap().head
    }

    /// Waits until the hot tail has what there is up to `head`.
    async fn fed(&self, wake: &Arc<Wake>, seat: &Seat, head: Seq) {
        while seat.feed().head().0 < head {
            wake.wait().await;
            wake.take();
        }
    }
}

fn log() -> LogId {
    "agent/a1".parse().unwrap()
}

/// Whether a future has not ended, although everyone else had their turn.
async fn is_waiting(future: &mut (impl Future<Output = ()> + Unpin)) -> bool {
    for _ in 0..10 {
        yield_now().await;
    }
    poll_fn(|context| Poll::Ready(Pin::new(&mut *future).poll(context).is_pending())).await
}
