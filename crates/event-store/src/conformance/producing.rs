//! Clauses 5 and 6: repetitions, holes and fences.

use protocol::{NewEvent, Seq};

use super::{Fixture, agent, event, plains, seqs};
use crate::{Append, AppendError, Appended, EventStore, ProducerBatch, ProducerState, RetentionPolicy};

/// Clause 5: whole, in part, and long ago.
pub async fn p5_resent_events_are_appended_once(fixture: &mut impl Fixture) {
    let store = fixture.open(RetentionPolicy::default());
    let first = send(&store, "p", 1, 1, plains(1..4)).await.unwrap();
    assert_eq!((first.appended, first.acked, first.head), (3, 3, Seq::new(3)));
    let again = send(&store, "p", 1, 1, plains(1..4)).await.unwrap();
    assert_eq!((again.appended, again.acked, again.head), (0, 3, Seq::new(3)));
    let overlapping = send(&store, "p", 1, 2, plains(2..6)).await.unwrap();
    assert_eq!((overlapping.appended, overlapping.acked, overlapping.head), (2, 5, Seq::new(5)));
    let old = send(&store, "p", 1, 1, plains(1..2)).await.unwrap();
    assert_eq!((old.appended, old.acked, old.head), (0, 5, Seq::new(5)));
    assert_eq!(seqs(&store).await, [1, 2, 3, 4, 5]);
}

/// Clause 5.
pub async fn p5_a_hole_is_refused_unless_it_is_named(fixture: &mut impl Fixture) {
    let store = fixture.open(RetentionPolicy::default());
    send(&store, "p", 1, 1, plains(1..4)).await.unwrap();
    match send(&store, "p", 1, 5, plains(5..6)).await {
        Err(AppendError::Hole { acked: 3, first: 5, .. }) => {}
        other => panic!("{other:?}"),
    }
    let dropped = |from, to| {
        let data = format!(r#"{{"from":{from},"to":{to},"reason":"outbox_full"}}"#);
        vec![event("wrapper.events_dropped", None, &data)]
    };
    let too_little = send(&store, "p", 1, 10, dropped(5, 9)).await;
    assert!(matches!(too_little, Err(AppendError::Hole { .. })), "{too_little:?}");
    let named = send(&store, "p", 1, 10, dropped(4, 9)).await.unwrap();
    assert_eq!((named.appended, named.acked), (1, 10));
    assert_eq!(send(&store, "p", 1, 11, plains(11..12)).await.unwrap().head, Seq::new(5));
}

/// Clause 5: its log may have been removed since it began.
pub async fn p5_the_first_number_of_a_stranger_is_taken(fixture: &mut impl Fixture) {
    let store = fixture.open(RetentionPolicy::default());
    assert_eq!(send(&store, "p", 1, 501, plains(0..2)).await.unwrap().acked, 502);
    let hole = send(&store, "p", 1, 504, plains(0..1)).await;
    assert!(matches!(hole, Err(AppendError::Hole { acked: 502, .. })), "{hole:?}");
}

/// Clauses 5 and 7: an append whose answer was lost can be tried again as it was.
pub async fn p5_a_resent_batch_does_not_conflict(fixture: &mut impl Fixture) {
    let store = fixture.open(RetentionPolicy::default());
    let batch = || Append::of(plains(1..3)).from_producer(numbered("p", 1, 1)).expecting(Seq::ZERO);
    store.append(&agent(), batch()).await.unwrap();
    let again = store.append(&agent(), batch()).await.unwrap();
    assert_eq!((again.appended, again.head), (0, Seq::new(2)));
    let more = Append::of(plains(1..4)).from_producer(numbered("p", 1, 1)).expecting(Seq::ZERO);
    let conflict = store.append(&agent(), more).await;
    assert!(matches!(conflict, Err(AppendError::Conflict { .. })), "{conflict:?}");
    assert_eq!(state(&store).await.acked, 2);
}

/// Clause 5: a wrapper that was restarted keeps its id and numbers; another one between does not make it unknown.
pub async fn p5_numbers_go_on_over_generations(fixture: &mut impl Fixture) {
    let store = fixture.open(RetentionPolicy::default());
    send(&store, "p", 1, 1, plains(1..4)).await.unwrap();
    let resumed = send(&store, "p", 2, 2, plains(2..5)).await.unwrap();
    assert_eq!((resumed.appended, resumed.acked), (1, 4));
    send(&store, "q", 3, 1, plains(1..2)).await.unwrap();
    let back = send(&store, "p", 4, 4, plains(4..6)).await.unwrap();
    assert_eq!((back.appended, back.acked, back.head), (1, 5, Seq::new(6)));
}

/// Clause 6.
pub async fn p6_a_newer_generation_fences_the_older(fixture: &mut impl Fixture) {
    let store = fixture.open(RetentionPolicy::default());
    send(&store, "p", 1, 1, plains(1..2)).await.unwrap();
    send(&store, "q", 2, 1, plains(1..2)).await.unwrap();
    for (producer, generation, first) in [("p", 1, 2), ("p", 1, 1), ("q", 1, 2)] {
        match send(&store, producer, generation, first, plains(5..6)).await {
            Err(AppendError::Fenced { generation: 1, latest: 2, .. }) => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(seqs(&store).await, [1, 2]);
    assert_eq!(
        state(&store).await,
        ProducerState { producer: "q".parse().unwrap(), generation: 2, acked: 1 }
    );
}

/// Clause 6: before the newer one has anything to say, and before the log has an event.
pub async fn p6_an_empty_batch_registers_a_generation(fixture: &mut impl Fixture) {
    let store = fixture.open(RetentionPolicy::default());
    let registered = send(&store, "p", 7, 1, vec![]).await.unwrap();
    assert_eq!((registered.acked, registered.head), (0, Seq::ZERO));
    assert_eq!(
        state(&store).await,
        ProducerState { producer: "p".parse().unwrap(), generation: 7, acked: 0 }
    );
    assert!(matches!(
        send(&store, "o", 6, 1, plains(0..1)).await,
        Err(AppendError::Fenced { latest: 7, .. })
    ));
    send(&store, "p", 7, 1, plains(0..3)).await.unwrap();
    let again = send(&store, "p", 8, 1, vec![]).await.unwrap();
    assert_eq!((again.acked, again.head), (3, Seq::new(3)));
}

/// Clause 6.
pub async fn p6_a_rival_of_the_same_generation_is_fenced(fixture: &mut impl Fixture) {
    let store = fixture.open(RetentionPolicy::default());
    send(&store, "p", 1, 1, plains(1..2)).await.unwrap();
    let rival = send(&store, "q", 1, 1, plains(1..2)).await;
    assert!(matches!(rival, Err(AppendError::Fenced { generation: 1, latest: 1, .. })), "{rival:?}");
    assert_eq!(send(&store, "p", 1, 2, plains(2..3)).await.unwrap().acked, 2);
}

pub(super) async fn send(
    store: &impl EventStore,
    producer: &str,
    generation: u64,
    first: u64,
    events: Vec<NewEvent>,
) -> Result<Appended, AppendError> {
    store.append(&agent(), Append::of(events).from_producer(numbered(producer, generation, first))).await
}

pub(super) async fn state(store: &impl EventStore) -> ProducerState {
    store.producer(&agent()).await.unwrap().unwrap()
}

fn numbered(producer: &str, generation: u64, first: u64) -> ProducerBatch {
    ProducerBatch { producer: producer.parse().unwrap(), generation, first }
}
