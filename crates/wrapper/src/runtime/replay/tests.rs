use protocol::{
    Seq,
    view::{MessageView, PartView, SessionView},
};
use tokio::time::Instant;

use super::*;

#[tokio::test(start_paused = true)]
async fn every_recording_comes_out_event_by_event() {
    for file in recordings() {
        let mut agent = started(Replay::new(&file).with_speed(Speed::Max)).await;
        let text = std::fs::read_to_string(&file).unwrap();
        let mut expected =
            text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()).filter_map(|line| {
                let event = line.get("event")?.clone();
                let data = event.get("properties").cloned().unwrap_or_else(|| json!({}));
                Some((event["type"].as_str().unwrap().to_owned(), data))
            });
        loop {
            match agent.signals.recv().await.expect("the last signal says how it ended") {
                Signal::Event(event) => {
                    let (kind, data) = expected.next().expect("no more events than the recording has");
                    assert_eq!(*event.kind, *kind, "{file:?}");
                    assert_eq!(event.data.parse::<Value>().unwrap(), data, "{file:?}");
                }
                Signal::Ended(ended) => {
                    assert_eq!(ended, Ended::Exited { reason: "finished".to_owned(), code: None });
                    break;
                }
                other @ (Signal::Alive | Signal::CaughtUp(_) | Signal::CommandFailed { .. }) => {
                    panic!("{other:?}")
                }
            }
        }
        assert_eq!(expected.next(), None, "{file:?} was not played to its end");
    }
}

#[tokio::test(start_paused = true)]
async fn four_times_the_speed_takes_a_quarter_of_the_time() {
    let file = demo();
    let recording = Recording::parse(&std::fs::read_to_string(&file).unwrap()).unwrap();
    let length = Duration::from_micros(recording.at_us(recording.len() - 1).unwrap());
    let began = Instant::now();
    let mut agent = started(Replay::new(&file).with_speed(Speed::Times(4.0))).await;
    while let Some(signal) = agent.signals.recv().await {
        if matches!(signal, Signal::Ended(_)) {
            break;
        }
    }
    let took = began.elapsed();
    assert!(took.abs_diff(length / 4) < Duration::from_millis(50), "{took:?} for a recording of {length:?}");
}

#[tokio::test(start_paused = true)]
async fn a_prompt_is_a_step_and_nothing_comes_without_one() {
    let mut agent = started(Replay::new(demo()).with_speed(Speed::Step)).await;
    let prompt = |text: &str| Command::Prompt(Prompt { text: Some(text.to_owned()), ..Prompt::default() });
    agent.control.command(prompt("next")).await.unwrap();
    assert!(matches!(agent.signals.recv().await, Some(Signal::Event(_))));
    agent.control.command(prompt("3")).await.unwrap();
    for _ in 0..3 {
        assert!(matches!(agent.signals.recv().await, Some(Signal::Event(_))));
    }
    // Time is paused: it moves only when nothing else can happen.
    let silence = tokio::time::timeout(Duration::from_secs(3600), agent.signals.recv()).await;
    assert!(silence.is_err(), "{silence:?}");
    agent.control.stop().await;
    let Some(Signal::Ended(Ended::Exited { reason, .. })) = agent.signals.recv().await else {
        panic!("it says how it ended")
    };
    assert_eq!(reason, "stopped");
}

#[tokio::test(start_paused = true)]
async fn a_recording_says_that_it_takes_no_prompts_and_no_answers() {
    let agent = started(Replay::new(demo())).await;
    for command in [
        Command::Prompt(Prompt { text: Some("hello".to_owned()), ..Prompt::default() }),
        Command::Abort,
        Command::QuestionReject { id: "que_1".to_owned() },
    ] {
        let refused = agent.control.command(command).await.unwrap_err();
        assert!(matches!(refused, CommandError::Unsupported { .. }), "{refused}");
    }
}

#[test]
fn a_second_round_folds_to_twice_as_many_messages() {
    let recording = Recording::parse(&std::fs::read_to_string(demo()).unwrap()).unwrap();
    let fold = |rounds: u64| {
        let mut player = Player::new(recording.clone(), Speed::Max, true, Moment::START);
        let mut view = SessionView::default();
        for seq in 1..=rounds * recording.len() as u64 {
            let event =
                player.take(Moment::START, Timestamp::from_unix_ms(1)).expect("at full speed all is due");
            view.apply(&event.at(Seq::new(seq)));
        }
        let messages = view.session(recording.root()).unwrap().messages().len();
        (messages, view.malformed())
    };
    let (once, malformed) = fold(1);
    assert!(once > 2);
    assert_eq!(fold(2), (once * 2, malformed * 2));
}

#[tokio::test(start_paused = true)]
async fn the_session_goes_on_at_the_next_start_with_another_round() {
    let folder = tempfile::tempdir().unwrap();
    let mut view = SessionView::default();
    let (mut seq, mut once) = (0, 0);
    let mut told = Vec::new();
    let recording = Recording::parse(&std::fs::read_to_string(demo()).unwrap()).unwrap();
    for (round, resume) in [(1, None), (2, Some(recording.root())), (3, Some(recording.root()))] {
        let start =
            Start { state_dir: folder.path().to_owned(), resume: resume.map(str::to_owned), ..start() };
        let mut agent = Replay::new(demo()).with_speed(Speed::Max).start(start).await.unwrap();
        assert_eq!((agent.resumed, agent.session.as_str()), (resume.is_some(), recording.root()));
        while let Some(Signal::Event(event)) = agent.signals.recv().await {
            seq += 1;
            view.apply(&event.at(Seq::new(seq)));
        }
        let messages = messages(&view, recording.root());
        assert_eq!(messages[..told.len()], told, "round {round} changes nothing of those before");
        once = if round == 1 { messages.len() } else { once };
        assert_eq!(messages.len(), once * round);
        told = messages;
    }
}

#[tokio::test(start_paused = true)]
async fn a_recording_that_is_repeated_goes_on_at_the_next_start_with_the_round_after_its_last() {
    let folder = tempfile::tempdir().unwrap();
    let start = |resume: Option<&str>| Start {
        state_dir: folder.path().to_owned(),
        resume: resume.map(str::to_owned),
        ..start()
    };
    let round =
        || -> u64 { std::fs::read_to_string(folder.path().join(ROUND_FILE)).unwrap().parse().unwrap() };
    let recording = Recording::parse(&std::fs::read_to_string(demo()).unwrap()).unwrap();
    let replay = Replay::new(demo()).with_speed(Speed::Max).with_repeat(true);
    let mut agent = replay.start(start(None)).await.unwrap();
    for _ in 0..=2 * recording.len() {
        assert!(matches!(agent.signals.recv().await, Some(Signal::Event(_))));
    }
    drop(agent.signals);
    agent.control.stop().await;
    let last = round();
    assert!(last >= 2, "{last}");
    let _agent = replay.start(start(Some(recording.root()))).await.unwrap();
    assert_eq!(round(), last + 1);
}

#[tokio::test]
async fn a_missing_or_damaged_recording_fails_the_start_with_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("recording.jsonl");
    let missing = Replay::new(&file).start(start()).await.unwrap_err();
    assert!(missing.message.contains("recording.jsonl"), "{}", missing.message);
    std::fs::write(&file, "{\"t_ms\": 1, \"event\": 7}\n").unwrap();
    let damaged = Replay::new(&file).start(start()).await.unwrap_err();
    assert!(damaged.message.contains("line 1"), "{}", damaged.message);
}

#[test]
fn a_speed_is_a_factor_max_or_step() {
    assert_eq!("4".parse(), Ok(Speed::Times(4.0)));
    assert_eq!("max".parse(), Ok(Speed::Max));
    assert_eq!("step".parse(), Ok(Speed::Step));
    for wrong in ["0", "-1", "inf", "NaN", "fast", ""] {
        assert!(wrong.parse::<Speed>().is_err(), "{wrong}");
    }
}

async fn started(replay: Replay) -> RunningAgent {
    replay.start(start()).await.unwrap()
}

fn start() -> Start {
    Start {
        agent: "replayed".parse().unwrap(),
        directory: PathBuf::from("/"),
        state_dir: PathBuf::from("/"),
        resume: None,
        env: std::collections::BTreeMap::new(),
        clock: Clock::start(),
    }
}

/// What the fold has of a session's messages, by their ids.
fn messages(view: &SessionView, session: &str) -> Vec<Value> {
    let session = view.session(session).unwrap();
    let message = |message: &&MessageView| {
        let info: Value = message.raw_info().unwrap().parse().unwrap();
        json!({ "info": info, "parts": message.parts().map(PartView::to_json).collect::<Vec<_>>() })
    };
    let mut messages: Vec<Value> = session.messages().iter().map(message).collect();
    messages.sort_by_key(|message| message["info"]["id"].to_string());
    messages
}

fn demo() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../demo/recording.jsonl"))
}

/// Every recording that the workspace has.
fn recordings() -> Vec<PathBuf> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../event-protocol/tests/recordings");
    let mut found = vec![demo()];
    for server in ["kilo-7.7.7", "opencode-1.18.33"] {
        let files = std::fs::read_dir(format!("{folder}/{server}")).unwrap().map(|file| file.unwrap().path());
        found.extend(files.filter(|file| {
            let name = file.file_name().unwrap().to_str().unwrap();
            name.ends_with(".jsonl") && !name.ends_with(".http.jsonl")
        }));
    }
    assert!(found.len() > 10, "{found:?}");
    found
}
