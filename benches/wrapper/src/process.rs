//! What is measured: a process, and what the system says of it.

use std::{
    fs,
    process::{Child, Command},
};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::clock::now_ns;

/// Clock ticks per second in `/proc`; Linux has shown this number on every machine for decades.
const TICKS: f64 = 100.0;

/// A process that is asked to end when this is dropped.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
}

/// What a process and the machine have used so far.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reading {
    at_ns: u64,
    cpu_s: f64,
    own_cpu_s: f64,
    busy_s: f64,
}

/// Memory of a process.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Memory {
    pub(crate) rss_mib: f64,
    /// What it shares with others counts by halves, thirds and so on.
    pub(crate) pss_mib: f64,
}

impl Process {
    pub(crate) fn start(mut command: Command) -> Result<Self> {
        let child = command.spawn().with_context(|| format!("{command:?} did not start"))?;
        Ok(Self { child })
    }

    pub(crate) fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// What it, this process, and all others have used so far.
    pub(crate) fn reading(&self) -> Result<Reading> {
        Ok(Reading {
            at_ns: now_ns(),
            cpu_s: cpu_s(self.child.id())?,
            own_cpu_s: cpu_s(std::process::id())?,
            busy_s: busy_s()?,
        })
    }

    pub(crate) fn memory(&self) -> Result<Memory> {
        memory(self.child.id())
    }

    /// The memory of the processes that it started itself and that run the same program, in proportion.
    pub(crate) fn helpers_pss_mib(&self) -> Result<f64> {
        let program = |process: u32| fs::read_link(format!("/proc/{process}/exe"));
        let (id, own) = (self.child.id(), program(self.child.id())?);
        let mut sum = 0.0;
        for task in fs::read_dir(format!("/proc/{id}/task"))? {
            let children = fs::read_to_string(task?.path().join("children"))?;
            for child in children.split_whitespace().filter_map(|child| child.parse().ok()) {
                if program(child).is_ok_and(|program| program == own) {
                    sum += memory(child)?.pss_mib;
                }
            }
        }
        Ok(sum)
    }
}

impl Drop for Process {
    /// An error means that it has ended. A wrapper that is asked to ends within seconds, and by itself where this process dies.
    fn drop(&mut self) {
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::TERM);
        }
        let _ = self.child.wait();
    }
}

impl Reading {
    /// Since `self`: seconds of the process's CPU time, and cores that were busy with neither it nor the harness.
    pub(crate) fn until(&self, end: &Self) -> (f64, f64) {
        let seconds = end.at_ns.saturating_sub(self.at_ns) as f64 / 1e9;
        let cpu_s = end.cpu_s - self.cpu_s;
        let others = end.busy_s - self.busy_s - cpu_s - (end.own_cpu_s - self.own_cpu_s);
        (cpu_s, (others / seconds.max(1e-9)).max(0.0))
    }
}

/// User and system time of a process.
fn cpu_s(process: u32) -> Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).context("the process has ended")?;
    // The name before the parenthesis may contain anything; the times are the 12th and 13th after it.
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    sum(after_name.split_whitespace().skip(11).take(2))
}

/// User, nice and system time of all cores.
fn busy_s() -> Result<f64> {
    let stat = fs::read_to_string("/proc/stat")?;
    sum(stat.split_whitespace().skip(1).take(3))
}

fn sum<'a>(ticks: impl Iterator<Item = &'a str>) -> Result<f64> {
    let mut sum = 0.0;
    for ticks in ticks {
        sum += ticks.parse::<f64>()?;
    }
    Ok(sum / TICKS)
}

fn memory(process: u32) -> Result<Memory> {
    let rollup = fs::read_to_string(format!("/proc/{process}/smaps_rollup"))?;
    Ok(Memory { rss_mib: mib_of(&rollup, "Rss:")?, pss_mib: mib_of(&rollup, "Pss:")? })
}

/// The kilobytes after a field's name, in MiB.
fn mib_of(text: &str, field: &str) -> Result<f64> {
    let Some(rest) = text.lines().find_map(|line| line.strip_prefix(field)) else {
        bail!("the system says nothing of {field}");
    };
    let kib: f64 = rest.trim().trim_end_matches(" kB").parse()?;
    Ok(kib / 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_seen_to_use_memory_and_ends_when_it_is_let_go() {
        let mut command = Command::new("sleep");
        command.arg("1000");
        let process = Process::start(command).unwrap();
        let (before, memory) = (process.reading().unwrap(), process.memory().unwrap());
        assert!(memory.rss_mib >= memory.pss_mib && memory.pss_mib > 0.0, "{memory:?}");
        let (used, _) = before.until(&process.reading().unwrap());
        assert!((0.0..1.0).contains(&used));
        assert!(process.helpers_pss_mib().unwrap().abs() < f64::EPSILON);
        let id = process.child.id();
        drop(process);
        assert!(cpu_s(id).is_err());
    }
}
