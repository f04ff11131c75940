//! The history oracle: given what wrappers sent and saw acked, what viewers were given, and what the store holds, it
//! says which promises were broken. It knows nothing of how the pieces work; it is tried with planted bugs below.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use protocol::{Effect, Event, Seq, frame::GapReason, view::SessionView};

/// Everything one run leaves behind about one log.
#[derive(Debug, Default, Clone)]
pub(crate) struct History {
    /// What was handed to the relay, in the order in which producers numbered it.
    pub(crate) sent: Vec<Sent>,
    /// Acks that producers saw.
    pub(crate) acked: Vec<Acked>,
    /// What each viewer was given.
    pub(crate) viewers: Vec<Viewer>,
    /// What the store holds in the end.
    pub(crate) stored: Vec<Event>,
    /// The highest position that pruning took.
    pub(crate) floor: Seq,
}

/// An event as its producer numbered it; `mark` is a text that its data alone holds.
#[derive(Debug, Clone)]
pub(crate) struct Sent {
    pub(crate) generation: u64,
    pub(crate) pseq: u64,
    pub(crate) mark: String,
}

/// Everything of a generation through this number was acked, at this position.
#[derive(Debug, Clone)]
pub(crate) struct Acked {
    pub(crate) generation: u64,
    pub(crate) through: u64,
}

/// One viewer, over all its connections.
#[derive(Debug, Default, Clone)]
pub(crate) struct Viewer {
    pub(crate) name: String,
    /// The position it began after.
    pub(crate) start: Seq,
    pub(crate) seen: Vec<Seen>,
    /// Whether it stayed to the end, so that it must have everything.
    pub(crate) stayed: bool,
}

/// What a viewer was given.
#[derive(Debug, Clone)]
pub(crate) enum Seen {
    Event(Event),
    Gap { from: Option<Seq>, to: Option<Seq>, reason: GapReason },
}

/// A broken promise.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Violation {
    /// P1: an acked event is neither stored nor obsolete nor pruned.
    AckedLost { generation: u64, pseq: u64 },
    /// P2: a viewer was given an event twice, or an older one after a newer.
    OutOfOrder { viewer: String, seq: u64 },
    /// P2: a viewer passed over an event that the store holds, and no gap names it.
    Missed { viewer: String, seq: u64 },
    /// P3: a gap names an event that the store still holds.
    FalseGap { viewer: String, seq: u64 },
    /// P4: a viewer was given an event that the log does not have and did not make obsolete.
    Phantom { viewer: String, seq: u64 },
    /// P5: one event has two positions.
    Twice { mark: String },
    /// P5: events of one producer are stored in another order than it numbered them.
    Reordered { mark: String },
    /// P6: an event of an older generation stands after one of a newer.
    Unfenced { seq: u64 },
    /// P9: one position has two texts.
    OtherBytes { viewer: String, seq: u64 },
    /// P10: what a viewer folded is not what the store folds to.
    OtherView { viewer: String },
}

impl History {
    /// Every promise this history breaks.
    pub(crate) fn violations(&self) -> BTreeSet<Violation> {
        let mut found = BTreeSet::new();
        let log = Log::of(self);
        self.judge_producers(&log, &mut found);
        for viewer in &self.viewers {
            judge_viewer(viewer, &log, &mut found);
        }
        found
    }

    /// Fails with every broken promise.
    pub(crate) fn assert_holds(&self) {
        let violations = self.violations();
        assert!(violations.is_empty(), "broken promises: {violations:#?}");
    }

    fn judge_producers(&self, log: &Log<'_>, found: &mut BTreeSet<Violation>) {
        // A sent event is looked for by its mark in everything the log ever showed: in the store, or at a viewer.
        let mut positions: BTreeMap<&str, BTreeSet<u64>> = BTreeMap::new();
        for (seq, event) in &log.ever {
            for sent in self.sent.iter().filter(|sent| event.data.json().contains(&sent.mark)) {
                positions.entry(&sent.mark).or_default().insert(*seq);
            }
        }
        for sent in &self.sent {
            if positions.get(sent.mark.as_str()).is_some_and(|seqs| seqs.len() > 1) {
                found.insert(Violation::Twice { mark: sent.mark.clone() });
            }
            let acked = self.acked.iter().any(|a| a.generation == sent.generation && sent.pseq <= a.through);
            if acked && !positions.contains_key(sent.mark.as_str()) && log.floor == 0 {
                found.insert(Violation::AckedLost { generation: sent.generation, pseq: sent.pseq });
            }
        }
        let mut newest: Option<(u64, u64, u64)> = None;
        for (seq, event) in &log.ever {
            let Some(sent) = self.sent.iter().find(|sent| event.data.json().contains(&sent.mark)) else {
                continue;
            };
            if let Some((generation, pseq, _)) = newest {
                if sent.generation < generation {
                    found.insert(Violation::Unfenced { seq: *seq });
                } else if sent.generation == generation && sent.pseq < pseq {
                    found.insert(Violation::Reordered { mark: sent.mark.clone() });
                }
            }
            newest = newest.max(Some((sent.generation, sent.pseq, *seq)));
        }
    }
}

/// What the log holds, and all that it ever showed.
struct Log<'a> {
    stored: BTreeMap<u64, &'a Event>,
    ever: BTreeMap<u64, &'a Event>,
    floor: u64,
    head: u64,
}

impl<'a> Log<'a> {
    fn of(history: &'a History) -> Self {
        let stored: BTreeMap<u64, &Event> = history.stored.iter().map(|e| (e.seq.get(), e)).collect();
        let mut ever = stored.clone();
        for seen in history.viewers.iter().flat_map(|viewer| &viewer.seen) {
            if let Seen::Event(event) = seen {
                ever.entry(event.seq.get()).or_insert(event);
            }
        }
        let head = stored.keys().next_back().copied().unwrap_or(0);
        Self { stored, ever, floor: history.floor.get(), head }
    }

    /// Whether a later event of the store made this one obsolete.
    fn is_obsolete(&self, event: &Event) -> bool {
        let Some(key) = &event.key else { return self.session_is_removed(event) };
        self.session_is_removed(event)
            || self.stored.range(event.seq.get() + 1..).any(|(_, later)| match (later.effect(), &later.key) {
                (Effect::Replace, Some(later_key)) => later_key == key,
                (Effect::Remove, Some(later_key)) => later_key.covers(key),
                (Effect::Append, _) | (_, None) => false,
            })
    }

    fn session_is_removed(&self, event: &Event) -> bool {
        event.session.is_some()
            && self
                .stored
                .range(event.seq.get() + 1..)
                .any(|(_, later)| later.kind.as_ref() == "session.deleted" && later.session == event.session)
    }
}

fn judge_viewer(viewer: &Viewer, log: &Log<'_>, found: &mut BTreeSet<Violation>) {
    let name = || viewer.name.clone();
    let mut cursor = viewer.start.get();
    let mut view = SessionView::default();
    let mut expected_from = cursor;
    for seen in &viewer.seen {
        match seen {
            Seen::Event(event) => {
                let seq = event.seq.get();
                if seq <= cursor {
                    found.insert(Violation::OutOfOrder { viewer: name(), seq });
                    continue;
                }
                for missed in log.stored.range(cursor + 1..seq) {
                    found.insert(Violation::Missed { viewer: name(), seq: *missed.0 });
                }
                match log.stored.get(&seq) {
                    Some(stored) if stored.encode() != event.encode() => {
                        found.insert(Violation::OtherBytes { viewer: name(), seq });
                    }
                    None if seq > log.floor && (seq > log.head || !log.is_obsolete(event)) => {
                        found.insert(Violation::Phantom { viewer: name(), seq });
                    }
                    Some(_) | None => {}
                }
                if log.ever.get(&seq).is_some_and(|first| first.encode() != event.encode()) {
                    found.insert(Violation::OtherBytes { viewer: name(), seq });
                }
                view.apply(event);
                cursor = seq;
            }
            Seen::Gap { from, to, reason } => {
                view = SessionView::default();
                match reason {
                    GapReason::Pruned => {
                        let (from, to) = (from.map_or(0, Seq::get), to.map_or(0, Seq::get));
                        for (seq, _) in log.stored.range(from..=to) {
                            found.insert(Violation::FalseGap { viewer: name(), seq: *seq });
                        }
                        cursor = cursor.max(to);
                    }
                    GapReason::Epoch | GapReason::Ahead => cursor = 0,
                }
                expected_from = cursor;
            }
        }
    }
    if !viewer.stayed {
        return;
    }
    for (seq, _) in log.stored.range(cursor + 1..) {
        found.insert(Violation::Missed { viewer: name(), seq: *seq });
    }
    // A viewer that began at the beginning of what is kept folds to what the store folds to.
    if expected_from <= log.floor {
        let mut expected = SessionView::default();
        log.stored.values().for_each(|event| expected.apply(event));
        if shown(&view) != shown(&expected) {
            found.insert(Violation::OtherView { viewer: name() });
        }
    }
}

/// What a person sees of a view: its messages and parts as the agent's server would give them, and what is asked.
pub(crate) fn shown(view: &SessionView) -> serde_json::Value {
    let sessions: Vec<_> = view.sessions().iter().map(|session| {
        let messages: Vec<_> = session.messages().iter().map(|message| {
            let parts: Vec<_> = message.parts().map(protocol::view::PartView::to_json).collect();
            serde_json::json!({ "info": message.raw_info(), "parts": parts })
        }).collect();
        serde_json::json!({
            "id": session.id(), "status": format!("{:?}", session.status()), "todos": session.todos(), "messages": messages,
        })
    }).collect();
    let asks: Vec<_> = view.pending().iter().map(|ask| ask.key()).collect();
    serde_json::json!({ "sessions": sessions, "asks": asks })
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use protocol::{NewEvent, Timestamp};

    use super::*;

    #[test]
    fn an_honest_history_holds() {
        assert_eq!(honest().violations(), BTreeSet::new());
    }

    #[test]
    fn p1_an_acked_event_that_is_gone_is_caught() {
        caught(|h| drop_everywhere(h, 3), |v| matches!(v, Violation::AckedLost { pseq: 3, .. }));
    }

    #[test]
    fn p1_an_ack_before_the_commit_is_caught() {
        let beyond = Acked { generation: 1, through: 99 };
        let unsent = Sent { generation: 1, pseq: 99, mark: mark(99) };
        let plant = |h: &mut History| {
            h.sent.push(unsent.clone());
            h.acked.push(beyond.clone());
        };
        caught(plant, |v| matches!(v, Violation::AckedLost { pseq: 99, .. }));
    }

    #[test]
    fn p2_an_event_given_twice_is_caught() {
        let plant = |h: &mut History| {
            let again = h.viewers[0].seen[2].clone();
            h.viewers[0].seen.insert(3, again);
        };
        caught(plant, |v| matches!(v, Violation::OutOfOrder { .. }));
    }

    #[test]
    fn p2_two_events_swapped_are_caught() {
        caught(|h| h.viewers[0].seen.swap(2, 3), |v| matches!(v, Violation::OutOfOrder { .. }));
    }

    #[test]
    fn p2_an_event_left_out_in_the_middle_is_caught() {
        caught(|h| drop(h.viewers[0].seen.remove(4)), |v| matches!(v, Violation::Missed { .. }));
    }

    #[test]
    fn p2_an_end_left_out_is_caught() {
        caught(|h| drop(h.viewers[0].seen.pop()), |v| matches!(v, Violation::Missed { .. }));
    }

    #[test]
    fn p3_a_silent_gap_is_caught() {
        let plant = |h: &mut History| drop(h.viewers[1].seen.drain(1..4));
        caught(plant, |v| matches!(v, Violation::Missed { .. }));
    }

    #[test]
    fn p3_a_gap_that_names_what_is_kept_is_caught() {
        let plant = |h: &mut History| {
            let gap = Seen::Gap { from: Some(Seq::new(2)), to: Some(Seq::new(4)), reason: GapReason::Pruned };
            h.viewers[0].seen.splice(1..4, [gap]);
        };
        caught(plant, |v| matches!(v, Violation::FalseGap { .. }));
    }

    #[test]
    fn p4_an_event_shown_before_it_was_safe_is_caught() {
        let plant = |h: &mut History| {
            h.viewers[0].seen.push(Seen::Event(event(1_000, 1_000, 1)));
        };
        caught(plant, |v| matches!(v, Violation::Phantom { seq: 1_000, .. }));
    }

    #[test]
    fn p5_an_event_appended_twice_is_caught() {
        let plant = |h: &mut History| append(h, event(50, 3, 1));
        caught(plant, |v| matches!(v, Violation::Twice { .. }));
    }

    #[test]
    fn p5_events_appended_in_another_order_are_caught() {
        let plant = |h: &mut History| {
            h.sent.swap(1, 2);
            let (a, b) = (h.sent[1].pseq, h.sent[2].pseq);
            h.sent[1].pseq = b;
            h.sent[2].pseq = a;
        };
        caught(plant, |v| matches!(v, Violation::Reordered { .. }));
    }

    #[test]
    fn p6_an_ignored_generation_is_caught() {
        let plant = |h: &mut History| {
            h.sent.push(Sent { generation: 2, pseq: 20, mark: mark(20) });
            h.sent.push(Sent { generation: 1, pseq: 21, mark: mark(21) });
            append(h, event(20, 20, 2));
            append(h, event(21, 21, 1));
        };
        caught(plant, |v| matches!(v, Violation::Unfenced { .. }));
    }

    #[test]
    fn p9_other_bytes_are_caught() {
        let plant = |h: &mut History| {
            h.viewers[1].seen[2] = Seen::Event(event(3, 77, 1));
        };
        caught(plant, |v| matches!(v, Violation::OtherBytes { .. }));
    }

    #[test]
    fn p10_compaction_that_takes_too_much_is_caught() {
        // The store forgot an event that nothing made obsolete; the viewers still have it.
        let plant = |h: &mut History| h.stored.retain(|e| e.seq.get() != 5);
        caught(plant, |v| matches!(v, Violation::Phantom { seq: 5, .. }));
    }

    fn caught(plant: impl Fn(&mut History), expected: impl Fn(&Violation) -> bool) {
        let mut history = honest();
        plant(&mut history);
        let violations = history.violations();
        assert!(violations.iter().any(expected), "not caught: {violations:?}");
    }

    fn honest() -> History {
        let events: Vec<Event> = (1..=8).map(|n| event(n, n, 1)).collect();
        let viewer = |name: &str| Viewer {
            name: name.to_owned(),
            start: Seq::ZERO,
            seen: events.iter().cloned().map(Seen::Event).collect(),
            stayed: true,
        };
        History {
            sent: (1..=8).map(|n| Sent { generation: 1, pseq: n, mark: mark(n) }).collect(),
            acked: vec![Acked { generation: 1, through: 8 }],
            viewers: vec![viewer("first"), viewer("second")],
            stored: events.clone(),
            floor: Seq::ZERO,
        }
    }

    fn append(history: &mut History, event: Event) {
        for viewer in &mut history.viewers {
            viewer.seen.push(Seen::Event(event.clone()));
        }
        history.stored.push(event);
    }

    fn drop_everywhere(history: &mut History, seq: u64) {
        history.stored.retain(|e| e.seq.get() != seq);
        for viewer in &mut history.viewers {
            viewer.seen.retain(|s| !matches!(s, Seen::Event(e) if e.seq.get() == seq));
        }
    }

    fn event(seq: u64, n: u64, generation: u64) -> Event {
        let data = serde_json::json!({ "mark": mark(n), "generation": generation });
        NewEvent::of(Timestamp::from_unix_ms(0), "file.edited", &data)
            .expect("it serialises")
            .at(Seq::new(seq))
    }

    fn mark(n: u64) -> String {
        format!("<{n}>")
    }
}
