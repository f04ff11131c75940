//! A file that is only appended to: a piece is in it whole, or not at all.

use std::{
    fs::File,
    io::{self, Write as _},
    os::unix::fs::FileExt as _,
};

/// An open one, whose writes go to its end (`O_APPEND`).
#[derive(Debug)]
pub(crate) struct AppendFile {
    file: File,
    /// Bytes of whole pieces.
    len: u64,
    /// What follows them is to be cut off before anything is written.
    torn: bool,
}

impl AppendFile {
    /// Goes on after so many bytes.
    pub(crate) fn new(file: File, len: u64) -> Self {
        Self { file, len, torn: false }
    }

    /// Bytes of whole pieces.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// Writes a piece to its end, or leaves it as it was; with `sync` it is on the disk then.
    pub(crate) fn append(&mut self, piece: &[u8], sync: bool) -> io::Result<()> {
        self.append_by(piece, |file, piece| {
            file.write_all(piece)?;
            if sync { file.sync_data() } else { Ok(()) }
        })
    }

    /// Reads what was written at a place.
    pub(crate) fn read(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(bytes, offset)
    }

    fn append_by(
        &mut self,
        piece: &[u8],
        write: impl FnOnce(&mut File, &[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        if self.torn {
            self.cut()?;
        }
        if let Err(error) = write(&mut self.file, piece) {
            // Written in part, or in whole and not on the disk: its writer is told that it is not there, and may come again.
            self.torn = true;
            if let Err(error) = self.cut() {
                tracing::warn!(%error, "what was torn cannot be cut off yet");
            }
            return Err(error);
        }
        self.len += piece.len() as u64;
        Ok(())
    }

    fn cut(&mut self) -> io::Result<()> {
        self.file.set_len(self.len)?;
        self.torn = false;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, fs::OpenOptions, path::Path};

    use super::*;

    #[test]
    fn p7_a_piece_that_is_written_in_part_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let (mut file, path) = begun(folder.path());
        let full = file.append_by(b"torn\n", |file, piece| {
            file.write_all(&piece[..2])?;
            Err(io::ErrorKind::StorageFull.into())
        });
        assert_eq!(full.unwrap_err().kind(), io::ErrorKind::StorageFull);
        file.append(b"next\n", true).unwrap();
        assert_eq!(fs::read_to_string(path).unwrap(), "whole\nnext\n");
    }

    #[test]
    fn p5_a_piece_that_is_not_on_the_disk_is_not_there_either() {
        let folder = tempfile::tempdir().unwrap();
        let (mut file, path) = begun(folder.path());
        let unsynced = file.append_by(b"again\n", |file, piece| {
            file.write_all(piece)?;
            Err(io::Error::other("the disk does not sync"))
        });
        unsynced.unwrap_err();
        assert_eq!(fs::read_to_string(&path).unwrap(), "whole\n");
        file.append(b"again\n", true).unwrap();
        assert_eq!((fs::read_to_string(path).unwrap().as_str(), file.len()), ("whole\nagain\n", 12));
    }

    #[test]
    fn p7_what_could_not_be_cut_off_is_before_the_next_piece() {
        let folder = tempfile::tempdir().unwrap();
        let (mut file, path) = begun(folder.path());
        let mut written = OpenOptions::new().append(true).open(&path).unwrap();
        written.write_all(b"to").unwrap();
        file.torn = true;
        file.append(b"next\n", false).unwrap();
        assert_eq!(fs::read_to_string(path).unwrap(), "whole\nnext\n");
    }

    fn begun(folder: &Path) -> (AppendFile, std::path::PathBuf) {
        let path = folder.join("file");
        let file = OpenOptions::new().append(true).create(true).open(&path).unwrap();
        let mut file = AppendFile::new(file, 0);
        file.append(b"whole\n", false).unwrap();
        (file, path)
    }
}
