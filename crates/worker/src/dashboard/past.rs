//! The past of an agent: what had begun by a position, as far as the log still tells.
//!
//! A log keeps what became of things, not how they were meanwhile: a finished part makes its beginnings obsolete. So what
//! had begun by then is shown as it turned out, and what began later is left out.

use std::{collections::BTreeSet, sync::Arc};

use futures_util::StreamExt as _;
use protocol::{Event, LogId, Seq, Timestamp};
use relay::{Delivery, RelayApi};
use serde::Deserialize;

use super::model::Model;

/// Everything that a log still tells.
#[derive(Debug)]
pub(crate) struct Past {
    events: Vec<Told>,
}

/// An event, and since when what it speaks of was there.
#[derive(Debug)]
struct Told {
    event: Arc<Event>,
    began: Option<Timestamp>,
}

/// The agent as it was.
#[derive(Debug)]
pub(crate) struct Scene {
    /// The position up to which everything is shown.
    pub seq: Seq,
    /// The time of that position.
    pub time: Timestamp,
    /// What had begun by then.
    pub model: Model,
}

impl Past {
    /// Reads a log up to its head.
    pub(crate) async fn read(relay: &dyn RelayApi, log: LogId) -> Self {
        let mut deliveries = relay.follow(log, None);
        let mut events = Vec::new();
        while let Some(delivery) = deliveries.next().await {
            match delivery {
                Delivery::Event(event) => events.push(event),
                Delivery::Live { .. } => break,
                Delivery::Subscribed { .. }
                | Delivery::Gap { .. }
                | Delivery::Presence { .. }
                | Delivery::Ended { .. }
                | _ => {}
            }
        }
        Self::of(events)
    }

    /// What these events tell, in the order of the log.
    pub(crate) fn of(events: Vec<Arc<Event>>) -> Self {
        let told = |event: Arc<Event>| Told { began: began(&event), event };
        Self { events: events.into_iter().map(told).collect() }
    }

    /// The agent as it was at a position; nothing of a log that does not reach back to it.
    pub(crate) fn at(&self, seq: Seq) -> Option<Scene> {
        let before = self.events.iter().filter(|told| told.event.seq <= seq);
        Some(self.scene(seq, before.map(|told| told.event.time).max()?))
    }

    /// The agent as it was at a time; nothing of a log that does not reach back to it.
    pub(crate) fn by(&self, time: Timestamp) -> Option<Scene> {
        let before = self.events.iter().filter(|told| told.event.time <= time);
        Some(self.scene(before.map(|told| told.event.seq).max()?, time))
    }

    fn scene(&self, seq: Seq, time: Timestamp) -> Scene {
        let mut model = Model::default();
        for told in self.events.iter().filter(|told| told.event.seq <= seq || told.had_begun(time)) {
            model.apply(&told.event);
        }
        Scene { seq, time, model }
    }

    /// The times later than this at which something more is there.
    pub(crate) fn changes_after(&self, time: Timestamp) -> BTreeSet<Timestamp> {
        let times = self.events.iter().flat_map(|told| [Some(told.event.time), told.began]);
        times.flatten().filter(|change| *change > time).collect()
    }
}

impl Told {
    fn had_begun(&self, time: Timestamp) -> bool {
        self.began.is_some_and(|began| began <= time)
    }
}

/// When the session, message or part began that an event speaks of.
fn began(event: &Event) -> Option<Timestamp> {
    match &*event.kind {
        "session.created" | "session.updated" | "message.updated" => {
            event.data.parse::<InfoOf>().ok().and_then(|data| data.info.time.created)
        }
        "message.part.updated" => event
            .data
            .parse::<PartOf>()
            .ok()
            .and_then(|data| data.part.time.start.or(data.part.state.and_then(|state| state.time.start))),
        _ => None,
    }
}

#[derive(Deserialize)]
struct InfoOf {
    info: Info,
}

#[derive(Deserialize)]
struct Info {
    #[serde(default)]
    time: Created,
}

#[derive(Deserialize, Default)]
struct Created {
    #[serde(default, deserialize_with = "unix_ms")]
    created: Option<Timestamp>,
}

#[derive(Deserialize)]
struct PartOf {
    part: Part,
}

#[derive(Deserialize)]
struct Part {
    #[serde(default)]
    time: Started,
    state: Option<ToolState>,
}

#[derive(Deserialize)]
struct ToolState {
    #[serde(default)]
    time: Started,
}

#[derive(Deserialize, Default)]
struct Started {
    #[serde(default, deserialize_with = "unix_ms")]
    start: Option<Timestamp>,
}

/// The times of agent servers are in milliseconds since 1970.
fn unix_ms<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Timestamp>, D::Error> {
    Ok(Option::<i64>::deserialize(deserializer)?.map(Timestamp::from_unix_ms))
}

#[cfg(test)]
mod tests {
    use protocol::{NewEvent, RawData, session_of};
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn what_began_by_then_counts_though_its_last_word_came_later() {
        let at = Timestamp::from_unix_ms(1_000);
        let part = |start: i64| json!({ "sessionID": "s", "part": { "id": "p", "messageID": "m", "type": "text", "text": "x", "time": { "start": start } } });
        let tool = json!({ "part": { "type": "tool", "state": { "status": "completed", "time": { "start": 900, "end": 5000 } } } });
        let had_begun = |kind: &str, data: &Value| told(9, 5_000, kind, data).had_begun(at);
        assert!(had_begun("message.part.updated", &part(1_000)));
        assert!(had_begun("message.part.updated", &tool));
        assert!(!had_begun("message.part.updated", &part(1_001)));
        let message = |created: i64| json!({ "info": { "id": "m", "time": { "created": created } } });
        assert!(had_begun("message.updated", &message(10)));
        assert!(!had_begun("message.updated", &message(1_100)));
    }

    #[test]
    fn what_says_no_beginning_counts_by_its_position_alone() {
        for data in [json!({ "part": { "type": "step-finish" } }), json!({ "part": 7 }), json!({})] {
            assert_eq!(told(9, 5_000, "message.part.updated", &data).began, None);
        }
        let status = json!({ "status": { "type": "idle" } });
        assert_eq!(told(9, 5_000, "session.status", &status).began, None);
    }

    #[test]
    fn the_past_changes_when_something_begins_and_when_something_is_said() {
        let message =
            json!({ "info": { "id": "m", "sessionID": "s", "role": "user", "time": { "created": 2_000 } } });
        let past = Past {
            events: vec![
                told(1, 1_000, "agent.status", &json!({ "state": "busy" })),
                told(7, 9_000, "message.updated", &message),
            ],
        };
        let at = Timestamp::from_unix_ms;
        assert_eq!(past.changes_after(at(1_000)), BTreeSet::from([at(2_000), at(9_000)]));
        assert!(past.by(at(999)).is_none());
        let messages = |ms| {
            past.by(at(ms)).unwrap().model.view.sessions().iter().map(|s| s.messages().len()).sum::<usize>()
        };
        assert_eq!((messages(1_500), messages(2_000)), (0, 1));
        assert_eq!(
            (past.by(at(2_000)).unwrap().seq, past.by(at(9_000)).unwrap().seq),
            (Seq::new(1), Seq::new(7))
        );
    }

    fn told(seq: u64, ms: i64, kind: &str, data: &Value) -> Told {
        let data = RawData::of(data).unwrap();
        let session = session_of(kind, data.json());
        let event = NewEvent { time: Timestamp::from_unix_ms(ms), kind: kind.into(), session, data };
        let event = Arc::new(event.at(Seq::new(seq)));
        Told { began: began(&event), event }
    }
}
