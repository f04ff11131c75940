//! Joining deltas, so that no long answer floods the log (§3, long texts).
//!
//! Deltas of one part are held for [`HOLD`] and joined. Every [`CHECKPOINT_DELTAS`] deltas sent, or
//! [`CHECKPOINT_BYTES`], the part is sent whole as it is by then: a `message.part.updated`, which makes the deltas before it
//! obsolete. Any other event sends what is held first, so that the order stays.

use std::{collections::BTreeMap, time::Duration};

use protocol::{NewEvent, RawData, Timestamp};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::Moment;

/// How long a delta is held for the next one. It may wait for 25 ms, which is below what an eye notices; of those a timer needs up to two,
/// since tokio and the system both wait for whole milliseconds.
pub(crate) const HOLD: Duration = Duration::from_millis(23);
/// Deltas of one part sent before the part is sent whole.
pub(crate) const CHECKPOINT_DELTAS: usize = 256;
/// Bytes of deltas of one part sent before the part is sent whole.
pub(crate) const CHECKPOINT_BYTES: usize = 64 * 1024;
/// Bytes held before they are sent without waiting for the window.
const HELD_BYTES: usize = 16 * 1024;

/// Joins deltas. Feed it every event in order; ask for [`deadline`](Self::deadline) and [`flush`](Self::flush) then.
#[derive(Debug, Default)]
pub(crate) struct Coalescer {
    held: Vec<Held>,
    held_bytes: usize,
    since: Option<Moment>,
    /// Texts that are being written, by message and part.
    open: BTreeMap<(String, String), OpenPart>,
}

/// Joined deltas of one field of one part.
#[derive(Debug)]
struct Held {
    time: Timestamp,
    delta: Delta,
}

/// A text part that has no end yet.
#[derive(Debug)]
struct OpenPart {
    /// The part as the server sent it last.
    part: Value,
    /// Its text so far.
    text: String,
    sent_deltas: usize,
    sent_bytes: usize,
}

#[derive(Debug, Deserialize)]
struct Delta {
    #[serde(rename = "sessionID")]
    session: String,
    #[serde(rename = "messageID")]
    message: String,
    #[serde(rename = "partID")]
    part: String,
    field: String,
    delta: String,
}

#[derive(Deserialize)]
struct Updated {
    part: Value,
}

impl Coalescer {
    /// Takes the next event; what is to be sent by now is appended to `out`.
    pub(crate) fn push(&mut self, now: Moment, event: NewEvent, out: &mut Vec<NewEvent>) {
        if &*event.kind == "message.part.delta"
            && let Ok(delta) = event.data.parse::<Delta>()
        {
            self.hold(now, event.time, delta);
            if self.held_bytes >= HELD_BYTES || self.deadline().is_some_and(|deadline| deadline <= now) {
                self.flush(out);
            }
            return;
        }
        self.flush(out);
        self.follow(&event);
        out.push(event);
    }

    /// When what is held must be sent.
    pub(crate) fn deadline(&self) -> Option<Moment> {
        self.since.map(|since| since + HOLD)
    }

    /// Sends what is held.
    pub(crate) fn flush(&mut self, out: &mut Vec<NewEvent>) {
        self.since = None;
        self.held_bytes = 0;
        for Held { time, delta } in std::mem::take(&mut self.held) {
            let checkpoint = self.write(time, &delta);
            out.push(delta.event(time));
            out.extend(checkpoint);
        }
    }

    /// Forgets every text that is being written: the server that wrote them is gone.
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    fn hold(&mut self, now: Moment, time: Timestamp, delta: Delta) {
        self.since.get_or_insert(now);
        self.held_bytes += delta.delta.len();
        match self.held.iter_mut().find(|held| held.delta.is_of(&delta)) {
            Some(held) => held.delta.delta.push_str(&delta.delta),
            None => self.held.push(Held { time, delta }),
        }
    }

    /// Keeps the text of the part; the part whole, if it is time for that.
    fn write(&mut self, time: Timestamp, delta: &Delta) -> Option<NewEvent> {
        if delta.field != "text" {
            return None;
        }
        let open = self.open.get_mut(&(delta.message.clone(), delta.part.clone()))?;
        open.text.push_str(&delta.delta);
        open.sent_deltas += 1;
        open.sent_bytes += delta.delta.len();
        if open.sent_deltas < CHECKPOINT_DELTAS && open.sent_bytes < CHECKPOINT_BYTES {
            return None;
        }
        open.checkpoint(time)
    }

    /// Learns from an event that is no delta which texts are being written.
    fn follow(&mut self, event: &NewEvent) {
        match &*event.kind {
            "message.part.updated" => {
                let Ok(Updated { part }) = event.data.parse() else { return };
                let Some(key) = key_of(&part) else { return };
                let text = part.get("text").and_then(Value::as_str);
                let is_written =
                    matches!(part.get("type").and_then(Value::as_str), Some("text" | "reasoning"))
                        && part.pointer("/time/end").is_none();
                match text {
                    Some(text) if is_written => {
                        let text = text.to_owned();
                        self.open.insert(key, OpenPart { part, text, sent_deltas: 0, sent_bytes: 0 });
                    }
                    Some(_) | None => {
                        self.open.remove(&key);
                    }
                }
            }
            "message.part.removed" => {
                if let Ok(removed) = event.data.parse::<Value>()
                    && let (Some(message), Some(part)) =
                        (text_of(&removed, "messageID"), text_of(&removed, "partID"))
                {
                    self.open.remove(&(message, part));
                }
            }
            "message.updated" => {
                if let Ok(updated) = event.data.parse::<Value>()
                    && updated.pointer("/info/time/completed").is_some()
                    && let Some(id) = updated.pointer("/info/id").and_then(Value::as_str)
                {
                    self.open.retain(|(message, _), _| message != id);
                }
            }
            _ => {}
        }
    }
}

impl OpenPart {
    fn checkpoint(&mut self, time: Timestamp) -> Option<NewEvent> {
        (self.sent_deltas, self.sent_bytes) = (0, 0);
        self.part["text"] = Value::String(self.text.clone());
        let session = text_of(&self.part, "sessionID");
        let data = json!({ "sessionID": session, "part": self.part, "time": time.unix_ms() });
        Some(NewEvent {
            time,
            kind: "message.part.updated".into(),
            session: session.map(Into::into),
            data: RawData::of(&data).ok()?,
        })
    }
}

impl Delta {
    fn is_of(&self, other: &Self) -> bool {
        self.part == other.part && self.message == other.message && self.field == other.field
    }

    fn event(self, time: Timestamp) -> NewEvent {
        let data = json!({
            "sessionID": self.session, "messageID": self.message, "partID": self.part, "field": self.field,
            "delta": self.delta,
        });
        NewEvent {
            time,
            kind: "message.part.delta".into(),
            session: Some(self.session.into()),
            data: RawData::of(&data).expect("a JSON value serialises"),
        }
    }
}

fn key_of(part: &Value) -> Option<(String, String)> {
    Some((text_of(part, "messageID")?, text_of(part, "id")?))
}

fn text_of(value: &Value, field: &str) -> Option<String> {
    value.get(field).and_then(Value::as_str).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use protocol::{Seq, view::SessionView};

    use super::*;
    use crate::testing::event;

    #[test]
    fn deltas_of_one_part_are_joined_and_are_not_held_for_longer() {
        let mut coalescer = Coalescer::default();
        let mut out = Vec::new();
        coalescer.push(Moment::from_ms(0), delta("p1", "Hel"), &mut out);
        coalescer.push(Moment::from_ms(10), delta("p1", "lo"), &mut out);
        assert!(out.is_empty());
        assert_eq!(coalescer.deadline(), Some(Moment::START + HOLD));
        coalescer.flush(&mut out);
        assert_eq!(texts(&out), ["Hello"]);
        assert_eq!(coalescer.deadline(), None);
    }

    #[test]
    fn a_delta_that_comes_later_sends_what_is_held() {
        let mut coalescer = Coalescer::default();
        let mut out = Vec::new();
        coalescer.push(Moment::from_ms(0), delta("p1", "a"), &mut out);
        coalescer.push(Moment::START + HOLD, delta("p1", "b"), &mut out);
        assert_eq!(texts(&out), ["ab"]);
    }

    #[test]
    fn any_other_event_sends_what_is_held_first() {
        let mut coalescer = Coalescer::default();
        let mut out = Vec::new();
        coalescer.push(Moment::START, delta("p1", "a"), &mut out);
        coalescer.push(Moment::START, event("session.idle", r#"{"sessionID":"s"}"#), &mut out);
        let kinds: Vec<&str> = out.iter().map(|event| &*event.kind).collect();
        assert_eq!(kinds, ["message.part.delta", "session.idle"]);
    }

    #[test]
    fn a_long_answer_is_sent_whole_every_so_many_deltas() {
        let mut coalescer = Coalescer::default();
        let mut out = Vec::new();
        coalescer.push(Moment::START, started("p1"), &mut out);
        for i in 0..CHECKPOINT_DELTAS {
            coalescer.push(Moment::START, delta("p1", "x"), &mut out);
            assert_eq!(out.len(), 1 + i, "nothing is sent whole too early");
            coalescer.flush(&mut out);
        }
        let last = out.last().unwrap();
        assert_eq!(&*last.kind, "message.part.updated");
        let part: Value = last.data.parse().unwrap();
        assert_eq!(part["part"]["text"].as_str().unwrap().len(), CHECKPOINT_DELTAS);
        assert_eq!(part["part"]["own"], "kept", "unknown fields of the part stay");
    }

    #[test]
    fn a_wide_answer_is_sent_whole_every_so_many_bytes() {
        let mut coalescer = Coalescer::default();
        let mut out = Vec::new();
        coalescer.push(Moment::START, started("p1"), &mut out);
        for _ in 0..CHECKPOINT_BYTES / 1024 {
            coalescer.push(Moment::START, delta("p1", &"y".repeat(1024)), &mut out);
        }
        coalescer.flush(&mut out);
        assert_eq!(out.iter().filter(|event| &*event.kind == "message.part.updated").count(), 2);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        /// Whatever comes in whichever rhythm: the fold of what is sent is the fold of what came.
        #[test]
        fn p10_joined_deltas_fold_to_the_same_view(steps in proptest::collection::vec(step(), 1..80)) {
            let mut coalescer = Coalescer::default();
            let (mut sent, mut came) = (Vec::new(), Vec::new());
            let mut now = Moment::START;
            for step in steps {
                let next = match step {
                    Step::Start(part) => started(part),
                    Step::Delta(part, text) => delta(part, &text),
                    Step::End(part, text) => ended(part, &text),
                    Step::Other => event("session.idle", r#"{"sessionID":"s"}"#),
                    Step::Wait(ms) => {
                        now = now + Duration::from_millis(ms);
                        if coalescer.deadline().is_some_and(|deadline| deadline <= now) {
                            coalescer.flush(&mut sent);
                        }
                        continue;
                    }
                };
                came.push(next.clone());
                coalescer.push(now, next, &mut sent);
            }
            coalescer.flush(&mut sent);
            prop_assert_eq!(parts(&sent), parts(&came));
        }
    }

    #[derive(Debug, Clone)]
    enum Step {
        Start(&'static str),
        Delta(&'static str, String),
        End(&'static str, String),
        Other,
        Wait(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        let part = prop::sample::select(vec!["p1", "p2", "p3"]);
        prop_oneof![
            1 => part.clone().prop_map(Step::Start),
            12 => (part.clone(), "[a-z]{0,3000}").prop_map(|(part, text)| Step::Delta(part, text)),
            1 => (part, "[a-z]{0,8}").prop_map(|(part, text)| Step::End(part, text)),
            1 => Just(Step::Other),
            4 => (0_u64..40).prop_map(Step::Wait),
        ]
    }

    fn parts(events: &[NewEvent]) -> Vec<(String, Option<String>)> {
        let mut view = SessionView::default();
        for (i, event) in events.iter().enumerate() {
            view.apply(&event.clone().at(Seq::new(i as u64 + 1)));
        }
        let message = view.message("m");
        message.map_or_else(Vec::new, |message| {
            message
                .parts()
                .map(|part| (part.id().to_string(), part.body().text().map(str::to_owned)))
                .collect()
        })
    }

    fn delta(part: &str, text: &str) -> NewEvent {
        let data =
            json!({ "sessionID": "s", "messageID": "m", "partID": part, "field": "text", "delta": text });
        event("message.part.delta", &data.to_string())
    }

    fn started(part: &str) -> NewEvent {
        let part = json!({ "id": part, "messageID": "m", "sessionID": "s", "type": "text", "text": "", "own": "kept" });
        event("message.part.updated", &json!({ "sessionID": "s", "part": part }).to_string())
    }

    fn ended(part: &str, text: &str) -> NewEvent {
        let part = json!({
            "id": part, "messageID": "m", "sessionID": "s", "type": "text", "text": text, "time": { "end": 1 },
        });
        event("message.part.updated", &json!({ "sessionID": "s", "part": part }).to_string())
    }

    fn texts(events: &[NewEvent]) -> Vec<String> {
        events
            .iter()
            .map(|event| event.data.parse::<Value>().unwrap()["delta"].as_str().unwrap().to_owned())
            .collect()
    }
}
