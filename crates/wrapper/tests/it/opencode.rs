//! The runtime of agent servers, with a server whose every answer the test decides: its API is in the test, its process a script.

mod after_turn;
pub(crate) mod fake;

use std::{os::unix::fs::PermissionsExt as _, path::Path, time::Duration};

use gastown_wrapper::{
    Clock,
    runtime::{
        AgentRuntime as _, CommandError, Ended, RunningAgent, ServerState, Signal, Start,
        opencode::{AgentServer, Flavour, Patience},
    },
};
use protocol::{Command, NewEvent};
use rustix::process::{Pid, PidfdFlags, kill_process, pidfd_open};
use serde_json::{Value, json};
use tokio::time::timeout;

use self::fake::{Fake, ROOT};
use crate::guard::is_gone;

#[tokio::test]
async fn a_server_is_ready_once_it_listens_whatever_it_says_before() {
    let place = Place::new(&["Warning: the server is unsecured.", "listening to music"]).await;
    let mut agent = place.start(Flavour::Kilo, None).await.unwrap();
    assert_eq!((agent.info.name.as_str(), agent.info.version.as_str()), ("kilo", "9.9.9"));
    assert_eq!((agent.session.as_str(), agent.resumed), (ROOT, false));
    place.fake.say(r#"{"id":"e","type":"session.status","properties":{"sessionID":"ses_root","status":{"type":"busy"}}}"#);
    let event = next_event(&mut agent).await;
    assert_eq!((&*event.kind, event.session.as_deref()), ("session.status", Some(ROOT)));
    agent.control.stop().await;
    assert_eq!(end(&mut agent).await, Ended::Exited { reason: "stopped".to_owned(), code: Some(128 + 15) });
}

#[tokio::test]
async fn every_call_logs_in_and_names_the_work_folder() {
    let place = Place::new(&[]).await;
    let agent = place.start(Flavour::Opencode, None).await.unwrap();
    let record = place.record();
    let login = format!("{}:{}", record["username"].as_str().unwrap(), record["password"].as_str().unwrap());
    let calls = place.fake.calls();
    assert!(calls.len() >= 3, "{calls:?}");
    for call in calls {
        assert_eq!(call.login, login, "{call:?}");
        assert_eq!(call.directory, place.work().canonicalize().unwrap().display().to_string(), "{call:?}");
    }
    agent.control.stop().await;
}

#[tokio::test]
async fn the_record_says_where_the_server_is_for_as_long_as_it_runs() {
    let place = Place::new(&[]).await;
    let agent = place.start(Flavour::Opencode, None).await.unwrap();
    let file = place.state().join("agent-server.json");
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let record = place.record();
    assert_eq!((record["url"].as_str(), record["session"].as_str()), (Some(&*place.fake.url), Some(ROOT)));
    let command = std::fs::read_to_string(format!("/proc/{}/cmdline", record["pid"])).unwrap();
    // The server is a script until it becomes `sleep`.
    let is_server = command.starts_with("sleep") || command.starts_with("/bin/sh");
    assert!(
        is_server && record["pid"] != record["guard_pid"],
        "the server's own pid, not the guard's: {command:?}"
    );
    agent.control.stop().await;
    assert!(!file.exists());
}

#[tokio::test]
async fn the_agent_sees_the_environment_but_nothing_of_gastown() {
    let place = Place::new(&[]).await;
    let agent = place.start(Flavour::Kilo, None).await.unwrap();
    let environment = std::fs::read_to_string(format!("/proc/{}/environ", place.record()["pid"])).unwrap();
    let names: Vec<&str> = environment.split('\0').filter_map(|pair| Some(pair.split_once('=')?.0)).collect();
    for name in ["PATH", "KILO_SERVER_PASSWORD", "KILO_DISABLE_AUTOUPDATE", "KILO_ENABLE_QUESTION_TOOL"] {
        assert!(names.contains(&name), "{name} in {names:?}");
    }
    let own: Vec<&&str> = names.iter().filter(|name| name.starts_with("GASTOWN_")).collect();
    assert_eq!(own, [&"GASTOWN_PROCESS_TREE"]);
    agent.control.stop().await;
}

#[tokio::test]
async fn a_server_that_dies_at_its_start_says_why() {
    let place = Place::with_script("echo 'port is taken' >&2; exit 3").await;
    let failed = place.start(Flavour::Opencode, None).await.unwrap_err();
    assert_eq!(
        (failed.exit_code, failed.stderr.as_slice()),
        (Some(3), ["port is taken".to_owned()].as_slice())
    );
    assert!(failed.message.contains("opencode ended"), "{}", failed.message);
}

#[tokio::test]
async fn a_missing_binary_says_what_to_do() {
    let place = Place::new(&[]).await;
    let server = AgentServer::new(Flavour::Kilo, guard()).with_binary("/no/such/kilo");
    let failed = server.start(place.asked(None)).await.unwrap_err();
    assert!(failed.message.contains("npm install @kilocode/cli"), "{}", failed.message);
}

#[tokio::test]
async fn a_session_goes_on_if_the_server_still_has_it() {
    let place = Place::new(&[]).await;
    let mut agent = place.start(Flavour::Opencode, Some(ROOT)).await.unwrap();
    assert_eq!((agent.session.as_str(), agent.resumed), (ROOT, true));
    assert!(matches!(next(&mut agent).await, Signal::CaughtUp(_)), "what it says of it comes first");
    agent.control.stop().await;
    let agent = place.start(Flavour::Opencode, Some("ses_lost")).await.unwrap();
    assert_eq!((agent.session.as_str(), agent.resumed), (ROOT, false));
    agent.control.stop().await;
}

#[tokio::test]
async fn a_stream_that_ends_is_taken_up_and_the_servers_state_comes_before_what_follows() {
    let place = Place::new(&[]).await;
    let mut agent = place.start(Flavour::Kilo, None).await.unwrap();
    place.fake.break_stream();
    let state = loop {
        match next(&mut agent).await {
            Signal::CaughtUp(state) => break state,
            Signal::Alive => {}
            other @ (Signal::Event(_) | Signal::Ended(_) | _) => panic!("{other:?}"),
        }
    };
    let ServerState { sessions, messages, status, permissions, questions, networks, .. } = *state;
    let ids =
        |list: &[Value]| list.iter().map(|item| item["id"].as_str().unwrap().to_owned()).collect::<Vec<_>>();
    assert_eq!(ids(&sessions), [ROOT, "ses_child"], "parents first, strangers not at all");
    assert_eq!(messages.len(), 2, "of both sessions: {messages:?}");
    assert_eq!(status[ROOT]["type"], "busy");
    assert_eq!((ids(&permissions), ids(&questions)), (vec!["per_1".to_owned()], vec!["que_1".to_owned()]));
    assert_eq!(ids(&networks), ["que_net"]);
    place.fake.say(r#"{"type":"session.idle","properties":{"sessionID":"ses_root"}}"#);
    assert_eq!(&*next_event(&mut agent).await.kind, "session.idle");
    agent.control.stop().await;
}

#[tokio::test]
async fn of_a_long_session_the_newest_messages_are_asked_for_page_by_page() {
    let place = Place::new(&[]).await;
    place.fake.has_messages(730);
    let mut agent = place.start(Flavour::Opencode, Some(ROOT)).await.unwrap();
    let Signal::CaughtUp(state) = next(&mut agent).await else { panic!("what it says of it comes first") };
    let of_root = state.messages.iter().filter(|message| message["info"]["sessionID"] == ROOT);
    let ids: Vec<&str> = of_root.map(|message| message["info"]["id"].as_str().unwrap()).collect();
    let newest: Vec<String> = (230..730).map(|number| format!("msg_{number}")).collect();
    assert_eq!(ids, newest, "in their order");
    assert_eq!(state.cut.iter().collect::<Vec<_>>(), [ROOT], "it says that there are more");
    agent.control.stop().await;
}

#[tokio::test]
async fn a_silent_stream_is_taken_up_again_and_the_server_lives_on() {
    let mut place = Place::new(&[]).await;
    place.patience.silence = Duration::from_millis(300);
    let mut agent = place.start(Flavour::Opencode, None).await.unwrap();
    while !matches!(next(&mut agent).await, Signal::CaughtUp(_)) {}
    place.fake.say(r#"{"type":"session.idle","properties":{"sessionID":"ses_root"}}"#);
    assert_eq!(&*next_event(&mut agent).await.kind, "session.idle");
    agent.control.stop().await;
}

#[tokio::test]
async fn p14_p16_a_stopped_server_whose_port_is_open_counts_as_dead_and_leaves_nothing() {
    let mut place =
        Place::with_script("setsid sleep 1000 & echo about to hang >&2; LISTEN; exec sleep 1000").await;
    place.patience.silence = Duration::from_millis(300);
    place.patience.probe = Duration::from_millis(300);
    place.patience.hung = Duration::from_secs(1);
    let mut agent = place.start(Flavour::Kilo, None).await.unwrap();
    let tree = place.tree_of(2).await;
    kill_process(place.pid("pid"), rustix::process::Signal::STOP).unwrap();
    place.fake.hang("");
    let Ended::Died(failed) = end(&mut agent).await else { panic!("a death") };
    assert!(failed.message.contains("kilo hangs: it was silent for 0.3 s"), "{}", failed.message);
    assert_eq!((failed.exit_code, failed.stderr), (Some(128 + 9), vec!["about to hang".to_owned()]));
    for process in tree {
        is_gone(process).await;
    }
}

#[tokio::test]
async fn each_wait_of_a_start_has_an_end_and_says_what_did_not_come() {
    for (hangs, said) in [
        ("/global/health", "opencode listens, but did not say that it is well within 0.5 s"),
        ("/event", "opencode gives no events: the stream did not begin within 0.5 s"),
        ("/session", "opencode gives no session: there was none within 0.5 s"),
    ] {
        let mut place = Place::with_script("echo too tired >&2; LISTEN; exec sleep 1000").await;
        let soon = Duration::from_millis(500);
        (place.patience.health, place.patience.answer, place.patience.session) = (soon, soon, soon);
        place.fake.hang(hangs);
        let failed = place.start(Flavour::Opencode, None).await.unwrap_err();
        assert!(failed.message.contains(said), "{}", failed.message);
        assert_eq!((failed.exit_code, failed.stderr), (Some(128 + 15), vec!["too tired".to_owned()]));
    }
    let mut place = Place::with_script("echo still thinking >&2; exec sleep 1000").await;
    place.patience.listen = Duration::from_millis(500);
    let failed = place.start(Flavour::Opencode, None).await.unwrap_err();
    assert!(failed.message.contains("did not say where it listens within 0.5 s"), "{}", failed.message);
    assert_eq!((failed.exit_code, failed.stderr), (Some(128 + 15), vec!["still thinking".to_owned()]));
}

#[tokio::test]
async fn each_command_is_one_call() {
    let place = Place::new(&[]).await;
    let agent = place.start(Flavour::Opencode, None).await.unwrap();
    let commands = [
        (
            json!({"type":"prompt","text":"hi"}),
            "/session/ses_root/prompt_async",
            json!({"parts":[{"type":"text","text":"hi"}]}),
        ),
        (
            json!({"type":"permission","id":"per_1","reply":"once"}),
            "/permission/per_1/reply",
            json!({"reply":"once"}),
        ),
        (
            json!({"type":"permission","id":"per_1","reply":"reject","message":"no"}),
            "/permission/per_1/reply",
            json!({"reply":"reject","message":"no"}),
        ),
        (
            json!({"type":"question","id":"que_1","answers":[["a"]]}),
            "/question/que_1/reply",
            json!({"answers":[["a"]]}),
        ),
        (json!({"type":"question_reject","id":"que_1"}), "/question/que_1/reject", json!({})),
        (
            json!({"type":"command","name":"init","arguments":"all"}),
            "/session/ses_root/command",
            json!({"command":"init","arguments":"all"}),
        ),
        (
            json!({"type":"revert","message_id":"msg_1"}),
            "/session/ses_root/revert",
            json!({"messageID":"msg_1"}),
        ),
    ];
    for (command, path, body) in commands {
        place.fake.forget_calls();
        agent.control.command(read(command)).await.unwrap();
        let posts = place.fake.posts();
        assert_eq!(posts, [(path.to_owned(), body)]);
    }
    agent.control.stop().await;
}

#[tokio::test]
async fn what_is_not_there_is_told_apart_from_a_refusal() {
    let place = Place::new(&[]).await;
    let agent = place.start(Flavour::Opencode, None).await.unwrap();
    for command in [
        json!({"type":"permission","id":"per_gone","reply":"once"}),
        json!({"type":"question_reject","id":"que_gone"}),
        json!({"type":"command","name":"nope"}),
        json!({"type":"revert","message_id":"msg_gone"}),
    ] {
        let error = agent.control.command(read(command.clone())).await.unwrap_err();
        assert!(matches!(error, CommandError::NotFound { .. }), "{command}: {error:?}");
    }
    let bad = agent.control.command(read(json!({"type":"prompt","text":"refuse me"}))).await.unwrap_err();
    assert!(matches!(&bad, CommandError::Refused { message } if message == "too rude"), "{bad:?}");
    agent.control.stop().await;
    let late = agent.control.command(read(json!({"type":"abort"}))).await;
    assert!(late.is_ok() || matches!(late, Err(CommandError::Unreachable { .. })), "{late:?}");
}

#[tokio::test]
async fn a_slash_command_that_fails_after_it_was_taken_is_told() {
    let mut place = Place::new(&[]).await;
    place.patience.at_once = Duration::from_millis(50);
    for flavour in [Flavour::Opencode, Flavour::Kilo] {
        let mut agent = place.start(flavour, None).await.unwrap();
        let slash = json!({"type":"command","name":"init","arguments":"late"});
        agent.control.command(read(slash)).await.unwrap();
        place.fake.fail_late();
        let failed = loop {
            match next(&mut agent).await {
                Signal::CommandFailed { message } => break message,
                Signal::Alive => {}
                other @ (Signal::Event(_) | Signal::CaughtUp(_) | Signal::Ended(_) | _) => {
                    panic!("{other:?}")
                }
            }
        };
        assert_eq!(failed, "the command /init failed: exit code 7");
        agent.control.stop().await;
    }
}

#[tokio::test]
async fn a_session_that_was_deleted_is_told_apart_from_what_else_is_missing() {
    let place = Place::new(&[]).await;
    let mut agent = place.start(Flavour::Opencode, None).await.unwrap();
    place.fake.delete_session();
    for command in [json!({"type":"prompt","text":"hi"}), json!({"type":"command","name":"init"})] {
        let error = agent.control.command(read(command.clone())).await.unwrap_err();
        assert!(matches!(error, CommandError::SessionGone), "{command}: {error:?}");
    }
    place.fake.break_stream();
    let state = loop {
        if let Signal::CaughtUp(state) = next(&mut agent).await {
            break state;
        }
    };
    assert!(state.sessions.is_empty(), "{state:?}");
    agent.control.stop().await;
}

#[tokio::test]
async fn an_abort_closes_what_the_turn_asked_and_nothing_of_strangers() {
    for (flavour, network) in [(Flavour::Opencode, 0), (Flavour::Kilo, 1)] {
        let place = Place::new(&[]).await;
        let agent = place.start(flavour, None).await.unwrap();
        place.fake.forget_calls();
        agent.control.command(Command::Abort).await.unwrap();
        let mut expected = vec![
            ("/session/ses_root/abort".to_owned(), json!({})),
            ("/permission/per_1/reply".to_owned(), json!({"reply":"reject"})),
            ("/question/que_1/reject".to_owned(), json!({})),
        ];
        expected.extend(vec![("/network/que_net/reject".to_owned(), json!({})); network]);
        assert_eq!(place.fake.posts(), expected);
        agent.control.stop().await;
    }
}

#[tokio::test]
async fn p16_a_server_that_is_killed_is_a_death_with_its_last_words_and_leaves_nothing() {
    let place =
        Place::with_script("setsid sleep 1000 & echo out of memory >&2; LISTEN; exec sleep 1000").await;
    let mut agent = place.start(Flavour::Opencode, None).await.unwrap();
    let tree = place.tree_of(2).await;
    kill(place.pid("pid"));
    place.fake.refuse();
    let Ended::Died(failed) = end(&mut agent).await else { panic!("a death") };
    assert_eq!((failed.exit_code, failed.stderr), (Some(128 + 9), vec!["out of memory".to_owned()]));
    for process in tree {
        is_gone(process).await;
    }
}

#[tokio::test]
async fn p16_nothing_is_left_when_the_guard_is_killed() {
    let place = Place::with_script("setsid sleep 1000 & (sleep 1000 &) ; LISTEN; exec sleep 1000").await;
    let mut agent = place.start(Flavour::Opencode, None).await.unwrap();
    let tree = place.tree_of(3).await;
    kill(place.pid("guard_pid"));
    place.fake.refuse();
    assert!(matches!(end(&mut agent).await, Ended::Died(_)));
    for process in tree {
        is_gone(process).await;
    }
}

#[tokio::test]
async fn what_a_server_says_while_it_ends_is_heard() {
    let place = Place::with_script("trap 'echo > told' TERM; LISTEN; while :; do sleep 1; done").await;
    let mut agent = place.start(Flavour::Kilo, None).await.unwrap();
    let control = agent.control.clone();
    let stopped = tokio::spawn(async move { control.stop().await });
    let told = place.work().join("told");
    let is_told = async {
        while !told.exists() {
            tokio::task::yield_now().await;
        }
    };
    timeout(Duration::from_secs(60), is_told).await.expect("it is told to end");
    place.fake.say(r#"{"type":"session.turn.close","properties":{"sessionID":"ses_root"}}"#);
    assert_eq!(&*next_event(&mut agent).await.kind, "session.turn.close");
    stopped.await.unwrap();
    assert!(matches!(end(&mut agent).await, Ended::Exited { .. }));
}

#[tokio::test]
async fn p16_dropping_the_agent_ends_it() {
    let place = Place::new(&[]).await;
    let agent = place.start(Flavour::Opencode, None).await.unwrap();
    let tree = place.tree();
    drop(agent);
    for process in tree {
        is_gone(process).await;
    }
}

#[tokio::test]
async fn p16_what_a_killed_wrapper_and_guard_left_is_ended_before_the_next_start() {
    let place = Place::new(&[]).await;
    let mark = format!("left-{}", std::process::id());
    let mut left =
        std::process::Command::new("sleep").arg("1000").env("GASTOWN_PROCESS_TREE", &mark).spawn().unwrap();
    std::fs::write(place.state().join("agent-server.json"), json!({ "mark": mark }).to_string()).unwrap();
    let agent = place.start(Flavour::Opencode, None).await.unwrap();
    assert!(left.try_wait().unwrap().is_some(), "it was ended");
    agent.control.stop().await;
}

/// A work folder, a state folder, a server's API and the script that is its process.
struct Place {
    folder: tempfile::TempDir,
    fake: Fake,
    patience: Patience,
}

impl Place {
    /// A server that says this before it says that it listens.
    async fn new(before: &[&str]) -> Self {
        let before: String = before.iter().map(|line| format!("echo '{line}'; ")).collect();
        Self::with_script(&format!("{before}LISTEN; exec sleep 1000")).await
    }

    /// A server that does this; `LISTEN` says that it listens.
    async fn with_script(script: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for name in ["work", "state"] {
            std::fs::create_dir(folder.path().join(name)).unwrap();
        }
        let fake = Fake::start(&folder.path().join("work")).await;
        let script = script.replace("LISTEN", &format!("echo 'fake server listening on {}'", fake.url));
        let binary = folder.path().join("server");
        std::fs::write(&binary, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&binary, std::fs::Permissions::from_mode(0o755)).unwrap();
        Self { folder, fake, patience: Patience::default() }
    }

    fn work(&self) -> std::path::PathBuf {
        self.folder.path().join("work")
    }

    fn state(&self) -> std::path::PathBuf {
        self.folder.path().join("state")
    }

    fn asked(&self, resume: Option<&str>) -> Start {
        Start {
            agent: "mayor".parse().unwrap(),
            directory: self.work(),
            state_dir: self.state(),
            resume: resume.map(str::to_owned),
            env: std::collections::BTreeMap::new(),
            clock: Clock::start(),
        }
    }

    async fn start(
        &self,
        flavour: Flavour,
        resume: Option<&str>,
    ) -> Result<RunningAgent, protocol::agent::Failed> {
        let server = AgentServer::new(flavour, guard())
            .with_binary(self.folder.path().join("server"))
            .with_patience(self.patience);
        timeout(Duration::from_secs(60), server.start(self.asked(resume))).await.expect("it starts or fails")
    }

    fn record(&self) -> Value {
        serde_json::from_str(&std::fs::read_to_string(self.state().join("agent-server.json")).unwrap())
            .unwrap()
    }

    fn pid(&self, name: &str) -> Pid {
        Pid::from_raw(self.record()[name].as_i64().unwrap().try_into().unwrap()).unwrap()
    }

    /// The same, once it is so many: a process that is just becoming another program shows no environment.
    async fn tree_of(&self, size: usize) -> Vec<std::os::fd::OwnedFd> {
        let whole = async {
            loop {
                let tree = self.tree();
                if tree.len() == size {
                    return tree;
                }
                tokio::task::yield_now().await;
            }
        };
        timeout(Duration::from_secs(60), whole).await.expect("the server and what it began are there")
    }

    /// Handles on the processes that bear the server's mark, the guard not among them.
    fn tree(&self) -> Vec<std::os::fd::OwnedFd> {
        let mark = format!("GASTOWN_PROCESS_TREE={}", self.record()["mark"].as_str().unwrap());
        let processes = std::fs::read_dir("/proc").unwrap().flatten();
        let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
        let marked = pids.filter(|pid| bears(*pid, &mark));
        marked.map(|pid| pidfd_open(Pid::from_raw(pid).unwrap(), PidfdFlags::NONBLOCK).unwrap()).collect()
    }
}

fn bears(pid: i32, mark: &str) -> bool {
    let environment = std::fs::read(Path::new("/proc").join(pid.to_string()).join("environ"));
    environment
        .is_ok_and(|environment| environment.split(|byte| *byte == 0).any(|pair| pair == mark.as_bytes()))
}

pub(crate) fn guard() -> Vec<std::ffi::OsString> {
    vec![env!("CARGO_BIN_EXE_gastown-wrapper").into(), "guard".into()]
}

fn kill(pid: Pid) {
    kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

fn read(command: Value) -> Command {
    serde_json::from_value(command).expect("a command")
}

async fn next(agent: &mut RunningAgent) -> Signal {
    timeout(Duration::from_secs(30), agent.signals.recv())
        .await
        .expect("a signal comes")
        .expect("the stream is open")
}

async fn next_event(agent: &mut RunningAgent) -> NewEvent {
    loop {
        if let Signal::Event(event) = next(agent).await {
            return event;
        }
    }
}

async fn end(agent: &mut RunningAgent) -> Ended {
    loop {
        if let Signal::Ended(ended) = next(agent).await {
            assert!(agent.signals.recv().await.is_none(), "the last signal is the last one");
            return ended;
        }
    }
}
