//! The work tree in an agent's life: it is made ready before the agent is started for the first time.

use protocol::agent::{Failed, WorkspaceReady};

use super::life::{Done, Life};
use crate::{git::GitError, supervisor::Phase, workspace::WorkspaceError};

impl Life {
    /// Makes the work tree ready, if one is asked for that is not. Returns whether it does.
    pub(super) fn prepare_workspace(&mut self) -> bool {
        let Some(workspace) = self.setup.workspace.clone() else { return false };
        self.starting =
            Some(self.tasks.spawn(async move { Done::Workspace(Box::new(workspace.prepare().await)) }));
        true
    }

    /// The work tree is ready, or cannot be made. A start that failed for that is tried again within the restart budget.
    pub(super) async fn workspace_prepared(&mut self, prepared: Result<WorkspaceReady, WorkspaceError>) {
        self.starting = None;
        if self.supervisor.phase() != Phase::Starting {
            return;
        }
        match prepared {
            Ok(ready) => {
                // A start of the agent after this one finds it.
                self.setup.workspace = None;
                self.book.say("wrapper.workspace.ready", &ready).await;
                self.keep_output();
            }
            Err(error) => self.cannot_start(failed(&error)).await,
        }
    }

    /// Begins to keep whole outputs: the folder for them is in the work tree.
    fn keep_output(&mut self) {
        let Some(folder) = self.setup.options.keep_output.clone() else { return };
        if let Err(error) = self.book.keep_output(&self.setup.directory, &folder) {
            tracing::error!(error = &error as &dyn std::error::Error, "whole outputs are not kept");
        }
    }
}

/// What `agent.failed` says of it; with what git said, where trying again may help.
fn failed(error: &WorkspaceError) -> Failed {
    let mut message = format!("the work tree cannot be made ready: {error}");
    if let Some(source) = std::error::Error::source(error) {
        message = format!("{message}: {source}");
    }
    let (exit_code, stderr) = match error {
        WorkspaceError::Git(GitError::Failed { code, said, .. }) => {
            (*code, said.lines().map(str::to_owned).collect())
        }
        WorkspaceError::Git(error @ (GitError::Run { .. } | GitError::TimedOut { .. })) => {
            (None, vec![error.to_string()])
        }
        WorkspaceError::Io { .. }
        | WorkspaceError::Foreign { .. }
        | WorkspaceError::OtherRepository { .. }
        | WorkspaceError::NoBranch { .. }
        | WorkspaceError::Empty { .. } => (None, Vec::new()),
    };
    Failed { message, exit_code, stderr }
}
