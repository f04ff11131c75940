use proptest::prelude::*;
use protocol::{Epoch, config::TownConfig};
use serde_json::{Value, json};
use store::StoreError;

use super::*;

#[test]
fn a_wrapper_is_welcomed_with_what_is_committed_and_sends_on_from_there() {
    let mut pair = Pair::new();
    pair.send(&hello(3, 41));
    assert_eq!(pair.opened().next, 41);
    pair.link.handle_opened(&appended(40, 90), None);
    assert_eq!(
        pair.said(),
        [json!({"type": "welcome", "protocol": 1, "acked": 40, "limits": pair.limits()})]
    );
    pair.send(&append(41, 2));
    assert_eq!(pair.batch(), (41, 2));
    assert!(pair.said().is_empty(), "nothing is acked before the commit");
    pair.link.handle_appended(&appended(42, 92));
    assert_eq!(pair.said(), [json!({"type": "ack", "through": 42, "seq": 92})]);
}

#[test]
fn p5_what_was_committed_is_ignored_and_acked_again() {
    let mut pair = Pair::live(5);
    pair.send(&append(4, 2));
    assert_eq!(pair.said(), [json!({"type": "ack", "through": 5, "seq": 5})]);
    pair.send(&append(4, 4));
    assert_eq!(pair.batch(), (6, 2), "the part that is not committed");
}

#[test]
fn a_hole_in_the_numbers_is_refused() {
    let mut pair = Pair::live(5);
    pair.send(&append(7, 1));
    assert_eq!(pair.closed(), 4400);
}

#[test]
fn a_hole_that_is_named_is_taken() {
    let mut pair = Pair::live(5);
    pair.send(&append(6, 1));
    let events = json!([{"time": TIME, "type": "wrapper.events_dropped", "data": {"from": 7, "to": 9}}]);
    pair.send(&json!({"type": "append", "first": 10, "events": events}));
    assert_eq!(pair.batch(), (6, 1));
    pair.link.handle_appended(&appended(6, 6));
    pair.said();
    assert_eq!(pair.batch(), (10, 1), "a batch of its own: the numbers are not consecutive");
}

#[test]
fn one_batch_is_appended_at_a_time_and_what_comes_meanwhile_is_merged() {
    let mut pair = Pair::live(0);
    pair.send(&append(1, 1));
    assert_eq!(pair.batch(), (1, 1));
    pair.send(&append(2, 3));
    pair.send(&append(5, 4));
    assert!(pair.link.poll(pair.now).is_none());
    pair.link.handle_appended(&appended(1, 1));
    pair.said();
    assert_eq!(pair.batch(), (2, 7));
}

#[test]
fn p6_a_fenced_append_ends_the_link_as_superseded() {
    let mut pair = Pair::live(0);
    pair.send(&append(1, 1));
    pair.batch();
    let log = "agent/a1".parse().unwrap();
    pair.link.handle_append_failed(&AppendError::Fenced { log, generation: 3, latest: 4 });
    assert_eq!(pair.said(), [json!({"type": "superseded"})]);
    assert_eq!(pair.closed(), 4409);
}

#[test]
fn p6_a_superseded_link_takes_nothing_more() {
    let mut pair = Pair::live(0);
    pair.link.handle_superseded();
    pair.send(&append(1, 1));
    assert_eq!(pair.said(), [json!({"type": "superseded"})]);
    assert_eq!(pair.closed(), 4409);
    assert!(pair.link.poll(pair.now).is_none());
}

#[test]
fn a_store_without_space_is_a_nack_and_what_follows_waits_to_be_sent_again() {
    let mut pair = Pair::live(0);
    pair.send(&append(1, 2));
    pair.batch();
    pair.send(&append(3, 1));
    pair.link.handle_append_failed(&AppendError::Store(StoreError::Full { source: None }));
    let nack = &pair.said()[0];
    assert_eq!(
        (&nack["type"], &nack["first"], &nack["code"], &nack["retry_after_ms"]),
        (&json!("nack"), &json!(1), &json!("store_full"), &json!(1000))
    );
    pair.send(&append(4, 1));
    assert!(pair.link.poll(pair.now).is_none(), "sent before the nack arrived");
    pair.send(&append(1, 4));
    assert_eq!(pair.batch(), (1, 4));
}

#[test]
fn an_event_too_large_is_a_nack_and_what_came_before_it_is_taken() {
    let mut pair = Pair::live(0);
    let data = "x".repeat(limits::EVENT_DATA_HARD_BYTES);
    let events = json!([{"time": TIME, "type": "x", "data": 1}, {"time": TIME, "type": "x", "data": data}]);
    pair.send(&json!({"type": "append", "first": 1, "events": events}));
    let nack = &pair.said()[0];
    assert_eq!((&nack["first"], &nack["code"]), (&json!(2), &json!("too_large")));
    assert_eq!(pair.batch(), (1, 1));
}

#[test]
fn a_broken_store_ends_the_link() {
    let mut pair = Pair::live(0);
    pair.send(&append(1, 2));
    pair.batch();
    pair.link.handle_append_failed(&AppendError::Store(StoreError::Closed { reason: "fsync".into() }));
    assert_eq!(pair.closed(), 1011);
}

#[test]
fn hello_comes_first_and_once() {
    let mut pair = Pair::new();
    pair.send(&append(1, 1));
    assert_eq!(pair.closed(), 4400);
    let mut pair = Pair::live(0);
    pair.send(&hello(3, 1));
    assert_eq!(pair.closed(), 4400);
    let mut pair = Pair::new();
    let mut other = hello(3, 1);
    other["protocol"] = json!(2);
    pair.send(&other);
    assert_eq!(pair.closed(), 4400);
}

#[test]
fn a_wrapper_of_another_protocol_is_turned_away_and_told_of() {
    let mut pair = Pair::new();
    let mut other = hello(3, 1);
    (other["protocol"], other["wrapper_version"]) = (json!(2), json!("2.0.0"));
    pair.send(&other);
    let Some(Action::TurnAway(hello)) = pair.link.poll(pair.now) else { panic!("it is told of") };
    assert_eq!((hello.protocol, hello.wrapper_version.as_str()), (2, "2.0.0"));
    assert_eq!(pair.closed(), 4400);
    assert!(pair.link.hello().is_none());
}

#[test]
fn a_config_goes_with_the_greeting_and_with_a_command() {
    let config = || TownConfig::parse(r#"{"variant":"high"}"#).unwrap().seal();
    let mut pair = Pair::new();
    pair.send(&hello(3, 1));
    pair.opened();
    pair.link.handle_opened(&appended(0, 0), Some(config()));
    assert_eq!(pair.said()[0]["config"], json!({ "variant": "high" }));
    pair.link.handle_command(&"c1".parse().unwrap(), Command::Ping, Some(config()));
    assert_eq!(pair.said()[0]["config"], json!({ "variant": "high" }));
}

#[test]
fn a_wrapper_that_is_not_let_in_is_told_why() {
    for (code, close) in [(ErrorCode::Superseded, 4409), (ErrorCode::Forbidden, 4403)] {
        let mut pair = Pair::new();
        pair.send(&hello(3, 1));
        pair.opened();
        pair.link.handle_refused(&ErrorDetail::new(code, "no"));
        assert_eq!(pair.closed(), close);
    }
}

#[test]
fn input_is_held_back_while_hello_is_checked_and_beyond_the_window() {
    let mut pair = Pair::new();
    assert!(pair.link.wants_input());
    pair.send(&hello(3, 1));
    assert!(!pair.link.wants_input());
    let mut pair = Pair::live(0);
    pair.send(&append(1, 1));
    pair.batch();
    for batch in 0..4 {
        assert!(pair.link.wants_input());
        pair.send(&append(2 + batch * 256, 256));
    }
    assert!(!pair.link.wants_input());
}

#[test]
fn a_command_is_given_once_and_only_its_result_is_taken() {
    let mut pair = Pair::live(0);
    let id = "c1".parse::<CommandId>().unwrap();
    assert!(pair.link.handle_command(&id, Command::Abort, None));
    assert!(!pair.link.handle_command(&id, Command::Abort, None));
    assert_eq!(pair.said(), [json!({"type": "command", "id": "c1", "command": {"type": "abort"}})]);
    pair.send(&json!({"type": "result", "id": "c9", "ok": true}));
    assert!(pair.link.poll(pair.now).is_none(), "nobody asked");
    pair.send(&json!({"type": "result", "id": "c1", "ok": true}));
    let Some(Action::Result(result)) = pair.link.poll(pair.now) else { panic!("the result is routed back") };
    assert_eq!(result, CommandResult::ok(id));
}

#[test]
fn silence_is_filled_with_heartbeats_and_45_s_of_it_end_the_link() {
    let mut pair = Pair::live(0);
    pair.wait(HEARTBEAT);
    assert_eq!(pair.said(), [json!({"type": "heartbeat"})]);
    pair.wait(HEARTBEAT);
    pair.send(&json!({"type": "heartbeat"}));
    assert_eq!(pair.said(), [json!({"type": "heartbeat"})]);
    pair.wait(DEAD - Duration::from_millis(1));
    pair.said();
    assert!(pair.link.poll(pair.now).is_none());
    pair.wait(Duration::from_millis(1));
    assert_eq!(pair.closed(), 4408);
}

#[test]
fn p15_a_relay_that_drains_says_when_to_come_back() {
    let mut pair = Pair::live(0);
    pair.link.handle_drain(700);
    assert_eq!(pair.said(), [json!({"type": "draining", "retry_after_ms": 700})]);
    assert_eq!(pair.closed(), 1012);
}

#[test]
fn a_wrapper_that_says_bye_is_not_lost() {
    let mut pair = Pair::live(0);
    pair.send(&json!({"type": "bye", "reason": "done"}));
    assert_eq!(pair.closed(), 1000);
    assert!(pair.link.said_bye());
}

#[test]
fn p20_what_is_no_frame_ends_the_link_with_a_code() {
    for (text, code) in [("{", 4400), ("{\"type\":\"nothing\"}", 4400), (&*"x".repeat(2 << 20), 4413)] {
        let mut pair = Pair::live(0);
        pair.link.handle_text(pair.now, text.as_bytes());
        assert_eq!(pair.closed(), code);
    }
    let mut pair = Pair::live(0);
    pair.send(&json!({"type": "append", "first": 0, "events": []}));
    assert_eq!(pair.closed(), 4400);
    let mut pair = Pair::live(0);
    pair.send(&append(u64::MAX, 1));
    assert_eq!(pair.closed(), 4400);
    let mut pair = Pair::live(0);
    pair.send(&append(1, 257));
    assert_eq!(pair.closed(), 4413);
}

proptest! {
    /// Whatever a wrapper resends, in whatever batches, over whatever reconnects: what is appended is 1, 2, 3, … and
    /// what is acked is what was appended.
    #[test]
    fn p5_each_number_is_appended_once_over_random_reconnects(
        steps in prop::collection::vec((0_u64..6, 1_u64..9, prop::bool::weighted(0.15), any::<bool>()), 1..60),
    ) {
        let mut committed = 0;
        let mut pair = Pair::live(0);
        for (back, len, reconnect, commit) in steps {
            if reconnect {
                pair = Pair::live(committed);
            }
            let expected = match &pair.link.state {
                State::Live(live) => live.expected,
                State::Silent | State::Opening(_) => unreachable!("it is live"),
            };
            pair.send(&append(expected.saturating_sub(back).max(1), len));
            if !commit {
                continue;
            }
            while let Some(action) = pair.link.poll(pair.now) {
                match action {
                    Action::Append(batch) => {
                        prop_assert_eq!(batch.producer.unwrap().first, committed + 1);
                        committed += batch.events.len() as u64;
                        pair.link.handle_appended(&appended(committed, committed));
                    }
                    Action::Send(frame) => {
                        let frame = serde_json::from_slice::<Value>(&frame).unwrap();
                        prop_assert!(frame["through"].as_u64() == Some(committed), "{frame}");
                    }
                    Action::Open(_)
                    | Action::TurnAway(_)
                    | Action::Presence { .. } | Action::Result(_) | Action::Close { .. } => {
                        prop_assert!(false, "{action:?}");
                    }
                }
            }
        }
    }
}

const TIME: &str = "2026-11-20T18:10:16.123Z";

/// A link and its wrapper, in virtual time.
struct Pair {
    link: Ingest,
    now: Instant,
}

impl Pair {
    fn new() -> Self {
        let now = tokio::time::Instant::now().into_std();
        Self { link: Ingest::new(now), now }
    }

    /// Past the hello, with events committed through `acked`.
    fn live(acked: u64) -> Self {
        let mut pair = Self::new();
        pair.send(&hello(3, acked + 1));
        pair.opened();
        pair.link.handle_opened(&appended(acked, acked), None);
        pair.said();
        pair
    }

    fn send(&mut self, frame: &Value) {
        self.link.handle_text(self.now, frame.to_string().as_bytes());
    }

    fn wait(&mut self, time: Duration) {
        self.now += time;
        self.link.handle_time(self.now);
    }

    fn opened(&mut self) -> Hello {
        match self.link.poll(self.now) {
            Some(Action::Open(hello)) => hello,
            other => panic!("the driver is asked to open, not {other:?}"),
        }
    }

    /// The frames that are said next.
    fn said(&mut self) -> Vec<Value> {
        let mut frames = Vec::new();
        while !self.link.out.is_empty() {
            match self.link.poll(self.now) {
                Some(Action::Send(frame)) => frames.push(serde_json::from_slice(&frame).unwrap()),
                other => panic!("frames come first, not {other:?}"),
            }
        }
        frames
    }

    /// The first number and the length of the batch that is appended next.
    fn batch(&mut self) -> (u64, usize) {
        match self.link.poll(self.now) {
            Some(Action::Append(append)) => (append.producer.unwrap().first, append.events.len()),
            other => panic!("a batch is appended, not {other:?}"),
        }
    }

    fn closed(&mut self) -> u16 {
        loop {
            match self.link.poll(self.now) {
                Some(Action::Close { code, .. }) => return code.0,
                Some(_) => {}
                None => panic!("the link is open"),
            }
        }
    }

    fn limits(&self) -> Value {
        serde_json::to_value(IngestLimits::default()).unwrap()
    }
}

fn hello(generation: u64, next: u64) -> Value {
    json!({
        "type": "hello", "protocol": 1, "wrapper_version": "0.1.0", "agent": "a1", "town": "main", "producer": "p1",
        "generation": generation, "runtime": {"name": "scripted", "version": "1"}, "next": next,
    })
}

fn append(first: u64, len: u64) -> Value {
    let event = json!({"time": TIME, "type": "x", "data": {}});
    json!({"type": "append", "first": first, "events": vec![event; usize::try_from(len).unwrap()]})
}

fn appended(acked: u64, head: u64) -> Appended {
    Appended { epoch: Epoch::new("e1"), head: Seq::new(head), appended: 0, acked }
}
