//! A bound for views that live for days.

use std::sync::Arc;

use super::{MessageView, SessionView, ask::AskEntry};
use crate::{
    Seq,
    model::{Message, PartBody, Role, ToolState},
};

impl SessionView {
    /// Lets go of the messages that were changed longest ago, until the payloads of those that are left have at most so many
    /// bytes, and of notices, answers and tombstones from before all that is left: as if the log had been pruned through there.
    /// What is unfinished stays, and so do the newest message, what waits for a person, and what was spent.
    pub fn keep_within(&mut self, bytes: usize) {
        let mut by_change: Vec<(Seq, Arc<str>, usize)> = self
            .messages
            .values()
            .map(|message| (message.changed(), Arc::clone(message.id()), message.bytes()))
            .collect();
        let mut over = by_change.iter().map(|(.., size)| size).sum::<usize>().saturating_sub(bytes);
        if over == 0 {
            return;
        }
        by_change.sort_unstable_by_key(|(changed, ..)| *changed);
        by_change.pop();
        for (_, id, size) in by_change {
            if over == 0 {
                break;
            }
            if self.messages.get(&id).is_some_and(|message| !message.is_unfinished()) {
                self.let_go(&id);
                over = over.saturating_sub(size);
            }
        }
        let oldest = self.messages.values().map(MessageView::changed).min().unwrap_or_default();
        self.notices.retain(|notice| notice.seq >= oldest);
        self.removed.retain(|_, removed| removed.seq >= oldest);
        self.asks.retain(|_, ask| match ask {
            AskEntry::Pending(_) => true,
            AskEntry::Answered(answered) => answered.seq >= oldest,
        });
    }

    fn let_go(&mut self, id: &str) {
        let Some(message) = self.messages.remove(id) else { return };
        if let (Some(session), Some(info)) = (message.session(), message.info()) {
            self.sessions.entry(Arc::clone(session)).or_default().let_go += info.usage();
        }
    }
}

impl MessageView {
    /// Bytes of what was said of it, and of deltas since.
    fn bytes(&self) -> usize {
        let info = self.raw_info().map_or(0, |raw| raw.json().len());
        let parts = self.parts().map(|part| {
            let raw = part.raw().map_or(0, |raw| raw.json().len());
            raw.max(part.body().text().map_or(0, str::len))
        });
        info + parts.sum::<usize>()
    }

    /// Whether more is to come of it: an answer that has not ended, or a tool that runs.
    fn is_unfinished(&self) -> bool {
        let is_open = |info: &Message| info.role == Role::Assistant && info.time.completed.is_none();
        let runs = |body: &PartBody| matches!(body, PartBody::Tool(tool) if matches!(tool.state, ToolState::Pending(_) | ToolState::Running(_)));
        self.info().is_some_and(is_open) || self.parts().any(|part| runs(part.body()))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::{NewEvent, RawData, Timestamp};

    const BYTES: usize = 10_000;

    #[test]
    fn a_view_that_lives_for_days_keeps_what_is_newest_within_its_bound() {
        let mut view = SessionView::default();
        for n in 0..500 {
            said(&mut view, n, true);
            apply(&mut view, "agent.failed", &json!({ "reason": n.to_string() }));
            apply(
                &mut view,
                "message.removed",
                &json!({ "sessionID": "s", "messageID": format!("gone_{n}") }),
            );
            view.keep_within(BYTES);
        }
        let kept: Vec<_> = view.messages.keys().cloned().collect();
        assert_eq!(view.usage().tokens.input, 500, "what was spent was spent");
        let newest: Vec<Arc<str>> = (500 - kept.len()..500).map(|n| id(n).into()).collect();
        assert_eq!(kept, newest);
        let bytes: usize = view.messages.values().map(MessageView::bytes).sum();
        assert!((BYTES / 2..=BYTES).contains(&bytes), "{bytes}");
        assert!(view.notices().len() <= kept.len() + 1 && view.removed.len() <= kept.len() + 1);
    }

    #[test]
    fn what_is_unfinished_stays_and_so_does_the_newest() {
        let mut view = SessionView::default();
        said(&mut view, 0, false);
        apply(
            &mut view,
            "permission.asked",
            &json!({ "id": "per_1", "sessionID": "s", "permission": "bash" }),
        );
        for n in 1..100 {
            said(&mut view, n, true);
        }
        view.keep_within(1);
        assert_eq!(view.messages.keys().map(|id| &**id).collect::<Vec<_>>(), [id(0), id(99)]);
        assert_eq!(view.pending().len(), 1);
    }

    #[test]
    fn a_view_within_its_bound_is_left_alone() {
        let mut view = SessionView::default();
        said(&mut view, 1, true);
        let before = view.clone();
        view.keep_within(BYTES);
        assert_eq!(view, before);
    }

    /// An answer with a text of some hundred bytes.
    fn said(view: &mut SessionView, n: usize, is_complete: bool) {
        let (message, time) = (id(n), json!({ "created": n, "completed": is_complete.then_some(n) }));
        let tokens = json!({ "input": 1, "output": 0, "reasoning": 0, "cache": { "read": 0, "write": 0 } });
        let info =
            json!({ "id": message, "sessionID": "s", "role": "assistant", "time": time, "tokens": tokens });
        apply(view, "message.updated", &json!({ "sessionID": "s", "info": info }));
        let text = "words ".repeat(50);
        let part =
            json!({ "id": "prt", "messageID": message, "sessionID": "s", "type": "text", "text": text });
        apply(view, "message.part.updated", &json!({ "sessionID": "s", "part": part }));
    }

    fn id(n: usize) -> String {
        format!("msg_{n:04}")
    }

    fn apply(view: &mut SessionView, kind: &str, data: &Value) {
        let (time, data) = (Timestamp::from_unix_ms(0), RawData::of(data).unwrap());
        let event = NewEvent { time, kind: kind.into(), session: Some("s".into()), data };
        view.apply(&event.at(view.seq().next()));
    }
}
