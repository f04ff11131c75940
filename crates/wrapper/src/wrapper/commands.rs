//! What the relay and the local API ask for, and the answers (§7).

use protocol::{Command, CommandId, CommandResult, ErrorCode, ErrorDetail, Key, Prompt};
use serde_json::Value;
use tokio::sync::oneshot;

use super::life::{Done, Life};
use crate::{
    Exit,
    api::{ApiAnswer, ApiAsk, ApiError, ApiRequest},
    runtime::CommandError,
    supervisor::{DRAIN_GRACE, Phase},
    turn::PromptNumber,
};

/// Who waits for an answer.
#[derive(Debug)]
pub(super) enum AnswerTo {
    /// The relay, which names the command.
    Link(CommandId),
    /// A request of the local API.
    Api(oneshot::Sender<Result<ApiAnswer, ApiError>>),
    /// Nobody: the wrapper itself, or a prompt that the API has accepted already.
    Nobody,
}

impl Life {
    /// Carries out a command.
    pub(super) async fn command(&mut self, to: AnswerTo, command: Command) {
        match command {
            Command::Ping => self.reply(to, Ok(None)).await,
            Command::Stop { drain } => {
                let (reason, grace) = if drain { ("drained", Some(DRAIN_GRACE)) } else { ("stopped", None) };
                self.supervisor.stop(self.clock.now(), reason, Exit::Done, grace);
                self.reply(to, Ok(None)).await;
            }
            Command::Prompt(prompt) => {
                if let Err((to, error)) = self.prompt(to, prompt) {
                    self.reply(to, Err(error)).await;
                }
            }
            Command::Abort => {
                self.abort_after_turn().await;
                if self.turns.abort(self.clock.now()) {
                    self.send(to, None, Command::Abort).await;
                } else {
                    self.reply(to, Ok(None)).await;
                }
            }
            Command::Permission { ref id, .. } => {
                let key = Key::new(&format!("permission/{id}"));
                self.answer_ask(to, key, command).await;
            }
            Command::Question(ref answer) => {
                let key = Key::new(&format!("question/{}", answer.id));
                self.answer_ask(to, key, command).await;
            }
            Command::QuestionReject { ref id } => {
                let key = Key::new(&format!("question/{id}"));
                self.answer_ask(to, key, command).await;
            }
            Command::Network { ref id } | Command::NetworkReject { ref id } => {
                let key = Key::new(&format!("network/{id}"));
                self.answer_ask(to, key, command).await;
            }
            Command::Slash { .. } | Command::Revert { .. } | Command::Unrevert | Command::Fork { .. } => {
                self.send(to, None, command).await;
            }
            _ => {
                let message = "this wrapper does not know that command";
                self.reply(to, Err(ErrorDetail::new(ErrorCode::Unsupported, message))).await;
            }
        }
    }

    /// Carries out what the local API asks for.
    pub(super) async fn request(&mut self, request: ApiRequest) {
        let ApiRequest { ask, answer } = request;
        match ask {
            ApiAsk::Command(command) => self.command(AnswerTo::Api(answer), command).await,
            ApiAsk::Prompt { mut prompt, .. } => {
                let made = || self.ids.next("msg", self.clock.timestamp().unix_ms());
                let message_id = prompt.message_id.take().unwrap_or_else(made);
                prompt.message_id = Some(message_id.clone());
                // It is answered at once: what comes of it is in the log.
                let result = match self.prompt(AnswerTo::Nobody, prompt) {
                    Ok(()) => Ok(ApiAnswer::Accepted { message_id }),
                    Err((_, error)) => Err(api_error(error)),
                };
                // Whoever asked may have gone.
                let _ = answer.send(result);
            }
        }
    }

    /// Hands a command to the agent. `ask` is the ask that it answers.
    pub(super) async fn send(&mut self, to: AnswerTo, ask: Option<Key>, command: Command) {
        let Some(agent) = &self.agent else {
            let error = ErrorDetail::new(ErrorCode::Conflict, "the agent does not run");
            return self.reply(to, Err(error)).await;
        };
        let control = agent.control.clone();
        self.tasks.spawn(async move { Done::Command(to, ask, control.command(command).await) });
    }

    pub(super) fn send_prompt(&mut self, number: PromptNumber, prompt: Prompt) {
        let control = self.agent.as_ref().map(|agent| agent.control.clone());
        self.tasks.spawn(async move {
            let result = match control {
                Some(control) => control.command(Command::Prompt(prompt)).await,
                None => Err(CommandError::Unreachable { message: "the agent does not run".to_owned() }),
            };
            Done::Prompt(number, result)
        });
    }

    pub(super) async fn command_done(
        &mut self,
        to: AnswerTo,
        ask: Option<Key>,
        result: Result<Option<Value>, CommandError>,
    ) {
        if let (Some(key), Err(_)) = (&ask, &result) {
            self.answering.remove(key);
        }
        self.answer(to, result).await;
    }

    pub(super) async fn answer(&mut self, to: AnswerTo, result: Result<Option<Value>, CommandError>) {
        self.reply(to, result.map_err(|error| detail_of(&error))).await;
    }

    pub(super) async fn refuse_prompt(&mut self, number: PromptNumber, why: &str) {
        if let Some(to) = self.prompts.remove(&number) {
            self.reply(to, Err(ErrorDetail::new(ErrorCode::Conflict, format!("it was not sent: {why}"))))
                .await;
        }
    }

    /// Takes out of the queue what will not be sent any more.
    pub(super) async fn drop_queue(&mut self, why: &str) {
        for number in self.turns.drop_queue() {
            self.refuse_prompt(number, why).await;
        }
    }

    /// Tells everybody who waits that nothing will come of it.
    pub(super) async fn refuse_all(&mut self, why: &str) {
        while let Some((number, _)) = self.prompts.first_key_value() {
            let number = *number;
            self.refuse_prompt(number, why).await;
        }
    }

    fn prompt(&mut self, to: AnswerTo, prompt: Prompt) -> Result<(), (AnswerTo, ErrorDetail)> {
        if matches!(self.supervisor.phase(), Phase::Draining { .. } | Phase::Stopping | Phase::Over) {
            return Err((to, ErrorDetail::new(ErrorCode::Draining, "the agent is being ended")));
        }
        match self.turns.prompt(self.clock.now(), prompt) {
            Some(number) => {
                self.prompts.insert(number, to);
                Ok(())
            }
            None => {
                Err((to, ErrorDetail::new(ErrorCode::RateLimited, "too many messages wait for this agent")))
            }
        }
    }

    /// The first answer wins; whether it did is known before the agent is asked.
    async fn answer_ask(&mut self, to: AnswerTo, key: Key, command: Command) {
        self.coalescer.flush(&mut self.out);
        self.pass_on().await;
        let view = self.book.view();
        let is_open = view.ask(&key).is_some();
        let name = key.as_str().split_once('/').map_or("", |(_, id)| id);
        let error = if self.answering.contains(&key) || view.answered().iter().any(|ask| &*ask.id == name) {
            Some(ErrorDetail::new(ErrorCode::AlreadyAnswered, "somebody answered first"))
        } else if is_open {
            None
        } else {
            Some(ErrorDetail::new(
                ErrorCode::NotFound,
                format!("nothing waits for an answer under the id {name}"),
            ))
        };
        match error {
            Some(error) => self.reply(to, Err(error)).await,
            None => {
                self.answering.insert(key.clone());
                self.send(to, Some(key), command).await;
            }
        }
    }

    async fn reply(&mut self, to: AnswerTo, result: Result<Option<Value>, ErrorDetail>) {
        match to {
            AnswerTo::Link(id) => {
                let result = match result {
                    Ok(data) => CommandResult { id, ok: true, error: None, data },
                    Err(error) => CommandResult { id, ok: false, error: Some(error), data: None },
                };
                self.link.result(result).await;
            }
            AnswerTo::Api(answer) => {
                // Whoever asked may have gone.
                let _ = answer.send(result.map(ApiAnswer::Done).map_err(api_error));
            }
            AnswerTo::Nobody => {
                if let Err(error) = result {
                    tracing::warn!(code = %error.code, message = error.message, "a command was not carried out");
                    self.last_error = Some(error.message);
                }
            }
        }
    }
}

fn detail_of(error: &CommandError) -> ErrorDetail {
    let code = match error {
        CommandError::NotFound { .. } => ErrorCode::NotFound,
        CommandError::Unsupported { .. } => ErrorCode::Unsupported,
        CommandError::Refused { .. } | CommandError::Unreachable { .. } => ErrorCode::AgentError,
    };
    ErrorDetail::new(code, error.to_string())
}

fn api_error(error: ErrorDetail) -> ApiError {
    let ErrorDetail { code, message, .. } = error;
    match code {
        ErrorCode::BadRequest | ErrorCode::Unsupported | ErrorCode::TooLarge => {
            ApiError::InvalidRequest(message)
        }
        ErrorCode::NotFound | ErrorCode::UnknownLog => ApiError::NotFound(message),
        ErrorCode::AlreadyAnswered | ErrorCode::Conflict | ErrorCode::RateLimited | ErrorCode::Superseded => {
            ApiError::Conflict(message)
        }
        ErrorCode::Draining | ErrorCode::AgentOffline => ApiError::NoJob,
        ErrorCode::AgentError | ErrorCode::Stalled => ApiError::AgentUnreachable(message),
        ErrorCode::Unauthenticated | ErrorCode::Forbidden | ErrorCode::Corrupt | ErrorCode::Internal | _ => {
            ApiError::Internal(message)
        }
    }
}
