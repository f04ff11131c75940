//! The index on a connection of its own, held against looking through everything.

use std::collections::BTreeSet;

use proptest::prelude::*;
use protocol::{Key, RawData};
use serde_json::json;

use super::*;

#[test]
fn the_newest_text_is_found_first_whatever_its_log() {
    let mut index = Tested::new();
    index.add(1, 5, "alpha");
    index.add(2, 1, "alpha beta");
    index.add(1, 6, "gamma");
    index.add(1, 7, "alpha");
    assert_eq!(index.find("alpha"), [(1, 7), (2, 1), (1, 5)]);
    assert_eq!(index.find("alpha beta"), [(2, 1)]);
    assert_eq!(index.find("delta"), []);
}

#[test]
fn what_becomes_obsolete_is_forgotten_and_its_neighbours_are_not() {
    let mut index = Tested::new();
    for seq in 1..=6 {
        index.add(1, seq, "alpha");
        index.add(2, seq, "alpha");
    }
    index.change(|changes| changes.forget(1, &[Seq::new(2), Seq::new(3), Seq::new(5)]));
    index.change(|changes| changes.forget_through(2, Seq::new(4)));
    assert_eq!(index.find("alpha"), [(2, 6), (1, 6), (2, 5), (1, 4), (1, 1)]);
    index.change(|changes| changes.forget_log(1));
    assert_eq!(index.find("alpha"), [(2, 6), (2, 5)]);
}

#[test]
fn pages_follow_each_other_without_holes_or_repetitions() {
    let mut index = Tested::new();
    for seq in 1..=23 {
        index.add(1 + seq as i64 % 3, seq, if seq % 2 == 0 { "even alpha" } else { "odd alpha" });
    }
    let mut search = Search { limit: 4, ..Search::of("alpha".parse().unwrap()) };
    let mut found = Vec::new();
    loop {
        let page = find(&index.conn, &search).unwrap();
        assert!(page.events.len() <= 4);
        found.extend(page.events);
        let Some(next) = page.next else { break };
        // What comes meanwhile is newer than every page to come.
        index.add(1, 100 + found.len() as u64, "alpha");
        search.before = Some(next);
    }
    let seqs: Vec<u64> = found.iter().map(|(_, seq)| seq.get()).collect();
    assert_eq!(seqs, (1..=23).rev().collect::<Vec<_>>());
}

#[test]
fn a_page_that_is_just_full_has_no_next() {
    let mut index = Tested::new();
    index.add(1, 1, "alpha");
    index.add(1, 2, "alpha");
    let page = |limit| find(&index.conn, &Search { limit, ..Search::of("alpha".parse().unwrap()) }).unwrap();
    assert!(page(2).next.is_none());
    assert!(page(1).next.is_some());
}

#[test]
fn work_for_one_answer_is_bounded_and_the_next_one_goes_on() {
    let mut index = Tested::new();
    let many = limits::SEARCH_CANDIDATES as u64;
    index.add(2, 1, "alpha");
    let mut changes = Changes::default();
    for seq in 1..=many {
        changes.add(1, &done(seq, "alpha"));
    }
    index.apply(&changes);
    let mut search = Search::of("alpha".parse().unwrap());
    search.logs = Some(["agent/a2".parse().unwrap()].into());
    let page = find(&index.conn, &search).unwrap();
    assert_eq!((page.events.len(), page.next.is_some()), (0, true));
    search.before = page.next;
    let page = find(&index.conn, &search).unwrap();
    assert_eq!((page.events.len(), page.next), (1, None));
}

#[test]
fn filters_of_log_kind_and_time_hold() {
    let mut index = Tested::new();
    index.add(1, 1, "alpha");
    index.add(2, 2, "alpha");
    let search = Search::of("alpha".parse().unwrap());
    let find = |search: &Search| index.found(search);
    assert_eq!(find(&Search { logs: Some(BTreeSet::new()), ..search.clone() }), []);
    assert_eq!(find(&Search { kinds: [TextKind::Tool].into(), ..search.clone() }), []);
    assert_eq!(find(&Search { kinds: [TextKind::Done].into(), ..search.clone() }), [(2, 2), (1, 1)]);
    let since = Some(Timestamp::from_unix_ms(2));
    assert_eq!(find(&Search { since, ..search }), [(2, 2)]);
}

#[test]
fn an_aborted_transaction_leaves_nothing_in_the_index() {
    let mut index = Tested::new();
    index.conn.execute_batch("BEGIN").unwrap();
    let mut changes = Changes::default();
    changes.add(1, &done(1, "alpha"));
    index.index.apply(&index.conn, &changes).unwrap();
    index.conn.execute_batch("ROLLBACK").unwrap();
    assert_eq!(index.find("alpha"), []);
    index.add(1, 1, "alpha");
    assert_eq!(index.find("alpha"), [(1, 1)]);
}

#[test]
fn damage_in_the_index_lets_the_transaction_go_on_and_is_told_to_who_searches() {
    let mut index = Tested::new();
    index.add(1, 1, "alpha");
    index.conn.execute_batch("UPDATE search_words_data SET block = x'00ff00ff00ff00ff'").unwrap();
    index.reopen();
    index.conn.execute_batch("BEGIN; INSERT INTO logs (name) VALUES ('agent/other')").unwrap();
    let mut changes = Changes::default();
    changes.add(1, &done(2, "alpha"));
    index.index.apply(&index.conn, &changes).unwrap();
    assert!(index.index.is_damaged);
    index.conn.execute_batch("COMMIT").unwrap();
    let logs: i64 = index.conn.query_row("SELECT count(*) FROM logs", [], |row| row.get(0)).unwrap();
    assert_eq!(logs, 4, "what else the transaction did is there");
    let search = Search::of("alpha".parse().unwrap());
    assert!(matches!(find(&index.conn, &search), Err(SearchError::IndexDamaged)));
    assert!(!is_whole(&index.conn).unwrap(), "it is remembered");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// The law: whatever is written and asked for, the index knows what looking through everything finds.
    #[test]
    fn the_index_finds_what_looking_through_everything_finds(
        texts in prop::collection::vec("([ab_漢é¶\"*A-]{1,4} ?){1,6}", 1..12),
        gone in prop::collection::vec(any::<prop::sample::Index>(), 0..4),
        query in "(\"?[ab_漢é¶A-]{1,3}[ *\"]?\\*? ?){1,3}",
    ) {
        let mut index = Tested::new();
        for (seq, text) in (1..).zip(&texts) {
            index.add(1, seq, text);
        }
        let mut gone: Vec<Seq> = gone.iter().map(|i| Seq::new(1 + i.index(texts.len()) as u64)).collect();
        gone.sort_unstable();
        gone.dedup();
        index.change(|changes| changes.forget(1, &gone));
        let Ok(terms) = query.parse::<Terms>() else { return Ok(()) };
        let has = |text: &str| {
            Text::of("agent.done", &json!({ "summary": text }).to_string())
                .is_some_and(|text| terms.match_in(&text).is_some())
        };
        let by_looking: Vec<(i64, u64)> = (1..)
            .zip(&texts)
            .filter(|(seq, text)| has(text) && !gone.contains(&Seq::new(*seq)))
            .map(|(seq, _)| (1, seq))
            .collect();
        let mut found = index.found(&Search::of(terms));
        found.reverse();
        prop_assert_eq!(found, by_looking, "{:?} in {:?}", query, texts);
    }
}

/// An index with three logs, `agent/a1` to `agent/a3`, whose numbers are 1 to 3.
struct Tested {
    conn: Connection,
    index: Index,
}

impl Tested {
    fn new() -> Self {
        let conn = Connection::open_in_memory().unwrap();
        conn.execute_batch(SCHEMA).unwrap();
        conn.execute_batch(
            "CREATE TABLE logs (id INTEGER PRIMARY KEY, name TEXT);
             INSERT INTO logs (name) VALUES ('agent/a1'), ('agent/a2'), ('agent/a3')",
        )
        .unwrap();
        assert!(is_whole(&conn).unwrap());
        Self { conn, index: Index { is_damaged: false } }
    }

    fn add(&mut self, log: i64, seq: u64, text: &str) {
        self.change(|changes| changes.add(log, &done(seq, text)));
    }

    fn change(&mut self, change: impl FnOnce(&mut Changes)) {
        let mut changes = Changes::default();
        change(&mut changes);
        self.apply(&changes);
    }

    fn apply(&mut self, changes: &Changes) {
        self.conn.execute_batch("BEGIN").unwrap();
        self.index.apply(&self.conn, changes).unwrap();
        self.conn.execute_batch("COMMIT").unwrap();
        assert!(!self.index.is_damaged);
    }

    /// What FTS5 keeps of its tables in memory is forgotten.
    fn reopen(&mut self) {
        let mut copy = Connection::open_in_memory().unwrap();
        let backup = rusqlite::backup::Backup::new(&self.conn, &mut copy).unwrap();
        backup.run_to_completion(i32::MAX, std::time::Duration::ZERO, None).unwrap();
        drop(backup);
        self.conn = copy;
    }

    fn find(&self, query: &str) -> Vec<(i64, u64)> {
        self.found(&Search::of(query.parse().unwrap()))
    }

    fn found(&self, search: &Search) -> Vec<(i64, u64)> {
        let found = find(&self.conn, search).unwrap();
        let number = |log: &LogId| log.to_string().strip_prefix("agent/a").unwrap().parse().unwrap();
        found.events.iter().map(|(log, seq)| (number(log), seq.get())).collect()
    }
}

/// An event whose text is this, and whose time is its position.
fn done(seq: u64, text: &str) -> Record {
    let event = protocol::NewEvent {
        time: Timestamp::from_unix_ms(seq.cast_signed()),
        kind: "agent.done".into(),
        session: None,
        data: RawData::of(&json!({ "summary": text })).unwrap(),
    };
    let event = event.at(Seq::new(seq));
    Record { seq: event.seq, kind: event.kind.clone(), key: None::<Key>, envelope: event.encode() }
}
