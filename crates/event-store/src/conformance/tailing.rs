//! Clauses 4 and 12: tails and the output gate.

use std::{
    pin::pin,
    task::{Context, Poll, Waker},
};

use protocol::Seq;

use super::{Fixture, agent, append, other_agent, plains, read_all, soon};
use crate::{Append, EventStore, Head, RetentionPolicy, Tail};

/// Clauses 4 and 12.
pub async fn p4_a_tail_wakes_when_the_event_can_be_read(fixture: &mut impl Fixture) {
    let store = fixture.open(RetentionPolicy::default());
    let mut tail = store.tail(&agent());
    for n in 0..50 {
        // The append may return before or after the tail wakes: what the tail says is committed either way.
        let (head, appended) = futures_join(soon(tail.changed()), append(&store, plains(n..n + 1))).await;
        let head = head.expect("the store is there");
        assert_eq!(head, Head { epoch: appended.epoch, seq: appended.head });
        assert_eq!(read_all(&store, &agent(), Seq::new(n)).await.len(), 1);
    }
}

/// Clauses 12 and 15.
pub async fn a_tail_of_an_unknown_log_waits_for_its_first_commit(fixture: &mut impl Fixture) {
    let store = fixture.open(RetentionPolicy::default());
    let mut tail = store.tail(&agent());
    assert_eq!(tail.head(), None);
    assert!(is_asleep(&mut tail));
    let appended = append(&store, vec![]).await;
    assert_eq!(soon(tail.changed()).await, Some(Head { epoch: appended.epoch, seq: Seq::ZERO }));
}

/// Clause 12.
pub async fn a_slow_tail_sees_the_newest_head(fixture: &mut impl Fixture) {
    let store = fixture.open(RetentionPolicy::default());
    append(&store, plains(0..1)).await;
    let mut tail = store.tail(&agent());
    assert_eq!(tail.head().map(|head| head.seq), Some(Seq::new(1)));
    for n in 1..20 {
        append(&store, plains(n..n + 1)).await;
    }
    assert_eq!(soon(tail.changed()).await.map(|head| head.seq), Some(Seq::new(20)));
    assert!(is_asleep(&mut tail));
}

/// Clauses 10 and 12: it is told of the next incarnation.
pub async fn a_tail_survives_the_removal_of_its_log(fixture: &mut impl Fixture) {
    let store = fixture.open(RetentionPolicy::default());
    let old = append(&store, plains(0..3)).await;
    let mut tail = store.tail(&agent());
    store.remove(&agent()).await.unwrap();
    assert_eq!(tail.head(), None);
    assert!(is_asleep(&mut tail));
    let new = append(&store, plains(0..1)).await;
    let head = soon(tail.changed()).await.unwrap();
    assert_ne!(head.epoch, old.epoch);
    assert_eq!(head, Head { epoch: new.epoch, seq: Seq::new(1) });
}

/// Clause 12, from the other side.
pub async fn tails_of_other_logs_stay_asleep(fixture: &mut impl Fixture) {
    let store = fixture.open(RetentionPolicy::default());
    store.append(&other_agent(), Append::of(plains(0..1))).await.unwrap();
    let mut tail = store.tail(&other_agent());
    append(&store, plains(0..3)).await;
    assert!(is_asleep(&mut tail));
}

/// Whether nothing is there for it by now.
fn is_asleep(tail: &mut Tail) -> bool {
    pin!(tail.changed()).poll(&mut Context::from_waker(Waker::noop())).is_pending()
}

/// Both, at the same time.
async fn futures_join<A, B>(a: impl Future<Output = A>, b: impl Future<Output = B>) -> (A, B) {
    let (mut a, mut b) = (pin!(a), pin!(b));
    let (mut from_a, mut from_b) = (None, None);
    std::future::poll_fn(|context| {
        if from_a.is_none()
            && let Poll::Ready(value) = a.as_mut().poll(context)
        {
            from_a = Some(value);
        }
        if from_b.is_none()
            && let Poll::Ready(value) = b.as_mut().poll(context)
        {
            from_b = Some(value);
        }
        match (from_a.take(), from_b.take()) {
            (Some(a), Some(b)) => Poll::Ready((a, b)),
            (a, b) => {
                (from_a, from_b) = (a, b);
                Poll::Pending
            }
        }
    })
    .await
}
