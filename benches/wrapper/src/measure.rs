//! One measurement: a reader is started, the turn is played to it, and what it used is read.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};
use meter::clock::{now_ns, seconds};
use protocol::NewEvent;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    agent_server::AgentServer,
    process::Process,
    relay::Relay,
    turn::{Event, Goes, numbers_in},
};

/// How long a delta may wait for the next one (docs/protocol.md, §3).
const WINDOW_NS: u64 = 25_000_000;

/// Who reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Reader {
    Wrapper,
    Bare,
}

/// How fast the turn is played.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Pace {
    /// So many events a second, evenly: each is a wake-up of its own.
    PerSecond(u32),
    /// As fast as they are taken.
    Full,
}

/// What was measured.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Measured {
    pub(crate) reader: Reader,
    pub(crate) pace: Pace,
    pub(crate) events: usize,
    /// From the first event's write to the last one's arrival.
    pub(crate) seconds: f64,
    pub(crate) cpu_s: f64,
    pub(crate) rss_mib: f64,
    pub(crate) pss_mib: f64,
    /// Of the wrapper's guard.
    pub(crate) helpers_pss_mib: f64,
    /// Cores that were busy with something else.
    pub(crate) other_cores: f64,
    /// From the bytes on the agent server's stream to the frame at the relay: of deltas, beyond the window.
    pub(crate) deltas: Option<Latency>,
    pub(crate) others: Option<Latency>,
}

/// How late events were.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Latency {
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
}

/// What measurements have in common.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bench<'a> {
    pub(crate) wrapper: &'a Path,
    /// Where wrappers keep their outboxes.
    pub(crate) data: &'a Path,
    pub(crate) turn: &'a [Event],
}

impl Bench<'_> {
    pub(crate) fn run(&self, reader: Reader, pace: Pace) -> Result<Measured> {
        match reader {
            Reader::Wrapper => self.wrapper(pace),
            Reader::Bare => self.bare(pace),
        }
    }

    fn wrapper(&self, pace: Pace) -> Result<Measured> {
        let folder = tempfile::tempdir_in(self.data)?;
        let work = folder.path().join("work");
        fs::create_dir(&work)?;
        let server = AgentServer::start(&work.canonicalize()?.display().to_string())?;
        let relay = Relay::start()?;
        let agent = folder.path().join("agent-server");
        write_program(&agent, &format!("echo listening on http://{}; exec sleep 1000", server.address))?;

        let mut command = Command::new(self.wrapper);
        // Where this process dies, the wrapper ends by itself.
        command.args(["--agent", "measured", "--generation", "1", "--give-up-after", "10"]);
        command.args(["--relay", &format!("http://{}", relay.address)]).arg("--agent-bin").arg(&agent);
        command.arg("--dir").arg(&work).arg("--state-dir").arg(folder.path().join("state"));
        command.env("GASTOWN_WRAPPER_TOKEN", "measured").stdin(Stdio::null());
        let log = fs::File::create(folder.path().join("log"))?;
        command.stdout(log.try_clone()?).stderr(log);
        let process = Process::start(command)?;
        let mut follower = server.follower()?;
        while !relay.next()?.events.iter().any(|event| &*event.kind == "agent.started") {}

        let before = process.reading();
        let began = now_ns();
        let (mut deltas, mut others) = (Vec::new(), Vec::new());
        for _ in 0..pace.rounds() {
            let written = follower.play(self.turn, pace.per_second())?;
            let arrived = arrivals(&relay, self.turn)?;
            deltas.extend(lateness(self.turn, &written, &arrived, Goes::Joined));
            others.extend(lateness(self.turn, &written, &arrived, Goes::AtOnce));
        }
        let seconds = seconds(began, now_ns());
        let used = before.until(&process.reading());
        let memory = process.memory();
        // As fast as events are taken they wait for each other.
        let latency = |late| pace.per_second().map(|_| Latency::of(late));
        Ok(Measured {
            reader: Reader::Wrapper,
            pace,
            events: pace.rounds() * self.turn.len(),
            seconds,
            cpu_s: used.server_cpu_s,
            rss_mib: memory.rss_mib,
            pss_mib: memory.pss_mib,
            helpers_pss_mib: process.helpers_pss_mib()?,
            other_cores: used.other_cores,
            deltas: latency(deltas),
            others: latency(others),
        })
    }

    fn bare(&self, pace: Pace) -> Result<Measured> {
        let server = AgentServer::start("/")?;
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["bare", "--address", &server.address.to_string()]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = Process::start(command)?;
        let output = process.child().stdout.take().context("its output is piped")?;
        let mut follower = server.follower()?;

        let before = process.reading();
        let began = now_ns();
        for _ in 0..pace.rounds() {
            follower.play(self.turn, pace.per_second())?;
        }
        follower.end()?;
        let mut counted = String::new();
        BufReader::new(output).read_line(&mut counted)?;
        let seconds = seconds(began, now_ns());
        // The stream's first event is the server's greeting.
        if counted.trim().parse() != Ok(pace.rounds() * self.turn.len() + 1) {
            bail!("the bare client counted {counted:?} events");
        }
        let used = before.until(&process.reading());
        let memory = process.memory();
        Ok(Measured {
            reader: Reader::Bare,
            pace,
            events: pace.rounds() * self.turn.len(),
            seconds,
            cpu_s: used.server_cpu_s,
            rss_mib: memory.rss_mib,
            pss_mib: memory.pss_mib,
            helpers_pss_mib: 0.0,
            other_cores: used.other_cores,
            deltas: None,
            others: None,
        })
    }
}

impl Pace {
    fn per_second(self) -> Option<u32> {
        match self {
            Self::PerSecond(events) => Some(events),
            Self::Full => None,
        }
    }

    /// How often the turn is played: at full speed one takes no longer than a few of the ticks that CPU time is counted in.
    fn rounds(self) -> usize {
        match self {
            Self::PerSecond(_) => 1,
            Self::Full => 10,
        }
    }
}

impl Latency {
    fn of(mut late_ns: Vec<u64>) -> Self {
        late_ns.sort_unstable();
        let at = |share: f64| {
            let place = (late_ns.len() as f64 * share) as usize;
            late_ns.get(place.min(late_ns.len().saturating_sub(1))).map_or(0.0, |ns| *ns as f64 / 1e6)
        };
        Self { p50_ms: at(0.5), p99_ms: at(0.99) }
    }
}

/// When each event was at the relay; those that nobody is shown never are. Fails if one is missing or comes twice.
fn arrivals(relay: &Relay, turn: &[Event]) -> Result<Vec<Option<u64>>> {
    let mut arrived = vec![None; turn.len()];
    let mut missing = turn.iter().filter(|event| event.goes != Goes::Nowhere).count();
    while missing > 0 {
        let frame = relay.next().with_context(|| format!("{missing} events are missing"))?;
        for number in frame.events.iter().flat_map(numbers) {
            let place = arrived.get_mut(number).with_context(|| format!("there is no event {number}"))?;
            if place.replace(frame.at_ns).is_some() {
                bail!("event {number} came twice");
            }
            missing -= 1;
        }
    }
    Ok(arrived)
}

/// The numbers of the events that went into this one; none of what a wrapper says by itself.
fn numbers(event: &NewEvent) -> Vec<usize> {
    let data: Value = event.data.parse().unwrap_or_default();
    match (data["number"].as_u64(), data["delta"].as_str()) {
        (Some(number), _) => usize::try_from(number).into_iter().collect(),
        (None, Some(text)) => numbers_in(text).collect(),
        (None, None) => Vec::new(),
    }
}

/// Nanoseconds from when an event was due until it was there. A delta is due when the window is over that began with the first one of
/// its frame, or when an event comes that is passed on at once.
fn lateness(turn: &[Event], written: &[u64], arrived: &[Option<u64>], goes: Goes) -> Vec<u64> {
    let mut late = Vec::new();
    // When the last delta arrived, and when the first one was written that arrived with it.
    let mut frame: Option<(u64, u64)> = None;
    for (number, event) in turn.iter().enumerate() {
        let Some(at) = arrived[number] else { continue };
        let due = if event.goes == Goes::Joined {
            let first = frame.filter(|(last, _)| *last == at).map_or(written[number], |(_, first)| first);
            frame = Some((at, first));
            let next = turn[number..].iter().position(|event| event.goes == Goes::AtOnce);
            next.map_or(u64::MAX, |next| written[number + next]).min(first + WINDOW_NS)
        } else {
            frame = None;
            written[number]
        };
        if event.goes == goes {
            late.push(at.saturating_sub(due));
        }
    }
    late
}

fn write_program(path: &Path, script: &str) -> Result<()> {
    let mut options = fs::OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(0o755).open(path)?;
    Ok(std::io::Write::write_all(&mut file, format!("#!/bin/sh\n{script}\n").as_bytes())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn a_delta_is_due_when_the_window_of_its_frame_is_over_or_something_else_comes() {
        let turn = [Goes::Joined, Goes::Joined, Goes::Joined, Goes::Joined, Goes::AtOnce, Goes::Nowhere];
        let turn = turn.map(|goes| Event { json: String::new(), goes });
        let written = [0, 10 * MS, 26 * MS, 30 * MS, 31 * MS, 32 * MS];
        let (first, second) = (Some(26 * MS), Some(33 * MS));
        let arrived = [first, first, second, second, second, None];
        let late = lateness(&turn, &written, &arrived, Goes::Joined);
        assert_eq!(late, [MS, MS, 2 * MS, 2 * MS]);
        assert_eq!(lateness(&turn, &written, &arrived, Goes::AtOnce), [2 * MS]);
    }

    #[test]
    fn the_p99_is_what_one_of_a_hundred_exceeds() {
        let latency = Latency::of((0..=100).rev().map(|ms| ms * MS).collect());
        assert_eq!((latency.p50_ms, latency.p99_ms), (50.0, 99.0));
        assert_eq!(Latency::of(Vec::new()).p99_ms, 0.0);
    }

    #[test]
    fn the_numbers_of_joined_deltas_are_found_and_a_wrappers_own_events_have_none() {
        let event = |data: &str| NewEvent {
            time: protocol::Timestamp::from_unix_ms(0),
            kind: "x".into(),
            session: None,
            data: protocol::RawData::from_json(data).unwrap(),
        };
        assert_eq!(numbers(&event(r#"{"number":7}"#)), [7]);
        assert_eq!(numbers(&event(r#"{"delta":"00007 00008 "}"#)), [7, 8]);
        assert!(numbers(&event(r#"{"part":{"text":"00007 "}}"#)).is_empty());
    }
}
