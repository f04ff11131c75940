//! The whole wrapper in one process: a scripted agent, the outbox on disk, the link over a real socket, a relay by hand.

use std::{
    fs::File,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Router,
    extract::{
        State, WebSocketUpgrade,
        ws::{Message, WebSocket},
    },
    http::StatusCode,
    response::{IntoResponse as _, Response},
    routing::get,
};
use gastown_wrapper::{
    Exit, Options, RunError, RuntimeKind, Shutdown, ShutdownLevel, ShutdownTrigger, Surroundings, run, run_in,
};
use protocol::{
    Command, CommandId, CommandResult, ErrorCode, LogId, NewEvent, Seq,
    codec::Frame,
    frame::{FromWrapper, IngestLimits, ToViewer, ToWrapper},
    view::{Lifecycle, SessionView},
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{net::TcpListener, sync::watch, task::JoinHandle, time::timeout};

use crate::puppet::Puppet;

/// Far more than anything here takes.
pub(crate) const SOON: Duration = Duration::from_secs(30);

#[tokio::test]
async fn a_prompt_becomes_a_turn_in_the_relays_log() {
    let mut world = World::start(&json!({ "text": { "text": "Hello there." } })).await;
    world.prompt("hi").await;
    let view = world.until(|view| answers(view).contains(&"Hello there.".to_owned()) && is_idle(view)).await;
    assert!(view.agent().started.is_some());
    assert_eq!(world.wrapper.end().await.unwrap(), Exit::Done);
    let Lifecycle::Exited(exited) = world.relay.view().agent().lifecycle.clone() else { panic!("it exited") };
    assert_eq!(exited.reason, "drained");
}

#[tokio::test]
async fn the_first_answer_to_a_permission_wins() {
    let mut world = World::start(&json!({ "bash": { "command": "echo yes", "description": "say yes", "ask": { "always": ["echo *"] } } })).await;
    world.prompt("go").await;
    let view = world.until(|view| !view.pending().is_empty() && state(view) == "waiting").await;
    let id = view.pending()[0].id.to_string();
    let reply = json!({ "type": "permission", "id": id, "reply": "once" });
    assert!(world.command(&reply).await.ok);
    let second = world.command(&reply).await;
    assert_eq!(second.error.unwrap().code, ErrorCode::AlreadyAnswered);
    let unknown = world.command(&json!({ "type": "permission", "id": "per_none", "reply": "once" })).await;
    assert_eq!(unknown.error.unwrap().code, ErrorCode::NotFound);
    world.until(is_idle).await;
    world.wrapper.end().await.unwrap();
}

#[tokio::test]
async fn an_abort_ends_the_turn_and_leaves_nothing_open() {
    let mut world = World::start(&json!({ "bash": { "command": "echo yes", "description": "say yes", "ask": { "always": ["echo *"] } } })).await;
    world.prompt("go").await;
    world.until(|view| !view.pending().is_empty()).await;
    assert!(world.command(&json!({ "type": "abort" })).await.ok);
    world.until(|view| is_idle(view) && view.pending().is_empty()).await;
    world.wrapper.end().await.unwrap();
}

#[tokio::test]
async fn p5_a_link_that_is_cut_and_comes_back_loses_and_doubles_nothing() {
    let long: String = (0..200).map(|word| format!("word{word} ")).collect();
    let mut world = World::start(&json!({ "text": { "text": long, "chunk": 10, "delay_ms": 2 } })).await;
    world.prompt("talk").await;
    world.until(|view| !answers(view).concat().is_empty()).await;
    world.relay.cut();
    world.until(|view| answers(view).contains(&long) && is_idle(view)).await;
    world.wrapper.end().await.unwrap();
}

#[tokio::test]
async fn p6_a_superseded_wrapper_stops_its_agent_and_says_so() {
    let mut world = World::start(&json!({ "pause": { "ms": 600_000 } })).await;
    world.until(is_idle).await;
    world.relay.supersede();
    let ended = timeout(Duration::from_secs(10), &mut world.wrapper.run).await.expect("within the promise");
    assert_eq!(ended.unwrap().unwrap(), Exit::Superseded);
}

#[tokio::test]
async fn what_a_killed_wrapper_left_open_is_closed_by_the_next_one() {
    let endless = json!({ "text": { "text": "and so on ".repeat(2_000), "chunk": 10, "delay_ms": 20 } });
    let mut world = World::start(&endless).await;
    world.prompt("talk").await;
    world.until(|view| answers(view).concat().len() > 30).await;
    world.kill_and_start_again().await;
    let view = world.until(is_idle).await;
    let part = view.sessions().iter().flat_map(|session| session.messages()).find_map(|message| {
        message
            .parts()
            .filter_map(|part| part.body().text_part().cloned())
            .find(|text| text.text.starts_with("and so"))
    });
    let part = part.expect("the text that was broken off");
    assert!(part.is_interrupted() && part.text.len() > 30);
    assert!(world.relay.kinds().contains(&"wrapper.resumed".to_owned()));
    world.wrapper.end().await.unwrap();
}

#[tokio::test]
async fn a_scenario_that_is_not_there_fails_at_once() {
    let mut world = World::start(&json!({ "text": { "text": "x" } })).await;
    world.until(is_idle).await;
    world.wrapper.end().await.unwrap();
    std::fs::remove_file(world.folder.path().join("scenario.json")).unwrap();
    world.wrapper = Wrapper::start(&world.relay, &world.folder);
    assert_eq!(timeout(SOON, &mut world.wrapper.run).await.unwrap().unwrap().unwrap(), Exit::AgentFailed);
    let Lifecycle::Failed(failed) = world.relay.view().agent().lifecycle.clone() else { panic!("it failed") };
    assert!(failed.message.contains("scenario.json"), "{}", failed.message);
}

#[test]
fn the_binary_takes_its_options() {
    let state = tempfile::tempdir().unwrap();
    let mut binary = std::process::Command::new(env!("CARGO_BIN_EXE_gastown-wrapper"));
    binary.args(["--relay", "ftp://relay", "--agent", "a1", "--runtime", "acp", "--state-dir"]);
    binary.arg(state.path()).args(["--agent-command", "true"]);
    let ended = binary.env("GASTOWN_WRAPPER_TOKEN", "a-token").output().unwrap();
    let said = String::from_utf8_lossy(&ended.stderr);
    assert!(said.contains("is not the URL of a relay"), "{said}");
}

/// A wrapper whose agent plays one action per turn, and its relay.
pub(crate) struct World {
    pub(crate) folder: TempDir,
    pub(crate) relay: Relay,
    pub(crate) wrapper: Wrapper,
    commands: u64,
}

impl World {
    async fn start(action: &Value) -> Self {
        Self::start_with(action, |_, _| {}).await
    }

    /// Starts it after this was done in its folder, and to its options.
    pub(crate) async fn start_with(action: &Value, prepare: impl FnOnce(&Path, &mut Options)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let scenario = json!({
            "title": "a test", "agent": "build", "model": { "providerID": "p", "modelID": "m" },
            "turns": [{ "name": "only", "free": true, "steps": [{ "actions": [action] }] }],
        });
        std::fs::write(folder.path().join("scenario.json"), scenario.to_string()).unwrap();
        std::fs::write(folder.path().join("token"), "a-token").unwrap();
        std::fs::create_dir(folder.path().join("work")).unwrap();
        let relay = Relay::listen().await;
        let mut options = Wrapper::options(&relay, &folder);
        prepare(folder.path(), &mut options);
        let wrapper = Wrapper::start_with(options);
        Self { folder, relay, wrapper, commands: 0 }
    }

    /// A world whose agent the test plays.
    pub(crate) async fn played(puppet: &Puppet, prepare: impl Fn(&mut Options)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("scenario.json"), "{}").unwrap();
        std::fs::write(folder.path().join("token"), "a-token").unwrap();
        std::fs::create_dir(folder.path().join("work")).unwrap();
        let relay = Relay::listen().await;
        let mut options = Wrapper::options(&relay, &folder);
        prepare(&mut options);
        let wrapper = Wrapper::start_played(options, puppet).await;
        Self { folder, relay, wrapper, commands: 0 }
    }

    /// What the log says once it says this.
    pub(crate) async fn until(&self, mut says: impl FnMut(&SessionView) -> bool) -> SessionView {
        let mut grown = self.relay.grown.subscribe();
        let waited = timeout(SOON, async {
            loop {
                let view = self.relay.view();
                if says(&view) {
                    return view;
                }
                grown.changed().await.expect("the relay lives");
            }
        });
        match waited.await {
            Ok(view) => view,
            Err(_) => panic!("it never came; the log is {:?}", self.relay.kinds()),
        }
    }

    pub(crate) async fn prompt(&mut self, text: &str) {
        self.until(is_idle).await;
        assert!(self.command(&json!({ "type": "prompt", "text": text })).await.ok);
    }

    pub(crate) async fn command(&mut self, command: &Value) -> CommandResult {
        let id = self.send(command);
        self.answer(&id).await
    }

    /// Sends a command. Returns its id.
    pub(crate) fn send(&mut self, command: &Value) -> CommandId {
        self.commands += 1;
        let id: CommandId = format!("c-{}", self.commands).parse().unwrap();
        self.send_as(&id, command);
        id
    }

    /// Sends a command under this id, and forgets what was answered to it before.
    pub(crate) fn send_as(&self, id: &CommandId, command: &Value) {
        self.relay.log.lock().unwrap().results.retain(|result| result.id != *id);
        let command: Command = serde_json::from_value(command.clone()).unwrap();
        self.relay.commands.send(ToWrapper::Command { id: id.clone(), command, config: None }).unwrap();
    }

    /// The answer to a command.
    pub(crate) async fn answer(&self, id: &CommandId) -> CommandResult {
        let mut grown = self.relay.grown.subscribe();
        let answered = async {
            loop {
                let result =
                    self.relay.log.lock().unwrap().results.iter().find(|result| result.id == *id).cloned();
                if let Some(result) = result {
                    return result;
                }
                grown.changed().await.expect("the relay lives");
            }
        };
        timeout(SOON, answered).await.expect("an answer")
    }

    async fn kill_and_start_again(&mut self) {
        self.kill().await;
        self.wrapper = Wrapper::start(&self.relay, &self.folder);
    }

    /// Ends it as the death of its process does, which takes the outbox from it at once: here, what was begun with it ends first.
    pub(crate) async fn kill(&mut self) {
        self.wrapper.run.abort();
        assert!((&mut self.wrapper.run).await.unwrap_err().is_cancelled());
        let lock = File::open(self.folder.path().join("state/outbox/lock")).unwrap();
        tokio::task::spawn_blocking(move || lock.lock()).await.unwrap().unwrap();
    }
}

pub(crate) struct Wrapper {
    pub(crate) trigger: ShutdownTrigger,
    pub(crate) run: JoinHandle<Result<Exit, RunError>>,
}

impl Wrapper {
    fn start(relay: &Relay, folder: &TempDir) -> Self {
        Self::start_with(Self::options(relay, folder))
    }

    pub(crate) fn options(relay: &Relay, folder: &TempDir) -> Options {
        let state_dir = folder.path().join("state");
        let mut options = Options::new(&relay.url, "a1".parse().unwrap(), "main".parse().unwrap(), state_dir);
        options.runtime = RuntimeKind::Scripted;
        options.scenario = Some(folder.path().join("scenario.json"));
        options.token_file = Some(folder.path().join("token"));
        options.dir = folder.path().join("work");
        options
    }

    pub(crate) fn start_with(options: Options) -> Self {
        let (trigger, shutdown) = Shutdown::new();
        Self { trigger, run: tokio::spawn(run(options, shutdown)) }
    }

    /// A wrapper whose agent the test plays.
    pub(crate) async fn start_played(options: Options, puppet: &Puppet) -> Self {
        let (trigger, shutdown) = Shutdown::new();
        let mut surroundings = Surroundings::of_this_machine(&options).await.unwrap();
        surroundings.runtime = Arc::new(puppet.clone());
        Self { trigger, run: tokio::spawn(run_in(surroundings, options, shutdown)) }
    }

    pub(crate) async fn end(&mut self) -> Result<Exit, RunError> {
        self.trigger.ask(ShutdownLevel::Drain);
        timeout(SOON, &mut self.run).await.expect("it ends").expect("it does not panic")
    }
}

/// A relay that keeps one producer's events by their numbers and acks each batch.
#[derive(Clone)]
pub(crate) struct Relay {
    url: String,
    log: Arc<Mutex<Log>>,
    grown: watch::Sender<u64>,
    cuts: watch::Sender<u64>,
    is_away: watch::Sender<bool>,
    commands: tokio::sync::broadcast::Sender<ToWrapper>,
}

#[derive(Default)]
struct Log {
    events: Vec<NewEvent>,
    results: Vec<CommandResult>,
}

impl Relay {
    async fn listen() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let relay = Self {
            url: format!("http://{}", listener.local_addr().unwrap()),
            log: Arc::default(),
            grown: watch::Sender::new(0),
            cuts: watch::Sender::new(0),
            is_away: watch::Sender::new(false),
            commands: tokio::sync::broadcast::Sender::new(16),
        };
        let router = Router::new()
            .route("/v1/ingest", get(ingest))
            .route("/v1/agents/{agent}/stream", get(stream))
            .with_state(relay.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        relay
    }

    pub(crate) fn view(&self) -> SessionView {
        let mut view = SessionView::default();
        for (seq, event) in (1_u64..).zip(self.log.lock().unwrap().events.clone()) {
            view.apply(&event.at(Seq::new(seq)));
        }
        view
    }

    pub(crate) fn events(&self) -> Vec<NewEvent> {
        self.log.lock().unwrap().events.clone()
    }

    pub(crate) fn kinds(&self) -> Vec<String> {
        self.events().iter().map(|event| event.kind.to_string()).collect()
    }

    fn cut(&self) {
        self.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// Takes no connection, or does again.
    pub(crate) fn is_away(&self, is_away: bool) {
        self.is_away.send_replace(is_away);
        self.cut();
    }

    fn supersede(&self) {
        self.commands.send(ToWrapper::Superseded).unwrap();
    }

    /// Takes a frame. Returns the answer.
    fn take(&self, frame: FromWrapper) -> Option<ToWrapper> {
        let mut log = self.log.lock().unwrap();
        let answer = match frame {
            FromWrapper::Hello { .. } => {
                let acked = log.events.len() as u64;
                Some(ToWrapper::Welcome { protocol: 1, acked, limits: IngestLimits::default(), config: None })
            }
            FromWrapper::Append { first, events } => {
                for (number, event) in (first..).zip(events) {
                    let next = log.events.len() as u64 + 1;
                    assert!(number <= next, "number {next} was left out");
                    if number == next {
                        log.events.push(event);
                    }
                }
                let through = log.events.len() as u64;
                Some(ToWrapper::Ack { through, seq: Seq::new(through) })
            }
            FromWrapper::Result { id, ok, error, data } => {
                log.results.push(CommandResult { id, ok, error, data });
                None
            }
            FromWrapper::Presence { .. } | FromWrapper::Heartbeat | FromWrapper::Bye { .. } | _ => None,
        };
        drop(log);
        self.grown.send_modify(|grown| *grown += 1);
        answer
    }
}

async fn ingest(State(relay): State<Relay>, upgrade: WebSocketUpgrade) -> Response {
    if *relay.is_away.borrow() {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    upgrade.on_upgrade(move |socket| serve(relay, socket))
}

async fn serve(relay: Relay, mut socket: WebSocket) {
    let mut cuts = relay.cuts.subscribe();
    let mut commands = relay.commands.subscribe();
    loop {
        tokio::select! {
            _ = cuts.changed() => return,
            Ok(frame) = commands.recv() => {
                let _ = socket.send(words(&frame)).await;
            }
            heard = socket.recv() => match heard {
                Some(Ok(Message::Text(text))) => {
                    let frame = FromWrapper::decode(text.as_bytes()).expect("a frame of the document");
                    if let Some(answer) = relay.take(frame) {
                        let _ = socket.send(words(&answer)).await;
                    }
                }
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return,
            },
        }
    }
}

fn words(frame: &impl Frame) -> Message {
    Message::Text(String::from_utf8(frame.encode().to_vec()).expect("JSON is UTF-8").into())
}

/// The log as a viewer is given it.
async fn stream(State(relay): State<Relay>, upgrade: WebSocketUpgrade) -> Response {
    if *relay.is_away.borrow() {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    let log: LogId = "agent/a1".parse().unwrap();
    let events = relay.log.lock().unwrap().events.clone();
    let events: Vec<_> = (1_u64..).zip(events).map(|(seq, event)| event.at(Seq::new(seq))).collect();
    let live = ToViewer::Live { log: log.clone(), head: Seq::new(events.len() as u64) };
    upgrade.on_upgrade(async move |mut socket| {
        for frame in [ToViewer::Events { log, events }, live] {
            let _ = socket.send(words(&frame)).await;
        }
        while let Some(Ok(_)) = socket.recv().await {}
    })
}

pub(crate) fn is_idle(view: &SessionView) -> bool {
    state(view) == "idle"
}

fn state(view: &SessionView) -> String {
    match &view.agent().lifecycle {
        Lifecycle::Running(state) => serde_json::to_value(state).unwrap().as_str().unwrap().to_owned(),
        Lifecycle::Exited(_) => "exited".to_owned(),
        Lifecycle::Failed(_) => "failed".to_owned(),
    }
}

/// The texts of assistant messages.
fn answers(view: &SessionView) -> Vec<String> {
    let mut texts = Vec::new();
    for session in view.sessions() {
        for message in session.messages() {
            if message.info().is_some_and(|info| info.role == protocol::model::Role::Assistant) {
                texts.extend(message.parts().filter_map(|part| part.body().text().map(ToOwned::to_owned)));
            }
        }
    }
    texts
}
