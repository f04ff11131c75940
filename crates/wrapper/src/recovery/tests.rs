use protocol::{Seq, agent::State, view::Lifecycle};

use super::*;
use crate::{runtime::ServerState, session_tree::SessionTree};

#[test]
fn a_text_that_was_being_written_stays_as_far_as_it_came() {
    let view = in_the_middle_of_a_turn();
    let view = with(view.clone(), broken_off(&view, now()));
    let part = view.part("m2", "p1").unwrap();
    let text = part.body().text_part().unwrap();
    assert_eq!((text.text.as_str(), text.is_interrupted()), ("Hello wor", true));
    assert!(text.time.as_ref().is_some_and(|time| time.end.is_some()));
    assert_eq!(part.to_json()["own"], "kept");
}

#[test]
fn what_is_broken_off_comes_in_the_order_of_the_document() {
    let events = broken_off(&in_the_middle_of_a_turn(), now());
    let kinds: Vec<&str> = events.iter().map(|event| &*event.kind).collect();
    assert_eq!(
        kinds,
        [
            "message.part.updated", // the text
            "message.part.updated", // the tool
            "message.updated",
            "permission.replied",
            "session.status",
            "session.idle",
        ]
    );
    assert!(events.iter().all(|event| event.session.as_deref() == Some("s")), "each names its session");
}

#[test]
fn work_after_a_turn_whose_wrapper_died_has_failed_before_the_turn_is_over() {
    let started = |kind: &str| NewEvent::of(now(), kind, &json!({ "branch": "topic", "paths": 1 })).unwrap();
    for (begun, failed) in [
        ("wrapper.auto_commit.started", "wrapper.auto_commit.failed"),
        ("wrapper.condense.started", "wrapper.condense.failed"),
    ] {
        let middle = in_the_middle_of_a_turn();
        // As on servers that say that they are idle before they say that the turn is over.
        let idle = with(middle.clone(), broken_off(&middle, now()));
        let view = with(idle, vec![started(begun)]);
        let events = broken_off(&view, now());
        let kinds: Vec<&str> = events.iter().map(|event| &*event.kind).collect();
        assert!(kinds.ends_with(&[failed, "session.status", "session.idle"]), "{kinds:?}");
        assert!(left_open(&view, &view, now()).iter().any(|event| &*event.kind == failed));
        let closed = with(view.clone(), events);
        assert_eq!(broken_off(&closed, now()), []);
        let begins = with(closed.clone(), vec![started(begun)]);
        assert_eq!(left_open(&begins, &closed, now()), [], "this run's own goes on");
    }
}

#[test]
fn nothing_is_open_once_it_was_set_right() {
    let view = in_the_middle_of_a_turn();
    let view = with(view.clone(), broken_off(&view, now()));
    assert!(view.pending().is_empty());
    assert!(!view.session("s").unwrap().is_turn_open());
    let tool = view.part("m2", "p2").unwrap().body().tool().unwrap();
    assert_eq!(tool.state.word(), "error");
    assert_eq!(broken_off(&view, now()), [], "there is nothing to set right a second time");
}

#[test]
fn a_finished_turn_is_left_alone() {
    let mut events = turn();
    events
        .retain(|event| &*event.kind == "session.created" || event.data.json().contains(r#""role":"user""#));
    let view = with(SessionView::default(), events);
    assert_eq!(broken_off(&view, now()), []);
}

#[test]
fn a_stored_text_does_not_replace_the_longer_one_that_was_streamed() {
    let view = in_the_middle_of_a_turn();
    let mut state = stored(&view);
    state.messages[1]["parts"][0]["text"] = "".into();
    assert_eq!(catch_up(&view, Known::Log, &state, &mut tree(), now()), []);
}

#[test]
fn what_a_death_broke_off_is_not_opened_again_by_a_server_that_does_not_know_of_it() {
    let view = in_the_middle_of_a_turn();
    let mut state = stored(&view);
    state.status.clear();
    state.permissions.clear();
    let set_right = with(view.clone(), broken_off(&view, now()));
    assert_eq!(catch_up(&set_right, Known::Log, &state, &mut tree(), now()), []);
}

#[test]
fn what_began_and_was_broken_off_unheard_is_told_and_closed() {
    let told = in_the_middle_of_a_turn();
    let mut state = stored(&told);
    state.status.clear();
    state.permissions.clear();
    let view = with(
        SessionView::default(),
        catch_up(&SessionView::default(), Known::Log, &state, &mut tree(), now()),
    );
    assert!(view.message("m2").unwrap().info().unwrap().time.completed.is_some());
    assert_eq!(view.part("m2", "p2").unwrap().body().tool().unwrap().state.word(), "error");
    assert!(!view.session("s").unwrap().is_turn_open());
    assert_eq!(
        catch_up(&view, Known::Log, &state, &mut tree(), now()),
        [],
        "there is nothing to say a second time"
    );
}

#[test]
fn the_mere_beginning_of_a_text_that_nobody_goes_on_with_is_not_told() {
    let mut state = stored(&in_the_middle_of_a_turn());
    state.status.clear();
    state.messages[1]["parts"][0]["text"] = "".into();
    let empty = SessionView::default();
    let view = with(empty.clone(), catch_up(&empty, Known::Log, &state, &mut tree(), now()));
    assert!(view.message("m2").is_some() && view.part("m2", "p1").is_none());

    // It is where the server goes on with it: its deltas need to be told of what they are.
    let mut state = stored(&in_the_middle_of_a_turn());
    state.messages[1]["parts"][0]["text"] = "".into();
    let view = with(empty.clone(), catch_up(&empty, Known::Log, &state, &mut tree(), now()));
    assert!(view.part("m2", "p1").is_some());
}

#[test]
fn what_an_unread_log_may_have_is_not_told_anew_but_what_this_run_began_is_compared() {
    let mut state = stored(&in_the_middle_of_a_turn());
    state.messages[1]["parts"][0]["text"] = "Hello world".into();
    state.messages[1]["parts"][0]["time"]["end"] = 9.into();
    let nothing = SessionView::default();
    let kinds = |events: Vec<NewEvent>| events.iter().map(|event| event.kind.to_string()).collect::<Vec<_>>();
    let told = catch_up(&nothing, Known::ThisRun, &state, &mut tree(), now());
    assert_eq!(kinds(told), ["session.created", "permission.asked", "session.status"]);

    let begun = with(nothing, turn());
    let view = with(begun.clone(), catch_up(&begun, Known::ThisRun, &state, &mut tree(), now()));
    assert_eq!(view.part("m2", "p1").unwrap().body().text(), Some("Hello world"));
}

#[test]
fn what_an_earlier_run_left_open_is_closed_beside_what_this_one_began() {
    let before = in_the_middle_of_a_turn();
    let of_now = |kind: &str, data: Value| event(Timestamp::from_unix_ms(5), kind, "s", &data);
    let begun = vec![
        of_now(
            "message.updated",
            json!({ "info": { "id": "m3", "sessionID": "s", "role": "assistant", "time": { "created": 5 } } }),
        ),
        of_now("permission.asked", json!({ "id": "per_2", "sessionID": "s", "permission": "bash" })),
    ];
    let whole = with(before.clone(), begun);
    let view = with(whole.clone(), left_open(&whole, &before, now()));
    let text = view.part("m2", "p1").unwrap().body().text_part().unwrap();
    assert_eq!((text.text.as_str(), text.is_interrupted()), ("Hello wor", true));
    assert!(view.message("m3").unwrap().info().unwrap().time.completed.is_none());
    assert_eq!(view.pending().iter().map(|ask| &*ask.id).collect::<Vec<_>>(), ["per_2"]);
    assert_eq!(left_open(&view, &before, now()), []);
}

#[test]
fn a_text_that_ended_meanwhile_is_taken_from_the_server() {
    let view = in_the_middle_of_a_turn();
    let mut state = stored(&view);
    state.messages[1]["parts"][0]["text"] = "Hello world".into();
    state.messages[1]["parts"][0]["time"]["end"] = 9.into();
    let view = with(view.clone(), catch_up(&view, Known::Log, &state, &mut tree(), now()));
    assert_eq!(view.part("m2", "p1").unwrap().body().text(), Some("Hello world"));
}

#[test]
fn what_the_server_no_longer_has_is_removed() {
    let view = in_the_middle_of_a_turn();
    let mut state = stored(&view);
    state.messages[1]["parts"].as_array_mut().unwrap().pop();
    state.messages.remove(0);
    let view = with(view.clone(), catch_up(&view, Known::Log, &state, &mut tree(), now()));
    assert!(view.message("m1").is_none() && view.part("m2", "p2").is_none());
    assert!(view.part("m2", "p1").is_some());
}

#[test]
fn asks_and_status_become_those_of_the_server() {
    let view = in_the_middle_of_a_turn();
    let mut state = stored(&view);
    state.permissions = vec![json!({ "id": "per_2", "sessionID": "s", "permission": "edit" })];
    state.status.clear();
    let view = with(view.clone(), catch_up(&view, Known::Log, &state, &mut tree(), now()));
    let open: Vec<&str> = view.pending().iter().map(|ask| &*ask.id).collect();
    assert_eq!(open, ["per_2"]);
    assert!(!view.session("s").unwrap().is_turn_open());
}

#[test]
fn what_is_asked_about_the_network_is_compared_as_well() {
    let asked = |id: &str| json!({ "id": id, "sessionID": "s", "message": "reset", "restored": false, "time": { "created": 1 } });
    let mut events = turn();
    events.push(event(Timestamp::from_unix_ms(1), "session.network.asked", "s", &asked("que_old")));
    let view = with(SessionView::default(), events);
    let mut state = stored(&in_the_middle_of_a_turn());
    state.networks = vec![asked("que_new")];
    let view = with(view.clone(), catch_up(&view, Known::Log, &state, &mut tree(), now()));
    let open: Vec<&str> = view.pending().iter().map(|ask| &*ask.id).collect();
    assert_eq!(open, ["per_1", "que_new"], "what was answered meanwhile waits no more");
    assert!(view.pending()[1].network().is_some());
}

#[test]
fn what_the_log_has_let_go_of_is_not_told_again_and_what_was_missed_is() {
    let mut state = ServerState { sessions: vec![json!({ "id": "s" })], ..ServerState::default() };
    state.messages = (0..600).map(answered).collect();
    let nothing = SessionView::default();
    let mut newest = state.clone();
    newest.messages.drain(..550);
    // Of an old message there is a late word about it, without its parts.
    let late = event(
        Timestamp::from_unix_ms(1),
        "message.updated",
        "s",
        &json!({ "info": state.messages[3]["info"] }),
    );
    let view = with(nothing.clone(), catch_up(&nothing, Known::Log, &newest, &mut tree(), now()));
    let view = with(view, vec![late]);
    assert_eq!(catch_up(&view, Known::Log, &state, &mut tree(), now()), []);

    state.messages.push(answered(600));
    let child = json!({ "id": "child", "parentID": "s", "time": { "created": 600 } });
    let old = json!({ "id": "old", "parentID": "s", "time": { "created": 300 } });
    state.sessions.extend([child, old]);
    for (number, session) in [(601, "child"), (301, "old")] {
        let mut message = answered(number);
        message["info"]["sessionID"] = session.into();
        message["info"]["id"] = format!("m_{session}").into();
        state.messages.push(message);
    }
    let told = catch_up(&view, Known::Log, &state, &mut tree(), now());
    let told: Vec<(&str, &str)> =
        told.iter().map(|event| (&*event.kind, event.session.as_deref().unwrap())).collect();
    let message = |session| [("message.updated", session), ("message.part.updated", session)];
    assert_eq!(
        told,
        [vec![("session.created", "child")], [message("s"), message("child")].concat()].concat()
    );
}

#[test]
fn what_is_older_than_what_was_asked_for_is_not_taken_for_removed() {
    let mut state = ServerState { sessions: vec![json!({ "id": "s" })], ..ServerState::default() };
    state.messages = (0..10).map(answered).collect();
    let nothing = SessionView::default();
    let view = with(nothing.clone(), catch_up(&nothing, Known::Log, &state, &mut tree(), now()));
    state.messages.drain(..5);
    state.messages.remove(2);
    state.cut.insert("s".to_owned());
    let view = with(view.clone(), catch_up(&view, Known::Log, &state, &mut tree(), now()));
    assert!(view.message("m_7").is_none(), "it is gone");
    assert_eq!(view.session("s").unwrap().messages().len(), 9);
}

#[test]
fn a_sub_agent_that_the_server_no_longer_has_is_removed() {
    let child = json!({ "id": "child", "parentID": "s" });
    let created = event(Timestamp::from_unix_ms(1), "session.created", "child", &json!({ "info": child }));
    let asked = event(
        Timestamp::from_unix_ms(1),
        "permission.asked",
        "child",
        &json!({ "id": "per_9", "sessionID": "child", "permission": "bash" }),
    );
    let state = stored(&in_the_middle_of_a_turn());
    let view = with(in_the_middle_of_a_turn(), vec![created, asked]);
    let mut tree = tree();
    tree.learn("child", Some("s"));
    let told = catch_up(&view, Known::Log, &state, &mut tree, now());
    assert_eq!(told.iter().map(|event| &*event.kind).next(), Some("session.deleted"));
    let view = with(view, told);
    assert!(view.session("child").is_none() && view.pending().len() == 1);
    assert_eq!(catch_up(&view, Known::Log, &state, &mut tree, now()), []);
}

#[test]
fn sessions_of_others_are_not_caught_up_with() {
    let view = in_the_middle_of_a_turn();
    let mut state = stored(&view);
    state.sessions.push(json!({ "id": "other" }));
    state.messages.push(json!({ "info": { "id": "m9", "sessionID": "other", "role": "user" }, "parts": [] }));
    assert_eq!(catch_up(&view, Known::Log, &state, &mut tree(), now()), []);
}

#[test]
fn catching_up_twice_says_nothing_the_second_time() {
    let empty = SessionView::default();
    let state = stored(&in_the_middle_of_a_turn());
    let view = with(empty.clone(), catch_up(&empty, Known::Log, &state, &mut tree(), now()));
    assert_eq!(view.part("m2", "p1").unwrap().body().text(), Some("Hello wor"));
    assert_eq!(catch_up(&view, Known::Log, &state, &mut tree(), now()), []);
    assert_eq!(
        view.agent().lifecycle,
        Lifecycle::Running(State::Unknown),
        "the agent itself is another's concern"
    );
}

/// A turn with a text half written, a tool that runs, and a permission that waits.
fn in_the_middle_of_a_turn() -> SessionView {
    with(SessionView::default(), turn())
}

fn turn() -> Vec<NewEvent> {
    let of = |kind: &str, data: Value| event(Timestamp::from_unix_ms(1), kind, "s", &data);
    vec![
        of("session.created", json!({ "info": { "id": "s", "title": "t" } })),
        of(
            "message.updated",
            json!({ "info": { "id": "m1", "sessionID": "s", "role": "user", "time": { "created": 1 } } }),
        ),
        of("session.status", json!({ "sessionID": "s", "status": { "type": "busy" } })),
        of(
            "message.updated",
            json!({ "info": { "id": "m2", "sessionID": "s", "role": "assistant", "time": { "created": 2 } } }),
        ),
        of(
            "message.part.updated",
            json!({ "part": { "id": "p1", "messageID": "m2", "sessionID": "s", "type": "text",
            "text": "", "own": "kept", "time": { "start": 3 } } }),
        ),
        of(
            "message.part.delta",
            json!({ "messageID": "m2", "partID": "p1", "field": "text", "delta": "Hello wor" }),
        ),
        of(
            "message.part.updated",
            json!({ "part": { "id": "p2", "messageID": "m2", "sessionID": "s", "type": "tool",
            "tool": "bash", "callID": "c", "state": { "status": "running", "input": {}, "time": { "start": 4 } } } }),
        ),
        of("permission.asked", json!({ "id": "per_1", "sessionID": "s", "permission": "bash" })),
    ]
}

/// A message that is complete.
fn answered(number: u64) -> Value {
    let (id, time) = (format!("m_{number}"), json!({ "created": number, "completed": number }));
    let part = json!({ "id": format!("p_{number}"), "messageID": id, "sessionID": "s", "type": "text", "text": "done", "time": { "start": 1, "end": 2 } });
    json!({ "info": { "id": id, "sessionID": "s", "role": "assistant", "time": time }, "parts": [part] })
}

/// What a server would say that has stored all of it.
fn stored(view: &SessionView) -> ServerState {
    let session = view.session("s").unwrap();
    let message = |message: &&MessageView| {
        let info: Value = message.raw_info().unwrap().parse().unwrap();
        json!({ "info": info, "parts": message.parts().map(PartView::to_json).collect::<Vec<_>>() })
    };
    ServerState {
        sessions: vec![session.raw_info().unwrap().parse().unwrap()],
        messages: session.messages().iter().map(message).collect(),
        status: Map::from_iter([("s".to_owned(), json!({ "type": "busy" }))]),
        permissions: view.pending().iter().map(|ask| ask.raw.parse().unwrap()).collect(),
        ..ServerState::default()
    }
}

fn with(mut view: SessionView, events: Vec<NewEvent>) -> SessionView {
    for event in events {
        view.apply(&event.at(Seq::new(view.seq().get() + 1)));
    }
    view
}

fn tree() -> SessionTree {
    SessionTree::of_root("s")
}

fn now() -> Timestamp {
    Timestamp::from_unix_ms(99)
}
