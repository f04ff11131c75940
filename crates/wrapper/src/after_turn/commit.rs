//! Commits what a turn changed, and pushes it.

use std::{path::Path, time::Duration};

use protocol::agent::{AutoCommitCompleted, AutoCommitStarted, NotPushed, SkipReason};
use tokio::time::timeout;

use super::{
    CommitJob, Part, Said, Voice,
    message::{message, subject_of},
    plan::{Plan, Repository, Upstream, plan},
};
use crate::{
    git::{Git, GitError, LOCAL},
    runtime::{AgentControl, CommandError},
};

/// How long the agent may take for a message: it is a call of its small model.
const MESSAGE: Duration = Duration::from_secs(35);

/// What is in a repository's own folder while something waits to be finished.
const UNFINISHED: &[&str] = &[
    "BISECT_LOG",
    "CHERRY_PICK_HEAD",
    "MERGE_HEAD",
    "REVERT_HEAD",
    "rebase-apply",
    "rebase-merge",
    "sequencer",
];

impl CommitJob {
    /// Does it, and says how it ended.
    pub(super) async fn run(&self, control: Option<&dyn AgentControl>, voice: &Voice) {
        let ended = match self.commit(control, voice).await {
            Ok(Err(SkipReason::Clean)) if self.wip => return,
            Ok(Ok(completed)) => Said::new("wrapper.auto_commit.completed", &completed, None),
            Ok(Err(reason)) => Said::skipped(Part::Commit, reason),
            Err(error) => Said::failed(Part::Commit, error.to_string()),
        };
        voice.say(ended).await;
    }

    async fn commit(
        &self,
        control: Option<&dyn AgentControl>,
        voice: &Voice,
    ) -> Result<Result<AutoCommitCompleted, SkipReason>, GitError> {
        let Some(repository) = self.look().await? else { return Ok(Err(SkipReason::NoRepository)) };
        let Plan { branch, push_to } = match plan(&repository, self.upstream_branch.as_deref()) {
            Ok(plan) => plan,
            Err(reason) => return Ok(Err(reason)),
        };
        self.stage().await?;
        if self.git.find(&["diff", "--cached", "--quiet"]).await?.is_some() {
            // What differs cannot be added: the inside of a submodule, for one.
            return Ok(Err(SkipReason::Clean));
        }
        let started = AutoCommitStarted { branch: branch.clone(), paths: repository.status.changed };
        voice.say(Said::new("wrapper.auto_commit.started", &started, Some(Part::Commit))).await;
        let message = self.message(control).await;
        let hooks_skipped = self.record(&message).await?;
        let hash = self.git.run(LOCAL, &["rev-parse", "HEAD"]).await?;
        let mut completed = AutoCommitCompleted {
            hash,
            branch,
            subject: subject_of(&message),
            hooks_skipped,
            ..AutoCommitCompleted::default()
        };
        self.push(push_to, &mut completed).await;
        Ok(Ok(completed))
    }

    /// What the repository is like; none if the work folder is in none.
    async fn look(&self) -> Result<Option<Repository>, GitError> {
        let folder = match self.git.run(LOCAL, &["rev-parse", "--show-toplevel", "--absolute-git-dir"]).await
        {
            Ok(answer) => answer.lines().last().unwrap_or_default().to_owned(),
            Err(GitError::Failed { said, .. }) if is_no_work_tree(&said) => return Ok(None),
            Err(error) => return Err(error),
        };
        let status = self.git.status(&self.pathspec()).await?;
        let unfinished = UNFINISHED.iter().any(|name| Path::new(&folder).join(name).exists());
        let upstream = match &status.branch {
            Some(branch) => upstream(&self.git, branch).await?,
            None => None,
        };
        let remote = upstream.as_ref().map_or("origin", |upstream| &upstream.remote);
        let head = format!("refs/remotes/{remote}/HEAD");
        let head = self.git.find(&["symbolic-ref", "--quiet", "--short", &head]).await?;
        let prefix = format!("{remote}/");
        let default_branch = head.and_then(|head| head.strip_prefix(&prefix).map(str::to_owned));
        Ok(Some(Repository { status, unfinished, default_branch, upstream }))
    }

    async fn stage(&self) -> Result<(), GitError> {
        let pathspec = self.pathspec();
        let arguments: Vec<&str> =
            ["add", "--all", "--"].into_iter().chain(pathspec.iter().map(String::as_str)).collect();
        self.git.run_past_lock(LOCAL, &arguments).await.map(drop)
    }

    /// All of the work tree but for what is the wrapper's own.
    fn pathspec(&self) -> Vec<String> {
        let mut pathspec = vec![":/".to_owned()];
        let left_out = self.leave_out.as_ref().map(|path| format!(":(exclude,literal){}", path.display()));
        pathspec.extend(left_out);
        pathspec
    }

    async fn message(&self, control: Option<&dyn AgentControl>) -> String {
        let written = match control {
            Some(control) => written_by(control).await,
            None => None,
        };
        let message = message(written.as_deref(), self.prompt.as_deref(), &self.agent, &self.session);
        if self.wip { format!("WIP: {message}") } else { message }
    }

    /// Makes the commit; without the hooks if it cannot be made with them. Returns what failed with them.
    async fn record(&self, message: &str) -> Result<Option<String>, GitError> {
        let git = self.as_somebody().await?;
        let message = format!("--message={message}");
        let arguments = ["commit", "--quiet", "--cleanup=whitespace", message.as_str()];
        if self.wip {
            // Half of a work passes no checks, and there is no time for them.
            return git.without_hooks().run_past_lock(LOCAL, &arguments).await.map(|_| None);
        }
        let Err(error) = git.run_past_lock(self.hook_limit, &arguments).await else { return Ok(None) };
        // Hooks that set files right fail as well, and what they changed belongs to the commit.
        self.stage().await?;
        let [commit, rest @ ..] = arguments;
        let arguments: Vec<&str> = [commit, "--no-verify"].into_iter().chain(rest).collect();
        git.without_hooks().run_past_lock(LOCAL, &arguments).await?;
        Ok(Some(error.to_string()))
    }

    /// With a name to commit under, where git was told none.
    async fn as_somebody(&self) -> Result<Git, GitError> {
        let git = self.git.clone();
        let strict = git.clone().with_setting("user.useConfigOnly=true");
        if strict.find(&["var", "GIT_COMMITTER_IDENT"]).await?.is_some() {
            return Ok(git);
        }
        Ok(git.in_the_name_of(&self.agent))
    }

    async fn push(&self, to: Option<Upstream>, completed: &mut AutoCommitCompleted) {
        let Some(Upstream { remote, branch }) = to else {
            completed.not_pushed = Some(NotPushed::NoUpstream);
            return;
        };
        completed.upstream = Some(format!("{remote}/{branch}"));
        let git = self.git.clone().with_setting("advice.pushUpdateRejected=false");
        let git = if self.wip { git.without_hooks() } else { git };
        // The commit by its hash, to a branch by its full name: nothing in the repository's settings makes more of it, and
        // without a `+` it is never forced.
        let refspec = format!("{}:refs/heads/{branch}", completed.hash);
        match git.run(self.hook_limit, &["push", "--", &remote, &refspec]).await {
            Ok(_) => completed.pushed = true,
            Err(error) => {
                completed.not_pushed = Some(why_not_pushed(&error));
                completed.detail = Some(error.to_string());
            }
        }
    }
}

/// The agent's own message, if it writes one in time.
async fn written_by(control: &dyn AgentControl) -> Option<String> {
    match timeout(MESSAGE, control.commit_message()).await {
        Ok(Ok(written)) => Some(written),
        Ok(Err(CommandError::Unsupported { .. })) => None,
        Ok(Err(error)) => {
            tracing::warn!(%error, "the agent writes no message for the commit");
            None
        }
        Err(_) => {
            tracing::warn!("the agent takes too long to write a message for the commit");
            None
        }
    }
}

/// What a branch follows, by the repository's settings: also before it was pushed for the first time.
async fn upstream(git: &Git, branch: &str) -> Result<Option<Upstream>, GitError> {
    let remote = git.find(&["config", "--get", &format!("branch.{branch}.remote")]).await?;
    let follows = git.find(&["config", "--get", &format!("branch.{branch}.merge")]).await?;
    let (Some(remote), Some(follows)) = (remote, follows) else { return Ok(None) };
    // A branch may follow another one of this repository, which is no place to push to.
    let branch = follows.strip_prefix("refs/heads/").filter(|_| remote != ".");
    Ok(branch.map(|branch| Upstream { remote: remote.clone(), branch: branch.to_owned() }))
}

fn is_no_work_tree(said: &str) -> bool {
    said.contains("not a git repository") || said.contains("must be run in a work tree")
}

fn why_not_pushed(error: &GitError) -> NotPushed {
    match error {
        GitError::Failed { said, .. }
            if said.contains("[rejected]") || said.contains("[remote rejected]") =>
        {
            NotPushed::Rejected
        }
        GitError::Failed { .. } | GitError::TimedOut { .. } | GitError::Run { .. } => NotPushed::Failed,
    }
}
