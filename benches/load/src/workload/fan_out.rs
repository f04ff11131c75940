//! One agent, many viewers.

use std::time::Duration;

use anyhow::{Context as _, Result};
use meter::{
    clock::{pause, seconds},
    processes::Reading,
};

use super::{Bench, SETTLE, count, fast_load, set_ack, set_latency};
use crate::{
    client::{Load, ViewerPlan, Viewers, produce},
    record::{Figure, Figures},
};

/// Connects that are under way at a time.
const AT_ONCE: usize = 64;
/// Time without an event after which what is missing is lost.
const QUIET: Duration = Duration::from_secs(2);
const READY_WITHIN: Duration = Duration::from_secs(30);
/// Viewers that stall together, so that the memory of one shows above the noise.
const STALLED: usize = 10;

/// As fast as it is acked.
pub(super) fn fast(bench: &Bench<'_>, viewers: usize) -> Result<Figures> {
    fan_out(bench, viewers, 0, &fast_load(bench.time(Duration::from_millis(1500))))
}

/// 20 events a second to 1,000 viewers: each costs a write per viewer, for nothing can be coalesced.
pub(super) fn paced(bench: &Bench<'_>) -> Result<Figures> {
    let time = bench.time(Duration::from_secs(3));
    let load = Load { rate: Some(20.0), window: 1024, ..fast_load(time) };
    fan_out(bench, 1_000, 0, &load)
}

/// 100 viewers read 600 events of 8 KiB a second for 4 seconds (20 MB), alone, and then beside some that do not read.
pub(super) fn stalled(bench: &Bench<'_>) -> Result<Figures> {
    // Not shorter in a quick run: less would fit into the sockets' buffers.
    let time = Duration::from_secs(4);
    let load = Load { rate: Some(600.0), window: 1024, size: 8192, ..fast_load(time) };
    let alone = fan_out(bench, 100, 0, &load)?;
    let beside = fan_out(bench, 100, STALLED, &load)?;
    let of = |figures: &Figures, figure| figures.get(figure).context("every fan-out has it");
    let more_kib = (of(&beside, Figure::ServerMib)? - of(&alone, Figure::ServerMib)?) * 1024.0;
    let slower = of(&beside, Figure::LatencyP99Ms)? / of(&alone, Figure::LatencyP99Ms)?;
    Ok(beside
        .with(Figure::KibPerStalled, more_kib / count(STALLED as u64))
        .with(Figure::BesideStalled, slower))
}

/// `viewers` read and `stalled` do not.
pub(super) fn fan_out(bench: &Bench<'_>, viewers: usize, stalled: usize, load: &Load) -> Result<Figures> {
    let (running, channels) = bench.start_with(1)?;
    let channel = &channels[0];
    let mut plans = vec![ViewerPlan::of(channel); viewers];
    plans.resize(viewers + stalled, ViewerPlan { stalled: true, ..ViewerPlan::of(channel) });
    let watching = Viewers::start(&running.peer, plans, AT_ONCE);
    watching.wait_ready(READY_WITHIN)?;
    pause(SETTLE);
    let before = Reading::take(running.process.pid());
    let produced = produce(&running.peer, vec![(channel.clone(), load.clone())]).remove(0);
    watching.drain(produced.acked * viewers as u64, QUIET);
    let after = Reading::take(running.process.pid());
    let (deliveries, last_at) = (watching.events(), watching.last_at());
    let watched = watching.finish();
    if let Some(error) = produced.error.or(watched.error.clone()) {
        anyhow::bail!(error);
    }
    let used = before.until(&after);
    let mut figures = Figures::default()
        .with(Figure::DeliveriesPerSecond, count(deliveries) / seconds(produced.began, last_at))
        .with(Figure::EventsPerSecond, count(produced.acked) / seconds(produced.began, produced.last_ack))
        .with(Figure::CpuPerMillionS, used.server_cpu_s / count(deliveries.max(1)) * 1e6)
        .with(Figure::ServerMib, after.server_kib / 1024.0);
    set_latency(&mut figures, &watched.latency);
    set_ack(&mut figures, &produced.latency);
    figures.set_verdict(watched.verdict(|_| produced.acked), watched.gaps());
    figures.set_used(used);
    Ok(figures)
}
