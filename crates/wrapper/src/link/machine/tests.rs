use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use protocol::{NewEvent, Seq, agent::EventsDropped, config::TownConfig};

use super::*;
use crate::outbox::rules::{Entry, Kind, Ledger};

#[test]
fn it_says_hello_and_sends_from_what_the_relay_has() {
    let mut link = Harness::new("ssss");
    link.ledger.claim_all();
    link.ledger.ack(1);
    link.open(2);
    assert_eq!(link.said[..2], ["hello 2", "append 3..4"]);
    assert_eq!(link.machine.state(), LinkState::Live);
}

#[test]
fn p5_after_a_cut_it_sends_again_what_was_not_acked() {
    let mut link = Harness::new("sss");
    link.open(0);
    link.frame(ack(1));
    link.cut(None);
    link.pass(2_000);
    link.said.clear();
    link.open(1);
    assert_eq!(link.said, ["hello 2", "append 2..3"]);
}

#[test]
fn no_more_is_sent_than_the_window_allows() {
    let mut link = Harness::new(&"s".repeat(30));
    link.limits = IngestLimits { window: 10, max_batch_events: 4, ..IngestLimits::default() };
    link.open(0);
    assert_eq!(link.said[1..], ["append 1..4", "append 5..8", "append 9..10"]);
    link.frame(ack(4));
    assert_eq!(link.said[4..], ["append 11..14"]);
}

#[test]
fn no_more_bytes_are_sent_than_the_window_allows() {
    let mut link = Harness::new(&"L".repeat(12));
    link.open(0);
    let sent = link.said.iter().filter(|said| said.starts_with("append")).count();
    assert_eq!(sent, 3, "each is 1 MiB, and a fourth might be a little more");
    link.frame(ack(1));
    assert_eq!(link.said.last().unwrap(), "append 4..4");
}

#[test]
fn a_refused_append_is_sent_again_when_the_relay_says() {
    let mut link = Harness::new("sss");
    link.open(0);
    link.frame(nack(2, ErrorCode::Internal, Some(700)));
    assert_eq!(link.said.len(), 2);
    link.pass(699);
    assert_eq!(link.said.len(), 2);
    link.pass(1);
    assert_eq!(link.said.last().unwrap(), "append 2..3");
}

#[test]
fn p7_an_event_that_is_too_large_is_named_in_its_place() {
    let mut link = Harness::new("sss");
    link.open(0);
    link.frame(nack(2, ErrorCode::TooLarge, None));
    assert_eq!(link.said.last().unwrap(), "append 2..3 naming 2..2");
}

#[test]
fn p7_a_refused_event_that_was_dropped_meanwhile_is_named_on_a_fresh_link() {
    let mut link = Harness::new("sss");
    link.open(0);
    link.ledger.make_room(0);
    link.frame(nack(2, ErrorCode::Internal, Some(0)));
    link.pass(1);
    assert_eq!(link.said.last().unwrap(), "close 1000");
    link.pass(30_000);
    link.open(1);
    assert_eq!(link.said.last().unwrap(), "append 3..3 naming 1..3");
}

#[test]
fn a_silent_link_is_kept_alive_and_a_dead_one_is_left() {
    let mut link = Harness::new("");
    link.open(0);
    link.pass(15_000);
    assert_eq!(link.said.last().unwrap(), "heartbeat");
    link.frame(ToWrapper::Heartbeat);
    link.pass(19_999);
    assert_eq!(link.said.last().unwrap(), "heartbeat");
    link.pass(1);
    assert_eq!(link.said.last().unwrap(), "ping");
    link.pass(4_999);
    assert_eq!(link.machine.state(), LinkState::Live);
    link.pass(1);
    assert_eq!(link.said.last().unwrap(), "close 1000");
    assert_eq!(link.machine.state(), LinkState::Down { since: Moment::from_ms(40_000) });
}

#[test]
fn a_config_is_there_before_the_command_that_it_came_with() {
    let mut link = Harness::new("");
    link.open(0);
    let with_config = |id: &str| ToWrapper::Command {
        id: id.parse().unwrap(),
        command: Command::Ping,
        config: Some(config("high")),
    };
    link.frame(with_config("c1"));
    // What is asked again is not done again, and a config of back then may be old.
    link.frame(with_config("c1"));
    link.frame(command("c2"));
    assert_eq!(link.delivered, ["config high", "c1", "c2"]);
}

#[test]
fn the_relay_greets_with_a_config() {
    let mut link = Harness::new("");
    assert!(link.connects());
    link.machine.handle_connected(link.now);
    let limits = link.limits;
    link.frame(ToWrapper::Welcome { protocol: 1, acked: 0, limits, config: Some(config("low")) });
    assert_eq!(link.delivered, ["config low"]);
    assert_eq!(link.machine.state(), LinkState::Live);
}

#[test]
fn a_wrapper_that_was_asleep_itself_asks_before_it_leaves() {
    let mut link = Harness::new("");
    link.open(0);
    link.now = link.now + Duration::from_secs(8 * 3_600);
    link.run();
    assert_eq!(link.said[1..], ["ping", "heartbeat"]);
    link.machine.handle_sign_of_life(link.now);
    link.pass(19_999);
    assert_eq!((&link.said[3..], link.machine.state()), (&["heartbeat".to_owned()][..], LinkState::Live));
}

#[test]
fn a_relay_that_does_not_greet_is_tried_again() {
    let mut link = Harness::new("");
    assert!(link.connects());
    link.connecting = false;
    link.machine.handle_connected(link.now);
    link.run();
    link.pass(15_000);
    assert_eq!(link.said.last().unwrap(), "close 1000");
    link.pass(1_500);
    assert!(link.connects());
}

#[test]
fn p6_superseded_is_final_by_frame_and_by_close_code() {
    let mut by_frame = Harness::new("s");
    by_frame.open(0);
    by_frame.frame(ToWrapper::Superseded);
    let mut by_code = Harness::new("s");
    by_code.open(0);
    by_code.cut(Some(CloseCode::SUPERSEDED));
    for link in [&mut by_frame, &mut by_code] {
        assert_eq!(link.machine.state(), LinkState::Superseded);
        link.pass(3_600_000);
        assert!(!link.connects() && link.machine.deadline().is_none());
    }
}

#[test]
fn p6_superseded_is_final_before_the_greeting_too() {
    let mut link = Harness::new("");
    assert!(link.connects());
    link.machine.handle_connected(link.now);
    link.frame(ToWrapper::Superseded);
    assert_eq!(link.machine.state(), LinkState::Superseded);
}

#[test]
fn what_the_relay_said_last_is_done_though_the_link_is_cut_at_once() {
    let mut link = Harness::new("sss");
    link.open(0);
    let with_config = ToWrapper::Command {
        id: "c1".parse().unwrap(),
        command: Command::Ping,
        config: Some(config("high")),
    };
    for frame in [ack(1), with_config, nack(2, ErrorCode::TooLarge, None)] {
        link.machine.handle_frame(link.now, frame);
    }
    link.cut(None);
    assert_eq!(
        (link.ledger.acked(), &link.delivered[..]),
        (1, &["config high".to_owned(), "c1".to_owned()][..])
    );
    link.pass(2_000);
    link.open(1);
    assert_eq!(link.said.last().unwrap(), "append 2..3 naming 2..2");
}

#[test]
fn what_was_refused_is_no_part_of_the_window() {
    let mut link = Harness::new("sss");
    link.limits = IngestLimits { window: 3, ..IngestLimits::default() };
    link.open(0);
    link.frame(nack(1, ErrorCode::Internal, Some(700)));
    link.pass(700);
    assert_eq!(link.said[1..], ["append 1..3", "append 1..3"]);
}

#[test]
fn what_was_being_read_when_the_relay_refused_is_read_again() {
    let mut link = Harness::new("ss");
    link.open(0);
    link.ledger.push(Kind::State, Timestamp::from_unix_ms(0), 500, Some(()));
    link.machine.handle_progress(Progress { next: 4, acked: 0, ..Progress::default() });
    assert!(matches!(link.machine.poll(link.now), Some(Action::Read { after: 2, .. })));
    link.machine.handle_frame(link.now, nack(1, ErrorCode::Internal, Some(700)));
    let events = vec![NewEvent::of(Timestamp::from_unix_ms(0), "todo.updated", &3).unwrap()];
    link.machine.handle_read(link.now, Some(Batch { first: 3, events, bytes: 500 }));
    link.pass(700);
    assert_eq!(link.said[1..], ["append 1..2", "append 1..3"]);
}

#[test]
fn a_relay_that_goes_down_and_does_not_close_is_left_when_it_said() {
    let mut link = Harness::new("");
    link.open(0);
    link.frame(ToWrapper::Draining { retry_after_ms: 4_000 });
    link.pass(4_000);
    assert_eq!(link.said.last().unwrap(), "close 1000");
    assert!(link.connects());
}

#[test]
fn a_relay_that_goes_down_is_come_back_to_when_it_says() {
    let mut link = Harness::new("");
    link.open(0);
    link.frame(ToWrapper::Draining { retry_after_ms: 4_000 });
    assert_eq!(link.machine.state(), LinkState::Draining);
    link.add("s");
    assert!(!link.said.last().unwrap().starts_with("append"), "it would be sent in vain");
    link.cut(Some(CloseCode::DRAINING));
    link.pass(3_999);
    assert!(!link.connects());
    link.pass(1);
    assert!(link.connects());
}

#[test]
fn a_relay_that_does_nothing_but_refuse_for_a_minute_means_it() {
    for code in [CloseCode::BAD_REQUEST, CloseCode::UNAUTHENTICATED, CloseCode::FORBIDDEN] {
        let mut link = Harness::new("");
        assert!(link.is_refused_for(code, 59_999), "{code:?}");
        assert!(link.connects(), "however often it was refused");
        link.cut(Some(code));
        assert!(
            matches!(link.machine.state(), LinkState::Refused { code: said, .. } if said == code),
            "{code:?}"
        );
    }
}

#[test]
fn refusals_that_something_else_came_between_are_no_verdict() {
    let service: [fn(&mut Harness); 4] = [
        // No relay, another one's word, a link that held, and an ack.
        |link| link.cut(None),
        |link| link.cut(Some(CloseCode::INTERNAL)),
        |link| {
            link.open(0);
            link.pass(10_000);
            link.cut(Some(CloseCode::UNAUTHENTICATED));
        },
        |link| {
            let acked = link.ledger.acked();
            link.open(acked);
            link.frame(ack(1));
            link.cut(Some(CloseCode::UNAUTHENTICATED));
        },
    ];
    for between in service {
        let mut link = Harness::new("s");
        for _ in 0..10 {
            assert!(link.is_refused_for(CloseCode::UNAUTHENTICATED, 50_000));
            between(&mut link);
            link.pass(45_000);
        }
        assert!(link.connects());
    }
}

#[test]
fn p5_nothing_but_a_refusal_is_ever_final() {
    let mut link = Harness::new("");
    for code in [CloseCode::INTERNAL, CloseCode::STALLED, CloseCode::RATE_LIMITED, CloseCode(1006)].repeat(30)
    {
        assert!(link.connects());
        link.cut(Some(code));
        link.pass(45_000);
    }
    assert!(link.connects());
}

#[test]
fn waits_grow_to_five_seconds_and_begin_anew_after_a_stable_link() {
    let mut link = Harness::new("");
    let wait = |link: &mut Harness| {
        link.cut(None);
        link.machine.deadline().unwrap().since(link.now).as_millis()
    };
    for whole in [1_000, 2_000, 4_000, 5_000, 5_000] {
        assert!(link.connects());
        let waited = wait(&mut link);
        assert!((whole / 2..=whole * 3 / 2).contains(&waited), "{waited} for {whole}");
        link.pass(45_000);
    }
    link.open(0);
    link.pass(10_000);
    assert!(wait(&mut link) <= 1_500);
}

#[test]
fn a_command_is_delivered_once_and_answered_every_time() {
    let mut link = Harness::new("");
    link.open(0);
    link.frame(command("c1"));
    link.frame(command("c1"));
    assert_eq!(link.delivered, ["c1"]);
    link.machine.handle_result(CommandResult::ok("c1".parse().unwrap()));
    link.run();
    link.cut(None);
    link.pass(2_000);
    link.open(0);
    link.frame(command("c1"));
    assert_eq!(link.delivered, ["c1"]);
    assert_eq!(link.said.iter().filter(|said| *said == "result c1").count(), 2);
}

#[test]
fn an_answer_is_forgotten_after_a_thousand_newer_ones_but_nothing_under_way_is() {
    let mut commands = Commands::default();
    let id = |n: usize| -> CommandId { format!("c{n}").parse().unwrap() };
    for n in 0..=REMEMBERED + 1 {
        assert!(matches!(commands.ask(&id(n)), Asked::First));
        if n > 0 {
            commands.answer(&CommandResult::ok(id(n)));
        }
    }
    assert!(matches!(commands.ask(&id(0)), Asked::UnderWay));
    assert!(matches!(commands.ask(&id(2)), Asked::Answered(_)));
    assert_eq!(commands.results.len(), REMEMBERED + 1);
}

#[test]
fn the_last_presence_is_said_again_on_every_connection() {
    let mut link = Harness::new("");
    link.machine.handle_presence(WrapperState::Idle, Timestamp::from_unix_ms(0));
    link.machine.handle_presence(WrapperState::Active, Timestamp::from_unix_ms(0));
    link.open(0);
    assert_eq!(link.said[1..], ["presence Active"]);
}

#[test]
fn bye_is_the_last_word() {
    let mut link = Harness::new("");
    link.open(0);
    link.machine.handle_bye("done");
    link.run();
    assert_eq!(link.said[1..], ["bye", "close 1000"]);
    assert!(link.machine.is_over());
}

proptest! {
    #[test]
    fn p5_p7_every_number_is_delivered_or_named_and_no_outcome_is_lost(
        steps in prop::collection::vec((0_u8..7, "[dso]{1,9}", 0_u64..40), 1..80),
    ) {
        let mut link = Harness::new("");
        let mut relay = Relay::default();
        for (step, kinds, amount) in steps {
            match step {
                0 | 1 => link.add(&kinds),
                2 => {
                    link.ledger.make_room(amount * 500);
                    link.run();
                }
                3 => {
                    link.cut(None);
                    relay.connected = false;
                    link.pass(45_000);
                }
                4 => relay.refuse(&mut link, amount),
                _ => relay.take(&mut link, usize::try_from(amount).unwrap() % 4),
            }
            relay.greet(&mut link);
        }
        for _ in 0..8 {
            link.pass(40_000);
            relay.greet(&mut link);
            relay.take(&mut link, usize::MAX);
        }
        prop_assert_eq!(link.ledger.acked() + 1, link.ledger.next());
        for number in 1..link.ledger.next() {
            prop_assert!(relay.has.contains_key(&number) || relay.named.contains(&number), "{} is lost", number);
        }
        for outcome in &link.outcomes {
            prop_assert_eq!(relay.has.get(outcome).map(String::as_str), Some("agent.exited"));
        }
    }
}

/// A relay that follows §6, with its log.
#[derive(Default)]
struct Relay {
    connected: bool,
    acked: u64,
    rejecting: bool,
    appends: VecDeque<(u64, Vec<NewEvent>)>,
    has: BTreeMap<u64, String>,
    named: BTreeSet<u64>,
}

impl Relay {
    fn greet(&mut self, link: &mut Harness) {
        if !self.connected && link.connects() {
            self.connected = true;
            self.rejecting = false;
            self.appends.clear();
            link.appends.clear();
            link.open(self.acked);
        } else if !matches!(link.machine.phase, Phase::Live(_)) {
            self.connected = false;
        }
    }

    fn take(&mut self, link: &mut Harness, appends: usize) {
        for _ in 0..appends {
            let Some((first, events)) = link.appends.pop_front() else { return };
            if first > self.acked + 1 && self.rejecting {
                continue;
            }
            let named = &*events[0].kind == "wrapper.events_dropped";
            assert!(first <= self.acked + 1 || named, "{first} after {}", self.acked);
            self.rejecting = false;
            for (number, event) in (first..).zip(events) {
                if number <= self.acked {
                    continue;
                }
                if &*event.kind == "wrapper.events_dropped" {
                    let EventsDropped { from, to, .. } = event.data.parse().unwrap();
                    self.named.extend(from..=to);
                }
                assert!(self.has.insert(number, event.kind.to_string()).is_none(), "{number} twice");
                self.acked = number;
            }
            link.frame(ack(self.acked));
        }
    }

    fn refuse(&mut self, link: &mut Harness, wait: u64) {
        if link.appends.pop_front().is_some() {
            self.rejecting = true;
            link.frame(nack(self.acked + 1, ErrorCode::Internal, Some(wait)));
        }
    }
}

/// The machine with a ledger in place of the disk, on virtual time.
struct Harness {
    machine: Machine,
    ledger: Ledger<()>,
    now: Moment,
    limits: IngestLimits,
    connecting: bool,
    said: Vec<String>,
    appends: VecDeque<(u64, Vec<NewEvent>)>,
    delivered: Vec<String>,
    outcomes: BTreeSet<u64>,
}

impl Harness {
    fn new(kinds: &str) -> Self {
        let identity = Identity {
            agent: "a".parse().unwrap(),
            town: "main".parse().unwrap(),
            producer: "p".parse().unwrap(),
            generation: 1,
            runtime: RuntimeInfo { name: "scripted".to_owned(), version: "1".to_owned() },
        };
        let now = Moment::START;
        let mut link = Self {
            machine: Machine::new(identity, 7, Progress { next: 1, ..Progress::default() }, now),
            ledger: Ledger::new(1),
            now,
            limits: IngestLimits::default(),
            connecting: false,
            said: Vec::new(),
            appends: VecDeque::new(),
            delivered: Vec::new(),
            outcomes: BTreeSet::new(),
        };
        link.add(kinds);
        link
    }

    /// Pushes events: `d`elta, `s`tate, `o`utcome, `L`arge state.
    fn add(&mut self, kinds: &str) {
        for kind in kinds.chars() {
            let (kind, bytes) = match kind {
                'd' => (Kind::Delta, 500),
                's' => (Kind::State, 500),
                'L' => (Kind::State, 1024 * 1024),
                _ => (Kind::Outcome, 500),
            };
            if kind == Kind::Outcome {
                self.outcomes.insert(self.ledger.next());
            }
            self.ledger.push(kind, Timestamp::from_unix_ms(0), bytes, Some(()));
        }
        self.run();
    }

    fn connects(&mut self) -> bool {
        self.run();
        self.connecting
    }

    fn open(&mut self, acked: u64) {
        assert!(self.connects());
        self.connecting = false;
        self.machine.handle_connected(self.now);
        self.run();
        self.frame(ToWrapper::Welcome { protocol: 1, acked, limits: self.limits, config: None });
    }

    /// Refuses every attempt within this time. Returns whether it would try again.
    fn is_refused_for(&mut self, code: CloseCode, ms: u64) -> bool {
        let end = self.now + Duration::from_millis(ms);
        while self.now < end && self.connects() {
            self.cut(Some(code));
            // It stops where the next attempt begins.
            self.pass(u64::try_from(end.since(self.now).as_millis()).unwrap());
        }
        if !self.connects() {
            self.pass(45_000);
        }
        self.connects()
    }

    fn frame(&mut self, frame: ToWrapper) {
        self.machine.handle_frame(self.now, frame);
        self.run();
    }

    fn cut(&mut self, code: Option<CloseCode>) {
        self.connecting = false;
        self.machine.handle_disconnected(self.now, code.map(|code| (code, "said".to_owned())));
        self.run();
    }

    /// Lets time pass, as a driver would: the machine wakes at its deadlines. Time stops when it connects.
    fn pass(&mut self, ms: u64) {
        let end = self.now + Duration::from_millis(ms);
        while let Some(deadline) = self.machine.deadline().filter(|deadline| *deadline <= end) {
            self.now = self.now.max(deadline);
            self.run();
            if self.connecting {
                return;
            }
        }
        self.now = end;
        self.run();
    }

    fn run(&mut self) {
        loop {
            let (acked, next) = (self.ledger.acked(), self.ledger.next());
            self.machine.handle_progress(Progress { next, acked, ..Progress::default() });
            let Some(action) = self.machine.poll(self.now) else { return };
            match action {
                Action::Connect => self.connecting = true,
                Action::Send(frame) => self.sent(frame),
                Action::Ping => self.said.push("ping".to_owned()),
                Action::Resume { acked } => {
                    self.ledger.resume(acked);
                    self.machine.handle_resumed(self.now, acked);
                }
                Action::Read { after, max_events, max_bytes } => {
                    let entries = self.ledger.claim_after(after, max_events, max_bytes as u64);
                    let batch = entries.first().map(|first| Batch {
                        first: first.number,
                        events: entries.iter().map(|entry| event(entry)).collect(),
                        bytes: entries.iter().map(|entry| usize::try_from(entry.bytes).unwrap()).sum(),
                    });
                    self.machine.handle_read(self.now, batch);
                }
                Action::Ack { through } => self.ledger.ack(through),
                Action::Replace { number, reason } => {
                    self.ledger.replace(number, reason);
                }
                Action::Deliver { id, .. } => self.delivered.push(id.to_string()),
                Action::Configure(config) => {
                    let variant = config.open().unwrap().turn.variant.unwrap();
                    self.delivered.push(format!("config {variant}"));
                }
                Action::Close { code, .. } => {
                    self.connecting = false;
                    self.said.push(format!("close {}", code.0));
                }
            }
        }
    }

    fn sent(&mut self, frame: FromWrapper) {
        self.said.push(match frame {
            FromWrapper::Hello { next, .. } => format!("hello {next}"),
            FromWrapper::Append { first, events } => {
                let mut said = format!("append {first}..{}", first + events.len() as u64 - 1);
                if let Ok(EventsDropped { from, to, .. }) = events[0].data.parse() {
                    said = format!("{said} naming {from}..{to}");
                }
                self.appends.push_back((first, events));
                said
            }
            FromWrapper::Presence { state, .. } => format!("presence {state:?}"),
            FromWrapper::Result { id, .. } => format!("result {id}"),
            FromWrapper::Heartbeat => "heartbeat".to_owned(),
            FromWrapper::Bye { .. } => "bye".to_owned(),
            other => format!("{other:?}"),
        });
    }
}

fn event(entry: &Entry<()>) -> NewEvent {
    let kind = if entry.kind == Kind::Outcome { "agent.exited" } else { "todo.updated" };
    entry.notice().unwrap_or_else(|| NewEvent::of(entry.time, kind, &entry.number).unwrap())
}

fn ack(through: u64) -> ToWrapper {
    ToWrapper::Ack { through, seq: Seq::new(through) }
}

fn nack(first: u64, code: ErrorCode, retry_after_ms: Option<u64>) -> ToWrapper {
    ToWrapper::Nack { first, code, message: "no".to_owned(), retry_after_ms }
}

fn config(variant: &str) -> SealedConfig {
    TownConfig::parse(&format!(r#"{{"variant":"{variant}"}}"#)).unwrap().seal()
}

fn command(id: &str) -> ToWrapper {
    ToWrapper::Command { id: id.parse().unwrap(), command: Command::Ping, config: None }
}
