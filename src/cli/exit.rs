//! How the binary ends.

use std::{fmt, process::ExitCode};

use protocol::ErrorCode;
use relay::{ApiError, client::FollowError};

/// The exit codes of `gastown`: what a script may branch on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// 0: it was done.
    Done,
    /// 1: it failed, for a reason that is none of those below.
    Failed,
    /// 2: the command line was not understood.
    Usage,
    /// 3: no server answers. Start one with `gastown up`.
    NoServer,
    /// 4: the server does not accept the token, or the token does not reach this far.
    NotAllowed,
    /// 5: there is no such agent, log or request.
    NotFound,
    /// 6: the agent cannot do it now: it is offline, or somebody has answered first, or its state forbids it.
    Conflict,
    /// 130: interrupted with Ctrl-C before it was done.
    Interrupted,
}

impl Exit {
    /// The number.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::NoServer => 3,
            Self::NotAllowed => 4,
            Self::NotFound => 5,
            Self::Conflict => 6,
            Self::Interrupted => 130,
        }
    }

    /// What the word of a server means for a script.
    #[must_use]
    pub fn of(code: ErrorCode) -> Self {
        match code {
            ErrorCode::Unauthenticated | ErrorCode::Forbidden => Self::NotAllowed,
            ErrorCode::UnknownLog | ErrorCode::NotFound => Self::NotFound,
            ErrorCode::AlreadyAnswered
            | ErrorCode::AgentOffline
            | ErrorCode::AgentError
            | ErrorCode::Unsupported
            | ErrorCode::Conflict
            | ErrorCode::Superseded => Self::Conflict,
            ErrorCode::BadRequest
            | ErrorCode::TooLarge
            | ErrorCode::Stalled
            | ErrorCode::RateLimited
            | ErrorCode::Draining
            | ErrorCode::Corrupt
            | ErrorCode::StoreFull
            | ErrorCode::Internal => Self::Failed,
            // A code of a newer server.
            _ => Self::Failed,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// A failure that the command itself found, with the code the process ends with.
#[derive(Debug)]
pub(super) struct Refusal {
    exit: Exit,
    message: String,
}

impl Refusal {
    /// As an error to return.
    pub(super) fn because(exit: Exit, message: impl Into<String>) -> anyhow::Error {
        Self { exit, message: message.into() }.into()
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Refusal {}

/// The code that goes with an error, whatever was said around it.
pub(super) fn exit_of(error: &anyhow::Error) -> Exit {
    error.chain().find_map(known).unwrap_or(Exit::Failed)
}

fn known(cause: &(dyn std::error::Error + 'static)) -> Option<Exit> {
    if let Some(refusal) = cause.downcast_ref::<Refusal>() {
        return Some(refusal.exit);
    }
    if let Some(error) = cause.downcast_ref::<ApiError>() {
        return Some(error.code().map_or(Exit::NoServer, Exit::of));
    }
    if cause.is::<relay::NoHome>() {
        return Some(Exit::Usage);
    }
    if let Some(relay::RunError::OpenBind { .. }) = cause.downcast_ref() {
        return Some(Exit::Usage);
    }
    if let Some(worker::StartError::OpenBind { .. }) = cause.downcast_ref() {
        return Some(Exit::Usage);
    }
    let exit = match cause.downcast_ref::<FollowError>()? {
        FollowError::Unauthenticated { .. }
        | FollowError::Forbidden { .. }
        | FollowError::NoTicket { .. } => Exit::NotAllowed,
        FollowError::UnknownLog { .. } => Exit::NotFound,
        FollowError::Superseded { .. } => Exit::Conflict,
        FollowError::Refused { .. } => Exit::Failed,
        // A reason of a later client.
        _ => Exit::Failed,
    };
    Some(exit)
}

/// The table of exit codes, for `--help`.
pub(super) const HELP: &str = "\
Exit codes:
  0  done                        4  the token is not accepted here
  1  failed                      5  no such agent, log or request
  2  command line not understood 6  the agent cannot do it now (offline, answered already)
  3  no server answers           130  interrupted with Ctrl-C";

#[cfg(test)]
mod tests {
    use protocol::ErrorDetail;

    use super::*;

    #[test]
    fn the_help_lists_every_code() {
        let all = [
            Exit::Done,
            Exit::Failed,
            Exit::Usage,
            Exit::NoServer,
            Exit::NotAllowed,
            Exit::NotFound,
            Exit::Conflict,
            Exit::Interrupted,
        ];
        for exit in all {
            assert!(
                HELP.contains(&format!("  {}  ", exit.code()))
                    || HELP.contains(&format!(" {} ", exit.code())),
                "{exit:?}"
            );
        }
    }

    #[test]
    fn what_a_server_refuses_is_told_apart_from_a_server_that_is_not_there() {
        let refused = ApiError::Refused(ErrorDetail::new(ErrorCode::AgentOffline, "no wrapper"));
        assert_eq!(exit_of(&anyhow::Error::from(refused).context("the prompt was not sent")), Exit::Conflict);
        let away = ApiError::Unreachable { doing: "test", source: "connection refused".into() };
        assert_eq!(exit_of(&away.into()), Exit::NoServer);
        assert_eq!(exit_of(&anyhow::anyhow!("out of paper")), Exit::Failed);
    }
}
