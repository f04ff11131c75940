//! The oracle is tried: each fault that it is there to find is planted in an honest history, and must be found.

use std::collections::BTreeSet;

use protocol::{NewEvent, Seq, Timestamp, frame::GapReason};

use crate::oracle::{Acked, History, Seen, Sent, Viewer, Violation};

const PRODUCER: &str = "first-outbox";
const SUCCESSOR: &str = "second-outbox";
/// A list of to-dos that is replaced before the second viewer comes.
const REPLACED: u64 = 5;
const LAST: u64 = 9;

#[test]
fn an_honest_history_holds() {
    assert_eq!(honest().violations(), BTreeSet::new());
}

#[test]
fn an_honest_history_holds_without_the_stores_own_word() {
    let history = History { committed: None, ..honest() };
    assert_eq!(history.violations(), BTreeSet::new());
}

#[test]
fn an_honest_history_of_a_pruned_log_holds() {
    let mut history = honest();
    prune(&mut history, 3);
    assert_eq!(history.violations(), BTreeSet::new());
}

#[test]
fn a_drop_that_is_named_holds() {
    let mut history = honest();
    let named = dropped(10, 11, 12);
    append(&mut history, SUCCESSOR, 2, 13, named);
    history.sent.extend((11..=12).map(|pseq| sent(SUCCESSOR, 2, pseq, file(pseq))));
    history.acked.push(Acked { producer: SUCCESSOR.to_owned(), through: 12 });
    assert_eq!(history.violations(), BTreeSet::new());
}

#[test]
fn p1_an_acked_event_that_is_gone_is_caught() {
    let plant = |h: &mut History| {
        h.committed.as_mut().unwrap().retain(|e| e.seq.get() != 3);
        forget(h, 3);
    };
    caught(plant, |v| matches!(v, Violation::AckedLost { pseq: 3, .. }));
}

#[test]
fn p1_unsynced_writes_that_were_acked_and_lost_are_caught() {
    // The last three were acked and went with a power cut; nobody had seen them.
    let plant = |h: &mut History| {
        for seq in 7..=LAST {
            h.committed.as_mut().unwrap().retain(|e| e.seq.get() != seq);
            forget(h, seq);
        }
    };
    for pseq in 7..=LAST {
        caught(plant, |v| matches!(v, Violation::AckedLost { pseq: lost, .. } if *lost == pseq));
    }
}

#[test]
fn p1_what_a_relay_acked_and_lost_is_not_excused_by_its_producer() {
    let plant = |h: &mut History| {
        h.committed.as_mut().unwrap().retain(|e| e.seq.get() != 3);
        forget(h, 3);
        let data = serde_json::json!({ "mark": "m10", "from": 3, "to": 3, "reason": "lost_by_relay" });
        append(h, PRODUCER, 1, 10, event("wrapper.events_dropped", &data));
    };
    caught(plant, |v| matches!(v, Violation::AckedLost { pseq: 3, .. }));
}

#[test]
fn a_viewer_that_begins_where_a_pruned_log_begins_needs_no_gap() {
    let mut history = honest();
    prune(&mut history, 3);
    history.viewers[1].seen.remove(0);
    assert_eq!(history.violations(), BTreeSet::new());
}

#[test]
fn p1_an_ack_before_the_commit_is_caught() {
    let plant = |h: &mut History| {
        h.sent.push(sent(PRODUCER, 1, 10, file(10)));
        h.acked.push(Acked { producer: PRODUCER.to_owned(), through: 10 });
    };
    caught(plant, |v| matches!(v, Violation::AckedLost { pseq: 10, .. }));
}

#[test]
fn p1_an_ack_for_what_was_never_sent_is_caught() {
    let plant = |h: &mut History| h.acked.push(Acked { producer: PRODUCER.to_owned(), through: 99 });
    caught(plant, |v| matches!(v, Violation::AckedUnsent { pseq: 99, .. }));
}

#[test]
fn p1_an_event_that_is_stored_otherwise_than_it_was_sent_is_caught() {
    let plant = |h: &mut History| {
        let other = h.sent[2].event.data.json().replace(":\"a\"", ":\"b\"");
        h.sent[2].event.data = protocol::RawData::from_json(other).unwrap();
    };
    caught(plant, |v| matches!(v, Violation::Altered { .. }));
}

#[test]
fn p2_an_event_given_twice_is_caught() {
    let plant = |h: &mut History| {
        let again = h.viewers[0].seen[2].clone();
        h.viewers[0].seen.insert(3, again);
    };
    caught(plant, |v| matches!(v, Violation::OutOfOrder { .. }));
}

#[test]
fn p2_two_events_swapped_are_caught() {
    caught(|h| h.viewers[0].seen.swap(1, 2), |v| matches!(v, Violation::OutOfOrder { .. }));
}

#[test]
fn p2_a_reconnect_that_begins_at_the_beginning_is_caught() {
    let plant = |h: &mut History| {
        let again = h.viewers[1].seen.clone();
        h.viewers[1].seen.extend(again);
    };
    caught(plant, |v| matches!(v, Violation::OutOfOrder { .. }));
}

#[test]
fn p2_an_event_left_out_in_the_middle_is_caught() {
    caught(|h| drop(h.viewers[0].seen.remove(3)), |v| matches!(v, Violation::Missed { seq: 4, .. }));
}

#[test]
fn p2_an_end_left_out_is_caught() {
    caught(|h| drop(h.viewers[0].seen.pop()), |v| matches!(v, Violation::Missed { seq: LAST, .. }));
}

#[test]
fn p3_a_silent_gap_is_caught() {
    let plant = |h: &mut History| drop(h.viewers[1].seen.drain(1..4));
    caught(plant, |v| matches!(v, Violation::Missed { .. }));
}

#[test]
fn p3_pruning_that_is_not_said_is_caught() {
    let plant = |h: &mut History| {
        prune(h, 3);
        h.viewers[0].seen.drain(1..3);
    };
    caught(plant, |v| matches!(v, Violation::Missed { seq: 2, .. }));
}

#[test]
fn p3_a_gap_that_names_what_is_kept_is_caught() {
    let plant = |h: &mut History| {
        h.viewers[0].seen.splice(1..4, [gap(2, 4)]);
    };
    caught(plant, |v| matches!(v, Violation::FalseGap { seq: 2, .. }));
}

#[test]
fn p3_a_gap_over_what_was_never_pruned_is_caught() {
    let plant = |h: &mut History| {
        prune(h, 3);
        h.viewers[1].seen[0] = gap(1, 5);
    };
    caught(plant, |v| matches!(v, Violation::FalseGap { seq: 5, .. }));
}

#[test]
fn p4_an_event_shown_before_it_was_safe_is_caught() {
    // It was shown, then the power went, and it was never sent again.
    let plant = |h: &mut History| h.viewers[0].seen.push(Seen::Event(file(10).at(Seq::new(10))));
    caught(plant, |v| matches!(v, Violation::Phantom { seq: 10, .. }));
}

#[test]
fn p4_a_position_that_is_given_again_after_a_loss_is_caught() {
    // What one viewer was shown was lost, and another event got its position.
    let plant = |h: &mut History| h.viewers[0].seen[8] = Seen::Event(file(77).at(Seq::new(LAST)));
    caught(plant, |v| matches!(v, Violation::OtherBytes { seq: LAST, .. }));
}

#[test]
fn p4_an_event_that_was_shown_and_not_committed_is_caught_even_if_it_would_be_obsolete() {
    let plant = |h: &mut History| h.committed.as_mut().unwrap().retain(|e| e.seq.get() != REPLACED);
    caught(plant, |v| matches!(v, Violation::Phantom { seq: REPLACED, .. }));
}

#[test]
fn p5_an_event_appended_twice_is_caught() {
    let plant = |h: &mut History| append_unsent(h, file(3), 10);
    caught(plant, |v| matches!(v, Violation::Twice { .. }));
}

#[test]
fn p5_events_appended_in_another_order_are_caught() {
    let plant = |h: &mut History| {
        let second = h.sent[1].event.clone();
        h.sent[1].event = std::mem::replace(&mut h.sent[2].event, second);
    };
    caught(plant, |v| matches!(v, Violation::Reordered { .. }));
}

#[test]
fn p6_an_ignored_generation_is_caught() {
    let plant = |h: &mut History| {
        append(h, SUCCESSOR, 2, 1, file(20));
        append(h, PRODUCER, 1, 10, file(21));
    };
    caught(plant, |v| matches!(v, Violation::Unfenced { .. }));
}

#[test]
fn p7_an_event_that_is_dropped_and_not_named_is_caught() {
    let plant = |h: &mut History| {
        append(h, PRODUCER, 1, 13, dropped(10, 10, 11));
        h.sent.extend((10..=12).map(|pseq| sent(PRODUCER, 1, pseq, file(pseq))));
        h.acked.push(Acked { producer: PRODUCER.to_owned(), through: 13 });
    };
    caught(plant, |v| matches!(v, Violation::AckedLost { pseq: 12, .. }));
}

#[test]
fn p9_other_bytes_are_caught() {
    let plant = |h: &mut History| h.viewers[1].seen[2] = Seen::Event(file(77).at(Seq::new(3)));
    caught(plant, |v| matches!(v, Violation::OtherBytes { .. }));
}

#[test]
fn p10_compaction_that_takes_too_much_is_caught() {
    // The store forgot an event that nothing made obsolete; viewers still have it.
    let plant = |h: &mut History| h.stored.retain(|e| e.seq.get() != 4);
    caught(plant, |v| matches!(v, Violation::Phantom { seq: 4, .. }));
    caught(plant, |v| matches!(v, Violation::CommittedLost { seq: 4 }));
}

#[test]
fn p10_a_replacement_that_forgets_what_the_view_shows_is_caught() {
    // What the store calls the newest to-dos is an older list than the first viewer folded.
    let plant = |h: &mut History| {
        h.committed = None;
        h.stored.retain(|e| e.seq.get() != 6);
        h.viewers[1].seen.retain(|s| !matches!(s, Seen::Event(e) if e.seq.get() == 6));
    };
    caught(plant, |v| matches!(v, Violation::OtherView { .. }));
}

fn caught(plant: impl Fn(&mut History), expected: impl Fn(&Violation) -> bool) {
    let mut history = honest();
    plant(&mut history);
    let violations = history.violations();
    assert!(violations.iter().any(expected), "not caught: {violations:?}");
}

/// Nine events, of which the sixth replaced the fifth before the second viewer came.
fn honest() -> History {
    let events: Vec<NewEvent> =
        (1..=LAST).map(|n| if n == REPLACED || n == REPLACED + 1 { todos(n) } else { file(n) }).collect();
    let at = |n: &u64| events[usize::try_from(*n - 1).expect("a few")].clone().at(Seq::new(*n));
    let all: Vec<u64> = (1..=LAST).collect();
    let kept: Vec<u64> = (1..=LAST).filter(|n| *n != REPLACED).collect();
    let viewer = |name: &str, seen: &[u64]| Viewer {
        name: name.to_owned(),
        start: Seq::ZERO,
        seen: seen.iter().map(|n| Seen::Event(at(n))).collect(),
        stayed: true,
    };
    History {
        sent: all.iter().zip(&events).map(|(n, event)| sent(PRODUCER, 1, *n, event.clone())).collect(),
        acked: vec![Acked { producer: PRODUCER.to_owned(), through: LAST }],
        viewers: vec![viewer("first", &all), viewer("second", &kept)],
        stored: kept.iter().map(at).collect(),
        floor: Seq::ZERO,
        committed: Some(all.iter().map(at).collect()),
    }
}

/// Appends an event that a producer sent, and shows it to everyone.
fn append(history: &mut History, producer: &str, generation: u64, pseq: u64, event: NewEvent) {
    let seq = history.stored.last().map_or(1, |last| last.seq.get() + 1);
    history.sent.push(sent(producer, generation, pseq, event.clone()));
    append_unsent(history, event, seq);
}

fn append_unsent(history: &mut History, event: NewEvent, seq: u64) {
    let event = event.at(Seq::new(seq));
    for viewer in &mut history.viewers {
        viewer.seen.push(Seen::Event(event.clone()));
    }
    history.committed.as_mut().expect("it is there").push(event.clone());
    history.stored.push(event);
}

/// Takes an event out of the store, as if nobody had ever seen it.
fn forget(history: &mut History, seq: u64) {
    history.stored.retain(|e| e.seq.get() != seq);
    for viewer in &mut history.viewers {
        viewer.seen.retain(|s| !matches!(s, Seen::Event(e) if e.seq.get() == seq));
    }
}

/// Prunes up to a position; the second viewer comes after that.
fn prune(history: &mut History, floor: u64) {
    history.floor = Seq::new(floor);
    history.stored.retain(|e| e.seq.get() > floor);
    let seen = &mut history.viewers[1].seen;
    seen.retain(|s| !matches!(s, Seen::Event(e) if e.seq.get() <= floor));
    seen.insert(0, gap(1, floor));
}

fn gap(from: u64, to: u64) -> Seen {
    Seen::Gap { from: Some(Seq::new(from)), to: Some(Seq::new(to)), reason: GapReason::Pruned }
}

fn sent(producer: &str, generation: u64, pseq: u64, event: NewEvent) -> Sent {
    Sent { producer: producer.to_owned(), generation, pseq, event }
}

fn file(n: u64) -> NewEvent {
    event("file.edited", &serde_json::json!({ "mark": format!("m{n}"), "file": "a" }))
}

fn todos(n: u64) -> NewEvent {
    let todo = serde_json::json!({ "id": "t", "content": format!("do {n}"), "status": "pending", "priority": "low" });
    let data = serde_json::json!({ "sessionID": "ses_1", "todos": [todo], "mark": format!("m{n}") });
    event("todo.updated", &data)
}

fn dropped(mark: u64, from: u64, to: u64) -> NewEvent {
    let data = serde_json::json!({ "mark": format!("m{mark}"), "from": from, "to": to, "reason": "full" });
    event("wrapper.events_dropped", &data)
}

fn event(kind: &str, data: &serde_json::Value) -> NewEvent {
    NewEvent::of(Timestamp::from_unix_ms(0), kind, data).expect("it serialises")
}
