//! What a relay counts, as Prometheus text. Each relay has its own numbers: there is no global registry.

use std::{
    fmt::Write as _,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

/// One relay's numbers.
#[derive(Debug, Default)]
pub(super) struct Metrics {
    pub(super) events_in: AtomicU64,
    pub(super) bytes_in: AtomicU64,
    pub(super) commits: AtomicU64,
    pub(super) events_out: AtomicU64,
    pub(super) bytes_out: AtomicU64,
    pub(super) viewers: AtomicU64,
    pub(super) links: AtomicU64,
    pub(super) behind: AtomicU64,
    pub(super) gaps: AtomicU64,
    pub(super) refused: AtomicU64,
    pub(super) commands: AtomicU64,
}

impl Metrics {
    /// Adds to a number.
    pub(super) fn add(number: &AtomicU64, by: usize) {
        number.fetch_add(by as u64, Relaxed);
    }

    /// Counts one more until the guard is dropped.
    pub(super) fn hold(number: &AtomicU64) -> Held<'_> {
        number.fetch_add(1, Relaxed);
        Held(number)
    }

    /// The text of `/metrics`.
    pub(super) fn render(&self) -> String {
        let rows = [
            ("events_in_total", "counter", "events committed", &self.events_in),
            ("bytes_in_total", "counter", "bytes of data of events committed", &self.bytes_in),
            ("commits_total", "counter", "appends that the store committed", &self.commits),
            ("events_out_total", "counter", "events given to viewers", &self.events_out),
            ("bytes_out_total", "counter", "bytes of frames given to viewers", &self.bytes_out),
            ("viewers", "gauge", "streams that are open", &self.viewers),
            ("links", "gauge", "ingest links that are open", &self.links),
            (
                "behind_reads_total",
                "counter",
                "reads of viewers that lagged behind the hot tail",
                &self.behind,
            ),
            ("gaps_total", "counter", "gaps that viewers were told of", &self.gaps),
            ("refused_total", "counter", "requests that were refused", &self.refused),
            ("commands_total", "counter", "commands given to wrappers", &self.commands),
        ];
        let mut text = String::new();
        for (name, kind, help, number) in rows {
            let name = format!("gastown_relay_{name}");
            writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {}", number.load(Relaxed))
                .expect("writing to a string does not fail");
        }
        text
    }
}

/// One of a number of things that are open.
#[derive(Debug)]
pub(super) struct Held<'a>(&'a AtomicU64);

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}
