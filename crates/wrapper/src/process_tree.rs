//! The processes that one command began, also those that left its process group, its session or their parent.
//!
//! Agent servers start each tool in a session of its own (setsid), so neither a process group nor a dead parent's pid finds it.
//! Two things do: who descends from whom (`/proc/<pid>/stat`), and a mark in the environment that every descendant inherits
//! (`/proc/<pid>/environ`). A process is known by its pid and its start time, and signalled through a pidfd, so that a pid the
//! kernel gave to somebody else is never hit.

use std::{collections::BTreeSet, fs, os::fd::OwnedFd, time::Duration};

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::{io::Interest, io::unix::AsyncFd, time::timeout};

/// The environment variable that marks the processes of a tree.
pub(crate) const MARK: &str = "GASTOWN_PROCESS_TREE";

/// How long the kernel may take to end a killed process, before it is looked for again.
const KILLED_WITHIN: Duration = Duration::from_secs(1);

/// How often what is left is killed: each round ends what was there, so a second one is for what was begun meanwhile.
const KILL_ROUNDS: usize = 10;

/// One process, for as long as it lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Process {
    pid: i32,
    /// In clock ticks since the machine started: with the pid it names a process for good.
    started: u64,
}

impl Process {
    /// The process that has this pid.
    pub(crate) fn find(pid: i32) -> Option<Self> {
        Entry::read(pid).filter(Entry::lives).map(|entry| entry.process)
    }

    /// Its pid.
    pub(crate) fn pid(self) -> i32 {
        self.pid
    }

    /// The first child that this process began of those that live.
    pub(crate) fn first_child(self) -> Option<Self> {
        let children = snapshot().into_iter().filter(|entry| entry.parent == self.pid && entry.lives());
        children.map(|entry| entry.process).min_by_key(|child| (child.started, child.pid))
    }

    /// A handle on it that no other process can take the place of.
    fn open(self) -> Option<OwnedFd> {
        let handle = pidfd_open(Pid::from_raw(self.pid)?, PidfdFlags::NONBLOCK).ok()?;
        // Opened first, looked at then: the pid may have been somebody else's by the time it was opened.
        (Self::find(self.pid) == Some(self)).then_some(handle)
    }

    /// Sends a signal. Returns whether it could be sent.
    pub(crate) fn signal(self, signal: Signal) -> bool {
        self.open().is_some_and(|handle| pidfd_send_signal(handle, signal).is_ok())
    }

    /// Waits until it has ended.
    pub(crate) async fn gone(self) {
        let Some(handle) = self.open() else { return };
        #[expect(
            deprecated,
            reason = "its successor is unsafe, and an owned descriptor is what makes this one sound"
        )]
        let handle = AsyncFd::with_interest(handle, Interest::READABLE);
        if let Ok(handle) = handle {
            // An error here is one of the event queue: it ends the waiting, and whoever waits looks again.
            let _ = handle.readable().await;
        }
    }
}

/// All processes that a command began.
#[derive(Debug, Clone)]
pub(crate) struct Tree {
    root: Option<Process>,
    mark: Option<String>,
}

impl Tree {
    /// What descends from `root`, itself included unless it is this process, and whatever bears the mark.
    pub(crate) fn new(root: Option<Process>, mark: Option<String>) -> Self {
        Self { root, mark }
    }

    /// Its processes that live.
    pub(crate) fn members(&self) -> BTreeSet<Process> {
        let entries = snapshot();
        let mut members: BTreeSet<Process> =
            self.mark.iter().flat_map(|mark| marked(&entries, mark)).collect();
        members.extend(self.root.filter(|root| entries.iter().any(|entry| entry.process == *root)));
        // Parents have any pid, higher ones too: again until a round finds nobody else.
        loop {
            let pids: BTreeSet<i32> = members.iter().map(|member| member.pid).collect();
            let before = members.len();
            members.extend(
                entries.iter().filter(|entry| pids.contains(&entry.parent)).map(|entry| entry.process),
            );
            if members.len() == before {
                break;
            }
        }
        let ended: BTreeSet<Process> =
            entries.iter().filter(|entry| !entry.lives()).map(|entry| entry.process).collect();
        members.retain(|member| !ended.contains(member) && member.pid.cast_unsigned() != std::process::id());
        members
    }

    /// Ends it: TERM to all, and after the grace KILL to what is left, until nothing is.
    pub(crate) async fn end(&self, grace: Duration) {
        if timeout(grace, self.terminate()).await.is_ok() {
            return;
        }
        for _ in 0..KILL_ROUNDS {
            // What may not be signalled (another user's) cannot be ended either.
            let killed: Vec<Process> =
                self.members().into_iter().filter(|member| member.signal(Signal::KILL)).collect();
            if killed.is_empty() {
                return;
            }
            let _ = timeout(KILLED_WITHIN, async {
                for member in killed {
                    member.gone().await;
                }
            })
            .await;
        }
        tracing::warn!(left = ?self.members(), "processes do not end when they are killed");
    }

    /// Sends TERM to each of its processes once, also to those that others began while they ended, until none is left.
    async fn terminate(&self) {
        let mut told = BTreeSet::new();
        loop {
            let members = self.members();
            if members.is_empty() {
                return;
            }
            for member in members.difference(&told) {
                member.signal(Signal::TERM);
            }
            // Each end may have left somebody: look again after the first one.
            members.iter().map(|member| member.gone()).collect::<FuturesUnordered<_>>().next().await;
            told.extend(members);
            // A process whose end was seen may be in `/proc` for a moment longer, and others are to run meanwhile.
            tokio::task::yield_now().await;
        }
    }
}

/// A line of the process table.
#[derive(Debug, Clone, Copy)]
struct Entry {
    process: Process,
    parent: i32,
    state: u8,
}

impl Entry {
    fn read(pid: i32) -> Option<Self> {
        let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
        Self::parse(pid, &String::from_utf8_lossy(&stat))
    }

    /// From `/proc/<pid>/stat` (proc_pid_stat(5)). The name of the command may hold spaces and parentheses, so the fields are
    /// counted from its end.
    fn parse(pid: i32, stat: &str) -> Option<Self> {
        let (_, fields) = stat.rsplit_once(')')?;
        let mut fields = fields.split_ascii_whitespace();
        let state = *fields.next()?.as_bytes().first()?;
        let parent = fields.next()?.parse().ok()?;
        let started = fields.nth(17)?.parse().ok()?;
        Some(Self { process: Process { pid, started }, parent, state })
    }

    /// Not a zombie, nor about to be removed.
    fn lives(&self) -> bool {
        !matches!(self.state, b'Z' | b'X' | b'x')
    }
}

fn snapshot() -> Vec<Entry> {
    let Ok(folder) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = folder.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter_map(Entry::read).collect()
}

fn marked(entries: &[Entry], mark: &str) -> Vec<Process> {
    let variable = format!("{MARK}={mark}");
    let bears = |entry: &&Entry| {
        fs::read(format!("/proc/{}/environ", entry.process.pid)).is_ok_and(|environment| {
            environment.split(|byte| *byte == 0).any(|pair| pair == variable.as_bytes())
        })
    };
    entries.iter().filter(bears).map(|entry| entry.process).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_may_be_named_like_the_fields_after_it() {
        let stat = "7 (a) S 1 (b) R 42 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 987654 1 2";
        let entry = Entry::parse(7, stat).expect("it is understood");
        assert_eq!((entry.process.started, entry.parent, entry.state), (987_654, 42, b'R'));
    }

    #[test]
    fn a_cut_line_is_nobody() {
        for stat in ["", "7 (a", "7 (a) S", "7 (a) S 1 7 7 0"] {
            assert!(Entry::parse(7, stat).is_none(), "{stat:?}");
        }
    }

    #[tokio::test]
    async fn p16_a_pid_that_is_somebody_elses_by_now_is_not_hit() {
        let this = Process::find(std::process::id().cast_signed()).expect("this process lives");
        let earlier = Process { started: this.started - 1, ..this };
        assert!(!earlier.signal(Signal::KILL), "this process would be gone");
        earlier.gone().await;
    }

    #[test]
    fn a_tree_never_holds_the_process_that_asks() {
        let this = Process::find(std::process::id().cast_signed());
        let members = Tree::new(this, None).members();
        assert!(members.iter().all(|member| Some(*member) != this), "{members:?}");
    }
}
