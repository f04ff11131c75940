//! Steers the server: each command is one call of its API, an abort a few.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use async_trait::async_trait;
use protocol::{Command, ModelRef, PermissionReply, Prompt};
use serde_json::{Map, Value, json};
use tokio::{
    sync::{Notify, mpsc},
    task::JoinHandle,
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    Flavour,
    api::{Api, ApiError},
    server_state,
};
use crate::runtime::{AgentControl, CommandError, Signal};

#[derive(Debug)]
pub(super) struct Control {
    pub(super) api: Api,
    pub(super) flavour: Flavour,
    pub(super) session: String,
    pub(super) stop: CancellationToken,
    pub(super) tasks: TaskTracker,
    /// For what is known only after a command was answered. Others decide how long the stream is.
    pub(super) signals: mpsc::WeakSender<Signal>,
    /// By then a slash command that is wrong was refused.
    pub(super) at_once: Duration,
    /// Whoever follows the stream is to take it up anew.
    pub(super) again: Arc<Notify>,
}

#[async_trait]
impl AgentControl for Control {
    async fn command(&self, command: Command) -> Result<Option<Value>, CommandError> {
        let session = self.session.as_str();
        match command {
            Command::Prompt(prompt) => {
                let message = prompt.message_id.clone();
                self.post_to_session("prompt_async", &prompt_body(prompt)).await?;
                return Ok(message.map(|id| json!({ "messageId": id })));
            }
            Command::Abort => self.abort().await?,
            Command::Permission { id, reply, message } => {
                let mut body = json!({ "reply": reply });
                if let Some(message) = message.filter(|_| reply == PermissionReply::Reject) {
                    body["message"] = message.into();
                }
                self.post(&["permission", &id, "reply"], &body, &format!("the permission {id}")).await?;
            }
            Command::Question(answer) => {
                let body = json!({ "answers": answer.answers });
                let what = format!("the question {}", answer.id);
                self.post(&["question", &answer.id, "reply"], &body, &what).await?;
            }
            Command::QuestionReject { id } => {
                self.post(&["question", &id, "reject"], &json!({}), &format!("the question {id}")).await?;
            }
            Command::Slash { name, arguments } => self.slash(name, arguments).await?,
            Command::Revert { message_id } => {
                let what = format!("the message {message_id}");
                // The server takes any id, and does nothing for one that it does not know.
                let message = self.api.get(&["session", session, "message", &message_id]).await;
                message.map_err(|error| refused(error, &what))?;
                self.post(&["session", session, "revert"], &json!({ "messageID": message_id }), &what)
                    .await?;
            }
            Command::Unrevert => {
                self.post_to_session("unrevert", &json!({})).await?;
            }
            Command::Fork { message_id } => {
                let body = message_id.map_or_else(|| json!({}), |id| json!({ "messageID": id }));
                let forked = self.post_to_session("fork", &body).await?;
                return Ok(Some(json!({ "sessionId": forked["id"] })));
            }
            Command::Network { id } => self.network(&id, "reply").await?,
            Command::NetworkReject { id } => self.network(&id, "reject").await?,
            Command::Stop { .. } | Command::Ping | _ => {
                return Err(CommandError::Unsupported { what: "do that" });
            }
        }
        Ok(None)
    }

    async fn commit_message(&self) -> Result<String, CommandError> {
        if !self.flavour.writes_commit_messages() {
            return Err(CommandError::Unsupported { what: "write the message of a commit" });
        }
        let body = json!({ "path": self.api.directory() });
        let answer = self.post(&["commit-message"], &body, "the call").await?;
        let message = answer["message"].as_str();
        message.map(str::to_owned).ok_or_else(|| refused(ApiError::Shape { what: "no message" }, "the call"))
    }

    async fn condense(&self, model: Option<ModelRef>) -> Result<(), CommandError> {
        let no_model =
            || CommandError::Refused { message: "no model has answered in this session".to_owned() };
        let model = model.ok_or_else(no_model)?;
        let body = json!({ "providerID": model.provider_id, "modelID": model.model_id });
        let path = ["session", self.session.as_str(), "summarize"];
        self.api.post_turn(&path, &body).await.map(drop).map_err(|error| refused(error, "the session"))
    }

    fn say_again(&self) {
        self.again.notify_one();
    }

    async fn stop(&self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Control {
    /// Ends the turn, and then what it asked: the server leaves that open, and nobody will answer it any more.
    async fn abort(&self) -> Result<(), CommandError> {
        self.post(&["session", &self.session, "abort"], &json!({}), "the session").await?;
        let sessions = server_state::sessions(&self.api, &self.session).await;
        let sessions = sessions.map_err(|error| refused(error, "the session"))?;
        let ids: BTreeSet<&str> = sessions.iter().filter_map(|session| session["id"].as_str()).collect();
        self.reject("permission", "reply", &json!({ "reply": "reject" }), &ids).await?;
        self.reject("question", "reject", &json!({}), &ids).await?;
        if self.flavour.asks_about_the_network() {
            self.reject("network", "reject", &json!({}), &ids).await?;
        }
        Ok(())
    }

    async fn reject(
        &self,
        kind: &'static str,
        verb: &str,
        body: &Value,
        sessions: &BTreeSet<&str>,
    ) -> Result<(), CommandError> {
        let asks = server_state::pending_if_known(&self.api, kind, sessions).await;
        let asks = asks.map_err(|error| refused(error, kind))?;
        for id in asks.iter().filter_map(|ask| ask["id"].as_str()) {
            match self.post(&[kind, id, verb], body, kind).await {
                // Somebody was faster.
                Ok(_) | Err(CommandError::NotFound { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    async fn network(&self, id: &str, verb: &str) -> Result<(), CommandError> {
        if !self.flavour.asks_about_the_network() {
            return Err(CommandError::Unsupported { what: "wait for the network" });
        }
        self.post(&["network", id, verb], &json!({}), &format!("the network request {id}")).await.map(drop)
    }

    async fn slash(&self, name: String, arguments: String) -> Result<(), CommandError> {
        let commands = self.api.get(&["command"]).await.map_err(|error| refused(error, "the commands"))?;
        let known = commands
            .as_array()
            .is_some_and(|list| list.iter().any(|command| command["name"] == name.as_str()));
        if !known {
            return Err(CommandError::NotFound { what: format!("the command /{name}") });
        }
        let (api, session, stop) = (self.api.clone(), self.session.clone(), self.stop.clone());
        let body = json!({ "command": name, "arguments": arguments });
        let mut turn = self.tasks.spawn(async move {
            let path = ["session", session.as_str(), "command"];
            tokio::select! {
                answer = api.post_turn(&path, &body) => answer.map(drop),
                () = stop.cancelled() => Ok(()),
            }
        });
        match timeout(self.at_once, &mut turn).await {
            Ok(Ok(Ok(()))) | Ok(Err(_)) => Ok(()),
            Ok(Ok(Err(error))) => Err(self.refused_by_session(error).await),
            // It runs; what comes of it is in the stream.
            Err(_) => {
                self.tell_late_failure(name, turn);
                Ok(())
            }
        }
    }

    /// Tells of a slash command that the server took and then refused. If there is no answer the stream says what came of it, or the
    /// server's end does.
    fn tell_late_failure(&self, name: String, turn: JoinHandle<Result<(), ApiError>>) {
        let (signals, stop) = (self.signals.clone(), self.stop.clone());
        self.tasks.spawn(async move {
            let Ok(Err(ApiError::Status { message, .. })) = turn.await else { return };
            let Some(signals) = signals.upgrade() else { return };
            let message = format!("the command /{name} failed: {message}");
            tokio::select! {
                // Nobody listens any more when the agent has ended.
                _ = signals.send(Signal::CommandFailed { message }) => {}
                () = stop.cancelled() => {}
            }
        });
    }

    async fn post_to_session(&self, verb: &str, body: &Value) -> Result<Value, CommandError> {
        match self.api.post(&["session", &self.session, verb], body).await {
            Ok(answer) => Ok(answer),
            Err(error) => Err(self.refused_by_session(error).await),
        }
    }

    /// What a refusal means: something that is not there may be the session itself.
    async fn refused_by_session(&self, error: ApiError) -> CommandError {
        let is_missing = |error: &ApiError| matches!(error, ApiError::Status { status: 404, .. });
        if is_missing(&error)
            && self.api.get(&["session", &self.session]).await.is_err_and(|error| is_missing(&error))
        {
            return CommandError::SessionGone;
        }
        refused(error, "the session")
    }

    async fn post(&self, path: &[&str], body: &Value, what: &str) -> Result<Value, CommandError> {
        self.api.post(path, body).await.map_err(|error| refused(error, what))
    }
}

/// The body of `prompt_async`.
fn prompt_body(prompt: Prompt) -> Value {
    let mut parts = Vec::new();
    parts.extend(prompt.text.map(|text| json!({ "type": "text", "text": text })));
    parts.extend(prompt.parts.unwrap_or_default());
    let mut body = Map::from_iter([("parts".to_owned(), Value::Array(parts))]);
    let model =
        prompt.model.map(|model| json!({ "providerID": model.provider_id, "modelID": model.model_id }));
    let optional = [
        ("model", model),
        ("agent", prompt.agent.map(Value::from)),
        ("system", prompt.system.map(Value::from)),
        ("variant", prompt.variant.map(Value::from)),
        ("tools", prompt.tools.map(|tools| json!(tools))),
        ("messageID", prompt.message_id.map(Value::from)),
    ];
    body.extend(optional.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))));
    Value::Object(body)
}

fn refused(error: ApiError, what: &str) -> CommandError {
    match error {
        ApiError::Status { status: 404, .. } => CommandError::NotFound { what: what.to_owned() },
        ApiError::Status { message, .. } => CommandError::Refused { message },
        ApiError::Shape { what } => CommandError::Refused { message: what.to_owned() },
        ApiError::NoAnswer { message } => CommandError::Unreachable { message },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prompt_is_only_what_it_says() {
        let prompt = Prompt { text: Some("hi".to_owned()), ..Prompt::default() };
        assert_eq!(prompt_body(prompt), json!({ "parts": [{ "type": "text", "text": "hi" }] }));
    }

    #[test]
    fn a_prompt_has_its_text_before_its_parts_and_all_that_was_chosen() {
        let prompt: Prompt = serde_json::from_value(json!({
            "text": "look", "parts": [{ "type": "file", "url": "file:///a" }], "agent": "plan", "system": "be brief",
            "variant": "high", "tools": { "bash": false }, "message_id": "msg_1", "model": { "providerID": "p", "modelID": "m" },
        }))
        .unwrap();
        let expected = json!({
            "parts": [{ "type": "text", "text": "look" }, { "type": "file", "url": "file:///a" }],
            "variant": "high", "tools": { "bash": false }, "agent": "plan", "system": "be brief", "messageID": "msg_1", "model": { "providerID": "p", "modelID": "m" },
        });
        assert_eq!(prompt_body(prompt), expected);
    }
}
