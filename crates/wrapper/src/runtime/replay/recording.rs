//! A recording: what an agent server said, one event per line, and when.

use std::{borrow::Cow, sync::Arc, time::Duration};

use protocol::{NewEvent, RawData, Timestamp, session_of};
use serde::Deserialize;
use serde_json::value::RawValue;

/// Letters and digits after the prefix of an id, at least: shorter ones are words of a text.
const ID_TAIL: usize = 20;

/// A payload's times lie this close to the recording: other numbers are none.
const TIMES_WITHIN_MS: u64 = 24 * 60 * 60 * 1000;
/// Digits of a time in milliseconds, from 2001 to 2286.
const TIME_DIGITS: usize = 13;

/// A recording that was read.
#[derive(Debug, Clone)]
pub struct Recording {
    entries: Vec<Entry>,
    root: String,
    /// When its first event came, Unix time in milliseconds, as far as its payloads tell.
    began_ms: Option<u64>,
}

/// One of many times that a recording is played, as if it happened then.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Round {
    /// From 0.
    pub(super) number: u64,
    pub(super) began: Timestamp,
    /// Times as fast as it was.
    pub(super) speed: f64,
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
        let began_ms = began_of(&entries);
        Ok(Self { entries, root, began_ms })
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

    /// The event, as it came.
    pub(super) fn event(&self, index: usize, now: Timestamp) -> Option<NewEvent> {
        let Entry { kind, session, data, .. } = self.entries.get(index)?;
        Some(NewEvent { time: now, kind: Arc::clone(kind), session: session.clone(), data: data.clone() })
    }

    /// The event as one of this round: the times in it are those of the round. In a later one, the agent's session stays
    /// what it is, every other id is new and sorts after the round before.
    pub(super) fn event_of_round(&self, index: usize, round: Round, now: Timestamp) -> Option<NewEvent> {
        let mut event = self.event(index, now)?;
        let mut data = self.retime(event.data.json(), round);
        if round.number > 0 {
            // An id has its time in front, in units of 1/4096 ms: a later round is as much later.
            let shift = (self.entries.last().map_or(0, |last| last.at_us / 1000) + 60_000)
                .saturating_mul(round.number)
                << 12;
            data = self.rebase(&data, shift);
            event.session = event.session.map(|session| self.rebase(&session, shift).into());
        }
        event.data = RawData::from_json(data).expect("JSON with other digits in its times and ids is JSON");
        Some(event)
    }

    /// The text with every time in it that is of the recording moved to the round.
    fn retime(&self, text: &str, round: Round) -> String {
        let Some(recorded_ms) = self.began_ms else { return text.to_owned() };
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some((before, time, after)) = next_time(rest) {
            out.push_str(before);
            let since_ms = time.abs_diff(recorded_ms);
            if since_ms > TIMES_WITHIN_MS {
                out.push_str(&rest[before.len()..rest.len() - after.len()]);
            } else {
                let played = Duration::from_millis(since_ms).div_f64(round.speed);
                let played_ms = i64::try_from(played.as_millis()).unwrap_or(i64::MAX);
                let began_ms = round.began.unix_ms();
                let time_ms = if time < recorded_ms {
                    began_ms.saturating_sub(played_ms)
                } else {
                    began_ms.saturating_add(played_ms)
                };
                out.push_str(&time_ms.to_string());
            }
            rest = after;
        }
        out.push_str(rest);
        out
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

/// The next number in a JSON text that may be a time in milliseconds: what is before it, it, and what is after it.
fn next_time(text: &str) -> Option<(&str, u64, &str)> {
    let mut from = 0;
    loop {
        let start = from + text.get(from..)?.find(|c: char| c.is_ascii_digit())?;
        let length = text[start..].bytes().take_while(u8::is_ascii_digit).count();
        let (before, end) = (&text[..start], start + length);
        // A value by itself: no piece of a string, of an id, or of a longer number.
        let stands_alone = before.trim_end().ends_with([':', ',', '['])
            && text[end..].trim_start().starts_with([',', '}', ']']);
        if length == TIME_DIGITS
            && stands_alone
            && let Ok(time) = text[start..end].parse()
        {
            return Some((before, time, &text[end..]));
        }
        from = end;
    }
}

/// When the first event came: by the first payload that has a time in it.
fn began_of(entries: &[Entry]) -> Option<u64> {
    entries.iter().find_map(|entry| Some(next_time(entry.data.json())?.1.saturating_sub(entry.at_us / 1000)))
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
    fn what_is_played_once_is_the_recording_byte_for_byte() {
        let recording = Recording::parse(&lines()).unwrap();
        assert_eq!(recording.root(), "ses_1fa32a199001ITn0thV64Wmrav");
        let event = recording.event(1, Timestamp::from_unix_ms(9)).unwrap();
        assert_eq!((event.time.unix_ms(), &*event.kind), (9, "message.part.updated"));
        assert_eq!(event.data.json(), PART);
        assert_eq!(recording.at_us(1), Some(1500));
    }

    #[test]
    fn a_later_round_has_later_ids_and_the_same_session() {
        let recording = Recording::parse(&lines()).unwrap();
        let of = |number| recording.event_of_round(1, round(number, 0), Timestamp::default()).unwrap();
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

    #[test]
    fn a_round_has_the_times_at_which_it_is_played() {
        let recording = Recording::parse(&lines()).unwrap();
        let began_ms = 1_900_000_000_000;
        let played = recording.event_of_round(2, round(0, began_ms), Timestamp::default()).unwrap();
        let expected =
            TIMES.replacen("1795199187000", "1900000000500", 1).replacen("1795199185990", "1899999999995", 1);
        assert_eq!(played.data.json(), expected);
    }

    #[test]
    fn a_recording_without_times_is_played_as_it_is() {
        let created =
            r#"{"t_ms": 1, "event": {"type": "session.created", "properties": {"info": {"id": "ses_1"}}}}"#;
        let recording = Recording::parse(created).unwrap();
        let played = recording.event_of_round(0, round(0, 1_900_000_000_000), Timestamp::default()).unwrap();
        assert_eq!(played.data.json(), r#"{"info": {"id": "ses_1"}}"#);
    }

    fn round(number: u64, began_ms: i64) -> Round {
        Round { number, began: Timestamp::from_unix_ms(began_ms), speed: 2.0 }
    }

    /// One time of the recording, one before it, one of another year, and digits that are no time.
    const TIMES: &str = r#"{"time": {"start": 1795199187000,"created":1795199185990, "other": [1500000000000 ]}, "text": "at 1795199187000, or: 1795199187000 ms", "n": 17951991870001}"#;
    const PART: &str = r#"{"part": {"id": "prt_1fa32a1bb001CJBrCEo2y0lLdI", "messageID": "msg_1fa32a1bb001CJBrCEo2y0lLdJ", "sessionID": "ses_1fa32a199001ITn0thV64Wmrav", "type": "text", "text": "snake_case and _"}}"#;

    fn lines() -> String {
        let created =
            r#"{"info": {"id": "ses_1fa32a199001ITn0thV64Wmrav", "time": {"created": 1795199186000}}}"#;
        format!(
            "{{\"t_ms\": 10.5, \"event\": {{\"type\": \"session.created\", \"properties\": {created}}}}}\n\
             {{\"t_ms\": 12.0, \"event\": {{\"type\": \"message.part.updated\", \"properties\": {PART}}}}}\n\
             {{\"t_ms\": 12.5, \"event\": {{\"type\": \"x\", \"properties\": {TIMES}}}}}\n\
             {{\"t_ms\": 13.0, \"client\": \"eof\"}}"
        )
    }
}
