//! P10, the law of the log: folding what compaction leaves gives the same view as folding everything.

use std::sync::Arc;

use proptest::prelude::*;
use protocol::{Effect, Event, Key, NewEvent, RawData, Seq, Timestamp, session_of};
use serde_json::{Value, json};

use crate::recording::{Recording, fold};

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    #[test]
    fn p10_a_compacted_log_folds_to_the_same_view(log in log()) {
        prop_assert_eq!(fold(&compact(&log)), fold(&log));
    }

    #[test]
    fn p10_a_reader_who_was_away_while_the_log_was_compacted_ends_with_the_same_view(
        (log, seen) in log().prop_flat_map(|log| { let len = log.len(); (Just(log), 0..=len) }),
    ) {
        let mut view = fold(&compact(&log[..seen]));
        for event in compact(&log).iter().filter(|event| event.seq.get() > seen as u64) {
            view.apply(event);
        }
        prop_assert_eq!(view, fold(&log));
    }

    #[test]
    fn compacting_in_steps_is_compacting_at_once(
        (log, at) in log().prop_flat_map(|log| { let len = log.len(); (Just(log), 0..=len) }),
    ) {
        let mut steps = compact(&log[..at]);
        steps.extend_from_slice(&log[at..]);
        prop_assert_eq!(compact(&steps), compact(&log));
    }

    #[test]
    fn an_event_applied_twice_changes_nothing(log in log()) {
        let twice = log.iter().flat_map(|event| [event, event]);
        prop_assert_eq!(fold(twice), fold(&log));
    }

    #[test]
    fn every_view_can_be_written_as_json(log in log()) {
        let written = serde_json::to_value(fold(&log));
        prop_assert!(written.is_ok_and(|view| view["sessions"].is_array()));
    }
}

#[test]
fn p10_every_recording_folds_to_the_same_view_when_compacted() {
    for recording in Recording::all() {
        let log = recording.log();
        let compacted = compact(&log);
        assert!(compacted.len() < log.len(), "{} has something to compact", recording.name);
        assert_eq!(fold(&compacted), fold(&log), "{}", recording.name);
    }
}

#[test]
fn a_finished_session_keeps_none_of_its_deltas() {
    for recording in Recording::all().iter().filter(|recording| recording.name.ends_with("i_long")) {
        let compacted = compact(&recording.log());
        assert!(compacted.iter().all(|event| &*event.kind != "message.part.delta"), "{}", recording.name);
    }
}

/// Compaction as the contract of the store says it, in its simplest form: an event is obsolete if a later one, whether
/// that one is obsolete or not, made it so.
fn compact(log: &[Event]) -> Vec<Event> {
    let is_obsolete = |(i, event): &(usize, &Event)| log[i + 1..].iter().any(|later| obsoletes(later, event));
    log.iter().enumerate().filter(|entry| !is_obsolete(entry)).map(|(_, event)| event.clone()).collect()
}

fn obsoletes(later: &Event, earlier: &Event) -> bool {
    let Some(key) = &later.key else { return false };
    match later.effect() {
        Effect::Append => false,
        // A tombstone stays: it tells a reader from before it of all that lay below what is there again.
        Effect::Replace => earlier.key.as_ref() == Some(key) && earlier.effect() != Effect::Remove,
        Effect::Remove => {
            let session = key.as_str().strip_prefix("session/");
            let is_of_session = session.is_some() && earlier.session.as_deref() == session;
            is_of_session || earlier.key.as_ref().is_some_and(|earlier: &Key| key.covers(earlier))
        }
    }
}

/// Logs of a few sessions, messages and parts, so that events meet: everything the fold knows, in any order, with
/// payloads as they should be and as they should not.
fn log() -> impl Strategy<Value = Vec<Event>> {
    prop::collection::vec(event(), 0..40).prop_map(|events| {
        let place = |(event, seq): (NewEvent, u64)| event.at(Seq::new(seq));
        events.into_iter().zip(1..).map(place).collect()
    })
}

fn event() -> impl Strategy<Value = NewEvent> {
    prop_oneof![4 => of_session(), 8 => of_message(), 3 => of_ask(), 2 => of_agent(), 1 => malformed()]
        .prop_map(|(kind, data)| NewEvent {
            time: Timestamp::from_unix_ms(1_795_198_984_413),
            session: session_of(kind, &data.to_string()).or_else(|| session_of_message(&data)),
            kind: kind.into(),
            data: RawData::of(&data).expect("a JSON value serialises"),
        })
}

/// Wrappers name the session of whatever belongs to one, also where the agent server does not (§2).
fn session_of_message(data: &Value) -> Option<Arc<str>> {
    let message = data["part"]["messageID"].as_str().or(data["messageID"].as_str())?;
    MESSAGES.iter().find(|(id, _)| *id == message).map(|(_, session)| (*session).into())
}

/// Messages, each with its session.
const MESSAGES: [(&str, &str); 3] = [("msg_1", "ses_1"), ("msg_2", "ses_1"), ("msg_3", "ses_2")];

fn of_session() -> impl Strategy<Value = (&'static str, Value)> {
    let status = prop_oneof![
        Just(json!({ "type": "idle" })),
        Just(json!({ "type": "busy" })),
        (0..3_u64).prop_map(|n| json!({ "type": "retry", "attempt": n, "message": "429", "next": 5 })),
        Just(json!({ "type": "offline", "requestID": "net_1", "message": "down" })),
        Just(json!({ "type": "levitating" })),
    ];
    (0..2_usize, 0..13_usize, status, 0..4_u64, "[a-z]{0,3}").prop_map(|(session, which, status, created, text)| {
        let id = ["ses_1", "ses_2"][session];
        let parent = if session == 1 { json!("ses_1") } else { Value::Null };
        let info = json!({ "id": id, "parentID": parent, "title": text, "time": { "created": created }, "new": 1 });
        match which {
            0 => ("session.created", json!({ "sessionID": id, "info": info })),
            // kilo 7.0 says it so.
            1 => ("session.updated", json!({ "info": info })),
            2 => ("session.deleted", json!({ "sessionID": id, "info": info })),
            3..=5 => ("session.status", json!({ "sessionID": id, "status": status })),
            6 => ("session.idle", json!({ "sessionID": id })),
            7 => ("session.turn.open", json!({ "sessionID": id })),
            8 => ("session.compacted", json!({ "sessionID": id })),
            9 => ("session.turn.close", json!({ "sessionID": id, "reason": text })),
            10 => ("todo.updated", json!({ "sessionID": id, "todos": [{ "content": text }] })),
            11 => ("session.error", json!({ "sessionID": id, "error": { "name": text } })),
            _ => ("session.queue.changed", json!({ "sessionID": id, "queued": [text] })),
        }
    })
}

fn of_message() -> impl Strategy<Value = (&'static str, Value)> {
    (0..3_usize, 0..3_usize, 0..10_usize, 0..4_u64, "[a-z]{0,3}").prop_map(|(message, part, which, created, text)| {
        let (message, session) = MESSAGES[message];
        let part = ["prt_1", "prt_2", "prt_3"][part];
        let ids = json!({ "id": part, "messageID": message, "sessionID": session });
        let body = |more: Value| {
            let mut body = ids.clone();
            body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            json!({ "sessionID": session, "part": body })
        };
        let info = json!({ "id": message, "sessionID": session, "role": "assistant", "time": { "created": created },
            "tokens": { "input": created, "output": 1 }, "cost": 0.5 });
        let delta = |field: &str| {
            json!({ "sessionID": session, "messageID": message, "partID": part, "field": field, "delta": text })
        };
        match which {
            0 => ("message.updated", json!({ "sessionID": session, "info": info })),
            1 => ("message.removed", json!({ "sessionID": session, "messageID": message })),
            2 => ("message.part.removed", json!({ "sessionID": session, "messageID": message, "partID": part })),
            3 => ("message.part.updated", body(json!({ "type": "text", "text": text }))),
            4 => ("message.part.updated", body(json!({ "type": "reasoning", "text": text, "more": [1, 2] }))),
            5 => ("message.part.updated", body(json!({ "type": "tool", "tool": "bash", "state": { "status": text } }))),
            6 => ("message.part.updated", body(json!({ "type": "hologram", "depth": 3 }))),
            7 => ("message.part.delta", delta("output")),
            _ => ("message.part.delta", delta("text")),
        }
    })
}

fn of_ask() -> impl Strategy<Value = (&'static str, Value)> {
    (0..2_usize, 0..8_usize, "[a-z]{0,3}").prop_map(|(session, which, text)| {
        let session = ["ses_1", "ses_2"][session];
        let asked = json!({ "id": format!("ask_{session}"), "sessionID": session, "permission": text });
        let replied = json!({ "requestID": format!("ask_{session}"), "sessionID": session, "reply": text });
        match which {
            0 | 1 => ("permission.asked", asked),
            2 => ("permission.replied", replied),
            3 => ("question.asked", asked),
            4 => ("question.replied", replied),
            5 => ("question.rejected", replied),
            6 => ("session.network.asked", asked),
            _ => ("session.network.replied", replied),
        }
    })
}

fn of_agent() -> impl Strategy<Value = (&'static str, Value)> {
    let states = ["idle", "busy", "waiting", "stopping", "dreaming"];
    let reasons = ["clean", "aborted", "eclipse", "unsupported", "unfinished"];
    (0..15_usize, 0..5_u64).prop_map(move |(which, n)| match which {
        0 => ("agent.status", json!({ "state": states[n as usize] })),
        1 => ("agent.started", json!({ "generation": n, "runtime": "scripted", "version": "1" })),
        2 => ("agent.exited", json!({ "reason": "stopped", "code": n })),
        3 => ("agent.failed", json!({ "message": "gone", "exit_code": n })),
        4 => ("agent.usage", json!({ "tokens": { "input": n }, "cost": 1.0 })),
        5 => ("wrapper.resumed", json!({ "generation": n })),
        6 => ("wrapper.events_dropped", json!({ "from": n, "to": n + 1, "reason": "full" })),
        7 => ("server.heartbeat", json!({})),
        8 => (
            "wrapper.workspace.ready",
            json!({ "branch": "gt/a/b", "commit": format!("{n}"), "resumed": n > 1 }),
        ),
        9 => {
            ("wrapper.session_recreated", json!({ "lost": "ses_1", "session": "ses_2", "summarised": n > 1 }))
        }
        10 => ("wrapper.auto_commit.started", json!({ "branch": "gt/a/b", "paths": n })),
        11 => (
            "wrapper.auto_commit.completed",
            json!({ "hash": format!("{n}"), "branch": "gt/a/b", "subject": "x", "pushed": n > 1 }),
        ),
        12 => ("wrapper.auto_commit.skipped", json!({ "reason": reasons[n as usize] })),
        13 => ("wrapper.condense.failed", json!({ "message": format!("{n}") })),
        _ => ("vcs.branch.updated", json!({ "branch": "main" })),
    })
}

fn malformed() -> impl Strategy<Value = (&'static str, Value)> {
    let session = json!("ses_1");
    prop::sample::select(vec![
        (
            "message.part.updated",
            json!({ "part": { "id": "prt_1", "messageID": "msg_1", "sessionID": "ses_1" } }),
        ),
        (
            "message.part.updated",
            json!({ "part": { "id": "prt_1", "messageID": "msg_1", "type": "text", "text": 7 } }),
        ),
        ("message.part.updated", json!({ "part": "all of it" })),
        (
            "message.part.delta",
            json!({ "sessionID": session, "messageID": "msg_1", "partID": "prt_1", "delta": [] }),
        ),
        ("message.part.delta", json!({ "sessionID": session })),
        ("message.updated", json!({ "info": { "id": "msg_1", "sessionID": "ses_1", "role": 3 } })),
        ("message.updated", json!(null)),
        ("session.status", json!({ "sessionID": session })),
        ("session.turn.close", json!({})),
        ("session.error", json!({ "error": 1 })),
        ("todo.updated", json!({ "sessionID": session, "todos": "many" })),
        ("permission.asked", json!({ "id": "ask_ses_1", "sessionID": session, "patterns": 1 })),
        ("permission.replied", json!({ "requestID": "ask_ses_1", "sessionID": session, "reply": {} })),
        ("agent.started", json!([])),
        ("agent.status", json!({ "state": 1 })),
        ("agent.usage", json!("much")),
        ("wrapper.lost", json!({ "since": "yesterday" })),
        ("wrapper.auto_commit.skipped", json!({})),
        ("wrapper.auto_commit.completed", json!({ "hash": 7 })),
    ])
}
