//! A disk that can be filled: a small tmpfs, which takes the right to mount one.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
};

use tempfile::TempDir;

/// A tmpfs of its own, unmounted with the test.
pub(crate) struct SmallDisk(TempDir);

impl SmallDisk {
    pub(crate) fn mount(mebibytes: u64) -> Self {
        let folder = tempfile::Builder::new().prefix("disk-").tempdir().expect("a temporary folder");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={mebibytes}m,mode=0700"), "tmpfs"])
            .arg(folder.path())
            .output()
            .expect("mount is there");
        let said = String::from_utf8_lossy(&mounted.stderr);
        assert!(mounted.status.success(), "this test needs the right to mount a tmpfs (root): {said}");
        Self(folder)
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    /// Takes all the room there is; the file gives it back when it is removed.
    pub(crate) fn fill(&self) -> PathBuf {
        let path = self.path().join("ballast");
        let mut file = fs::File::create(&path).expect("a file");
        let piece = vec![0; 64 * 1024];
        let mut step = piece.len();
        while step > 0 {
            if file.write_all(&piece[..step]).is_err() {
                step /= 2;
            }
        }
        path
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Who uses it may not be gone yet: let go of it as soon as they are.
        let _ = Command::new("umount").arg("--lazy").arg(self.path()).status();
    }
}
