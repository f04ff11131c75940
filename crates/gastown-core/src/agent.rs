//! An agent, as its town knows it.

use protocol::{AgentId, Timestamp};
use serde::{Deserialize, Serialize};

/// A named worker: what it is, what is wanted of it, and what it is at present.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Agent {
    /// Its id: its name in lower case. Names its log too.
    pub id: AgentId,
    /// Its name, unique in the town without regard to case.
    pub name: String,
    /// What it is for.
    pub role: Role,
    /// What runs it.
    pub runtime: Runtime,
    /// The absolute path of the folder it works in.
    pub directory: String,
    /// The repository of which it has a work tree there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repository: Option<Repository>,
    /// What is wanted of it.
    pub desired: Desired,
    /// What it is at present.
    pub phase: AgentPhase,
    /// The newest generation of its wrapper; 0 if it was never started. Never falls, not even when an agent is removed
    /// and another one takes its name.
    pub generation: u64,
    /// When it was registered.
    pub registered: Timestamp,
    /// When `phase` changed last.
    pub changed: Timestamp,
    /// When its wrapper was restarted after a crash, oldest first, since the last start on request.
    pub restarts: Vec<Timestamp>,
}

/// What is wanted of an agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Desired {
    /// Its wrapper runs, and is started again when it dies.
    Running,
    /// It has no wrapper.
    Stopped,
}

/// What an agent's wrapper is at present. What the agent itself does (idle, busy, waiting) is in its own log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
#[non_exhaustive]
pub enum AgentPhase {
    /// It has none: never started, stopped on request, or ended by itself.
    Stopped {
        /// Why, where there is more to say than that somebody asked for it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
    /// One was launched.
    Running,
    /// One died; the next is launched at `until`.
    BackingOff {
        /// When.
        until: Timestamp,
        /// What it died of.
        reason: String,
    },
    /// It was told to end.
    Stopping {
        /// It may finish the turn that runs.
        #[serde(default)]
        drain: bool,
        /// The agent is removed once it has ended.
        remove: bool,
    },
    /// It died and is not started again until somebody asks for it.
    Failed {
        /// What it died of, and what to do.
        reason: String,
    },
}

impl AgentPhase {
    /// The phase in one word: `stopped`, `running`, `backing_off`, `stopping`, `failed`.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Stopped { .. } => "stopped",
            Self::Running => "running",
            Self::BackingOff { .. } => "backing_off",
            Self::Stopping { .. } => "stopping",
            Self::Failed { .. } => "failed",
        }
    }

    /// Whether a wrapper process may be there.
    #[must_use]
    pub fn has_wrapper(&self) -> bool {
        match self {
            Self::Running | Self::Stopping { .. } => true,
            Self::Stopped { .. } | Self::BackingOff { .. } | Self::Failed { .. } => false,
        }
    }
}

/// A text that names no member of a closed set.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{found:?} is no {what}: use one of {expected}")]
pub struct UnknownName {
    what: &'static str,
    found: String,
    expected: &'static str,
}

impl UnknownName {
    pub(crate) fn of(what: &'static str, found: &str, expected: &'static str) -> Self {
        Self { what, found: found.chars().take(40).collect(), expected }
    }
}

macro_rules! words {
    ($(#[$doc:meta])* $name:ident, $what:literal, $expected:literal { $($(#[$variant_doc:meta])* $variant:ident = $word:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
        #[serde(rename_all = "snake_case")]
        #[non_exhaustive]
        pub enum $name {
            $($(#[$variant_doc])* $variant),+
        }

        impl $name {
            /// Each of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// Its name on the wire.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $word),+
                }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl std::str::FromStr for $name {
            type Err = $crate::UnknownName;

            fn from_str(text: &str) -> Result<Self, $crate::UnknownName> {
                match text {
                    $($word => Ok(Self::$variant),)+
                    _ => Err($crate::UnknownName::of($what, text, $expected)),
                }
            }
        }
    };
}

pub(crate) use words;

words!(
    /// What an agent is for.
    Role, "role", "mayor, polecat, refinery, witness, crew" {
        /// Plans and hands out the work of the town.
        Mayor = "mayor",
        /// Does one piece of work after the other.
        Polecat = "polecat",
        /// Reviews and merges.
        Refinery = "refinery",
        /// Watches the others.
        Witness = "witness",
        /// Works with a person.
        Crew = "crew",
    }
);

words!(
    /// What kind of agent server runs an agent.
    RuntimeKind, "runtime", "opencode, kilo, acp, scripted, replay" {
        /// `opencode serve`.
        Opencode = "opencode",
        /// `kilo serve`.
        Kilo = "kilo",
        /// Any agent of the Agent Client Protocol.
        Acp = "acp",
        /// A scenario file.
        Scripted = "scripted",
        /// A recording of a real agent server.
        Replay = "replay",
    }
);

/// A git repository that an agent works on, in a work tree and on a branch of its own. Whether it can be reached is the wrapper's to
/// say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Repository {
    /// A URL, `user@host:path` or an absolute path, without a password.
    pub url: String,
    /// The branch to begin from, where it is not the repository's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub branch: Option<String>,
    /// The file with the token for the repository's server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_file: Option<String>,
}

impl Repository {
    /// The repository at this URL, from its default branch, without a token.
    #[must_use]
    pub fn at(url: impl Into<String>) -> Self {
        Self { url: url.into(), branch: None, token_file: None }
    }

    /// From this branch.
    #[must_use]
    pub fn with_branch(mut self, branch: impl Into<String>) -> Self {
        self.branch = Some(branch.into());
        self
    }

    /// With the token in this file.
    #[must_use]
    pub fn with_token_file(mut self, path: impl Into<String>) -> Self {
        self.token_file = Some(path.into());
        self
    }
}

/// What runs an agent, with its options.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Runtime {
    /// The kind.
    pub kind: RuntimeKind,
    /// The agent server's binary, where it is not the one on `PATH`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_bin: Option<String>,
    /// The command of an `acp` agent, as its words.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
    /// The file with the MCP servers that an `acp` agent is to use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mcp_servers: Option<String>,
    /// The scenario file of a `scripted` agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scenario: Option<String>,
    /// The recording of a `replay` agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recording: Option<String>,
    /// How fast a scenario or recording runs: a factor such as `1` or `20`, or `step`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub speed: Option<String>,
    /// Whether a recording begins again when it is through.
    #[serde(default, skip_serializing_if = "is_false")]
    pub repeat: bool,
}

impl Runtime {
    /// A runtime of this kind, without options.
    #[must_use]
    pub fn of(kind: RuntimeKind) -> Self {
        Self {
            kind,
            agent_bin: None,
            command: Vec::new(),
            mcp_servers: None,
            scenario: None,
            recording: None,
            speed: None,
            repeat: false,
        }
    }

    /// With this agent server binary.
    #[must_use]
    pub fn with_agent_bin(mut self, path: impl Into<String>) -> Self {
        self.agent_bin = Some(path.into());
        self
    }

    /// With this command, as its words.
    #[must_use]
    pub fn with_command<W: Into<String>>(mut self, words: impl IntoIterator<Item = W>) -> Self {
        self.command = words.into_iter().map(Into::into).collect();
        self
    }

    /// With this scenario file.
    #[must_use]
    pub fn with_scenario(mut self, path: impl Into<String>) -> Self {
        self.scenario = Some(path.into());
        self
    }

    /// With this recording.
    #[must_use]
    pub fn with_recording(mut self, path: impl Into<String>) -> Self {
        self.recording = Some(path.into());
        self
    }

    /// With a recording that begins again when it is through.
    #[must_use]
    pub fn repeated(mut self) -> Self {
        self.repeat = true;
        self
    }

    /// At this speed.
    #[must_use]
    pub fn with_speed(mut self, speed: impl Into<String>) -> Self {
        self.speed = Some(speed.into());
        self
    }
}

fn is_false(flag: &bool) -> bool {
    !flag
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_and_runtimes_have_one_name_for_text_and_json() {
        for role in Role::ALL {
            assert_eq!(role.as_str().parse(), Ok(*role));
            assert_eq!(serde_json::to_value(role).unwrap(), role.as_str());
        }
        for kind in RuntimeKind::ALL {
            assert_eq!(kind.as_str().parse(), Ok(*kind));
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.as_str());
        }
    }

    #[test]
    fn an_unknown_runtime_is_refused_with_the_known_ones() {
        let error = "codex".parse::<RuntimeKind>().unwrap_err();
        assert_eq!(
            error.to_string(),
            "\"codex\" is no runtime: use one of opencode, kilo, acp, scripted, replay"
        );
    }

    #[test]
    fn the_phase_is_told_apart_by_its_state_in_json() {
        let phase = AgentPhase::Failed { reason: "no binary".into() };
        assert_eq!(serde_json::to_string(&phase).unwrap(), r#"{"state":"failed","reason":"no binary"}"#);
        assert_eq!(serde_json::to_string(&AgentPhase::Running).unwrap(), r#"{"state":"running"}"#);
        assert_eq!(phase.word(), "failed");
    }
}
