//! Turns that do not end by themselves, and prompts that nothing came of: the log says so (§10).

use protocol::{
    NewEvent, RawData,
    model::{PartBody, ToolState},
    view::{MessageView, SessionView},
};
use serde_json::json;

use super::life::Life;
use crate::{
    Moment,
    turn::{Held, PROMPT_PATIENCE, PromptNumber},
};

impl Life {
    /// Ends the turn if its time is up.
    pub(super) async fn watch_turn(&mut self, now: Moment) {
        if self.watch.due().is_none_or(|due| now < due) {
            return;
        }
        // What the coalescer has is news as well.
        self.coalescer.flush(&mut self.out);
        self.pass_on().await;
        if let Some(expired) = self.watch.handle_timeout(now, held(self.book.view())) {
            self.turn_failed("TurnLimitError", &expired.to_string()).await;
            self.turns.interrupt(now);
        }
    }

    /// The agent took a prompt, and nothing came of it.
    pub(super) async fn unanswered(&mut self, number: PromptNumber) {
        let name = self.prompt_names.get(&number).map_or(String::new(), |name| format!(" {name}"));
        let why = if self.agent.is_some() {
            format!("within {} s", PROMPT_PATIENCE.as_secs())
        } else {
            "before it ended".to_owned()
        };
        let message = format!("the agent took the message{name} and did not begin with it {why}: it is lost");
        self.turn_failed("PromptLostError", &message).await;
    }

    /// A slash command that the agent took has failed.
    pub(super) async fn command_failed(&mut self, message: &str) {
        self.turn_failed("CommandFailedError", message).await;
        self.turns.command_failed(self.clock.now());
    }

    /// Says in the log that a turn, or a prompt that is to begin one, goes wrong.
    pub(super) async fn turn_failed(&mut self, name: &str, message: &str) {
        tracing::warn!(error = name, message, "a turn goes wrong");
        self.last_error = Some(message.to_owned());
        let session = self.session.clone().unwrap_or_default();
        let data = json!({ "sessionID": session, "error": { "name": name, "data": { "message": message } } });
        let event = NewEvent {
            time: self.clock.timestamp(),
            kind: "session.error".into(),
            data: RawData::of(&data).expect("a JSON value serialises"),
            session: Some(session.into()),
        };
        if self.agent.is_some() {
            self.event(event);
        } else {
            self.book.emit(vec![event]).await;
        }
    }
}

/// What holds the turn that runs.
fn held(view: &SessionView) -> Held {
    if !view.pending().is_empty() {
        return Held::Person;
    }
    let is_running = |message: &MessageView| {
        message.parts().any(
            |part| matches!(part.body(), PartBody::Tool(tool) if matches!(tool.state, ToolState::Running(_))),
        )
    };
    let sessions = view.sessions();
    let messages = sessions.iter().flat_map(|session| session.messages());
    if messages.into_iter().any(is_running) { Held::Tool } else { Held::No }
}

#[cfg(test)]
mod tests {
    use protocol::Seq;

    use super::*;
    use crate::testing::event;

    #[test]
    fn a_tool_that_runs_and_a_person_who_is_asked_hold_a_turn() {
        let mut view = SessionView::default();
        let mut apply = {
            let mut seq = 0;
            move |view: &mut SessionView, kind: &str, data: &str| {
                seq += 1;
                view.apply(&event(kind, data).at(Seq::new(seq)));
                held(view)
            }
        };
        let tool = |status: &str| {
            format!(
                r#"{{"part":{{"id":"prt_1","messageID":"msg_1","sessionID":"s","type":"tool","callID":"c","tool":"bash","state":{{"status":"{status}","input":{{}},"output":"","title":"","metadata":{{}},"time":{{"start":1,"end":2}}}}}}}}"#
            )
        };
        assert_eq!(apply(&mut view, "message.part.updated", &tool("running")), Held::Tool);
        let asked = r#"{"id":"per_1","sessionID":"s","permission":"bash","patterns":["rm"]}"#;
        assert_eq!(apply(&mut view, "permission.asked", asked), Held::Person);
        let replied = r#"{"requestID":"per_1","sessionID":"s","reply":"once"}"#;
        assert_eq!(apply(&mut view, "permission.replied", replied), Held::Tool);
        assert_eq!(apply(&mut view, "message.part.updated", &tool("completed")), Held::No);
    }
}
