//! Clauses 9 and 10: retention, floor, epoch, removal, lists.

use std::time::Duration;

use protocol::{LogId, Seq, Timestamp};

use super::{Fixture, agent, append, event, keeping, other_agent, plain, plains, read_all, seqs};
use crate::{Append, EventStore, Head, ReadLimit, Retention, RetentionPolicy};

/// Clause 9: after every append, not only now and then.
pub async fn p3_pruning_by_events_raises_the_floor(fixture: &mut impl Fixture) {
    let store = fixture.open(keeping(5, u64::MAX));
    append(&store, plains(0..5)).await;
    assert_eq!(store.bounds(&agent()).await.unwrap().floor, Seq::ZERO);
    for n in 5..40 {
        append(&store, vec![plain(n)]).await;
        let page = store.read(&agent(), Seq::ZERO, ReadLimit::default()).await.unwrap();
        let read: Vec<_> = page.records.iter().map(|record| record.seq.get()).collect();
        assert_eq!((page.bounds.floor.get(), page.bounds.head.get()), (n - 4, n + 1));
        assert_eq!(read, (n - 3..=n + 1).collect::<Vec<_>>());
    }
    append(&store, plains(40..60)).await;
    assert_eq!(seqs(&store).await, [56, 57, 58, 59, 60]);
}

/// Clause 9.
pub async fn p3_pruning_by_bytes_raises_the_floor(fixture: &mut impl Fixture) {
    let store = fixture.open(keeping(u64::MAX, 2_000));
    for n in 0..40 {
        append(&store, vec![event("file.edited", None, &format!(r#"{{"n":"{:0>150}"}}"#, n))]).await;
        let kept: usize = read_all(&store, &agent(), Seq::ZERO).await.iter().map(|r| r.envelope.len()).sum();
        assert!(kept <= 2_000, "{kept} bytes are kept");
    }
    let bounds = store.bounds(&agent()).await.unwrap();
    assert_eq!(seqs(&store).await, (bounds.floor.get() + 1..=40).collect::<Vec<_>>());
}

/// Clause 9: a log that could not hold its last event would say nothing.
pub async fn the_newest_event_stays_however_large(fixture: &mut impl Fixture) {
    let store = fixture.open(keeping(10, 10));
    append(&store, plains(0..3)).await;
    assert_eq!(seqs(&store).await, [3]);
    assert_eq!(store.bounds(&agent()).await.unwrap().floor, Seq::new(2));
}

/// Clause 9.
pub async fn idle_logs_are_emptied_and_go_on(fixture: &mut impl Fixture) {
    let retention = Retention { idle: Some(Duration::from_secs(60)), ..Retention::AGENT };
    let store = fixture.open(RetentionPolicy { agent: retention, town: Retention::UNBOUNDED });
    append(&store, plains(0..3)).await;
    let town: LogId = "town/main".parse().unwrap();
    store.append(&town, Append::of(plains(0..3))).await.unwrap();
    let at = |ms: i64| Timestamp::from_unix_ms(1_000 + ms);
    assert_eq!(store.prune_idle(at(60_000)).await.unwrap(), 0);
    assert_eq!(store.prune_idle(at(60_001)).await.unwrap(), 3);
    assert_eq!(store.prune_idle(at(60_001)).await.unwrap(), 0);
    let bounds = store.bounds(&agent()).await.unwrap();
    assert_eq!((bounds.floor.get(), bounds.head.get()), (3, 3));
    assert_eq!(seqs(&store).await, [0; 0]);
    assert_eq!(append(&store, plains(3..4)).await.head, Seq::new(4));
    assert_eq!(seqs(&store).await, [4]);
    assert_eq!(read_all(&store, &town, Seq::ZERO).await.len(), 3);
}

/// Clause 1.
pub async fn positions_are_not_used_again_after_pruning(fixture: &mut impl Fixture) {
    let store = fixture.open(keeping(1, u64::MAX));
    append(&store, plains(0..700)).await;
    assert_eq!(append(&store, plains(0..1)).await.head, Seq::new(701));
    assert_eq!(seqs(&store).await, [701]);
}

/// Clause 9.
pub async fn towns_and_agents_have_their_own_retention(fixture: &mut impl Fixture) {
    let store = fixture.open(keeping(2, u64::MAX));
    let town: LogId = "town/main".parse().unwrap();
    for log in [&agent(), &town] {
        store.append(log, Append::of(plains(0..9))).await.unwrap();
    }
    assert_eq!(seqs(&store).await, [8, 9]);
    assert_eq!(read_all(&store, &town, Seq::ZERO).await.len(), 9);
}

/// Clause 10.
pub async fn a_log_made_again_has_another_epoch_and_nothing_of_the_old(fixture: &mut impl Fixture) {
    let store = fixture.open(RetentionPolicy::default());
    let numbered = crate::ProducerBatch { producer: "p".parse().unwrap(), generation: 9, first: 1 };
    let old = store.append(&agent(), Append::of(plains(0..3)).from_producer(numbered)).await.unwrap();
    let snapshot = crate::Snapshot { seq: Seq::new(3), data: bytes::Bytes::from_static(b"old") };
    store.put_snapshot(&agent(), snapshot).await.unwrap();
    store.remove(&agent()).await.unwrap();
    let new = append(&store, plains(7..8)).await;
    assert_ne!(new.epoch, old.epoch);
    assert_eq!(new.head, Seq::new(1));
    assert_eq!(read_all(&store, &agent(), Seq::ZERO).await.len(), 1);
    assert_eq!(store.producer(&agent()).await.unwrap(), None);
    assert_eq!(store.snapshot(&agent()).await.unwrap(), None);
    assert_eq!(store.tail(&agent()).head(), Some(Head { epoch: new.epoch, seq: Seq::new(1) }));
}

/// Its counts are those of what reads return.
pub async fn listing_is_by_name_and_counts_what_is_kept(fixture: &mut impl Fixture) {
    let store = fixture.open(keeping(3, u64::MAX));
    assert_eq!(store.list().await.unwrap(), []);
    let town: LogId = "town/main".parse().unwrap();
    for log in [&town, &other_agent(), &agent()] {
        store.append(log, Append::of(plains(0..4))).await.unwrap();
    }
    drop(store.tail(&"agent/nobody".parse().unwrap()));
    let list = store.list().await.unwrap();
    assert_eq!(
        list.iter().map(|summary| &summary.log).collect::<Vec<_>>(),
        [&agent(), &other_agent(), &town]
    );
    for summary in list {
        let kept = read_all(&store, &summary.log, Seq::ZERO).await;
        let bytes: usize = kept.iter().map(|record| record.envelope.len()).sum();
        assert_eq!((summary.events, summary.bytes), (kept.len() as u64, bytes as u64));
        assert_eq!(summary.bounds, store.bounds(&summary.log).await.unwrap());
    }
}
