//! Viewers that get nothing.

use std::time::Duration;

use anyhow::Result;
use meter::{clock::pause, processes::Reading};

use super::{Bench, count};
use crate::{
    client::{ViewerPlan, Viewers},
    record::{Figure, Figures},
};

const VIEWERS: usize = 10_000;
const CHANNELS: usize = 100;
const AT_ONCE: usize = 64;
const READY_WITHIN: Duration = Duration::from_secs(60);
const SETTLE: Duration = Duration::from_secs(1);
/// How long they are watched.
const WATCH: Duration = Duration::from_secs(1);

/// What 10,000 of them cost, over 100 logs.
pub(super) fn idle(bench: &Bench<'_>) -> Result<Figures> {
    let (running, channels) = bench.start_with(CHANNELS)?;
    let empty = Reading::take(running.process.pid());
    let plans = channels.iter().cycle().take(VIEWERS).map(|channel| ViewerPlan::of(channel)).collect();
    let watching = Viewers::start(&running.peer, plans, AT_ONCE);
    watching.wait_ready(READY_WITHIN)?;
    pause(SETTLE);
    let settled = Reading::take(running.process.pid());
    pause(WATCH);
    let after = Reading::take(running.process.pid());
    watching.finish();
    let mut figures = Figures::default()
        .with(Figure::ServerMib, after.server_kib / 1024.0)
        .with(Figure::KibPerViewer, (after.server_kib - empty.server_kib) / count(VIEWERS as u64));
    figures.set_used(settled.until(&after));
    Ok(figures)
}
