//! Locks that a git left which was killed: every later call would fail on them, until a person removes them.
//!
//! Git makes a file `….lock` beside what it writes, and removes it when it ends, by a signal too; not by SIGKILL, nor when the machine
//! stops. Nothing in the file says whose it is. So it is taken for left behind when nobody touches it for a while, and no git runs in
//! the work tree.

use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{Git, GitError, LOCAL};

/// How long nobody touches a lock that was left behind. Another program than git holds it for less.
const UNTOUCHED: Duration = Duration::from_secs(3);

impl Git {
    /// As [`run`](Self::run), of a call that writes: where a lock is in its way, it is made once more, and if that was left behind
    /// it is removed before.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub(crate) async fn run_past_lock(
        &self,
        limit: Duration,
        arguments: &[&str],
    ) -> Result<String, GitError> {
        let error = match self.run(limit, arguments).await {
            Err(error @ GitError::Failed { .. }) => error,
            answer => return answer,
        };
        let Some(lock) = lock_in(&error) else { return Err(error) };
        let folders = ["rev-parse", "--path-format=absolute", "--git-common-dir", "--show-toplevel"];
        let folders = self.run(LOCAL, &folders).await?;
        let folders: Vec<&Path> = folders.lines().map(Path::new).collect();
        if !folders.first().is_some_and(|git| lock.starts_with(git)) {
            return Err(error);
        }
        let found = Mark::of(&lock);
        tokio::time::sleep(UNTOUCHED).await;
        if found.is_some() && found == Mark::of(&lock) && !a_git_runs_in(&folders) {
            tracing::warn!(lock = %lock.display(), "a git that was killed left its lock: it is removed");
            // If that fails, the call says so.
            let _ = fs::remove_file(&lock);
        }
        self.run(limit, arguments).await
    }
}

/// What tells a lock from the next one of the same name, and whether it was written to.
#[derive(Debug, PartialEq, Eq)]
struct Mark(u64, u64, i64, i64);

impl Mark {
    fn of(lock: &Path) -> Option<Self> {
        let file = fs::symlink_metadata(lock).ok()?;
        Some(Self(file.ino(), file.len(), file.mtime(), file.mtime_nsec()))
    }
}

/// The lock that was in the way of a call.
fn lock_in(error: &GitError) -> Option<PathBuf> {
    let GitError::Failed { said, .. } = error else { return None };
    let (_, path) = said.split_once("Unable to create '")?;
    let (path, _) = path.split_once("': File exists")?;
    let path = Path::new(path);
    let is_plain = path.components().all(|part| part != std::path::Component::ParentDir);
    (is_plain && path.extension()? == "lock").then(|| path.to_owned())
}

/// Whether a git works in one of these folders, as far as can be seen.
fn a_git_runs_in(folders: &[&Path]) -> bool {
    let works_there = |process: &Path| match fs::read_link(process.join("cwd")) {
        Ok(cwd) => folders.iter().any(|folder| cwd.starts_with(folder)),
        // Another user's may be anywhere; one that has ended is nowhere.
        Err(error) => error.kind() == io::ErrorKind::PermissionDenied,
    };
    let Ok(processes) = fs::read_dir("/proc") else { return true };
    processes.flatten().any(|process| {
        let process = process.path();
        fs::read_to_string(process.join("comm")).is_ok_and(|name| name.starts_with("git"))
            && works_there(&process)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_what_git_names_and_nothing_else() {
        let lock = |said: &str| {
            lock_in(&GitError::Failed { call: "add".to_owned(), code: Some(128), said: said.to_owned() })
        };
        for (said, expected) in [
            ("fatal: Unable to create '/w/.git/index.lock': File exists.", Some("/w/.git/index.lock")),
            (
                "fatal: cannot lock ref 'HEAD': Unable to create '/w/.git/HEAD.lock': File exists.\n\nAnother git",
                Some("/w/.git/HEAD.lock"),
            ),
            ("fatal: Unable to create '/w/.git/index.lock': Permission denied", None),
            ("fatal: Unable to create '/w/.git/index': File exists.", None),
            ("fatal: Unable to create '/w/.git/../a.lock': File exists.", None),
            ("fatal: no", None),
        ] {
            assert_eq!(lock(said).as_deref(), expected.map(Path::new), "{said}");
        }
    }
}
