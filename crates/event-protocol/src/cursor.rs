//! Where a reader is in a log.

use std::{fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize, de::Error as _};

/// Position of an event in its log: strictly increasing, never reused, given by the store at commit. The first event
/// has 1; 0 is *before everything*. Not dense: compaction leaves holes.
///
/// On the wire it is an integer below 2^53, so that every JSON reader holds it exactly; a larger one is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize)]
#[serde(transparent)]
pub struct Seq(u64);

/// Why a number is not a position.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a position is below 2^53, not {found}")]
pub struct SeqError {
    found: u64,
}

impl Seq {
    /// Before the first event.
    pub const ZERO: Self = Self(0);

    /// The last position there can be: at a million events a second it is reached after 285 years.
    pub const MAX: Self = Self((1 << 53) - 1);

    /// A position from its number.
    #[must_use]
    pub const fn new(value: u64) -> Self {
        Self(value)
    }

    /// The position as a number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The position after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl TryFrom<u64> for Seq {
    type Error = SeqError;

    fn try_from(value: u64) -> Result<Self, SeqError> {
        if value <= Self::MAX.0 { Ok(Self(value)) } else { Err(SeqError { found: value }) }
    }
}

impl<'de> Deserialize<'de> for Seq {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::try_from(u64::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

impl schemars::JsonSchema for Seq {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Seq".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "integer", "minimum": 0, "maximum": Self::MAX.0 })
    }
}

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// The incarnation of a log: a log that was removed and made again, or restored from a backup, has another one, and a
/// cursor of another epoch is not valid in it.
#[derive(
    Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(transparent)]
pub struct Epoch(Arc<str>);

impl Epoch {
    /// An epoch of this name.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self(name.into())
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// `{epoch, seq}`: everything up to and including `seq` has been seen. As text `<epoch>:<seq>`, the `id:` of an SSE event.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Cursor {
    /// The incarnation that `seq` belongs to.
    pub epoch: Epoch,
    /// The last position seen.
    pub seq: Seq,
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.epoch, self.seq)
    }
}

/// Why a text is not a cursor.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a cursor is <epoch>:<seq>")]
pub struct CursorParseError;

impl FromStr for Cursor {
    type Err = CursorParseError;

    fn from_str(text: &str) -> Result<Self, CursorParseError> {
        let (epoch, seq) = text.rsplit_once(':').ok_or(CursorParseError)?;
        if epoch.is_empty() || epoch.len() > crate::limits::ID_BYTES {
            return Err(CursorParseError);
        }
        if !seq.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(CursorParseError);
        }
        let seq: u64 = seq.parse().map_err(|_| CursorParseError)?;
        Ok(Self { epoch: Epoch::new(epoch), seq: Seq::try_from(seq).map_err(|_| CursorParseError)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_survives_its_text() {
        for text in ["e:0", "01J:41", "a:b:7", "e:9007199254740991"] {
            assert_eq!(text.parse::<Cursor>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_is_no_cursor_is_refused() {
        let long = format!("{}:1", "e".repeat(65));
        for text in [
            "",
            ":",
            ":1",
            "e:",
            "e",
            "e:-1",
            "e:+1",
            "e: 1",
            "e:1.0",
            "e:0x1",
            "e:18446744073709551616",
            &long,
        ] {
            assert_eq!(text.parse::<Cursor>(), Err(CursorParseError), "{text}");
        }
        assert!(format!("{}:1", "e".repeat(64)).parse::<Cursor>().is_ok());
    }
}
