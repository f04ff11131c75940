//! The clauses of [`TextSearch`](crate::TextSearch), of backends that offer it.

use protocol::{
    LogId, NewEvent, Seq, Timestamp,
    search::{Found, Search, TextKind},
};

use super::{Fixture, agent, append, delta, event, keeping, message, other_agent, part, plain, plains};
use crate::{Append, EventStore, ReadLimit, RetentionPolicy};

/// Clause 3.
pub async fn the_newest_commit_is_found_first_over_all_logs(fixture: &mut impl Fixture) {
    let store = fixture.open(RetentionPolicy::default());
    append(&store, vec![part("m1", "p1", "the quick fox"), plain(0)]).await;
    store.append(&other_agent(), Append::of(vec![part("m1", "p1", "a quick dog")])).await.unwrap();
    append(&store, vec![part("m1", "p2", "quick quick"), part("m1", "p3", "quick again")]).await;
    let expected = [(agent(), 4), (agent(), 3), (other_agent(), 1), (agent(), 1)];
    assert_eq!(places(&find(&store, "quick").await), expected);
    assert_eq!(places(&find(&store, "quick \"qu\"* fox").await), [(agent(), 1)]);
    assert_eq!(places(&find(&store, "slow").await), []);
}

/// Clause 1: a hit is a cursor, and says what it is.
pub async fn a_hit_says_where_it_is_and_shows_why(fixture: &mut impl Fixture) {
    let store = fixture.open(RetentionPolicy::default());
    let appended = append(&store, vec![message("m1"), part("m1", "p1", "one two three")]).await;
    let found = find(&store, "TWO").await;
    let hit = &found.hits[0];
    assert_eq!((&hit.log, &hit.epoch, hit.seq), (&agent(), &appended.epoch, appended.head));
    assert_eq!((hit.kind, hit.session.as_deref()), (TextKind::Prompt, Some("s1")));
    assert_eq!(hit.key.as_ref().map(ToString::to_string).as_deref(), Some("part/m1/p1"));
    let page = store.read(&agent(), Seq::new(hit.seq.get() - 1), ReadLimit::default()).await.unwrap();
    assert_eq!(page.records[0].event().unwrap().time, hit.time);
    let marked: Vec<_> = hit.snippet.iter().map(|piece| (piece.text.as_str(), piece.hit)).collect();
    assert_eq!(marked, [("one ", false), ("two", true), (" three", false)]);
}

/// Clauses 1 and 2.
pub async fn what_is_replaced_is_not_found_from_its_commit_on(fixture: &mut impl Fixture) {
    let store = fixture.open(RetentionPolicy::default());
    append(&store, vec![part("m1", "p1", "first"), delta("p2", "never")]).await;
    append(&store, plains(0..300)).await;
    append(&store, vec![part("m1", "p1", "second"), part("m1", "p1", "third")]).await;
    assert_eq!(places(&find(&store, "first").await), []);
    assert_eq!(places(&find(&store, "second").await), []);
    assert_eq!(places(&find(&store, "never").await), [], "a delta has no text of its own");
    assert_eq!(places(&find(&store, "third").await), [(agent(), 304)]);
}

/// Clauses 1 and 2.
pub async fn what_is_removed_is_not_found(fixture: &mut impl Fixture) {
    let store = fixture.open(RetentionPolicy::default());
    let text = |message: &str, id: &str| part(message, id, "alpha");
    append(&store, vec![text("m1", "p1"), text("m1", "p2"), text("m2", "p1")]).await;
    append(&store, vec![event("message.removed", Some("s1"), r#"{"messageID":"m1"}"#)]).await;
    assert_eq!(places(&find(&store, "alpha").await), [(agent(), 3)]);
    append(&store, vec![event("session.deleted", Some("s1"), r#"{"info":{"id":"s1"}}"#)]).await;
    assert_eq!(places(&find(&store, "alpha").await), []);
    append(&store, vec![text("m3", "p1")]).await;
    store.remove(&agent()).await.unwrap();
    assert_eq!(places(&find(&store, "alpha").await), []);
    append(&store, vec![plain(0), text("m1", "p1")]).await;
    assert_eq!(places(&find(&store, "alpha").await), [(agent(), 2)], "of the log made again");
}

/// Clauses 1 and 2.
pub async fn what_is_pruned_is_not_found(fixture: &mut impl Fixture) {
    let mut policy = keeping(5, u64::MAX);
    policy.agent.idle = Some(std::time::Duration::from_secs(1));
    let store = fixture.open(policy);
    append(&store, vec![part("m1", "p1", "alpha"), part("m1", "p2", "alpha")]).await;
    append(&store, plains(0..4)).await;
    assert_eq!(places(&find(&store, "alpha").await), [(agent(), 2)]);
    append(&store, plains(4..500)).await;
    assert_eq!(places(&find(&store, "alpha").await), []);
    append(&store, vec![part("m1", "p3", "alpha")]).await;
    assert_eq!(store.prune_idle(Timestamp::from_unix_ms(1_000_000)).await.unwrap(), 5);
    assert_eq!(places(&find(&store, "alpha").await), []);
}

/// Clauses 3 and 4.
pub async fn answers_follow_each_other_without_holes_or_repetitions(fixture: &mut impl Fixture) {
    let store = fixture.open(RetentionPolicy::default());
    let text = |n: u64| part("m1", &format!("p{n}"), "alpha");
    for n in 0..30 {
        let log = if n % 3 == 0 { other_agent() } else { agent() };
        store.append(&log, Append::of(vec![text(n), plain(n)])).await.unwrap();
    }
    let whole = find_with(&store, Search { limit: 30, ..search("alpha") }).await;
    assert!(whole.next.is_none());
    let (mut hits, mut before) = (Vec::new(), None);
    loop {
        let page = find_with(&store, Search { limit: 7, before, ..search("alpha") }).await;
        hits.extend(page.hits);
        before = page.next;
        if before.is_none() {
            break;
        }
        append(&store, vec![text(100 + hits.len() as u64)]).await;
    }
    assert_eq!(hits, whole.hits);
    assert_eq!(hits.len(), 30);
}

/// Clause 1.
pub async fn filters_let_through_what_they_name(fixture: &mut impl Fixture) {
    let store = fixture.open(RetentionPolicy::default());
    let at = |ms: i64, event: NewEvent| NewEvent { time: Timestamp::from_unix_ms(ms), ..event };
    let failed = event("agent.failed", None, r#"{"message":"alpha"}"#);
    append(&store, vec![at(10, part("m1", "p1", "alpha")), at(30, failed)]).await;
    store.append(&other_agent(), Append::of(vec![at(20, part("m1", "p1", "alpha"))])).await.unwrap();
    let all = search("alpha");
    let only = |log: LogId| Search { logs: Some([log].into()), ..all.clone() };
    assert_eq!(places(&find_with(&store, only(agent())).await), [(agent(), 2), (agent(), 1)]);
    assert_eq!(places(&find_with(&store, only("agent/nobody".parse().unwrap())).await), []);
    let errors = Search { kinds: [TextKind::Error].into(), ..all.clone() };
    assert_eq!(places(&find_with(&store, errors).await), [(agent(), 2)]);
    let since = Search { since: Some(Timestamp::from_unix_ms(20)), ..all };
    assert_eq!(places(&find_with(&store, since).await), [(other_agent(), 1), (agent(), 2)]);
}

fn search(query: &str) -> Search {
    Search::of(query.parse().unwrap())
}

async fn find(store: &impl EventStore, query: &str) -> Found {
    find_with(store, search(query)).await
}

async fn find_with(store: &impl EventStore, search: Search) -> Found {
    let found = store.text_search().expect("it offers search").search(&search).await.unwrap();
    assert_eq!(found.damaged, []);
    found
}

fn places(found: &Found) -> Vec<(LogId, u64)> {
    found.hits.iter().map(|hit| (hit.log.clone(), hit.seq.get())).collect()
}
