//! What is played: one turn of 20 steps, 4,000 events, in the shapes, sizes and proportions of a recorded opencode 1.18 (of 4,031 events
//! in 13 s, 3,455 were deltas).
//!
//! Every event carries its number where a wrapper leaves it: in its payload, and in the text of a delta, which is joined to others.

use protocol::Class;
use serde_json::{Value, json};

/// The session, as the agent server calls it.
pub(crate) const SESSION: &str = "ses_e05cbe5fdffeSVrjVER1oITZRA";
/// Events of a turn.
pub(crate) const EVENTS: usize = STEPS * EVENTS_OF_STEP;

const STEPS: usize = 20;
const EVENTS_OF_STEP: usize = 200;
const REASONING_DELTAS: usize = 58;
const TEXT_DELTAS: usize = 114;

/// An event as the agent server says it.
#[derive(Debug, Clone)]
pub(crate) struct Event {
    pub(crate) json: String,
    pub(crate) goes: Goes,
}

/// What a wrapper is to do with an event (docs/protocol.md, §3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Goes {
    /// It is joined with the deltas that come within the window.
    Joined,
    AtOnce,
    /// It is nobody's business.
    Nowhere,
}

/// The whole turn. The number of an event is its index.
pub(crate) fn turn() -> Vec<Event> {
    let mut turn = Turn { events: Vec::with_capacity(EVENTS) };
    (0..STEPS).for_each(|step| turn.step(step));
    turn.events
}

/// The numbers in the text of deltas that were joined.
pub(crate) fn numbers_in(text: &str) -> impl Iterator<Item = usize> {
    text.split_whitespace().filter_map(|number| number.parse().ok())
}

struct Turn {
    events: Vec<Event>,
}

impl Turn {
    fn step(&mut self, step: usize) {
        let message = format!("msg_1fa341c1{step:04}YXbtycL8m4SXpw");
        let part = |name: &str| format!("prt_1fa3420{step:04}{name:0<12}");
        self.say("session.status", json!({ "status": { "type": "busy" } }));
        self.message(&message, "assistant", None);
        self.part(&message, json!({ "id": part("start"), "type": "step-start", "snapshot": HASH }));

        self.text(&message, &part("reasoning"), "reasoning", REASONING_DELTAS);
        self.text(&message, &part("text"), "text", TEXT_DELTAS);

        for status in ["pending", "running", "running", "pending", "running"] {
            self.tool(&message, &part("write"), "write", status);
        }
        let file = format!("/home/dev/i_long/f{step}.txt");
        self.say("file.edited", json!({ "file": file }));
        self.say("file.watcher.updated", json!({ "file": file, "event": "add" }));
        self.tool(&message, &part("write"), "write", "completed");
        self.tool(&message, &part("bash"), "bash", "running");
        self.tool(&message, &part("bash"), "bash", "completed");
        self.message("msg_1fa341a1000user", "user", Some(&PATCH.repeat(8)));
        self.part(
            &message,
            json!({ "id": part("finish"), "type": "step-finish", "reason": "tool-calls", "snapshot": HASH, "cost": 0, "tokens": tokens() }),
        );
        self.message(&message, "assistant", None);
        self.part(&message, json!({ "id": part("patch"), "type": "patch", "hash": HASH, "files": [file] }));
        self.message(&message, "assistant", None);
        self.say("session.updated", json!({ "info": session() }));
        self.say("session.diff", json!({ "diff": [] }));
        self.say("session.status", json!({ "status": { "type": "busy" } }));
        // The rest is what nobody is shown.
        while self.events.len() < (step + 1) * EVENTS_OF_STEP - 1 {
            self.say("plugin.added", json!({ "id": "a-plugin" }));
        }
        let is_last = step + 1 == STEPS;
        let (kind, status) = if is_last { ("session.idle", "idle") } else { ("session.status", "busy") };
        self.say(kind, json!({ "status": { "type": status } }));
    }

    /// A text that is written piece by piece.
    fn text(&mut self, message: &str, part: &str, kind: &str, deltas: usize) {
        let begun = json!({ "id": part, "type": kind, "text": "", "time": { "start": TIME } });
        self.part(message, begun);
        let mut whole = String::new();
        for _ in 0..deltas {
            let delta = format!("{:05} ", self.events.len());
            whole += &delta;
            let data = json!({ "messageID": message, "partID": part, "field": "text", "delta": delta });
            self.say("message.part.delta", data);
        }
        let ended =
            json!({ "id": part, "type": kind, "text": whole, "time": { "start": TIME, "end": TIME + 200 } });
        self.part(message, ended);
    }

    fn tool(&mut self, message: &str, part: &str, tool: &str, status: &str) {
        let input = json!({ "filePath": "/home/dev/i_long/f0.txt", "content": PATCH });
        let mut state =
            json!({ "status": status, "input": input, "title": "f0.txt", "time": { "start": TIME } });
        if status == "completed" {
            state["output"] = PATCH.into();
            state["metadata"] = json!({ "exists": false, "diff": PATCH, "truncated": false });
            state["time"]["end"] = (TIME + 30).into();
        }
        let call = format!("call_{tool}");
        self.part(
            message,
            json!({ "id": part, "type": "tool", "callID": call, "tool": tool, "state": state }),
        );
    }

    fn part(&mut self, message: &str, mut part: Value) {
        part["messageID"] = message.into();
        part["sessionID"] = SESSION.into();
        self.say("message.part.updated", json!({ "part": part, "time": TIME }));
    }

    fn message(&mut self, id: &str, role: &str, patch: Option<&str>) {
        let mut info = json!({
            "id": id, "role": role, "sessionID": SESSION, "agent": "build", "time": { "created": TIME },
            "parentID": "msg_1fa341a1000user", "mode": "build", "path": { "cwd": "/home/dev/i_long", "root": "/" }, "cost": 0,
            "tokens": tokens(), "modelID": "scripted", "providerID": "local",
        });
        if let Some(patch) = patch {
            info["summary"] =
                json!({ "diffs": [{ "file": "f0.txt", "patch": patch, "additions": 1, "deletions": 0 }] });
        }
        self.say("message.updated", json!({ "info": info }));
    }

    fn say(&mut self, kind: &str, mut data: Value) {
        let number = self.events.len();
        data["sessionID"] = SESSION.into();
        let goes = match Class::of(kind) {
            Class::Delta => Goes::Joined,
            Class::State | Class::Outcome => Goes::AtOnce,
            Class::Volatile => Goes::Nowhere,
        };
        if goes != Goes::Joined {
            data["number"] = number.into();
        }
        let event =
            json!({ "id": format!("evt_1fa3419e9{number:06}CpUgBeO7w"), "type": kind, "properties": data });
        self.events.push(Event { json: event.to_string(), goes });
    }
}

const TIME: u64 = 1_795_199_082_559;
const HASH: &str = "853694aae8816094a0d875fee7ea26278dbf5d0f";
const PATCH: &str =
    "Index: f0.txt\n@@ -0,0 +1,1 @@\n+the agent server writes this line\n\\ No newline at end of file\n";

fn tokens() -> Value {
    json!({ "input": 120, "output": 40, "reasoning": 12, "cache": { "read": 0, "write": 0 } })
}

fn session() -> Value {
    json!({
        "id": SESSION, "slug": "gentle-engine", "projectID": HASH, "directory": "/home/dev/i_long", "path": "",
        "title": "New session", "agent": "build", "cost": 0, "tokens": tokens(), "version": "1.18.33",
        "model": { "id": "scripted", "providerID": "local" }, "time": { "created": TIME, "updated": TIME },
        "permission": [{ "permission": "question", "pattern": "*", "action": "allow" }],
        "summary": { "additions": 1, "deletions": 0, "files": 1 },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_has_4_000_events_most_of_them_deltas_and_ends() {
        let turn = turn();
        assert_eq!(turn.len(), 4_000);
        assert_eq!(turn.iter().filter(|event| event.goes == Goes::Joined).count(), 3_440);
        let bytes: usize = turn.iter().map(|event| event.json.len()).sum();
        assert!((260..300).contains(&(bytes / turn.len())), "{} bytes per event", bytes / turn.len());
        assert!(turn.last().unwrap().json.contains("session.idle"));
    }

    #[test]
    fn every_event_that_is_passed_on_tells_its_number() {
        for (number, event) in turn().iter().enumerate() {
            let data = &serde_json::from_str::<Value>(&event.json).unwrap()["properties"];
            match event.goes {
                Goes::Joined => {
                    let text = data["delta"].as_str().unwrap();
                    assert_eq!(numbers_in(text).collect::<Vec<_>>(), [number], "{text:?}");
                }
                Goes::AtOnce | Goes::Nowhere => assert_eq!(data["number"], number),
            }
        }
        assert_eq!(numbers_in("00007 00008 ").collect::<Vec<_>>(), [7, 8]);
    }
}
