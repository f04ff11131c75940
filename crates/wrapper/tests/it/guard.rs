//! The guard with real processes: whoever dies, nothing of the command's tree is left (promise P16).

use std::{
    os::fd::OwnedFd,
    path::Path,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use rustix::{
    fs::{CWD, Mode, mkfifoat},
    process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open},
};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader, Lines, unix::AsyncFd},
    process::{Child, ChildStdout, Command},
    time::timeout,
};

/// Begins what agents begin, each with its pid on a line: a process in a session of its own, one whose parent is gone, one without
/// the environment, one that ignores TERM; and last itself.
const FAMILY: &str = r#"
setsid sleep 1000 & echo $!
(sleep 1000 & echo $!)
env -i setsid sleep 1000 & echo $!
sh -c 'trap "" TERM; echo $$; while :; do sleep 1000; done' &
echo $$
wait
"#;
const FAMILY_SIZE: usize = 5;

#[tokio::test]
async fn p16_nothing_is_left_when_the_guards_parent_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    // The shell is the wrapper's part: it holds the writing end of the pipe that is the guard's stdin.
    let script = format!(
        "mkfifo {pipe}; {guard} guard --grace-ms 200 -- sh -c '{family}' < {pipe} & exec 3> {pipe}; wait",
        pipe = folder.path().join("pipe").display(),
        guard = env!("CARGO_BIN_EXE_gastown-wrapper"),
        family = FAMILY.replace('\'', r"'\''"),
    );
    let mut parent = Command::new("sh");
    let mut parent =
        parent.args(["-c", &script]).stdout(Stdio::piped()).stdin(Stdio::null()).spawn().unwrap();
    let (family, _) = family_of(&mut parent).await;
    let parent_pid = Pid::from_raw(parent.id().unwrap().cast_signed()).unwrap();
    kill_process(parent_pid, Signal::KILL).unwrap();
    family.has_ended().await;
    parent.wait().await.unwrap();
}

#[tokio::test]
async fn p16_nothing_is_left_when_the_command_is_killed() {
    let mut guard = guard(&["--grace-ms", "200", "--", "sh", "-c", FAMILY]);
    let (family, _output) = family_of(&mut guard).await;
    kill_process(*family.pids.last().unwrap(), Signal::KILL).unwrap();
    family.has_ended().await;
    assert_eq!(ended(&mut guard).await.code(), Some(128 + 9), "the guard says how the command ended");
}

#[tokio::test]
async fn p16_nothing_is_left_when_the_guard_is_told_to_end() {
    let mut guard = guard(&["--grace-ms", "200", "--", "sh", "-c", FAMILY]);
    let (family, _output) = family_of(&mut guard).await;
    kill_process(Pid::from_raw(guard.id().unwrap().cast_signed()).unwrap(), Signal::TERM).unwrap();
    family.has_ended().await;
    assert_eq!(ended(&mut guard).await.code(), Some(128 + 15));
}

#[tokio::test]
async fn p16_nothing_is_left_when_the_command_ends_by_itself() {
    let mut guard = guard(&["--", "sh", "-c", "setsid sleep 1000 & echo $!; echo $$; exit 7"]);
    let mut output = lines(&mut guard);
    let survivor = pid(&output.next_line().await.unwrap().expect("a line"));
    let survivor = pidfd_open(survivor, PidfdFlags::NONBLOCK);
    assert_eq!(ended(&mut guard).await.code(), Some(7), "the code is the command's");
    if let Ok(survivor) = survivor {
        is_gone(survivor).await;
    }
}

#[tokio::test]
async fn the_end_of_stdin_leaves_the_command_its_grace() {
    let folder = tempfile::tempdir().unwrap();
    // A process that the shell just forked still has the shell's trap: only one that says so itself can be ended by TERM.
    let script = "trap 'echo saved > state; exit 3' TERM; sh -c 'echo ready; exec sleep 1000' & wait";
    let mut guard = guard_in(folder.path(), &["--grace-ms", "20000", "--", "sh", "-c", script]);
    let mut output = lines(&mut guard);
    assert_eq!(output.next_line().await.unwrap().as_deref(), Some("ready"));
    drop(guard.stdin.take());
    assert_eq!(ended(&mut guard).await.code(), Some(3));
    assert_eq!(std::fs::read_to_string(folder.path().join("state")).unwrap(), "saved\n");
}

#[tokio::test]
async fn p16_a_guard_does_not_wait_for_a_wrapper_that_died_before_it_opened_the_commands_stdin() {
    let folder = tempfile::tempdir().unwrap();
    mkfifoat(CWD, folder.path().join("stdin"), Mode::RUSR | Mode::WUSR).unwrap();
    let mut guard = guard_in(folder.path(), &["--stdin", "stdin", "--", "cat"]);
    assert_eq!(ended(&mut guard).await.code(), Some(0), "there is nothing to be read");
}

#[tokio::test]
async fn a_command_that_is_not_there_is_an_error_that_says_so() {
    let mut guard = Command::new(env!("CARGO_BIN_EXE_gastown-wrapper"));
    guard.args(["guard", "--", "/no/such/command"]).stdin(Stdio::null());
    let output = guard.output().await.unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("cannot be run"), "{said}");
}

/// Processes that are watched from before they end, so that no pid can become somebody else's.
struct Family {
    pids: Vec<Pid>,
    handles: Vec<OwnedFd>,
}

impl Family {
    async fn has_ended(&self) {
        for handle in &self.handles {
            is_gone(handle.try_clone().unwrap()).await;
        }
    }
}

pub(crate) async fn is_gone(handle: OwnedFd) {
    #[expect(
        deprecated,
        reason = "its successor is unsafe, and an owned descriptor is what makes this one sound"
    )]
    let handle = AsyncFd::new(handle).unwrap();
    drop(timeout(Duration::from_secs(30), handle.readable()).await.expect("the process ends").unwrap());
}

async fn family_of(process: &mut Child) -> (Family, Lines<BufReader<ChildStdout>>) {
    let mut output = lines(process);
    let mut pids = Vec::new();
    while pids.len() < FAMILY_SIZE {
        pids.push(pid(&output.next_line().await.unwrap().expect("a line for each of the family")));
    }
    let handles = pids.iter().map(|pid| pidfd_open(*pid, PidfdFlags::NONBLOCK).expect("it lives")).collect();
    // The one that ignores TERM says its pid itself, so the shell's own may come before it.
    pids.sort_by_key(|pid| std::cmp::Reverse(pid.as_raw_pid()));
    (Family { pids, handles }, output)
}

fn pid(line: &str) -> Pid {
    Pid::from_raw(line.parse().expect("a pid")).expect("a pid")
}

fn lines(process: &mut Child) -> Lines<BufReader<ChildStdout>> {
    BufReader::new(process.stdout.take().expect("stdout is a pipe")).lines()
}

async fn ended(guard: &mut Child) -> ExitStatus {
    // Not `wait`, which closes stdin, and that would end the guard.
    let stdin = guard.stdin.take();
    let status = timeout(Duration::from_secs(30), guard.wait()).await.expect("the guard ends").unwrap();
    drop(stdin);
    status
}

fn guard(args: &[&str]) -> Child {
    guard_in(Path::new("."), args)
}

fn guard_in(folder: &Path, args: &[&str]) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gastown-wrapper"));
    command.arg("guard").args(args).current_dir(folder).stdin(Stdio::piped()).stdout(Stdio::piped());
    command.spawn().expect("the guard starts")
}
