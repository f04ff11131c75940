//! What may be asked of a town, and why it is refused.

use std::time::Duration;

use protocol::{AgentId, ErrorCode, IdError};
use serde::{Deserialize, Serialize};

use crate::{
    Repository, Role, Runtime, Scope,
    limits::{LABEL_BYTES, SHARE_LIFE, SHARES, TOKEN_LIFE, TOKEN_NAME_BYTES, TOKENS},
};

/// A command with who gives it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Who asks: a subject of a credential, or `worker` for what the worker itself reports.
    pub actor: String,
    /// The same key from the same actor is carried out once in 24 hours.
    pub key: Option<String>,
    /// What is asked.
    pub command: Command,
}

impl Request {
    /// A command by this actor, without a key.
    #[must_use]
    pub fn by(actor: impl Into<String>, command: Command) -> Self {
        Self { actor: actor.into(), key: None, command }
    }

    /// The same with an idempotency key.
    #[must_use]
    pub fn with_key(mut self, key: impl Into<String>) -> Self {
        self.key = Some(key.into());
        self
    }
}

/// What may be asked of a town.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Command {
    /// Make an agent.
    Register {
        /// What it shall be.
        registration: Registration,
        /// Start it at once.
        start: bool,
    },
    /// Launch an agent's wrapper. Asking for one that runs does nothing.
    Start {
        /// Which.
        agent: AgentId,
    },
    /// End an agent's wrapper. Asking for one that is stopped does nothing.
    Stop {
        /// Which.
        agent: AgentId,
        /// Let the turn that runs end first.
        drain: bool,
    },
    /// Stop an agent, then forget it and its log.
    Remove {
        /// Which.
        agent: AgentId,
    },
    /// A wrapper process ended (from the launcher).
    WrapperExited {
        /// Whose.
        agent: AgentId,
        /// Which of them.
        generation: u64,
        /// How.
        exit: WrapperExit,
    },
    /// A wrapper that should be there is not, through no fault of its own: the worker was away, or the machine (from the
    /// worker). It costs nothing of the restart budget.
    WrapperLost {
        /// Whose.
        agent: AgentId,
        /// Which of them.
        generation: u64,
    },
    /// Let whoever has a link read an agent's log.
    Share {
        /// Whose.
        agent: AgentId,
        /// The link's id: one that nobody guesses.
        share: String,
        /// How long it is good for, from when it is decided.
        lasts: Duration,
        /// What it is for.
        label: Option<String>,
    },
    /// Take a link back. Asking for one that is gone is refused.
    Unshare {
        /// Whose log it shows.
        agent: AgentId,
        /// The link's id.
        share: String,
    },
    /// Let whoever has a token into the town.
    IssueToken {
        /// The token's id.
        token: String,
        /// Whose it is, or what it is for.
        name: String,
        /// What it is good for.
        scope: Scope,
        /// The hash of its secret.
        digest: String,
        /// How long it is good for, from when it is decided; for ever, without.
        lasts: Option<Duration>,
    },
    /// Take a token back. Asking for one that is gone is refused.
    RevokeToken {
        /// Its name.
        name: String,
    },
    /// Time has passed: do what is due.
    Tick,
}

impl Command {
    /// Its name, as it is written to the journal.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Register { .. } => "register",
            Self::Start { .. } => "start",
            Self::Stop { .. } => "stop",
            Self::Remove { .. } => "remove",
            Self::WrapperExited { .. } => "wrapper_exited",
            Self::WrapperLost { .. } => "wrapper_lost",
            Self::Share { .. } => "share",
            Self::Unshare { .. } => "unshare",
            Self::IssueToken { .. } => "issue_token",
            Self::RevokeToken { .. } => "revoke_token",
            Self::Tick => "tick",
        }
    }
}

/// What a new agent shall be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registration {
    /// Its name: 1 to 64 letters, digits, `_` and `-`, unique in the town without regard to case.
    pub name: String,
    /// What it is for.
    pub role: Role,
    /// What runs it.
    pub runtime: Runtime,
    /// The absolute path of the folder it works in.
    pub directory: String,
    /// The repository of which it is to have a work tree there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repository: Option<Repository>,
}

/// How a wrapper process ended.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum WrapperExit {
    /// By itself: its agent has nothing more to do, or it was told to.
    Finished,
    /// A newer generation has its agent.
    Superseded,
    /// In a way that starting it again does not cure, such as a missing agent binary.
    Unusable {
        /// What was wrong and what to do.
        reason: String,
    },
    /// In any other way.
    Crashed {
        /// What is known of it.
        reason: String,
    },
}

/// Why a request is refused. Nothing has changed then.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Rejection {
    /// No such agent.
    #[error("there is no agent {agent} in this town")]
    UnknownAgent {
        /// Which.
        agent: AgentId,
    },
    /// The name is not one.
    #[error("{name:?} cannot be an agent's name")]
    BadName {
        /// The name.
        name: String,
        /// What is wrong with it.
        #[source]
        source: IdError,
    },
    /// Another agent has the name.
    #[error("the name {name:?} is taken: agent {agent} has it")]
    NameTaken {
        /// The name.
        name: String,
        /// Who has it.
        agent: AgentId,
    },
    /// A path is relative, too long, or has control characters.
    #[error(
        "the {what} must be an absolute path without control characters, at most 4096 bytes, not {found:?}"
    )]
    BadPath {
        /// Which path.
        what: &'static str,
        /// The path, shortened.
        found: String,
    },
    /// A text is not what a repository or branch can be called.
    #[error("the {what} must be at most 4096 characters without control characters and not begin with `-`")]
    BadRepository {
        /// `repository` or `branch`. What was given is not told: there may be a password in it.
        what: &'static str,
    },
    /// A repository's URL has a password in it.
    #[error("the URL has a password in it: put it into a file, and name that as the token file")]
    PasswordInUrl,
    /// An option that the runtime cannot do without is missing.
    #[error("a {runtime} agent needs a {option}")]
    MissingOption {
        /// The runtime.
        runtime: crate::RuntimeKind,
        /// The option.
        option: &'static str,
    },
    /// The speed is neither a factor nor `step`.
    #[error("a speed is a factor above 0 such as 1 or 20, or one of the words max and step, not {found:?}")]
    BadSpeed {
        /// What was given.
        found: String,
    },
    /// The town is full.
    #[error("this town has {limit} agents already, and takes no more: remove one first")]
    TooManyAgents {
        /// How many it takes.
        limit: usize,
    },
    /// The agent is on its way out.
    #[error("agent {agent} is stopping: ask again once it has stopped")]
    Stopping {
        /// Which.
        agent: AgentId,
    },
    /// A report of a wrapper that is not the newest one.
    #[error("generation {generation} of agent {agent} is stale: {latest} is the newest")]
    StaleGeneration {
        /// Whose.
        agent: AgentId,
        /// Which.
        generation: u64,
        /// The newest.
        latest: u64,
    },
    /// No such link.
    #[error("agent {agent} has no share link {share:?}: it was revoked, has expired, or never was")]
    UnknownShare {
        /// Whose.
        agent: AgentId,
        /// Which, shortened.
        share: String,
    },
    /// The link would end before it begins, or not in this age.
    #[error("a share link lasts from 1 s to {} days", SHARE_LIFE.as_secs() / 86_400)]
    BadExpiry,
    /// The label is too long or has control characters.
    #[error("a label has at most {LABEL_BYTES} bytes and no control characters")]
    BadLabel,
    /// There are enough of them.
    #[error("this town has {SHARES} share links already: revoke one first")]
    TooManyShares,
    /// The name is not one.
    #[error(
        "{name:?} cannot be a token's name: it has 1 to {TOKEN_NAME_BYTES} letters, digits, `.`, `_`, `-` and `@`, and \
         begins with a letter or digit"
    )]
    BadTokenName {
        /// The name, shortened.
        name: String,
    },
    /// Another token that is good has the name.
    #[error("the name {name:?} is taken by another token: revoke that first, or take another name")]
    TokenNameTaken {
        /// The name.
        name: String,
    },
    /// No such token.
    #[error("there is no user token {name:?}: it was revoked, has expired, or never was")]
    UnknownToken {
        /// The name, shortened.
        name: String,
    },
    /// The token would end before it begins, or not in this age.
    #[error("a user token lasts from 1 s to {} days, or for ever", TOKEN_LIFE.as_secs() / 86_400)]
    BadTokenExpiry,
    /// There are enough of them.
    #[error("this town has {TOKENS} user tokens already: revoke one first")]
    TooManyTokens,
    /// The idempotency key was used for something else.
    #[error("the idempotency key was used for another request within the last 24 hours")]
    KeyReused,
    /// The idempotency key or the actor is empty, too long or has control characters.
    #[error("an idempotency key has 1 to 128 bytes and no control characters")]
    BadKey,
}

impl Rejection {
    /// The word for it on the wire (`docs/protocol.md` §8).
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::UnknownAgent { .. } | Self::UnknownShare { .. } | Self::UnknownToken { .. } => {
                ErrorCode::NotFound
            }
            Self::BadName { .. }
            | Self::BadPath { .. }
            | Self::BadRepository { .. }
            | Self::PasswordInUrl
            | Self::MissingOption { .. }
            | Self::BadSpeed { .. }
            | Self::BadExpiry
            | Self::BadLabel
            | Self::BadTokenName { .. }
            | Self::BadTokenExpiry
            | Self::BadKey => ErrorCode::BadRequest,
            Self::NameTaken { .. }
            | Self::TokenNameTaken { .. }
            | Self::Stopping { .. }
            | Self::KeyReused => ErrorCode::Conflict,
            Self::TooManyAgents { .. } | Self::TooManyShares | Self::TooManyTokens => ErrorCode::RateLimited,
            Self::StaleGeneration { .. } => ErrorCode::Superseded,
        }
    }
}
