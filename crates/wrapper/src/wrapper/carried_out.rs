//! Which commands of the relay were handed on: none is carried out twice, over the wrapper's own death too (§7).
//!
//! The link remembers what this run was asked for, with the answers. This remembers over runs, in `<state-dir>/commands`: one id per
//! line, oldest first, on disk before the command goes anywhere. A run that dies between the two has not carried it out, and says
//! afterwards that it may have: at most once, never twice.

use std::{
    collections::VecDeque,
    fs::{self, File, OpenOptions},
    io,
    path::{Path, PathBuf},
};

use protocol::CommandId;

use crate::append_file::AppendFile;

/// Commands that are remembered: more than anybody sends again.
const REMEMBERED: usize = 1_024;

/// The commands that were handed on.
#[derive(Debug)]
pub(super) struct CarriedOut {
    path: PathBuf,
    file: AppendFile,
    ids: VecDeque<CommandId>,
    /// Lines of the file.
    lines: usize,
}

impl CarriedOut {
    /// Reads what earlier runs left in a folder.
    pub(super) fn open(folder: &Path) -> io::Result<Self> {
        let path = folder.join("commands");
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error),
        };
        let mut ids = VecDeque::new();
        // A line without an end was never synced, so its command went nowhere.
        let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        for line in text[..whole].split(|byte| *byte == b'\n') {
            ids.extend(std::str::from_utf8(line).ok().and_then(|line| line.parse::<CommandId>().ok()));
        }
        ids.drain(..ids.len().saturating_sub(REMEMBERED));
        let file = rewrite(&path, &ids)?;
        Ok(Self { path, file, lines: ids.len(), ids })
    }

    /// Whether a command was handed on.
    pub(super) fn has(&self, id: &CommandId) -> bool {
        self.ids.contains(id)
    }

    /// Remembers that a command is handed on. It is not to be if this fails, and may come again.
    pub(super) fn note(&mut self, id: &CommandId) -> io::Result<()> {
        if self.lines >= 2 * REMEMBERED {
            self.file = rewrite(&self.path, &self.ids)?;
            self.lines = self.ids.len();
        }
        self.file.append(format!("{id}\n").as_bytes(), true)?;
        self.lines += 1;
        if self.ids.len() == REMEMBERED {
            self.ids.pop_front();
        }
        self.ids.push_back(id.clone());
        Ok(())
    }
}

/// Whole or not at all: a wrapper may die at any time. Returns the file, to be written on.
fn rewrite(path: &Path, ids: &VecDeque<CommandId>) -> io::Result<AppendFile> {
    let draft = path.with_extension("new");
    let text: String = ids.iter().map(|id| format!("{id}\n")).collect();
    fs::write(&draft, &text)?;
    let file = OpenOptions::new().append(true).open(&draft)?;
    file.sync_all()?;
    fs::rename(&draft, path)?;
    if let Some(folder) = path.parent() {
        File::open(folder)?.sync_all()?;
    }
    Ok(AppendFile::new(file, text.len() as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_known_to_the_next_run() {
        let folder = tempfile::tempdir().unwrap();
        let mut first = CarriedOut::open(folder.path()).unwrap();
        assert!(!first.has(&id(1)));
        first.note(&id(1)).unwrap();
        drop(first);
        let second = CarriedOut::open(folder.path()).unwrap();
        assert!(second.has(&id(1)) && !second.has(&id(2)));
    }

    #[test]
    fn a_torn_line_is_no_command_and_spoils_none() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("commands"), "c1\nc2\nc1").unwrap();
        let mut first = CarriedOut::open(folder.path()).unwrap();
        first.note(&id(34)).unwrap();
        drop(first);
        let text = std::fs::read_to_string(folder.path().join("commands")).unwrap();
        assert_eq!(text, "c1\nc2\nc34\n");
    }

    #[test]
    fn a_command_that_a_full_disk_did_not_take_was_not_handed_on_and_may_come_again() {
        let folder = tempfile::tempdir().unwrap();
        let mut open = CarriedOut::open(folder.path()).unwrap();
        let full = OpenOptions::new().append(true).open("/dev/full").unwrap();
        let disk = std::mem::replace(&mut open.file, AppendFile::new(full, 0));
        assert_eq!(open.note(&id(1)).unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert!(!open.has(&id(1)), "it would be answered as one that was handed on");
        open.file = disk;
        open.note(&id(1)).unwrap();
        assert!(open.has(&id(1)) && CarriedOut::open(folder.path()).unwrap().has(&id(1)));
    }

    #[test]
    fn the_newest_are_remembered_and_the_file_has_an_end() {
        let folder = tempfile::tempdir().unwrap();
        let many: String = (0..5_000).map(|n| format!("c{n}\n")).collect();
        std::fs::write(folder.path().join("commands"), many).unwrap();
        let mut open = CarriedOut::open(folder.path()).unwrap();
        assert!(open.has(&id(4_999)) && !open.has(&id(4_999 - REMEMBERED)));
        for n in 5_000..5_000 + REMEMBERED + 10 {
            open.note(&id(n)).unwrap();
        }
        let lines = std::fs::read_to_string(folder.path().join("commands")).unwrap().lines().count();
        assert!((REMEMBERED..2 * REMEMBERED).contains(&lines), "{lines}");
        assert!(CarriedOut::open(folder.path()).unwrap().has(&id(5_000 + REMEMBERED + 9)));
    }

    fn id(number: usize) -> CommandId {
        format!("c{number}").parse().unwrap()
    }
}
