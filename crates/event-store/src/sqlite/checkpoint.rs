//! Copying the write-ahead log into the database, before it grows too long.
//!
//! A copy takes as long as hundreds of commits, so it is made by a thread of its own while the writer goes on. What was
//! written meanwhile is little: the writer copies that itself, between two commits, since a log that is copied to its end
//! starts over. Nobody is waited for: a reader that is in the way may be a backup that takes its time.

use std::{
    fs::File,
    io::{Read, Seek, SeekFrom},
    path::Path,
    sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel},
    time::{Duration, Instant},
};

use rusqlite::Connection;

use super::{
    figures::{self, Counts},
    file::{BUSY, CHECKPOINT_PAGES},
};

/// The writer's side.
#[derive(Debug)]
pub(super) struct Checkpoints {
    /// The index of the write-ahead log.
    wal_index: Option<File>,
    /// As many frames make the next copy.
    begin_at: u32,
    /// Since when the thread has been copying.
    copying: Option<Instant>,
    orders: SyncSender<()>,
    copied: Receiver<rusqlite::Result<()>>,
}

/// The thread's side.
#[derive(Debug)]
pub(super) struct Copier {
    orders: Receiver<()>,
    copied: SyncSender<rusqlite::Result<()>>,
}

/// Both sides, for the database of this path.
pub(super) fn checkpoints(path: &Path) -> (Checkpoints, Copier) {
    let mut wal_index = path.as_os_str().to_owned();
    wal_index.push("-shm");
    let wal_index = File::open(wal_index).ok();
    let ((orders, ordered), (done, copied)) = (sync_channel(1), sync_channel(1));
    let checkpoints = Checkpoints { wal_index, begin_at: CHECKPOINT_PAGES, copying: None, orders, copied };
    (checkpoints, Copier { orders: ordered, copied: done })
}

impl Checkpoints {
    /// Goes on with what is to be done, outside of a transaction of the writer's connection.
    pub(super) fn go_on(&mut self, conn: &Connection, counts: &Counts) -> rusqlite::Result<()> {
        if let Some(begun) = self.copying {
            let copied = match self.copied.try_recv() {
                Err(TryRecvError::Empty) => return Ok(()),
                Ok(copied) => copied,
                // Without the thread the writer does all of it.
                Err(TryRecvError::Disconnected) => Ok(()),
            };
            self.copying = None;
            self.begin_at = self.frames() + CHECKPOINT_PAGES / 4;
            copied?;
            conn.busy_timeout(Duration::ZERO)?;
            let restarted = checkpoint(conn, "RESTART");
            conn.busy_timeout(BUSY)?;
            counts.checkpointed(begun);
            return restarted;
        }
        let frames = self.frames();
        if frames < CHECKPOINT_PAGES {
            self.begin_at = CHECKPOINT_PAGES;
        }
        if frames >= self.begin_at {
            self.copying = Some(figures::now());
            // If there is no thread any more, there is no answer either.
            let _ = self.orders.send(());
        }
        Ok(())
    }

    /// Ends the thread. What this has open must stay so for as long as a connection.
    pub(super) fn end(self) -> Option<File> {
        self.wal_index
    }

    /// Frames in the write-ahead log: `mxFrame` of the index that SQLite keeps of it (its file format, 2.2).
    fn frames(&self) -> u32 {
        const MX_FRAME_AT: u64 = 16;
        let mut frames = [0; 4];
        let read = self.wal_index.as_ref().map(|mut file| {
            file.seek(SeekFrom::Start(MX_FRAME_AT)).and_then(|_| file.read_exact(&mut frames))
        });
        // Without it the bound that SQLite keeps by itself remains.
        if matches!(read, Some(Ok(()))) { u32::from_ne_bytes(frames) } else { 0 }
    }
}

impl Copier {
    /// Copies whenever it is told to, until the writer is gone.
    pub(super) fn run(self, conn: &Connection) {
        for () in self.orders {
            // The second one takes what was written during the first.
            let copied = checkpoint(conn, "PASSIVE").and_then(|()| checkpoint(conn, "PASSIVE"));
            if self.copied.send(copied).is_err() {
                return;
            }
        }
    }
}

/// That somebody was reading is in its answer, and no error.
fn checkpoint(conn: &Connection, mode: &str) -> rusqlite::Result<()> {
    conn.query_row(&format!("PRAGMA wal_checkpoint({mode})"), [], |_| Ok(()))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    #[test]
    fn a_copy_that_failed_is_tried_again_when_the_log_has_grown() {
        let (_directory, path, conn) = database();
        let counts = Counts::default();
        grow(&conn);
        let (mut checkpoints, copier) = checkpoints(&path);
        checkpoints.go_on(&conn, &counts).unwrap();
        assert!(copier.orders.try_recv().is_ok());
        copier.copied.send(Err(rusqlite::Error::InvalidQuery)).unwrap();
        assert!(checkpoints.go_on(&conn, &counts).is_err());
        checkpoints.go_on(&conn, &counts).unwrap();
        assert!(copier.orders.try_recv().is_err(), "not at once");
        grow(&conn);
        checkpoints.go_on(&conn, &counts).unwrap();
        assert!(copier.orders.try_recv().is_ok());
    }

    #[test]
    fn a_log_that_is_copied_starts_over() {
        let (_directory, path, conn) = database();
        grow(&conn);
        let (mut checkpoints, copier) = checkpoints(&path);
        let copying = Connection::open(&path).unwrap();
        checkpoints.go_on(&conn, &Counts::default()).unwrap();
        let thread = std::thread::spawn(move || copier.run(&copying));
        while checkpoints.copying.is_some() {
            checkpoints.go_on(&conn, &Counts::default()).unwrap();
            std::thread::yield_now();
        }
        conn.execute("INSERT INTO t VALUES (1)", []).unwrap();
        assert!(checkpoints.frames() < 10, "{}", checkpoints.frames());
        drop(checkpoints);
        thread.join().unwrap();
    }

    fn database() -> (tempfile::TempDir, PathBuf, Connection) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("events.db");
        let conn = Connection::open(&path).unwrap();
        conn.execute_batch(
            "PRAGMA page_size=512; PRAGMA journal_mode=WAL; PRAGMA wal_autocheckpoint=0; CREATE TABLE t (b);",
        )
        .unwrap();
        (directory, path, conn)
    }

    /// By more frames than make a copy.
    fn grow(conn: &Connection) {
        conn.execute("INSERT INTO t VALUES (zeroblob(2000000))", []).unwrap();
    }
}
