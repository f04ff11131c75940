//! Random calls on both backends, SQLite with restarts and with next to nothing in memory: they always agree.

use std::sync::Arc;

use gastown_event_store::{
    Append, EventStore, MemoryStore, ProducerBatch, ReadLimit, Retention, RetentionPolicy, SqliteOptions,
    SqliteStore,
};
use proptest::prelude::*;
use protocol::{
    LogId, NewEvent, RawData, Seq, Timestamp,
    search::{Piece, Search},
};

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn p5_p10_sqlite_does_what_memory_does(calls in prop::collection::vec(call(), 1..60), hot in 0..4_usize, journal in 0..3_u64) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(compare(calls, hot, journal * 1_000));
    }
}

#[derive(Debug, Clone)]
enum Call {
    Append { log: usize, events: Vec<NewEvent>, producer: Option<ProducerBatch>, expect: Option<u64> },
    Remove { log: usize },
    PruneIdle { now: i64 },
    Restart,
}

async fn compare(calls: Vec<Call>, hot: usize, journal: u64) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("events.db");
    let retention = Retention { events: 9, bytes: 2_500, idle: Some(std::time::Duration::from_millis(50)) };
    let policy = RetentionPolicy { agent: retention, town: Retention::UNBOUNDED };
    let options = SqliteOptions::default()
        .with_retention(policy)
        .with_hot(hot, 100_000)
        .with_open_logs(1 + hot)
        .with_journal_bytes(journal);
    let memory = MemoryStore::new(policy);
    let mut sqlite = SqliteStore::open(&path, options).unwrap();
    for call in calls {
        match &call {
            Call::Append { log, events, producer, expect } => {
                let expect = expect.map(Seq::new);
                let batch = || Append { events: events.clone(), producer: producer.clone(), expect };
                let expected = memory.append(&logs()[*log], batch()).await;
                let found = sqlite.append(&logs()[*log], batch()).await;
                let outcome = |result: Result<gastown_event_store::Appended, _>| match result {
                    Ok(appended) => Ok((appended.head, appended.appended, appended.acked)),
                    Err(error) => Err(format!("{error:?}")),
                };
                assert_eq!(outcome(found), outcome(expected), "{call:?}");
            }
            Call::Remove { log } => {
                memory.remove(&logs()[*log]).await.unwrap();
                sqlite.remove(&logs()[*log]).await.unwrap();
            }
            Call::PruneIdle { now } => {
                let now = Timestamp::from_unix_ms(*now);
                assert_eq!(sqlite.prune_idle(now).await.unwrap(), memory.prune_idle(now).await.unwrap());
            }
            Call::Restart => {
                drop(sqlite);
                sqlite = SqliteStore::open(&path, options).unwrap();
            }
        }
        for log in logs() {
            assert_eq!(contents(&sqlite, &log).await, contents(&memory, &log).await, "after {call:?}");
        }
        assert_eq!(found(&sqlite).await, found(&memory).await, "after {call:?}");
    }
}

/// All that can be asked of a log, but its epoch.
async fn contents(store: &dyn EventStore, log: &LogId) -> Option<impl PartialEq + std::fmt::Debug + use<>> {
    let bounds = store.bounds(log).await.ok()?;
    let mut pages = Vec::new();
    for after in (0..=bounds.head.get()).step_by(3) {
        let page = store.read(log, Seq::new(after), ReadLimit { events: 4, bytes: 700 }).await.unwrap();
        assert_eq!(page.bounds, bounds);
        pages.push((page.records, page.more));
    }
    let summary = store.list().await.unwrap().into_iter().find(|summary| summary.log == *log).unwrap();
    assert_eq!(store.tail(log).head().map(|head| (head.epoch, head.seq)), Some((bounds.epoch, bounds.head)));
    let producer = store.producer(log).await.unwrap();
    Some((bounds.floor, bounds.head, summary.events, summary.bytes, producer, pages))
}

/// All texts that can be found, in their order: the law of search, since memory looks through everything.
async fn found(store: &dyn EventStore) -> Vec<(LogId, Seq, Vec<Piece>)> {
    let (mut all, mut before) = (Vec::new(), None);
    loop {
        let search = Search { limit: 2, before, ..Search::of("title".parse().unwrap()) };
        let found = store.text_search().unwrap().search(&search).await.unwrap();
        all.extend(found.hits.into_iter().map(|hit| (hit.log, hit.seq, hit.snippet)));
        before = found.next;
        if before.is_none() {
            return all;
        }
    }
}

fn call() -> impl Strategy<Value = Call> {
    let producer = (0..3_u8, 1..4_u64, 1..12_u64).prop_map(|(producer, generation, first)| ProducerBatch {
        producer: format!("p{producer}").parse().unwrap(),
        generation,
        first,
    });
    let append = (
        0..3_usize,
        prop::collection::vec(event(), 0..6),
        prop::option::weighted(0.5, producer),
        prop::option::weighted(0.1, 0..10_u64),
    );
    prop_oneof![
        12 => append.prop_map(|(log, events, producer, expect)| Call::Append { log, events, producer, expect }),
        1 => (0..3_usize).prop_map(|log| Call::Remove { log }),
        1 => (0..200_i64).prop_map(|now| Call::PruneIdle { now }),
        2 => Just(Call::Restart),
    ]
}

fn event() -> impl Strategy<Value = NewEvent> {
    let kinds = prop::sample::select(vec![
        ("message.part.delta", r#"{"messageID":"mM","partID":"pP","field":"text","delta":"d"}"#),
        ("message.part.updated", r#"{"part":{"messageID":"mM","id":"pP","type":"text","text":"title pP"}}"#),
        ("message.part.removed", r#"{"messageID":"mM","partID":"pP"}"#),
        ("message.updated", r#"{"info":{"id":"mM"}}"#),
        ("message.removed", r#"{"messageID":"mM"}"#),
        ("session.updated", r#"{"info":{"id":"sS","title":"a title"}}"#),
        ("session.deleted", r#"{"info":{"id":"sS"}}"#),
        ("wrapper.events_dropped", r#"{"from":1,"to":4}"#),
        ("file.edited", r#"{"file":"a"}"#),
    ]);
    (kinds, 0..2_u8, 0..2_u8, prop::option::of(0..2_u8), 0..100_i64).prop_map(
        |((kind, data), m, p, s, time)| {
            let session = s.map(|s| format!("s{s}"));
            let data = data
                .replace("mM", &format!("m{m}"))
                .replace("pP", &format!("p{p}"))
                .replace("sS", session.as_deref().unwrap_or("s0"));
            NewEvent {
                time: Timestamp::from_unix_ms(time),
                kind: kind.into(),
                session: session.map(Arc::from),
                data: RawData::from_json(data).unwrap(),
            }
        },
    )
}

fn logs() -> [LogId; 3] {
    ["agent/a", "agent/b", "town/t"].map(|log| log.parse().unwrap())
}
