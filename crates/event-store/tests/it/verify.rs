//! Looking through a store.

use std::{fs, path::Path};

use gastown_event_store::{
    Append, EventStore, Finding, OpenError, ReadLimit, Record, Report, SqliteOptions, SqliteStore, verify,
};
use protocol::{LogId, NewEvent, RawData, Seq, Timestamp, search::Search};

#[tokio::test]
async fn a_sound_store_has_nothing_to_report_open_or_closed() {
    let (_directory, path) = filled().await;
    let closed = verify(&path, |_, _| {}).unwrap();
    assert_eq!((closed.logs, closed.findings.as_slice()), (2, &[][..]));
    let store = SqliteStore::open(&path, SqliteOptions::default()).unwrap();
    store.append(&log("a"), Append::of(vec![said("p1", "replaced")])).await.unwrap();
    let mut progress = Vec::new();
    let open = verify(&path, |done, of| progress.push((done, of))).unwrap();
    assert_eq!(
        (open.events, open.findings),
        (closed.events, Vec::new()),
        "one more, and one that is obsolete"
    );
    assert_eq!(progress, [(0, 2), (1, 2), (2, 2)]);
}

#[tokio::test]
async fn p11_a_damaged_event_is_named_by_log_and_position() {
    for table in ["segments", "journal"] {
        let (_directory, path) = filled_with(if table == "segments" { 0 } else { u64::MAX }).await;
        let change = format!(
            "UPDATE {table} SET envelopes = CAST(replace(CAST(envelopes AS TEXT), 'word-7 ', 'word-8 ') AS BLOB)
             WHERE instr(CAST(envelopes AS TEXT), 'word-7 ') > 0"
        );
        let changed = rusqlite::Connection::open(&path).unwrap().execute(&change, []).unwrap();
        assert!(changed > 0, "{table}");
        let found: Vec<_> = verify(&path, |_, _| {}).unwrap().findings;
        let event = |name| Finding::Event { log: log(name), seq: Seq::new(7) };
        assert!(found.contains(&event("a")) && found.contains(&event("b")), "{found:?}");
        assert_eq!(found[0].to_string(), "event 7 of agent/a is damaged");
    }
}

#[tokio::test]
async fn p11_a_search_index_that_differs_from_the_logs_is_told() {
    for damage in [
        "DELETE FROM search_texts WHERE seq = 9",
        "UPDATE search_texts SET seq = 100000 WHERE seq = 9",
        "DELETE FROM search_words WHERE rowid = 9",
        "INSERT INTO search_words (rowid, words) VALUES (1000000, 'stray')",
        "UPDATE search_state SET is_whole = 0",
    ] {
        let (_directory, path) = filled().await;
        rusqlite::Connection::open(&path).unwrap().execute_batch(damage).unwrap();
        let found = verify(&path, |_, _| {}).unwrap().findings;
        assert!(!found.is_empty(), "{damage}");
        assert!(
            found.iter().all(|found| matches!(found, Finding::SearchIndex { .. })),
            "{damage}: {found:?}"
        );
    }
}

#[tokio::test]
async fn a_damaged_index_is_made_anew_when_the_store_is_opened() {
    let (_directory, path) = filled().await;
    rusqlite::Connection::open(&path).unwrap().execute_batch("UPDATE search_state SET is_whole = 0").unwrap();
    let store = SqliteStore::open(&path, SqliteOptions::default()).unwrap();
    let search = Search { limit: 50, ..Search::of("\"word 7\"".parse().unwrap()) };
    let found = store.text_search().unwrap().search(&search).await.unwrap();
    let logs: Vec<_> = found.hits.iter().map(|hit| (hit.log.clone(), hit.seq.get())).collect();
    assert_eq!(logs, [(log("b"), 7), (log("a"), 7)]);
    assert_eq!(verify(&path, |_, _| {}).unwrap().findings, []);
}

#[tokio::test]
async fn p11_no_flipped_bit_is_silent() {
    let seed = std::env::var("FLIP_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(7_u64);
    println!("FLIP_SEED={seed}");
    let (directory, path) = filled().await;
    let (bytes, sound) = (fs::read(&path).unwrap(), contents(&path).await.unwrap());
    let (damaged, mut state, mut told) = (directory.path().join("damaged.db"), seed, 0);
    for _ in 0..120 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let bit = usize::try_from(state >> 16).unwrap() % (bytes.len() * 8);
        let mut changed = bytes.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        fs::write(&damaged, &changed).unwrap();
        match verify(&damaged, |_, _| {}) {
            Ok(Report { findings, .. }) if findings.is_empty() => {
                // A bit that nothing depends on: whatever is read is what was written.
                assert_eq!(contents(&damaged).await.unwrap(), sound, "bit {bit}");
            }
            Ok(_) | Err(_) => told += 1,
        }
        for suffix in ["-wal", "-shm", ".lock"] {
            let _ = fs::remove_file(directory.path().join(format!("damaged.db{suffix}")));
        }
    }
    assert!(told > 10, "{told} of 120: most of a small store is room");
}

#[test]
fn what_is_no_store_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x.db");
    assert!(matches!(verify(&path, |_, _| {}), Err(OpenError::Io { .. })));
    fs::write(&path, "not a database, but long enough to look like one at the first glance").unwrap();
    assert!(matches!(verify(&path, |_, _| {}), Err(OpenError::NotAStore { .. })));
}

/// A closed store with two logs of 150 texts.
async fn filled() -> (tempfile::TempDir, std::path::PathBuf) {
    filled_with(SqliteOptions::default().journal_bytes).await
}

/// The same, with so much of it in the journal.
async fn filled_with(journal_bytes: u64) -> (tempfile::TempDir, std::path::PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("events.db");
    let options = SqliteOptions::default().with_journal_bytes(journal_bytes);
    let store = SqliteStore::open(&path, options).unwrap();
    for n in 1..=150 {
        for name in ["a", "b"] {
            let event = said(&format!("p{n}"), &format!("word-{n} of many"));
            store.append(&log(name), Append::of(vec![event])).await.unwrap();
        }
    }
    store.close().await;
    (directory, path)
}

/// Everything that can be read.
async fn contents(path: &Path) -> Result<Vec<(LogId, Vec<Record>)>, OpenError> {
    let store = SqliteStore::open(path, SqliteOptions::default())?;
    let mut all = Vec::new();
    for summary in store.list().await.unwrap() {
        let limit = ReadLimit { events: 10_000, bytes: 1 << 30 };
        let page = store.read(&summary.log, Seq::ZERO, limit).await.unwrap();
        all.push((summary.log, page.records));
    }
    store.close().await;
    Ok(all)
}

fn said(part: &str, text: &str) -> NewEvent {
    let data = format!(r#"{{"part":{{"id":"{part}","messageID":"m1","type":"text","text":"{text}"}}}}"#);
    NewEvent {
        time: Timestamp::from_unix_ms(1_000),
        kind: "message.part.updated".into(),
        session: None,
        data: RawData::from_json(data).unwrap(),
    }
}

fn log(name: &str) -> LogId {
    format!("agent/{name}").parse().unwrap()
}
