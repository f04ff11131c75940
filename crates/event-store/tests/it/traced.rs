//! What the store asks of the operating system, seen and tampered with by `strace` (`cargo xtask setup` installs it): acks
//! come after syncs, unsynced writes may be lost, a sync may fail, and the process may die at any write.

use std::{
    collections::HashMap,
    env, fs,
    path::Path,
    process::{Command, Stdio},
};

use super::{
    crash::{self, LOGS},
    migrating,
};

/// Plays the trace back into files of which each has only what was synced, and opens those.
#[tokio::test]
async fn p1_p4_the_loss_of_every_unsynced_write_loses_nothing_acked() {
    let (directory, path) = migrating::old_database();
    // Everything that was there before is on disk.
    let before = fs::read(&path).unwrap();
    let trace = directory.path().join("trace");
    let calls = "trace=openat,pwrite64,write,fsync,fdatasync,ftruncate,unlink,rename";
    let mut command = strace(&["-y", "-xx", "-s", "2000000", "-e", calls, "-o"]);
    command.arg(&trace).arg(env::current_exe().unwrap()).env(crash::ACKS, "30");
    let mut process = crash::start(command, &path);
    let acked = crash::read_acks(&mut process, u64::MAX);
    assert!(process.child.wait().unwrap().success());
    assert!(acked.iter().sum::<u64>() > 30, "{acked:?}");

    let mut disk = Disk::default();
    disk.files.insert(path.to_str().unwrap().to_owned(), Image { synced: before.clone(), written: before });
    let mut acks = [0; LOGS as usize];
    let (mut seen, mut checked) = (0, 0);
    for line in joined(&fs::read_to_string(&trace).unwrap()) {
        if let Some((log, number)) = ack_of(&line) {
            acks[log] = number;
            seen += 1;
        }
        let is_sync = disk.apply(&line);
        // After each of the last acks, and at every sync: it may have been of another file than it should be.
        if seen > 0 && (is_sync || ack_of(&line).is_some()) && (seen % 5 == 0 || seen == 30) {
            disk.check(&path, acks).await;
            checked += 1;
        }
    }
    assert_eq!(seen, 30);
    assert!(checked > 10, "{checked}");
}

#[tokio::test]
async fn p1_a_failed_sync_closes_the_store_and_loses_nothing_acked() {
    for when in ["20+", "33"] {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("events.db");
        let inject = format!("inject=fsync,fdatasync:error=EIO:when={when}");
        let mut command = strace(&["-e", "trace=fsync,fdatasync", "-e", &inject, "-o", "/dev/null"]);
        command.arg(env::current_exe().unwrap());
        let mut process = crash::start(command, &path);
        let acked = crash::read_acks(&mut process, u64::MAX);
        assert!(
            process.child.wait().unwrap().success(),
            "it said something else than that the store is closed"
        );
        assert!(acked.iter().sum::<u64>() > 5, "{acked:?}");
        crash::check(&path, acked).await;
    }
}

/// From a database of the schema before: through its migration, the first appends and filings, and the orderly end.
#[tokio::test]
async fn p1_a_migration_killed_at_any_step_loses_nothing() {
    let (directory, path) = migrating::old_database();
    let old = fs::read(&path).unwrap();
    let mut killed = 0;
    for when in 1.. {
        for file in fs::read_dir(directory.path()).unwrap() {
            fs::remove_file(file.unwrap().path()).unwrap();
        }
        fs::write(&path, &old).unwrap();
        let calls = "pwrite64,fsync,fdatasync,ftruncate,unlink,rename";
        let inject = format!("inject={calls}:signal=KILL:when={when}");
        let mut command = strace(&["-e", &format!("trace={calls}"), "-e", &inject, "-o", "/dev/null"]);
        command.arg(env::current_exe().unwrap()).env(crash::ACKS, "3");
        let mut process = crash::start(command, &path);
        let acked = crash::read_acks(&mut process, u64::MAX);
        let has_ended = process.child.wait().unwrap().success();
        let epochs = crash::check(&path, acked.map(|acked| acked.max(150))).await;
        assert_eq!(epochs.len(), LOGS as usize, "killed at call {when}");
        if has_ended {
            break;
        }
        killed += 1;
    }
    assert!(killed > 10, "{killed}");
}

/// The files as they would be after the loss of power.
#[derive(Default)]
struct Disk {
    files: HashMap<String, Image>,
}

#[derive(Default, Clone)]
struct Image {
    synced: Vec<u8>,
    written: Vec<u8>,
}

impl Disk {
    /// Does what a call did; says whether it was a sync.
    fn apply(&mut self, line: &str) -> bool {
        let Some((call, rest)) = line.split_once('(') else { return false };
        let Some((arguments, result)) = rest.rsplit_once(") = ") else { return false };
        if result.starts_with('-') {
            return false;
        }
        let descriptor =
            |text: &str| text.split_once('<').map(|(_, path)| path.trim_end_matches('>').to_owned());
        let mut arguments = arguments.split(", ");
        let first = arguments.next().unwrap_or_default();
        match call {
            "pwrite64" => {
                let bytes = bytes_of(arguments.next().unwrap());
                let at: usize = arguments.nth(1).unwrap().parse().unwrap();
                let written = &mut self.files.entry(plain(&descriptor(first).unwrap())).or_default().written;
                written.resize(written.len().max(at + bytes.len()), 0);
                written[at..at + bytes.len()].copy_from_slice(&bytes);
            }
            "fsync" | "fdatasync" => {
                if let Some(image) = self.files.get_mut(&plain(&descriptor(first).unwrap())) {
                    image.synced = image.written.clone();
                    return true;
                }
            }
            "ftruncate" => {
                let len = arguments.next().unwrap().parse().unwrap();
                let image = self.files.entry(plain(&descriptor(first).unwrap())).or_default();
                image.written.resize(len, 0);
            }
            "unlink" => drop(self.files.remove(&text_of(first))),
            "rename" => {
                let image = self.files.remove(&text_of(first)).unwrap_or_default();
                self.files.insert(text_of(arguments.next().unwrap()), image);
            }
            _ => {}
        }
        false
    }

    /// Opens what was synced.
    async fn check(&self, path: &Path, acked: [u64; LOGS as usize]) {
        let directory = tempfile::tempdir().unwrap();
        for suffix in ["", "-wal"] {
            let name = format!("{}{suffix}", path.display());
            if let Some(image) = self.files.get(&name) {
                fs::write(directory.path().join(format!("events.db{suffix}")), &image.synced).unwrap();
            }
        }
        crash::check(&directory.path().join("events.db"), acked).await;
    }
}

/// Calls that another thread interrupted in the trace are put together again; each is where it ended.
fn joined(trace: &str) -> Vec<String> {
    let mut begun: HashMap<&str, &str> = HashMap::new();
    let mut calls = Vec::new();
    for line in trace.lines() {
        let Some((process, line)) = line.split_once(' ') else { continue };
        let line = line.trim_start();
        if let Some(begin) = line.strip_suffix(" <unfinished ...>") {
            begun.insert(process, begin);
        } else if let Some((_, end)) =
            line.strip_prefix("<... ").and_then(|line| line.split_once(" resumed>"))
        {
            calls.push(format!("{}{end}", begun.remove(process).unwrap_or_default()));
        } else {
            calls.push(line.to_owned());
        }
    }
    calls
}

/// The log and the number that a write to the standard output acks.
fn ack_of(line: &str) -> Option<(usize, u64)> {
    let text = line.strip_prefix("write(1<")?.split(", ").nth(1)?;
    let text = String::from_utf8(bytes_of(text)).ok()?;
    let (log, number) = text.split_once("ack ")?.1.trim().split_once(' ')?;
    Some((log.parse().ok()?, number.parse().ok()?))
}

/// `"\x41\x42"` as bytes.
fn bytes_of(text: &str) -> Vec<u8> {
    let text = text.trim_matches('"');
    text.split("\\x").skip(1).map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect()
}

fn text_of(text: &str) -> String {
    String::from_utf8(bytes_of(text)).unwrap()
}

/// A path that strace wrote in hexadecimal, or as it is.
fn plain(path: &str) -> String {
    if path.starts_with("\\x") { text_of(path) } else { path.to_owned() }
}

fn strace(arguments: &[&str]) -> Command {
    let version = Command::new("strace").arg("-V").stdout(Stdio::null()).status();
    assert!(
        version.is_ok_and(|status| status.success()),
        "strace is missing: `cargo xtask setup` installs it"
    );
    let mut command = Command::new("strace");
    command.args(["-f", "-qq"]).args(arguments);
    command
}
