use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

#[test]
fn numbers_begin_where_they_ended_and_have_no_holes() {
    let mut ledger = Ledger::new(8);
    fill(&mut ledger, "ddso");
    assert_eq!((ledger.acked(), ledger.next()), (7, 12));
    assert_eq!(numbers(&mut ledger, 7), [8, 9, 10, 11]);
}

#[test]
fn an_ack_is_cumulative_and_never_goes_back() {
    let mut ledger = Ledger::new(1);
    fill(&mut ledger, "dddd");
    ledger.ack(3);
    ledger.ack(2);
    assert_eq!((ledger.acked(), numbers(&mut ledger, 0)), (3, vec![4]));
    ledger.ack(99);
    assert_eq!((ledger.acked(), ledger.entries().len(), ledger.bytes()), (4, 0, 0));
}

#[test]
fn p7_the_oldest_deltas_go_first_and_then_the_oldest_state() {
    let mut ledger = Ledger::new(1);
    fill(&mut ledger, "sddsddo");
    ledger.make_room(6_000);
    assert_eq!(shape(&ledger), ["1", "2..3", "4", "5", "6", "7"]);
    ledger.make_room(3_000);
    assert_eq!(shape(&ledger), ["1..3", "4", "5..6", "7"]);
    ledger.make_room(0);
    assert_eq!(shape(&ledger), ["1..6", "7"]);
}

#[test]
fn p7_outcomes_stay_when_nothing_else_is_left() {
    let mut ledger = Ledger::new(1);
    fill(&mut ledger, "ooo");
    assert_eq!(ledger.make_room(0), 0);
    assert_eq!(shape(&ledger), ["1", "2", "3"]);
}

#[test]
fn a_notice_of_a_hole_is_the_first_of_its_batch() {
    let mut ledger = Ledger::new(1);
    fill(&mut ledger, "oddo");
    ledger.make_room(0);
    assert_eq!(numbers(&mut ledger, 0), [1]);
    assert_eq!(numbers(&mut ledger, 1), [3, 4]);
}

#[test]
fn a_batch_has_a_bound_and_at_least_one_event() {
    let mut ledger = Ledger::new(1);
    fill(&mut ledger, "ssss");
    assert_eq!(ledger.claim_after(0, 2, u64::MAX).len(), 2);
    assert_eq!(ledger.claim_after(0, 9, 2_500).len(), 2);
    assert_eq!(ledger.claim_after(0, 9, 1).len(), 1);
}

#[test]
fn p5_numbers_that_the_disk_forgot_and_the_relay_has_are_not_used_again() {
    let mut ledger = Ledger::new(5);
    fill(&mut ledger, "so");
    assert!(ledger.resume(9));
    assert_eq!((numbers(&mut ledger, 9), ledger.next()), (vec![10, 11], 12));
}

#[test]
fn p7_what_a_relay_forgot_after_its_ack_is_named() {
    let mut ledger = Ledger::new(1);
    fill(&mut ledger, "ssss");
    ledger.claim_all();
    ledger.ack(3);
    assert!(ledger.resume(1));
    assert_eq!(shape(&ledger), ["2..3", "4"]);
}

#[test]
fn a_relay_that_never_heard_of_this_producer_is_told_of_no_loss() {
    let mut ledger = Ledger::new(4);
    fill(&mut ledger, "s");
    assert!(!ledger.resume(0));
    assert_eq!((shape(&ledger), ledger.acked()), (vec!["4".to_owned()], 3));
}

#[test]
fn an_event_that_the_relay_refuses_is_named_in_its_place() {
    let mut ledger = Ledger::new(1);
    fill(&mut ledger, "sos");
    assert!(ledger.replace(2, "too_large"));
    assert!(!ledger.replace(9, "too_large"));
    let notice = ledger.entries()[1].notice().unwrap();
    assert_eq!(notice.data.json(), r#"{"from":2,"to":2,"reason":"too_large"}"#);
    assert_eq!(numbers(&mut ledger, 0), [1, 2, 3]);
}

#[test]
fn a_notice_counts_for_at_least_its_text() {
    let kind = Kind::Notice { from: u64::MAX, reason: "lost_by_relay" };
    let time = Timestamp::from_unix_ms(0);
    let entry = Entry::<()> { number: u64::MAX, kind, time, bytes: NOTICE_BYTES, place: None };
    let text = serde_json::to_vec(&entry.notice().unwrap()).unwrap();
    assert!(text.len() as u64 <= NOTICE_BYTES, "{}", text.len());
}

proptest! {
    #[test]
    fn p7_every_number_is_there_or_named_and_no_outcome_is_ever_dropped(
        steps in prop::collection::vec((0_u8..4, "[dso]{1,12}", 0_u64..12_000), 1..60),
    ) {
        let mut ledger = Ledger::new(1);
        let mut outcomes = BTreeSet::new();
        for (step, kinds, amount) in steps {
            match step {
                0 | 1 => {
                    let first = ledger.next();
                    outcomes.extend((first..).zip(kinds.chars()).filter(|(_, kind)| *kind == 'o').map(|(n, _)| n));
                    fill(&mut ledger, &kinds);
                }
                2 => {
                    let before = ledger.bytes();
                    ledger.make_room(amount);
                    prop_assert!(ledger.bytes() <= before.max(amount));
                }
                _ => ledger.ack(ledger.acked() + amount % 7),
            }
            let mut expected = ledger.acked() + 1;
            for entry in ledger.entries() {
                prop_assert!(entry.from() <= expected && entry.number >= expected, "{} at {}", entry.number, expected);
                expected = entry.number + 1;
            }
            prop_assert_eq!(expected, ledger.next());
            prop_assert_eq!(ledger.bytes(), ledger.entries().iter().map(|entry| entry.bytes).sum::<u64>());
            let kept: BTreeSet<u64> =
                ledger.entries().iter().filter(|entry| entry.kind == Kind::Outcome).map(|entry| entry.number).collect();
            prop_assert_eq!(kept, outcomes.iter().copied().filter(|n| *n > ledger.acked()).collect());
        }
    }
}

/// Events of 1,000 bytes: `d`elta, `s`tate, `o`utcome.
fn fill(ledger: &mut Ledger<()>, kinds: &str) {
    for kind in kinds.chars() {
        let kind = match kind {
            'd' => Kind::Delta,
            's' => Kind::State,
            _ => Kind::Outcome,
        };
        ledger.push(kind, Timestamp::from_unix_ms(0), 1_000, Some(()));
    }
}

fn numbers(ledger: &mut Ledger<()>, after: u64) -> Vec<u64> {
    ledger.claim_after(after, 100, u64::MAX).iter().map(|entry| entry.number).collect()
}

fn shape(ledger: &Ledger<()>) -> Vec<String> {
    let text = |entry: &Entry<()>| match entry.kind {
        Kind::Notice { from, .. } => format!("{from}..{}", entry.number),
        Kind::Delta | Kind::State | Kind::Outcome => entry.number.to_string(),
    };
    ledger.entries().iter().map(text).collect()
}
