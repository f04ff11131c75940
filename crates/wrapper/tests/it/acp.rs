//! The runtime of ACP agents, with an agent of a few lines that does what its prompt says (`acp/agent.py`).

mod ends;
mod terminals;

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    time::Duration,
};

use gastown_wrapper::{
    Clock,
    runtime::{AgentRuntime as _, CommandError, Ended, RunningAgent, Signal, Start, acp::Acp},
};
use protocol::{
    Command, ModelRef, NewEvent, PermissionReply, Prompt, Seq,
    agent::Failed,
    config::TownConfig,
    view::{PartView, SessionView},
};
use rustix::fs::{CWD, Mode, mkfifoat};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::timeout;

#[tokio::test]
async fn a_prompt_is_answered_in_a_turn_of_its_own() {
    let place = Place::new();
    let mut agent = place.start("").await;
    assert_eq!((agent.running.info.version.as_str(), agent.running.resumed), ("Fake 1.2", false));
    agent.prompt("say hello there").await;
    let user = agent.until("message.updated").await;
    assert_eq!(user["info"]["model"], json!({ "providerID": "fake", "modelID": "small" }));
    agent.turn_over().await;
    assert_eq!(agent.said(), ["say hello there", "hello there"]);
    let finish = agent.parts().pop().unwrap();
    assert_eq!((&finish["tokens"]["input"], &finish["tokens"]["output"]), (&json!(5), &json!(7)));
    agent.running.control.stop().await;
    assert_eq!(agent.end().await, Ended::Exited { reason: "stopped".to_owned(), code: Some(128 + 15) });
}

#[tokio::test]
async fn a_permission_waits_for_a_person() {
    let place = Place::new();
    let mut agent = place.start("").await;
    agent.prompt("permission").await;
    let asked = agent.until("permission.asked").await;
    let id = asked["id"].as_str().unwrap().to_owned();
    assert_eq!((&asked["permission"], &asked["patterns"]), (&json!("bash"), &json!(["rm a"])));
    agent
        .command(Command::Permission { id: id.clone(), reply: PermissionReply::Once, message: None })
        .await
        .unwrap();
    agent.turn_over().await;
    assert!(agent.said().last().unwrap().contains(r#""optionId": "yes""#), "{:?}", agent.said());
    let again = agent.command(Command::Permission { id, reply: PermissionReply::Once, message: None }).await;
    assert!(matches!(again, Err(CommandError::NotFound { .. })), "{again:?}");
}

#[tokio::test]
async fn a_permission_outside_of_a_turn_waits_for_a_person_too() {
    let place = Place::new();
    let mut agent = place.start("").await;
    agent.prompt("background").await;
    agent.turn_over().await;
    let asked = agent.until("permission.asked").await;
    let id = asked["id"].as_str().unwrap().to_owned();
    agent.command(Command::Permission { id, reply: PermissionReply::Once, message: None }).await.unwrap();
    agent.until("permission.replied").await;
    while !agent.said().last().unwrap().contains(r#""optionId": "yes""#) {
        agent.next().await;
    }
    agent.prompt("background").await;
    agent.turn_over().await;
    agent.until("permission.asked").await;
    agent.command(Command::Abort).await.unwrap();
    assert_eq!(agent.until("permission.replied").await["reply"], "reject");
    while !agent.said().last().unwrap().contains(r#""outcome": "cancelled""#) {
        agent.next().await;
    }
}

#[tokio::test]
async fn files_are_those_of_the_work_folder() {
    let place = Place::new();
    let mut agent = place.start("").await;
    agent.prompt("write new/a.txt text").await;
    agent.turn_over().await;
    assert_eq!(std::fs::read_to_string(place.folder().join("new/a.txt")).unwrap(), "text");
    agent.prompt("read new/a.txt").await;
    agent.turn_over().await;
    assert_eq!(agent.said().last().unwrap(), r#"{"content": "text"}"#);
    agent.prompt("read /etc/hostname").await;
    agent.turn_over().await;
    assert!(agent.said().last().unwrap().contains("is not in the work folder"), "{:?}", agent.said());
}

#[tokio::test]
async fn a_fifo_that_the_agent_wants_to_read_holds_nothing_up() {
    let place = Place::new();
    let mut agent = place.start("").await;
    let fifo = place.folder().join("fifo");
    mkfifoat(CWD, &fifo, Mode::RUSR | Mode::WUSR).unwrap();
    agent.prompt("read fifo").await;
    assert_eq!(agent.turn_over().await, "completed");
    assert!(agent.said().last().unwrap().contains("is no regular file"), "{:?}", agent.said());
    agent.running.control.stop().await;
    assert!(matches!(agent.end().await, Ended::Exited { .. }));
}

#[tokio::test]
async fn an_abort_reaches_the_agent() {
    let place = Place::new();
    let mut agent = place.start("").await;
    agent.prompt("wait").await;
    agent.until("message.part.delta").await;
    agent.command(Command::Abort).await.unwrap();
    assert_eq!(agent.turn_over().await, "interrupted");
    agent.prompt("say still here").await;
    assert_eq!(agent.turn_over().await, "completed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_abort_reaches_an_agent_that_writes_without_an_end() {
    let place = Place::new();
    let mut agent = place.start("").await;
    agent.prompt("flood").await;
    agent.until("message.part.delta").await;
    let control = agent.running.control.clone();
    let abort = tokio::spawn(async move { control.command(Command::Abort).await });
    let over = timeout(PATIENCE, agent.turn_over()).await.expect("the agent is told to stop");
    assert_eq!(over, "interrupted");
    abort.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_model_is_chosen_before_the_prompt_is_given() {
    let place = Place::new();
    let mut agent = place.start("").await;
    agent.command(with_model("large")).await.unwrap();
    agent.turn_over().await;
    assert_eq!(agent.said().last().unwrap(), "fake/large");
    agent.prompt("model").await;
    agent.turn_over().await;
    assert_eq!(agent.said().last().unwrap(), "fake/large");
    assert_eq!(agent.answerer()["modelID"], "large", "the agent stays with it, and is shown so");
    let unknown = agent.command(with_model("huge")).await.unwrap_err();
    assert!(unknown.to_string().contains("the model fake/huge"), "{unknown}");
}

#[tokio::test]
async fn a_model_that_the_agent_takes_by_itself_is_shown_from_then_on() {
    let place = Place::new();
    let mut agent = place.start("").await;
    agent.prompt("switch fake/large").await;
    agent.turn_over().await;
    agent.prompt("say hi").await;
    agent.turn_over().await;
    assert_eq!(agent.answerer()["modelID"], "large");
}

#[tokio::test]
async fn a_prompt_whose_model_the_agent_refuses_is_not_given() {
    let place = Place::new();
    let mut agent = place.start("").await;
    agent.command(with_model("gone")).await.unwrap();
    assert!(agent.until("session.error").await["error"]["data"]["message"] == "it is gone");
    assert_eq!(agent.turn_over().await, "error");
    assert_eq!(agent.said(), ["model"]);
    agent.prompt("say hi").await;
    agent.turn_over().await;
    assert_eq!(agent.answerer()["modelID"], "small", "it is the one before that answers");
}

#[tokio::test]
async fn another_sessions_words_and_answers_to_nothing_are_passed_over() {
    let place = Place::new();
    let mut agent = place.start("").await;
    agent.prompt("strange").await;
    assert_eq!(agent.turn_over().await, "completed");
    assert_eq!(agent.said(), ["strange", "mine"]);
}

#[tokio::test]
async fn what_is_said_after_a_turn_is_whole_once_nothing_more_comes() {
    let place = Place::new();
    let mut agent = place.start("").await;
    agent.prompt("later").await;
    agent.turn_over().await;
    while agent.parts().pop().unwrap()["type"] != "text" {
        agent.next().await;
    }
    while agent.parts().pop().unwrap()["type"] != "step-finish" {
        agent.next().await;
    }
    assert_eq!(agent.said().last().unwrap(), "by the way");
}

#[tokio::test]
async fn a_mode_is_chosen_before_the_prompt_is_given() {
    let place = Place::new();
    let mut agent = place.start("").await;
    let with = |mode: &str| {
        let (text, agent) = (Some("mode".to_owned()), Some(mode.to_owned()));
        Command::Prompt(Prompt { text, agent, ..Prompt::default() })
    };
    agent.command(with("plan")).await.unwrap();
    agent.turn_over().await;
    assert_eq!(agent.said().last().unwrap(), "plan");
    agent.prompt("mode").await;
    agent.turn_over().await;
    assert_eq!(agent.said().last().unwrap(), "plan");
    assert_eq!(agent.answerer()["agent"], "plan", "the agent stays with it, and is shown so");
    let unknown = agent.command(with("fly")).await.unwrap_err();
    assert!(unknown.to_string().contains("the mode fly"), "{unknown}");
}

#[tokio::test]
async fn what_is_attached_to_a_prompt_goes_as_what_the_agent_can_take() {
    let place = Place::new();
    let mut agent = place.start("").await;
    let file = |mime: &str, name: &str, url: &str| json!({ "type": "file", "mime": mime, "filename": name, "url": url });
    let parts = vec![
        file("image/png", "a.png", "data:image/png;base64,iVBO"),
        file("text/plain", "b.txt", "file:///w/b.txt"),
    ];
    let prompt = Prompt { text: Some("content".to_owned()), parts: Some(parts), ..Prompt::default() };
    agent.command(Command::Prompt(prompt)).await.unwrap();
    agent.turn_over().await;
    let given: Value = serde_json::from_str(agent.said().last().unwrap()).unwrap();
    let expected = json!([
        { "type": "text", "text": "content" },
        { "type": "image", "mimeType": "image/png", "data": "iVBO" },
        { "type": "resource_link", "uri": "file:///w/b.txt", "name": "b.txt", "mimeType": "text/plain" },
    ]);
    assert_eq!(given, expected);
}

#[tokio::test]
async fn mcp_servers_are_given_with_the_session_new_or_gone_on_with() {
    let place = Place::new();
    let servers = json!([{ "name": "clock", "command": "/bin/clock", "args": [], "env": [] }]);
    let file = place.0.path().join("servers.json");
    std::fs::write(&file, servers.to_string()).unwrap();
    for resume in [None, Some("ses_fake")] {
        let running = place.acp("").with_mcp_servers(&file).start(place.asked(resume)).await.unwrap();
        let mut agent = Agent::new(running);
        agent.prompt("servers").await;
        agent.turn_over().await;
        let given: Value = serde_json::from_str(agent.said().last().unwrap()).unwrap();
        assert_eq!(given, servers, "{resume:?}");
        agent.running.control.stop().await;
    }
}

#[tokio::test]
async fn an_abort_while_a_model_is_chosen_ends_the_turn_before_the_prompt_is_given() {
    let place = Place::new();
    let mut agent = place.start("").await;
    agent.command(with_model("slow")).await.unwrap();
    agent.command(Command::Abort).await.unwrap();
    assert_eq!(agent.turn_over().await, "interrupted");
    agent.prompt("say still here").await;
    assert_eq!(agent.turn_over().await, "completed");
    assert_eq!(agent.said(), ["model", "say still here", "still here"]);
}

#[tokio::test]
async fn a_slash_command_is_one_that_the_agent_named() {
    let place = Place::new();
    let mut agent = place.start("").await;
    let slash = |name: &str| Command::Slash { name: name.to_owned(), arguments: "main".to_owned() };
    agent.command(slash("review")).await.unwrap();
    agent.turn_over().await;
    assert_eq!(agent.said().last().unwrap(), "command /review main");
    assert!(matches!(agent.command(slash("fly")).await, Err(CommandError::NotFound { .. })));
    agent.prompt("learn fly").await;
    agent.turn_over().await;
    assert!(agent.command(slash("fly")).await.is_ok(), "it has learnt it");
}

#[tokio::test]
async fn what_is_no_message_and_what_is_not_offered_do_no_harm() {
    let place = Place::new();
    let mut agent = place.start("").await;
    agent.prompt("noise").await;
    agent.turn_over().await;
    assert_eq!(agent.said().last().unwrap(), "after the noise");
    agent.prompt("unknown").await;
    agent.turn_over().await;
    assert!(agent.said().last().unwrap().contains("this client has no terminal/paint"), "{:?}", agent.said());
}

#[tokio::test]
async fn a_session_goes_on_and_what_the_log_has_is_not_told_again() {
    let place = Place::new();
    let mut agent = place.resume("ses_fake").await;
    assert!(agent.running.resumed);
    agent.prompt("say again").await;
    agent.turn_over().await;
    assert_eq!(agent.said(), ["say again", "again"]);
    let other = place.resume("ses_lost").await;
    assert!(!other.running.resumed, "a session that is not there is begun anew");
    let resumes = place.try_start("resumes", Some("ses_fake")).await.unwrap();
    assert!(resumes.resumed, "an agent that can go on without telling its history is asked to");
}

#[tokio::test]
async fn what_the_agent_wants_before_its_session_is_there_is_refused_and_holds_nothing_up() {
    let place = Place::new();
    let mut agent = place.start("early").await;
    agent.prompt("say ready").await;
    agent.turn_over().await;
    assert_eq!(agent.said(), ["say ready", "ready"]);
}

#[tokio::test]
async fn the_agent_and_its_terminals_have_the_variables_that_the_start_gives() {
    let place = Place::new();
    let mut start = place.asked(None);
    start.env = TownConfig::parse(r#"{"env":{"WORD":"given"}}"#).unwrap().env;
    let mut agent = Agent::new(place.acp("").start(start).await.unwrap());
    agent.prompt("env WORD").await;
    agent.turn_over().await;
    assert_eq!(agent.said().last().unwrap(), "given");
    agent.prompt("terminal echo $WORD").await;
    agent.turn_over().await;
    assert!(agent.said().last().unwrap().contains(r#""output": "given\n""#), "{:?}", agent.said());
}

/// A work folder and a state folder.
struct Place(TempDir);

/// A running agent and what its events came to.
struct Agent {
    running: RunningAgent,
    view: SessionView,
    seq: u64,
    tool_updates: usize,
    ended: Option<Ended>,
}

impl Place {
    fn new() -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        std::fs::create_dir(place.0.path().join("work")).unwrap();
        place
    }

    fn folder(&self) -> PathBuf {
        self.0.path().join("work").canonicalize().unwrap()
    }

    fn asked(&self, resume: Option<&str>) -> Start {
        Start {
            agent: "a1".parse().unwrap(),
            directory: self.folder(),
            state_dir: self.0.path().to_owned(),
            resume: resume.map(str::to_owned),
            env: std::collections::BTreeMap::new(),
            clock: Clock::start(),
        }
    }

    async fn try_start(&self, how: &str, resume: Option<&str>) -> Result<RunningAgent, Failed> {
        self.acp(how).start(self.asked(resume)).await
    }

    fn acp(&self, how: &str) -> Acp {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/acp/agent.py");
        let command = vec!["python3".into(), script.into_os_string(), how.into()];
        Acp::new(command, guard())
    }

    async fn start(&self, how: &str) -> Agent {
        Agent::new(self.try_start(how, None).await.unwrap())
    }

    async fn resume(&self, session: &str) -> Agent {
        Agent::new(self.try_start("", Some(session)).await.unwrap())
    }
}

impl Agent {
    fn new(running: RunningAgent) -> Self {
        Self { running, view: SessionView::default(), seq: 0, tool_updates: 0, ended: None }
    }

    async fn command(&self, command: Command) -> Result<Option<Value>, CommandError> {
        timeout(PATIENCE, self.running.control.command(command)).await.expect("a command is answered")
    }

    async fn prompt(&self, text: &str) {
        let prompt = Prompt { text: Some(text.to_owned()), ..Prompt::default() };
        self.command(Command::Prompt(prompt)).await.unwrap();
    }

    /// Reads on to the next event of this type; its data.
    async fn until(&mut self, kind: &str) -> Value {
        loop {
            let event = self.next().await.unwrap_or_else(|| panic!("{kind} comes before {:?}", self.ended));
            if &*event.kind == kind {
                return event.data.parse().unwrap();
            }
        }
    }

    /// Reads on to the end of the turn; its reason.
    async fn turn_over(&mut self) -> String {
        self.until("session.turn.close").await["reason"].as_str().unwrap().to_owned()
    }

    async fn end(&mut self) -> Ended {
        while self.next().await.is_some() {}
        self.ended.clone().expect("the last signal says how it ended")
    }

    async fn next(&mut self) -> Option<NewEvent> {
        loop {
            match timeout(PATIENCE, self.running.signals.recv()).await.expect("the agent says something")? {
                Signal::Event(event) => {
                    self.seq += 1;
                    self.tool_updates += usize::from(event.data.json().contains(r#""type":"tool""#));
                    self.view.apply(&event.clone().at(Seq::new(self.seq)));
                    return Some(event);
                }
                Signal::Ended(ended) => self.ended = Some(ended),
                other @ (Signal::Alive | Signal::CaughtUp(_) | _) => {
                    panic!("{other:?} is not said by such an agent")
                }
            }
        }
    }

    fn parts(&self) -> Vec<Value> {
        let session = self.view.session("ses_fake").expect("the session is there");
        session.messages().iter().flat_map(|message| message.parts()).map(PartView::to_json).collect()
    }

    /// The newest message, which says who answers.
    fn answerer(&self) -> Value {
        let session = self.view.session("ses_fake").expect("the session is there");
        let messages = session.messages();
        messages.last().expect("a message").raw_info().expect("it is described").parse().expect("it is JSON")
    }

    fn said(&self) -> Vec<String> {
        let texts = self.parts().into_iter().filter(|part| part["type"] == "text");
        texts.map(|part| part["text"].as_str().unwrap().to_owned()).collect()
    }

    fn pid(&self, place: &Place) -> i32 {
        let record = std::fs::read_to_string(place.0.path().join("agent-server.json")).unwrap();
        let record: Value = serde_json::from_str(&record).unwrap();
        i32::try_from(record["pid"].as_i64().unwrap()).unwrap()
    }
}

/// Asks which model answers, of that one.
fn with_model(model: &str) -> Command {
    let model = ModelRef { provider_id: "fake".to_owned(), model_id: model.to_owned() };
    Command::Prompt(Prompt { text: Some("model".to_owned()), model: Some(model), ..Prompt::default() })
}

const PATIENCE: Duration = Duration::from_secs(60);

fn guard() -> Vec<OsString> {
    vec![env!("CARGO_BIN_EXE_gastown-wrapper").into(), "guard".into()]
}
