use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use proptest::prelude::*;
use protocol::{Answer, Delivery, NewEvent, Prompt, Seq, view::SessionView};

use super::{tool::Outcome, *};
use crate::runtime::AgentControl;

#[test]
fn every_demo_scenario_folds_to_a_consistent_transcript() {
    for (name, scenario) in demo_scenarios() {
        let turns = scenario.script().start.as_ref().map_or(0, |start| start.turns.len());
        let mut stage = Stage::of(scenario);
        stage.play_turns(turns * 2);
        stage.check_consistent(&name);
        assert!(stage.closes("completed") >= turns * 2, "{name}: {} turns ended", stage.closes("completed"));
    }
}

#[test]
fn one_turn_has_the_order_of_an_agent_server() {
    let mut stage = Stage::of(scenario(r#"[{"actions": [{"text": {"text": "Hello there", "chunk": 6}}]}]"#));
    stage.prompt("hi", Delivery::Queue);
    stage.play_turns(1);
    let order: Vec<String> = stage.events.iter().map(shape).collect();
    assert_eq!(
        order,
        [
            "session.created",
            "message.updated user",
            "message.part.updated text",
            "session.updated",
            "session.turn.open",
            "session.status busy",
            "message.updated assistant",
            "session.status busy",
            "message.part.updated step-start",
            "message.part.updated text",
            "message.part.delta",
            "message.part.updated text",
            "message.part.updated step-finish",
            "message.updated assistant",
            "message.updated assistant",
            "session.updated",
            "session.status busy",
            "session.status idle",
            "session.idle",
            "session.turn.close completed",
            "session.updated",
            "session.diff",
            "message.updated user",
        ]
    );
}

#[test]
fn a_rejected_permission_ends_the_turn_and_the_tool_never_runs() {
    let mut stage = Stage::of(scenario(ASKS));
    stage.reply = Some((PermissionReply::Reject, None));
    stage.prompt("[[t]]", Delivery::Queue);
    stage.play_turns(1);
    stage.check_consistent("rejected");
    assert_eq!(stage.tools, 0);
    assert!(!stage.said().contains("gone"), "{}", stage.said());
    let error = stage.tool_states().pop().unwrap()["error"].as_str().unwrap().to_owned();
    assert_eq!(error, "The user rejected permission to use this specific tool call.");
}

#[test]
fn a_rejection_with_a_message_lets_the_turn_go_on() {
    let mut stage = Stage::of(scenario(ASKS));
    stage.reply = Some((PermissionReply::Reject, Some("move it instead")));
    stage.prompt("[[t]]", Delivery::Queue);
    stage.play_turns(1);
    stage.check_consistent("rejected with a message");
    assert_eq!(stage.tools, 0);
    assert!(stage.said().contains("gone"), "{}", stage.said());
}

#[test]
fn a_rejection_branches_where_the_scenario_says_so() {
    let branch = ASKS.replace(
        "\"always\"",
        "\"rejected\": [{\"actions\": [{\"text\": {\"text\": \"kept\"}}]}], \"always\"",
    );
    let mut stage = Stage::of(scenario(&branch));
    stage.reply = Some((PermissionReply::Reject, None));
    stage.prompt("[[t]]", Delivery::Queue);
    stage.play_turns(1);
    stage.check_consistent("branch");
    assert!(stage.said().contains("kept") && !stage.said().contains("gone"), "{}", stage.said());
}

#[test]
fn always_is_remembered_and_once_is_not() {
    for (reply, asked) in [(PermissionReply::Once, 2), (PermissionReply::Always, 1)] {
        let mut stage = Stage::of(scenario(ASKS));
        stage.reply = Some((reply, None));
        for _ in 0..2 {
            stage.prompt("[[t]]", Delivery::Queue);
            stage.play_turns(1);
        }
        assert_eq!(stage.count("permission.asked"), asked, "{reply:?}");
        assert_eq!(stage.tools, 2);
    }
}

#[test]
fn an_answer_reaches_the_text_and_a_second_answer_finds_nothing() {
    let steps = r#"[{"actions": [{"question": {"questions": [{"question": "Which?", "header": "h", "options": []}]}},
                                 {"text": {"text": "So: ${answer}."}}]}]"#;
    let mut stage = Stage::of(scenario(steps));
    stage.prompt("go", Delivery::Queue);
    stage.play_turns(1);
    stage.check_consistent("question");
    assert!(stage.said().contains("So: SQLite."), "{}", stage.said());
    let id =
        stage.events.iter().find(|event| *event.kind == *"question.asked").map(value).unwrap()["id"].clone();
    let again = Answer { id: id.as_str().unwrap().to_owned(), answers: vec![] };
    assert_eq!(stage.machine.question(stage.now, &again.id, Some(&again)), Err(NothingWaits));
}

#[test]
fn a_sub_agent_has_a_session_of_its_own_below_the_agent_s() {
    let steps = r#"[{"actions": [{"task": {"description": "Look", "prompt": "look", "steps": [
                      {"tokens": {"input": 7}, "actions": [{"text": {"text": "nothing there"}}]}]}}]},
                    {"tokens": {"input": 5}, "actions": [{"text": {"text": "done"}}]}]"#;
    let mut stage = Stage::of(scenario(steps));
    stage.prompt("go", Delivery::Queue);
    stage.play_turns(1);
    stage.check_consistent("sub-agent");
    let state = stage.tool_states().pop().unwrap();
    let child = state["metadata"]["sessionId"].as_str().unwrap();
    assert!(state["output"].as_str().unwrap().contains("nothing there"));
    let view = stage.view();
    assert_eq!(view.session(child).unwrap().parent_id(), Some(stage.machine.session()));
    let order: Vec<&str> = stage
        .events
        .iter()
        .filter(|e| *e.kind == *"session.idle")
        .filter_map(|e| e.session.as_deref())
        .collect();
    assert_eq!(order, [child, stage.machine.session()], "the child is idle first");
}

#[test]
fn retries_are_announced_with_their_next_try() {
    let steps = r#"[{"actions": [{"retry": {"message": "Rate limit", "delays_ms": [2000, 4000]}}, {"text": {"text": "ok"}}]}]"#;
    let mut stage = Stage::of(scenario(steps));
    stage.prompt("go", Delivery::Queue);
    stage.play_turns(1);
    stage.check_consistent("retry");
    let waits: Vec<(i64, i64)> = stage
        .events
        .iter()
        .filter(|event| *event.kind == *"session.status")
        .map(|event| (event.time.unix_ms(), value(event)["status"].clone()))
        .filter(|(_, status)| status["type"] == "retry")
        .map(|(at, status)| (status["attempt"].as_i64().unwrap(), status["next"].as_i64().unwrap() - at))
        .collect();
    assert_eq!(waits, [(1, 2000), (2, 4000)]);
}

#[test]
fn an_error_ends_the_turn_with_two_idles_as_servers_do() {
    let steps = r#"[{"actions": [{"text": {"text": "hm"}}, {"error": {"name": "APIError", "message": "no", "status_code": 400}},
                                 {"text": {"text": "never"}}]}]"#;
    let mut stage = Stage::of(scenario(steps));
    stage.prompt("go", Delivery::Queue);
    stage.play_turns(1);
    stage.check_consistent("error");
    assert_eq!((stage.count("session.idle"), stage.closes("error")), (2, 1));
    assert!(!stage.said().contains("never"));
}

#[test]
fn a_compaction_leaves_a_summary_message() {
    let steps =
        r#"[{"actions": [{"compact": {"text": "What happened so far."}}, {"text": {"text": "on"}}]}]"#;
    let mut stage = Stage::of(scenario(steps));
    stage.prompt("go", Delivery::Queue);
    stage.play_turns(1);
    stage.check_consistent("compaction");
    assert_eq!(stage.count("session.compacted"), 1);
    let summaries = stage.events.iter().map(value).filter(|data| data["info"]["summary"] == true).count();
    assert!(summaries >= 2, "the summary is begun and completed");
}

#[test]
fn prompts_wait_for_their_turn_in_the_order_of_their_delivery() {
    let mut stage = Stage::of(scenario(
        r#"[{"actions": [{"text": {"text": "To ${prompt}. "}}]}, {"actions": [{"text": {"text": "end. "}}]}]"#,
    ));
    stage.prompt("one", Delivery::Queue);
    stage.prompt("two", Delivery::Queue);
    stage.prompt("three", Delivery::Boundary);
    stage.play_turns(2);
    stage.check_consistent("queue");
    // The third comes between the two steps of the first turn, the second after it.
    assert_eq!(stage.said(), "To one. To three. end. end. To two. end. ");
    let queued: Vec<usize> = stage
        .events
        .iter()
        .filter(|event| *event.kind == *"session.queue.changed")
        .map(|event| value(event)["queued"].as_array().unwrap().len())
        .collect();
    assert_eq!(queued, [1, 2, 1, 0]);
}

#[test]
fn an_interrupting_prompt_aborts_the_turn_and_comes_first() {
    let mut stage = Stage::of(scenario(r#"[{"actions": [{"text": {"text": "To ${prompt}. "}}]}]"#));
    stage.prompt("one", Delivery::Queue);
    stage.prompt("two", Delivery::Queue);
    stage.prompt("now", Delivery::Interrupt);
    stage.play_turns(2);
    stage.check_consistent("interrupt");
    assert_eq!(stage.said(), "To now. To two. ");
    assert_eq!(stage.closes("interrupted"), 1);
}

#[test]
fn what_is_attached_is_shown_and_chooses_a_turn_by_its_name() {
    let turn = |name: &str, more: &str| {
        format!(
            r#"{{"name": "{name}", {more} "steps": [{{"actions": [{{"text": {{"text": "{name}: ${{prompt}} "}}}}]}}]}}"#
        )
    };
    let turns = [turn("free", "\"free\": true,"), turn("notes", "\"keywords\": [\"note.txt\"],")].join(",");
    let mut stage =
        Stage::of(Arc::new(Scenario::parse(&format!("{{{HEAD}, \"turns\": [{turns}]}}")).unwrap()));
    let note = json!({ "type": "file", "mime": "text/plain", "filename": "note.txt", "url": "data:text/plain;base64,aGk=" });
    for text in [Some("read this".to_owned()), None] {
        stage.tell(&Prompt { text, parts: Some(vec![note.clone()]), ..Prompt::default() });
    }
    stage.play_turns(2);
    stage.check_consistent("attachment");
    assert_eq!(stage.said(), "notes: read this notes: note.txt ");
    let shown = stage.events.iter().map(value).filter(|data| data["part"]["url"] == note["url"]).count();
    assert_eq!(shown, 2);
}

#[test]
fn a_prompt_chooses_its_turn_by_marker_then_keyword_then_freely() {
    let scenario = || {
        let turn = |name: &str, more: &str| {
            format!(
                r#"{{"name": "{name}", {more} "steps": [{{"actions": [{{"text": {{"text": "{name} "}}}}]}}]}}"#
            )
        };
        let turns =
            [turn("first", ""), turn("tests", "\"keywords\": [\"Test\"],"), turn("free", "\"free\": true,")]
                .join(",");
        Arc::new(Scenario::parse(&format!("{{{HEAD}, \"turns\": [{turns}]}}")).unwrap())
    };
    for (prompt, turn) in
        [("please [[first]] the test", "first "), ("run the tests", "tests "), ("hello", "free ")]
    {
        let mut stage = Stage::of(scenario());
        stage.prompt(prompt, Delivery::Queue);
        stage.play_turns(1);
        assert_eq!(stage.said(), turn, "{prompt}");
    }
}

#[test]
fn one_seed_and_the_same_inputs_give_the_same_events() {
    let run = || {
        let (_, scenario) = demo_scenarios().remove(0);
        let mut stage = Stage::of(scenario);
        stage.play_turns(2);
        stage.events
    };
    assert_eq!(run(), run());
}

#[test]
fn a_resumed_session_keeps_its_id() {
    let scenario = scenario(r#"[{"actions": [{"pause": {"ms": 1}}]}]"#);
    let resume = Some("ses_before".to_owned());
    let mut machine =
        Machine::new(scenario, "/w".into(), 1, Pace::new(1.0), resume, Timestamp::from_unix_ms(1));
    let Some(Output::Event(event)) = machine.poll_output() else {
        panic!("it says that the session is there")
    };
    assert_eq!((&*event.kind, event.session.as_deref()), ("session.updated", Some("ses_before")));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// The law of the interpreter: whenever it is aborted, nothing stays open, and the next prompt is answered.
    #[test]
    fn an_abort_at_any_point_closes_everything(which in 0usize..4, at in 0usize..400, agrees: bool) {
        let mut scenarios = demo_scenarios();
        let (name, scenario) = scenarios.remove(which % scenarios.len());
        let mut stage = Stage::of(scenario);
        stage.reply = agrees.then_some((PermissionReply::Once, None));
        stage.answers = agrees;
        for _ in 0..at {
            if !stage.forward() {
                break;
            }
        }
        stage.machine.abort(stage.now);
        stage.drain();
        prop_assert!(stage.machine.is_idle());
        stage.check_consistent(&name);
        let closed = stage.closes("completed");
        stage.reply = Some((PermissionReply::Once, None));
        stage.answers = true;
        stage.prompt("[[answer]]", Delivery::Queue);
        stage.play_turns(1);
        stage.check_consistent(&name);
        prop_assert!(stage.closes("completed") > closed);
    }
}

#[tokio::test]
async fn the_feature_scenario_really_writes_a_program_whose_tests_pass() {
    let folder = tempfile::tempdir().unwrap();
    let mut agent = start("feature.json", folder.path()).await;
    let mut exits = Vec::new();
    let mut diffs = Vec::new();
    until(&mut agent, |agent, event| {
        let data = value(event);
        if *event.kind == *"permission.asked" {
            let (id, control) = (data["id"].as_str().unwrap().to_owned(), Arc::clone(&agent.control));
            let reply = Command::Permission { id, reply: PermissionReply::Once, message: None };
            return Next::Send(control, Box::new(reply));
        }
        let state = &data["part"]["state"];
        if state["status"] == "completed" && data["part"]["tool"] == "bash" {
            exits.push(state["metadata"]["exit"].clone());
        }
        if let Some(diff) = state["metadata"]["diff"].as_str() {
            diffs.push(diff.to_owned());
        }
        if *event.kind == *"session.turn.close" { Next::Stop } else { Next::Wait }
    })
    .await;
    // Listing, the tests before and after the change, the mirror that comes back, the removal.
    assert_eq!(exits, [json!(0), json!(1), json!(0), json!(0), json!(0)]);
    assert!(diffs.iter().any(|diff| diff.contains("+        sleep \"$(delay_for")), "{diffs:?}");
    assert!(folder.path().join("README.md").exists() && !folder.path().join("build").exists());
    agent.control.stop().await;
}

#[tokio::test]
async fn a_stopped_agent_says_so_last_and_takes_no_more_commands() {
    let folder = tempfile::tempdir().unwrap();
    let mut agent = start("mayor.json", folder.path()).await;
    agent.control.stop().await;
    let mut last = None;
    while let Some(signal) = agent.signals.recv().await {
        last = Some(signal);
    }
    let Some(Signal::Ended(Ended::Exited { reason, .. })) = last else { panic!("{last:?}") };
    assert_eq!(reason, "stopped");
    let refused = agent.control.command(Command::Abort).await.unwrap_err();
    assert!(matches!(refused, CommandError::Unreachable { .. }), "{refused}");
}

#[tokio::test]
async fn a_scenario_that_cannot_be_read_fails_the_start_with_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("broken.json");
    std::fs::write(&file, "{\n\"titel\": 1}").unwrap();
    let failed = Scripted::new(&file).start(start_in(folder.path())).await.unwrap_err();
    assert!(
        failed.message.contains("broken.json") && failed.message.contains("line 2"),
        "{}",
        failed.message
    );
}

const HEAD: &str = r#""title": "t", "model": {"providerID": "p", "modelID": "m"}"#;

const ASKS: &str = r#"[{"actions": [{"bash": {"command": "rm x", "description": "d", "ask": {"always": ["rm *"]}}}]},
                       {"actions": [{"text": {"text": "It is gone."}}]}]"#;

fn scenario(steps: &str) -> Arc<Scenario> {
    Arc::new(
        Scenario::parse(&format!("{{{HEAD}, \"turns\": [{{\"name\": \"t\", \"steps\": {steps}}}]}}"))
            .unwrap(),
    )
}

fn demo(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../demo").join(file)
}

fn demo_scenarios() -> Vec<(String, Arc<Scenario>)> {
    ["feature.json", "research.json", "failing.json", "mayor.json"]
        .map(|name| {
            let text = std::fs::read_to_string(demo(name)).unwrap();
            let scenario = Scenario::parse(&text).unwrap_or_else(|error| panic!("{name}: {error:?}"));
            (name.to_owned(), Arc::new(scenario))
        })
        .into()
}

/// Plays a scenario with tools that only pretend, answering what is asked.
struct Stage {
    machine: Machine,
    now: Timestamp,
    events: Vec<NewEvent>,
    tools: usize,
    /// How permissions are answered; with `None` they are not.
    reply: Option<(PermissionReply, Option<&'static str>)>,
    /// Whether questions are answered.
    answers: bool,
}

impl Stage {
    fn of(scenario: Arc<Scenario>) -> Self {
        let now = Timestamp::from_unix_ms(1_795_198_984_000);
        let machine = Machine::new(scenario, "/work".to_owned(), 42, Pace::new(1.0), None, now);
        let reply = Some((PermissionReply::Once, None));
        let mut stage = Self { machine, now, events: Vec::new(), tools: 0, reply, answers: true };
        stage.drain();
        stage
    }

    fn prompt(&mut self, text: &str, delivery: Delivery) {
        let prompt = Prompt { text: Some(text.to_owned()), delivery, ..Prompt::default() };
        self.tell(&prompt);
    }

    fn tell(&mut self, prompt: &Prompt) {
        self.machine.prompt(self.now, prompt);
        self.drain();
    }

    /// Takes what comes out, runs tools and answers what is asked.
    fn drain(&mut self) {
        while let Some(output) = self.machine.poll_output() {
            match output {
                Output::Event(event) => {
                    self.answer(&event);
                    self.events.push(event);
                }
                Output::Run(call) => {
                    self.tools += 1;
                    self.machine.tool_output(self.now, call.number, "so far\n".to_owned());
                    let outcome = Outcome::Completed { output: "ok".to_owned(), metadata: json!({}) };
                    self.machine.tool_done(self.now, call.number, outcome, None);
                }
                Output::Cancel(_) => {}
            }
        }
    }

    fn answer(&mut self, event: &NewEvent) {
        let id = || value(event)["id"].as_str().unwrap().to_owned();
        if let (true, Some((reply, message))) = (*event.kind == *"permission.asked", self.reply) {
            self.machine.permission(self.now, &id(), reply, message).unwrap();
        }
        if *event.kind == *"question.asked" && self.answers {
            let answers = vec![vec!["SQLite".to_owned()]];
            self.machine.question(self.now, &id(), Some(&Answer { id: id(), answers })).unwrap();
        }
    }

    /// Goes on to the next time something happens. Returns whether there is one.
    fn forward(&mut self) -> bool {
        let Some(due) = self.machine.poll_timeout() else { return false };
        self.now = self.now.max(due);
        self.machine.handle_timeout(self.now);
        self.drain();
        true
    }

    /// Plays until so many more turns of the agent itself have ended.
    fn play_turns(&mut self, turns: usize) {
        let ended = |stage: &Self| {
            let root = stage.machine.session();
            let last = stage.events.iter().rev().find(|event| *event.kind == *"session.status");
            let idle = last.is_some_and(|event| value(event)["status"]["type"] == "idle");
            let close =
                |e: &&NewEvent| *e.kind == *"session.turn.close" && e.session.as_deref() == Some(root);
            (stage.events.iter().filter(close).count(), idle)
        };
        let before = ended(self).0;
        for _ in 0..100_000 {
            if ended(self).0 >= before + turns && self.machine.is_idle() {
                return;
            }
            assert!(self.forward(), "nothing goes on");
        }
        panic!("the turns do not end");
    }

    fn count(&self, kind: &str) -> usize {
        self.events.iter().filter(|event| *event.kind == *kind).count()
    }

    fn closes(&self, reason: &str) -> usize {
        self.events
            .iter()
            .filter(|e| *e.kind == *"session.turn.close" && value(e)["reason"] == reason)
            .count()
    }

    /// The texts that the agent said whole, joined.
    fn said(&self) -> String {
        let whole = self.events.iter().map(value).filter(|data| data["part"]["type"] == "text");
        whole
            .filter(|data| !data["part"]["time"]["end"].is_null())
            .map(|data| data["part"]["text"].as_str().unwrap().to_owned())
            .collect()
    }

    /// The last state of every tool part, in order.
    fn tool_states(&self) -> Vec<Value> {
        let tools = self.events.iter().map(value).filter(|data| data["part"]["type"] == "tool");
        tools.map(|data| data["part"]["state"].clone()).collect()
    }

    fn view(&self) -> SessionView {
        let mut view = SessionView::default();
        for (event, seq) in self.events.iter().zip(1..) {
            view.apply(&event.clone().at(Seq::new(seq)));
        }
        view
    }

    fn check_consistent(&self, name: &str) {
        let view = self.view();
        assert_eq!(view.malformed(), 0, "{name}: every payload has the shape of the model");
        assert!(view.pending().is_empty(), "{name}: nothing waits for an answer");
        check_parts(name, &self.events);
        check_ids(name, &self.events);
        assert!(self.events.is_sorted_by_key(|event| event.time), "{name}: time goes on");
        let (input, output) =
            self.events.iter().map(value).filter(|data| data["part"]["type"] == "step-finish").fold(
                (0, 0),
                |(input, output), data| {
                    let tokens = &data["part"]["tokens"];
                    (input + tokens["input"].as_u64().unwrap(), output + tokens["output"].as_u64().unwrap())
                },
            );
        let usage = view.usage();
        assert_eq!(
            (usage.tokens.input, usage.tokens.output),
            (input, output),
            "{name}: usage is the sum of the steps"
        );
    }
}

/// Every part is closed, every message completed, and every text the sum of its deltas.
fn check_parts(name: &str, events: &[NewEvent]) {
    let mut latest: BTreeMap<String, Value> = BTreeMap::new();
    let mut streamed: BTreeMap<String, String> = BTreeMap::new();
    let mut messages: BTreeMap<String, Value> = BTreeMap::new();
    for event in events {
        let data = value(event);
        match &*event.kind {
            "message.part.updated" => {
                latest.insert(data["part"]["id"].as_str().unwrap().to_owned(), data["part"].clone());
            }
            "message.part.delta" => {
                let part = data["partID"].as_str().unwrap().to_owned();
                streamed.entry(part).or_default().push_str(data["delta"].as_str().unwrap());
            }
            "message.updated" => {
                messages.insert(data["info"]["id"].as_str().unwrap().to_owned(), data["info"].clone());
            }
            _ => {}
        }
    }
    for (id, part) in &latest {
        let message = &messages[part["messageID"].as_str().unwrap()];
        match part["type"].as_str().unwrap() {
            "text" | "reasoning" if message["role"] == "assistant" => {
                assert!(part["time"]["end"].is_i64(), "{name}: {part} is open");
                assert_eq!(
                    part["text"].as_str().unwrap(),
                    streamed.get(id).map_or("", String::as_str),
                    "{name}"
                );
            }
            "tool" => {
                let status = part["state"]["status"].as_str().unwrap();
                assert!(["completed", "error"].contains(&status), "{name}: {part} is open");
            }
            _ => {}
        }
    }
    for message in messages.values().filter(|message| message["role"] == "assistant") {
        assert!(message["time"]["completed"].is_i64(), "{name}: {message} is open");
        assert!(message["finish"].is_string() != message["error"].is_object(), "{name}: {message}");
    }
}

/// Ids of one kind sort as they appear.
fn check_ids(name: &str, events: &[NewEvent]) {
    let mut seen = BTreeSet::new();
    let mut last: BTreeMap<String, String> = BTreeMap::new();
    for event in events {
        let data = value(event);
        for id in
            [&data["part"]["id"], &data["info"]["id"], &data["id"]].into_iter().filter_map(Value::as_str)
        {
            if seen.insert(id.to_owned())
                && let Some(before) = last.insert(id[..4].to_owned(), id.to_owned())
            {
                assert!(*before < *id, "{name}: {id} comes after {before}");
            }
        }
    }
}

fn value(event: &NewEvent) -> Value {
    event.data.parse().unwrap()
}

fn shape(event: &NewEvent) -> String {
    let data = value(event);
    let more = [&data["part"]["type"], &data["info"]["role"], &data["status"]["type"], &data["reason"]];
    let more = more.into_iter().find_map(Value::as_str).map(|more| format!(" {more}")).unwrap_or_default();
    format!("{}{more}", event.kind)
}

fn start_in(folder: &Path) -> Start {
    Start {
        agent: "amber".parse().unwrap(),
        directory: folder.to_owned(),
        state_dir: folder.to_owned(),
        resume: None,
        env: BTreeMap::new(),
        clock: Clock::start(),
    }
}

async fn start(file: &str, folder: &Path) -> RunningAgent {
    Scripted::new(demo(file)).with_speed(f64::INFINITY).start(start_in(folder)).await.unwrap()
}

enum Next {
    Wait,
    Send(Arc<dyn AgentControl>, Box<Command>),
    Stop,
}

/// Takes events until one says to stop.
async fn until(agent: &mut RunningAgent, mut step: impl FnMut(&RunningAgent, &NewEvent) -> Next) {
    loop {
        let next = tokio::time::timeout(Duration::from_secs(60), agent.signals.recv())
            .await
            .expect("something happens");
        let Some(Signal::Event(event)) = next else { panic!("the agent ended: {next:?}") };
        match step(agent, &event) {
            Next::Wait => {}
            Next::Send(control, command) => drop(control.command(*command).await.unwrap()),
            Next::Stop => return,
        }
    }
}
