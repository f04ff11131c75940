//! The agent's work tree: a mirror of the repository per rig, a worktree and branch per attempt (§10).
//!
//! [`Workspace::prepare`] makes it ready before the agent starts. The wrapper does it; which repository, bead and branch is decided
//! elsewhere. Nothing that somebody may want back is lost by it: what would be overwritten is put away first, under
//! `refs/gastown/rescue/` of the mirror. What this does not do: it merges nothing, and it removes no work tree for good.

mod credentials;
mod lock;
mod look;
mod names;
mod plan;
mod rescue;

use std::{
    ffi::OsString,
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use protocol::{AgentId, agent::WorkspaceReady};
use tokio::fs;

use self::{
    lock::Lock,
    look::look,
    names::{BeadName, BranchName, RepositoryUrl},
    plan::{From, Outcome, Step, plan},
};
use crate::{
    Options, OptionsError,
    git::{Git, GitError, LOCAL},
    redact::Redactor,
};

/// A fetch, and the checkout of a large repository.
const REMOTE: Duration = Duration::from_secs(600);
/// What is in the git folder of a worktree that was made to its end.
const READY: &str = "gastown-ready";

/// The repository that an agent works on.
#[derive(Debug, Clone, Default, clap::Args)]
#[non_exhaustive]
pub struct WorkspaceArgs {
    /// The git repository that the agent works on: a work tree with a branch of its own is made in --dir
    #[arg(long, value_name = "URL")]
    pub git: Option<String>,
    /// Where the mirrors of repositories are, which the agents of a machine share; without it, in the state dir
    #[arg(long, value_name = "DIR", requires = "git")]
    pub rigs: Option<PathBuf>,
    /// The branch of the repository to begin from; without it, its default branch
    #[arg(long, value_name = "BRANCH", requires = "git")]
    pub base_branch: Option<String>,
    /// What is worked on: the branch is `gt/<agent>/<bead>`
    #[arg(long, value_name = "BEAD", requires = "git")]
    pub bead: Option<String>,
    /// Begin the branch again; what would be lost by that is put away first
    #[arg(long, requires = "git")]
    pub fresh: bool,
    /// A file with the token for the repository's server, for http(s) URLs
    #[arg(long, value_name = "FILE", requires = "git")]
    pub git_token_file: Option<PathBuf>,
}

/// The work tree that is to be there.
#[derive(Debug, Clone)]
pub(crate) struct Workspace {
    url: RepositoryUrl,
    /// The mirror of the rig.
    mirror: PathBuf,
    /// Where the work tree is.
    directory: PathBuf,
    branch: BranchName,
    base: Option<BranchName>,
    fresh: bool,
    token_file: Option<PathBuf>,
    /// What is said nowhere: the token too.
    secrets: Redactor,
    agent: AgentId,
    guard: Vec<OsString>,
}

/// Why a work tree is not ready.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum WorkspaceError {
    #[error(transparent)]
    Git(#[from] GitError),
    #[error("{path} cannot be used")]
    Io {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(
        "{path} holds something else than a work tree of {url}: empty it, or give another folder with --dir"
    )]
    Foreign { path: PathBuf, url: String },
    #[error("{path} is a mirror of another repository than {url}: give another folder with --rigs")]
    OtherRepository { path: PathBuf, url: String },
    #[error("{url} has no branch {branch}")]
    NoBranch { url: String, branch: String },
    #[error("{url} has no commit to begin from")]
    Empty { url: String },
}

impl Workspace {
    /// The work tree that these options ask for, if any, in `directory`.
    ///
    /// # Errors
    /// When a name or path in them is not usable.
    pub(crate) fn from_options(
        options: &Options,
        directory: &Path,
        state_dir: &Path,
    ) -> Result<Option<Self>, OptionsError> {
        let Options { workspace: args, agent, .. } = options;
        let Some(url) = &args.git else { return Ok(None) };
        let url: RepositoryUrl = named("--git", url)?;
        let bead: BeadName = named("--bead", args.bead.as_deref().unwrap_or("work"))?;
        let base = args.base_branch.as_deref().map(|base| named("--base-branch", base)).transpose()?;
        let rigs = args.rigs.clone().unwrap_or_else(|| state_dir.join("rigs"));
        // Git is run in several folders.
        let rigs = std::path::absolute(&rigs).unwrap_or(rigs);
        Ok(Some(Self {
            mirror: rigs.join(url.folder_name()),
            url,
            directory: directory.to_owned(),
            branch: BranchName::of_attempt(agent, &bead),
            base,
            fresh: args.fresh,
            token_file: args.git_token_file.clone(),
            secrets: options.log.secrets().clone(),
            agent: agent.clone(),
            guard: options.guard_command("workspace")?,
        }))
    }

    /// Makes it ready.
    ///
    /// # Errors
    /// When it cannot be made; nothing is lost then, and the next try begins where this one ended.
    pub(crate) async fn prepare(&self) -> Result<WorkspaceReady, WorkspaceError> {
        let rigs = self.mirror.parent().unwrap_or(&self.mirror);
        make_folder(rigs).await?;
        // Held until this returns: the agents of a rig share its mirror, and each is a process of its own.
        let _lock = Lock::take(&self.mirror.with_extension("lock")).await?;
        let git = Git::new(self.guard.clone(), rigs).without_hooks();
        self.make_mirror(&git).await?;
        let git = git.at(&self.mirror);
        let stale = self.fetch(&git).await?;
        let found = look(&git, &self.directory, &self.branch, self.base.as_ref()).await?;
        let Outcome { steps, base, resumed } = match plan(&found, self.fresh) {
            Ok(outcome) => outcome,
            Err(refusal) => return Err(self.refused(refusal, stale)),
        };
        let mut rescued = Vec::new();
        for step in steps {
            rescued.extend(self.carry_out(&git, step).await?);
        }
        let commit = git.at(&self.directory).run(LOCAL, &["rev-parse", "HEAD"]).await?;
        let branch = self.branch.to_string();
        Ok(WorkspaceReady { branch, commit, base, resumed, rescued, stale: stale.map(|e| e.to_string()) })
    }

    /// Makes the mirror, whole or not at all.
    async fn make_mirror(&self, git: &Git) -> Result<(), WorkspaceError> {
        if fs::try_exists(&self.mirror).await.map_err(io_at(&self.mirror))? {
            let url = git.at(&self.mirror).find(&["config", "--get", "remote.origin.url"]).await?;
            if url.as_deref() != Some(self.url.as_str()) {
                let (path, url) = (self.mirror.clone(), self.url.to_string());
                return Err(WorkspaceError::OtherRepository { path, url });
            }
        } else {
            let draft = self.mirror.with_extension("new");
            if fs::try_exists(&draft).await.map_err(io_at(&draft))? {
                fs::remove_dir_all(&draft).await.map_err(io_at(&draft))?;
            }
            let path = draft.to_string_lossy().into_owned();
            git.run(LOCAL, &["init", "--quiet", "--bare", "--template=", "--", &path]).await?;
            let inside = git.at(&draft);
            for (name, value) in [
                ("remote.origin.url", self.url.as_str()),
                // Not onto the branches of the mirror: those are the agents'.
                ("remote.origin.fetch", "+refs/heads/*:refs/remotes/origin/*"),
            ] {
                inside.run(LOCAL, &["config", name, value]).await?;
            }
            fs::rename(&draft, &self.mirror).await.map_err(io_at(&self.mirror))?;
        }
        let Some(token_file) = self.token_file.as_deref() else { return Ok(()) };
        let token = fs::read_to_string(token_file).await.map_err(io_at(token_file))?;
        self.secrets.hide(token.trim());
        credentials::install(&git.at(&self.mirror), &self.url, token.trim(), &self.mirror).await
    }

    /// Fetches what the remote has. Returns why it could not be asked: a branch that is there can go on all the same.
    async fn fetch(&self, git: &Git) -> Result<Option<GitError>, WorkspaceError> {
        if let Err(error) = git.run(REMOTE, &["fetch", "--quiet", "--prune", "--no-auto-gc", "origin"]).await
        {
            return Ok(Some(error));
        }
        let head = git.run(REMOTE, &["ls-remote", "--symref", "origin", "HEAD"]).await?;
        let default =
            head.lines().find_map(|line| line.strip_prefix("ref: refs/heads/")?.strip_suffix("\tHEAD"));
        if let Some(default) = default {
            let target = format!("refs/remotes/origin/{default}");
            git.run(LOCAL, &["symbolic-ref", "refs/remotes/origin/HEAD", &target]).await?;
        }
        Ok(None)
    }

    /// Does one step. Returns the reference under which something was put away.
    async fn carry_out(&self, git: &Git, step: Step) -> Result<Option<String>, WorkspaceError> {
        let folder = self.directory.to_string_lossy();
        let branch = self.branch.as_str();
        match step {
            Step::RescueTree => {
                return Ok(Some(rescue::tree(&git.at(&self.directory), &self.agent, &self.mirror).await?));
            }
            Step::RescueBranch => return Ok(Some(rescue::branch(git, &self.agent, branch).await?)),
            Step::RemoveTree => {
                git.run(REMOTE, &["worktree", "remove", "--force", "--", &folder]).await?;
            }
            Step::AddTree(from) => {
                // One whose folder somebody removed is in the way of its branch.
                git.run(LOCAL, &["worktree", "prune"]).await?;
                let start = match from {
                    From::Branch => None,
                    From::Commit(start) => Some(start),
                };
                let arguments = match &start {
                    None => vec!["worktree", "add", "--quiet", "--", &folder, branch],
                    Some(start) => {
                        vec!["worktree", "add", "--quiet", "--no-track", "-B", branch, "--", &folder, start]
                    }
                };
                git.run(REMOTE, &arguments).await?;
                // Where its commits are to be pushed, also before the remote has the branch.
                git.run(LOCAL, &["config", &format!("branch.{branch}.remote"), "origin"]).await?;
                let follows = format!("refs/heads/{branch}");
                git.run(LOCAL, &["config", &format!("branch.{branch}.merge"), &follows]).await?;
                let inside = git.at(&self.directory).run(LOCAL, &["rev-parse", "--absolute-git-dir"]).await?;
                let mark = Path::new(&inside).join(READY);
                fs::write(&mark, "").await.map_err(io_at(&mark))?;
            }
        }
        Ok(None)
    }

    fn refused(&self, refusal: plan::Refusal, stale: Option<GitError>) -> WorkspaceError {
        let url = self.url.to_string();
        match (refusal, stale, &self.base) {
            (plan::Refusal::Foreign, _, _) => WorkspaceError::Foreign { path: self.directory.clone(), url },
            // What the remote has would be known if it could be asked.
            (plan::Refusal::NoBase, Some(error), _) => error.into(),
            (plan::Refusal::NoBase, None, Some(base)) => {
                WorkspaceError::NoBranch { url, branch: base.to_string() }
            }
            (plan::Refusal::NoBase, None, None) => WorkspaceError::Empty { url },
        }
    }
}

fn named<T: std::str::FromStr<Err = names::NameError>>(
    option: &'static str,
    text: &str,
) -> Result<T, OptionsError> {
    text.parse().map_err(|error: names::NameError| OptionsError::Invalid {
        option,
        value: error.shown(text),
        expected: error.expected,
    })
}

async fn make_folder(path: &Path) -> Result<(), WorkspaceError> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path).await.map_err(io_at(path))
}

fn io_at(path: &Path) -> impl FnOnce(io::Error) -> WorkspaceError {
    let path = path.to_owned();
    move |source| WorkspaceError::Io { path, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_hold_in_whatever_folder_git_is_run() {
        let mut options = options();
        options.workspace.rigs = Some("data/rigs".into());
        let workspace = workspace(&options).unwrap().unwrap();
        assert!(workspace.mirror.is_absolute(), "{}", workspace.mirror.display());
        assert_eq!(workspace.branch.as_str(), "gt/toast/work");
    }

    #[test]
    fn without_a_repository_there_is_no_work_tree_and_a_wrong_name_is_told_with_its_option() {
        let mut options = options();
        options.workspace.bead = Some("../x".to_owned());
        let error = workspace(&options).unwrap_err().to_string();
        assert!(error.starts_with("--bead is \"../x\""), "{error}");
        options.workspace = WorkspaceArgs::default();
        assert!(workspace(&options).unwrap().is_none());
    }

    fn workspace(options: &Options) -> Result<Option<Workspace>, OptionsError> {
        Workspace::from_options(options, Path::new("/work"), Path::new("/state"))
    }

    fn options() -> Options {
        let (agent, town) = ("toast".parse().unwrap(), "main".parse().unwrap());
        let mut options = Options::new("http://127.0.0.1:1", agent, town, "/state");
        options.workspace.git = Some("/srv/app.git".to_owned());
        options
    }
}
