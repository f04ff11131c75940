//! A disk that is full: a small tmpfs, which takes the right to mount one.

use std::{fs, io::Write as _, path::Path, process::Command};

use protocol::NewEvent;
use relay::{ApiError, RelayApi as _};
use tempfile::TempDir;

use super::{fleet::Fleet, process::RelayProcess};
use crate::support::viewer::stored;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p1_p2_p14_a_full_disk_refuses_serves_reads_and_recovers_alone() {
    let _alone = super::alone().await;
    let disk = SmallDisk::mount(24);
    let relay = RelayProcess::start(disk.path()).await;
    let mut fleet = Fleet::new(rand::random());
    fleet.produce(&relay, &relay.address, 3, 20);
    fleet.watch(&relay.client(), 6);
    fleet.acks(200).await;
    let ballast = disk.fill();
    // What has room in the files that are there already is taken; then nothing is.
    let log = fleet.logs()[0].clone();
    let client = relay.client();
    let refused = loop {
        let text = "x".repeat(16 * 1024);
        let event = NewEvent::of(relay::server::now(), "file.edited", &text).expect("a text serialises");
        if let Err(error) = client.append(&log, vec![event]).await {
            break error;
        }
    };
    assert!(matches!(refused, ApiError::Refused(_)), "the relay says so itself: {refused:?}");
    fleet.spooled(30).await;
    let acked = fleet.acked();
    let kept = stored(&client, &log).await;
    assert!(!kept.stored.is_empty(), "reads are served");
    assert_eq!(fleet.acked(), acked, "nothing is acked that is not kept");
    fs::remove_file(ballast).expect("it is ours");
    fleet.acks(200).await;
    fleet.assert_history_holds(&relay).await;
}

/// A tmpfs of its own, unmounted with the test.
struct SmallDisk(TempDir);

impl SmallDisk {
    fn mount(mebibytes: u64) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={mebibytes}m,mode=0700"), "tmpfs"])
            .arg(folder.path())
            .output()
            .expect("mount is there");
        let said = String::from_utf8_lossy(&mounted.stderr);
        assert!(mounted.status.success(), "this test needs the right to mount a tmpfs (root): {said}");
        Self(folder)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// Takes all the room there is; the file gives it back when it is removed.
    fn fill(&self) -> std::path::PathBuf {
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
        // The relay may not be gone yet: let go of it as soon as it is.
        let _ = Command::new("umount").arg("--lazy").arg(self.path()).status();
    }
}
