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
use protocol::{Epoch, LogId, NewEvent, Seq, Timestamp};

const DATABASE: &str = "EVENT_STORE_CRASH_DATABASE";
/// How many acks the process is to get before it closes its store and ends.
pub(super) const ACKS: &str = "EVENT_STORE_CRASH_ACKS";
pub(super) const LOGS: u64 = 3;

#[tokio::test]
async fn p1_what_was_acked_survives_sigkill_again_and_again() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("events.db");
    let mut epochs: Option<Vec<_>> = None;
    for acks in [1, 40, 3, 150, 17, 400, 90, 7] {
        let mut process = start(Command::new(env::current_exe().unwrap()), &path);
        let acked = read_acks(&mut process, acks);
        kill(process);

        let found = check(&path, acked).await;
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

    check(&path, acked).await;
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
    let acks = env::var(ACKS).map_or(u64::MAX, |acks| acks.parse().unwrap());
    match append_to(&path, &mut std::io::stdout(), acks).await {
        Ok(()) => {}
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

/// That a store has what was acked and nothing that was not sent, and goes on from there; gives the epochs of its logs.
pub(super) async fn check(path: &Path, acked: [u64; LOGS as usize]) -> Vec<Epoch> {
    let store = SqliteStore::open(path, options()).unwrap();
    let mut epochs = Vec::new();
    for n in 0..LOGS {
        let (log, acked) = (log(n), acked[n as usize]);
        let Ok(bounds) = store.bounds(&log).await else {
            assert_eq!(acked, 0, "{log} is gone");
            continue;
        };
        let head = bounds.head.get();
        assert!(head >= acked, "{log} ends at {head}, and {acked} was acked");
        let producer = store.producer(&log).await.unwrap().unwrap();
        assert_eq!(producer.acked, head, "{log}: producer and events are of different commits");
        let expected: Vec<Bytes> = (1..=head).map(|seq| event(n, seq).at(Seq::new(seq)).encode()).collect();
        assert!(read_all(&store, &log).await == expected, "{log} has other events than were sent");
        assert_eq!(store.append(&log, batch(n, head + 1)).await.unwrap().head, Seq::new(head + 1));
        epochs.push(bounds.epoch);
    }
    epochs
}

pub(super) struct Process {
    pub(super) child: Child,
    stdout: BufReader<ChildStdout>,
}

/// Starts the process that appends: `command` is this test binary, or runs it.
pub(super) fn start(mut command: Command, path: &Path) -> Process {
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
pub(super) fn read_acks(process: &mut Process, acks: u64) -> [u64; LOGS as usize] {
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

pub(super) fn event(n: u64, number: u64) -> NewEvent {
    let text = format!("log {n}, event {number}: {}", "x".repeat((number * 37 % 900) as usize));
    NewEvent::of(Timestamp::from_unix_ms(number.cast_signed()), "file.edited", &text).unwrap()
}

pub(super) fn log(n: u64) -> LogId {
    format!("agent/crash{n}").parse().unwrap()
}

/// Everything is kept, so that everything can be compared, and the journal is so short that most commits file something.
fn options() -> SqliteOptions {
    SqliteOptions::default()
        .with_journal_bytes(8 * 1024)
        .with_retention(RetentionPolicy { agent: Retention::UNBOUNDED, town: Retention::UNBOUNDED })
}
