//! Ids: opaque strings of `[A-Za-z0-9_-]{1,64}`, one type per thing they name.

use std::{fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use crate::limits::ID_BYTES;

/// Why a text is not an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IdError {
    /// Nothing was given.
    #[error("{what} is empty")]
    Empty {
        /// The kind of id that was expected.
        what: &'static str,
    },
    /// Longer than 64 bytes.
    #[error("{what} has {len} bytes, at most {ID_BYTES} are allowed")]
    TooLong {
        /// The kind of id that was expected.
        what: &'static str,
        /// The length given.
        len: usize,
    },
    /// A byte outside of `[A-Za-z0-9_-]`.
    #[error("{what} may hold only letters, digits, `_` and `-`, not {found:?}")]
    Character {
        /// The kind of id that was expected.
        what: &'static str,
        /// The first character that does not fit.
        found: char,
    },
    /// A log name that is neither `agent/<id>` nor `town/<id>`.
    #[error("a log is named agent/<id> or town/<id>, not {found:?}")]
    Log {
        /// What was given.
        found: String,
    },
}

fn check(what: &'static str, text: &str) -> Result<(), IdError> {
    if text.is_empty() {
        return Err(IdError::Empty { what });
    }
    if text.len() > ID_BYTES {
        return Err(IdError::TooLong { what, len: text.len() });
    }
    match text.chars().find(|c| !(c.is_ascii_alphanumeric() || *c == '_' || *c == '-')) {
        Some(found) => Err(IdError::Character { what, found }),
        None => Ok(()),
    }
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The id as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                check($what, text)?;
                Ok(Self(text.into()))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(D::Error::custom)
            }
        }

        impl schemars::JsonSchema for $name {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({ "type": "string", "pattern": "^[A-Za-z0-9_-]{1,64}$" })
            }
        }
    };
}

id!(
    /// A named worker: what owns one log.
    AgentId,
    "an agent id"
);
id!(
    /// A workspace: the unit of tenancy.
    TownId,
    "a town id"
);
id!(
    /// One wrapper run.
    ProducerId,
    "a producer id"
);
id!(
    /// A session of an agent server.
    SessionId,
    "a session id"
);

/// The name of a log: an agent's, or a town's journal.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LogId {
    /// `agent/<id>`: everything one agent did.
    Agent(AgentId),
    /// `town/<id>`: a town's journal.
    Town(TownId),
}

impl LogId {
    /// The agent, if this is an agent's log.
    #[must_use]
    pub fn agent(&self) -> Option<&AgentId> {
        match self {
            Self::Agent(agent) => Some(agent),
            Self::Town(_) => None,
        }
    }

    /// The town whose journal this is.
    #[must_use]
    pub fn town(&self) -> Option<&TownId> {
        match self {
            Self::Town(id) => Some(id),
            Self::Agent(_) => None,
        }
    }
}

impl fmt::Display for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Agent(id) => write!(f, "agent/{id}"),
            Self::Town(id) => write!(f, "town/{id}"),
        }
    }
}

impl fmt::Debug for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

impl FromStr for LogId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        match text.split_once('/') {
            Some(("agent", id)) => Ok(Self::Agent(id.parse()?)),
            Some(("town", id)) => Ok(Self::Town(id.parse()?)),
            Some(_) | None => Err(IdError::Log { found: text.chars().take(80).collect() }),
        }
    }
}

impl Serialize for LogId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for LogId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(D::Error::custom)
    }
}

impl schemars::JsonSchema for LogId {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "LogId".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "pattern": "^(agent|town)/[A-Za-z0-9_-]{1,64}$" })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_id_has_1_to_64_bytes() {
        assert_eq!("".parse::<AgentId>(), Err(IdError::Empty { what: "an agent id" }));
        assert!("a".repeat(64).parse::<AgentId>().is_ok());
        assert_eq!("a".repeat(65).parse::<AgentId>(), Err(IdError::TooLong { what: "an agent id", len: 65 }));
    }

    #[test]
    fn an_id_holds_letters_digits_underscores_and_dashes() {
        assert!("aZ09_-".parse::<TownId>().is_ok());
        for found in ['.', '/', ' ', '%', '\0', 'é', '\n', ':'] {
            let error = format!("a{found}").parse::<TownId>().unwrap_err();
            assert_eq!(error, IdError::Character { what: "a town id", found });
        }
    }

    #[test]
    fn a_log_is_an_agents_or_a_towns() {
        assert_eq!("agent/a1".parse(), Ok(LogId::Agent("a1".parse().unwrap())));
        assert_eq!("town/main".parse(), Ok(LogId::Town("main".parse().unwrap())));
        for refused in ["", "agent", "agent/", "Agent/a", "rig/a", "agent/a/b", "/a", "agent/ä"] {
            assert!(refused.parse::<LogId>().is_err(), "{refused}");
        }
    }

    #[test]
    fn a_wrong_id_in_json_says_what_is_wrong() {
        let error = serde_json::from_str::<AgentId>("\"a b\"").unwrap_err().to_string();
        assert!(
            error.starts_with("an agent id may hold only letters, digits, `_` and `-`, not ' '"),
            "{error}"
        );
        assert!(serde_json::from_str::<AgentId>("7").is_err());
    }

    proptest! {
        #[test]
        fn an_id_survives_its_text_and_its_json(text in "[A-Za-z0-9_-]{1,64}") {
            let id: ProducerId = text.parse().unwrap();
            prop_assert_eq!(id.to_string(), text.clone());
            let log = LogId::Agent(text.parse().unwrap());
            prop_assert_eq!(log.to_string().parse::<LogId>().unwrap(), log.clone());
            let json = serde_json::to_string(&log).unwrap();
            prop_assert_eq!(serde_json::from_str::<LogId>(&json).unwrap(), log);
        }

        #[test]
        fn no_text_makes_an_id_panic(text in "\\PC{0,80}") {
            let _ = text.parse::<SessionId>();
            let _ = text.parse::<LogId>();
        }
    }
}
