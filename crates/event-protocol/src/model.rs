//! What an agent produces, typed, in the wire shape of kilo and opencode, old and new.
//!
//! Agent servers add fields and types with every release. Reading here is therefore tolerant: fields that are not known
//! are skipped, fields that are absent have a default, and types that are not known become an `Unknown` variant. None
//! of that loses anything: the raw JSON stays beside the typed value wherever the fold keeps one
//! ([`crate::view`]), byte for byte. Times are unix milliseconds on this wire.

mod ask;
mod message;
mod part;
mod session;
mod tool;
mod usage;
mod wire;

pub use ask::{AskedAt, Network, Permission, Question, QuestionInfo, QuestionOption, ToolCall};
pub use message::{FileDiff, Message, MessageError, MessageSummary, MessageTime, Role};
pub use part::{
    AgentPart, CompactionPart, FilePart, Part, PartBody, PartTime, PatchPart, RetryPart, SnapshotPart,
    StepFinishPart, StepStartPart, SubtaskPart, TextPart,
};
pub use session::{ModelInUse, Revert, Session, SessionStatus, SessionSummary, SessionTime, Todo};
pub use tool::{ToolPart, ToolState, ToolStateCompleted, ToolStateError, ToolStatePending, ToolStateRunning};
pub use usage::{CacheTokens, Tokens, Usage};

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::Timestamp;

    #[test]
    fn every_type_of_part_is_read_and_written_in_the_wire_shape() {
        let bodies = [
            json!({ "type": "text", "text": "a", "synthetic": true, "time": { "start": 1 } }),
            json!({ "type": "reasoning", "text": "a", "time": { "start": 1, "end": 2 } }),
            json!({ "type": "tool", "tool": "bash", "callID": "c", "state": { "status": "pending", "input": {}, "raw": "" } }),
            json!({ "type": "file", "mime": "image/png", "filename": "a.png", "url": "data:" }),
            json!({ "type": "step-start", "snapshot": "abc" }),
            json!({ "type": "step-finish", "reason": "stop", "cost": 0.5, "tokens": {
                "input": 1, "output": 2, "reasoning": 3, "cache": { "read": 4, "write": 5 } } }),
            json!({ "type": "patch", "hash": "abc", "files": ["/a"] }),
            json!({ "type": "snapshot", "snapshot": "abc" }),
            json!({ "type": "agent", "name": "build" }),
            json!({ "type": "retry", "attempt": 2, "error": { "name": "APIError", "data": { "message": "no" } } }),
            json!({ "type": "subtask", "prompt": "p", "description": "d", "agent": "general" }),
            json!({ "type": "compaction", "auto": true }),
        ];
        for mut wire in bodies {
            for (name, id) in [("id", "prt_1"), ("messageID", "msg_1"), ("sessionID", "ses_1")] {
                wire[name] = json!(id);
            }
            let part: Part = serde_json::from_value(wire.clone()).unwrap();
            assert_ne!(part.body, PartBody::Unknown, "{wire}");
            assert_eq!(
                (part.id.as_str(), part.message_id.as_str(), part.session_id.as_str()),
                ("prt_1", "msg_1", "ses_1")
            );
            assert_eq!(serde_json::to_value(&part).unwrap(), wire);
        }
    }

    #[test]
    fn every_state_of_a_tool_is_read_and_written_in_the_wire_shape() {
        let states = [
            json!({ "status": "pending", "input": {}, "raw": "{" }),
            json!({ "status": "running", "input": { "a": 1 }, "title": "t", "metadata": { "output": "so far" }, "time": { "start": 1 } }),
            json!({ "status": "completed", "input": {}, "output": "all", "title": "t",
                "metadata": { "exit": 3, "sessionId": "ses_2" }, "time": { "start": 1, "end": 2 } }),
            json!({ "status": "error", "input": {}, "error": "no", "time": { "start": 1, "end": 2 } }),
        ];
        let read: Vec<ToolState> =
            states.iter().map(|wire| serde_json::from_value(wire.clone()).unwrap()).collect();
        for (state, wire) in read.iter().zip(&states) {
            assert_eq!(&serde_json::to_value(state).unwrap(), wire);
            assert_eq!(state.word(), wire["status"]);
            assert_eq!(state.input(), &wire["input"]);
        }
        let outputs: Vec<_> = read.iter().map(ToolState::output).collect();
        assert_eq!(outputs, [None, Some("so far"), Some("all"), None]);
        assert_eq!((read[2].exit_code(), read[2].child_session()), (Some(3), Some("ses_2")));
        assert_eq!(read.iter().map(ToolState::is_over).collect::<Vec<_>>(), [false, false, true, true]);
        assert_eq!(read[2].time().end, Some(Timestamp::from_unix_ms(2)));
    }

    #[test]
    fn words_of_newer_servers_are_unknown_and_no_error() {
        let read = |wire: Value| serde_json::from_value::<Part>(wire).map(|part| part.body);
        assert_eq!(read(json!({ "type": "hologram", "depth": 3 })).unwrap(), PartBody::Unknown);
        assert_eq!(
            serde_json::from_value::<ToolState>(json!({ "status": "queued" })).unwrap(),
            ToolState::Unknown
        );
        assert_eq!(serde_json::from_value::<Role>(json!("system")).unwrap(), Role::Unknown);
        let status =
            serde_json::from_value::<SessionStatus>(json!({ "type": "asleep", "since": 1 })).unwrap();
        assert_eq!(status, SessionStatus::Unknown);
        assert!(status.is_busy(), "what is not known to be idle may still be at work");
    }

    #[test]
    fn numbers_that_are_none_are_zero() {
        let tokens = |wire: Value| serde_json::from_value::<Tokens>(wire).unwrap();
        assert_eq!(tokens(json!({ "input": null, "output": -3, "reasoning": 2.9 })).total(), 2);
        assert_eq!(tokens(json!({ "input": 1e300 })).input, u64::MAX);
        assert_eq!(tokens(json!({})), Tokens::default());
        let mut most = tokens(json!({ "input": u64::MAX }));
        most += most;
        assert_eq!(most.total(), u64::MAX, "sums stay at the end");
        assert_eq!(serde_json::from_value::<Usage>(json!({ "cost": null })).unwrap().cost, 0.0);
    }

    #[test]
    fn a_model_is_read_from_a_session_and_from_a_message() {
        let of_session: ModelInUse = serde_json::from_value(json!({ "id": "m", "providerID": "p" })).unwrap();
        let of_message: ModelInUse =
            serde_json::from_value(json!({ "modelID": "m", "providerID": "p" })).unwrap();
        assert_eq!(of_session, of_message);
    }

    #[test]
    fn an_error_says_its_message_or_else_its_name() {
        let error: MessageError =
            serde_json::from_value(json!({ "name": "APIError", "data": { "message": "Rate limit" } }))
                .unwrap();
        assert_eq!((error.message(), error.is_abort()), ("Rate limit", false));
        let error: MessageError = serde_json::from_value(json!({ "name": "MessageAbortedError" })).unwrap();
        assert_eq!((error.message(), error.is_abort()), ("MessageAbortedError", true));
    }

    #[test]
    fn files_changed_in_a_turn_come_with_the_users_message() {
        let wire = json!({ "role": "user", "summary": { "diffs": [{ "file": "a.rs", "patch": "@@", "additions": 3 }] } });
        let message: Message = serde_json::from_value(wire).unwrap();
        assert_eq!((message.diffs()[0].file.as_str(), message.diffs()[0].additions), ("a.rs", 3));
        let message: Message =
            serde_json::from_value(json!({ "role": "assistant", "summary": true })).unwrap();
        assert!(message.diffs().is_empty(), "the summary of a summarising message is a flag");
    }

    #[test]
    fn an_interrupted_text_says_so() {
        let text: TextPart =
            serde_json::from_value(json!({ "text": "ha", "metadata": { "interrupted": true } })).unwrap();
        assert!(text.is_interrupted());
        assert!(!TextPart::default().is_interrupted());
    }

    proptest! {
        #[test]
        fn no_json_makes_reading_panic(text in r#"[\[\]{}":,a-z0-9. -]{0,60}"#) {
            let _ = serde_json::from_str::<Part>(&text);
            let _ = serde_json::from_str::<Message>(&text);
            let _ = serde_json::from_str::<Session>(&text);
        }
    }
}
