//! The laws of a log, on random histories: the rules against a naive model that keeps every event for ever and finds
//! out by looking at all of them.

use proptest::prelude::*;
use protocol::{Effect, Event, Key, LogId, NewEvent, RawData, Seq, Timestamp, view::SessionView};

use super::*;
use crate::{Append, ProducerBatch};

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    /// Clauses 8 and 9: what is kept is what the model says, after each append.
    #[test]
    fn p10_kept_events_are_those_that_nothing_made_obsolete_or_pruned(
        batches in batches(), events in 1..12_u64, bytes in 200..3_000_u64,
    ) {
        let retention = Retention { events, bytes, idle: None };
        let (mut log, mut model) = (Log::new(retention), Model::default());
        for batch in batches {
            model.append(&batch, retention);
            log.append(batch);
            prop_assert_eq!(log.seqs(), model.kept());
            let header = log.state.header();
            prop_assert_eq!((header.floor, header.head), (model.floor, Seq::new(model.all.len() as u64)));
            prop_assert_eq!(header.events, log.records.len() as u64);
            prop_assert_eq!(header.bytes, log.records.iter().map(|r| r.envelope.len() as u64).sum::<u64>());
        }
    }

    /// Clause 8 and the law of compaction: from any cursor the rest folds to the view of everything.
    #[test]
    fn p10_a_compacted_log_folds_to_the_same_view_from_any_cursor(batches in batches(), cut in 0..100_usize) {
        let mut log = Log::new(Retention::UNBOUNDED);
        let all: Vec<Event> = (1..).zip(batches.concat()).map(|(seq, event)| event.at(Seq::new(seq))).collect();
        for batch in batches {
            log.append(batch);
        }
        let cut = cut.min(all.len());
        let rest: Vec<Event> = log.records.iter().map(|record| record.event().unwrap()).collect();
        let rest = rest.iter().filter(|event| event.seq.get() > cut as u64);
        let seen = all[..cut].iter().chain(rest);
        prop_assert_eq!(folded(seen), folded(all.iter()));
    }

    /// A log that is taken out of memory and restored goes on as if it had not been.
    #[test]
    fn a_restored_log_goes_on_the_same(batches in batches(), at in 0..8_usize, events in 1..12_u64) {
        let retention = Retention { events, bytes: u64::MAX, idle: None };
        let (mut log, mut other) = (Log::new(retention), Log::new(retention));
        for (n, batch) in batches.into_iter().enumerate() {
            if n == at {
                other.restore(retention);
            }
            log.append(batch.clone());
            other.append(batch);
            prop_assert_eq!(&other.records, &log.records);
            prop_assert_eq!(other.state.header(), log.state.header());
        }
    }

    /// Clause 5: however often and in whatever pieces a producer resends, each of its events is there once, in order.
    #[test]
    fn p5_any_resending_appends_each_event_once(pieces in prop::collection::vec((1..20_u64, 0..8_u64), 1..40)) {
        let mut state = LogState::new(Epoch::new("e"), Retention::UNBOUNDED);
        let mut appended = Vec::new();
        let mut acked = 0;
        for (first, len) in pieces {
            let batch = Append::of((first..first + len).map(numbered).collect());
            let producer = ProducerBatch { producer: "p".parse().unwrap(), generation: 1, first };
            match state.append(&log_id(), &Prepared::of(batch.from_producer(producer))) {
                Ok(change) => {
                    appended.extend(change.stored.iter().map(|s| s.record.event().unwrap().data.parse::<u64>().unwrap()));
                    acked = change.appended.acked;
                }
                Err(AppendError::Hole { acked: known, first: refused, .. }) => {
                    prop_assert_eq!((known, refused), (acked, first));
                    prop_assert!(first > acked + 1);
                }
                Err(error) => prop_assert!(false, "{}", error),
            }
        }
        let begin = appended.first().copied().unwrap_or(1);
        prop_assert_eq!(appended, (begin..=acked).collect::<Vec<_>>());
    }

    /// Clause 6: a log never accepts an older generation than one it has accepted.
    #[test]
    fn p6_generations_never_go_back(tries in prop::collection::vec((0..3_u8, 1..6_u64), 1..30)) {
        let mut state = LogState::new(Epoch::new("e"), Retention::UNBOUNDED);
        let mut accepted: Option<(u64, u8)> = None;
        for (producer, generation) in tries {
            let batch = ProducerBatch { producer: format!("p{producer}").parse().unwrap(), generation, first: 1 };
            let is_fenced = state.append(&log_id(), &Prepared::of(Append::default().from_producer(batch))).is_err();
            let expected = accepted.is_some_and(|(g, p)| generation < g || (generation == g && producer != p));
            prop_assert_eq!(is_fenced, expected);
            if !is_fenced {
                accepted = Some((generation, producer));
            }
        }
    }
}

/// A backend of the simplest kind: the rules, and a list.
struct Log {
    state: LogState,
    records: Vec<Record>,
    entries: Vec<Entry>,
}

impl Log {
    fn new(retention: Retention) -> Self {
        Self { state: LogState::new(Epoch::new("e"), retention), records: Vec::new(), entries: Vec::new() }
    }

    fn append(&mut self, batch: Vec<NewEvent>) {
        let change = self.state.append(&log_id(), &Prepared::of(Append::of(batch))).unwrap();
        for seq in &change.obsolete {
            assert!(self.records.iter().any(|record| record.seq == *seq), "{seq} was not there to be taken");
        }
        self.entries.extend(change.stored.iter().map(Stored::entry));
        self.records.extend(change.stored.into_iter().map(|stored| stored.record));
        self.records.retain(|r| r.seq > change.floor && change.obsolete.binary_search(&r.seq).is_err());
    }

    fn restore(&mut self, retention: Retention) {
        let is_kept = |entry: &&Entry| self.records.iter().any(|record| record.seq == entry.seq);
        let entries: Vec<_> = self.entries.iter().filter(is_kept).cloned().collect();
        self.state = LogState::restore(self.state.header(), retention, Producers::default(), entries);
    }

    fn seqs(&self) -> Vec<Seq> {
        self.records.iter().map(|record| record.seq).collect()
    }
}

/// Every event ever appended, and whether it is still to be read.
#[derive(Default)]
struct Model {
    all: Vec<(Event, bool)>,
    floor: Seq,
}

impl Model {
    fn append(&mut self, batch: &[NewEvent], retention: Retention) {
        for event in batch {
            let classified = event.classify();
            let event = event.clone().at(Seq::new(self.all.len() as u64 + 1));
            for (earlier, is_kept) in &mut self.all {
                *is_kept &= !makes_obsolete(&event, classified.effect, earlier);
            }
            self.all.push((event, true));
        }
        while self.kept().len() > 1
            && (self.kept().len() as u64 > retention.events || self.bytes() > retention.bytes)
        {
            self.floor = self.kept()[0];
        }
    }

    fn kept(&self) -> Vec<Seq> {
        let kept = self.all.iter().filter(|(event, is_kept)| *is_kept && event.seq > self.floor);
        kept.map(|(event, _)| event.seq).collect()
    }

    fn bytes(&self) -> u64 {
        let kept = self.all.iter().filter(|(event, is_kept)| *is_kept && event.seq > self.floor);
        kept.map(|(event, _)| event.encode().len() as u64).sum()
    }
}

/// Clause 8, word by word.
fn makes_obsolete(event: &Event, effect: Effect, earlier: &Event) -> bool {
    let is_tombstone = earlier.key.is_some() && earlier.effect() == Effect::Remove;
    match (effect, &event.key) {
        (Effect::Replace, Some(key)) => earlier.key.as_ref() == Some(key) && !is_tombstone,
        (Effect::Remove, Some(key)) => {
            let session = key.as_str().strip_prefix("session/");
            earlier.key.as_ref().is_some_and(|other: &Key| key.covers(other))
                || (session.is_some() && earlier.session.as_deref() == session)
        }
        (Effect::Append, _) | (Effect::Replace | Effect::Remove, None) => false,
    }
}

fn folded<'a>(events: impl Iterator<Item = &'a Event>) -> SessionView {
    let mut view = SessionView::default();
    events.for_each(|event| view.apply(event));
    view
}

fn batches() -> impl Strategy<Value = Vec<Vec<NewEvent>>> {
    prop::collection::vec(prop::collection::vec(event(), 0..12), 0..12)
}

/// Events of two sessions with two messages each, as agent servers send them: a message belongs to one session.
fn event() -> impl Strategy<Value = NewEvent> {
    let kinds = prop::sample::select(vec![
        (
            "message.part.delta",
            r#"{"sessionID":"S","messageID":"M","partID":"P","field":"text","delta":"d"}"#,
        ),
        (
            "message.part.updated",
            r#"{"part":{"sessionID":"S","messageID":"M","id":"P","type":"text","text":"t"}}"#,
        ),
        ("message.part.removed", r#"{"sessionID":"S","messageID":"M","partID":"P"}"#),
        ("message.updated", r#"{"info":{"id":"M","sessionID":"S","role":"user","time":{"created":1}}}"#),
        ("message.removed", r#"{"sessionID":"S","messageID":"M"}"#),
        ("session.updated", r#"{"info":{"id":"S","title":"t","time":{"created":1}}}"#),
        ("session.deleted", r#"{"info":{"id":"S"}}"#),
        ("session.status", r#"{"sessionID":"S","status":{"type":"busy"}}"#),
        ("session.error", r#"{"sessionID":"S","error":{"name":"Unknown","data":{"message":"m"}}}"#),
        ("file.edited", r#"{"file":"a"}"#),
    ]);
    (kinds, 0..2_u8, 0..2_u8, 0..2_u8).prop_map(|((kind, data), session, message, part)| {
        let session = format!("s{session}");
        let data = data
            .replace("\"M\"", &format!("\"{session}m{message}\""))
            .replace("\"P\"", &format!("\"p{part}\""))
            .replace("\"S\"", &format!("\"{session}\""));
        NewEvent {
            time: Timestamp::from_unix_ms(1),
            kind: kind.into(),
            session: (kind != "file.edited").then(|| session.into()),
            data: RawData::from_json(data).unwrap(),
        }
    })
}

fn numbered(n: u64) -> NewEvent {
    NewEvent::of(Timestamp::from_unix_ms(0), "file.edited", &n).unwrap()
}

fn log_id() -> LogId {
    "agent/a".parse().unwrap()
}
