//! Appends that nobody views.

use std::time::Duration;

use anyhow::{Result, bail};
use meter::{clock::seconds, processes::Reading};

use super::{Bench, count, fast_load, set_ack};
use crate::{
    client::{Load, latencies, produce},
    record::{Figure, Figures},
};

/// Each producer waits for the ack of one event before it sends the next.
pub(super) fn one_outstanding(bench: &Bench<'_>, producers: usize) -> Result<Figures> {
    append(bench, producers, &Load { window: 1, ..fast_load(bench.time(Duration::from_millis(1500))) })
}

/// One producer, batches of 64, four of them outstanding.
pub(super) fn batches(bench: &Bench<'_>) -> Result<Figures> {
    append(bench, 1, &Load { window: 256, batch: 64, ..fast_load(bench.time(Duration::from_millis(1500))) })
}

fn append(bench: &Bench<'_>, producers: usize, load: &Load) -> Result<Figures> {
    let (running, channels) = bench.start_with(producers)?;
    let before = Reading::take(running.process.pid());
    let produced =
        produce(&running.peer, channels.into_iter().map(|channel| (channel, load.clone())).collect());
    let after = Reading::take(running.process.pid());
    if let Some(error) = produced.iter().find_map(|produced| produced.error.clone()) {
        bail!(error);
    }
    let acked: u64 = produced.iter().map(|produced| produced.acked).sum();
    let began = produced.iter().map(|produced| produced.began).min().unwrap_or(0);
    let ended = produced.iter().map(|produced| produced.last_ack).max().unwrap_or(0);
    let mut ack = latencies();
    for produced in &produced {
        ack.add(&produced.latency)?;
    }
    let used = before.until(&after);
    let mut figures = Figures::default()
        .with(Figure::EventsPerSecond, count(acked) / seconds(began, ended))
        .with(Figure::CpuPerMillionS, used.server_cpu_s / count(acked.max(1)) * 1e6)
        .with(Figure::ServerMib, after.server_kib / 1024.0);
    set_ack(&mut figures, &ack);
    figures.set_used(used);
    Ok(figures)
}
