//! One wrapper at a time works on the mirror of a rig.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    thread,
};

use tokio::sync::oneshot;

use super::{WorkspaceError, io_at};

/// The lock of a rig, across processes. The system takes it back when its process dies.
#[derive(Debug)]
pub(super) struct Lock(#[expect(dead_code, reason = "closing the file gives the lock back")] File);

impl Lock {
    /// Waits for it. Whoever has it fetches or makes a work tree, which has an end.
    pub(super) async fn take(path: &Path) -> Result<Self, WorkspaceError> {
        let (say, taken) = oneshot::channel();
        let file = path.to_owned();
        // A thread of its own, and not one of the runtime's: those are waited for when the runtime ends, and this call of the
        // system's cannot be called off. The lock is given back when nobody waits any more, since the file is closed then.
        thread::Builder::new()
            .name("rig lock".to_owned())
            .spawn(move || drop(say.send(lock(&file))))
            .map_err(io_at(path))?;
        let taken = taken.await.unwrap_or_else(|_| Err(io::ErrorKind::Interrupted.into()));
        taken.map(Self).map_err(io_at(path))
    }
}

fn lock(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)?;
    file.lock()?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_second_one_waits_for_the_first_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("app.lock");
        let first = Lock::take(&path).await.unwrap();
        let second = Lock::take(&path);
        tokio::pin!(second);
        let try_lock = || OpenOptions::new().write(true).open(&path).unwrap().try_lock();
        assert!(futures_util::poll!(&mut second).is_pending() && try_lock().is_err());
        drop(first);
        let second = second.await.unwrap();
        assert!(try_lock().is_err(), "it is the second one's");
        drop(second);
        assert!(try_lock().is_ok());
    }
}
