//! Many agents, each with few viewers.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Result, bail};
use meter::{
    clock::{pause, seconds},
    processes::Reading,
};

use super::{Bench, SETTLE, count, fast_load, set_ack, set_latency};
use crate::{
    client::{Load, ViewerPlan, Viewers, latencies, produce_after},
    record::{Figure, Figures},
};

const AGENTS: usize = 1_000;
const VIEWERS_EACH: usize = 2;
const RATE: f64 = 10.0;
const AT_ONCE: usize = 64;
const QUIET: Duration = Duration::from_secs(2);
const READY_WITHIN: Duration = Duration::from_secs(30);

/// 1,000 agents × 10 events a second × 2 viewers.
pub(super) fn fleet(bench: &Bench<'_>) -> Result<Figures> {
    paced(bench, AGENTS, VIEWERS_EACH, RATE, bench.time(Duration::from_secs(3)))
}

/// Agents that each produce at a rate.
pub(super) fn paced(
    bench: &Bench<'_>,
    agents: usize,
    viewers_each: usize,
    rate: f64,
    time: Duration,
) -> Result<Figures> {
    let (running, channels) = bench.start_with(agents)?;
    let plans = channels.iter().flat_map(|channel| vec![ViewerPlan::of(channel); viewers_each]);
    let watching = Viewers::start(&running.peer, plans.collect(), AT_ONCE);
    watching.wait_ready(READY_WITHIN)?;
    pause(SETTLE);
    let job = |(n, channel): (usize, &String)| {
        let phase = count(n as u64) / count(agents as u64);
        (channel.clone(), Load { rate: Some(rate), phase, ..fast_load(time) })
    };
    let jobs = channels.iter().enumerate().map(job).collect();
    let mut before = Reading::take(running.process.pid());
    let produced = produce_after(&running.peer, jobs, || before = Reading::take(running.process.pid()));
    let acked: u64 = produced.iter().map(|produced| produced.acked).sum();
    watching.drain(acked * viewers_each as u64, QUIET);
    let after = Reading::take(running.process.pid());
    let deliveries = watching.events();
    let watched = watching.finish();
    if let Some(error) = produced.iter().find_map(|produced| produced.error.clone()).or(watched.error.clone())
    {
        bail!(error);
    }
    let mut ack = latencies();
    for produced in &produced {
        ack.add(&produced.latency)?;
    }
    let began = produced.iter().map(|produced| produced.began).min().unwrap_or(0);
    let ended = produced.iter().map(|produced| produced.last_ack).max().unwrap_or(0);
    let used = before.until(&after);
    let of_channel: BTreeMap<_, _> = channels
        .iter()
        .zip(&produced)
        .map(|(channel, produced)| (channel.as_str(), produced.acked))
        .collect();
    let per = if viewers_each == 0 { acked } else { deliveries };
    let mut figures = Figures::default()
        .with(Figure::EventsPerSecond, count(acked) / seconds(began, ended))
        .with(Figure::CpuPerMillionS, used.server_cpu_s / count(per.max(1)) * 1e6)
        .with(Figure::ServerMib, after.server_kib / 1024.0);
    if viewers_each > 0 {
        set_latency(&mut figures, &watched.latency);
    }
    set_ack(&mut figures, &ack);
    figures.set_verdict(watched.verdict(|channel| of_channel[channel]), watched.gaps());
    figures.set_used(used);
    Ok(figures)
}
