//! What the system says of processes.

use std::{fs, path::Path};

use crate::clock::{now_ns, seconds};

/// Clock ticks per second in `/proc`; Linux has shown this number on every machine for decades.
const TICKS: f64 = 100.0;

/// What a server and this process have used so far.
#[derive(Debug, Clone, Copy)]
pub struct Reading {
    at_ns: u64,
    server_cpu_s: f64,
    client_cpu_s: f64,
    busy_s: f64,
    /// Memory of the server's processes; what they share is counted once.
    pub server_kib: f64,
}

/// What was used between two readings.
#[derive(Debug, Clone, Copy)]
pub struct Used {
    /// Seconds of CPU time.
    pub server_cpu_s: f64,
    /// Cores that were busy with the server,
    pub server_cores: f64,
    /// with this process,
    pub client_cores: f64,
    /// and with anything else.
    pub other_cores: f64,
}

/// Memory of one process.
#[derive(Debug, Clone, Copy)]
pub struct Memory {
    /// What is resident, in MiB.
    pub rss_mib: f64,
    /// The same, but what it shares with others counts by halves, thirds and so on.
    pub pss_mib: f64,
}

impl Reading {
    /// Reads now; `server` is its main process, and all below it count.
    #[must_use]
    pub fn take(server: u32) -> Self {
        Self::of(&with_descendants(server))
    }

    /// Reads now what these processes have used.
    #[must_use]
    pub fn of(server: &[u32]) -> Self {
        Self {
            at_ns: now_ns(),
            server_cpu_s: server.iter().map(|&process| cpu_s(process)).sum(),
            client_cpu_s: cpu_s(std::process::id()),
            busy_s: busy_s(),
            server_kib: server.iter().map(|&process| kib_of(&rollup(process), "Pss:")).sum(),
        }
    }

    /// What was used since `self`.
    #[must_use]
    pub fn until(&self, end: &Self) -> Used {
        let wall = seconds(self.at_ns, end.at_ns).max(1e-9);
        let server = end.server_cpu_s - self.server_cpu_s;
        let client = end.client_cpu_s - self.client_cpu_s;
        let other = (end.busy_s - self.busy_s - server - client).max(0.0);
        Used {
            server_cpu_s: server,
            server_cores: server / wall,
            client_cores: client / wall,
            other_cores: other / wall,
        }
    }
}

/// Memory of a process; nothing of one that has ended.
#[must_use]
pub fn memory(process: u32) -> Memory {
    let rollup = rollup(process);
    let mib = |field| kib_of(&rollup, field) / 1024.0;
    Memory { rss_mib: mib("Rss:"), pss_mib: mib("Pss:") }
}

/// A process and all below it.
#[must_use]
pub fn with_descendants(process: u32) -> Vec<u32> {
    let mut all = vec![process];
    let mut next = 0;
    while let Some(process) = all.get(next) {
        let threads = fs::read_dir(format!("/proc/{process}/task"));
        for thread in threads.into_iter().flatten().flatten() {
            let children = read(&thread.path().join("children"));
            all.extend(children.split_whitespace().filter_map(|child| child.parse::<u32>().ok()));
        }
        next += 1;
    }
    all
}

/// Threads of a process.
#[must_use]
pub fn threads(process: u32) -> f64 {
    kib_of(&read(Path::new(&format!("/proc/{process}/status"))), "Threads:")
}

/// Open file descriptors of a process.
#[must_use]
pub fn descriptors(process: u32) -> usize {
    fs::read_dir(format!("/proc/{process}/fd")).map_or(0, Iterator::count)
}

/// The number after a field's name in what `/proc` says.
#[must_use]
pub fn kib_of(text: &str, field: &str) -> f64 {
    let line = text.lines().find(|line| line.starts_with(field));
    line.and_then(|line| line.split_whitespace().nth(1)).and_then(|number| number.parse().ok()).unwrap_or(0.0)
}

/// A file of `/proc`: empty of a process that has just ended, which has used nothing more.
#[must_use]
pub fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

fn cpu_s(process: u32) -> f64 {
    let stat = read(Path::new(&format!("/proc/{process}/stat")));
    // The name before the parenthesis may contain anything; user and system time are the 12th and 13th after it.
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    sum(after_name.split_whitespace().skip(11).take(2))
}

/// User, nice and system time of all cores.
fn busy_s() -> f64 {
    sum(read(Path::new("/proc/stat")).split_whitespace().skip(1).take(3))
}

fn sum<'a>(ticks: impl Iterator<Item = &'a str>) -> f64 {
    ticks.filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / TICKS
}

fn rollup(process: u32) -> String {
    read(Path::new(&format!("/proc/{process}/smaps_rollup")))
}

#[cfg(test)]
mod tests {
    use std::{
        hint::black_box,
        process::{Command, Stdio},
    };

    use super::*;

    #[test]
    fn this_process_is_seen_to_use_time_and_memory() {
        let me = std::process::id();
        let before = Reading::take(me);
        let mut after = before;
        let mut sum = 0_u64;
        while after.client_cpu_s - before.client_cpu_s < 0.03 {
            sum = (0..1_000_000).fold(sum, |sum, n| black_box(sum ^ n));
            after = Reading::take(me);
        }
        let memory = memory(me);
        assert!(before.server_kib > 100.0 && memory.rss_mib >= memory.pss_mib, "{memory:?}");
        let used = before.until(&after);
        assert!(used.server_cpu_s >= 0.03, "{used:?}");
        assert!(used.client_cores > 0.0 && used.client_cores < 64.0, "{used:?}");
        assert!(threads(me) >= 1.0 && descriptors(me) >= 3);
    }

    #[test]
    fn the_processes_below_one_are_found_and_have_nothing_once_they_ended() {
        let mut child = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        assert!(with_descendants(std::process::id()).contains(&child.id()));
        drop(child.stdin.take());
        child.wait().unwrap();
        assert_eq!(memory(child.id()).rss_mib, 0.0);
    }
}
