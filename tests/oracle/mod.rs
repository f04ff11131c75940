//! The history oracle: given what wrappers sent and saw acked, what viewers were given, and what the store holds, it
//! says which promises were broken. It knows nothing of how the pieces work. Every run is judged by it, simulated or
//! real; `planted.rs` tries it with the faults that it is there to find.

mod producers;
mod viewers;

use std::collections::{BTreeMap, BTreeSet};

use protocol::{
    Effect, Event, Key, NewEvent, Seq, agent::EventsDropped, frame::GapReason, view::SessionView,
};

/// Everything one run leaves behind about one log.
#[derive(Debug, Default, Clone)]
pub(crate) struct History {
    /// What producers numbered.
    pub(crate) sent: Vec<Sent>,
    /// Acks that producers saw.
    pub(crate) acked: Vec<Acked>,
    /// What each viewer was given.
    pub(crate) viewers: Vec<Viewer>,
    /// What the store holds in the end.
    pub(crate) stored: Vec<Event>,
    /// The highest position that pruning took.
    pub(crate) floor: Seq,
    /// All that the store ever committed, where it can tell: a simulated one can.
    pub(crate) committed: Option<Vec<Event>>,
}

/// An event as its producer numbered it. Its data has a `mark` that no other event's has.
#[derive(Debug, Clone)]
pub(crate) struct Sent {
    pub(crate) producer: String,
    pub(crate) generation: u64,
    pub(crate) pseq: u64,
    pub(crate) event: NewEvent,
}

/// Everything of a producer through this number was acked.
#[derive(Debug, Clone)]
pub(crate) struct Acked {
    pub(crate) producer: String,
    pub(crate) through: u64,
}

/// One viewer, over all its connections.
#[derive(Debug, Default, Clone)]
pub(crate) struct Viewer {
    pub(crate) name: String,
    /// The position it began after; zero is the beginning of what was kept when it came.
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
    /// P1: an acked event is neither stored nor obsolete nor pruned nor named as dropped.
    AckedLost { producer: String, pseq: u64 },
    /// P1: an ack for a number that was never given.
    AckedUnsent { producer: String, pseq: u64 },
    /// P1: what is stored is not what was sent.
    Altered { mark: String },
    /// P1, P10: the store lost what it had committed, without anything that made it obsolete.
    CommittedLost { seq: u64 },
    /// P2: a viewer was given an event twice, or an older one after a newer.
    OutOfOrder { viewer: String, seq: u64 },
    /// P2, P3: a viewer passed over an event that nothing made obsolete, and no gap names it.
    Missed { viewer: String, seq: u64 },
    /// P3: a gap names an event that the store still holds, or a position that was never pruned.
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
    /// P10: what a viewer folded is not what the log folds to.
    OtherView { viewer: String },
}

impl History {
    /// Every promise this history breaks.
    pub(crate) fn violations(&self) -> BTreeSet<Violation> {
        let mut found = BTreeSet::new();
        let log = Log::of(self);
        producers::judge(&self.sent, &self.acked, &log, &mut found);
        for seq in log.committed_lost() {
            found.insert(Violation::CommittedLost { seq });
        }
        for viewer in &self.viewers {
            viewers::judge(viewer, &log, &mut found);
        }
        found
    }

    /// Every promise this history breaks, for people.
    pub(crate) fn verdict(&self) -> Result<(), String> {
        let violations = self.violations();
        if violations.is_empty() { Ok(()) } else { Err(format!("broken promises: {violations:#?}")) }
    }
}

/// What the log holds, and all that it ever showed.
struct Log<'a> {
    stored: BTreeMap<u64, &'a Event>,
    ever: BTreeMap<u64, &'a Event>,
    committed: Option<BTreeMap<u64, &'a Event>>,
    floor: u64,
    head: u64,
    retired: Retired<'a>,
    /// What every reader is given, or named as lost: all that no later event ever made obsolete.
    due: BTreeSet<u64>,
}

impl<'a> Log<'a> {
    fn of(history: &'a History) -> Self {
        let by_seq = |events: &'a [Event]| events.iter().map(|e| (e.seq.get(), e)).collect();
        let stored: BTreeMap<u64, &Event> = by_seq(&history.stored);
        let committed: Option<BTreeMap<u64, &Event>> = history.committed.as_deref().map(by_seq);
        let mut ever = stored.clone();
        for (seq, event) in committed.iter().flatten() {
            ever.entry(*seq).or_insert(event);
        }
        for seen in history.viewers.iter().flat_map(|viewer| &viewer.seen) {
            if let Seen::Event(event) = seen {
                ever.entry(event.seq.get()).or_insert(event);
            }
        }
        let head = stored.keys().next_back().copied().unwrap_or(0);
        let retired = Retired::by(stored.values().copied().map(|event| (event.seq.get(), event)));
        let due = match &committed {
            None => stored.keys().copied().collect(),
            Some(committed) => {
                let retired = Retired::by(committed.values().copied().map(|event| (event.seq.get(), event)));
                let due = committed.iter().filter(|(seq, event)| !retired.has(**seq, event));
                due.map(|(seq, _)| *seq).collect()
            }
        };
        Self { stored, ever, committed, floor: history.floor.get(), head, retired, due }
    }

    fn committed_lost(&self) -> Vec<u64> {
        let gone = self.committed.iter().flatten().filter(|(seq, event)| {
            **seq > self.floor && !self.stored.contains_key(seq) && !self.retired.has(**seq, event)
        });
        gone.map(|(seq, _)| *seq).collect()
    }

    /// What a reader holds who began after a position and has read to the end; `None` where the store kept too little to
    /// tell.
    fn view_after(&self, position: u64) -> Option<SessionView> {
        let all = match &self.committed {
            Some(committed) => committed,
            None if position >= self.floor => &self.stored,
            None => return None,
        };
        let mut view = SessionView::default();
        all.range(position + 1..).for_each(|(_, event)| view.apply(event));
        Some(view)
    }
}

/// What later events made obsolete, in an order that the caller chooses.
#[derive(Default)]
struct Retired<'a> {
    /// The newest replacement of each key.
    replaced: BTreeMap<&'a str, u64>,
    removed: Vec<(&'a Key, u64)>,
    /// The newest deletion of each session.
    sessions: BTreeMap<&'a str, u64>,
}

impl<'a> Retired<'a> {
    fn by(events: impl Iterator<Item = (u64, &'a Event)>) -> Self {
        let mut retired = Self::default();
        for (at, event) in events {
            retired.add(at, event);
        }
        retired
    }

    fn add(&mut self, at: u64, event: &'a Event) {
        match (event.effect(), &event.key) {
            (Effect::Replace, Some(key)) => newest(&mut self.replaced, key.as_str(), at),
            (Effect::Remove, Some(key)) => self.removed.push((key, at)),
            (Effect::Append, _) | (_, None) => {}
        }
        if event.kind.as_ref() == "session.deleted"
            && let Some(session) = &event.session
        {
            newest(&mut self.sessions, session, at);
        }
    }

    fn has(&self, at: u64, event: &Event) -> bool {
        let later = |found: Option<&u64>| found.is_some_and(|by| *by > at);
        // A tombstone stays when its key comes again: it stands for more than its own key.
        let is_tombstone = event.effect() == Effect::Remove;
        let of_key = event.key.as_ref().is_some_and(|key| {
            (!is_tombstone && later(self.replaced.get(key.as_str())))
                || self.removed.iter().any(|(removed, by)| *by > at && removed.covers(key))
        });
        of_key || event.session.as_ref().is_some_and(|session| later(self.sessions.get(session.as_ref())))
    }
}

fn newest<'a>(all: &mut BTreeMap<&'a str, u64>, name: &'a str, at: u64) {
    let found = all.entry(name).or_default();
    *found = at.max(*found);
}

/// The numbers that a `wrapper.events_dropped` stands for. What a relay acked and lost is no excuse: no run here restores a
/// backup.
fn dropped(event: &Event) -> Option<std::ops::RangeInclusive<u64>> {
    if event.kind.as_ref() != "wrapper.events_dropped" {
        return None;
    }
    let EventsDropped { from, to, reason } = event.data.parse().ok()?;
    (reason != "lost_by_relay").then_some(from..=to)
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
