//! What `git status` says of a work tree.

/// A work tree, from `git status --porcelain=v2 --branch -z` (git-status(1), *Porcelain Format Version 2*).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Status {
    /// The commit it stands on; none before the first one.
    pub(crate) commit: Option<String>,
    /// The branch it is on; none if its head is detached.
    pub(crate) branch: Option<String>,
    /// Paths that differ from the commit, untracked ones too.
    pub(crate) changed: u64,
    /// Paths of these that a merge left in conflict.
    pub(crate) unmerged: u64,
}

impl Status {
    /// Reads the answer. One that was cut counts for what is there of it.
    pub(super) fn parse(answer: &[u8]) -> Self {
        let mut status = Self::default();
        let mut fields = answer.split(|byte| *byte == 0);
        while let Some(field) = fields.next() {
            match field.first() {
                Some(b'#') => status.header(&String::from_utf8_lossy(field)),
                Some(b'1' | b'?') => status.changed += 1,
                Some(b'2') => {
                    status.changed += 1;
                    // The path that it had before has a field of its own.
                    fields.next();
                }
                Some(b'u') => {
                    status.changed += 1;
                    status.unmerged += 1;
                }
                Some(_) | None => {}
            }
        }
        status
    }

    fn header(&mut self, line: &str) {
        let named = |value: &str, none: &str| (value != none).then(|| value.to_owned());
        if let Some(commit) = line.strip_prefix("# branch.oid ") {
            self.commit = named(commit, "(initial)");
        } else if let Some(branch) = line.strip_prefix("# branch.head ") {
            self.branch = named(branch, "(detached)");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_counts_each_path_once() {
        let answer = b"# branch.oid 89abc\x00# branch.head gt/toast/work\x00# branch.upstream origin/main\x00# branch.ab +1 -0\x00\
            1 .M N... 100644 100644 100644 1 2 a.rs\x002 R. N... 100644 100644 100644 1 2 R100 new.rs\x00? old.rs\x00\
            u UU N... 1 2 3 4 5 6 7 both.rs\x00? un tracked\n.rs\x00";
        let expected = Status {
            commit: Some("89abc".to_owned()),
            branch: Some("gt/toast/work".to_owned()),
            changed: 4,
            unmerged: 1,
        };
        assert_eq!(Status::parse(answer), expected);
    }

    #[test]
    fn a_new_repository_has_a_branch_and_no_commit_and_a_detached_head_the_reverse() {
        let new = Status::parse(b"# branch.oid (initial)\0# branch.head main\0");
        assert_eq!((new.commit, new.branch.as_deref()), (None, Some("main")));
        let detached = Status::parse(b"# branch.oid 1\0# branch.head (detached)\0");
        assert_eq!((detached.commit.as_deref(), detached.branch), (Some("1"), None));
    }
}
