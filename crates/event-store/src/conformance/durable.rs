//! What outlives the store: clauses 1, 3, 5, 6, 8, 9, 10, 13 and 16 over a restart. A store that is dropped and opened
//! again stands for the restart; that a crash does no more harm than that is for the backend's own tests.

use bytes::Bytes;
use protocol::Seq;

use super::{
    Fixture, agent, append, bytes_of, delta, keeping, message, other_agent, part, plain, plains,
    producing::{send, state},
    read_all, seqs,
};
use crate::{Append, AppendError, EventStore, Head, ReadError, RetentionPolicy, Snapshot};

/// Clauses 1 and 3.
pub async fn p1_a_reopened_store_has_every_event(fixture: &mut impl Fixture) {
    for round in 0..5 {
        let store = fixture.open(RetentionPolicy::default());
        assert_eq!(append(&store, plains(0..3)).await.head, Seq::new(round * 3 + 3));
        assert_eq!(seqs(&store).await, (1..=round * 3 + 3).collect::<Vec<_>>());
    }
}

/// Clause 13.
pub async fn p9_bytes_are_the_same_after_a_restart(fixture: &mut impl Fixture) {
    let store = fixture.open(RetentionPolicy::default());
    append(&store, plains(0..400)).await;
    append(&store, vec![message("m1"), part("m1", "p1", "Grüße")]).await;
    let before = read_all(&store, &agent(), Seq::ZERO).await;
    drop(store);
    let store = fixture.open(RetentionPolicy::default());
    let after = read_all(&store, &agent(), Seq::ZERO).await;
    assert_eq!(bytes_of(&after), bytes_of(&before));
    assert_eq!(after, before);
}

/// Clause 5.
pub async fn p5_producers_are_known_after_a_restart(fixture: &mut impl Fixture) {
    let store = fixture.open(RetentionPolicy::default());
    send(&store, "p", 1, 1, plains(1..4)).await.unwrap();
    send(&store, "q", 2, 1, plains(1..3)).await.unwrap();
    let before = state(&store).await;
    drop(store);
    let store = fixture.open(RetentionPolicy::default());
    assert_eq!(state(&store).await, before);
    assert_eq!(send(&store, "q", 2, 1, plains(1..3)).await.unwrap().appended, 0);
    let back = send(&store, "p", 3, 2, plains(2..5)).await.unwrap();
    assert_eq!((back.appended, back.acked, back.head), (1, 4, Seq::new(6)));
}

/// Clause 6: of a generation that never sent anything, too.
pub async fn p6_fences_hold_after_a_restart(fixture: &mut impl Fixture) {
    let store = fixture.open(RetentionPolicy::default());
    send(&store, "p", u64::MAX, 1, vec![]).await.unwrap();
    drop(store);
    let store = fixture.open(RetentionPolicy::default());
    let older = send(&store, "p", u64::MAX - 1, 1, plains(1..2)).await;
    assert!(matches!(older, Err(AppendError::Fenced { latest: u64::MAX, .. })), "{older:?}");
}

/// Clauses 9 and 10.
pub async fn p3_floor_and_epoch_are_kept(fixture: &mut impl Fixture) {
    let store = fixture.open(keeping(5, u64::MAX));
    append(&store, plains(0..12)).await;
    let before = store.bounds(&agent()).await.unwrap();
    drop(store);
    let store = fixture.open(keeping(5, u64::MAX));
    assert_eq!(store.bounds(&agent()).await.unwrap(), before);
    assert_eq!(before.floor, Seq::new(7));
    assert_eq!(seqs(&store).await, [8, 9, 10, 11, 12]);
}

/// Clause 8: what was written before the restart is found by its key after it.
pub async fn p10_compaction_goes_on_after_a_restart(fixture: &mut impl Fixture) {
    let store = fixture.open(RetentionPolicy::default());
    let removed = super::event("message.removed", Some("s1"), r#"{"sessionID":"s1","messageID":"m2"}"#);
    append(&store, vec![delta("p1", "He"), message("m1"), delta("p1", "llo"), plain(0), removed]).await;
    drop(store);
    let store = fixture.open(RetentionPolicy::default());
    append(&store, vec![part("m1", "p1", "Hello"), message("m2")]).await;
    assert_eq!(seqs(&store).await, [2, 4, 5, 6, 7]);
    let deleted = super::event("session.deleted", Some("s1"), r#"{"info":{"id":"s1"}}"#);
    append(&store, vec![deleted]).await;
    assert_eq!(seqs(&store).await, [4, 8]);
}

/// Clause 9: with another retention than before, too.
pub async fn pruning_goes_on_after_a_restart(fixture: &mut impl Fixture) {
    let store = fixture.open(keeping(8, u64::MAX));
    append(&store, plains(0..12)).await;
    drop(store);
    let store = fixture.open(keeping(3, u64::MAX));
    append(&store, plains(12..13)).await;
    assert_eq!(seqs(&store).await, [11, 12, 13]);
    let summary = store.list().await.unwrap().remove(0);
    assert_eq!((summary.events, summary.bounds.floor), (3, Seq::new(10)));
}

/// Clause 16.
pub async fn snapshots_and_lists_are_kept(fixture: &mut impl Fixture) {
    let store = fixture.open(RetentionPolicy::default());
    append(&store, plains(0..3)).await;
    store.append(&other_agent(), Append::of(plains(0..5))).await.unwrap();
    let snapshot = Snapshot { seq: Seq::new(3), data: Bytes::from_static(b"\0\x01fold") };
    store.put_snapshot(&agent(), snapshot.clone()).await.unwrap();
    let before = store.list().await.unwrap();
    drop(store);
    let store = fixture.open(RetentionPolicy::default());
    assert_eq!(store.snapshot(&agent()).await.unwrap(), Some(snapshot));
    assert_eq!(store.list().await.unwrap(), before);
}

/// Clause 10.
pub async fn a_removed_log_stays_removed(fixture: &mut impl Fixture) {
    let store = fixture.open(RetentionPolicy::default());
    let old = append(&store, plains(0..3)).await;
    store.remove(&agent()).await.unwrap();
    drop(store);
    let store = fixture.open(RetentionPolicy::default());
    assert!(matches!(store.bounds(&agent()).await, Err(ReadError::UnknownLog { .. })));
    let new = append(&store, plains(0..1)).await;
    assert_eq!(new.head, Seq::new(1));
    assert_ne!(new.epoch, old.epoch);
}

/// Clause 12.
pub async fn tails_begin_at_the_stored_head(fixture: &mut impl Fixture) {
    let store = fixture.open(RetentionPolicy::default());
    let appended = append(&store, plains(0..3)).await;
    drop(store);
    let store = fixture.open(RetentionPolicy::default());
    let tail = store.tail(&agent());
    assert_eq!(tail.head(), Some(Head { epoch: appended.epoch, seq: Seq::new(3) }));
}
