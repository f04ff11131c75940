//! Writes what an agent did, as its log has it, as a recording.

use std::{collections::BTreeSet, sync::Arc};

use protocol::{Event, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// Turns the events of an agent's log, in their order, into the lines of a recording.
///
/// What the wrapper says of itself (`agent.*`, `wrapper.*`) is left out: the wrapper of the replay says its own. A compacted log
/// may speak of a session before it says what that is; then the session's own event is written first, once more, so that a
/// reader that comes from the beginning knows whose it is.
#[derive(Debug, Default)]
pub struct Recorder {
    began: Option<Timestamp>,
    /// Sessions whose own event was written.
    introduced: BTreeSet<Arc<str>>,
}

#[derive(Serialize)]
struct Line<'a> {
    t_ms: i64,
    event: Recorded<'a>,
}

#[derive(Serialize)]
struct Recorded<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    properties: &'a RawValue,
}

#[derive(Deserialize)]
struct Described {
    info: Info,
}

#[derive(Deserialize)]
struct Info {
    #[serde(default, rename = "parentID")]
    parent_id: Option<Arc<str>>,
}

impl Recorder {
    /// The lines for events that are known at once: what the log has when the recording begins, then what comes.
    #[must_use]
    pub fn lines(&mut self, events: &[Arc<Event>]) -> String {
        let mut lines = String::new();
        for (at, event) in events.iter().enumerate() {
            if event.kind.starts_with("agent.") || event.kind.starts_with("wrapper.") {
                continue;
            }
            let t_ms = (event.time.unix_ms() - self.began.get_or_insert(event.time).unix_ms()).max(0);
            if describes_a_session(event) {
                self.introduced.extend(event.session.clone());
            } else if let Some(session) = &event.session {
                self.introduce(session, &events[at..], t_ms, &mut lines);
            }
            write(&mut lines, t_ms, event);
        }
        lines
    }

    /// Writes what a session is, if that was not said yet and is said later; after the one that it hangs below.
    fn introduce(&mut self, session: &Arc<str>, later: &[Arc<Event>], t_ms: i64, lines: &mut String) {
        if !self.introduced.insert(Arc::clone(session)) {
            return;
        }
        let own =
            later.iter().find(|event| describes_a_session(event) && event.session.as_ref() == Some(session));
        let Some(own) = own else { return };
        if let Ok(Described { info: Info { parent_id: Some(parent) } }) = own.data.parse() {
            self.introduce(&parent, later, t_ms, lines);
        }
        write(lines, t_ms, own);
    }
}

fn describes_a_session(event: &Event) -> bool {
    matches!(&*event.kind, "session.created" | "session.updated")
}

fn write(lines: &mut String, t_ms: i64, event: &Event) {
    let properties = event.data.parse().expect("the payload of an event is JSON");
    let line = Line { t_ms, event: Recorded { kind: &event.kind, properties } };
    lines.push_str(&serde_json::to_string(&line).expect("a line of text and JSON is JSON"));
    lines.push('\n');
}

#[cfg(test)]
mod tests {
    use protocol::{NewEvent, RawData, Seq, session_of};

    use super::{super::Recording, *};

    #[test]
    fn a_recording_has_the_agents_own_events_and_their_times() {
        let events = [
            event(1_000, "agent.started", "{}"),
            event(1_500, "session.created", r#"{"info": {"id": "ses_a"}}"#),
            event(1_750, "permission.replied", r#"{"sessionID": "ses_a",  "reply": "once"}"#),
            event(1_800, "wrapper.events_dropped", "{}"),
            event(1_900, "agent.done", "{}"),
        ];
        let text = Recorder::default().lines(&events);
        let recording = Recording::parse(&text).unwrap();
        assert_eq!((recording.len(), recording.root()), (2, "ses_a"));
        assert_eq!((recording.at_us(0), recording.at_us(1)), (Some(0), Some(250_000)));
        let replied = recording.event(1, Timestamp::default()).unwrap();
        assert_eq!((&*replied.kind, replied.data.json()), ("permission.replied", events[2].data.json()));
    }

    #[test]
    fn a_session_is_introduced_before_it_is_spoken_of_and_its_parent_before_it() {
        let events = [
            event(10, "message.updated", r#"{"sessionID": "ses_child", "info": {"id": "msg_1"}}"#),
            event(11, "session.idle", r#"{"sessionID": "ses_root"}"#),
            event(12, "session.updated", r#"{"info": {"id": "ses_child", "parentID": "ses_root"}}"#),
            event(13, "session.updated", r#"{"info": {"id": "ses_root"}}"#),
        ];
        let text = Recorder::default().lines(&events);
        let recording = Recording::parse(&text).unwrap();
        let told = |at| {
            let event = recording.event(at, Timestamp::default()).unwrap();
            (event.kind.to_string(), event.session.unwrap().to_string())
        };
        let told: Vec<_> = (0..recording.len()).map(told).collect();
        let told: Vec<_> = told.iter().map(|(kind, session)| (kind.as_str(), session.as_str())).collect();
        assert_eq!(
            told,
            [
                ("session.updated", "ses_root"),
                ("session.updated", "ses_child"),
                ("message.updated", "ses_child"),
                ("session.idle", "ses_root"),
                ("session.updated", "ses_child"),
                ("session.updated", "ses_root"),
            ]
        );
        assert_eq!(recording.root(), "ses_root");
    }

    #[test]
    fn what_comes_later_goes_on_where_the_first_lines_ended() {
        let events = [
            event(10, "session.created", r#"{"info": {"id": "ses_a"}}"#),
            event(30, "session.idle", r#"{"sessionID": "ses_a"}"#),
        ];
        let whole = Recorder::default().lines(&events);
        let mut recorder = Recorder::default();
        let pieces: String = events.chunks(1).map(|piece| recorder.lines(piece)).collect();
        assert_eq!(pieces, whole);
    }

    fn event(time_ms: u32, kind: &str, data: &str) -> Arc<Event> {
        let data = RawData::from_json(data).unwrap();
        let session = session_of(kind, data.json());
        let time = Timestamp::from_unix_ms(time_ms.into());
        Arc::new(NewEvent { time, kind: kind.into(), session, data }.at(Seq::new(time_ms.into())))
    }
}
