//! The table of §3 against the text of the document and against every event that a real server ever sent here.

use std::collections::BTreeSet;

use protocol::{Class, Effect, classify};
use serde_json::json;

use crate::recording::Recording;

/// Types that recordings hold and the table does not name: its last row (state, no key, append) is meant for them.
const MEANT_FOR_THE_LAST_ROW: &[&str] = &[];

#[test]
fn no_recorded_event_is_classified_by_accident() {
    let mut unnamed = BTreeSet::new();
    for recording in Recording::all() {
        for (_, event) in &recording.events {
            if !Class::is_named(&event.kind) {
                unnamed.insert(event.kind.to_string());
            }
        }
    }
    let listed: BTreeSet<_> = MEANT_FOR_THE_LAST_ROW.iter().map(|kind| (*kind).to_owned()).collect();
    assert_eq!(unnamed, listed);
}

#[test]
fn every_recorded_event_of_an_entity_has_its_key_and_its_session() {
    for recording in Recording::all() {
        for (_, event) in &recording.events {
            let classified = event.classify();
            if classified.class == Class::Volatile {
                continue;
            }
            if Effect::of(&event.kind) != Effect::Append || classified.class == Class::Delta {
                assert!(classified.key.is_some(), "{}: {event:?}", recording.name);
            }
            let speaks_of_a_session = ["session.", "message.", "permission.", "question.", "todo."];
            if speaks_of_a_session.iter().any(|prefix| event.kind.starts_with(prefix)) {
                assert!(event.session.is_some(), "{}: {event:?}", recording.name);
            }
        }
    }
}

#[test]
fn the_table_of_the_document_is_the_table_of_the_classifier() {
    let document = include_str!("../../../../docs/protocol.md");
    let rows = rows_of(document);
    for (kind, class, key, effect) in rows {
        let concrete = kind.replace('*', "x");
        let classified = classify(&concrete, Some("ses_1"), &payload().to_string());
        assert_eq!(word(&classified.class), class, "class of {kind}");
        assert_eq!(classified.key.map(|key| key.to_string()), key, "key of {kind}");
        assert_eq!(word(&classified.effect), effect, "effect of {kind}");
        assert!(Class::is_named(&concrete), "{kind} has a row of its own");
    }
}

#[test]
fn every_row_of_the_classifier_is_in_the_document() {
    let document = include_str!("../../../../docs/protocol.md");
    let documented: BTreeSet<String> = rows_of(document).into_iter().map(|(kind, ..)| kind).collect();
    let classified: BTreeSet<String> = protocol::named_types().map(str::to_owned).collect();
    assert_eq!(classified, documented);
}

#[test]
fn every_event_of_gastowns_own_has_a_row() {
    let document = include_str!("../../../../docs/protocol.md");
    let section = document.split("### §3.1").nth(1).expect("the document has this section");
    let rows =
        section.lines().skip_while(|line| !line.starts_with('|')).take_while(|line| line.starts_with('|'));
    let first_cells = rows.filter_map(|line| line.split('|').nth(1));
    let types: Vec<&str> = first_cells.flat_map(|cell| cell.split('`').skip(1).step_by(2)).collect();
    assert!(types.len() > 15, "the table was found: {types:?}");
    let unnamed: Vec<&&str> = types.iter().filter(|kind| !Class::is_named(kind)).collect();
    assert!(unnamed.is_empty(), "{unnamed:?}");
}

/// The rows of §3 of the document, one per type: type, class, key for the payload below, effect.
fn rows_of(document: &str) -> Vec<(String, String, Option<String>, String)> {
    let table = document.split("<!-- table of types -->").nth(1).expect("the document marks its table");
    let lines = table.lines().filter(|line| line.starts_with("| `"));
    lines
        .flat_map(|line| {
            let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
            let types: Vec<String> = cells[0].split('`').skip(1).step_by(2).map(str::to_owned).collect();
            let cells: Vec<String> = cells.iter().map(|cell| (*cell).to_owned()).collect();
            types.into_iter().map(move |kind| {
                let key = (cells[2] != "–").then(|| of_payload(cells[2].trim_matches('`')));
                (kind, cells[1].clone(), key, cells[3].clone())
            })
        })
        .collect()
}

fn of_payload(key: &str) -> String {
    key.replace("<session>", "ses_1")
        .replace("<msg>", "msg_1")
        .replace("<prt>", "prt_1")
        .replace("<id>", "id_1")
}

/// A payload that holds every id that any type's key is made of.
fn payload() -> serde_json::Value {
    json!({ "id": "id_1", "sessionID": "ses_1", "messageID": "msg_1", "partID": "prt_1" })
}

/// The word for a class or an effect on the wire.
fn word(value: &impl serde::Serialize) -> String {
    serde_json::to_value(value).unwrap().as_str().unwrap().to_owned()
}
