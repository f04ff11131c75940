//! What is told to a new session of one that was lost: the agent server has forgotten it, the log has not.

use protocol::{
    model::{PartBody, Role, ToolState},
    view::{MessageView, PartView, SessionView},
};

/// Characters of a summary: a few thousand tokens.
const SUMMARY: usize = 24_000;
/// Characters of one part.
const PART: usize = 2_000;

/// What was said in a session, shortened: the first message and as many of the last ones as there is room for. `None` if there is
/// nothing to tell.
pub(crate) fn summary(view: &SessionView, session: &str) -> Option<String> {
    let messages = view.session(session)?.messages();
    let mut told: Vec<String> = messages.into_iter().filter_map(message).collect();
    let first = (!told.is_empty()).then(|| told.remove(0))?;
    let mut left = SUMMARY.saturating_sub(first.chars().count());
    let mut last = Vec::new();
    while let Some(message) = told.pop() {
        let Some(rest) = left.checked_sub(message.chars().count()) else {
            last.push(format!("[{} messages are left out]", told.len() + 1));
            break;
        };
        left = rest;
        last.push(message);
    }
    last.reverse();
    let head = "The session in which this work was begun is lost. This is what was said in it, shortened. It is for your \
                information only: the message that is meant for you follows after it.";
    Some([vec![head.to_owned(), first], last].concat().join("\n\n"))
}

fn message(message: &MessageView) -> Option<String> {
    let who = match message.info()?.role {
        Role::User => "User",
        Role::Assistant => "Assistant",
        Role::Unknown | _ => return None,
    };
    let parts: Vec<String> = message.parts().filter_map(part).collect();
    (!parts.is_empty()).then(|| format!("{who}: {}", parts.join("\n")))
}

fn part(part: &PartView) -> Option<String> {
    if let PartBody::Text(text) = part.body() {
        let told = text.synthetic != Some(true) && !text.text.trim().is_empty();
        return told.then(|| shortened(text.text.trim()));
    }
    let tool = part.body().tool()?;
    let came = match &tool.state {
        ToolState::Completed(done) => done.title.clone(),
        ToolState::Error(failed) => format!("failed: {}", failed.error),
        ToolState::Pending(_) | ToolState::Running(_) | _ => "not finished".to_owned(),
    };
    Some(shortened(&format!("[{}: {came}]", tool.tool)))
}

/// The beginning and the end, where it is too long.
fn shortened(text: &str) -> String {
    let length = text.chars().count();
    if length <= PART {
        return text.to_owned();
    }
    let begin: String = text.chars().take(PART / 2).collect();
    let end: String = text.chars().skip(length - PART / 2).collect();
    format!("{begin} […] {end}")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use protocol::Seq;
    use serde_json::{Value, json};

    use super::*;
    use crate::testing::event;

    #[test]
    fn a_conversation_is_told_in_its_order_with_what_its_tools_did() {
        let mut view = SessionView::default();
        said(&mut view, 1, "user", &json!({ "type": "text", "text": "fix the bug" }));
        let done = json!({ "status": "completed", "input": {}, "output": "…", "title": "cargo test", "metadata": {}, "time": { "start": 1, "end": 2 } });
        said(
            &mut view,
            2,
            "assistant",
            &json!({ "type": "tool", "callID": "c", "tool": "bash", "state": done }),
        );
        said(&mut view, 3, "assistant", &json!({ "type": "text", "text": "It is fixed." }));
        let summary = summary(&view, "s").unwrap();
        let told: Vec<&str> = summary.split("\n\n").skip(1).collect();
        assert_eq!(told, ["User: fix the bug", "Assistant: [bash: cargo test]", "Assistant: It is fixed."]);
    }

    #[test]
    fn of_a_long_conversation_the_first_message_and_the_last_ones_are_told() {
        let mut view = SessionView::default();
        for number in 1..200 {
            let text = format!("message {number} {}", "x".repeat(10_000));
            said(&mut view, number, "user", &json!({ "type": "text", "text": text }));
        }
        let summary = summary(&view, "s").unwrap();
        assert!(summary.contains("message 1 ") && summary.contains("message 199 "));
        assert!(summary.contains("messages are left out]") && !summary.contains("message 100 "));
    }

    #[test]
    fn of_nothing_nothing_is_told() {
        assert_eq!(summary(&SessionView::default(), "s"), None);
    }

    proptest! {
        #[test]
        fn a_summary_is_never_too_long(lengths in prop::collection::vec(0_usize..3_000, 0..30)) {
            let mut view = SessionView::default();
            for (number, length) in (1..).zip(lengths) {
                said(&mut view, number, "user", &json!({ "type": "text", "text": "é".repeat(length) }));
            }
            let length = summary(&view, "s").map_or(0, |summary| summary.chars().count());
            prop_assert!(length <= SUMMARY + 1_000, "{length}");
        }
    }

    fn said(view: &mut SessionView, number: u64, role: &str, part: &Value) {
        let message = format!("msg_{number:05}");
        let mut part = part.clone();
        part["id"] = format!("prt_{number:05}").into();
        part["messageID"] = message.as_str().into();
        part["sessionID"] = "s".into();
        let info = json!({ "id": message, "sessionID": "s", "role": role, "time": { "created": number } });
        let events =
            [("message.updated", json!({ "info": info })), ("message.part.updated", json!({ "part": part }))];
        for (kind, data) in events {
            let seq = Seq::new(view.seq().get() + 1);
            view.apply(&event(kind, &data.to_string()).at(seq));
        }
    }
}
