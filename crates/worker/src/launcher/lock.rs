//! Knowing, across restarts of the worker, whether a wrapper lives: it holds a lock that the system takes back when it dies.
//!
//! The launcher locks `wrapper.lock` and hands the open file to the wrapper as its standard input. The lock belongs to
//! that open file, so that it lasts exactly as long as the wrapper, however it ends, and needs no help from it. The file
//! says which process and generation holds it.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{self, Read as _, Seek as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

/// Who holds the lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Holder {
    pub(super) pid: u32,
    pub(super) generation: u64,
}

/// The lock, held. Dropping it gives it back, unless a process has the open file.
#[derive(Debug)]
pub(super) struct Lock(File);

/// Whether the lock could be had.
#[derive(Debug)]
pub(super) enum Attempt {
    Taken(Lock),
    /// Somebody has it; who, if the file says so.
    Held(Option<Holder>),
}

impl Lock {
    pub(super) fn attempt(path: &Path) -> io::Result<Attempt> {
        let mut file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Attempt::Taken(Self(file))),
            Err(TryLockError::WouldBlock) => {
                let mut text = String::new();
                file.read_to_string(&mut text)?;
                Ok(Attempt::Held(Holder::parse(&text)))
            }
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    /// The open file for the process that shall hold the lock.
    pub(super) fn share(&self) -> io::Result<File> {
        self.0.try_clone()
    }

    /// Writes down who holds it.
    pub(super) fn name(&mut self, holder: Holder) -> io::Result<()> {
        self.0.set_len(0)?;
        self.0.rewind()?;
        writeln!(self.0, "{} {}", holder.pid, holder.generation)
    }
}

impl Holder {
    fn parse(text: &str) -> Option<Self> {
        let (pid, generation) = text.trim_end().split_once(' ')?;
        Some(Self { pid: pid.parse().ok()?, generation: generation.parse().ok()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lock_is_held_by_whoever_has_the_open_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("wrapper.lock");
        let Attempt::Taken(mut lock) = Lock::attempt(&path).unwrap() else { panic!("it is free") };
        let holder = Holder { pid: 17, generation: 3 };
        lock.name(holder).unwrap();
        let shared = lock.share().unwrap();
        drop(lock);
        assert!(matches!(Lock::attempt(&path).unwrap(), Attempt::Held(Some(found)) if found == holder));
        drop(shared);
        assert!(matches!(Lock::attempt(&path).unwrap(), Attempt::Taken(_)));
    }

    #[test]
    fn a_file_that_names_nobody_is_no_holder() {
        assert_eq!(Holder::parse(""), None);
        assert_eq!(Holder::parse("17"), None);
        assert_eq!(Holder::parse("x 3\n"), None);
    }
}
