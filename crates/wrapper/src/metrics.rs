//! What a wrapper counts, as `GET /metrics` of its local API shows it (§10).

use std::{
    collections::VecDeque,
    fmt::Write as _,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use protocol::frame::WrapperState;

use crate::{Moment, api::JobStatus, link::LinkState, outbox::Progress};

/// Upper bounds of what is told apart of a lag, in seconds: from a relay beside the wrapper to one that was away for long.
const BOUNDS: [f64; 10] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 10.0, 60.0, 600.0];
/// Pushes that wait for their ack and are told apart; later ones count with the last of them.
const MARKS: usize = 1_024;

/// How long it takes from when the agent's events are in the outbox until the relay has them. Any thread may read it.
#[derive(Debug, Default)]
pub(crate) struct Lag {
    counts: [AtomicU64; BOUNDS.len() + 1],
    sum_us: AtomicU64,
}

/// Takes the time of events. Pure.
#[derive(Debug)]
pub(crate) struct LagWatch {
    lag: Arc<Lag>,
    /// The last number of a push, and when it was there.
    marks: VecDeque<(u64, Moment)>,
    /// Through this number events were there before, or are marked.
    seen: u64,
}

impl LagWatch {
    /// Of an outbox that is so far: what it has from an earlier run is not counted.
    pub(crate) fn new(progress: Progress) -> Self {
        Self { lag: Arc::default(), marks: VecDeque::new(), seen: progress.next.saturating_sub(1) }
    }

    pub(crate) fn lag(&self) -> Arc<Lag> {
        Arc::clone(&self.lag)
    }

    /// The outbox is so far by now.
    pub(crate) fn progress(&mut self, now: Moment, Progress { next, acked, .. }: Progress) {
        let last = next.saturating_sub(1);
        if last > self.seen {
            self.seen = last;
            let is_full = self.marks.len() == MARKS;
            match self.marks.back_mut().filter(|_| is_full) {
                Some(mark) => mark.0 = last,
                None => self.marks.push_back((last, now)),
            }
        }
        while let Some((_, pushed)) = self.marks.pop_front_if(|(last, _)| *last <= acked) {
            self.lag.record(now.since(pushed).as_secs_f64());
        }
    }
}

impl Lag {
    fn record(&self, seconds: f64) {
        let place = BOUNDS.partition_point(|bound| *bound < seconds);
        self.counts[place].fetch_add(1, Relaxed);
        self.sum_us.fetch_add((seconds * 1e6) as u64, Relaxed);
    }
}

/// The text of Prometheus.
pub(crate) fn text(job: &JobStatus, link: &LinkState, lag: &Lag) -> String {
    let mut text = String::new();
    let state = job.wrapper.unwrap_or(WrapperState::Starting);
    let states = [
        WrapperState::Starting,
        WrapperState::Idle,
        WrapperState::Active,
        WrapperState::Draining,
        WrapperState::Stopping,
    ];
    let states = states.map(|each| (state_name(each), u64::from(each == state)));
    family(&mut text, "state", "gauge", "Where the wrapper is: 1 for the state it is in.");
    for (name, is) in states {
        line(&mut text, &format!("state{{state=\"{name}\"}} {is}"));
    }
    family(&mut text, "link", "gauge", "How the link to the relay is: 1 for the state it is in.");
    for name in ["down", "live", "draining", "superseded", "refused"] {
        line(&mut text, &format!("link{{state=\"{name}\"}} {}", u64::from(name == link.name())));
    }
    for (name, kind, help, value) in [
        ("agent_restarts_total", "counter", "How often the agent server was started again.", job.restarts),
        (
            "inflight_prompts",
            "gauge",
            "Prompts that were taken and are not through.",
            job.inflight.len() as u64,
        ),
        ("outbox_events", "gauge", "Events that wait for the relay's ack.", job.outbox.events),
        ("outbox_bytes", "gauge", "Their bytes on disk.", job.outbox.bytes),
    ] {
        family(&mut text, name, kind, help);
        line(&mut text, &format!("{name} {value}"));
    }
    let help = "From when events were in the outbox until the relay acked them.";
    family(&mut text, "ack_lag_seconds", "histogram", help);
    let mut below = 0;
    for (bound, count) in BOUNDS.iter().map(f64::to_string).chain(["+Inf".to_owned()]).zip(&lag.counts) {
        below += count.load(Relaxed);
        line(&mut text, &format!("ack_lag_seconds_bucket{{le=\"{bound}\"}} {below}"));
    }
    let sum = lag.sum_us.load(Relaxed) as f64 / 1e6;
    line(&mut text, &format!("ack_lag_seconds_sum {sum}"));
    line(&mut text, &format!("ack_lag_seconds_count {below}"));
    text
}

/// The word of a state, as presence has it (§6).
pub(crate) fn state_name(state: WrapperState) -> &'static str {
    match state {
        WrapperState::Starting => "starting",
        WrapperState::Idle => "idle",
        WrapperState::Active => "active",
        WrapperState::Draining => "draining",
        WrapperState::Stopping => "stopping",
    }
}

fn family(text: &mut String, name: &str, kind: &str, help: &str) {
    let name = format!("gastown_wrapper_{name}");
    writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}").expect("a string takes everything");
}

fn line(text: &mut String, line: &str) {
    writeln!(text, "gastown_wrapper_{line}").expect("a string takes everything");
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_lag_is_from_the_push_to_the_ack() {
        let mut watch = LagWatch::new(at(6, 2));
        let start = Moment::START;
        watch.progress(start, at(8, 2));
        watch.progress(start + Duration::from_millis(20), at(9, 7));
        watch.progress(start + Duration::from_millis(50), at(9, 8));
        let text = text(&JobStatus::default(), &LinkState::Live, &watch.lag());
        assert!(text.contains("gastown_wrapper_ack_lag_seconds_count 2\n"), "{text}");
        assert!(text.contains("gastown_wrapper_ack_lag_seconds_sum 0.05\n"), "{text}");
        assert!(text.contains("_bucket{le=\"0.01\"} 0\n") && text.contains("_bucket{le=\"0.025\"} 1\n"));
    }

    #[test]
    fn a_relay_that_is_away_for_long_costs_no_memory() {
        let mut watch = LagWatch::new(at(1, 0));
        for next in 2..10_000 {
            watch.progress(Moment::START, at(next, 0));
        }
        assert_eq!(watch.marks.len(), MARKS);
        watch.progress(Moment::START + Duration::from_secs(3), at(9_999, 9_998));
        assert!(watch.marks.is_empty());
    }

    #[test]
    fn the_state_that_it_is_in_is_one_and_every_other_is_none() {
        let job = JobStatus { wrapper: Some(WrapperState::Active), restarts: 2, ..JobStatus::default() };
        let link = LinkState::Down { since: Moment::START };
        let text = text(&job, &link, &Lag::default());
        let ones: Vec<&str> = text.lines().filter(|line| line.ends_with("} 1")).collect();
        let expected =
            ["gastown_wrapper_state{state=\"active\"} 1", "gastown_wrapper_link{state=\"down\"} 1"];
        assert_eq!(ones, expected);
        assert!(text.contains(
            "# TYPE gastown_wrapper_agent_restarts_total counter\ngastown_wrapper_agent_restarts_total 2\n"
        ));
    }

    fn at(next: u64, acked: u64) -> Progress {
        Progress { next, acked, ..Progress::default() }
    }
}
