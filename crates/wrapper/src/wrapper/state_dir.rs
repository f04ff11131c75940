//! What a wrapper keeps on disk beside its outbox: its generation, the session it goes on with, and what that is to be told first.

use std::{
    fs,
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use super::RunError;

/// A folder that belongs to one agent's wrapper.
#[derive(Debug)]
pub(super) struct StateDir(PathBuf);

impl StateDir {
    /// Makes the folder if it is not there.
    pub(super) fn open(path: &Path) -> Result<Self, RunError> {
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
        made.map_err(doing("make the folder"))?;
        Ok(Self(path.canonicalize().map_err(doing("find the folder"))?))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// This run's generation: the one that was asked for, else one more than the last run's. It is kept before it is used.
    pub(super) fn next_generation(&self, asked: Option<u64>) -> Result<u64, RunError> {
        let last: u64 = self.read("generation")?.and_then(|text| text.parse().ok()).unwrap_or(0);
        let generation = asked.unwrap_or(last + 1);
        self.write("generation", &generation.to_string()).map_err(doing("keep the generation"))?;
        Ok(generation)
    }

    /// The session of the last run.
    pub(super) fn session(&self) -> Result<Option<String>, RunError> {
        self.read("session")
    }

    /// Keeps the session for the next run.
    pub(super) fn keep_session(&self, session: &str) -> io::Result<()> {
        self.write("session", session)
    }

    /// What the first message of a session is to be preceded by.
    pub(super) fn context(&self) -> Result<Option<String>, RunError> {
        self.read("context")
    }

    /// Keeps that until it was told; `None` forgets it.
    pub(super) fn keep_context(&self, context: Option<&str>) -> io::Result<()> {
        match context {
            Some(context) => self.write("context", context),
            None => match fs::remove_file(self.0.join("context")) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                Ok(()) | Err(_) => Ok(()),
            },
        }
    }

    fn read(&self, name: &str) -> Result<Option<String>, RunError> {
        match fs::read_to_string(self.0.join(name)) {
            Ok(text) => Ok(Some(text.trim().to_owned()).filter(|text| !text.is_empty())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(RunError::StateDir { doing: "read what the last run kept", source }),
        }
    }

    /// Whole or not at all: a wrapper may die at any time. It is the owner's alone: it may be what was said.
    fn write(&self, name: &str, text: &str) -> io::Result<()> {
        let draft = self.0.join(format!("{name}.new"));
        let _ = fs::remove_file(&draft);
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&draft, self.0.join(name))?;
        fs::File::open(&self.0)?.sync_all()
    }
}

fn doing(doing: &'static str) -> impl Fn(io::Error) -> RunError {
    move |source| RunError::StateDir { doing, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_run_has_a_higher_generation() {
        let folder = tempfile::tempdir().unwrap();
        let next = |asked| StateDir::open(folder.path()).unwrap().next_generation(asked).unwrap();
        assert_eq!([next(None), next(None), next(Some(7)), next(None)], [1, 2, 7, 8]);
    }

    #[test]
    fn the_context_is_kept_until_it_was_told() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::open(folder.path()).unwrap();
        state.keep_context(None).unwrap();
        state.keep_context(Some("before\n\nthis")).unwrap();
        assert_eq!(state.context().unwrap().as_deref(), Some("before\n\nthis"));
        state.keep_context(None).unwrap();
        assert_eq!(state.context().unwrap(), None);
    }

    #[test]
    fn p19_what_is_kept_is_for_the_owner_alone() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::open(&folder.path().join("new")).unwrap();
        // As an earlier run left it that was killed.
        fs::write(state.path().join("context.new"), "half").unwrap();
        state.keep_context(Some("what was said")).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(state.path()), mode(&state.path().join("context"))), (0o700, 0o600));
    }

    #[test]
    fn the_session_is_kept_for_the_next_run() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::open(&folder.path().join("new")).unwrap();
        assert_eq!(state.session().unwrap(), None);
        state.keep_session("ses_1").unwrap();
        assert_eq!(StateDir::open(state.path()).unwrap().session().unwrap().as_deref(), Some("ses_1"));
    }
}
