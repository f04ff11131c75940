//! The past of an agent: what had begun by a position, as far as the log still tells.
//!
//! A log keeps what became of things, not how they were meanwhile: a finished part makes its beginnings obsolete. So what
//! had begun by then is shown as it turned out, and what began later is left out.

use futures_util::StreamExt as _;
use protocol::{Event, LogId, Seq, Timestamp};
use relay::{Delivery, RelayApi};
use serde::Deserialize;

use super::model::Model;

/// The agent as it was at a position, and the time of that position; nothing of a log whose head is before it.
pub(crate) async fn at(relay: &dyn RelayApi, log: LogId, seq: Seq) -> Option<(Model, Timestamp)> {
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
    let time = events.iter().filter(|event| event.seq <= seq).map(|event| event.time).max()?;
    let mut model = Model::default();
    for event in events.iter().filter(|event| event.seq <= seq || had_begun(event, time)) {
        model.apply(event);
    }
    Some((model, time))
}

/// Whether an event speaks of a session, message or part that began by this time.
fn had_begun(event: &Event, time: Timestamp) -> bool {
    let began = match &*event.kind {
        "session.created" | "session.updated" | "message.updated" => {
            event.data.parse::<InfoOf>().ok().and_then(|data| data.info.time.created)
        }
        "message.part.updated" => event
            .data
            .parse::<PartOf>()
            .ok()
            .and_then(|data| data.part.time.start.or(data.part.state.and_then(|state| state.time.start))),
        _ => None,
    };
    began.is_some_and(|began| began <= time)
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
        assert!(had_begun(&event("message.part.updated", &part(1_000)), at));
        assert!(had_begun(&event("message.part.updated", &tool), at));
        assert!(!had_begun(&event("message.part.updated", &part(1_001)), at));
        let message = |created: i64| json!({ "info": { "id": "m", "time": { "created": created } } });
        assert!(had_begun(&event("message.updated", &message(10)), at));
        assert!(!had_begun(&event("message.updated", &message(1_100)), at));
    }

    #[test]
    fn what_says_no_beginning_counts_by_its_position_alone() {
        let at = Timestamp::from_unix_ms(i64::MAX / 2);
        for data in [json!({ "part": { "type": "step-finish" } }), json!({ "part": 7 }), json!({})] {
            assert!(!had_begun(&event("message.part.updated", &data), at));
        }
        assert!(!had_begun(&event("session.status", &json!({ "status": { "type": "idle" } })), at));
    }

    fn event(kind: &str, data: &Value) -> Event {
        let data = RawData::of(data).unwrap();
        let session = session_of(kind, data.json());
        NewEvent { time: Timestamp::from_unix_ms(5_000), kind: kind.into(), session, data }.at(Seq::new(9))
    }
}
