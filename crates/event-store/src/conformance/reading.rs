//! Clauses 11, 13, 15 and 16: pages, bytes, unknown logs, snapshots.

use bytes::Bytes;
use protocol::{Event, Seq, Timestamp};

use super::{Fixture, agent, append, bytes_of, message, part, plain, plains, read_all};
use crate::{EventStore, ReadError, ReadLimit, RetentionPolicy, Snapshot};

/// Clause 11.
pub async fn a_page_keeps_to_its_limits_and_says_whether_there_is_more(fixture: &mut impl Fixture) {
    let store = fixture.open(RetentionPolicy::default());
    append(&store, plains(0..600)).await;
    let log = agent();
    let read = |after, events, bytes| store.read(&log, Seq::new(after), ReadLimit { events, bytes });
    // Of the oldest, which may be on disk only, and of the newest, which may be in memory only.
    for after in [0, 590] {
        let page = read(after, 4, 1 << 20).await.unwrap();
        assert_eq!(
            page.records.iter().map(|r| r.seq.get()).collect::<Vec<_>>(),
            [1, 2, 3, 4].map(|n| after + n)
        );
        assert!(page.more);
        assert_eq!(page.bounds, store.bounds(&log).await.unwrap());
        let bytes: usize = page.records.iter().map(|r| r.envelope.len()).sum();
        assert_eq!(read(after, 100, bytes).await.unwrap().records, page.records);
        assert_eq!(read(after, 100, bytes - 1).await.unwrap().records, page.records[..3]);
    }
    let last = read(590, 10, 1 << 20).await.unwrap();
    assert_eq!((last.records.len(), last.more), (10, false));
    let none = read(600, 10, 1 << 20).await.unwrap();
    assert_eq!((none.records.len(), none.more), (0, false));
}

/// Clause 11: otherwise a reader would never come past it.
pub async fn a_page_has_at_least_one_event(fixture: &mut impl Fixture) {
    let store = fixture.open(RetentionPolicy::default());
    append(&store, plains(0..600)).await;
    for (after, more) in [(0, true), (598, true), (599, false)] {
        let page = store.read(&agent(), Seq::new(after), ReadLimit { events: 0, bytes: 0 }).await.unwrap();
        assert_eq!((page.records.len(), page.more), (1, more), "after {after}");
    }
}

/// Clause 13: from memory, from disk, in small pages and in large ones.
pub async fn p9_every_read_has_the_same_bytes(fixture: &mut impl Fixture) {
    let store = fixture.open(RetentionPolicy::default());
    append(&store, vec![plain(0)]).await;
    let fresh = store.read(&agent(), Seq::ZERO, ReadLimit::default()).await.unwrap().records;
    append(&store, plains(1..600)).await;
    let all = read_all(&store, &agent(), Seq::ZERO).await;
    assert_eq!(fresh, all[..1]);
    let limit = ReadLimit { events: 1_000, bytes: 1 << 24 };
    assert_eq!(bytes_of(&store.read(&agent(), Seq::ZERO, limit).await.unwrap().records), bytes_of(&all));
    assert_eq!(store.read(&agent(), Seq::new(595), limit).await.unwrap().records, all[595..]);
    let expected: Vec<Bytes> =
        (1..).zip(plains(0..600)).map(|(seq, e)| e.at(Seq::new(seq)).encode()).collect();
    assert_eq!(bytes_of(&all), expected);
}

/// Clause 13: what is beside the envelope is what is in it.
pub async fn a_record_says_what_its_envelope_says(fixture: &mut impl Fixture) {
    let store = fixture.open(RetentionPolicy::default());
    let events = vec![
        message("m1"),
        part("m1", "p1", "Grüße \u{1f642} \\u0000 \"quoted\"".replace('"', "'").as_str()),
        plain(1),
    ];
    append(&store, events.clone()).await;
    for (record, sent) in read_all(&store, &agent(), Seq::ZERO).await.iter().zip(events) {
        let Event { seq, time, kind, session, key, data } = record.event().unwrap();
        assert_eq!((seq, &kind, &key), (record.seq, &record.kind, &record.key));
        assert_eq!((time, kind, session, data), (sent.time, sent.kind, sent.session, sent.data));
    }
}

/// Clause 15.
pub async fn unknown_logs_are_unknown_to_every_call(fixture: &mut impl Fixture) {
    let store = fixture.open(RetentionPolicy::default());
    let log = agent();
    for state in ["never made", "followed", "removed"] {
        let is_unknown =
            |error: Option<ReadError>| matches!(error, Some(ReadError::UnknownLog { log }) if log == agent());
        assert!(is_unknown(store.read(&log, Seq::ZERO, ReadLimit::default()).await.err()), "{state}");
        assert!(is_unknown(store.bounds(&log).await.err()), "{state}");
        assert!(is_unknown(store.producer(&log).await.err()), "{state}");
        assert!(is_unknown(store.snapshot(&log).await.err()), "{state}");
        let snapshot = Snapshot { seq: Seq::ZERO, data: Bytes::new() };
        assert!(is_unknown(store.put_snapshot(&log, snapshot).await.err()), "{state}");
        assert_eq!(store.tail(&log).head(), None, "{state}");
        assert_eq!(store.list().await.unwrap(), [], "{state}");
        store.remove(&log).await.unwrap();
        assert_eq!(store.prune_idle(Timestamp::from_unix_ms(i64::MAX)).await.unwrap(), 0);
        if state == "followed" {
            append(&store, plains(0..3)).await;
            store.remove(&log).await.unwrap();
        }
    }
}

/// Clause 16.
pub async fn a_snapshot_is_returned_as_it_was_put(fixture: &mut impl Fixture) {
    let store = fixture.open(RetentionPolicy::default());
    append(&store, plains(0..3)).await;
    assert_eq!(store.snapshot(&agent()).await.unwrap(), None);
    for data in [&b"\0\xff not text"[..], b"", b"newest"] {
        let snapshot = Snapshot { seq: Seq::new(2), data: Bytes::copy_from_slice(data) };
        store.put_snapshot(&agent(), snapshot.clone()).await.unwrap();
        assert_eq!(store.snapshot(&agent()).await.unwrap(), Some(snapshot));
    }
}

/// The reader finds out by the head in its page (P3 `ahead`).
pub async fn a_cursor_ahead_of_the_head_reads_nothing(fixture: &mut impl Fixture) {
    let store = fixture.open(RetentionPolicy::default());
    append(&store, plains(0..3)).await;
    for after in [4, u64::MAX] {
        let page = store.read(&agent(), Seq::new(after), ReadLimit::default()).await.unwrap();
        assert_eq!((page.records.len(), page.more, page.bounds.head), (0, false, Seq::new(3)));
    }
}
