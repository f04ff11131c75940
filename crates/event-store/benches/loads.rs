//! The loads of `docs/performance.md`, as one table: what a store takes and gives on this machine, beside what a bare
//! sync costs here. `cargo bench -p gastown-event-store --bench loads [-- LOAD…]`; without a name, all but `growth`.

#![expect(clippy::print_stdout, reason = "the table is what it is for")]

use std::{
    fs::{File, OpenOptions},
    os::unix::fs::FileExt,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use gastown_event_store::{
    Append, EventStore, ReadLimit, Retention, RetentionPolicy, SqliteOptions, SqliteStore,
};
use protocol::{LogId, NewEvent, RawData, Seq, Timestamp};
use tokio::runtime::Runtime;

type Load = fn(&Runtime);

/// How long a load runs, after a tenth of it to warm up.
const RUN: Duration = Duration::from_secs(3);

fn main() {
    let names: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let wanted =
        |name: &str| if names.is_empty() { name != "growth" } else { names.iter().any(|n| n == name) };
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let loads: [(&str, Load); 8] = [
        ("fsync", bare_sync),
        ("one", |runtime| append(runtime, "1 producer, one outstanding", 1, 1)),
        ("many", |runtime| append(runtime, "64 producers, one outstanding", 64, 1)),
        ("batches", |runtime| append(runtime, "64 producers, batches of 64", 64, 64)),
        ("thousand", |runtime| append(runtime, "1000 producers, one outstanding", 1000, 1)),
        ("compaction", compaction),
        ("replay", replay),
        ("growth", growth),
    ];
    for (name, load) in loads {
        if wanted(name) {
            load(&runtime);
        }
    }
}

/// What the disk allows: 512 bytes written over each other, each synced.
fn bare_sync(_: &Runtime) {
    let directory = folder();
    let file = File::create(directory.path().join("file")).expect("a file");
    let block = [7; 512];
    let (mut syncs, begin) = (0_u64, now());
    while begin.elapsed() < RUN / 3 {
        file.write_all_at(&block, 0).expect("it can be written");
        file.sync_data().expect("it can be synced");
        syncs += 1;
    }
    row("bare fdatasync of 512 bytes", syncs, begin.elapsed(), "");
}

/// Each producer has a full log of its own.
fn append(runtime: &Runtime, name: &str, producers: u64, batch: u64) {
    let directory = folder();
    let store = open(directory.path(), RetentionPolicy::default());
    runtime.block_on(async {
        for n in 0..producers {
            for _ in 0..4 {
                store.append(&log(n), Append::of(events(500))).await.expect("the store is there");
            }
        }
        run(&store, producers, batch, RUN / 10).await;
        let begin = now();
        let mut waits = run(&store, producers, batch, RUN).await;
        let elapsed = begin.elapsed();
        waits.sort_unstable();
        let at =
            |percent: usize| waits[(waits.len() * percent / 100).min(waits.len() - 1)].as_secs_f64() * 1e3;
        let wal = directory.path().join("events.db-wal").metadata().map_or(0, |wal| wal.len());
        let note = format!(
            "ack p50 {:.2} p99 {:.2} max {:.1} ms, wal {} MB",
            at(50),
            at(99),
            at(100),
            wal / 1_000_000
        );
        row(name, waits.len() as u64 * batch, elapsed, &note);
    });
}

async fn run(store: &Arc<SqliteStore>, producers: u64, batch: u64, time: Duration) -> Vec<Duration> {
    let mut tasks = tokio::task::JoinSet::new();
    let begin = now();
    for n in 0..producers {
        let store = Arc::clone(store);
        tasks.spawn(async move {
            let (log, events, mut waits) = (log(n), events(batch), Vec::new());
            while begin.elapsed() < time {
                let sent = now();
                store.append(&log, Append::of(events.clone())).await.expect("the store is there");
                waits.push(sent.elapsed());
            }
            waits
        });
    }
    tasks.join_all().await.concat()
}

/// 100 deltas, then the whole part: what agents do while they write.
fn compaction(runtime: &Runtime) {
    let directory = folder();
    let store = open(directory.path(), RetentionPolicy::default());
    let (begin, mut tasks) = (now(), tokio::task::JoinSet::new());
    runtime.block_on(async {
        for n in 0..64 {
            let store = Arc::clone(&store);
            tasks.spawn(async move {
                let (log, mut count) = (log(n), 0);
                for part in 0.. {
                    for event in a_part(part) {
                        store.append(&log, Append::of(vec![event])).await.expect("the store is there");
                        count += 1;
                    }
                    if begin.elapsed() > RUN {
                        break;
                    }
                }
                count
            });
        }
        let count: u64 = tasks.join_all().await.iter().sum();
        row("64 producers, 100 deltas then the part", count, begin.elapsed(), "");
    });
}

fn a_part(part: u64) -> Vec<NewEvent> {
    let text = "x".repeat(300);
    let delta = format!(
        r#"{{"sessionID":"s1","messageID":"m1","partID":"p{part}","field":"text","delta":"{text}"}}"#
    );
    let whole = format!(
        r#"{{"part":{{"id":"p{part}","sessionID":"s1","messageID":"m1","type":"text","text":"{text}"}}}}"#
    );
    let event = |kind: &str, data: String| NewEvent {
        time: Timestamp::from_unix_ms(0),
        kind: kind.into(),
        session: Some("s1".into()),
        data: RawData::from_json(data).expect("it is JSON"),
    };
    let mut events = vec![event("message.part.delta", delta); 100];
    events.push(event("message.part.updated", whole));
    events
}

/// 64 full logs, written event by event in turn; then each is read whole from the database.
fn replay(runtime: &Runtime) {
    let directory = folder();
    let store = open(directory.path(), RetentionPolicy::default());
    runtime.block_on(async {
        for _ in 0..2_100 {
            let appends = (0..64).map(|n| {
                let store = Arc::clone(&store);
                async move { store.append(&log(n), Append::of(events(1))).await.expect("the store is there") }
            });
            appends.collect::<tokio::task::JoinSet<_>>().join_all().await;
        }
    });
    drop(store);
    for (name, is_cold) in [("warm", false), ("cold", true)] {
        if is_cold && !drop_caches(directory.path()) {
            println!("replay cold: /proc/sys/vm/drop_caches cannot be written here");
            return;
        }
        let begin = now();
        let store = open_with(directory.path(), SqliteOptions::default().with_hot(0, 0));
        let opened = begin.elapsed();
        if !is_cold {
            runtime.block_on(read_all(&store, &log(0)));
        }
        // The journal's logs have been looked at by opening them; what is measured is the rest.
        let begin = now();
        let mut count = 0;
        let mut longest = Duration::ZERO;
        for n in 0..64 {
            let one = now();
            count += runtime.block_on(read_all(&store, &log(n)));
            longest = longest.max(one.elapsed());
        }
        let elapsed = begin.elapsed();
        let note = format!(
            "opened in {:.1} ms; one log of 2,000: mean {:.2}, longest {:.2} ms",
            opened.as_secs_f64() * 1e3,
            elapsed.as_secs_f64() * 1e3 / 64.0,
            longest.as_secs_f64() * 1e3
        );
        row(&format!("replay {name}"), count, elapsed, &note);
        if !is_cold {
            let begin = now();
            let count = (0..64).map(|n| runtime.block_on(read_all(&store, &log(n)))).sum();
            row("replay warm, again", count, begin.elapsed(), "");
        }
    }
}

async fn read_all(store: &SqliteStore, log: &LogId) -> u64 {
    let (mut after, mut count) = (Seq::ZERO, 0);
    loop {
        let page = store.read(log, after, ReadLimit::default()).await.expect("the log is there");
        count += page.records.len() as u64;
        match page.records.last() {
            Some(last) if page.more => after = last.seq,
            Some(_) | None => return count,
        }
    }
}

/// Whether the cost per event stays: by the length of one log, by the number of logs.
fn growth(runtime: &Runtime) {
    let most = std::env::var("GROWTH_EVENTS").ok().and_then(|n| n.parse().ok()).unwrap_or(10_000_000_u64);
    let directory = folder();
    let unbounded = RetentionPolicy { agent: Retention::UNBOUNDED, town: Retention::UNBOUNDED };
    let store = open(directory.path(), unbounded);
    let (mut length, mut until) = (0, 10_000);
    while until <= most {
        let begin = now();
        let from = length;
        while length < until {
            let log = log(0);
            let batch = || store.append(&log, Append::of(events(250)));
            let appended = runtime.block_on(async { tokio::join!(batch(), batch(), batch(), batch()) });
            let (first, second, third, last) = appended;
            for appended in [first, second, third, last] {
                appended.expect("the store is there");
            }
            length += 1_000;
        }
        row(&format!("one log of {until} events: append"), until - from, begin.elapsed(), "");
        let begin = now();
        let count = runtime.block_on(async {
            let mut count = 0;
            for after in (0..100).map(|n| n * (length / 100)) {
                let page = store.read(&log(0), Seq::new(after), ReadLimit::default()).await;
                count += page.expect("it is there").records.len() as u64;
            }
            count
        });
        row(&format!("one log of {until} events: read pages"), count, begin.elapsed(), "");
        until *= 10;
    }
    drop((store, directory));
    for logs in [10, 100, 1_000, 10_000] {
        let directory = folder();
        let store = open(directory.path(), RetentionPolicy::default());
        runtime.block_on(async {
            for n in 0..logs {
                let filling = if logs < 5_000 { 1_000 } else { 100 };
                store.append(&log(n), Append::of(events(filling))).await.expect("the store is there");
            }
            let mut next = 0;
            let begin = now();
            let mut count = 0;
            while begin.elapsed() < RUN {
                let appends = (0..64).map(|_| {
                    next = (next + 1) % logs;
                    let (store, log) = (Arc::clone(&store), log(next));
                    async move { store.append(&log, Append::of(events(1))).await.expect("the store is there") }
                });
                count += appends.collect::<tokio::task::JoinSet<_>>().join_all().await.len() as u64;
            }
            row(&format!("{logs} logs in turn, 64 at a time"), count, begin.elapsed(), "");
        });
    }
}

#[expect(clippy::disallowed_methods, reason = "the one clock of this measurement")]
fn now() -> Instant {
    Instant::now()
}

fn row(name: &str, count: u64, elapsed: Duration, note: &str) {
    let rate = count as f64 / elapsed.as_secs_f64();
    println!("{name:<42} {rate:>12.0} /s  {:>8.2} us each  {note}", 1e6 / rate);
}

fn drop_caches(directory: &Path) -> bool {
    for entry in directory.read_dir().expect("it is there").flatten() {
        let file = OpenOptions::new().read(true).write(true).open(entry.path());
        file.and_then(|file| file.sync_all()).expect("it can be synced");
    }
    std::fs::write("/proc/sys/vm/drop_caches", "3").is_ok()
}

fn open(directory: &Path, retention: RetentionPolicy) -> Arc<SqliteStore> {
    Arc::new(open_with(directory, SqliteOptions::default().with_retention(retention)))
}

fn open_with(directory: &Path, options: SqliteOptions) -> SqliteStore {
    SqliteStore::open(directory.join("events.db"), options).expect("it opens")
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

/// 512 bytes each.
fn events(count: u64) -> Vec<NewEvent> {
    let data = RawData::of(&"x".repeat(440)).expect("a text serialises");
    let event = NewEvent {
        time: Timestamp::from_unix_ms(1_763_600_000_000),
        kind: "file.edited".into(),
        session: None,
        data,
    };
    vec![event; usize::try_from(count).expect("it fits")]
}

fn log(n: u64) -> LogId {
    format!("agent/a{n}").parse().expect("it is a log's name")
}
