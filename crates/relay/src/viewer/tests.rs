use protocol::{NewEvent, frame::GapReason};
use serde_json::{Value, json};
use store::{Page, Record};

use super::*;

#[test]
fn hello_comes_first_then_the_log_then_live() {
    let mut pair = Pair::of_one_log();
    assert_eq!(pair.said()[0]["type"], "hello");
    pair.open(0, 2);
    assert_eq!(
        pair.said(),
        [json!({"type": "subscribed", "log": "agent/a1", "epoch": "e1", "floor": 0, "head": 2})]
    );
    pair.page(&[1, 2], 2, false);
    assert_eq!(kinds(&pair.said()), ["events", "live"]);
    pair.nothing();
    assert!(pair.poll().is_none(), "it waits until something is committed");
    pair.viewer.handle_head(&log("a1"));
    pair.page(&[3], 3, false);
    assert_eq!(kinds(&pair.said()), ["events"]);
}

#[test]
fn nothing_is_read_before_everything_that_was_read_is_taken() {
    let mut pair = Pair::of_one_log();
    pair.said();
    pair.open(0, 9);
    pair.said();
    pair.page(&[1, 2], 9, true);
    let Some(Action::Send(_)) = pair.poll() else { panic!("the page is sent first") };
    assert!(matches!(pair.poll(), Some(Action::Read { after, .. }) if after == Seq::new(2)));
    assert!(pair.poll().is_none(), "one read at a time");
}

#[test]
fn subscriptions_take_turns() {
    let mut pair = Pair::many();
    for agent in ["a1", "a2", "a3"] {
        pair.send(&json!({"type": "subscribe", "log": format!("agent/{agent}")}));
        pair.viewer.handle_opened(&log(agent), bounds(0, 9));
    }
    let mut turns = Vec::new();
    while turns.len() < 6 {
        match pair.poll().unwrap() {
            Action::Read { log, after, .. } => {
                turns.push(log.to_string());
                pair.viewer.handle_page(&log, &page(&[after.get() + 1], 9, true));
            }
            Action::Send(_) | Action::Open(_) => {}
            Action::Leave(_) | Action::Command { .. } | Action::Close { .. } => {
                panic!("nobody asked for that")
            }
        }
    }
    assert_eq!(turns, ["agent/a1", "agent/a2", "agent/a3", "agent/a1", "agent/a2", "agent/a3"]);
}

#[test]
fn p3_a_gap_is_said_before_the_events_that_follow_it() {
    let mut pair = Pair::of_one_log();
    pair.said();
    pair.open(0, 9);
    pair.said();
    let mut overtaken = page(&[8, 9], 9, false);
    overtaken.bounds.floor = Seq::new(7);
    assert!(matches!(pair.poll(), Some(Action::Read { .. })));
    pair.viewer.handle_page(&log("a1"), &overtaken);
    let said = pair.said();
    assert_eq!(
        said[0],
        json!({"type": "gap", "log": "agent/a1", "from": 1, "to": 7, "reason": GapReason::Pruned})
    );
    assert_eq!(kinds(&said), ["gap", "events", "live"]);
}

#[test]
fn presence_is_said_when_it_changes() {
    let mut pair = Pair::of_one_log();
    pair.said();
    pair.open(0, 0);
    pair.said();
    let (up, down) = (WrapperPresence::Connected, WrapperPresence::Disconnected);
    for (presence, since, said) in [(up, 1, 1), (up, 1, 0), (down, 2, 1), (up, 3, 1)] {
        pair.viewer.handle_presence(&log("a1"), presence, Timestamp::from_unix_ms(since));
        assert_eq!(pair.said().len(), said);
    }
}

#[test]
fn a_log_that_cannot_be_had_closes_its_own_socket_only() {
    let why = ErrorDetail::new(ErrorCode::UnknownLog, "there is no such log");
    let mut pair = Pair::of_one_log();
    pair.said();
    assert!(matches!(pair.poll(), Some(Action::Open(_))));
    pair.viewer.handle_refused(&log("a1"), why.clone());
    assert_eq!(pair.said()[0]["code"], "unknown_log");
    assert_eq!(pair.closed(), 4404);

    let mut pair = Pair::many();
    pair.said();
    pair.send(&json!({"type": "subscribe", "log": "agent/a1"}));
    assert!(matches!(pair.poll(), Some(Action::Open(_))));
    pair.viewer.handle_refused(&log("a1"), why);
    let error = &pair.said()[0];
    assert_eq!((&error["code"], &error["log"]), (&json!("unknown_log"), &json!("agent/a1")));
    assert!(matches!(pair.poll(), Some(Action::Leave(_))));
    pair.send(&json!({"type": "subscribe", "log": "agent/a1"}));
    assert!(matches!(pair.poll(), Some(Action::Open(_))), "it may be tried again");
}

#[test]
fn unsubscribing_ends_a_log_even_while_it_is_read() {
    let mut pair = Pair::many();
    pair.send(&json!({"type": "subscribe", "log": "agent/a1"}));
    pair.said();
    pair.open(0, 3);
    pair.said();
    assert!(matches!(pair.poll(), Some(Action::Read { .. })));
    pair.send(&json!({"type": "unsubscribe", "log": "agent/a1"}));
    assert!(matches!(pair.poll(), Some(Action::Leave(_))));
    pair.viewer.handle_page(&log("a1"), &page(&[1], 3, true));
    assert!(pair.poll().is_none());
}

#[test]
fn one_subscription_too_many_is_refused() {
    let mut pair = Pair::many();
    for n in 0..=limits::SUBSCRIPTIONS_PER_SOCKET {
        pair.now += Duration::from_millis(50);
        pair.send(&json!({"type": "subscribe", "log": format!("agent/a{n}")}));
    }
    let errors = pair.said().into_iter().filter(|frame| frame["type"] == "error").collect::<Vec<_>>();
    assert_eq!(errors.len(), 1);
    assert_eq!(errors[0]["log"], format!("agent/a{}", limits::SUBSCRIPTIONS_PER_SOCKET));
}

#[test]
fn a_command_goes_out_and_its_result_comes_back() {
    let mut pair = Pair::many();
    pair.said();
    pair.send(&json!({"type": "command", "id": "c1", "agent": "a1", "command": {"type": "abort"}}));
    let Some(Action::Command { id, agent, command: Command::Abort }) = pair.poll() else {
        panic!("it is passed on")
    };
    assert_eq!((id.as_str(), agent.as_str()), ("c1", "a1"));
    pair.viewer.handle_result(CommandResult::ok(id));
    assert_eq!(pair.said(), [json!({"type": "result", "id": "c1", "ok": true})]);
}

#[test]
fn one_command_too_many_in_flight_is_refused() {
    let mut pair = Pair::many();
    pair.said();
    for n in 0..=COMMANDS_IN_FLIGHT {
        pair.now += Duration::from_millis(50);
        pair.send(
            &json!({"type": "command", "id": format!("c{n}"), "agent": "a1", "command": {"type": "ping"}}),
        );
    }
    assert_eq!(pair.said()[0]["error"]["code"], "rate_limited");
}

#[test]
fn p20_what_is_no_frame_closes_the_socket_with_a_code() {
    let deep = format!("{}{}", "[".repeat(300), "]".repeat(300));
    let large = "x".repeat(limits::VIEWER_FRAME_BYTES + 1);
    for (text, code) in
        [("{", 4400), ("{\"type\":\"dance\"}", 4400), ("\u{0}", 4400), (&*deep, 4400), (&*large, 4413)]
    {
        let mut pair = Pair::many();
        pair.viewer.handle_text(pair.now, text.as_bytes());
        assert_eq!(pair.closed(), code);
    }
}

#[test]
fn a_frame_of_the_largest_size_is_read() {
    let mut pair = Pair::many();
    pair.said();
    let mut text = json!({"type": "pong"}).to_string();
    text.push_str(&" ".repeat(limits::VIEWER_FRAME_BYTES - text.len()));
    pair.viewer.handle_text(pair.now, text.as_bytes());
    assert!(pair.poll().is_none());
}

#[test]
fn twenty_frames_a_second_and_one_more() {
    let mut pair = Pair::many();
    for _ in 0..limits::VIEWER_FRAMES_PER_SECOND {
        pair.send(&json!({"type": "pong"}));
    }
    assert_eq!(kinds(&pair.said()), ["hello"]);
    pair.now += Duration::from_millis(50);
    pair.send(&json!({"type": "pong"}));
    assert!(pair.poll().is_none(), "one more after a twentieth of a second");
    pair.send(&json!({"type": "pong"}));
    assert_eq!(pair.said()[0]["retry_after_ms"], 1000);
    assert_eq!(pair.closed(), 4429);
}

#[test]
fn silence_is_filled_with_heartbeats_and_three_unanswered_end_it() {
    let mut pair = Pair::many();
    pair.said();
    for _ in 0..2 {
        pair.wait(HEARTBEAT);
        assert_eq!(kinds(&pair.said()), ["heartbeat"]);
    }
    pair.send(&json!({"type": "pong"}));
    for _ in 0..3 {
        pair.wait(HEARTBEAT);
        assert_eq!(kinds(&pair.said()), ["heartbeat"], "counted from the answer");
    }
    pair.wait(HEARTBEAT);
    assert_eq!(pair.closed(), 4408);
}

#[test]
fn p8_a_viewer_that_takes_nothing_is_closed_after_60_s_and_a_slow_one_is_not() {
    let mut pair = Pair::many();
    assert!(matches!(pair.poll(), Some(Action::Send(_))));
    for _ in 0..5 {
        pair.wait(STALLED - Duration::from_millis(1));
        assert!(pair.poll().is_none());
        pair.viewer.handle_progress(pair.now);
    }
    pair.wait(STALLED);
    assert_eq!(pair.closed(), 4408);
}

#[test]
fn p15_a_relay_that_drains_says_when_to_come_back() {
    let mut pair = Pair::many();
    pair.said();
    pair.viewer.handle_drain(700);
    let error = &pair.said()[0];
    assert_eq!((&error["code"], &error["retry_after_ms"]), (&json!("draining"), &json!(700)));
    assert_eq!(pair.closed(), 1012);
    assert!(pair.poll().is_none());
}

/// A viewer's machine and its driver, in virtual time.
struct Pair {
    viewer: Viewer,
    now: Instant,
}

impl Pair {
    fn many() -> Self {
        let now = tokio::time::Instant::now().into_std();
        Self { viewer: Viewer::new(now), now }
    }

    fn of_one_log() -> Self {
        let now = tokio::time::Instant::now().into_std();
        Self { viewer: Viewer::of_one_log(now, log("a1"), None, TypeFilter::default()), now }
    }

    fn poll(&mut self) -> Option<Action> {
        self.viewer.poll(self.now)
    }

    fn send(&mut self, frame: &Value) {
        self.viewer.handle_text(self.now, frame.to_string().as_bytes());
    }

    fn wait(&mut self, time: Duration) {
        self.now += time;
        self.viewer.handle_time(self.now, Timestamp::from_unix_ms(0));
    }

    fn open(&mut self, floor: u64, head: u64) {
        assert!(matches!(self.poll(), Some(Action::Open(opened)) if opened == log("a1")));
        self.viewer.handle_opened(&log("a1"), bounds(floor, head));
    }

    /// Answers the read that is asked for.
    fn page(&mut self, seqs: &[u64], head: u64, more: bool) {
        assert!(matches!(self.poll(), Some(Action::Read { .. })));
        self.viewer.handle_page(&log("a1"), &page(seqs, head, more));
    }

    fn nothing(&mut self) {
        assert!(matches!(self.poll(), Some(Action::Read { .. })));
        self.viewer.handle_nothing(&log("a1"));
    }

    /// The frames that are said next, all taken.
    fn said(&mut self) -> Vec<Value> {
        let mut frames = Vec::new();
        while !self.viewer.out.is_empty() {
            let Some(Action::Send(frame)) = self.poll() else { panic!("frames come first") };
            frames.push(serde_json::from_slice(&websocket::payload(&frame)).unwrap());
        }
        self.viewer.handle_sent();
        frames
    }

    fn closed(&mut self) -> u16 {
        loop {
            match self.poll() {
                Some(Action::Close { code, .. }) => return code.0,
                Some(_) => {}
                None => panic!("the socket is open"),
            }
        }
    }
}

fn log(agent: &str) -> LogId {
    format!("agent/{agent}").parse().unwrap()
}

fn bounds(floor: u64, head: u64) -> Bounds {
    Bounds { epoch: Epoch::new("e1"), floor: Seq::new(floor), head: Seq::new(head) }
}

fn page(seqs: &[u64], head: u64, more: bool) -> EncodedPage {
    let record = |seq: &u64| {
        let event = NewEvent::of(Timestamp::from_unix_ms(0), "x", &seq).unwrap().at(Seq::new(*seq));
        Record { seq: event.seq, kind: event.kind.clone(), key: None, envelope: event.encode() }
    };
    let page = Page { bounds: bounds(0, head), records: seqs.iter().map(record).collect(), more };
    EncodedPage::of(&log("a1"), page)
}

fn kinds(frames: &[Value]) -> Vec<&str> {
    frames.iter().map(|frame| frame["type"].as_str().unwrap()).collect()
}
