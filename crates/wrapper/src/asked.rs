//! Answers say what they answer: the event of an answer makes the event that asked obsolete (§3).

use protocol::{NewEvent, RawData, view::SessionView};
use serde_json::{Map, Value};

/// Adds the payload of what was asked to the event of an answer, as `asked`. Every other event stays as it is, and so does
/// an answer that no open ask of this view belongs to.
pub(crate) fn put_into(event: &mut NewEvent, view: &SessionView) {
    if !is_answer(&event.kind) {
        return;
    }
    let asked = event.classify().key.and_then(|key| Some(view.ask(&key)?.raw.clone()));
    let data = event.data.parse::<Map<String, Value>>().ok();
    if let (Some(asked), Some(mut data)) = (asked, data)
        && let Ok(asked) = asked.parse()
    {
        data.insert("asked".to_owned(), asked);
        event.data = RawData::of(&data).expect("a JSON value serialises");
    }
}

fn is_answer(kind: &str) -> bool {
    matches!(
        kind,
        "permission.replied"
            | "question.replied"
            | "question.rejected"
            | "session.network.replied"
            | "session.network.rejected"
    )
}

#[cfg(test)]
mod tests {
    use protocol::Seq;

    use super::*;
    use crate::testing::event;

    const ASKED: &str = r#"{"id":"per_1","sessionID":"s","permission":"bash","patterns":["rm -rf x"]}"#;

    #[test]
    fn an_answer_carries_what_was_asked() {
        let mut view = SessionView::default();
        view.apply(&event("permission.asked", ASKED).at(Seq::new(1)));
        let mut reply =
            event("permission.replied", r#"{"sessionID":"s","requestID":"per_1","reply":"once"}"#);
        put_into(&mut reply, &view);
        let data: Value = reply.data.parse().unwrap();
        assert_eq!(data["asked"], serde_json::from_str::<Value>(ASKED).unwrap());
        assert_eq!(data["reply"], "once");
    }

    #[test]
    fn what_nobody_was_seen_to_ask_and_other_events_stay_as_they_are() {
        let view = SessionView::default();
        for (kind, data) in [
            ("question.rejected", r#"{"requestID":"que_1", "sessionID":"s"}"#),
            ("session.status", r#"{"sessionID":"s","status":{"type":"idle"}}"#),
        ] {
            let mut same = event(kind, data);
            put_into(&mut same, &view);
            assert_eq!(same.data.json(), data);
        }
    }
}
