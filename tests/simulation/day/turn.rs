//! What a turn of the simulated server does: a script of events, each after a while.

use std::{collections::VecDeque, time::Duration};

use rand::RngExt;
use serde_json::{Value, json};

use super::{agent_server::SESSION, held::Held, person::PROBE};

/// One event of the server.
#[derive(Debug)]
pub(super) struct Step {
    pub(super) kind: &'static str,
    pub(super) data: Value,
}

/// A turn, from the user's message to the end.
pub(super) fn answering(held: &mut Held, text: &str) -> VecDeque<(Duration, Step)> {
    let mut script = Script::default();
    let user = held.next_id("msg");
    let part = held.next_id("prt");
    script.after(held.random.random_range(20..1_500), "message.updated", message(&user, "user", true));
    script.after(
        5,
        "message.part.updated",
        part_of(&user, json!({ "id": part, "type": "text", "text": text, "time": { "start": 1, "end": 1 } })),
    );
    script.after(5, "session.status", json!({ "sessionID": SESSION, "status": { "type": "busy" } }));
    let answer = held.next_id("msg");
    script.after(300, "message.updated", message(&answer, "assistant", false));
    if held.random.random_bool(0.3) {
        // Who waits for the answer is not made to wait for half an hour.
        let is_long = !text.starts_with(PROBE) && held.random.random_bool(0.1);
        script.tool(held, &answer, is_long);
    }
    script.text(held, &answer, text);
    script.after(20, "message.updated", finished(&answer));
    script.idle();
    script.steps
}

/// The end of a turn that somebody aborts.
pub(super) fn aborted(held: &mut Held) -> VecDeque<(Duration, Step)> {
    let mut script = Script::default();
    for (mut info, parts) in held.unfinished() {
        let id = info["id"].as_str().unwrap_or_default().to_owned();
        for mut part in parts {
            if part["type"] == "tool" {
                part["state"]["status"] = "error".into();
                part["state"]["error"] = "aborted".into();
            }
            part["time"] = json!({ "start": 2, "end": 3 });
            script.after(5, "message.part.updated", part_of(&id, part));
        }
        info["time"]["completed"] = 3.into();
        info["error"] = json!({ "name": "MessageAbortedError", "data": { "message": "aborted" } });
        script.after(5, "message.updated", json!({ "sessionID": SESSION, "info": info }));
    }
    script.idle();
    script.steps
}

#[derive(Default)]
struct Script {
    steps: VecDeque<(Duration, Step)>,
}

impl Script {
    fn after(&mut self, ms: u64, kind: &'static str, data: Value) {
        self.steps.push_back((Duration::from_millis(ms), Step { kind, data }));
    }

    /// Some seconds, or half an hour.
    fn tool(&mut self, held: &mut Held, message: &str, is_long: bool) {
        let part = held.next_id("prt");
        let call = held.next_id("call");
        let state = |state: Value| json!({ "id": part, "type": "tool", "callID": call, "tool": "bash", "state": state });
        let (input, start) = (json!({ "command": "make" }), json!({ "start": 2 }));
        self.after(
            50,
            "message.part.updated",
            part_of(message, state(json!({ "status": "running", "input": input, "time": start }))),
        );
        let takes_ms = if is_long { 1_800_000 } else { held.random.random_range(100..20_000) };
        let done = json!({ "status": "completed", "input": input, "output": "done", "title": "make", "metadata": {}, "time": { "start": 2, "end": 3 } });
        self.after(takes_ms, "message.part.updated", part_of(message, state(done)));
    }

    /// Streamed in pieces, with the prompt's own words in it.
    fn text(&mut self, held: &mut Held, message: &str, prompt: &str) {
        let part = held.next_id("prt");
        let body = |text: &str, time: Value| {
            part_of(message, json!({ "id": part, "type": "text", "text": text, "time": time }))
        };
        self.after(200, "message.part.updated", body("", json!({ "start": 2 })));
        let mut whole = String::new();
        for number in 0..held.random.random_range(3..40) {
            let piece = format!("{prompt} {number}, ");
            let data = json!({ "sessionID": SESSION, "messageID": message, "partID": part, "field": "text", "delta": piece });
            self.after(held.random.random_range(5..2_000), "message.part.delta", data);
            whole.push_str(&piece);
        }
        self.after(20, "message.part.updated", body(&whole, json!({ "start": 2, "end": 3 })));
    }

    fn idle(&mut self) {
        self.after(10, "session.status", json!({ "sessionID": SESSION, "status": { "type": "idle" } }));
        self.after(5, "session.idle", json!({ "sessionID": SESSION }));
    }
}

/// Made in the order of their ids.
fn message(id: &str, role: &str, is_complete: bool) -> Value {
    let number: u64 = id.rsplit('_').next().and_then(|digits| digits.parse().ok()).expect("ids are numbered");
    let mut time = json!({ "created": number });
    if is_complete {
        time["completed"] = number.into();
    }
    json!({ "sessionID": SESSION, "info": { "id": id, "sessionID": SESSION, "role": role, "time": time } })
}

fn finished(id: &str) -> Value {
    let mut data = message(id, "assistant", true);
    data["info"]["finish"] = "stop".into();
    data
}

fn part_of(message: &str, mut part: Value) -> Value {
    part["sessionID"] = SESSION.into();
    part["messageID"] = message.into();
    json!({ "sessionID": SESSION, "part": part })
}
