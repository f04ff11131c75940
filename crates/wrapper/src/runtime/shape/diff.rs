//! What a change did to a file, as a unified diff.

use serde::Serialize;
use similar::{ChangeTag, TextDiff};

/// A file before and after a tool changed it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FileChange {
    /// Path below the work folder.
    pub path: String,
    /// Its text before; absent if there was no such file.
    pub before: Option<String>,
    /// Its text after.
    pub after: String,
}

/// The change of one file, in the shape of a user message's `summary.diffs`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Patch {
    /// Path below the work folder.
    pub(crate) file: String,
    /// `Index: …`, then a unified diff.
    pub(crate) patch: String,
    /// Lines added.
    pub(crate) additions: usize,
    /// Lines removed.
    pub(crate) deletions: usize,
    /// `added` or `modified`.
    pub(crate) status: &'static str,
}

impl Patch {
    /// The diff of a change; `name` is how the file is called in its head.
    pub(crate) fn of(change: &FileChange, name: &str) -> Self {
        let before = change.before.as_deref().unwrap_or_default();
        let diff = TextDiff::from_lines(before, &change.after);
        let count = |tag| diff.iter_all_changes().filter(|line| line.tag() == tag).count();
        let (additions, deletions) = (count(ChangeTag::Insert), count(ChangeTag::Delete));
        let unified = diff.unified_diff().context_radius(4).header(name, name).to_string();
        let rule = "=".repeat(67);
        Self {
            file: change.path.clone(),
            patch: format!("Index: {name}\n{rule}\n{unified}"),
            additions,
            deletions,
            status: if change.before.is_some() { "modified" } else { "added" },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_line_is_one_removed_and_one_added() {
        let change = FileChange {
            path: "src/a.rs".to_owned(),
            before: Some("one\ntwo\nthree\n".to_owned()),
            after: "one\n2\nthree\n".to_owned(),
        };
        let patch = Patch::of(&change, "/w/src/a.rs");
        assert_eq!((patch.additions, patch.deletions, patch.status), (1, 1, "modified"));
        assert!(
            patch
                .patch
                .contains("--- /w/src/a.rs\n+++ /w/src/a.rs\n@@ -1,3 +1,3 @@\n one\n-two\n+2\n three\n"),
            "{}",
            patch.patch
        );
    }

    #[test]
    fn a_new_file_is_all_additions() {
        let change = FileChange { path: "a".to_owned(), before: None, after: "x\ny\n".to_owned() };
        let patch = Patch::of(&change, "a");
        assert_eq!((patch.additions, patch.deletions, patch.status), (2, 0, "added"));
    }
}
