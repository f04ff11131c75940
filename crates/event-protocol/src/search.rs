//! Full-text search (§4.4): what of an event can be found, how a query is written, and what an answer looks like.
//!
//! It is pure and knows no index. A store may keep one, as long as it finds what looking through its logs would find:
//! the events of which [`Text::of`] makes a text, and of these the ones that [`Terms::match_in`] finds.

mod excerpt;
mod since;
mod terms;
mod text;
mod words;

use std::{collections::BTreeSet, fmt, num::ParseIntError, str::FromStr, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

pub use self::{
    excerpt::{Excerpt, Piece},
    since::{SinceError, since},
    terms::{Term, Terms, TermsError},
    text::Text,
    words::{Word, words},
};
use crate::{Epoch, Key, LogId, Seq, Timestamp, limits};

/// What to look for, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Search {
    /// What a text must have.
    pub terms: Terms,
    /// The logs to look through; every one, without.
    pub logs: Option<BTreeSet<LogId>>,
    /// The kinds of text; every one, if empty.
    pub kinds: BTreeSet<TextKind>,
    /// Only events of this time or later.
    pub since: Option<Timestamp>,
    /// Hits of one answer, 1 to [`limits::SEARCH_HITS_MAX`].
    pub limit: usize,
    /// Only what was committed before this: [`Found::next`] of the answer before.
    pub before: Option<Position>,
}

impl Search {
    /// For these terms everywhere, as many hits as an answer has if nobody says.
    #[must_use]
    pub fn of(terms: Terms) -> Self {
        let limit = limits::SEARCH_HITS;
        Self { terms, logs: None, kinds: BTreeSet::new(), since: None, limit, before: None }
    }

    /// Whether a text of this kind, log and time is asked for.
    #[must_use]
    pub fn covers(&self, log: &LogId, kind: TextKind, time: Timestamp) -> bool {
        self.logs.as_ref().is_none_or(|logs| logs.contains(log))
            && (self.kinds.is_empty() || self.kinds.contains(&kind))
            && self.since.is_none_or(|since| time >= since)
    }
}

/// An answer: the newest hits first, in the order in which they were committed.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Found {
    /// What was found. There may be fewer than were asked for, and still be more.
    pub hits: Vec<Hit>,
    /// Where to look on; absent when everything was looked through.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<Position>,
    /// Events that may be hits and cannot be read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub damaged: Vec<DamagedText>,
}

/// An event whose text has every term.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Hit {
    /// Its log.
    pub log: LogId,
    /// The log's incarnation: with `seq`, a cursor.
    pub epoch: Epoch,
    /// Its position.
    pub seq: Seq,
    /// When it happened.
    pub time: Timestamp,
    /// What kind of text it has.
    #[serde(rename = "type")]
    pub kind: TextKind,
    /// Its session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<Arc<str>>,
    /// The entity it speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<Key>,
    /// The tool, of a tool call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool: Option<String>,
    /// What it is about, in a few words, where it says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// Which of its texts the excerpt is from.
    pub field: Field,
    /// Where the terms are, with some of what is around them.
    pub snippet: Vec<Piece>,
}

/// An event that may be a hit and is damaged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct DamagedText {
    /// Its log.
    pub log: LogId,
    /// Its position.
    pub seq: Seq,
}

/// What a text is.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum TextKind {
    /// What the agent was told to do.
    Prompt,
    /// What the agent said.
    Text,
    /// What the model thought.
    Reasoning,
    /// A tool call that is over: what went in and what came out.
    Tool,
    /// What went wrong, in a turn or with the agent.
    Error,
    /// A question to a person.
    Question,
    /// A permission that was asked for.
    Permission,
    /// A session's title.
    Session,
    /// Files that were changed.
    Patch,
    /// What came of it all.
    Done,
}

impl TextKind {
    /// Each of them.
    pub const ALL: [Self; 10] = [
        Self::Prompt,
        Self::Text,
        Self::Reasoning,
        Self::Tool,
        Self::Error,
        Self::Question,
        Self::Permission,
        Self::Session,
        Self::Patch,
        Self::Done,
    ];

    /// The wire's word for it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Prompt => "prompt",
            Self::Text => "text",
            Self::Reasoning => "reasoning",
            Self::Tool => "tool",
            Self::Error => "error",
            Self::Question => "question",
            Self::Permission => "permission",
            Self::Session => "session",
            Self::Patch => "patch",
            Self::Done => "done",
        }
    }
}

impl fmt::Display for TextKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

/// A word that names no kind of text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "there is no type of text {found:?}: there are prompt, text, reasoning, tool, error, question, permission, session, patch and done"
)]
pub struct TextKindError {
    found: String,
}

impl FromStr for TextKind {
    type Err = TextKindError;

    fn from_str(word: &str) -> Result<Self, TextKindError> {
        let found = || TextKindError { found: word.chars().take(40).collect() };
        Self::ALL.into_iter().find(|kind| kind.word() == word).ok_or_else(found)
    }
}

/// One of the texts of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Field {
    /// What was said; of whatever has but one text.
    Text,
    /// What it is about, in a few words.
    Title,
    /// What went into a tool.
    Input,
    /// What came out.
    Output,
    /// What went wrong.
    Error,
}

impl Field {
    /// The wire's word for it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Title => "title",
            Self::Input => "input",
            Self::Output => "output",
            Self::Error => "error",
        }
    }
}

/// A place in the order in which a store committed its texts. On the wire it is a text that means nothing to others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position(u64);

impl Position {
    /// A place from the store's number of it, which rises.
    #[must_use]
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// The store's number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}", self.0)
    }
}

impl FromStr for Position {
    type Err = ParseIntError;

    fn from_str(text: &str) -> Result<Self, ParseIntError> {
        u64::from_str_radix(text, 16).map(Self)
    }
}

impl Serialize for Position {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Position {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        std::borrow::Cow::<'de, str>::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

impl schemars::JsonSchema for Position {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Position".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "description": "means nothing to others than the server" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_found_by_its_word() {
        for kind in TextKind::ALL {
            assert_eq!(kind.word().parse(), Ok(kind));
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.word());
        }
        let error = "tools".parse::<TextKind>().unwrap_err().to_string();
        for kind in TextKind::ALL {
            assert!(error.contains(kind.word()), "{error}");
        }
    }

    #[test]
    fn a_position_is_the_same_after_the_wire() {
        for number in [0, 1, 255, u64::MAX] {
            let position = Position::new(number);
            assert_eq!(position.to_string().parse(), Ok(position));
            let wire = serde_json::to_string(&position).unwrap();
            assert_eq!(serde_json::from_str::<Position>(&wire).unwrap(), position);
        }
        assert!("-1".parse::<Position>().is_err());
        assert!("".parse::<Position>().is_err());
    }

    #[test]
    fn a_search_covers_what_its_filters_let_through() {
        let log: LogId = "agent/a".parse().unwrap();
        let at = Timestamp::from_unix_ms;
        let mut search = Search::of("x".parse().unwrap());
        assert!(search.covers(&log, TextKind::Tool, at(0)));
        search.since = Some(at(5));
        assert!(search.covers(&log, TextKind::Tool, at(5)) && !search.covers(&log, TextKind::Tool, at(4)));
        search.kinds = [TextKind::Error].into();
        assert!(!search.covers(&log, TextKind::Tool, at(5)) && search.covers(&log, TextKind::Error, at(5)));
        search.logs = Some(BTreeSet::new());
        assert!(!search.covers(&log, TextKind::Error, at(5)), "no log is not every log");
    }
}
