//! A recording: what an agent server said, one event per line, and when.

use std::{borrow::Cow, sync::Arc};

use protocol::{NewEvent, RawData, Timestamp, session_of};
use serde::Deserialize;
use serde_json::value::RawValue;

/// Letters and digits after the prefix of an id, at least: shorter ones are words of a text.
const ID_TAIL: usize = 20;

/// A recording that was read.
#[derive(Debug, Clone)]
pub struct Recording {
    entries: Vec<Entry>,
    root: String,
}

#[derive(Debug, Clone)]
struct Entry {
    /// Microseconds after the first event.
    at_us: u64,
    kind: Arc<str>,
    session: Option<Arc<str>>,
    data: RawData,
}

/// Why a text is no recording.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecordingError {
    /// A line is not `{"t_ms", "event": {"type", "properties"}}`.
    #[error("line {line} is no recorded event")]
    Line {
        /// Its number, from 1.
        line: usize,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// There is no event with a session in it.
    #[error("no event of the recording speaks of a session")]
    NoSession,
}

#[derive(Deserialize)]
struct Line<'a> {
    t_ms: f64,
    #[serde(borrow)]
    event: Option<Recorded<'a>>,
}

#[derive(Deserialize)]
struct Recorded<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    /// kilo's `sync` events, second copies of others, have none.
    #[serde(borrow)]
    properties: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Created {
    info: CreatedInfo,
}

#[derive(Deserialize)]
struct CreatedInfo {
    id: String,
    #[serde(rename = "parentID")]
    parent_id: Option<String>,
}

impl Recording {
    /// Reads a recording: one JSON object per line; a line without `event` (what the recorder had to say) is passed over.
    ///
    /// # Errors
    /// When a line is not of that shape, or no event speaks of a session.
    pub fn parse(text: &str) -> Result<Self, RecordingError> {
        let mut entries: Vec<Entry> = Vec::new();
        let mut first_ms = None;
        for (text, line) in text.lines().zip(1..).filter(|(text, _)| !text.trim().is_empty()) {
            let fault = |source| RecordingError::Line { line, source };
            let recorded: Line<'_> = serde_json::from_str(text).map_err(fault)?;
            let Some(event) = recorded.event else { continue };
            let since_ms = recorded.t_ms - *first_ms.get_or_insert(recorded.t_ms);
            // Recorders stamp from several threads: time does not go back here.
            let earliest = entries.last().map_or(0, |entry| entry.at_us);
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a cast of f64 saturates"
            )]
            let at_us = ((since_ms * 1000.0) as u64).max(earliest);
            let data = RawData::from_json(event.properties.map_or("{}", RawValue::get)).map_err(fault)?;
            let session = session_of(&event.kind, data.json());
            entries.push(Entry { at_us, kind: event.kind.into(), session, data });
        }
        let root = root_of(&entries).ok_or(RecordingError::NoSession)?;
        Ok(Self { entries, root })
    }

    /// The agent's session: the first one that no other session began.
    #[must_use]
    pub fn root(&self) -> &str {
        &self.root
    }

    /// How many events there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Never: a recording has at least the event that speaks of its session.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Microseconds after the first event at which this one came.
    pub(super) fn at_us(&self, index: usize) -> Option<u64> {
        self.entries.get(index).map(|entry| entry.at_us)
    }

    /// The event, as it came (`round` 0), or with ids of its own for a later round: the agent's session stays what it is,
    /// everything else is new and sorts after the round before.
    pub(super) fn event(&self, index: usize, round: u64, now: Timestamp) -> Option<NewEvent> {
        let entry = self.entries.get(index)?;
        let mut event = NewEvent {
            time: now,
            kind: Arc::clone(&entry.kind),
            session: entry.session.clone(),
            data: entry.data.clone(),
        };
        if round > 0 {
            // An id has its time in front, in units of 1/4096 ms: a later round is as much later.
            let shift = (self.entries.last().map_or(0, |last| last.at_us / 1000) + 60_000)
                .saturating_mul(round)
                << 12;
            let data = self.rebase(entry.data.json(), shift);
            event.data = RawData::from_json(data).expect("JSON with letters of its ids changed is JSON");
            event.session = entry.session.as_ref().map(|session| self.rebase(session, shift).into());
        }
        Some(event)
    }

    /// The text with every id in it moved by `shift`, but that of the agent's session.
    fn rebase(&self, text: &str, shift: u64) -> String {
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(at) = rest.find('_') {
            let (before, tail) = rest.split_at(at + 1);
            out.push_str(before);
            rest = tail;
            let length = tail.bytes().take_while(u8::is_ascii_alphanumeric).count();
            let prefix =
                ["ses_", "msg_", "prt_", "per_", "que_"].into_iter().find(|prefix| before.ends_with(prefix));
            let Some(prefix) = prefix.filter(|_| length >= ID_TAIL) else { continue };
            let (id, tail) = tail.split_at(length);
            match id.get(..12).and_then(|time| u64::from_str_radix(time, 16).ok()) {
                Some(time) if self.root.strip_prefix(prefix) != Some(id) => {
                    out.push_str(&format!(
                        "{:012x}{}",
                        time.wrapping_add(shift) & 0xffff_ffff_ffff,
                        &id[12..]
                    ));
                }
                Some(_) | None => out.push_str(id),
            }
            rest = tail;
        }
        out.push_str(rest);
        out
    }
}

fn root_of(entries: &[Entry]) -> Option<String> {
    let created = |entry: &&Entry| *entry.kind == *"session.created" || *entry.kind == *"session.updated";
    entries
        .iter()
        .filter(created)
        .filter_map(|entry| entry.data.parse::<Created>().ok())
        .find(|created| created.info.parent_id.is_none())
        .map(|created| created.info.id)
        .or_else(|| entries.iter().find_map(|entry| entry.session.as_deref().map(str::to_owned)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_is_no_event_is_named() {
        let error = Recording::parse("{\"t_ms\": 1, \"client\": \"eof\"}\n\n{\"t_ms\": 2, \"event\": 7}")
            .unwrap_err();
        assert!(matches!(error, RecordingError::Line { line: 3, .. }), "{error:?}");
        assert!(matches!(Recording::parse(""), Err(RecordingError::NoSession)));
    }

    #[test]
    fn the_first_round_is_the_recording_byte_for_byte() {
        let recording = Recording::parse(&lines()).unwrap();
        assert_eq!(recording.root(), "ses_1fa32a199001ITn0thV64Wmrav");
        let event = recording.event(1, 0, Timestamp::from_unix_ms(9)).unwrap();
        assert_eq!((event.time.unix_ms(), &*event.kind), (9, "message.part.updated"));
        assert_eq!(event.data.json(), PART);
        assert_eq!(recording.at_us(1), Some(1500));
    }

    #[test]
    fn a_later_round_has_later_ids_and_the_same_session() {
        let recording = Recording::parse(&lines()).unwrap();
        let of = |round| recording.event(1, round, Timestamp::default()).unwrap();
        let part = |round| {
            of(round).data.parse::<serde_json::Value>().unwrap()["part"]["id"].as_str().unwrap().to_owned()
        };
        assert!(part(0) < part(1) && part(1) < part(2), "{} {} {}", part(0), part(1), part(2));
        assert_eq!(of(2).session, of(0).session);
        let text = of(1).data.json().to_owned();
        assert!(
            text.contains("snake_case and _") && text.contains("ses_1fa32a199001ITn0thV64Wmrav"),
            "{text}"
        );
    }

    const PART: &str = r#"{"part": {"id": "prt_1fa32a1bb001CJBrCEo2y0lLdI", "messageID": "msg_1fa32a1bb001CJBrCEo2y0lLdJ", "sessionID": "ses_1fa32a199001ITn0thV64Wmrav", "type": "text", "text": "snake_case and _"}}"#;

    fn lines() -> String {
        let created = r#"{"info": {"id": "ses_1fa32a199001ITn0thV64Wmrav"}}"#;
        format!(
            "{{\"t_ms\": 10.5, \"event\": {{\"type\": \"session.created\", \"properties\": {created}}}}}\n\
             {{\"t_ms\": 12.0, \"event\": {{\"type\": \"message.part.updated\", \"properties\": {PART}}}}}\n\
             {{\"t_ms\": 13.0, \"client\": \"eof\"}}"
        )
    }
}
