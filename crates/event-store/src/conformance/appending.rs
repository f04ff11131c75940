//! Clauses 1, 2 and 7: order, atomicity, expectation.

use std::collections::BTreeSet;

use protocol::{LogId, RawData, Seq, limits};

use super::{Fixture, agent, append, event, other_agent, plain, plains, read_all, seqs};
use crate::{Append, AppendError, EventStore, ProducerBatch, ReadError, RetentionPolicy};

/// Clause 1.
pub async fn positions_grow_in_the_order_of_the_batches(fixture: &mut impl Fixture) {
    let store = fixture.open(RetentionPolicy::default());
    let first = append(&store, plains(0..3)).await;
    assert_eq!((first.head, first.appended), (Seq::new(3), 3));
    let second = append(&store, plains(3..5)).await;
    assert_eq!((second.head, &second.epoch), (Seq::new(5), &first.epoch));
    let records = read_all(&store, &agent(), Seq::ZERO).await;
    let read: Vec<_> = records.iter().map(|record| (record.seq.get(), data(record))).collect();
    let expected: Vec<_> = (0..5).map(|n| (n + 1, format!(r#"{{"n":{n}}}"#))).collect();
    assert_eq!(read, expected);
}

/// Clause 2: also when the refused event is not the first, and also of the log itself.
pub async fn a_refused_batch_leaves_nothing(fixture: &mut impl Fixture) {
    let store = fixture.open(RetentionPolicy::default());
    append(&store, plains(0..2)).await;
    let too_large = || Append::of(vec![plain(2), oversized()]);
    store.append(&agent(), too_large()).await.unwrap_err();
    assert_eq!(seqs(&store).await, [1, 2]);
    store.append(&other_agent(), too_large()).await.unwrap_err();
    let unknown = store.bounds(&other_agent()).await;
    assert!(matches!(unknown, Err(ReadError::UnknownLog { .. })), "{unknown:?}");
}

/// Clause 2: backends may commit them together, but each stands for itself.
pub async fn a_refused_batch_does_no_harm_to_those_beside_it(fixture: &mut impl Fixture) {
    let store = std::sync::Arc::new(fixture.open(RetentionPolicy::default()));
    let numbered = |generation, first| ProducerBatch { producer: "p".parse().unwrap(), generation, first };
    let first = Append::of(plains(0..1)).from_producer(numbered(5, 1));
    store.append(&agent(), first).await.unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..60 {
        let batch = match n % 6 {
            0 => Append::of(plains(0..2)).from_producer(numbered(4, 1)),
            1 => Append::of(plains(0..2)).from_producer(numbered(5, 9)),
            2 => Append::of(plains(0..2)).expecting(Seq::new(1_000)),
            3 => Append::of(vec![plain(0), oversized()]),
            _ => Append::of(plains(0..2)),
        };
        let store = std::sync::Arc::clone(&store);
        tasks.spawn(async move { (n % 6, store.append(&agent(), batch).await) });
    }
    while let Some(done) = tasks.join_next().await {
        match done.unwrap() {
            (0, Err(AppendError::Fenced { .. }))
            | (1, Err(AppendError::Hole { .. }))
            | (2, Err(AppendError::Conflict { .. }))
            | (3, Err(AppendError::TooLarge { .. }))
            | (4 | 5, Ok(_)) => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(seqs(&*store).await, (1..=41).collect::<Vec<_>>());
}

/// Clauses 1 and 5, with 64 appends at a time to eight logs.
pub async fn p5_of_concurrent_appends_each_has_its_own_positions(fixture: &mut impl Fixture) {
    let store = std::sync::Arc::new(fixture.open(RetentionPolicy::default()));
    let log = |n: u64| -> LogId { format!("agent/c{}", n % 8).parse().unwrap() };
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..64 {
        let store = std::sync::Arc::clone(&store);
        tasks.spawn(async move {
            (n, store.append(&log(n), Append::of(plains(n * 10..n * 10 + 3))).await.unwrap())
        });
    }
    let mut heads: Vec<BTreeSet<Seq>> = vec![BTreeSet::new(); 8];
    while let Some(done) = tasks.join_next().await {
        let (n, appended) = done.unwrap();
        assert!(
            heads[usize::try_from(n % 8).unwrap()].insert(appended.head),
            "{} was given twice",
            appended.head
        );
    }
    for (n, heads) in heads.iter().enumerate() {
        let read = read_all(&*store, &log(n as u64), Seq::ZERO).await;
        assert_eq!(read.len(), 24);
        assert_eq!(
            heads.iter().map(|head| head.get()).collect::<Vec<_>>(),
            (1..=8).map(|n| n * 3).collect::<Vec<_>>()
        );
    }
}

/// Clause 7.
pub async fn an_append_that_expects_another_head_is_refused(fixture: &mut impl Fixture) {
    let store = fixture.open(RetentionPolicy::default());
    let log = agent();
    let expecting = |n, head| store.append(&log, Append::of(vec![plain(n)]).expecting(Seq::new(head)));
    assert!(matches!(expecting(0, 1).await, Err(AppendError::Conflict { .. })));
    assert!(matches!(store.bounds(&log).await, Err(ReadError::UnknownLog { .. })));
    assert_eq!(expecting(0, 0).await.unwrap().head, Seq::new(1));
    match expecting(1, 0).await {
        Err(AppendError::Conflict { expected, head, .. }) => assert_eq!((expected.get(), head.get()), (0, 1)),
        other => panic!("{other:?}"),
    }
    assert_eq!(expecting(1, 1).await.unwrap().head, Seq::new(2));
    assert_eq!(seqs(&store).await, [1, 2]);
}

/// The log is made, with nothing in it.
pub async fn an_append_of_nothing_makes_the_log(fixture: &mut impl Fixture) {
    let store = fixture.open(RetentionPolicy::default());
    let appended = append(&store, vec![]).await;
    assert_eq!((appended.head, appended.appended, appended.acked), (Seq::ZERO, 0, 0));
    let bounds = store.bounds(&agent()).await.unwrap();
    assert_eq!((bounds.floor, bounds.head, bounds.epoch), (Seq::ZERO, Seq::ZERO, appended.epoch));
    assert_eq!(seqs(&store).await, [0; 0]);
    assert_eq!(append(&store, plains(0..1)).await.head, Seq::new(1));
}

/// One byte past the limit of §11.
pub async fn an_event_beyond_the_hard_size_is_refused_whole(fixture: &mut impl Fixture) {
    let store = fixture.open(RetentionPolicy::default());
    match store.append(&agent(), Append::of(vec![plain(0), oversized()])).await {
        Err(AppendError::TooLarge { index: 1, len, limit }) => assert_eq!(len, limit + 1),
        other => panic!("{other:?}"),
    }
}

/// Exactly at the limit of §11.
pub async fn one_of_that_size_is_taken(fixture: &mut impl Fixture) {
    let store = fixture.open(RetentionPolicy::default());
    let large = sized(limits::EVENT_DATA_HARD_BYTES);
    append(&store, vec![large.clone()]).await;
    let records = read_all(&store, &agent(), Seq::ZERO).await;
    assert_eq!(records[0].event().unwrap().data, large.data);
}

fn oversized() -> protocol::NewEvent {
    sized(limits::EVENT_DATA_HARD_BYTES + 1)
}

fn sized(len: usize) -> protocol::NewEvent {
    let mut event = event("file.edited", None, "null");
    event.data = RawData::from_json(format!("\"{}\"", "x".repeat(len - 2))).unwrap();
    event
}

fn data(record: &crate::Record) -> String {
    record.event().unwrap().data.json().to_owned()
}
