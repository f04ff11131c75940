//! What makes a work tree ready, from what is there.

/// What is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) folder: Folder,
    /// The attempt's branch is in the mirror.
    pub(super) branch: bool,
    /// It has commits that no branch of the remote has.
    pub(super) unpushed: bool,
    /// The commit of the attempt's branch on the remote.
    pub(super) remote_branch: Option<String>,
    /// The branch to begin from, and its commit; none if the remote has no such branch.
    pub(super) base: Option<(String, String)>,
}

/// What is where the work tree is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Folder {
    /// Nothing.
    Empty,
    /// Something that is no work tree of the mirror.
    Foreign,
    /// A work tree that was not made to its end: no agent was ever in it.
    Unfinished,
    /// A work tree.
    Tree {
        /// The branch is the attempt's.
        on_branch: bool,
        /// It has changes that are in no commit, or its head is on no branch.
        at_risk: bool,
    },
}

/// What to do, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Outcome {
    pub(super) steps: Vec<Step>,
    /// The branch it is begun from, if it is.
    pub(super) base: Option<String>,
    /// The branch was there and goes on.
    pub(super) resumed: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// Put away what is in the work tree and in no commit.
    RescueTree,
    /// Put away the attempt's branch as it is.
    RescueBranch,
    RemoveTree,
    AddTree(From),
}

/// What a work tree is made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum From {
    /// The attempt's branch as it is.
    Branch,
    /// The attempt's branch, made at this commit.
    Commit(String),
}

/// Why it cannot be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// Something else is in its place, which is not this wrapper's to remove.
    Foreign,
    /// There is nothing to begin from.
    NoBase,
}

/// Decides. A retry goes on with its branch, unless it is to begin `fresh`.
pub(super) fn plan(found: &Found, fresh: bool) -> Result<Outcome, Refusal> {
    let mut steps = Vec::new();
    match found.folder {
        Folder::Foreign => return Err(Refusal::Foreign),
        Folder::Tree { on_branch: true, .. } if !fresh => {
            return Ok(Outcome { steps, base: None, resumed: true });
        }
        Folder::Tree { at_risk, .. } => {
            steps.extend(at_risk.then_some(Step::RescueTree));
            steps.push(Step::RemoveTree);
        }
        Folder::Unfinished => steps.push(Step::RemoveTree),
        Folder::Empty => {}
    }
    if !fresh && found.branch {
        steps.push(Step::AddTree(From::Branch));
        return Ok(Outcome { steps, base: None, resumed: true });
    }
    if !fresh && let Some(commit) = &found.remote_branch {
        steps.push(Step::AddTree(From::Commit(commit.clone())));
        return Ok(Outcome { steps, base: None, resumed: true });
    }
    let (base, commit) = found.base.clone().ok_or(Refusal::NoBase)?;
    steps.extend((found.branch && found.unpushed).then_some(Step::RescueBranch));
    steps.push(Step::AddTree(From::Commit(commit)));
    Ok(Outcome { steps, base: Some(base), resumed: false })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_first_attempt_begins_from_the_base() {
        let outcome = plan(&found(Folder::Empty), false).unwrap();
        assert_eq!(outcome.steps, [Step::AddTree(From::Commit("base".to_owned()))]);
        assert_eq!((outcome.base.as_deref(), outcome.resumed), (Some("main"), false));
        assert_eq!(plan(&Found { base: None, ..found(Folder::Empty) }, false), Err(Refusal::NoBase));
    }

    #[test]
    fn a_retry_goes_on_with_what_is_nearest() {
        let tree = Folder::Tree { on_branch: true, at_risk: true };
        let resumed = plan(&Found { branch: true, base: None, ..found(tree) }, false).unwrap();
        assert_eq!((resumed.steps, resumed.resumed), (vec![], true), "also one that is dirty");
        let branch = plan(&Found { branch: true, base: None, ..found(Folder::Empty) }, false).unwrap();
        assert_eq!((branch.steps, branch.resumed), (vec![Step::AddTree(From::Branch)], true));
        let remote_branch = Some("theirs".to_owned());
        let remote = plan(&Found { remote_branch, ..found(Folder::Empty) }, false).unwrap();
        assert_eq!(
            (remote.steps, remote.resumed),
            (vec![Step::AddTree(From::Commit("theirs".to_owned()))], true)
        );
    }

    #[test]
    fn a_fresh_attempt_puts_away_what_it_would_lose() {
        let tree = Folder::Tree { on_branch: true, at_risk: true };
        let there =
            Found { branch: true, unpushed: true, remote_branch: Some("theirs".to_owned()), ..found(tree) };
        let expected = [
            Step::RescueTree,
            Step::RemoveTree,
            Step::RescueBranch,
            Step::AddTree(From::Commit("base".to_owned())),
        ];
        assert_eq!(plan(&there, true).unwrap().steps, expected);
    }

    #[test]
    fn what_was_never_finished_is_made_again_and_what_is_not_ours_is_left_alone() {
        let unfinished = plan(&Found { branch: true, ..found(Folder::Unfinished) }, false).unwrap();
        assert_eq!(unfinished.steps, [Step::RemoveTree, Step::AddTree(From::Branch)]);
        assert_eq!(plan(&found(Folder::Foreign), true), Err(Refusal::Foreign));
    }

    proptest! {
        #[test]
        fn nothing_at_risk_is_removed_before_it_is_put_away(
            found in any_found(),
            fresh in any::<bool>(),
        ) {
            let Ok(outcome) = plan(&found, fresh) else { return Ok(()) };
            let at = |step: &Step| outcome.steps.iter().position(|found| found == step);
            if let (Folder::Tree { at_risk: true, .. }, Some(removed)) = (&found.folder, at(&Step::RemoveTree)) {
                prop_assert!(at(&Step::RescueTree).is_some_and(|rescued| rescued < removed));
            }
            let made_anew = outcome.steps.iter().position(|step| matches!(step, Step::AddTree(From::Commit(_))));
            if let Some(made) = made_anew && found.branch && found.unpushed {
                prop_assert!(at(&Step::RescueBranch).is_some_and(|rescued| rescued < made));
            }
            prop_assert_eq!(fresh && outcome.resumed, false);
        }
    }

    fn any_found() -> impl Strategy<Value = Found> {
        let folder = prop_oneof![
            Just(Folder::Empty),
            Just(Folder::Unfinished),
            any::<(bool, bool)>().prop_map(|(on_branch, at_risk)| Folder::Tree { on_branch, at_risk }),
        ];
        (folder, any::<[bool; 4]>()).prop_map(|(folder, [branch, unpushed, remote, base])| Found {
            branch,
            unpushed,
            remote_branch: remote.then(|| "theirs".to_owned()),
            base: base.then(|| ("main".to_owned(), "base".to_owned())),
            ..found(folder)
        })
    }

    fn found(folder: Folder) -> Found {
        let base = Some(("main".to_owned(), "base".to_owned()));
        Found { folder, branch: false, unpushed: false, remote_branch: None, base }
    }
}
