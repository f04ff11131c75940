//! Clause 8: what is obsolete is not read, and nobody can tell from the view.

use protocol::{Event, NewEvent, Seq, view::SessionView};

use super::{Fixture, agent, append, delta, event, message, part, plain, read_all, seqs};
use crate::{EventStore, RetentionPolicy};

/// Clause 8.
pub async fn p10_a_replacement_takes_the_deltas_before_it(fixture: &mut impl Fixture) {
    let store = fixture.open(RetentionPolicy::default());
    append(&store, vec![part("m1", "p1", ""), delta("p1", "He"), plain(0), delta("p2", "other")]).await;
    append(&store, vec![delta("p1", "llo")]).await;
    assert_eq!(seqs(&store).await, [1, 2, 3, 4, 5]);
    append(&store, vec![part("m1", "p1", "Hello")]).await;
    assert_eq!(seqs(&store).await, [3, 4, 6]);
    append(&store, vec![delta("p1", "!")]).await;
    assert_eq!(seqs(&store).await, [3, 4, 6, 7]);
}

/// Clause 8: their positions are used up all the same.
pub async fn p10_what_is_replaced_within_a_batch_is_never_read(fixture: &mut impl Fixture) {
    let store = fixture.open(RetentionPolicy::default());
    let appended =
        append(&store, vec![delta("p1", "He"), delta("p1", "llo"), part("m1", "p1", "Hello")]).await;
    assert_eq!((appended.appended, appended.head), (3, Seq::new(3)));
    assert_eq!(seqs(&store).await, [3]);
}

/// Clause 8.
pub async fn p10_a_removed_message_takes_its_parts(fixture: &mut impl Fixture) {
    let store = fixture.open(RetentionPolicy::default());
    append(&store, vec![message("m1"), part("m1", "p1", "a"), part("m2", "p1", "b"), delta("p2", "c")]).await;
    append(&store, vec![removed_message("m1")]).await;
    assert_eq!(seqs(&store).await, [3, 5]);
}

/// Clause 8: by their session, whatever their keys are.
pub async fn p10_a_removed_session_takes_all_of_its_events(fixture: &mut impl Fixture) {
    let store = fixture.open(RetentionPolicy::default());
    let of_other = event("session.idle", Some("s2"), r#"{"sessionID":"s2"}"#);
    let closed = event("session.turn.close", Some("s1"), r#"{"sessionID":"s1","reason":"completed"}"#);
    append(&store, vec![session("s1"), message("m1"), delta("p1", "x"), of_other, closed, plain(0)]).await;
    append(&store, vec![deleted_session("s1")]).await;
    assert_eq!(seqs(&store).await, [4, 6, 7]);
}

/// Clause 8: it covers more than the entity that was made again.
pub async fn p10_a_tombstone_outlives_a_replacement(fixture: &mut impl Fixture) {
    let store = fixture.open(RetentionPolicy::default());
    append(&store, vec![message("m1"), part("m1", "p1", "a"), removed_message("m1"), message("m1")]).await;
    assert_eq!(seqs(&store).await, [3, 4]);
    append(&store, vec![removed_message("m1")]).await;
    assert_eq!(seqs(&store).await, [5]);
}

/// Clause 8, the law: whatever a reader had folded before, it ends with the view of all events.
pub async fn p10_a_compacted_log_folds_to_the_same_view_from_any_cursor(fixture: &mut impl Fixture) {
    let store = fixture.open(RetentionPolicy::default());
    let all = a_life();
    let events: Vec<Event> = (1..).zip(&all).map(|(seq, event)| event.clone().at(Seq::new(seq))).collect();
    for batch in all.chunks(3) {
        append(&store, batch.to_vec()).await;
    }
    let kept = read_all(&store, &agent(), Seq::ZERO).await;
    assert!(kept.len() < all.len() / 2, "{} of {} events were kept", kept.len(), all.len());
    let whole = folded(SessionView::default(), &events);
    for cursor in 0..=events.len() {
        let before = folded(SessionView::default(), &events[..cursor]);
        let rest = read_all(&store, &agent(), Seq::new(cursor as u64)).await;
        let rest: Vec<Event> = rest.iter().map(|record| record.event().unwrap()).collect();
        assert_eq!(folded(before, &rest), whole, "from cursor {cursor}");
    }
}

/// Clause 9.
pub async fn compaction_does_not_raise_the_floor(fixture: &mut impl Fixture) {
    let store = fixture.open(RetentionPolicy::default());
    append(&store, vec![part("m1", "p1", "a"), part("m1", "p1", "b"), part("m1", "p1", "c")]).await;
    let bounds = store.bounds(&agent()).await.unwrap();
    assert_eq!((bounds.floor, bounds.head), (Seq::ZERO, Seq::new(3)));
    assert_eq!(seqs(&store).await, [3]);
}

/// Sessions that stream, are asked something, lose a message, and of which one is deleted and made again.
fn a_life() -> Vec<NewEvent> {
    let mut events = vec![session("s1"), message("m1"), part("m1", "p1", "")];
    events.extend((0..20).map(|n| delta("p1", &format!("word{n} "))));
    events.push(part("m1", "p1", "word and word"));
    for state in ["busy", "idle"] {
        let data = format!(r#"{{"sessionID":"s1","status":{{"type":"{state}"}}}}"#);
        events.push(event("session.status", Some("s1"), &data));
    }
    let asked =
        r#"{"id":"per_1","sessionID":"s1","permission":"edit","patterns":["*"],"metadata":{},"always":[]}"#;
    events.push(event("permission.asked", Some("s1"), asked));
    let replied = r#"{"sessionID":"s1","requestID":"per_1","reply":"once"}"#;
    events.push(event("permission.replied", Some("s1"), replied));
    events.extend([message("m2"), part("m2", "p9", "gone"), removed_message("m2"), message("m2")]);
    events.extend([deleted_session("s1"), session("s1"), message("m3")]);
    events.extend((0..10).map(|n| part("m3", "p1", &"again ".repeat(n))));
    events.push(delta("p1", "open end"));
    events
}

fn folded(mut view: SessionView, events: &[Event]) -> SessionView {
    for event in events {
        view.apply(event);
    }
    view
}

fn session(id: &str) -> NewEvent {
    event(
        "session.created",
        Some(id),
        &format!(r#"{{"info":{{"id":"{id}","title":"t","time":{{"created":1}}}}}}"#),
    )
}

fn deleted_session(id: &str) -> NewEvent {
    event("session.deleted", Some(id), &format!(r#"{{"info":{{"id":"{id}"}}}}"#))
}

fn removed_message(id: &str) -> NewEvent {
    event("message.removed", Some("s1"), &format!(r#"{{"sessionID":"s1","messageID":"{id}"}}"#))
}
