use serde_json::{Value, json};

use super::*;
use crate::{
    Event, NewEvent,
    agent::Lost,
    frame::GapReason,
    model::{PartBody, SessionStatus},
    session_of,
};

#[test]
fn deltas_are_joined_onto_the_text_before_them() {
    let view =
        fold(&[part(json!({ "type": "text", "text": "Hel" })), delta("text", "lo "), delta("text", "world")]);
    let part = view.part("msg_1", "prt_1").unwrap();
    assert_eq!(part.body().text(), Some("Hello world"));
    assert_eq!(part.to_json()["text"], "Hello world");
    assert_eq!(
        part.raw().unwrap().parse::<Value>().unwrap()["text"],
        "Hel",
        "the raw part is as it was sent"
    );
    assert_eq!(part.changed(), Seq::new(3));
}

#[test]
fn the_final_text_of_a_part_counts_and_not_its_deltas() {
    let view = fold(&[
        part(json!({ "type": "reasoning", "text": "" })),
        delta("text", "thinkin"),
        part(json!({ "type": "reasoning", "text": "thinking", "time": { "start": 1, "end": 2 } })),
    ]);
    let body = view.part("msg_1", "prt_1").unwrap().body();
    assert!(matches!(body, PartBody::Reasoning(text) if text.text == "thinking"));
}

#[test]
fn a_delta_without_its_part_is_kept_as_text() {
    let view = fold(&[delta("text", "half a sen")]);
    let part = view.part("msg_1", "prt_1").unwrap();
    assert_eq!((part.body().text(), part.raw()), (Some("half a sen"), None));
    assert_eq!(view.sessions().len(), 1, "its session is known by it");
}

#[test]
fn a_delta_of_another_field_is_joined_there() {
    let view = fold(&[
        part(json!({ "type": "tool", "tool": "bash", "log": "a" })),
        delta("log", "b"),
        delta("text", "c"),
    ]);
    let json = view.part("msg_1", "prt_1").unwrap().to_json();
    assert_eq!((&json["log"], &json["text"]), (&json!("ab"), &json!("c")));
}

#[test]
fn types_and_fields_that_are_not_known_survive_byte_for_byte() {
    let raw = r#"{"id":"prt_1","messageID":"msg_1","sessionID":"ses_1","type":"hologram","depth":1.50,  "n":[1e2]}"#;
    let data = format!(r#"{{"sessionID":"ses_1","part":{raw}}}"#);
    let view = fold(&[("message.part.updated", RawData::from_json(data).unwrap())]);
    let part = view.part("msg_1", "prt_1").unwrap();
    assert_eq!(part.raw().unwrap().json(), raw);
    assert_eq!((part.kind().as_str(), part.body()), ("hologram", &PartBody::Unknown));
    assert_eq!(view.malformed(), 0, "unknown is not malformed");
}

#[test]
fn a_payload_of_the_wrong_shape_is_kept_and_counted() {
    let view = fold(&[part(json!({ "type": "text", "text": ["no"] }))]);
    let part = view.part("msg_1", "prt_1").unwrap();
    assert!(part.malformed().is_some());
    assert_eq!(part.to_json()["text"], json!(["no"]));
    assert_eq!(view.malformed(), 1);
}

#[test]
fn messages_are_in_the_order_of_their_times_and_parts_of_their_ids() {
    let message = |id: &str, created: u64| {
        (
            "message.updated",
            data(json!({ "info": { "id": id, "sessionID": "ses_1", "time": { "created": created } } })),
        )
    };
    let view = fold(&[
        message("msg_a", 30),
        message("msg_c", 10),
        message("msg_b", 10),
        part_of("msg_a", "prt_2", json!({ "type": "text", "text": "second" })),
        part_of("msg_a", "prt_1", json!({ "type": "text", "text": "first" })),
    ]);
    let messages = view.session("ses_1").unwrap().messages();
    let ids: Vec<_> = messages.iter().map(|message| &**message.id()).collect();
    assert_eq!(ids, ["msg_b", "msg_c", "msg_a"]);
    let texts: Vec<_> = messages[2].parts().filter_map(|part| part.body().text()).collect();
    assert_eq!(texts, ["first", "second"]);
}

#[test]
fn sessions_are_oldest_first_and_children_below_their_parent() {
    let session = |id: &str, parent: Value, created: u64| {
        let info = json!({ "id": id, "parentID": parent, "time": { "created": created } });
        ("session.updated", data(json!({ "info": info })))
    };
    // Ids of sessions fall with time on kilo and opencode.
    let view = fold(&[
        session("ses_7", json!("ses_9"), 30),
        session("ses_8", json!("ses_9"), 20),
        session("ses_9", Value::Null, 10),
    ]);
    let ids = |sessions: &[SessionRef<'_>]| sessions.iter().map(|s| s.id().to_string()).collect::<Vec<_>>();
    assert_eq!(ids(&view.sessions()), ["ses_9", "ses_8", "ses_7"]);
    assert_eq!(ids(&view.roots()), ["ses_9"]);
    assert_eq!(ids(&view.roots()[0].children()), ["ses_8", "ses_7"]);
}

#[test]
fn a_removed_message_takes_its_parts_and_leaves_one_tombstone() {
    let view = fold(&[
        part_of("msg_1", "prt_1", json!({ "type": "text" })),
        part_of("msg_1", "prt_2", json!({ "type": "text" })),
        (
            "message.part.removed",
            data(json!({ "sessionID": "ses_1", "messageID": "msg_1", "partID": "prt_2" })),
        ),
        ("message.removed", data(json!({ "sessionID": "ses_1", "messageID": "msg_1" }))),
    ]);
    assert_eq!(view.message("msg_1"), None);
    let removed: Vec<_> = view.removed().map(|(key, removed)| (key.to_string(), removed.seq.get())).collect();
    assert_eq!(removed, [("message/msg_1".to_owned(), 4)]);
    assert!(view.sessions().is_empty(), "nothing else was known of its session");
}

#[test]
fn a_deleted_session_takes_everything_of_it_but_not_its_children() {
    let session = |id: &str, parent: Value| {
        ("session.created", data(json!({ "sessionID": id, "info": { "id": id, "parentID": parent } })))
    };
    let view = fold(&[
        session("ses_1", Value::Null),
        session("ses_2", json!("ses_1")),
        part(json!({ "type": "text", "text": "x" })),
        ("permission.asked", data(json!({ "id": "per_1", "sessionID": "ses_1" }))),
        ("session.error", data(json!({ "sessionID": "ses_1", "error": { "name": "APIError" } }))),
        ("session.deleted", data(json!({ "sessionID": "ses_1", "info": { "id": "ses_1" } }))),
    ]);
    assert!(view.session("ses_1").is_none() && view.message("msg_1").is_none());
    assert!(view.pending().is_empty() && view.notices().is_empty());
    assert!(view.roots()[0].id().as_ref() == "ses_2", "a child whose parent is gone is a root");
}

#[test]
fn asks_wait_oldest_first_until_they_are_answered() {
    let asked =
        |kind, id: &str| (kind, data(json!({ "id": id, "sessionID": "ses_1", "patterns": ["rm *"] })));
    let mut events = vec![
        asked("permission.asked", "per_9"),
        asked("question.asked", "que_1"),
        asked("session.network.asked", "que_1"),
    ];
    let ids = |view: &SessionView| view.pending().iter().map(|ask| ask.key().to_string()).collect::<Vec<_>>();
    assert_eq!(ids(&fold(&events)), ["permission/per_9", "question/que_1", "network/que_1"]);
    events.push((
        "permission.replied",
        data(json!({ "sessionID": "ses_1", "requestID": "per_9", "reply": "always" })),
    ));
    events.push(("question.rejected", data(json!({ "sessionID": "ses_1", "requestID": "que_1" }))));
    let view = fold(&events);
    assert_eq!(ids(&view), ["network/que_1"]);
    let answers: Vec<_> = view.answered().into_iter().map(|ask| ask.answer.clone()).collect();
    assert_eq!(answers, [Answer::Permission("always".into()), Answer::QuestionRejected]);
    assert_eq!(view.ask(&Key::new("permission/per_9")), None);
}

#[test]
fn p10_an_answer_says_what_was_asked_when_the_question_is_gone_from_the_log() {
    let asked =
        json!({ "id": "per_1", "sessionID": "ses_1", "permission": "bash", "patterns": ["rm -rf x"] });
    let replied =
        json!({ "sessionID": "ses_1", "requestID": "per_1", "reply": "once", "asked": asked.clone() });
    let question = ("permission.asked", data(asked));
    let answer = ("permission.replied", data(replied));
    let (whole, compacted) = (fold(&[question, answer.clone()]), fold(&[answer]));
    for view in [whole, compacted] {
        let answered = view.answered()[0].clone();
        assert_eq!(answered.answer, Answer::Permission("once".into()));
        let Some(Ask::Permission(permission)) = answered.asked else { panic!("{:?}", answered.asked) };
        assert_eq!(permission.patterns, ["rm -rf x"]);
    }
}

#[test]
fn a_turn_is_open_from_its_first_work_until_it_is_idle_or_closed() {
    let status =
        |word: &str| ("session.status", data(json!({ "sessionID": "ses_1", "status": { "type": word } })));
    let of = |kind| (kind, data(json!({ "sessionID": "ses_1", "reason": "error" })));
    let is_open = |events: &[(&'static str, RawData)]| fold(events).session("ses_1").unwrap().is_turn_open();
    assert!(is_open(&[of("session.turn.open")]));
    assert!(is_open(&[status("busy")]), "opencode opens no turn");
    assert!(is_open(&[of("session.idle"), status("retry")]));
    assert!(!is_open(&[status("busy"), status("idle")]));
    assert!(!is_open(&[status("busy"), of("session.idle")]));
    let closed = fold(&[of("session.turn.open"), of("session.turn.close")]);
    assert!(!closed.session("ses_1").unwrap().is_turn_open());
    assert_eq!(closed.session("ses_1").unwrap().closed().unwrap().reason, "error");
}

#[test]
fn a_retry_says_which_try_it_was_and_when_the_next_one_is() {
    let status =
        json!({ "type": "retry", "attempt": 2, "message": "Rate limit", "next": 1_795_199_244_841_i64 });
    let view = fold(&[("session.status", data(json!({ "sessionID": "ses_1", "status": status })))]);
    let next = Some(Timestamp::from_unix_ms(1_795_199_244_841));
    let expected = SessionStatus::Retry { attempt: 2, message: "Rate limit".into(), next };
    assert_eq!(view.session("ses_1").unwrap().status(), &expected);
}

#[test]
fn usage_is_summed_over_children_also_when_parents_form_a_ring() {
    let session = |id: &str, parent: &str| {
        ("session.created", data(json!({ "info": { "id": id, "parentID": parent } })))
    };
    let message = |id: &str, session: &str, input: u64| {
        let info = json!({ "id": id, "sessionID": session, "tokens": { "input": input }, "cost": 0.25 });
        ("message.updated", data(json!({ "info": info })))
    };
    let view = fold(&[
        session("ses_1", "ses_2"),
        session("ses_2", "ses_1"),
        message("msg_1", "ses_1", 3),
        message("msg_2", "ses_2", 4),
    ]);
    for id in ["ses_1", "ses_2"] {
        let usage = view.session(id).unwrap().total_usage();
        assert_eq!((usage.tokens.input, usage.cost), (7, 0.5), "{id}");
    }
    assert_eq!(view.usage().tokens.input, 7);
}

#[test]
fn the_agent_is_as_its_last_event_says() {
    let started = ("agent.started", data(json!({ "generation": 2, "runtime": "kilo", "version": "7.7.7" })));
    let busy = ("agent.status", data(json!({ "state": "busy", "detail": "thinking" })));
    let failed =
        ("agent.failed", data(json!({ "message": "it died", "exit_code": 137, "stderr": ["boom"] })));
    let view = fold(&[started.clone(), busy.clone()]);
    assert_eq!(view.agent().lifecycle, Lifecycle::Running(State::Busy));
    assert_eq!(view.agent().detail.as_deref(), Some("thinking"));
    let view = fold(&[started.clone(), busy, failed]);
    assert!(matches!(&view.agent().lifecycle, Lifecycle::Failed(failed) if failed.exit_code == Some(137)));
    assert_eq!(view.agent().detail, None);
    assert_eq!(view.agent().started.as_ref().unwrap().generation, 2);
    assert_eq!(view.notices().len(), 2, "the start and the failure, in order");
}

#[test]
fn losses_are_notices() {
    let view = fold(&[("wrapper.lost", data(json!({ "since": "2026-11-20T18:23:04.413Z" })))]);
    let since = Timestamp::from_unix_ms(1_795_198_984_413);
    assert_eq!(view.notices()[0].body, NoticeBody::Lost(Lost { since }));
}

#[test]
fn what_a_wrapper_did_for_its_agent_is_told_in_order_and_in_the_shapes_of_its_events() {
    let told = [
        (
            "wrapper.workspace.ready",
            json!({ "branch": "gt/toast/work", "commit": "a1b2", "base": "main", "resumed": false }),
        ),
        ("wrapper.session_recreated", json!({ "lost": "ses_1", "session": "ses_2", "summarised": true })),
        ("wrapper.auto_commit.started", json!({ "branch": "gt/toast/work", "paths": 3 })),
        (
            "wrapper.auto_commit.completed",
            json!({ "hash": "a1b2c3d4e5", "branch": "gt/toast/work", "subject": "Fix it", "pushed": false, "not_pushed": "rejected" }),
        ),
        ("wrapper.auto_commit.skipped", json!({ "reason": "default_branch" })),
        ("wrapper.auto_commit.failed", json!({ "message": "no space" })),
        ("wrapper.condense.started", json!({})),
        ("wrapper.condense.completed", json!({})),
        ("wrapper.condense.skipped", json!({ "reason": "unsupported" })),
        ("wrapper.condense.failed", json!({ "message": "no model" })),
    ];
    let view = fold(&told.clone().map(|(kind, body)| (kind, data(body))));
    assert_eq!((view.notices().len(), view.malformed()), (told.len(), 0));
    let shown = serde_json::to_value(&view).unwrap();
    for (notice, (kind, body)) in shown["notices"].as_array().unwrap().iter().zip(&told) {
        assert_eq!((notice["type"].as_str(), &notice["data"]), (Some(*kind), body));
    }
}

#[test]
fn what_is_begun_after_a_turn_has_its_own_end() {
    let commit = |step| (step, data(json!({ "branch": "b", "paths": 1, "reason": "clean" })));
    let condense = |step| (step, data(json!({ "message": "x" })));
    let view = fold(&[
        commit("wrapper.auto_commit.started"),
        condense("wrapper.condense.started"),
        commit("wrapper.auto_commit.skipped"),
        condense("wrapper.condense.failed"),
        condense("wrapper.condense.started"),
    ]);
    let ends: Vec<_> =
        view.notices().iter().map(|notice| view.end_of(notice).map(|end| end.seq.get())).collect();
    assert_eq!(ends, [Some(3), Some(4), None, None, None]);
}

#[test]
fn a_reason_of_a_newer_wrapper_is_a_reason_all_the_same() {
    let skipped = |reason: &str| fold(&[("wrapper.auto_commit.skipped", data(json!({ "reason": reason })))]);
    let said = |view: &SessionView| {
        let NoticeBody::AutoCommitSkipped(skipped) = &view.notices()[0].body else {
            panic!("it was skipped")
        };
        skipped.reason.to_string()
    };
    assert_eq!(said(&skipped("clean")), "nothing has changed");
    assert_eq!(said(&skipped("eclipse")), "the wrapper has a reason of its own");
}

#[test]
fn after_a_gap_only_the_gap_is_left() {
    let mut view = fold(&[part(json!({ "type": "text", "text": "x" }))]);
    let gap = NoticeBody::Gap { from: None, to: None, reason: GapReason::Epoch };
    view.restart_after_gap(gap.clone(), Timestamp::from_unix_ms(5));
    assert!(view.sessions().is_empty());
    assert_eq!(view.notices()[0].body, gap);
    view.apply(&event(delta("text", "y"), 1));
    assert_eq!(view.part("msg_1", "prt_1").unwrap().body().text(), Some("y"), "a new log begins at 1");
}

#[test]
fn volatile_events_do_not_count() {
    let view = fold(&[("server.heartbeat", data(json!({})))]);
    assert_eq!(view, SessionView::default());
}

#[test]
fn the_view_as_json_holds_the_servers_own_objects() {
    let info = r#"{"id":"msg_1","sessionID":"ses_1","role":"user","x":1.50}"#;
    let view = fold(&[
        ("message.updated", RawData::from_json(format!(r#"{{"info":{info}}}"#)).unwrap()),
        part(json!({ "type": "text", "text": "a" })),
        delta("text", "b"),
    ]);
    let text = serde_json::to_string(&view).unwrap();
    assert!(text.contains(info), "{text}");
    let json: Value = serde_json::from_str(&text).unwrap();
    let message = &json["sessions"][0]["messages"][0];
    assert_eq!((&message["changed"], &message["parts"][0]["part"]["text"]), (&json!(3), &json!("ab")));
}

fn fold(events: &[(&'static str, RawData)]) -> SessionView {
    let mut view = SessionView::default();
    for (said, seq) in events.iter().zip(1..) {
        view.apply(&event(said.clone(), seq));
    }
    view
}

fn event((kind, data): (&'static str, RawData), seq: u64) -> Event {
    let session = session_of(kind, data.json());
    NewEvent { time: Timestamp::from_unix_ms(0), kind: kind.into(), session, data }.at(Seq::new(seq))
}

fn part(body: Value) -> (&'static str, RawData) {
    part_of("msg_1", "prt_1", body)
}

fn part_of(message: &str, part: &str, mut body: Value) -> (&'static str, RawData) {
    for (name, id) in [("id", part), ("messageID", message), ("sessionID", "ses_1")] {
        body[name] = json!(id);
    }
    ("message.part.updated", data(json!({ "sessionID": "ses_1", "part": body })))
}

fn delta(field: &str, text: &str) -> (&'static str, RawData) {
    let ids = json!({ "sessionID": "ses_1", "messageID": "msg_1", "partID": "prt_1", "field": field, "delta": text });
    ("message.part.delta", data(ids))
}

#[expect(clippy::needless_pass_by_value, reason = "a literal reads better than a reference to one")]
fn data(value: Value) -> RawData {
    RawData::of(&value).unwrap()
}
