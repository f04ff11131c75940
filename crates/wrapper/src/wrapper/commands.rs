//! What the relay and the local API ask for, and the answers (§7).

use protocol::{
    Command, CommandId, CommandResult, ErrorCode, ErrorDetail, Key, Prompt,
    config::{SealedConfig, TownConfig, TurnConfig},
};
use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::{
    agent::SESSION_GONE,
    carried_out::CarriedOut,
    life::{Done, Life},
};
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
    /// The log: a prompt that the API has accepted already.
    Log,
    /// Nobody: the wrapper itself.
    Nobody,
}

/// A prompt that the agent was handed.
#[derive(Debug, Clone, Copy)]
pub(super) struct HandedOn {
    number: PromptNumber,
    /// What the session was to be told first went with it.
    with_context: bool,
}

impl Life {
    /// Carries out a command.
    pub(super) async fn command(&mut self, to: AnswerTo, command: Command) {
        if let Err(error) = self.once(&to, &command) {
            return self.reply(to, Err(error)).await;
        }
        match command {
            Command::Ping => self.reply(to, Ok(None)).await,
            Command::Stop { drain } => {
                let (reason, grace) = if drain { ("drained", Some(DRAIN_GRACE)) } else { ("stopped", None) };
                if drain {
                    self.announce_drain().await;
                }
                self.supervisor.stop(self.clock.now(), reason, Exit::Done, grace);
                self.reply(to, Ok(None)).await;
            }
            Command::Prompt(prompt) => {
                if let Err((to, error)) = self.prompt_of_link(to, prompt) {
                    self.reply(to, Err(error)).await;
                }
            }
            Command::Abort => {
                self.give_up_after_turn("it was aborted").await;
                self.turns.abort(self.clock.now());
                self.send_abort(to).await;
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
            Command::Logs { lines } => {
                let lines = lines.map_or(usize::MAX, |lines| lines as usize);
                let lines = self.setup.options.log.last(lines);
                self.reply(to, Ok(Some(json!({ "lines": lines })))).await;
            }
            Command::Slash { .. } => match to {
                AnswerTo::Api(answer) if self.agent.is_none() || self.turns.is_busy() => {
                    self.accept(answer, command, TurnConfig::default(), ApiAnswer::Done(None));
                }
                to @ (AnswerTo::Api(_) | AnswerTo::Link(_) | AnswerTo::Log | AnswerTo::Nobody) => {
                    if let Err((to, error)) = self.queue(to, command, TurnConfig::default()) {
                        self.reply(to, Err(error)).await;
                    }
                }
            },
            Command::Revert { .. } | Command::Unrevert | Command::Fork { .. } => {
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
            ApiAsk::Configure(config) => {
                self.config_error = None;
                self.offer(config);
                let _ = answer.send(Ok(ApiAnswer::Done(None)));
            }
            ApiAsk::Prompt { mut prompt, turn } => {
                let made = || self.ids.next("msg", self.clock.timestamp().unix_ms());
                let message_id = prompt.message_id.take().unwrap_or_else(made);
                prompt.message_id = Some(message_id.clone());
                self.accept(answer, Command::Prompt(prompt), turn, ApiAnswer::Accepted { message_id });
            }
        }
    }

    /// Takes what begins a turn from the local API, which waits for no turn: what comes of it is in the log.
    fn accept(
        &mut self,
        answer: oneshot::Sender<Result<ApiAnswer, ApiError>>,
        command: Command,
        turn: TurnConfig,
        accepted: ApiAnswer,
    ) {
        let taken = self.queue(AnswerTo::Log, command, turn);
        // Whoever asked may have gone.
        let _ = answer.send(taken.map(|()| accepted).map_err(|(_, error)| api_error(error)));
    }

    /// Hands a command to the agent. `ask` is the ask that it answers.
    pub(super) async fn send(&mut self, to: AnswerTo, ask: Option<Key>, command: Command) {
        let Some(agent) = &self.agent else {
            let message = "the agent does not run: send it again when it does";
            let error = ErrorDetail::new(ErrorCode::AgentOffline, message);
            return self.reply(to, Err(error)).await;
        };
        let control = agent.control.clone();
        self.tasks.spawn(async move { Done::Command(to, ask, control.command(command).await) });
    }

    /// Hands a prompt or a slash command to the agent.
    pub(super) async fn begin_turn(&mut self, number: PromptNumber, mut command: Command) {
        if let Some(AnswerTo::Link(id)) = self.prompts.get(&number)
            && let Err(error) = note(&mut self.carried_out, id)
        {
            self.turns.taken(self.clock.now(), number, false);
            if let Some(to) = self.prompts.remove(&number) {
                self.reply(to, Err(error)).await;
            }
            return;
        }
        let joins = self.turns.is_open();
        let with_context = if let Command::Prompt(prompt) = &mut command {
            self.configs.send(number, prompt, joins);
            self.context.iter().for_each(|context| tell_first(context, prompt));
            self.context.is_some()
        } else {
            // How a slash command is run it says itself.
            self.configs.send(number, &mut Prompt::default(), joins);
            false
        };
        let handed_on = HandedOn { number, with_context };
        let control = self.agent.as_ref().map(|agent| agent.control.clone());
        self.tasks.spawn(async move {
            let result = match control {
                Some(control) => control.command(command).await,
                None => Err(CommandError::Unreachable { message: "the agent does not run".to_owned() }),
            };
            Done::Prompt(handed_on, result)
        });
    }

    pub(super) async fn prompt_done(
        &mut self,
        handed_on: HandedOn,
        result: Result<Option<Value>, CommandError>,
    ) {
        let HandedOn { number, with_context } = handed_on;
        if with_context && result.is_ok() {
            self.context = None;
            self.keep("context", self.setup.state.keep_context(None));
        }
        self.is_session_gone(&result);
        self.turns.taken(self.clock.now(), number, result.is_ok());
        if let Some(to) = self.prompts.remove(&number) {
            self.answer(to, result).await;
        }
    }

    /// Tells the agent to end its turn.
    pub(super) async fn send_abort(&mut self, to: AnswerTo) {
        let Some(agent) = &self.agent else { return self.reply(to, Ok(None)).await };
        let control = agent.control.clone();
        self.tasks.spawn(async move { Done::Abort(to, control.command(Command::Abort).await) });
    }

    /// An agent that cannot be aborted is not waited for; one that does not answer is.
    pub(super) async fn abort_done(&mut self, to: AnswerTo, result: Result<Option<Value>, CommandError>) {
        match &result {
            Ok(_) | Err(CommandError::Unreachable { .. }) => {}
            Err(
                CommandError::NotFound { .. }
                | CommandError::SessionGone
                | CommandError::Unsupported { .. }
                | CommandError::Refused { .. },
            ) => self.turns.abort_refused(),
        }
        self.answer(to, result).await;
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
        self.is_session_gone(&result);
        match (to, result) {
            // §8 has one word for a server that refuses and for one that is not there, the local API has two.
            (AnswerTo::Api(answer), Err(error @ CommandError::Unreachable { .. })) => {
                let message = self.setup.options.log.secrets().text(&error.to_string()).into_owned();
                let _ = answer.send(Err(ApiError::AgentUnreachable(message)));
            }
            (to, result) => self.reply(to, result.map_err(|error| detail_of(&error))).await,
        }
    }

    fn is_session_gone(&mut self, result: &Result<Option<Value>, CommandError>) {
        if matches!(result, Err(CommandError::SessionGone)) {
            self.hangs(SESSION_GONE);
        }
    }

    pub(super) async fn refuse_prompt(&mut self, number: PromptNumber, why: &str) {
        self.configs.forget(number);
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

    /// Takes the town's config from the relay.
    pub(super) fn configure(&mut self, config: Option<SealedConfig>) {
        match config.map(|config| config.open()) {
            None => {}
            Some(Ok(config)) => {
                self.config_error = None;
                self.offer(config);
            }
            Some(Err(error)) => {
                tracing::warn!(%error, "the town's config is not taken");
                self.last_error = Some(error.to_string());
                self.config_error = Some(error);
            }
        }
    }

    fn offer(&mut self, config: TownConfig) {
        config.env.values().for_each(|secret| self.setup.options.log.secrets().hide(secret.expose()));
        if self.configs.offer(config) {
            tracing::info!("the town's config has another environment: the next start of the agent has it");
        }
    }

    /// Whoever set the config meant it for this prompt: without it, it might do what it must not.
    fn prompt_of_link(&mut self, to: AnswerTo, prompt: Prompt) -> Result<(), (AnswerTo, ErrorDetail)> {
        match &self.config_error {
            Some(error) => Err((to, ErrorDetail::new(ErrorCode::BadRequest, error.to_string()))),
            None => self.queue(to, Command::Prompt(prompt), TurnConfig::default()),
        }
    }

    /// Takes what begins a turn, for when it may begin.
    pub(super) fn queue(
        &mut self,
        to: AnswerTo,
        command: Command,
        own: TurnConfig,
    ) -> Result<(), (AnswerTo, ErrorDetail)> {
        let phase = self.supervisor.phase();
        let ends = match phase {
            Phase::Draining { .. } => Some("the agent ends after the turn that runs"),
            Phase::Stopping => Some("the agent is being ended"),
            Phase::Stopped => Some("the agent has ended"),
            Phase::Failed => Some("the agent has failed"),
            Phase::Starting | Phase::Idle | Phase::Active | Phase::Hung | Phase::Resting { .. } => None,
        };
        if let Some(ends) = ends {
            let message = format!("{ends} and takes nothing more: start it again, and send it then");
            return Err((to, ErrorDetail::new(ErrorCode::Draining, message)));
        }
        let message = if let Command::Prompt(prompt) = &command { prompt.message_id.as_ref() } else { None };
        let name = match (message, &to) {
            (Some(message), _) => Some(message.clone()),
            (None, AnswerTo::Link(command)) => Some(command.to_string()),
            (None, AnswerTo::Api(_) | AnswerTo::Log | AnswerTo::Nobody) => None,
        };
        match self.turns.take(self.clock.now(), command) {
            Some(number) => {
                self.configs.queue(number, own);
                self.prompt_names.extend(name.map(|name| (number, name)));
                self.prompts.insert(number, to);
                Ok(())
            }
            None => {
                Err((to, ErrorDetail::new(ErrorCode::RateLimited, "too many messages wait for this agent")))
            }
        }
    }

    /// A command of the relay is carried out once: one that an earlier run handed on is not again.
    fn once(&mut self, to: &AnswerTo, command: &Command) -> Result<(), ErrorDetail> {
        let AnswerTo::Link(id) = to else { return Ok(()) };
        if self.carried_out.has(id) {
            let message =
                "an earlier run of this wrapper handed this command on: the log says what came of it";
            return Err(ErrorDetail::new(ErrorCode::Conflict, message));
        }
        // What begins a turn may be queued: until it is handed on it may come again. The others change nothing.
        if matches!(
            command,
            Command::Prompt(_) | Command::Slash { .. } | Command::Ping | Command::Logs { .. }
        ) {
            return Ok(());
        }
        note(&mut self.carried_out, id)
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

    pub(super) async fn reply(&mut self, to: AnswerTo, result: Result<Option<Value>, ErrorDetail>) {
        // The words may be those of the agent's server.
        let result = result.map_err(|error| {
            let message = self.setup.options.log.secrets().text(&error.message).into_owned();
            ErrorDetail { message, ..error }
        });
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
            AnswerTo::Log => {
                if let Err(error) = result {
                    self.turn_failed("PromptRefusedError", &error.message).await;
                }
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

/// What is not on disk is not carried out.
fn note(carried_out: &mut CarriedOut, id: &CommandId) -> Result<(), ErrorDetail> {
    carried_out.note(id).map_err(|error| {
        ErrorDetail::new(ErrorCode::Internal, format!("the command cannot be put on record: {error}"))
    })
}

/// Puts a text before what a prompt says.
fn tell_first(context: &str, prompt: &mut Prompt) {
    let mut parts = vec![json!({ "type": "text", "text": context, "synthetic": true })];
    parts.extend(prompt.text.take().map(|own| json!({ "type": "text", "text": own })));
    parts.extend(prompt.parts.take().unwrap_or_default());
    prompt.parts = Some(parts);
}

fn detail_of(error: &CommandError) -> ErrorDetail {
    let code = match error {
        CommandError::NotFound { .. } | CommandError::SessionGone => ErrorCode::NotFound,
        CommandError::Unsupported { .. } => ErrorCode::Unsupported,
        CommandError::Refused { .. } | CommandError::Unreachable { .. } => ErrorCode::AgentError,
    };
    ErrorDetail::new(code, error.to_string())
}

fn api_error(error: ErrorDetail) -> ApiError {
    let ErrorDetail { code, message, .. } = error;
    match code {
        ErrorCode::BadRequest | ErrorCode::TooLarge => ApiError::InvalidRequest(message),
        ErrorCode::NotFound | ErrorCode::UnknownLog => ApiError::NotFound(message),
        ErrorCode::AlreadyAnswered | ErrorCode::Conflict | ErrorCode::Superseded => {
            ApiError::Conflict(message)
        }
        ErrorCode::RateLimited => ApiError::TooMany(message),
        ErrorCode::Unsupported => ApiError::Unsupported(message),
        ErrorCode::Draining | ErrorCode::AgentOffline => ApiError::NoJob(message),
        ErrorCode::AgentError | ErrorCode::Stalled => ApiError::AgentRefused(message),
        ErrorCode::Unauthenticated | ErrorCode::Forbidden | ErrorCode::Corrupt | ErrorCode::Internal | _ => {
            ApiError::Internal(message)
        }
    }
}
