//! What the system says of processes, and of itself.

use std::{
    fs::{self, File},
    io::Write as _,
    path::Path,
};

use anyhow::{Context as _, Result};
use rustix::{
    fs::fdatasync,
    process::{Resource, Rlimit, getrlimit, setrlimit},
};

use crate::clock::{now_ns, seconds};

/// Clock ticks per second in `/proc`; Linux has shown this number on every machine for decades.
const TICKS: f64 = 100.0;

/// One reading: what a server and this process have used so far.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reading {
    at: u64,
    server_cpu_s: f64,
    client_cpu_s: f64,
    busy_s: f64,
    /// Memory of the server's processes; what they share is counted once.
    pub(crate) server_kib: f64,
}

/// What was used between two readings.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Used {
    pub(crate) server_cpu_s: f64,
    /// Cores that were busy with the server, with this client, and with anything else.
    pub(crate) server_cores: f64,
    pub(crate) client_cores: f64,
    pub(crate) other_cores: f64,
}

impl Reading {
    /// Reads now; `server` is its main process.
    pub(crate) fn take(server: u32) -> Self {
        let mut processes = Vec::new();
        descendants(server, &mut processes);
        Self {
            at: now_ns(),
            server_cpu_s: processes.iter().map(|&process| cpu_s(process)).sum(),
            client_cpu_s: cpu_s(std::process::id()),
            busy_s: busy_s(),
            server_kib: processes.iter().map(|&process| proportional_kib(process)).sum(),
        }
    }

    /// What was used since `self`.
    pub(crate) fn until(&self, end: &Self) -> Used {
        let wall = seconds(self.at, end.at).max(1e-9);
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

/// A process and all below it.
fn descendants(process: u32, all: &mut Vec<u32>) {
    all.push(process);
    let Ok(threads) = fs::read_dir(format!("/proc/{process}/task")) else { return };
    for thread in threads.flatten() {
        let children = read(&thread.path().join("children"));
        for child in children.split_whitespace().filter_map(|child| child.parse().ok()) {
            descendants(child, all);
        }
    }
}

fn cpu_s(process: u32) -> f64 {
    let stat = read(Path::new(&format!("/proc/{process}/stat")));
    // The name before the parenthesis may contain anything; user and system time are the 12th and 13th after it.
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    after_name.split_whitespace().skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>()
        / TICKS
}

/// User, nice and system time of all cores.
fn busy_s() -> f64 {
    let stat = read(Path::new("/proc/stat"));
    let first = stat.lines().next().unwrap_or_default();
    first.split_whitespace().skip(1).take(3).filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>()
        / TICKS
}

fn proportional_kib(process: u32) -> f64 {
    kib_of(&read(Path::new(&format!("/proc/{process}/smaps_rollup"))), "Pss:")
}

/// Threads of a process.
pub(crate) fn threads(process: u32) -> f64 {
    kib_of(&read(Path::new(&format!("/proc/{process}/status"))), "Threads:")
}

/// Open file descriptors of a process.
pub(crate) fn descriptors(process: u32) -> usize {
    fs::read_dir(format!("/proc/{process}/fd")).map_or(0, Iterator::count)
}

/// The number after a field's name.
fn kib_of(text: &str, field: &str) -> f64 {
    let line = text.lines().find(|line| line.starts_with(field));
    line.and_then(|line| line.split_whitespace().nth(1)).and_then(|number| number.parse().ok()).unwrap_or(0.0)
}

fn read(path: &Path) -> String {
    // A process that has just ended has used nothing more.
    fs::read_to_string(path).unwrap_or_default()
}

/// Raises this process's limit of open files as far as the system lets it; its children have it too.
pub(crate) fn raise_open_files() -> Result<u64> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let most = maximum.unwrap_or(u64::MAX);
    // Root may go beyond the hard limit, where it is not confined.
    for limit in [most.max(65_536), most] {
        if setrlimit(Resource::Nofile, Rlimit { current: Some(limit), maximum: Some(limit) }).is_ok() {
            return Ok(limit);
        }
    }
    current.context("the limit of open files is not known")
}

/// The machine, in lines for people.
pub(crate) fn describe(data: &Path) -> Vec<(String, String)> {
    let processors = read(Path::new("/proc/cpuinfo"));
    let model = processors.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let cores = processors.lines().filter(|line| line.starts_with("processor")).count();
    let memory = kib_of(&read(Path::new("/proc/meminfo")), "MemTotal:") / 1024.0 / 1024.0;
    let line = |name: &str, value: String| (name.to_owned(), value);
    vec![
        line("processor", format!("{cores} × {}", model.map_or("unknown", |(_, model)| model))),
        line("memory", format!("{memory:.0} GiB")),
        line("system", read(Path::new("/proc/sys/kernel/osrelease")).trim().to_owned()),
        line("file system", file_system(data)),
    ]
}

/// The type of the file system that a directory is on.
fn file_system(directory: &Path) -> String {
    let directory = fs::canonicalize(directory).unwrap_or_default();
    let mounts = read(Path::new("/proc/mounts"));
    let mut of_directory = mounts
        .lines()
        .filter_map(|line| {
            let mut words = line.split(' ').skip(1);
            Some((words.next()?, words.next()?))
        })
        .filter(|(mounted, _)| directory.starts_with(mounted))
        .collect::<Vec<_>>();
    of_directory.sort_by_key(|(mounted, _)| mounted.len());
    of_directory.last().map_or_else(|| "unknown".to_owned(), |(_, kind)| (*kind).to_owned())
}

/// How many appends of 512 bytes, each followed by an `fdatasync`, a file in this directory takes in a second.
pub(crate) fn syncs_per_second(directory: &Path, for_s: f64) -> Result<f64> {
    let mut file = File::create(directory.join("sync-probe"))?;
    let (began, mut count) = (now_ns(), 0.0);
    loop {
        file.write_all(&[b'x'; 512])?;
        fdatasync(&file)?;
        count += 1.0;
        let elapsed = seconds(began, now_ns());
        if elapsed > for_s {
            return Ok(count / elapsed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_seen_to_use_time_and_memory() {
        let me = std::process::id();
        let before = Reading::take(me);
        let mut after = before;
        let mut sum = 0_u64;
        while after.client_cpu_s - before.client_cpu_s < 0.03 {
            sum = (0..1_000_000).fold(sum, |sum, n| std::hint::black_box(sum ^ n));
            after = Reading::take(me);
        }
        assert!(before.server_kib > 100.0);
        let used = before.until(&after);
        assert!(used.server_cpu_s >= 0.03, "{used:?}");
        assert!(used.client_cores > 0.0 && used.client_cores < 64.0, "{used:?}");
        assert!(threads(me) >= 1.0 && descriptors(me) >= 3);
    }

    #[test]
    fn the_limit_of_open_files_is_what_the_system_says_afterwards() {
        let limit = raise_open_files().unwrap();
        assert_eq!(getrlimit(Resource::Nofile).current, Some(limit));
    }

    #[test]
    fn the_file_system_of_proc_is_proc() {
        assert_eq!(file_system(Path::new("/proc/self")), "proc");
    }
}
