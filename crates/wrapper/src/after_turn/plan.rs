//! Whether what a turn changed is committed, and where it is pushed to.

use protocol::agent::SkipReason;

use crate::git::Status;

/// What is known of the repository at the end of a turn.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Repository {
    pub(super) status: Status,
    /// A merge, rebase or the like waits to be finished.
    pub(super) unfinished: bool,
    /// The default branch of the remote, where that is known.
    pub(super) default_branch: Option<String>,
    /// The remote and the branch of it that the branch follows.
    pub(super) upstream: Option<Upstream>,
}

/// A branch of a remote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Upstream {
    pub(super) remote: String,
    pub(super) branch: String,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) branch: String,
    pub(super) push_to: Option<Upstream>,
}

/// Branches that are taken for the default one where the remote does not say.
const DEFAULTS: &[&str] = &["main", "master"];

/// Decides. `upstream_branch` is the one that the turn's config names: commits go there, and where it is the default branch that is
/// what allows them on it.
pub(super) fn plan(repository: &Repository, upstream_branch: Option<&str>) -> Result<Plan, SkipReason> {
    let Repository { status, unfinished, default_branch, upstream } = repository;
    // In the order of what a person would have to do about it first.
    if *unfinished || status.unmerged > 0 {
        return Err(SkipReason::Unfinished);
    }
    let branch = status.branch.clone().ok_or(SkipReason::DetachedHead)?;
    let is_default = match default_branch {
        Some(default) => *default == branch,
        None => DEFAULTS.contains(&branch.as_str()),
    };
    if is_default && upstream_branch != Some(&branch) {
        return Err(SkipReason::DefaultBranch);
    }
    if status.changed == 0 {
        return Err(SkipReason::Clean);
    }
    let push_to = match (upstream_branch, upstream) {
        (Some(branch), upstream) => {
            let remote = upstream.as_ref().map_or("origin", |upstream| &upstream.remote);
            Some(Upstream { remote: remote.to_owned(), branch: branch.to_owned() })
        }
        (None, upstream) => upstream.clone(),
    };
    Ok(Plan { branch, push_to })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_branch_is_committed_and_pushed_to_what_it_follows() {
        let plan = plan(&repository("topic"), None).unwrap();
        assert_eq!(plan, Plan { branch: "topic".to_owned(), push_to: upstream("topic") });
        let alone = Repository { upstream: None, ..repository("topic") };
        assert_eq!(super::plan(&alone, None).unwrap().push_to, None);
    }

    #[test]
    fn the_default_branch_is_left_alone_unless_the_config_names_it() {
        for (branch, said, named, expected) in [
            ("main", Some("main"), None, Err(SkipReason::DefaultBranch)),
            ("trunk", Some("trunk"), None, Err(SkipReason::DefaultBranch)),
            ("trunk", Some("trunk"), Some("other"), Err(SkipReason::DefaultBranch)),
            ("trunk", Some("trunk"), Some("trunk"), Ok(upstream("trunk"))),
            ("main", Some("trunk"), None, Ok(upstream("main"))),
            // Nobody says which it is: the usual names are taken for it.
            ("main", None, None, Err(SkipReason::DefaultBranch)),
            ("master", None, None, Err(SkipReason::DefaultBranch)),
            ("trunk", None, None, Ok(upstream("trunk"))),
        ] {
            let default_branch = said.map(str::to_owned);
            let repository = Repository { default_branch, ..repository(branch) };
            let found = plan(&repository, named).map(|plan| plan.push_to);
            assert_eq!(found, expected, "{branch}, {said:?}, {named:?}");
        }
    }

    #[test]
    fn what_is_not_to_be_committed_is_told_by_its_reason() {
        let detached = Status { branch: None, ..repository("topic").status };
        let clean = Status { changed: 0, ..repository("topic").status };
        let conflict = Status { unmerged: 1, ..repository("topic").status };
        for (status, unfinished, reason) in [
            (detached.clone(), false, SkipReason::DetachedHead),
            (clean, false, SkipReason::Clean),
            (conflict, false, SkipReason::Unfinished),
            // A rebase detaches the head: it is the rebase that is to be finished.
            (detached, true, SkipReason::Unfinished),
        ] {
            let repository = Repository { status, unfinished, ..repository("topic") };
            assert_eq!(plan(&repository, None), Err(reason));
        }
    }

    #[test]
    fn a_named_upstream_is_pushed_to_on_the_remote_that_the_branch_follows() {
        let named = |repository: &Repository| plan(repository, Some("review")).unwrap().push_to.unwrap();
        let fork = Upstream { remote: "fork".to_owned(), branch: "topic".to_owned() };
        let follows = Repository { upstream: Some(fork), ..repository("topic") };
        assert_eq!(named(&follows), Upstream { remote: "fork".to_owned(), branch: "review".to_owned() });
        let alone = Repository { upstream: None, ..repository("topic") };
        assert_eq!(named(&alone).remote, "origin");
    }

    fn repository(branch: &str) -> Repository {
        let status = Status {
            commit: Some("1".to_owned()),
            branch: Some(branch.to_owned()),
            changed: 2,
            ..Status::default()
        };
        Repository {
            status,
            unfinished: false,
            default_branch: Some("main".to_owned()),
            upstream: upstream(branch),
        }
    }

    fn upstream(branch: &str) -> Option<Upstream> {
        Some(Upstream { remote: "origin".to_owned(), branch: branch.to_owned() })
    }
}
