//! Looks at what is there before a work tree is made.

use std::path::Path;

use tokio::fs;

use super::{
    BranchName, READY, WorkspaceError, io_at,
    plan::{Folder, Found},
};
use crate::git::{Git, GitError, LOCAL};

/// Looks. `git` is in the mirror.
pub(super) async fn look(
    git: &Git,
    directory: &Path,
    branch: &BranchName,
    base: Option<&BranchName>,
) -> Result<Found, WorkspaceError> {
    let own = format!("refs/heads/{branch}");
    let has_branch = commit(git, &own).await?.is_some();
    let unpushed = has_branch && {
        let count = ["rev-list", "--count", &own, "--not", "--remotes=origin"];
        git.run(LOCAL, &count).await? != "0"
    };
    let base = match base {
        Some(base) => Some(base.to_string()),
        None => default_branch(git).await?,
    };
    let base = match base {
        Some(base) => commit(git, &format!("refs/remotes/origin/{base}")).await?.map(|commit| (base, commit)),
        None => None,
    };
    Ok(Found {
        folder: folder(git, directory, branch).await?,
        branch: has_branch,
        unpushed,
        remote_branch: commit(git, &format!("refs/remotes/origin/{branch}")).await?,
        base,
    })
}

async fn folder(git: &Git, directory: &Path, branch: &BranchName) -> Result<Folder, WorkspaceError> {
    let is_empty = match fs::read_dir(directory).await {
        Ok(mut entries) => entries.next_entry().await.map_err(io_at(directory))?.is_none(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => true,
        Err(error) => return Err(io_at(directory)(error)),
    };
    if is_empty {
        return Ok(Folder::Empty);
    }
    let inside = git.at(directory);
    let asked = ["rev-parse", "--path-format=absolute", "--show-toplevel", "--git-common-dir", "--git-dir"];
    let Some(answer) = inside.find(&asked).await? else { return Ok(Folder::Foreign) };
    let [top, common, own] = answer.lines().collect::<Vec<_>>()[..] else { return Ok(Folder::Foreign) };
    if !is_same(top, directory) || !is_same(common, git.directory()) {
        return Ok(Folder::Foreign);
    }
    if !fs::try_exists(Path::new(own).join(READY)).await.map_err(io_at(directory))? {
        return Ok(Folder::Unfinished);
    }
    let status = inside.status(&[]).await?;
    let on_branch = status.branch.as_deref() == Some(branch.as_str());
    Ok(Folder::Tree { on_branch, at_risk: status.changed > 0 || status.branch.is_none() })
}

async fn commit(git: &Git, reference: &str) -> Result<Option<String>, GitError> {
    git.find(&["rev-parse", "--verify", "--quiet", "--end-of-options", &format!("{reference}^{{commit}}")])
        .await
}

/// The remote's default branch, as it said when it was asked last.
async fn default_branch(git: &Git) -> Result<Option<String>, GitError> {
    let head = git.find(&["symbolic-ref", "--quiet", "refs/remotes/origin/HEAD"]).await?;
    Ok(head.and_then(|head| head.strip_prefix("refs/remotes/origin/").map(str::to_owned)))
}

fn is_same(said: &str, path: &Path) -> bool {
    match (Path::new(said).canonicalize(), path.canonicalize()) {
        (Ok(said), Ok(path)) => said == path,
        (Ok(_) | Err(_), _) => false,
    }
}
