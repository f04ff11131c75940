use proptest::prelude::*;
use protocol::{Cursor, NewEvent, Timestamp};

use store::{Page, Record};

use super::*;
use crate::tail::{After, Tail, TailLimits};

#[test]
fn a_reader_without_cursor_gets_what_is_kept_and_no_gap() {
    let log = Log::with(&[(6, "x"), (7, "y")], 5);
    let mut reader = reader(None);
    assert_eq!(told(reader.open(log.bounds())), ["subscribed 5..7"]);
    assert_eq!(told(reader.page(&log.encoded(Seq::new(5), 10))), ["events 6,7", "live 7"]);
}

#[test]
fn an_empty_history_is_live_at_once() {
    let log = Log::with(&[(7, "x")], 0);
    assert_eq!(told(reader(Some(StartAt::Head)).open(log.bounds())), ["subscribed 0..7", "live 7"]);
    assert_eq!(told(reader(after("e1", 7)).open(log.bounds())), ["subscribed 0..7", "live 7"]);
}

#[test]
fn p3_cursor_below_the_floor_gets_a_gap_before_any_event() {
    let log = Log::with(&[(6, "x")], 5);
    let mut reader = reader(after("e1", 2));
    assert_eq!(told(reader.open(log.bounds())), ["subscribed 5..6", "gap 3..5 Pruned"]);
    assert_eq!(told(reader.page(&log.encoded(Seq::new(5), 10))), ["events 6", "live 6"]);
}

#[test]
fn p3_cursor_at_the_floor_gets_no_gap() {
    let log = Log::with(&[(6, "x")], 5);
    assert_eq!(told(reader(after("e1", 5)).open(log.bounds())), ["subscribed 5..6"]);
}

#[test]
fn p3_cursor_of_another_epoch_gets_a_gap_and_all_that_is_kept() {
    let log = Log::with(&[(6, "x")], 5);
    let mut reader = reader(after("e0", 900));
    assert_eq!(told(reader.open(log.bounds())), ["subscribed 5..6", "gap epoch"]);
    assert_eq!(told(reader.page(&log.encoded(Seq::new(5), 10))), ["events 6", "live 6"]);
}

#[test]
fn p3_cursor_above_the_head_gets_a_gap_and_all_that_is_kept() {
    let log = Log::with(&[(6, "x")], 5);
    let mut reader = reader(after("e1", 9));
    assert_eq!(told(reader.open(log.bounds())), ["subscribed 5..6", "gap 7..9 Ahead"]);
    assert_eq!(told(reader.page(&log.encoded(Seq::new(5), 10))), ["events 6", "live 6"]);
}

#[test]
fn p3_pruning_that_overtakes_a_slow_reader_is_a_gap() {
    let mut log = Log::with(&[(1, "x"), (2, "x"), (3, "x")], 0);
    let mut reader = reader(None);
    reader.open(log.bounds());
    assert_eq!(told(reader.page(&log.encoded(Seq::ZERO, 1))), ["events 1"]);
    log.prune(2);
    assert_eq!(told(reader.page(&log.encoded(Seq::new(1), 10))), ["gap 2..2 Pruned", "events 3", "live 3"]);
}

#[test]
fn p3_pruning_between_the_opening_and_the_first_page_is_a_gap() {
    let mut log = Log::with(&[(1, "x"), (2, "x")], 0);
    let mut reader = reader(None);
    reader.open(log.bounds());
    log.prune(1);
    assert_eq!(told(reader.page(&log.encoded(Seq::ZERO, 10))), ["gap 1..1 Pruned", "events 2", "live 2"]);
}

#[test]
fn p3_a_log_made_again_is_a_gap() {
    let mut log = Log::with(&[(1, "x"), (2, "x")], 0);
    let mut reader = reader(None);
    reader.open(log.bounds());
    reader.page(&log.encoded(Seq::ZERO, 10));
    log = Log::with(&[(1, "y")], 0);
    log.epoch = Epoch::new("e2");
    assert_eq!(told(reader.page(&log.encoded(Seq::new(2), 10))), ["gap epoch"]);
    assert_eq!(told(reader.page(&log.encoded(Seq::ZERO, 10))), ["events 1"]);
    assert_eq!(reader.position(), Some((&Epoch::new("e2"), Seq::new(1))));
}

#[test]
fn live_is_said_once_at_the_head_of_subscribe_time() {
    let mut log = Log::with(&[(1, "x"), (2, "x")], 0);
    let mut reader = reader(None);
    reader.open(log.bounds());
    log.append(&[(3, "x")]);
    assert_eq!(told(reader.page(&log.encoded(Seq::ZERO, 1))), ["events 1"]);
    assert_eq!(told(reader.page(&log.encoded(Seq::new(1), 1))), ["events 2", "live 2"]);
    assert_eq!(told(reader.page(&log.encoded(Seq::new(2), 9))), ["events 3"]);
}

#[test]
fn live_comes_even_if_the_head_was_compacted_away_or_filtered_out() {
    let mut log = Log::with(&[(1, "a.x"), (2, "b.x"), (4, "b.y")], 0);
    let mut reader = Subscription::new(log_id(), None, TypeFilter::parse("a.*").unwrap());
    reader.open(log.bounds());
    log.records.remove(2);
    assert_eq!(told(reader.page(&log.encoded(Seq::ZERO, 9))), ["events 1", "live 4"]);
}

#[test]
fn ended_is_said_when_the_reader_has_caught_up_and_the_agent_has_not_started_again() {
    let mut log = Log::with(&[(1, "agent.exited"), (2, "agent.started"), (3, "agent.failed")], 0);
    let mut reader = reader(None);
    reader.open(log.bounds());
    assert_eq!(told(reader.page(&log.encoded(Seq::ZERO, 1))), ["events 1"]);
    assert_eq!(
        told(reader.page(&log.encoded(Seq::new(1), 9))),
        ["events 2,3", "live 3", "ended because of 3"]
    );
    log.append(&[(4, "agent.started")]);
    assert_eq!(told(reader.page(&log.encoded(Seq::new(3), 9))), ["events 4"]);
}

proptest! {
    /// Whatever is read when, from the store or the tail, over any disconnects: each event once, in order, and nothing
    /// missing but what compaction took or a gap names.
    #[test]
    fn p2_each_event_once_in_order_over_random_disconnects(steps in prop::collection::vec(step(), 1..60)) {
        let mut log = Log::with(&[(1, "x")], 0);
        let mut tail = Tail::new(log_id(), log.epoch.clone(), log.head(), TailLimits { segments: 3, bytes: 1 << 20 });
        let mut link: Option<Subscription> = None;
        let mut seen = Seen::default();
        for step in steps {
            match step {
                Step::Append(n) => {
                    let head = log.head().get();
                    log.append(&(1..=n).map(|i| (head + i, "x")).collect::<Vec<_>>());
                    tail.push(log.page(tail.head(), 100));
                }
                Step::Prune => log.prune(log.head().get() / 2),
                Step::Compact(at) => log.compact(at),
                Step::Disconnect => link = None,
                Step::Read(limit) => read(&mut link, &log, &tail, limit, &mut seen),
            }
        }
        while seen.position < log.head() {
            read(&mut link, &log, &tail, 7, &mut seen);
        }
        let missing = (1..=log.head().get())
            .filter(|seq| !seen.events.contains(seq) && !log.compacted.contains(seq))
            .filter(|seq| !seen.gaps.iter().any(|gap| gap.contains(seq)))
            .collect::<Vec<_>>();
        prop_assert!(missing.is_empty(), "neither seen, compacted nor named by a gap: {missing:?}");
    }
}

/// What a client of the test has folded, over all its connections.
#[derive(Default)]
struct Seen {
    position: Seq,
    events: Vec<u64>,
    gaps: Vec<std::ops::RangeInclusive<u64>>,
}

fn read(link: &mut Option<Subscription>, log: &Log, tail: &Tail, limit: usize, seen: &mut Seen) {
    let items = match link {
        None => {
            let from =
                (seen.position > Seq::ZERO).then(|| Cursor { epoch: log.epoch.clone(), seq: seen.position });
            let reader = link.insert(reader(from.map(StartAt::After)));
            if seen.position == Seq::ZERO {
                // It asks for what is kept: `subscribed` says from where on that is.
                seen.gaps.push(1..=log.floor.get());
            }
            reader.open(log.bounds())
        }
        Some(reader) => {
            let (epoch, position) = reader.position().unwrap();
            match tail.after(epoch, position) {
                After::Segment(segment) | After::Newest(segment) => reader.segment(&segment),
                After::Nothing => Vec::new(),
                After::Behind => reader.page(&log.encoded(position, limit)),
            }
        }
    };
    for item in items {
        match item {
            Item::Events(segment) => {
                for record in segment.records() {
                    assert!(record.seq > seen.position, "{} again, or out of order", record.seq);
                    seen.position = record.seq;
                    seen.events.push(record.seq.get());
                }
            }
            Item::Gap { from, to, .. } => {
                seen.gaps.push(from.unwrap().get()..=to.unwrap().get());
                seen.position = seen.position.max(to.unwrap());
            }
            Item::Subscribed(_) | Item::Live(_) | Item::Ended(_) => {}
        }
    }
    if let Some((_, position)) = link.as_ref().and_then(Subscription::position) {
        seen.position = seen.position.max(position);
    }
}

#[derive(Debug, Clone)]
enum Step {
    Append(u64),
    Prune,
    Compact(u64),
    Disconnect,
    Read(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (1_u64..5).prop_map(Step::Append),
        1 => Just(Step::Prune),
        1 => (1_u64..60).prop_map(Step::Compact),
        1 => Just(Step::Disconnect),
        4 => (1_usize..6).prop_map(Step::Read),
    ]
}

/// A log as the store's contract describes it, small enough to be seen to be right.
struct Log {
    epoch: Epoch,
    floor: Seq,
    head: Seq,
    records: Vec<Record>,
    compacted: Vec<u64>,
}

impl Log {
    fn with(events: &[(u64, &str)], floor: u64) -> Self {
        let mut log = Self {
            epoch: Epoch::new("e1"),
            floor: Seq::new(floor),
            head: Seq::new(floor),
            records: Vec::new(),
            compacted: Vec::new(),
        };
        log.append(events);
        log
    }

    fn append(&mut self, events: &[(u64, &str)]) {
        for (seq, kind) in events {
            let data = serde_json::json!({ "reason": format!("because of {seq}") });
            let event = NewEvent::of(Timestamp::from_unix_ms(0), kind, &data).unwrap().at(Seq::new(*seq));
            self.head = event.seq;
            let (seq, kind, envelope) = (event.seq, event.kind.clone(), event.encode());
            self.records.push(Record { seq, kind, key: None, envelope });
        }
    }

    fn prune(&mut self, upto: u64) {
        self.floor = self.floor.max(Seq::new(upto));
        self.records.retain(|record| record.seq > self.floor);
    }

    fn compact(&mut self, at: u64) {
        if self.records.iter().any(|record| record.seq.get() == at) {
            self.compacted.push(at);
            self.records.retain(|record| record.seq.get() != at);
        }
    }

    fn head(&self) -> Seq {
        self.head
    }

    fn bounds(&self) -> Bounds {
        Bounds { epoch: self.epoch.clone(), floor: self.floor, head: self.head }
    }

    fn encoded(&self, after: Seq, limit: usize) -> EncodedPage {
        EncodedPage::of(&"agent/a1".parse().unwrap(), self.page(after, limit))
    }

    fn page(&self, after: Seq, limit: usize) -> Page {
        let mut records = self.records.iter().filter(|record| record.seq > after);
        let page = records.by_ref().take(limit).cloned().collect();
        Page { bounds: self.bounds(), records: page, more: records.next().is_some() }
    }
}

fn log_id() -> LogId {
    "agent/a1".parse().unwrap()
}

fn reader(from: Option<StartAt>) -> Subscription {
    Subscription::new(log_id(), from, TypeFilter::default())
}

fn after(epoch: &str, seq: u64) -> Option<StartAt> {
    Some(StartAt::After(Cursor { epoch: Epoch::new(epoch), seq: Seq::new(seq) }))
}

fn told(items: Vec<Item>) -> Vec<String> {
    let number = |seq: Option<Seq>| seq.map(|seq| seq.to_string()).unwrap_or_default();
    let tell = |item| match item {
        Item::Subscribed(bounds) => format!("subscribed {}..{}", bounds.floor, bounds.head),
        Item::Gap { reason: GapReason::Epoch, from: None, to: None } => "gap epoch".to_owned(),
        Item::Gap { from, to, reason } => format!("gap {}..{} {reason:?}", number(from), number(to)),
        Item::Events(segment) => {
            let seqs = segment.records().iter().map(|record| record.seq.to_string()).collect::<Vec<_>>();
            format!("events {}", seqs.join(","))
        }
        Item::Live(head) => format!("live {head}"),
        Item::Ended(reason) => format!("ended {reason}"),
    };
    items.into_iter().map(tell).collect()
}
