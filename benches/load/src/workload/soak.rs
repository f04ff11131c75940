//! Hours in minutes: a full fleet whose viewers come and go, while memory, tasks and the write-ahead log are watched.

use std::{fs, path::Path, sync::Arc, time::Duration};

use anyhow::{Context as _, Result, bail};
use meter::{
    clock::{now_ns, pause, seconds, today},
    processes::{Reading, descriptors, threads},
};
use serde::{Deserialize, Serialize};

use super::{Bench, count, fast_load};
use crate::{
    client::{Load, ViewerPlan, Viewers, produce},
    judge::Verdict,
    peer::Peer,
    wire::http::Asking,
};

const AGENTS: usize = 1_000;
const VIEWERS: usize = 2_000;
/// Viewers come and go in groups of this many.
const GROUP: usize = 100;
/// Time between one group's going and the next's.
const TURN: Duration = Duration::from_secs(1);
/// Events per second of each agent, once its log is full.
const RATE: f64 = 5.0;
/// What each agent's log holds: it is filled first, so that memory has no reason to grow.
const FULL: f64 = 2_000.0;
const AT_ONCE: usize = 64;
const READY_WITHIN: Duration = Duration::from_secs(60);
/// Growth of memory from the first third to the last that is noise, as a part of it.
const NOISE: f64 = 0.05;
/// Bytes that the write-ahead log may have.
const WAL_MIB: f64 = 256.0;

/// What was seen at one time.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Sample {
    pub(crate) at_s: f64,
    pub(crate) memory_mib: f64,
    pub(crate) wal_mib: f64,
    pub(crate) tasks: f64,
    pub(crate) threads: f64,
    pub(crate) descriptors: f64,
}

/// What came of it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Soaked {
    pub(crate) started: String,
    pub(crate) samples: Vec<Sample>,
    pub(crate) events: u64,
    pub(crate) joins: u64,
    pub(crate) verdict: Verdict,
    /// What is not as it should be.
    pub(crate) faults: Vec<String>,
}

/// Runs 1,000 agents for so long, with 2,000 viewers of whom 100 are replaced each second.
pub(crate) fn soak(bench: &Bench<'_>, time: Duration, mut tell: impl FnMut(&Sample)) -> Result<Soaked> {
    let started = today();
    let (running, channels) = bench.start_with(AGENTS)?;
    let server = running.process.pid();
    let peer = Arc::clone(&running.peer);
    let jobs = channels.iter().enumerate().map(|(n, channel)| {
        let phase = FULL + count(n as u64) / count(AGENTS as u64);
        (channel.clone(), Load { rate: Some(RATE), phase, window: 8, ..fast_load(time) })
    });
    let jobs: Vec<_> = jobs.collect();
    let producing = std::thread::spawn({
        let peer = Arc::clone(&peer);
        move || produce(&peer, jobs)
    });
    let mut crowd =
        Crowd { peer: &peer, channels: &channels, groups: Vec::new(), next: 0, verdict: Verdict::default() };
    let (began, mut samples) = (now_ns(), Vec::new());
    for _ in 0..VIEWERS / GROUP {
        crowd.join()?;
    }
    while !producing.is_finished() {
        pause(TURN);
        crowd.turn()?;
        let sample = Sample {
            at_s: seconds(began, now_ns()),
            memory_mib: Reading::take(server).server_kib / 1024.0,
            wal_mib: wal_mib(running.directory.path()),
            tasks: tasks(&peer)?,
            threads: threads(server),
            descriptors: count(descriptors(server) as u64),
        };
        tell(&sample);
        samples.push(sample);
    }
    let produced = producing.join().ok().context("producers do not panic")?;
    if let Some(error) = produced.iter().find_map(|produced| produced.error.clone()) {
        bail!(error);
    }
    let (joins, verdict) = crowd.leave();
    let faults = faults(&samples, verdict);
    Ok(Soaked {
        started,
        samples,
        events: produced.iter().map(|produced| produced.acked).sum(),
        joins,
        verdict,
        faults,
    })
}

/// The viewers that are there.
struct Crowd<'a> {
    peer: &'a Arc<dyn Peer>,
    channels: &'a [String],
    groups: Vec<Viewers>,
    /// Viewers that came so far.
    next: usize,
    verdict: Verdict,
}

impl Crowd<'_> {
    fn join(&mut self) -> Result<()> {
        // 7 and the number of agents have no common divisor: everybody gets his turn.
        let plan = |n: usize| ViewerPlan::of(&self.channels[n * 7 % self.channels.len()]);
        let group = Viewers::start(self.peer, (self.next..self.next + GROUP).map(plan).collect(), AT_ONCE);
        self.next += GROUP;
        group.wait_ready(READY_WITHIN)?;
        self.groups.push(group);
        Ok(())
    }

    /// The oldest group goes, another comes.
    fn turn(&mut self) -> Result<()> {
        let oldest = self.groups.remove(0);
        self.part(oldest);
        self.join()
    }

    fn part(&mut self, group: Viewers) {
        for seen in group.finish().viewers {
            self.verdict += seen.judge.verdict_between();
        }
    }

    fn leave(mut self) -> (u64, Verdict) {
        for group in std::mem::take(&mut self.groups) {
            self.part(group);
        }
        (self.next as u64, self.verdict)
    }
}

/// Bytes of the write-ahead logs in a directory.
fn wal_mib(directory: &Path) -> f64 {
    let files = fs::read_dir(directory).into_iter().flatten().flatten();
    let logs = files.filter(|file| file.path().extension().is_some_and(|end| end == "db-wal"));
    count(logs.filter_map(|file| file.metadata().ok()).map(|file| file.len()).sum()) / 1024.0 / 1024.0
}

/// What the relay says that it has running, in its metrics.
fn tasks(peer: &Arc<dyn Peer>) -> Result<f64> {
    let request = format!("GET /metrics HTTP/1.1\r\nHost: {}\r\n\r\n", peer.viewer_address());
    let text = Asking::connect(peer.viewer_address())?.ask(request.as_bytes())?;
    Ok(metric(&String::from_utf8_lossy(&text), "gastown_relay_tasks"))
}

fn metric(text: &str, name: &str) -> f64 {
    let line =
        text.lines().filter_map(|line| line.strip_prefix(name)).find(|rest| rest.starts_with([' ', '{']));
    line.and_then(|line| line.rsplit(' ').next()).and_then(|value| value.parse().ok()).unwrap_or(f64::NAN)
}

/// Memory, tasks, threads and descriptors must not grow from the second third to the last.
fn faults(samples: &[Sample], verdict: Verdict) -> Vec<String> {
    let mut faults = Vec::new();
    if verdict != Verdict::default() {
        faults.push(format!("{verdict:?}"));
    }
    let (middle, last) =
        (&samples[samples.len() / 3..samples.len() * 2 / 3], &samples[samples.len() * 2 / 3..]);
    let mean = |samples: &[Sample], of: fn(&Sample) -> f64| {
        samples.iter().map(of).sum::<f64>() / count(samples.len().max(1) as u64)
    };
    type Of = fn(&Sample) -> f64;
    let watched: [(&str, Of); 4] = [
        ("memory (MiB)", |sample| sample.memory_mib),
        ("tasks", |sample| sample.tasks),
        ("threads", |sample| sample.threads),
        ("descriptors", |sample| sample.descriptors),
    ];
    for (name, of) in watched {
        let (before, after) = (mean(middle, of), mean(last, of));
        // What is not a number was not seen, and is not flat.
        if after.is_nan() || after > before * (1.0 + NOISE) {
            faults.push(format!("{name} went from {before:.1} to {after:.1}"));
        }
    }
    let wal = samples.iter().map(|sample| sample.wal_mib).fold(0.0, f64::max);
    if wal > WAL_MIB {
        faults.push(format!("the write-ahead log had {wal:.0} MiB"));
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_flat_has_no_fault() {
        let samples: Vec<_> = (0..90).map(|n| sample(100.0 + f64::from(n % 3), 10.0)).collect();
        assert_eq!(faults(&samples, Verdict::default()), Vec::<String>::new());
    }

    #[test]
    fn a_leak_a_long_log_and_a_loss_are_faults() {
        let leaking: Vec<_> = (0..90).map(|n| sample(100.0 + f64::from(n), 10.0)).collect();
        assert!(faults(&leaking, Verdict::default())[0].starts_with("memory"));
        let long = [sample(100.0, 300.0); 9];
        assert!(faults(&long, Verdict::default())[0].contains("300 MiB"));
        let lost = Verdict { lost: 1, ..Verdict::default() };
        assert!(faults(&[sample(1.0, 1.0); 9], lost)[0].contains("lost: 1"));
    }

    #[test]
    fn a_metric_that_is_not_there_is_no_number_and_so_a_fault() {
        assert!(metric("gastown_relay_tasks_total 5\n", "gastown_relay_tasks").is_nan());
        assert_eq!(metric("# HELP x\ngastown_relay_tasks 7\n", "gastown_relay_tasks").to_string(), "7");
        let unknown = [Sample { tasks: f64::NAN, ..sample(1.0, 1.0) }; 9];
        assert!(faults(&unknown, Verdict::default())[0].starts_with("tasks"));
    }

    fn sample(memory_mib: f64, wal_mib: f64) -> Sample {
        Sample { at_s: 0.0, memory_mib, wal_mib, tasks: 5.0, threads: 4.0, descriptors: 9.0 }
    }
}
