//! Puts away what would be lost: under `refs/gastown/rescue/<agent>/<commit>` of the mirror, which nothing prunes.
//!
//! `git log --all` in the mirror or in any of its work trees shows it, `git switch --detach <reference>` brings it back. What is
//! ignored is not kept.

use std::path::Path;

use protocol::AgentId;

use crate::git::{Git, GitError, LOCAL};

/// Characters of the commit in the reference's name.
const SHORT: usize = 12;

/// Puts away a work tree as it is. Its index and branch stay as they are.
pub(super) async fn tree(git: &Git, agent: &AgentId, mirror: &Path) -> Result<String, GitError> {
    let index = mirror.join(format!("rescue-{agent}.index"));
    let git = git.clone().with_env("GIT_INDEX_FILE", &index).in_the_name_of(agent);
    let head = git.find(&["rev-parse", "--verify", "--quiet", "HEAD^{commit}"]).await?;
    match &head {
        Some(head) => git.run(LOCAL, &["read-tree", head]).await?,
        None => git.run(LOCAL, &["read-tree", "--empty"]).await?,
    };
    git.run(LOCAL, &["add", "--all", "--", ":/"]).await?;
    let tree = git.run(LOCAL, &["write-tree"]).await?;
    let mut arguments = vec!["commit-tree", "-m", "Work in progress, put away", &tree];
    if let Some(head) = &head {
        arguments.extend(["-p", head]);
    }
    let commit = git.run(LOCAL, &arguments).await?;
    // The file was this call's alone; one that stays is overwritten by the next.
    let _ = tokio::fs::remove_file(index).await;
    keep(&git, agent, &commit).await
}

/// Puts away a branch as it is.
pub(super) async fn branch(git: &Git, agent: &AgentId, branch: &str) -> Result<String, GitError> {
    let commit = git.run(LOCAL, &["rev-parse", "--verify", &format!("refs/heads/{branch}")]).await?;
    keep(git, agent, &commit).await
}

async fn keep(git: &Git, agent: &AgentId, commit: &str) -> Result<String, GitError> {
    let short: String = commit.chars().take(SHORT).collect();
    let reference = format!("refs/gastown/rescue/{agent}/{short}");
    git.run(LOCAL, &["update-ref", &reference, commit]).await?;
    Ok(reference)
}
