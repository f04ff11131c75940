//! What an append costs, alone and with 64 at a time, what reading a whole log costs, and how long after an append
//! begins its event can be read by somebody who waits for it.

use std::{sync::Arc, time::Duration};

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use gastown_event_store::{
    Append, EventStore, MemoryStore, ReadLimit, RetentionPolicy, SqliteOptions, SqliteStore,
};
use protocol::{LogId, NewEvent, Seq, Timestamp};
use tokio::runtime::Runtime;

criterion_group!(benches, append, append_batches, read, tail);
criterion_main!(benches);

/// One event per append: one producer waits for each; 64 producers wait for one each.
fn append(criterion: &mut Criterion) {
    let runtime = runtime();
    for (name, store, _directory) in stores() {
        for producers in [1, 64] {
            let mut group = criterion.benchmark_group(format!("append/{name}"));
            group.throughput(Throughput::Elements(producers));
            group.measurement_time(Duration::from_secs(3));
            group.bench_function(format!("{producers}_producers"), |bencher| {
                bencher.iter(|| runtime.block_on(append_from(&store, producers, 1)));
            });
        }
    }
}

/// 64 events per append, 64 producers.
fn append_batches(criterion: &mut Criterion) {
    let runtime = runtime();
    for (name, store, _directory) in stores() {
        let mut group = criterion.benchmark_group(format!("append/{name}"));
        group.throughput(Throughput::Elements(64 * 64));
        group.bench_function("64_producers_batches_of_64", |bencher| {
            bencher.iter(|| runtime.block_on(append_from(&store, 64, 64)));
        });
    }
}

/// A whole log of 2,000 events, in pages of the default size.
fn read(criterion: &mut Criterion) {
    let runtime = runtime();
    for (name, store, _directory) in stores() {
        runtime.block_on(store.append(&log(0), Append::of(events(2_000)))).expect("the store is there");
        let mut group = criterion.benchmark_group(format!("read/{name}"));
        group.throughput(Throughput::Elements(2_000));
        group.bench_function("2000_events", |bencher| {
            bencher.iter(|| runtime.block_on(read_all(&*store, &log(0))));
        });
    }
}

/// From the append of one event to its bytes in the hands of a reader that follows the log.
fn tail(criterion: &mut Criterion) {
    let runtime = runtime();
    for (name, store, _directory) in stores() {
        runtime.block_on(store.append(&log(0), Append::of(vec![]))).expect("the store is there");
        criterion.benchmark_group(format!("tail/{name}")).bench_function("append_to_read", |bencher| {
            bencher.iter_batched(
                || (store.tail(&log(0)), events(1)),
                |(mut tail, events)| {
                    runtime.block_on(async {
                        let before = tail.head().expect("the log is there").seq;
                        let log = log(0);
                        let follow = async {
                            tail.changed().await;
                            store.read(&log, before, ReadLimit::default()).await
                        };
                        let (appended, page) = tokio::join!(store.append(&log, Append::of(events)), follow);
                        assert_eq!(
                            page.expect("it is there").bounds.head,
                            appended.expect("it is there").head
                        );
                    });
                },
                BatchSize::SmallInput,
            );
        });
    }
}

async fn append_from(store: &Arc<dyn EventStore>, producers: u64, batch: u64) {
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..producers {
        let store = Arc::clone(store);
        tasks.spawn(async move { store.append(&log(n), Append::of(events(batch))).await });
    }
    while let Some(done) = tasks.join_next().await {
        done.expect("it does not panic").expect("the store is there");
    }
}

async fn read_all(store: &dyn EventStore, log: &LogId) -> usize {
    let (mut after, mut count) = (Seq::ZERO, 0);
    loop {
        let page = store.read(log, after, ReadLimit::default()).await.expect("the log is there");
        count += page.records.len();
        match page.records.last() {
            Some(last) if page.more => after = last.seq,
            Some(_) | None => return count,
        }
    }
}

type Named = (&'static str, Arc<dyn EventStore>, Option<tempfile::TempDir>);

fn stores() -> [Named; 2] {
    let directory = tempfile::tempdir().expect("a temporary folder");
    let sqlite =
        SqliteStore::open(directory.path().join("events.db"), SqliteOptions::default()).expect("it opens");
    let memory = MemoryStore::new(RetentionPolicy::default());
    [("memory", Arc::new(memory), None), ("sqlite", Arc::new(sqlite), Some(directory))]
}

/// 512 bytes each.
fn events(count: u64) -> Vec<NewEvent> {
    let data = "x".repeat(400);
    let event =
        |_| NewEvent::of(Timestamp::from_unix_ms(0), "file.edited", &data).expect("a text serialises");
    (0..count).map(event).collect()
}

fn log(n: u64) -> LogId {
    format!("agent/a{n}").parse().expect("it is a log's name")
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().build().expect("a runtime")
}
