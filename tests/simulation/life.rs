//! What an agent says: sessions, messages, streamed text, to-dos and asks, few of each, so that events replace and remove
//! one another; each with a mark of its own.

use protocol::{NewEvent, Timestamp};
use rand::{RngExt, rngs::StdRng};
use serde_json::{Value, json};

/// One agent's next event.
pub(crate) fn event(agent: &str, mark: u64, time: Timestamp, random: &mut StdRng) -> NewEvent {
    let session = format!("ses_{agent}_{}", random.random_range(0..2));
    let message = format!("msg_{session}_{}", random.random_range(0..3));
    let part = format!("prt_{message}_{}", random.random_range(0..2));
    let (kind, mut data) = say(&session, &message, &part, random);
    data["mark"] = json!(format!("{agent}-{mark}"));
    NewEvent::of(time, kind, &data).expect("JSON serialises")
}

fn say(session: &str, message: &str, part: &str, random: &mut StdRng) -> (&'static str, Value) {
    let words = "lorem ipsum dolor sit amet ".repeat(random.random_range(0..8));
    let ask = format!("per_{}", random.random_range(0..3));
    match random.random_range(0..100) {
        0..45 => (
            "message.part.delta",
            json!({ "sessionID": session, "messageID": message, "partID": part, "field": "text", "delta": words }),
        ),
        45..60 => (
            "message.part.updated",
            json!({ "sessionID": session, "part": {
                "id": part, "sessionID": session, "messageID": message, "type": "text", "text": words,
            } }),
        ),
        60..70 => (
            "message.updated",
            json!({ "sessionID": session, "info": {
                "id": message, "sessionID": session, "role": "assistant", "time": { "created": 1 }, "note": words,
            } }),
        ),
        70..76 => (
            "session.updated",
            json!({ "sessionID": session, "info": { "id": session, "title": words, "time": { "created": 1 } } }),
        ),
        76..82 => (
            "todo.updated",
            json!({ "sessionID": session, "todos": [{
            "id": "1", "content": words, "status": "pending", "priority": "low",
        }] }),
        ),
        82..86 => (
            "permission.asked",
            json!({ "id": ask, "sessionID": session, "permission": "bash", "patterns": ["*"] }),
        ),
        86..89 => ("permission.replied", json!({ "requestID": ask, "sessionID": session, "reply": "once" })),
        89..92 => ("session.turn.close", json!({ "sessionID": session, "reason": "completed" })),
        92..95 => {
            ("message.part.removed", json!({ "sessionID": session, "messageID": message, "partID": part }))
        }
        95..97 => ("message.removed", json!({ "sessionID": session, "messageID": message })),
        97 => ("session.deleted", json!({ "sessionID": session, "info": { "id": session } })),
        _ => ("file.edited", json!({ "file": words })),
    }
}
