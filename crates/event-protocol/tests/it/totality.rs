//! P20: whatever an event says, folding it does not panic, and neither does anything that is read from the view.

use proptest::prelude::*;
use protocol::{Event, NewEvent, RawData, Seq, Timestamp, classify, named_types, view::SessionView};
use serde_json::{Value, json};

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    #[test]
    fn p20_no_event_makes_the_fold_panic(events in prop::collection::vec((kind(), session(), json()), 0..30)) {
        let mut view = SessionView::default();
        for ((kind, session, data), seq) in events.into_iter().zip(1..) {
            view.apply(&event(&kind, session.as_deref(), &data).at(Seq::new(seq)));
        }
        read_all(&view);
    }

    #[test]
    fn p20_no_key_makes_the_fold_panic(kind in kind(), key in "[a-z_/]{0,20}", data in json()) {
        // A key that the classifier would not have given, from a damaged log or a foreign server.
        let key = Some(protocol::Key::new(&key));
        let mut view = SessionView::default();
        view.apply(&Event { key, ..event(&kind, None, &data).at(Seq::new(1)) });
        read_all(&view);
    }

    #[test]
    fn p20_no_text_makes_the_classifier_panic(kind in "\\PC{0,30}", data in "\\PC{0,60}") {
        let _ = classify(&kind, None, &data);
        let _ = protocol::session_of(&kind, &data);
    }
}

/// Everything that a page would ask of a view.
fn read_all(view: &SessionView) {
    for session in view.sessions() {
        let _ = (session.total_usage(), session.context_tokens(), session.children(), session.queued());
        for message in session.messages() {
            let _ = message.info().map(|info| (info.diffs(), info.usage()));
            for part in message.parts() {
                let _ = (part.to_json(), part.kind(), part.body().tool().map(|tool| tool.state.output()));
            }
        }
    }
    let _ = (view.roots(), view.pending(), view.answered(), view.malformed());
    assert!(serde_json::to_string(view).is_ok());
}

fn event(kind: &str, session: Option<&str>, data: &Value) -> NewEvent {
    let time = Timestamp::from_unix_ms(0);
    NewEvent { time, kind: kind.into(), session: session.map(Into::into), data: RawData::of(data).unwrap() }
}

fn kind() -> impl Strategy<Value = String> {
    prop::sample::select(named_types().collect::<Vec<_>>()).prop_map(|kind| kind.replace('*', "x"))
}

fn session() -> impl Strategy<Value = Option<String>> {
    prop::option::of(prop::sample::select(vec!["a", "b"]).prop_map(str::to_owned))
}

/// Any JSON whose fields are those that mean something, so that it reaches far.
fn json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        prop::sample::select(vec!["a", "b", "text", "tool", "running", "busy", "retry", "a/b"])
            .prop_map(Value::from),
    ];
    let names = [
        "id",
        "sessionID",
        "messageID",
        "partID",
        "requestID",
        "parentID",
        "info",
        "part",
        "type",
        "text",
        "field",
        "delta",
        "status",
        "state",
        "time",
        "created",
        "tokens",
        "input",
        "cache",
        "cost",
        "todos",
        "queued",
        "error",
        "metadata",
        "summary",
        "diffs",
        "questions",
        "answers",
        "reply",
        "stderr",
    ];
    leaf.prop_recursive(4, 40, 8, move |inner| {
        let name = prop::sample::select(names.to_vec());
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(|items| json!(items)),
            prop::collection::hash_map(name, inner, 0..8).prop_map(|fields| json!(fields)),
        ]
    })
}
