//! What one event costs as things get many: viewers of one agent, agents, events of one log.

use std::time::Duration;

use anyhow::Result;
use meter::clock::{now_ns, seconds};
use protocol::{LogId, Seq};
use store::{Append, EventStore as _, ReadLimit, SqliteOptions, SqliteStore};

use super::{
    Bench, count, fan_out, fast_load, fleet,
    store::{event_of, runtime},
};
use crate::record::{Figure, Figures};

const VIEWERS: [usize; 5] = [1, 10, 100, 1_000, 4_000];
const AGENTS: [usize; 4] = [10, 100, 1_000, 10_000];
/// Events per second of all agents together.
const FLEET_RATE: f64 = 5_000.0;
const LENGTHS: [u64; 4] = [10_000, 100_000, 1_000_000, 10_000_000];
/// Bytes of an event in the longest log: small, so that ten million of them fit on a disk.
const SMALL: usize = 270;
const BATCH: u64 = 256;
/// Pages that are read at each length.
const PAGES: u64 = 200;

type Done<'a> = &'a mut dyn FnMut(Option<u64>, Result<Figures>);

/// As fast as acked, to more and more viewers.
pub(super) fn viewers(bench: &Bench<'_>, done: Done<'_>) {
    for viewers in VIEWERS {
        let time = bench.time(Duration::from_secs(1));
        done(Some(viewers as u64), fan_out::fan_out(bench, viewers, 0, &fast_load(time)));
    }
}

/// The same number of events in all, from more and more agents.
pub(super) fn agents(bench: &Bench<'_>, done: Done<'_>) {
    for agents in AGENTS {
        let (time, each) = (bench.time(Duration::from_secs(3)), FLEET_RATE / count(agents as u64));
        done(Some(agents as u64), fleet::paced(bench, agents, 0, each, time));
    }
}

/// A journal, which is never pruned, gets longer and longer: what its next events cost, and reading anywhere in it.
pub(super) fn log(bench: &Bench<'_>, done: Done<'_>) {
    let lengths = if bench.quick { &LENGTHS[..3] } else { &LENGTHS[..] };
    if let Err(error) = grow(bench, lengths, done) {
        done(None, Err(error));
    }
}

fn grow(bench: &Bench<'_>, lengths: &[u64], done: Done<'_>) -> Result<()> {
    let (directory, event) = (bench.directory()?, event_of(SMALL)?);
    let file = directory.path().join("events.db");
    let log: LogId = "town/t1".parse()?;
    let batch = vec![event; usize::try_from(BATCH)?];
    runtime()?.block_on(async {
        let store = SqliteStore::open(&file, SqliteOptions::default())?;
        let mut head = 0;
        for &length in lengths {
            // The last tenth is measured, so that a point says what it costs there.
            let (mut measured_from, mut began) = (head, now_ns());
            while head < length {
                if head < length / 10 * 9 {
                    (measured_from, began) = (head + BATCH, 0);
                } else if began == 0 {
                    began = now_ns();
                }
                head = store.append(&log, Append::of(batch.clone())).await?.head.get();
            }
            let append_us = seconds(began, now_ns()) * 1e6 / count(head - measured_from);
            let (began, mut read, mut at) = (now_ns(), 0, 1);
            for _ in 0..PAGES {
                // Anywhere: a generator of Park and Miller.
                at = at * 48_271 % 2_147_483_647;
                let after = Seq::new(at % (head - BATCH));
                read += store.read(&log, after, ReadLimit::default()).await?.records.len() as u64;
            }
            let read_us = seconds(began, now_ns()) * 1e6 / count(read.max(1));
            let figures = Figures::default()
                .with(Figure::AppendUs, append_us)
                .with(Figure::ReadUs, read_us)
                .with(Figure::DiskMib, count(std::fs::metadata(&file)?.len()) / 1024.0 / 1024.0);
            done(Some(length), Ok(figures));
        }
        store.close().await;
        Ok(())
    })
}
