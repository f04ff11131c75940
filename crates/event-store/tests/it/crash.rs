//! SIGKILL and a failing disk: what was acked is there afterwards, byte for byte.
//!
//! The process that dies is this test binary, started again for [`appends_until_it_is_killed`] with a database's path
//! in its environment. It prints a line per acked append.

use std::{
    env,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
};

use bytes::Bytes;
use gastown_event_store::{
    Append, AppendError, EventStore, ProducerBatch, ReadLimit, Retention, RetentionPolicy, SqliteOptions,
    SqliteStore, StoreError,
};
use protocol::{LogId, NewEvent, Seq, Timestamp};

const DATABASE: &str = "EVENT_STORE_CRASH_DATABASE";
const LOGS: u64 = 3;

#[tokio::test]
async fn p1_what_was_acked_survives_sigkill_again_and_again() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("events.db");
    let mut epochs: Option<Vec<_>> = None;
    for acks in [1, 40, 3, 150, 17, 400, 90, 7] {
        let mut process = start(Command::new(env::current_exe().unwrap()), &path);
        let acked = read_acks(&mut process, acks);
        kill(process);

        let store = SqliteStore::open(&path, options()).unwrap();
        let mut found = Vec::new();
        for n in 0..LOGS {
            let log = log(n);
            let Ok(bounds) = store.bounds(&log).await else {
                assert_eq!(acked[n as usize], 0, "{log} is gone");
                continue;
            };
            let producer = store.producer(&log).await.unwrap().unwrap();
            assert!(producer.acked >= acked[n as usize], "{log}: {} acked, {producer:?}", acked[n as usize]);
            assert_eq!(
                producer.acked,
                bounds.head.get(),
                "{log}: producer and events are of different commits"
            );
            let records = read_all(&store, &log).await;
            let expected: Vec<Bytes> =
                (1..=bounds.head.get()).map(|seq| event(n, seq).at(Seq::new(seq)).encode()).collect();
            assert_eq!(records, expected, "{log}");
            found.push(bounds.epoch);
        }
        if found.len() == LOGS as usize {
            assert_eq!(*epochs.get_or_insert_with(|| found.clone()), found);
        }
    }
    assert!(epochs.is_some(), "no round got as far as all logs");
}

#[cfg(unix)]
#[tokio::test]
async fn p1_a_failing_disk_closes_the_store_and_loses_nothing_acked() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("events.db");
    // Past the limit a write fails with EFBIG, for which SQLite has no special meaning: an I/O error.
    let mut limited = Command::new("sh");
    limited.args(["-c", r#"trap '' XFSZ; ulimit -f 8192; exec "$0" "$@""#]).arg(env::current_exe().unwrap());
    let mut process = start(limited, &path);
    let acked = read_acks(&mut process, u64::MAX);
    assert!(process.child.wait().unwrap().success(), "it said something else than that the store is closed");
    assert!(acked.iter().sum::<u64>() > 100, "{acked:?}");

    let store = SqliteStore::open(&path, options()).unwrap();
    for n in 0..LOGS {
        let head = store.bounds(&log(n)).await.unwrap().head.get();
        assert!(head >= acked[n as usize], "{head} of {} acked", acked[n as usize]);
        let expected: Vec<Bytes> = (1..=head).map(|seq| event(n, seq).at(Seq::new(seq)).encode()).collect();
        assert_eq!(read_all(&store, &log(n)).await, expected);
        assert_eq!(store.append(&log(n), batch(n, head + 1)).await.unwrap().head, Seq::new(head + 1));
    }
}

/// On its own, this appends to a store that is not killed and checks the acks; as the process that the other tests
/// start, it goes on until it is killed or the disk fails.
#[tokio::test]
async fn appends_until_it_is_killed() {
    let Some(path) = env::var_os(DATABASE).map(PathBuf::from) else {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("events.db");
        let mut out = Vec::new();
        append_to(&path, &mut out, 30).await.unwrap();
        let lines: Vec<_> = str::from_utf8(&out).unwrap().lines().map(str::to_owned).collect();
        assert_eq!(lines.len(), 30);
        assert_eq!(lines.last().map(String::as_str), Some("ack 2 10"));
        return;
    };
    match append_to(&path, &mut std::io::stdout(), u64::MAX).await {
        Err(AppendError::Store(StoreError::Closed { .. })) => {}
        other => panic!("{other:?}"),
    }
}

/// Appends one event after the other to each log in turn, from where each log is.
async fn append_to(path: &Path, out: &mut impl Write, acks: u64) -> Result<(), AppendError> {
    let store = SqliteStore::open(path, options()).unwrap();
    let mut next = Vec::new();
    for n in 0..LOGS {
        next.push(store.producer(&log(n)).await.ok().flatten().map_or(1, |producer| producer.acked + 1));
    }
    for turn in 0..acks {
        let n = turn % LOGS;
        let number = &mut next[n as usize];
        let appended = store.append(&log(n), batch(n, *number)).await?;
        assert_eq!((appended.head.get(), appended.appended), (*number, 1));
        writeln!(out, "ack {n} {number}").unwrap();
        *number += 1;
    }
    Ok(())
}

struct Process {
    child: Child,
    stdout: BufReader<ChildStdout>,
}

fn start(mut command: Command, path: &Path) -> Process {
    let mut child = command
        .args(["--exact", "crash::appends_until_it_is_killed", "--nocapture"])
        .env(DATABASE, path)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let stdout = BufReader::new(child.stdout.take().unwrap());
    Process { child, stdout }
}

/// The last number acked per log, after so many acks or at the end of the output.
fn read_acks(process: &mut Process, acks: u64) -> [u64; LOGS as usize] {
    let mut last = [0; LOGS as usize];
    let mut seen = 0;
    let mut line = String::new();
    while seen < acks {
        line.clear();
        if process.stdout.read_line(&mut line).unwrap() == 0 {
            assert!(acks == u64::MAX, "it ended after {seen} acks");
            return last;
        }
        // The first ack may follow what the test harness prints, on the same line.
        if let Some((_, ack)) = line.split_once("ack ") {
            let (log, number) = ack.trim().split_once(' ').unwrap();
            last[log.parse::<usize>().unwrap()] = number.parse().unwrap();
            seen += 1;
        }
    }
    last
}

fn kill(mut process: Process) {
    process.child.kill().unwrap();
    process.child.wait().unwrap();
}

async fn read_all(store: &SqliteStore, log: &LogId) -> Vec<Bytes> {
    let limit = ReadLimit { events: usize::MAX, bytes: usize::MAX };
    let page = store.read(log, Seq::ZERO, limit).await.unwrap();
    assert!(!page.more);
    page.records.into_iter().map(|record| record.envelope).collect()
}

fn batch(n: u64, number: u64) -> Append {
    let producer = ProducerBatch { producer: "p".parse().unwrap(), generation: 1, first: number };
    Append::of(vec![event(n, number)]).from_producer(producer)
}

fn event(n: u64, number: u64) -> NewEvent {
    let text = format!("log {n}, event {number}: {}", "x".repeat((number * 37 % 900) as usize));
    NewEvent::of(Timestamp::from_unix_ms(number.cast_signed()), "file.edited", &text).unwrap()
}

fn log(n: u64) -> LogId {
    format!("agent/crash{n}").parse().unwrap()
}

/// Everything is kept, so that everything can be compared.
fn options() -> SqliteOptions {
    SqliteOptions::default()
        .with_retention(RetentionPolicy { agent: Retention::UNBOUNDED, town: Retention::UNBOUNDED })
}
