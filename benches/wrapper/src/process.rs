//! What is measured: a process, and what the system says of it.

use std::{
    fs,
    process::{Child, Command},
};

use anyhow::{Context as _, Result};
use meter::processes::{Memory, Reading, memory, with_descendants};
use rustix::process::{Pid, Signal, kill_process};

/// A process that is asked to end when this is dropped.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
}

impl Process {
    pub(crate) fn start(mut command: Command) -> Result<Self> {
        let child = command.spawn().with_context(|| format!("{command:?} did not start"))?;
        Ok(Self { child })
    }

    pub(crate) fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// What it has used so far, without the processes that it started.
    pub(crate) fn reading(&self) -> Reading {
        Reading::of(&[self.child.id()])
    }

    pub(crate) fn memory(&self) -> Memory {
        memory(self.child.id())
    }

    /// The memory of the processes below it that run the same program, in proportion.
    pub(crate) fn helpers_pss_mib(&self) -> Result<f64> {
        let program = |process: u32| fs::read_link(format!("/proc/{process}/exe"));
        let (id, own) = (self.child.id(), program(self.child.id())?);
        let below = with_descendants(id).into_iter().skip(1);
        Ok(below
            .filter(|helper| program(*helper).is_ok_and(|it| it == own))
            .map(|it| memory(it).pss_mib)
            .sum())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_seen_to_use_memory_and_ends_when_it_is_let_go() {
        let mut command = Command::new("sleep");
        command.arg("1000");
        let process = Process::start(command).unwrap();
        assert!(process.memory().pss_mib > 0.0);
        assert_eq!(process.helpers_pss_mib().unwrap(), 0.0);
        let id = process.child.id();
        drop(process);
        assert_eq!(memory(id).pss_mib, 0.0);
    }
}
