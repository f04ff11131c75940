//! What one agent's page shows: the fold of its log, and a little beside it that the fold does not keep.

use std::{collections::VecDeque, time::Duration};

use protocol::{
    Event, Seq, Timestamp,
    agent::State,
    model::{PartBody, SessionStatus, ToolState},
    view::{Lifecycle, NoticeBody, SessionView},
};

use super::{element, timeline::Timeline};

/// How long an open turn may be silent while no tool runs (§10, the third layer of health).
const STALL: Duration = Duration::from_secs(300);
/// Bytes of payloads in one agent's fold: a quarter of what its log may have, since pages are made of it. An agent that is
/// watched for days says more than that.
const PAYLOADS: usize = 16 * 1024 * 1024;
/// Events from one look at that to the next.
const LOOK_EVERY: u64 = 256;
/// Raw events in the side panel.
const RECENT: usize = 40;
/// Minutes of the density picture on the fleet page.
pub(crate) const MINUTES: usize = 60;

/// One agent, as its events say.
#[derive(Debug, Clone, Default)]
pub(crate) struct Model {
    /// The sessions.
    pub view: SessionView,
    /// The newest events, oldest first.
    pub recent: VecDeque<Recent>,
    /// Events and errors per minute, oldest first, with gaps left out.
    pub minutes: VecDeque<Minute>,
    /// How dense the log is over time.
    pub timeline: Timeline,
    /// Its turn is open, and nothing was heard for too long.
    stalled: bool,
}

/// One event, as the side panel shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Recent {
    /// Its position.
    pub seq: Seq,
    /// Its type.
    pub kind: std::sync::Arc<str>,
    /// The size of its payload.
    pub bytes: usize,
    /// The element that shows what it speaks of.
    pub element: Option<String>,
}

/// How many events one minute had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Minute {
    /// Minutes since 1970.
    pub at: i64,
    /// Events.
    pub events: u32,
    /// Errors among them.
    pub errors: u32,
}

/// What an agent does just now, as one word of the stylesheet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Doing {
    /// A person is needed.
    Waiting,
    /// It works, and has not been heard of for too long.
    Stalled,
    /// It could not start, or its server died.
    Failed,
    /// A model call is tried again.
    Retrying,
    /// It works.
    Busy,
    /// It is being started.
    Starting,
    /// It is being ended.
    Stopping,
    /// It waits for a prompt.
    Idle,
    /// It is not there.
    Exited,
}

impl Model {
    /// Takes the next event.
    pub(crate) fn apply(&mut self, event: &Event) {
        self.view.apply(event);
        if event.seq.get().is_multiple_of(LOOK_EVERY) {
            self.view.keep_within(PAYLOADS);
        }
        self.stalled = false;
        self.recent.push_back(Recent {
            seq: event.seq,
            kind: event.kind.clone(),
            bytes: event.data.json().len(),
            element: element_of(event),
        });
        if self.recent.len() > RECENT {
            self.recent.pop_front();
        }
        self.count(event);
    }

    /// Begins anew after a gap.
    pub(crate) fn restart_after_gap(&mut self, gap: NoticeBody, time: Timestamp) {
        self.view.restart_after_gap(gap, time);
        self.recent.clear();
    }

    /// Looks whether it has been silent for too long.
    pub(crate) fn look_at(&mut self, now: Timestamp) {
        self.stalled = self.silent_too_long_at().is_some_and(|at| at <= now);
    }

    /// When it will have been silent for too long, if it goes on like that.
    pub(crate) fn stall_deadline(&self) -> Option<Timestamp> {
        if self.stalled { None } else { self.silent_too_long_at() }
    }

    /// Since when nothing is heard, of an agent that should speak.
    pub(crate) fn stalled_since(&self) -> Option<Timestamp> {
        self.view.time().filter(|_| self.doing() == Doing::Stalled)
    }

    fn silent_too_long_at(&self) -> Option<Timestamp> {
        let is_open = self.said_doing() == Doing::Busy;
        let at = self.view.time().filter(|_| is_open)?.after(STALL);
        (!self.runs_a_tool()).then_some(at)
    }

    fn runs_a_tool(&self) -> bool {
        let sessions = self.view.sessions();
        let mut parts =
            sessions.iter().flat_map(|session| session.messages()).flat_map(|message| message.parts());
        parts.any(
            |part| matches!(part.body(), PartBody::Tool(call) if matches!(call.state, ToolState::Running(_))),
        )
    }

    /// The folder that it works in; empty as long as nobody said so.
    pub(crate) fn directory(&self) -> String {
        let started = self.view.agent().started.as_ref().and_then(|started| started.directory.clone());
        let root = || Some(self.view.roots().last()?.info()?.directory.clone());
        started.or_else(root).unwrap_or_default()
    }

    /// What the agent does just now.
    pub(crate) fn doing(&self) -> Doing {
        let said = self.said_doing();
        if said == Doing::Busy && self.stalled { Doing::Stalled } else { said }
    }

    /// What it does as far as was said. An open ask counts more than what the wrapper says: it may not have said it yet.
    fn said_doing(&self) -> Doing {
        let agent = self.view.agent();
        let state = match agent.lifecycle {
            Lifecycle::Failed(_) => return Doing::Failed,
            Lifecycle::Exited(_) => return Doing::Exited,
            Lifecycle::Running(state) => state,
        };
        if !self.view.pending().is_empty() {
            return Doing::Waiting;
        }
        match state {
            State::Starting => Doing::Starting,
            State::Idle => Doing::Idle,
            State::Busy => Doing::Busy,
            State::Waiting => Doing::Waiting,
            State::Retrying => Doing::Retrying,
            State::Stopping => Doing::Stopping,
            State::Unknown | _ => self.doing_of_sessions(),
        }
    }

    /// The same, where no wrapper says so.
    fn doing_of_sessions(&self) -> Doing {
        let roots = self.view.roots();
        if roots.iter().any(|root| matches!(root.status(), SessionStatus::Retry { .. })) {
            Doing::Retrying
        } else if roots.iter().any(|root| root.is_turn_open()) {
            Doing::Busy
        } else if self.view.seq() == Seq::ZERO {
            Doing::Exited
        } else {
            Doing::Idle
        }
    }

    fn count(&mut self, event: &Event) {
        let at = event.time.unix_ms().div_euclid(60_000);
        let is_error = matches!(&*event.kind, "session.error" | "agent.failed" | "wrapper.lost");
        self.timeline.push(event.time, event.seq, is_error);
        match self.minutes.back_mut() {
            // A clock that was set back must not make the picture run backwards.
            Some(last) if last.at >= at => {
                last.events += 1;
                last.errors += u32::from(is_error);
            }
            Some(_) | None => self.minutes.push_back(Minute { at, events: 1, errors: u32::from(is_error) }),
        }
        if self.minutes.len() > MINUTES {
            self.minutes.pop_front();
        }
    }
}

impl Doing {
    /// `data-state`, icon, word.
    pub(crate) fn words(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::Waiting => ("waiting", "s-waiting", "Needs you"),
            Self::Stalled => ("stalled", "s-stalled", "Stalled"),
            Self::Failed => ("failed", "s-failed", "Failed"),
            Self::Retrying => ("retrying", "s-retry", "Retrying"),
            Self::Busy => ("busy", "s-busy", "Working"),
            Self::Starting => ("starting", "s-start", "Starting"),
            Self::Stopping => ("stopping", "s-start", "Stopping"),
            Self::Idle => ("idle", "s-idle", "Idle"),
            Self::Exited => ("exited", "exit", "Stopped"),
        }
    }
}

/// The element that shows what an event speaks of.
fn element_of(event: &Event) -> Option<String> {
    let (kind, id) = event.key.as_ref()?.as_str().split_once('/')?;
    match kind {
        "part" => Some(element::id(id)),
        "permission" | "question" | "network" => Some(super::part::ask::row_id(id)),
        "todo" => Some("todos".to_owned()),
        _ => None,
    }
    .or_else(|| event.kind.starts_with("agent.").then(|| format!("evt-{}", event.seq)))
}

#[cfg(test)]
mod tests {
    use protocol::{NewEvent, RawData};
    use serde_json::json;

    use super::*;

    #[test]
    fn an_agent_that_is_watched_for_days_is_kept_within_a_bound() {
        let (mut model, text) = (Model::default(), "x".repeat(64 * 1024));
        for n in 1..=2 * LOOK_EVERY {
            let part = json!({ "id": "p", "messageID": format!("m{n:04}"), "sessionID": "s", "type": "text", "text": text });
            let data = RawData::of(&json!({ "sessionID": "s", "part": part })).unwrap();
            let (time, kind) = (Timestamp::from_unix_ms(0), "message.part.updated".into());
            let event = NewEvent { time, kind, session: Some("s".into()), data };
            model.apply(&event.at(Seq::new(n)));
        }
        let messages = model.view.roots()[0].messages();
        assert!(messages.len() * text.len() <= PAYLOADS, "{}", messages.len());
        assert_eq!(messages.last().map(|message| &**message.id()), Some("m0512"));
    }
}
