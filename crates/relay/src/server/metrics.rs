//! What a relay counts, as Prometheus text. Each relay has its own numbers: there is no global registry, so that two relays
//! of one process, and those of the tests, do not count into each other.
//!
//! Nothing is counted per viewer: a pass over a log's viewers sums what it did, and adds it once. `docs/operations.md`
//! describes every metric, and a test compares.

mod number;
mod process;
mod text;

use std::{sync::atomic::Ordering::Relaxed, time::Duration};

use store::StoreFigures;

pub(super) use self::number::Held;
use self::{
    number::{ByLabel, Histogram, Number},
    text::Text,
};

/// Seconds: from what an in-memory store takes to what is an outage.
const SECONDS: &[f64] =
    &[0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
/// Events of an append: up to twice a batch, as links join what comes meanwhile.
const EVENTS: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0];

/// One relay's numbers.
#[derive(Debug)]
pub(super) struct Metrics {
    pub(super) events_in: Number,
    pub(super) bytes_in: Number,
    append_events: Histogram,
    append_seconds: Histogram,
    appends_failed: Number,
    pub(super) events_out: Number,
    pub(super) bytes_out: Number,
    deliver_seconds: Histogram,
    pub(super) viewers: Number,
    pub(super) catching_up: Number,
    pub(super) links: Number,
    pub(super) behind: Number,
    pub(super) gaps: Number,
    refused: ByLabel,
    closes: ByLabel,
    pub(super) commands: Number,
}

impl Metrics {
    pub(super) fn new() -> Self {
        Self {
            events_in: Number::default(),
            bytes_in: Number::default(),
            append_events: Histogram::new(EVENTS),
            append_seconds: Histogram::new(SECONDS),
            appends_failed: Number::default(),
            events_out: Number::default(),
            bytes_out: Number::default(),
            deliver_seconds: Histogram::new(SECONDS),
            viewers: Number::default(),
            catching_up: Number::default(),
            links: Number::default(),
            behind: Number::default(),
            gaps: Number::default(),
            refused: ByLabel::default(),
            closes: ByLabel::default(),
            commands: Number::default(),
        }
    }

    /// Adds to a number.
    pub(super) fn add(number: &Number, by: usize) {
        number.fetch_add(by as u64, Relaxed);
    }

    /// Counts one more until the guard is dropped.
    pub(super) fn hold(number: &Number) -> Held<'_> {
        Held::new(number)
    }

    /// The store committed this many events, with so many bytes of data, in this time.
    pub(super) fn appended(&self, events: usize, bytes: usize, took: Duration) {
        Self::add(&self.events_in, events);
        Self::add(&self.bytes_in, bytes);
        self.append_events.record(events as f64);
        self.append_seconds.record(took.as_secs_f64());
    }

    /// The store committed nothing of an append.
    pub(super) fn append_failed(&self) {
        Self::add(&self.appends_failed, 1);
    }

    /// A writer has offered its viewers of a log what was committed this long ago.
    pub(super) fn delivered(&self, after: Duration) {
        self.deliver_seconds.record(after.as_secs_f64());
    }

    /// A request was refused with this word (§8).
    pub(super) fn refused(&self, code: protocol::ErrorCode) {
        self.refused.add(code.to_string());
    }

    /// A stream or a link was closed with this code (§8).
    pub(super) fn closed(&self, code: u16) {
        self.closes.add(code.to_string());
    }

    /// The text of `/metrics`, with what the store says of itself and how many tasks of the relay run.
    #[rustfmt::skip]
    pub(super) fn render(&self, store: StoreFigures, tasks: usize) -> String {
        let seconds = |nanos: u64| Duration::from_nanos(nanos).as_secs_f64();
        let mut text = Text::default();
        text.counter("gastown_relay_events_in_total", "events committed", &self.events_in);
        text.counter("gastown_relay_bytes_in_total", "bytes of data of events committed", &self.bytes_in);
        text.histogram("gastown_relay_append_events", "events of an append that was committed", &self.append_events);
        text.histogram("gastown_relay_append_seconds", "time from an append to its commit", &self.append_seconds);
        text.counter("gastown_relay_appends_failed_total", "appends of which nothing was committed", &self.appends_failed);
        text.counter("gastown_relay_events_out_total", "events given to viewers", &self.events_out);
        text.counter("gastown_relay_bytes_out_total", "bytes given to viewers", &self.bytes_out);
        text.histogram("gastown_relay_deliver_seconds", "time from a commit to the end of the pass that offered it to a writer's viewers", &self.deliver_seconds);
        text.gauge("gastown_relay_viewers", "streams that are open", &self.viewers);
        text.gauge("gastown_relay_viewers_catching_up", "viewers for which the store is being read", &self.catching_up);
        text.gauge("gastown_relay_links", "ingest links that are open", &self.links);
        text.counter("gastown_relay_behind_reads_total", "reads of the store for viewers that lag behind the hot tail", &self.behind);
        text.counter("gastown_relay_gaps_total", "gaps that viewers were told of", &self.gaps);
        text.labelled("gastown_relay_refused_total", "requests that were refused, by error code", "code", &self.refused);
        text.labelled("gastown_relay_closes_total", "streams and links that the relay closed, by close code", "code", &self.closes);
        text.counter("gastown_relay_commands_total", "commands given to wrappers", &self.commands);
        text.value("gastown_relay_tasks", "gauge", "tasks that run: writers, links, feeds, timers", tasks as f64);

        text.value("gastown_store_logs", "gauge", "logs", store.logs as f64);
        text.value("gastown_store_events", "gauge", "events kept", store.events as f64);
        text.value("gastown_store_bytes", "gauge", "bytes on disk, the write-ahead log included", store.bytes as f64);
        text.value("gastown_store_wal_bytes", "gauge", "bytes of the write-ahead log", store.wal_bytes as f64);
        text.value("gastown_store_commits_total", "counter", "transactions that were synced", store.commits as f64);
        text.value("gastown_store_commit_seconds_total", "counter", "time they took, with the sync", seconds(store.commit_nanos));
        text.value("gastown_store_checkpoints_total", "counter", "times the write-ahead log was copied into the database", store.checkpoints as f64);
        text.value("gastown_store_checkpoint_seconds_total", "counter", "time that took", seconds(store.checkpoint_nanos));
        text.value("gastown_store_appended_total", "counter", "events appended since the store was opened", store.appended as f64);
        text.value("gastown_store_pruned_total", "counter", "events that retention took", store.pruned as f64);
        text.value("gastown_store_compacted_total", "counter", "events that compaction took", store.compacted as f64);
        text.value("gastown_store_filed_total", "counter", "events moved from the journal to where they are read", store.filed as f64);
        text.value("gastown_store_corrupt_total", "counter", "reads that found damage", store.corrupt as f64);

        process::render(&mut text);
        text.done()
    }
}
