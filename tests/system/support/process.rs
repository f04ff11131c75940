//! Processes of a test, by what they were started with: found in /proc, killed by pid.

use std::fs;

use rustix::process::{Pid, Signal, kill_process};

/// The pids of processes whose arguments hold all of these texts.
pub(crate) fn running(words: &[&str]) -> Vec<Pid> {
    let pids = fs::read_dir("/proc").expect("/proc is there").flatten();
    pids.filter_map(|entry| {
        let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
        let arguments = fs::read(entry.path().join("cmdline")).ok()?;
        let arguments = String::from_utf8_lossy(&arguments).replace('\0', " ");
        (words.iter().all(|word| arguments.contains(word)) && !is_zombie(pid))
            .then(|| Pid::from_raw(pid))
            .flatten()
    })
    .collect()
}

/// Ends a process at once.
pub(crate) fn kill9(pid: Pid) {
    kill_process(pid, Signal::KILL).expect("the process is there to be killed");
}

fn is_zombie(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with('Z'))
}
