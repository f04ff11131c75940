//! What a viewer may expect of the log: P2, P3, P4, P9, P10.

use std::collections::BTreeSet;

use protocol::{Event, Seq, frame::GapReason, view::SessionView};

use super::{Log, Seen, Viewer, Violation, shown};

pub(super) fn judge(viewer: &Viewer, log: &Log<'_>, found: &mut BTreeSet<Violation>) {
    let mut reader = Reader { viewer, log, cursor: viewer.start.get(), began_at: viewer.start.get(), found };
    let mut view = SessionView::default();
    for seen in &viewer.seen {
        match seen {
            Seen::Event(event) => {
                if reader.event(event) {
                    view.apply(event);
                }
            }
            Seen::Gap { from, to, reason } => {
                view = SessionView::default();
                reader.gap(*from, *to, *reason);
            }
        }
    }
    if viewer.stayed {
        reader.end(&view);
    }
}

struct Reader<'a> {
    viewer: &'a Viewer,
    log: &'a Log<'a>,
    cursor: u64,
    /// Where what it holds begins.
    began_at: u64,
    found: &'a mut BTreeSet<Violation>,
}

impl Reader<'_> {
    /// Whether the event moves the cursor.
    fn event(&mut self, event: &Event) -> bool {
        let (seq, log) = (event.seq.get(), self.log);
        if seq <= self.cursor {
            self.broken(|viewer| Violation::OutOfOrder { viewer, seq });
            return false;
        }
        // Who begins at the beginning of what is kept is owed nothing of what was pruned before.
        if self.cursor == 0 && log.floor > 0 {
            self.began_at = seq - 1;
        }
        for missed in log.due.range(self.began_at.max(self.cursor) + 1..seq) {
            self.broken(|viewer| Violation::Missed { viewer, seq: *missed });
        }
        for (missed, _) in log.stored.range(self.cursor + 1..seq) {
            self.broken(|viewer| Violation::Missed { viewer, seq: *missed });
        }
        let was_committed = log.committed.as_ref().is_none_or(|committed| committed.contains_key(&seq));
        let is_kept_or_gone = log.stored.contains_key(&seq)
            || seq <= log.floor
            || (seq <= log.head && log.retired.has(seq, event));
        if !was_committed || !is_kept_or_gone {
            self.broken(|viewer| Violation::Phantom { viewer, seq });
        }
        if log.ever.get(&seq).is_some_and(|first| first.encode() != event.encode()) {
            self.broken(|viewer| Violation::OtherBytes { viewer, seq });
        }
        self.cursor = seq;
        true
    }

    fn gap(&mut self, from: Option<Seq>, to: Option<Seq>, reason: GapReason) {
        match reason {
            GapReason::Pruned => {
                let (from, to) = (from.map_or(0, Seq::get), to.map_or(0, Seq::get));
                for (seq, _) in self.log.stored.range(from..=to.max(from)) {
                    self.broken(|viewer| Violation::FalseGap { viewer, seq: *seq });
                }
                if to > self.log.floor {
                    self.broken(|viewer| Violation::FalseGap { viewer, seq: to });
                }
                self.cursor = self.cursor.max(to);
            }
            GapReason::Epoch | GapReason::Ahead => self.cursor = 0,
        }
        self.began_at = self.cursor;
    }

    /// It has everything, and holds what the log holds.
    fn end(&mut self, view: &SessionView) {
        for seq in self.log.due.range(self.cursor + 1..) {
            self.broken(|viewer| Violation::Missed { viewer, seq: *seq });
        }
        if self.log.view_after(self.began_at).is_some_and(|expected| shown(view) != shown(&expected)) {
            self.broken(|viewer| Violation::OtherView { viewer });
        }
    }

    fn broken(&mut self, how: impl FnOnce(String) -> Violation) {
        self.found.insert(how(self.viewer.name.clone()));
    }
}
