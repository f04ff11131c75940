//! Copies of a store: of one that runs, and back again.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use rusqlite::{
    Connection,
    backup::{Backup, StepResult},
};

use super::{
    OpenError,
    file::{self, refine},
    tables::logs,
    verify,
};
use crate::epochs::Epochs;

/// Pages copied between two words of progress: 4 MiB.
const PAGES_AT_ONCE: i32 = 256;

/// Copies the store in this file to another file, as of one commit, and says how many of how many pages are done. Another
/// process, or this one, may have it open and append to it: nothing waits for the copy, and only the write-ahead log
/// grows meanwhile. The copy has its name once it is whole and synced. It is not looked through: [`verify`] does that.
///
/// # Errors
/// When the file is no event store, the copy is there already, or it cannot be written.
pub fn backup(path: &Path, copy: &Path, progress: impl FnMut(u64, u64)) -> Result<(), OpenError> {
    let conn = verify::connect(path)?;
    if copy.exists() {
        let source = io::Error::new(io::ErrorKind::AlreadyExists, "there is a file of that name");
        return Err(OpenError::Io { path: copy.to_owned(), source });
    }
    let part = beside(copy, ".part");
    copy_pages(&conn, path, &part, progress)?;
    put_in_place(&part, copy)
}

/// Puts a copy in the place of a store that is not there: every log has a new epoch, so that a reader whose cursor is of
/// the store that was lost is told so, and begins anew. What the logs know of their producers is kept: a wrapper that
/// was acked beyond the copy names what is missing (§6).
///
/// # Errors
/// When the copy is no event store, or there is a store already, open or not.
pub fn restore(copy: &Path, path: &Path, progress: impl FnMut(u64, u64)) -> Result<(), OpenError> {
    let conn = verify::connect(copy)?;
    let lock = file::lock(path)?;
    if path.exists() {
        let source = io::Error::new(io::ErrorKind::AlreadyExists, "there is a store: move it away first");
        return Err(OpenError::Io { path: path.to_owned(), source });
    }
    // What a store that is gone left beside itself would be taken for a part of this one.
    for suffix in ["-wal", "-shm"] {
        remove(&beside(path, suffix))?;
    }
    let part = beside(path, ".part");
    copy_pages(&conn, copy, &part, progress)?;
    renew_epochs(&part)?;
    put_in_place(&part, path)?;
    drop(lock);
    Ok(())
}

fn copy_pages(
    conn: &Connection,
    path: &Path,
    part: &Path,
    mut progress: impl FnMut(u64, u64),
) -> Result<(), OpenError> {
    let failed = |source| refine(path, source);
    remove(part)?;
    create_private(part)?;
    // One snapshot for all steps: else every commit meanwhile would begin the copy anew.
    conn.execute_batch("BEGIN; SELECT count(*) FROM logs").map_err(failed)?;
    let mut to = Connection::open(part).map_err(|source| refine(part, source))?;
    let copying = Backup::new(conn, &mut to).map_err(failed)?;
    loop {
        let step = copying.step(PAGES_AT_ONCE).map_err(failed)?;
        let now = copying.progress();
        let total = u64::try_from(now.pagecount).unwrap_or_default();
        progress(total - u64::try_from(now.remaining).unwrap_or_default(), total);
        match step {
            StepResult::Done => break,
            StepResult::More => {}
            // Nobody else has the one, and the other is read in a snapshot.
            StepResult::Busy | StepResult::Locked | _ => {
                return Err(OpenError::Locked { path: path.to_owned() });
            }
        }
    }
    drop(copying);
    // So that the copy is one file, whoever opens it.
    to.query_row("PRAGMA journal_mode=DELETE", [], |_| Ok(())).map_err(|source| refine(part, source))?;
    to.close().map_err(|(_, source)| refine(part, source))?;
    conn.execute_batch("COMMIT").map_err(failed)
}

/// One transaction over every log.
fn renew_epochs(path: &Path) -> Result<(), OpenError> {
    let failed = |source| refine(path, source);
    let conn = Connection::open(path).map_err(failed)?;
    let rows = logs::all(&conn).map_err(failed)?;
    let rows = rows
        .map_err(|logs::Damaged| file::damaged(path, "what it says of a log does not match its checksum"))?;
    let mut epochs = Epochs::Random;
    let tx = conn.unchecked_transaction().map_err(failed)?;
    for mut row in rows {
        row.header.epoch = epochs.next();
        logs::update(&tx, &row).map_err(failed)?;
    }
    tx.commit().map_err(failed)
}

/// Gives a whole file its name, so that it survives the loss of power.
fn put_in_place(part: &Path, path: &Path) -> Result<(), OpenError> {
    let io = |source| OpenError::Io { path: path.to_owned(), source };
    File::open(part).and_then(|file| file.sync_all()).map_err(io)?;
    fs::rename(part, path).map_err(io)?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(io)
}

/// Readable by its owner only: events hold whatever agents see.
fn create_private(path: &Path) -> Result<(), OpenError> {
    let mut create = fs::OpenOptions::new();
    create.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut create, 0o600);
    create.open(path).map(drop).map_err(|source| OpenError::Io { path: path.to_owned(), source })
}

fn remove(path: &Path) -> Result<(), OpenError> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(OpenError::Io { path: path.to_owned(), source })
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}
