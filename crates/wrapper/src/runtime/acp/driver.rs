//! The driver of a conversation: lines, commands, files, terminals and the process around the pure state.

use std::{
    collections::{BTreeMap, VecDeque},
    path::PathBuf,
    time::Duration,
};

use protocol::{Command, Prompt};
use serde_json::{Value, json};
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

use super::{
    content::PromptCapabilities,
    conversation::{Conversation, Give, Outcome, Stopped},
    files,
    handshake::Settings,
    pipe::{Deaf, Pipe},
    rpc::{Incoming, METHOD_NOT_FOUND, RpcError},
    terminals::{News, Terminals},
};
use crate::{
    Clock,
    runtime::{
        CommandError, Ended, Signal, control::Request, process::AgentProcess, record::Record,
        shape::emit::Tokens,
    },
};

/// An agent that says nothing for so long has said what it had to say outside of a turn.
const PAUSE: Duration = Duration::from_secs(1);

/// Everything around one conversation.
#[derive(Debug)]
pub(super) struct Driver {
    pub(super) conversation: Conversation,
    pub(super) clock: Clock,
    pub(super) session: String,
    pub(super) folder: PathBuf,
    pub(super) settings: Settings,
    pub(super) can: PromptCapabilities,
    pub(super) pipe: Pipe,
    pub(super) terminals: Terminals,
    pub(super) process: AgentProcess,
    pub(super) signals: mpsc::Sender<Signal>,
    pub(super) stop: CancellationToken,
    pub(super) open: Open,
    /// When what the agent says outside of a turn counts as said, if it says no more.
    pub(super) pause: Option<Instant>,
    /// Files that are read or written: whose request it was, and its answer. Nobody waits for them at the end, lest a disk that
    /// hangs keeps the agent from being over.
    pub(super) files: JoinSet<(Value, Result<Value, RpcError>)>,
}

/// A request: its method and its parameters.
type Step = (&'static str, Value);

/// What the agent has yet to be asked and to answer.
#[derive(Debug, Default)]
pub(super) struct Open {
    /// Requests that come before a prompt, and the prompt as the last of them.
    steps: VecDeque<Step>,
    /// The number of the one that was sent.
    sent: Option<u64>,
    /// The settings of messages that were not given yet.
    settings: BTreeMap<String, Vec<Step>>,
}

impl Driver {
    pub(super) async fn run(
        mut self,
        mut inbox: mpsc::Receiver<Request>,
        mut news: mpsc::Receiver<News>,
        last: mpsc::OwnedPermit<Signal>,
        record: Option<Record>,
    ) {
        let stop = self.stop.clone();
        let mut is_deaf = false;
        while !is_deaf {
            tokio::select! {
                flowing = self.flush() => if !flowing { break },
                () = stop.cancelled() => break,
            }
            // None goes before another: an agent that writes without an end is told to stop all the same.
            let done = tokio::select! {
                () = stop.cancelled() => break,
                line = self.pipe.next() => match line {
                    Some(line) => self.line(line),
                    // Its end is waited for: until then it may still be told to stop.
                    None => {
                        tokio::select! {
                            () = stop.cancelled() => {}
                            () = self.close_output() => {}
                        }
                        break;
                    }
                },
                Some(done) = self.files.join_next() => match done {
                    Ok((request, result)) => self.pipe.respond(&request, &result),
                    Err(error) => {
                        tracing::warn!(%error, "a file could not be looked at");
                        Ok(())
                    }
                },
                () = at(self.pause) => {
                    self.pause = None;
                    self.conversation.pause(self.clock.timestamp());
                    Ok(())
                }
                () = at(self.terminals.due()) => {
                    self.show_terminals();
                    Ok(())
                }
                Some(news) = news.recv() => self.news(news),
                request = inbox.recv() => match request {
                    Some(Request { command, answer }) => {
                        let (result, sent) = self.command(command);
                        // Whoever asked may have gone.
                        let _ = answer.send(result);
                        sent
                    }
                    None => break,
                },
            };
            is_deaf = done == Err(Deaf);
        }
        let stopped = stop.is_cancelled() || inbox.is_closed();
        self.show_terminals();
        self.conversation.gone(self.clock.timestamp());
        while let Some(event) = self.conversation.poll() {
            if self.signals.try_send(Signal::Event(event)).is_err() {
                break;
            }
        }
        drop((news, inbox));
        self.process.end();
        self.terminals.stop().await;
        self.process.stop().await;
        drop(record);
        let ended = if stopped {
            Ended::Exited { reason: "stopped".to_owned(), code: self.process.exit_code() }
        } else if is_deaf {
            Ended::Died(self.process.failed(Deaf.to_string()))
        } else {
            Ended::Died(self.process.failed("the agent died".to_owned()))
        };
        last.send(Signal::Ended(ended));
    }

    /// An agent without an output is of no use: it is ended, if it does not end by itself.
    async fn close_output(&mut self) {
        self.process.end();
        self.process.gone().cancelled().await;
    }

    /// Hands on what the conversation says. Returns whether the wrapper still listens.
    async fn flush(&mut self) -> bool {
        loop {
            // Room first: an event that is taken is then also delivered, wherever this is given up.
            let Ok(room) = self.signals.reserve().await else { return false };
            match self.conversation.poll() {
                Some(event) => room.send(Signal::Event(event)),
                None => return true,
            }
        }
    }

    fn line(&mut self, line: Incoming) -> Result<(), Deaf> {
        match line {
            Incoming::Notification { method, params } if method == "session/update" => {
                if params["sessionId"] == self.session.as_str() {
                    self.updated(&params["update"]);
                }
                Ok(())
            }
            Incoming::Notification { method, .. } => {
                tracing::debug!(method, "the agent says something this wrapper does not know");
                Ok(())
            }
            Incoming::Request { id, method, params } => self.asked(id, &method, params),
            Incoming::Response { id, result } => self.answered(id, result),
        }
    }

    fn updated(&mut self, update: &Value) {
        let now = self.clock.timestamp();
        self.settings.update(update);
        if update["sessionUpdate"] == "config_option_update"
            && let Some(model) = self.settings.model()
        {
            self.conversation.model(model);
        }
        // A call that is over takes no output any more.
        if !update["toolCallId"].is_null() {
            self.show_terminals();
        }
        self.conversation.update(now, update);
        self.await_pause();
        // A terminal may have written before a tool shows it.
        for content in update["content"].as_array().into_iter().flatten() {
            if let Some(id) = content["terminalId"].as_str()
                && let Some(output) = self.terminals.text(id)
            {
                self.conversation.terminal_output(now, id, &output);
            }
        }
    }

    /// What is said outside of a turn is over when nothing more comes.
    fn await_pause(&mut self) {
        self.pause = self.conversation.is_speaking_aside().then(|| Instant::now() + PAUSE);
    }

    /// The agent answers a setting, or the prompt.
    fn answered(&mut self, id: u64, result: Result<Value, RpcError>) -> Result<(), Deaf> {
        if self.open.sent != Some(id) {
            return Ok(());
        }
        if result.is_ok() && !self.open.steps.is_empty() {
            // The prompt is the last one: all that was chosen for it was taken.
            if self.open.steps.len() == 1 {
                self.conversation.stay();
            }
            return self.send_next();
        }
        self.finished(result.map(|answer| Stopped {
            reason: answer["stopReason"].as_str().unwrap_or("end_turn").to_owned(),
            usage: answer["usage"].is_object().then(|| usage(&answer["usage"])),
        }))
    }

    /// The prompt is over.
    fn finished(&mut self, stopped: Result<Stopped, RpcError>) -> Result<(), Deaf> {
        self.show_terminals();
        self.open.sent = None;
        self.open.steps.clear();
        match self.conversation.finished(self.clock.timestamp(), stopped) {
            Some(give) => self.give(give),
            None => {
                self.open.settings.clear();
                Ok(())
            }
        }
    }

    /// The agent wants something.
    fn asked(&mut self, id: Value, method: &str, params: Value) -> Result<(), Deaf> {
        let folder = self.folder.clone();
        let result = match method {
            "session/request_permission" => {
                let outcome = self.conversation.ask(self.clock.timestamp(), id, &params);
                self.await_pause();
                return outcome.map_or(Ok(()), |outcome| self.decide(outcome));
            }
            "fs/read_text_file" => {
                self.files.spawn_blocking(move || (id, files::read(&folder, &params)));
                return Ok(());
            }
            "fs/write_text_file" => {
                self.files.spawn_blocking(move || (id, files::write(&folder, &params)));
                return Ok(());
            }
            "terminal/create" => self.terminals.create(&params),
            "terminal/output" => self.terminals.output(&params),
            "terminal/wait_for_exit" => match self.terminals.wait_for_exit(&id, &params) {
                Some(result) => result,
                None => return Ok(()),
            },
            "terminal/kill" => self.terminals.kill(&params),
            "terminal/release" => {
                self.show_terminals();
                self.terminals.release(&params)
            }
            _ => Err(RpcError::new(METHOD_NOT_FOUND, format!("this client has no {method}"))),
        };
        self.pipe.respond(&id, &result)
    }

    fn news(&mut self, news: News) -> Result<(), Deaf> {
        match news {
            News::Wrote(terminal, bytes) => self.terminals.wrote(&terminal, &bytes),
            News::Ended(terminal) => {
                if let Some((waiting, status)) = self.terminals.ended(&terminal) {
                    for request in waiting {
                        self.pipe.respond(&request, &Ok(status.clone()))?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Shows what terminals wrote since this was done last.
    fn show_terminals(&mut self) {
        let now = self.clock.timestamp();
        for (terminal, output) in self.terminals.unseen() {
            self.conversation.terminal_output(now, &terminal, &output);
        }
    }

    fn command(&mut self, command: Command) -> (Result<Option<Value>, CommandError>, Result<(), Deaf>) {
        let now = self.clock.timestamp();
        match command {
            Command::Prompt(prompt) => self.prompt(&prompt),
            Command::Slash { name, arguments } => {
                if !self.settings.may_have_command(&name) {
                    let what = format!("the command /{name}");
                    return (Err(CommandError::NotFound { what }), Ok(()));
                }
                let text = Some(format!("/{name} {arguments}").trim_end().to_owned());
                self.prompt(&Prompt { text, ..Prompt::default() })
            }
            Command::Abort => {
                let (outcomes, runs) = self.conversation.cancel(now);
                let told = outcomes.into_iter().try_for_each(|outcome| self.decide(outcome));
                if !runs {
                    return (Ok(None), told);
                }
                let was_given = self.open.steps.is_empty();
                let session = json!({ "sessionId": self.session });
                let told = told.and_then(|()| {
                    if was_given {
                        return self.pipe.notify("session/cancel", &session);
                    }
                    // A model or mode is being chosen for it: the agent has nothing to cancel, and is not given the prompt.
                    self.finished(Ok(Stopped { reason: "cancelled".to_owned(), usage: None }))
                });
                (Ok(None), told)
            }
            Command::Permission { id, reply, message: _ } => {
                match self.conversation.answer(now, &id, reply) {
                    Some(outcome) => (Ok(None), self.decide(outcome)),
                    None => (Err(CommandError::NotFound { what: format!("the permission {id}") }), Ok(())),
                }
            }
            Command::Question(answer) => {
                (Err(CommandError::NotFound { what: format!("the question {}", answer.id) }), Ok(()))
            }
            Command::QuestionReject { id } => {
                (Err(CommandError::NotFound { what: format!("the question {id}") }), Ok(()))
            }
            Command::Revert { .. } | Command::Unrevert => (
                Err(CommandError::Unsupported { what: "take files back: its protocol has no such thing" }),
                Ok(()),
            ),
            Command::Fork { .. } => {
                let what = "fork its session: its protocol has no such thing yet";
                (Err(CommandError::Unsupported { what }), Ok(()))
            }
            Command::Network { id } | Command::NetworkReject { id } => {
                (Err(CommandError::NotFound { what: format!("the network request {id}") }), Ok(()))
            }
            Command::Stop { .. } | Command::Ping | _ => {
                (Err(CommandError::Unsupported { what: "do that" }), Ok(()))
            }
        }
    }

    /// The user says something, with a model or mode of its own where they are named.
    fn prompt(&mut self, prompt: &Prompt) -> (Result<Option<Value>, CommandError>, Result<(), Deaf>) {
        let mut steps = Vec::new();
        if let Some(model) = &prompt.model {
            match self.settings.choose_model(&self.session, &model.provider_id, &model.model_id) {
                Some(step) => steps.push(step),
                None => {
                    let what = format!("the model {}/{}", model.provider_id, model.model_id);
                    return (Err(CommandError::NotFound { what }), Ok(()));
                }
            }
        }
        if let Some(mode) = &prompt.agent {
            match self.settings.choose_mode(&self.session, mode) {
                Some(step) => steps.push(step),
                None => return (Err(CommandError::NotFound { what: format!("the mode {mode}") }), Ok(())),
            }
        }
        let (message, give) = self.conversation.prompt(self.clock.timestamp(), prompt, self.can);
        self.open.settings.insert(message.clone(), steps);
        let sent = give.map_or(Ok(()), |give| self.give(give));
        (Ok(Some(json!({ "messageId": message }))), sent)
    }

    fn give(&mut self, Give { message, content }: Give) -> Result<(), Deaf> {
        self.open.steps = self.open.settings.remove(&message).unwrap_or_default().into();
        let prompt = json!({ "sessionId": self.session, "prompt": content });
        self.open.steps.push_back(("session/prompt", prompt));
        self.send_next()
    }

    fn send_next(&mut self) -> Result<(), Deaf> {
        if let Some((method, params)) = self.open.steps.pop_front() {
            self.open.sent = Some(self.pipe.request(method, &params)?);
        }
        Ok(())
    }

    fn decide(&mut self, outcome: Outcome) -> Result<(), Deaf> {
        self.pipe.respond(&outcome.request, &Ok(outcome.result))
    }
}

/// Waits until then; for ever, if there is no such time.
async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}

/// The tokens of a turn, as `session/prompt` answers them.
fn usage(usage: &Value) -> Tokens {
    let count = |name: &str| usage[name].as_u64().unwrap_or(0);
    Tokens {
        input: count("inputTokens"),
        output: count("outputTokens"),
        reasoning: count("thoughtTokens"),
        cache_read: count("cachedReadTokens"),
        cache_write: count("cachedWriteTokens"),
    }
}
