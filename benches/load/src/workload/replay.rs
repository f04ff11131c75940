//! Joiners that read what was.

use std::time::Duration;

use anyhow::{Result, bail};
use meter::{
    clock::{now_ns, pause, seconds},
    processes::Reading,
};

use super::{Bench, SIZE, count, quantile_ms};
use crate::{
    client::{Load, ViewerPlan, Viewers, latencies, produce},
    judge::Verdict,
    record::{Figure, Figures},
};

/// Events of the log.
const EVENTS: u64 = 2_000;
/// Time without an event after which what is missing is lost.
const QUIET: Duration = Duration::from_secs(5);
/// Between a round and the next.
const SETTLE: Duration = Duration::from_millis(100);

/// One joiner, several times.
pub(super) fn one(bench: &Bench<'_>) -> Result<Figures> {
    replay(bench, 1, 9)
}

/// 1,000 joiners at once, as after a restart.
pub(super) fn herd(bench: &Bench<'_>) -> Result<Figures> {
    replay(bench, 1_000, 1)
}

fn replay(bench: &Bench<'_>, joiners: usize, rounds: usize) -> Result<Figures> {
    let (running, channels) = bench.start_with(1)?;
    let channel = &channels[0];
    fill(&running, channel)?;
    let before = Reading::take(running.process.pid());
    let (mut to_last, mut verdict, mut gaps) = (latencies(), Verdict::default(), 0);
    let (mut deliveries, mut time_s) = (0, 0.0);
    for _ in 0..rounds {
        let plan = ViewerPlan { leave_after: Some(EVENTS), ..ViewerPlan::of(channel) };
        let began = now_ns();
        let watching = Viewers::start(&running.peer, vec![plan; joiners], joiners);
        watching.drain(EVENTS * joiners as u64, QUIET);
        deliveries += watching.events();
        time_s += seconds(began, watching.last_at());
        let watched = watching.finish();
        if let Some(error) = watched.error {
            bail!(error);
        }
        for seen in watched.viewers.iter().filter(|seen| seen.last_at > 0) {
            // All count from the common start: that is what a crowd that comes back sees.
            to_last.saturating_record(seen.last_at - if joiners == 1 { seen.began } else { began });
        }
        verdict += watched.verdict(|_| EVENTS);
        gaps += watched.gaps();
        pause(SETTLE);
    }
    let after = Reading::take(running.process.pid());
    let used = before.until(&after);
    let mut figures = Figures::default()
        .with(Figure::DeliveriesPerSecond, count(deliveries) / time_s)
        .with(Figure::ToLastP50Ms, quantile_ms(&to_last, 0.5))
        .with(Figure::ToLastP99Ms, quantile_ms(&to_last, 0.99))
        .with(Figure::CpuPerMillionS, used.server_cpu_s / count(deliveries.max(1)) * 1e6)
        .with(Figure::ServerMib, after.server_kib / 1024.0);
    figures.set_verdict(verdict, gaps);
    figures.set_used(used);
    Ok(figures)
}

fn fill(running: &crate::peer::Running, channel: &str) -> Result<()> {
    let time = Duration::from_secs(60);
    let load = Load { events: EVENTS, time, rate: None, window: 32, batch: 1, size: SIZE, phase: 0.0 };
    let produced = produce(&running.peer, vec![(channel.to_owned(), load)]).remove(0);
    match produced.error {
        Some(error) => bail!("filling the log: {error}"),
        None => pause(2 * SETTLE),
    }
    Ok(())
}
