//! The runtime of ACP agents, with an agent of a few lines that does what its prompt says (`acp/agent.py`).

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
    view::{PartView, SessionView},
};
use rustix::{
    fs::{CWD, Mode, mkfifoat},
    process::{Pid, PidfdFlags, Signal as UnixSignal, kill_process, pidfd_open},
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::timeout;

use crate::guard::is_gone;

#[tokio::test]
async fn a_prompt_is_answered_in_a_turn_of_its_own() {
    let place = Place::new();
    let mut agent = place.start("").await;
    assert_eq!((agent.running.info.version.as_str(), agent.running.resumed), ("Fake 1.2", false));
    agent.prompt("say hello there").await;
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
async fn a_terminal_runs_in_the_work_folder_and_its_output_is_the_tools() {
    let place = Place::new();
    let mut agent = place.start("").await;
    agent.prompt("terminal pwd; echo wrong >&2; exit 4").await;
    agent.turn_over().await;
    let said: Value = serde_json::from_str(agent.said().last().unwrap()).unwrap();
    assert_eq!(said["status"]["exitCode"], 4);
    assert_eq!(said["output"], format!("{}\nwrong\n", place.folder().display()));
    let tool = agent.parts().into_iter().find(|part| part["type"] == "tool").unwrap();
    assert_eq!((&tool["state"]["status"], &tool["state"]["output"]), (&json!("completed"), &said["output"]));
}

#[tokio::test]
async fn who_waits_for_the_end_of_a_terminal_is_told_when_it_is_released() {
    let place = Place::new();
    let mut agent = place.start("").await;
    agent.prompt("release").await;
    assert_eq!(agent.turn_over().await, "completed");
    let said: Value = serde_json::from_str(agent.said().last().unwrap()).unwrap();
    assert_eq!(said["status"]["exitCode"], 128 + 15);
    assert!(said["again"]["message"].as_str().unwrap().contains("there is no terminal"), "{said}");
}

#[tokio::test]
async fn a_command_that_writes_much_is_shown_now_and_then_and_in_full_at_its_end() {
    let place = Place::new();
    let mut agent = place.start("").await;
    agent.prompt("terminal seq 100000").await;
    agent.turn_over().await;
    let tool = agent.parts().into_iter().find(|part| part["type"] == "tool").unwrap();
    let output = tool["state"]["output"].as_str().unwrap();
    assert!(output.starts_with("1\n2\n") && output.ends_with("\n100000\n"), "{} bytes", output.len());
    // It was read in pieces of at most 8 KiB.
    let pieces = output.len() / (8 * 1024);
    assert!(agent.tool_updates < pieces * 3 / 4, "{} updates of {pieces} pieces", agent.tool_updates);
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
async fn a_terminal_that_is_killed_keeps_what_it_wrote_and_says_how_it_ended() {
    let place = Place::new();
    let mut agent = place.start("").await;
    agent.prompt("kill").await;
    agent.turn_over().await;
    let said: Value = serde_json::from_str(agent.said().last().unwrap()).unwrap();
    let status = json!({ "exitCode": 128 + 15, "signal": "15" });
    assert_eq!(said, json!([status, { "output": "said\n", "truncated": false, "exitStatus": status }]));
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
}

#[tokio::test]
async fn an_agent_that_dies_says_its_last_words() {
    let place = Place::new();
    let mut agent = place.start("").await;
    agent.prompt("die").await;
    let Ended::Died(Failed { exit_code, stderr, .. }) = agent.end().await else { panic!("it died") };
    assert_eq!((exit_code, stderr.last().map(String::as_str)), (Some(9), Some("out of memory")));
    let answered = agent.command(Command::Abort).await;
    assert!(matches!(answered, Err(CommandError::Unreachable { .. })), "{answered:?}");
}

#[tokio::test]
async fn p16_nothing_of_the_agent_outlives_its_stop() {
    let place = Place::new();
    let mut agent = place.start("").await;
    agent.prompt("daemon").await;
    agent.turn_over().await;
    let daemon = process(agent.said().last().unwrap().parse().unwrap());
    let own = process(agent.pid(&place));
    agent.running.control.stop().await;
    is_gone(daemon).await;
    is_gone(own).await;
}

#[tokio::test]
async fn p16_terminals_end_with_the_agent() {
    let place = Place::new();
    let mut agent = place.start("").await;
    agent.prompt("terminal echo $$; exec sleep 1000").await;
    let pid = loop {
        agent.until("message.part.updated").await;
        let tool = agent.parts().into_iter().find(|part| part["type"] == "tool");
        let output = tool.and_then(|tool| tool["state"]["metadata"]["output"].as_str().map(str::to_owned));
        if let Some(pid) = output.and_then(|output| output.trim().parse().ok()) {
            break pid;
        }
    };
    let command = process(pid);
    agent.running.control.stop().await;
    is_gone(command).await;
}

#[tokio::test]
async fn an_agent_that_was_killed_is_a_death() {
    let place = Place::new();
    let mut agent = place.start("").await;
    agent.prompt("deaf").await;
    agent.until("message.part.delta").await;
    kill_process(Pid::from_raw(agent.pid(&place)).unwrap(), UnixSignal::KILL).unwrap();
    let Ended::Died(failed) = agent.end().await else { panic!("it died") };
    assert_eq!(failed.exit_code, Some(128 + 9));
}

#[tokio::test]
async fn a_start_that_fails_says_why_and_what_to_do() {
    let place = Place::new();
    for (how, exit_code, word) in [
        ("exits", Some(3), "it ended before it was ready"),
        ("future", Some(128 + 15), "it speaks version 7"),
        ("login", Some(128 + 15), "run `fake login`"),
    ] {
        let failed = place.try_start(how, None).await.unwrap_err();
        assert!(failed.message.contains(word), "{how}: {}", failed.message);
        assert_eq!(failed.exit_code, exit_code, "{how}: {failed:?}");
    }
    assert_eq!(place.try_start("exits", None).await.unwrap_err().stderr, ["no api key"]);
    let missing = Acp::new(vec!["/no/such/agent".into()], guard());
    let failed = missing.start(place.asked(None)).await.unwrap_err();
    assert!(failed.stderr.iter().any(|line| line.contains("/no/such/agent")), "{failed:?}");
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

fn process(pid: i32) -> std::os::fd::OwnedFd {
    pidfd_open(Pid::from_raw(pid).unwrap(), PidfdFlags::NONBLOCK).unwrap()
}

fn guard() -> Vec<OsString> {
    vec![env!("CARGO_BIN_EXE_gastown-wrapper").into(), "guard".into()]
}
