//! The file that a log is written to: turned at a size, so that a wrapper that runs for months leaves the disk to its outbox.
//!
//! Others write to it as well, by descriptors that they inherited. So it is not renamed: it is copied to `<name>.1` and cut.

use std::{
    fs::{self, File},
    io::{self, Seek as _, SeekFrom, Write as _},
    os::fd::{AsFd, AsRawFd as _},
    path::{Path, PathBuf},
};

/// Bytes past which it is turned.
const LONG: u64 = 8 * 1024 * 1024;
/// Bytes that are written between two looks at its size.
const LOOK_AFTER: usize = 64 * 1024;

/// An open one.
#[derive(Debug)]
pub(crate) struct LogFile {
    file: File,
    unseen: usize,
}

impl LogFile {
    /// What this descriptor writes to, if that is a file in this folder.
    pub(crate) fn of(descriptor: impl AsFd, folder: &Path) -> io::Result<Option<Self>> {
        let file = File::from(descriptor.as_fd().try_clone_to_owned()?);
        let is_inside = file.metadata()?.is_file() && path_of(&file)?.starts_with(folder);
        Ok(is_inside.then_some(Self { file, unseen: LOOK_AFTER }))
    }

    /// So many bytes more were written: turns it if it is long by now.
    pub(crate) fn grew(&mut self, bytes: usize) -> io::Result<()> {
        self.unseen += bytes;
        if self.unseen < LOOK_AFTER {
            return Ok(());
        }
        self.unseen = 0;
        if self.file.metadata()?.len() <= LONG {
            return Ok(());
        }
        // A disk without room for the copy needs the cut the more.
        let kept = self.keep();
        self.file.set_len(0)?;
        // Of no effect where writes go to the end anyway.
        self.file.seek(SeekFrom::Start(0))?;
        if let Err(error) = kept {
            writeln!(self.file, "what was here before could not be kept: {error}")?;
        }
        Ok(())
    }

    fn keep(&self) -> io::Result<()> {
        let mut name = path_of(&self.file)?.into_os_string();
        name.push(".1");
        let old = PathBuf::from(name);
        let draft = old.with_extension("new");
        // By the descriptor: whatever has the file's name by now.
        let copied = fs::copy(descriptor_of(&self.file), &draft).and_then(|_| fs::rename(&draft, &old));
        copied.inspect_err(|_| {
            // Half of a copy is of no use, and takes the room.
            let _ = fs::remove_file(&draft);
        })
    }
}

fn path_of(file: &File) -> io::Result<PathBuf> {
    fs::read_link(descriptor_of(file))
}

fn descriptor_of(file: &File) -> PathBuf {
    format!("/proc/self/fd/{}", file.as_raw_fd()).into()
}

#[cfg(test)]
mod tests {
    use std::fs::OpenOptions;

    use super::*;

    #[test]
    fn a_long_log_is_kept_once_and_begun_again_for_all_who_write_to_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().canonicalize().unwrap().join("wrapper.log");
        let mut written = OpenOptions::new().append(true).create(true).open(&path).unwrap();
        let mut log = LogFile::of(&written, path.parent().unwrap()).unwrap().unwrap();
        let page = usize::try_from(LONG).unwrap() / 4;
        for letter in ["a", "b", "c", "d", "e", "f"] {
            written.write_all(letter.repeat(page).as_bytes()).unwrap();
            log.grew(page).unwrap();
        }
        assert_eq!(fs::read(&path).unwrap(), vec![b'f'; page], "five pages were too long");
        let old = fs::read(folder.path().join("wrapper.log.1")).unwrap();
        assert_eq!((old.len(), old[0], old[old.len() - 1]), (5 * page, b'a', b'e'));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_log_that_is_not_kept_with_the_state_is_left_alone() {
        let (folder, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let elsewhere = File::create(folder.path().join("mine.log")).unwrap();
        assert!(LogFile::of(&elsewhere, state.path()).unwrap().is_none());
        assert!(LogFile::of(File::open("/dev/null").unwrap(), Path::new("/dev")).unwrap().is_none());
    }
}
