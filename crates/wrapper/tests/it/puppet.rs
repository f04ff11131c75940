//! An agent that does nothing by itself: the test says what it says, and sees what it is told.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use gastown_wrapper::runtime::{
    AgentControl, AgentRuntime, CommandError, Ended, RunningAgent, SIGNALS, ServerState, Signal, Start,
};
use protocol::{Command, NewEvent, RawData, Timestamp, agent::Failed, frame::RuntimeInfo, session_of};
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};

/// The agent, or the one after it. It has every session that it ever made, until it [forgets](Self::forget_sessions) them.
#[derive(Debug, Clone)]
pub(crate) struct Puppet {
    inside: Arc<Mutex<Inside>>,
    changed: watch::Sender<()>,
}

#[derive(Debug, Default)]
struct Inside {
    starts: usize,
    sessions: Vec<String>,
    told: Vec<Command>,
    signals: Option<mpsc::Sender<Signal>>,
    refuses: Option<fn() -> CommandError>,
    asked_again: usize,
}

impl Puppet {
    pub(crate) fn new() -> Self {
        Self { inside: Arc::default(), changed: watch::Sender::new(()) }
    }

    /// What it was told by now, once it was told so much.
    pub(crate) async fn told(&self, count: usize) -> Vec<Command> {
        self.until(|inside| (inside.told.len() >= count).then(|| inside.told.clone())).await
    }

    /// Waits until it was started so often. Returns its newest session.
    pub(crate) async fn started(&self, times: usize) -> String {
        self.until(|inside| (inside.starts >= times).then(|| inside.sessions.last().cloned()).flatten()).await
    }

    /// A user's message is there, and the agent works at it.
    pub(crate) async fn begins_turn(&self, message: &str) {
        let session = self.session();
        let info = json!({ "id": message, "sessionID": session, "role": "user", "time": { "created": 1 } });
        self.say("message.updated", &json!({ "info": info })).await;
        let part = json!({ "id": format!("prt_{message}"), "messageID": message, "sessionID": session, "type": "text", "text": "fix it" });
        self.say("message.part.updated", &json!({ "part": part })).await;
        self.say("session.status", &json!({ "sessionID": session, "status": { "type": "busy" } })).await;
    }

    /// It says a text, to which it may go on.
    pub(crate) async fn says(&self, message: &str, text: &str) {
        let session = self.session();
        let info =
            json!({ "id": message, "sessionID": session, "role": "assistant", "time": { "created": 2 } });
        self.say("message.updated", &json!({ "info": info })).await;
        let part = json!({ "id": format!("prt_{message}"), "messageID": message, "sessionID": session, "type": "text", "text": text, "time": { "start": 2 } });
        self.say("message.part.updated", &json!({ "part": part })).await;
    }

    /// Its turn is over, as far as the second idle says so.
    pub(crate) async fn ends_turn(&self) {
        let session = self.session();
        self.say("session.status", &json!({ "sessionID": session, "status": { "type": "idle" } })).await;
        for _ in 0..2 {
            self.say("session.idle", &json!({ "sessionID": session })).await;
        }
    }

    /// A slash command that it took has failed.
    pub(crate) async fn fails_late(&self, message: &str) {
        let signals = self.inside.lock().unwrap().signals.clone().expect("it runs");
        signals
            .send(Signal::CommandFailed { message: message.to_owned() })
            .await
            .expect("the wrapper listens");
    }

    /// It dies.
    pub(crate) async fn dies(&self) {
        let signals = self.change(|inside| inside.signals.take()).expect("it runs");
        let failed = Failed { message: "killed".to_owned(), exit_code: Some(137), ..Failed::default() };
        signals.send(Signal::Ended(Ended::Died(failed))).await.expect("the wrapper listens");
    }

    /// It says how things are, as after its stream broke off.
    pub(crate) async fn catches_up(&self, state: ServerState) {
        let signals = self.inside.lock().unwrap().signals.clone().expect("it runs");
        signals.send(Signal::CaughtUp(Box::new(state))).await.expect("the wrapper listens");
    }

    /// Waits until it was asked to say once more how things are.
    pub(crate) async fn is_asked_again(&self) {
        self.until(|inside| (inside.asked_again > 0).then_some(())).await;
    }

    fn session(&self) -> String {
        self.inside.lock().unwrap().sessions.last().cloned().expect("it was started")
    }

    async fn say(&self, kind: &str, data: &Value) {
        let json = data.to_string();
        let session = session_of(kind, &json);
        let data = RawData::from_json(&json).unwrap();
        let event = NewEvent { time: Timestamp::from_unix_ms(1), kind: kind.into(), session, data };
        let signals = self.inside.lock().unwrap().signals.clone().expect("it runs");
        signals.send(Signal::Event(event)).await.expect("the wrapper listens");
    }

    /// Has none of its sessions any more.
    pub(crate) fn forget_sessions(&self) {
        self.inside.lock().unwrap().sessions.clear();
    }

    /// Refuses every command so from now on, or none.
    pub(crate) fn refuses(&self, why: Option<fn() -> CommandError>) {
        self.inside.lock().unwrap().refuses = why;
    }

    /// Begins to count anew what it is told.
    pub(crate) fn forget_commands(&self) {
        self.inside.lock().unwrap().told.clear();
    }

    async fn until<T>(&self, mut done: impl FnMut(&Inside) -> Option<T>) -> T {
        let mut changed = self.changed.subscribe();
        let wait = async {
            loop {
                if let Some(found) = done(&self.inside.lock().unwrap()) {
                    return found;
                }
                changed.changed().await.expect("the puppet lives");
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(60), wait).await.expect("it comes")
    }

    fn change<T>(&self, change: impl FnOnce(&mut Inside) -> T) -> T {
        let changed = change(&mut self.inside.lock().unwrap());
        self.changed.send_replace(());
        changed
    }
}

#[async_trait]
impl AgentRuntime for Puppet {
    fn name(&self) -> &'static str {
        "puppet"
    }

    async fn start(&self, start: Start) -> Result<RunningAgent, Failed> {
        let (sender, signals) = mpsc::channel(SIGNALS);
        let (session, resumed) = self.change(|inside| {
            inside.starts += 1;
            inside.signals = Some(sender);
            match start.resume.filter(|session| inside.sessions.contains(session)) {
                Some(session) => (session, true),
                None => {
                    let session = format!("ses_{}", inside.starts);
                    inside.sessions.push(session.clone());
                    (session, false)
                }
            }
        });
        let info = RuntimeInfo { name: "puppet".to_owned(), version: "1".to_owned() };
        let control = Arc::new(self.clone());
        Ok(RunningAgent { info, session, resumed, context_limits: BTreeMap::new(), signals, control })
    }
}

#[async_trait]
impl AgentControl for Puppet {
    async fn command(&self, command: Command) -> Result<Option<Value>, CommandError> {
        self.change(|inside| {
            inside.told.push(command);
            match inside.refuses {
                Some(why) => Err(why()),
                None if inside.sessions.is_empty() => Err(CommandError::SessionGone),
                None => Ok(None),
            }
        })
    }

    fn say_again(&self) {
        self.change(|inside| inside.asked_again += 1);
    }

    async fn stop(&self) {
        let signals = self.change(|inside| inside.signals.take());
        if let Some(signals) = signals {
            let ended = Ended::Exited { reason: "stopped".to_owned(), code: None };
            // The wrapper may be gone.
            let _ = signals.send(Signal::Ended(ended)).await;
        }
    }
}
