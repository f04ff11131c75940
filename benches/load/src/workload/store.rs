//! The store in this process, without the relay in front of it.

use std::{fs, num::NonZeroU64, path::Path, sync::Arc, time::Duration};

use anyhow::{Context as _, Result};
use meter::clock::{now_ns, seconds};
use protocol::{LogId, NewEvent, Seq, Timestamp};
use rustix::fs::{Advice, fadvise, fsync};
use store::{Append, EventStore, ReadLimit, SqliteOptions, SqliteStore};
use tokio::runtime::Runtime;

use super::{Bench, SIZE, count};
use crate::{
    event,
    machine::syncs_per_second,
    record::{Figure, Figures},
};

const LOGS: u64 = 64;
const LOG_EVENTS: u64 = 2_000;
const BATCH: u64 = 64;

/// Appends of one producer and of 64, batches, and reads with a warm and a cold page cache.
pub(super) fn store(bench: &Bench<'_>) -> Result<Figures> {
    let (directory, time) = (bench.directory()?, bench.time(Duration::from_millis(1500)));
    let runtime = runtime()?;
    let mut figures =
        Figures::default().with(Figure::SyncsPerSecond, syncs_per_second(directory.path(), 0.5)?);
    let file = directory.path().join("events.db");
    runtime.block_on(async {
        let store = open(&file)?;
        let fill = (LOG_EVENTS / BATCH + 1) * BATCH * LOGS;
        append(&store, LOGS, BATCH, Until::Events(fill)).await?;
        figures.set(Figure::StoreAppend1PerSecond, append(&store, 1, 1, Until::Time(time)).await?);
        figures.set(Figure::StoreAppend64PerSecond, append(&store, LOGS, 1, Until::Time(time)).await?);
        figures.set(Figure::StoreBatch64PerSecond, append(&store, LOGS, BATCH, Until::Time(time)).await?);
        store.close().await;
        forget_pages(directory.path())?;
        for figure in [Figure::StoreReadColdPerSecond, Figure::StoreReadWarmPerSecond] {
            // A store that was just opened has nothing in memory but what it read to open.
            let store = open(&file)?;
            figures.set(figure, read_all(&store).await?);
            store.close().await;
        }
        Ok(figures)
    })
}

/// The store's callers run on one thread, as the relay's do.
pub(super) fn runtime() -> Result<Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}

fn open(file: &Path) -> Result<Arc<SqliteStore>> {
    Ok(Arc::new(SqliteStore::open(file, SqliteOptions::default())?))
}

/// When appending ends.
#[derive(Debug, Clone, Copy)]
enum Until {
    Time(Duration),
    Events(u64),
}

/// Appends from many producers, each to its own log and with one batch outstanding: events per second.
async fn append(store: &Arc<SqliteStore>, producers: u64, batch: u64, until: Until) -> Result<f64> {
    let event = event_of(SIZE)?;
    let began = now_ns();
    let mut tasks = tokio::task::JoinSet::new();
    for producer in 0..producers {
        let (store, log) = (Arc::clone(store), log(producer)?);
        let events = vec![event.clone(); usize::try_from(batch)?];
        tasks.spawn(async move {
            let mut appended = 0;
            let goes_on = |appended| match until {
                Until::Time(time) => seconds(began, now_ns()) < time.as_secs_f64(),
                Until::Events(all) => appended < all / producers,
            };
            while goes_on(appended) {
                store.append(&log, Append::of(events.clone())).await?;
                appended += batch;
            }
            anyhow::Ok(appended)
        });
    }
    let mut all = 0;
    while let Some(appended) = tasks.join_next().await {
        all += appended??;
    }
    Ok(count(all) / seconds(began, now_ns()))
}

/// Reads every log, one after the other: events per second.
async fn read_all(store: &SqliteStore) -> Result<f64> {
    let (began, mut events) = (now_ns(), 0);
    for n in 0..LOGS {
        let (log, mut after) = (log(n)?, Seq::ZERO);
        loop {
            let page = store.read(&log, after, ReadLimit::default()).await?;
            events += page.records.len() as u64;
            match page.records.last() {
                Some(last) if page.more => after = last.seq,
                Some(_) | None => break,
            }
        }
    }
    Ok(count(events) / seconds(began, now_ns()))
}

/// Takes the files of a directory out of the system's page cache.
fn forget_pages(directory: &Path) -> Result<()> {
    for entry in fs::read_dir(directory)? {
        let file = fs::File::open(entry?.path())?;
        // Only what is on the disk can be forgotten.
        fsync(&file)?;
        fadvise(&file, 0, None::<NonZeroU64>, Advice::DontNeed)?;
    }
    Ok(())
}

/// An event as a wrapper sends it, of so many bytes.
pub(super) fn event_of(size: usize) -> Result<NewEvent> {
    let mut bytes = Vec::new();
    event::encode(1, 0, size, &mut bytes);
    let mut event: NewEvent = serde_json::from_slice(&bytes).context("it is one that a wrapper sends")?;
    event.time = Timestamp::from_unix_ms(0);
    Ok(event)
}

fn log(n: u64) -> Result<LogId> {
    Ok(format!("agent/a{n}").parse()?)
}
