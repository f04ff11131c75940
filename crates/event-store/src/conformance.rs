//! The conformance suite: one function per behaviour that the clauses of [`EventStore`] promise. A backend passes when
//! none of them panics.
//!
//! A backend's tests say how its stores are opened ([`Fixture`]) and call [`conformance_tests!`](crate::conformance_tests),
//! and, if what it stores outlives it, [`durable_conformance_tests!`](crate::durable_conformance_tests). Both macros
//! write `#[tokio::test]` functions, so the crate that calls them needs tokio with `macros` and `rt`.

#![expect(clippy::unwrap_used, reason = "a clause that is not kept is a panic")]

pub mod appending;
pub mod bounding;
pub mod compacting;
pub mod durable;
pub mod producing;
pub mod reading;
pub mod searching;
pub mod tailing;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use protocol::{LogId, NewEvent, RawData, Seq, Timestamp};

use crate::{Append, Appended, EventStore, ReadLimit, Record, Retention, RetentionPolicy};

/// How stores of a backend are made for a test.
pub trait Fixture {
    /// The backend.
    type Store: EventStore;

    /// Opens a store: the same one, with what is in it, if one was opened and dropped before and the backend is
    /// durable. Called for one store at a time.
    fn open(&mut self, policy: RetentionPolicy) -> Self::Store;
}

/// Writes a test per behaviour that every backend has, named after it. The argument makes a [`Fixture`].
#[macro_export]
macro_rules! conformance_tests {
    ($fixture:expr) => {
        $crate::conformance_tests! { @each $fixture;
            appending::positions_grow_in_the_order_of_the_batches
            appending::a_refused_batch_leaves_nothing
            appending::a_refused_batch_does_no_harm_to_those_beside_it
            appending::p5_of_concurrent_appends_each_has_its_own_positions
            appending::an_append_that_expects_another_head_is_refused
            appending::an_append_of_nothing_makes_the_log
            appending::an_event_beyond_the_hard_size_is_refused_whole
            appending::one_of_that_size_is_taken
            producing::p5_resent_events_are_appended_once
            producing::p5_a_hole_is_refused_unless_it_is_named
            producing::p5_the_first_number_of_a_stranger_is_taken
            producing::p5_a_resent_batch_does_not_conflict
            producing::p5_numbers_go_on_over_generations
            producing::p6_a_newer_generation_fences_the_older
            producing::p6_an_empty_batch_registers_a_generation
            producing::p6_a_rival_of_the_same_generation_is_fenced
            compacting::p10_a_replacement_takes_the_deltas_before_it
            compacting::p10_what_is_replaced_within_a_batch_is_never_read
            compacting::p10_a_removed_message_takes_its_parts
            compacting::p10_a_removed_session_takes_all_of_its_events
            compacting::p10_a_tombstone_outlives_a_replacement
            compacting::p10_a_compacted_log_folds_to_the_same_view_from_any_cursor
            compacting::compaction_does_not_raise_the_floor
            bounding::p3_pruning_by_events_raises_the_floor
            bounding::p3_pruning_by_bytes_raises_the_floor
            bounding::the_newest_event_stays_however_large
            bounding::idle_logs_are_emptied_and_go_on
            bounding::positions_are_not_used_again_after_pruning
            bounding::towns_and_agents_have_their_own_retention
            bounding::a_log_made_again_has_another_epoch_and_nothing_of_the_old
            bounding::listing_is_by_name_and_counts_what_is_kept
            reading::a_page_keeps_to_its_limits_and_says_whether_there_is_more
            reading::a_page_has_at_least_one_event
            reading::p9_every_read_has_the_same_bytes
            reading::a_record_says_what_its_envelope_says
            reading::unknown_logs_are_unknown_to_every_call
            reading::a_snapshot_is_returned_as_it_was_put
            reading::a_cursor_ahead_of_the_head_reads_nothing
            tailing::p4_a_tail_wakes_when_the_event_can_be_read
            tailing::a_tail_of_an_unknown_log_waits_for_its_first_commit
            tailing::a_slow_tail_sees_the_newest_head
            tailing::a_tail_survives_the_removal_of_its_log
            tailing::tails_of_other_logs_stay_asleep
        }
    };
    (@each $fixture:expr; $($module:ident :: $behaviour:ident)*) => {
        $(#[tokio::test]
        async fn $behaviour() {
            $crate::conformance::$module::$behaviour(&mut $fixture).await;
        })*
    };
}

/// Writes a test per behaviour of backends that offer [`TextSearch`](crate::TextSearch).
#[macro_export]
macro_rules! search_conformance_tests {
    ($fixture:expr) => {
        $crate::conformance_tests! { @each $fixture;
            searching::the_newest_commit_is_found_first_over_all_logs
            searching::a_hit_says_where_it_is_and_shows_why
            searching::what_is_replaced_is_not_found_from_its_commit_on
            searching::what_is_removed_is_not_found
            searching::what_is_pruned_is_not_found
            searching::answers_follow_each_other_without_holes_or_repetitions
            searching::filters_let_through_what_they_name
        }
    };
}

/// Writes a test per behaviour of backends whose stores outlive the process.
#[macro_export]
macro_rules! durable_conformance_tests {
    ($fixture:expr) => {
        $crate::conformance_tests! { @each $fixture;
            durable::p1_a_reopened_store_has_every_event
            durable::p9_bytes_are_the_same_after_a_restart
            durable::p5_producers_are_known_after_a_restart
            durable::p6_fences_hold_after_a_restart
            durable::p3_floor_and_epoch_are_kept
            durable::p10_compaction_goes_on_after_a_restart
            durable::pruning_goes_on_after_a_restart
            durable::snapshots_and_lists_are_kept
            durable::a_removed_log_stays_removed
            durable::tails_begin_at_the_stored_head
        }
    };
}

/// The log most behaviours are tried on.
#[must_use]
fn agent() -> LogId {
    "agent/a1".parse().unwrap()
}

/// Another one.
fn other_agent() -> LogId {
    "agent/a2".parse().unwrap()
}

/// No event of this type makes another obsolete.
fn plain(n: u64) -> NewEvent {
    event("file.edited", None, &format!(r#"{{"n":{n}}}"#))
}

fn plains(n: std::ops::Range<u64>) -> Vec<NewEvent> {
    n.map(plain).collect()
}

fn delta(part: &str, text: &str) -> NewEvent {
    let data =
        format!(r#"{{"sessionID":"s1","messageID":"m1","partID":"{part}","field":"text","delta":"{text}"}}"#);
    event("message.part.delta", Some("s1"), &data)
}

fn part(message: &str, part: &str, text: &str) -> NewEvent {
    let data = format!(
        r#"{{"part":{{"id":"{part}","sessionID":"s1","messageID":"{message}","type":"text","text":"{text}"}}}}"#
    );
    event("message.part.updated", Some("s1"), &data)
}

fn message(id: &str) -> NewEvent {
    let data =
        format!(r#"{{"info":{{"id":"{id}","sessionID":"s1","role":"assistant","time":{{"created":1}}}}}}"#);
    event("message.updated", Some("s1"), &data)
}

fn event(kind: &str, session: Option<&str>, data: &str) -> NewEvent {
    NewEvent {
        time: Timestamp::from_unix_ms(1_000),
        kind: kind.into(),
        session: session.map(Arc::from),
        data: RawData::from_json(data).unwrap(),
    }
}

fn keeping(events: u64, bytes: u64) -> RetentionPolicy {
    RetentionPolicy { agent: Retention { events, bytes, idle: None }, town: Retention::UNBOUNDED }
}

async fn append(store: &impl EventStore, events: Vec<NewEvent>) -> Appended {
    store.append(&agent(), Append::of(events)).await.unwrap()
}

/// Everything after a position, by small pages, each checked to be where it belongs.
async fn read_all(store: &impl EventStore, log: &LogId, after: Seq) -> Vec<Record> {
    let mut records: Vec<Record> = Vec::new();
    let mut cursor = after;
    loop {
        let page = store.read(log, cursor, ReadLimit { events: 7, bytes: 64 * 1024 }).await.unwrap();
        for record in page.records {
            assert!(record.seq > cursor, "{} after {cursor}", record.seq);
            cursor = record.seq;
            records.push(record);
        }
        if !page.more {
            return records;
        }
    }
}

async fn seqs(store: &impl EventStore) -> Vec<u64> {
    read_all(store, &agent(), Seq::ZERO).await.iter().map(|record| record.seq.get()).collect()
}

/// What is to happen without anybody asking again: long enough for any machine, and a failure if it does not come.
async fn soon<T>(future: impl Future<Output = T>) -> T {
    let timeout = Duration::from_secs(30);
    within(timeout, future).await.expect("it did not happen within 30 s")
}

/// A timeout without a runtime's timer, which the suite does not want to depend on: a thread that waits.
async fn within<T>(timeout: Duration, future: impl Future<Output = T>) -> Option<T> {
    let (expire, expired) = tokio::sync::oneshot::channel::<()>();
    let (done, is_done) = std::sync::mpsc::channel::<()>();
    let timer = std::thread::spawn(move || {
        // Ends early, with an error, when `done` is dropped.
        let _ = is_done.recv_timeout(timeout);
        drop(expire);
    });
    let mut future = std::pin::pin!(future);
    let mut expired = std::pin::pin!(expired);
    let result = std::future::poll_fn(|context| {
        if let std::task::Poll::Ready(value) = future.as_mut().poll(context) {
            return std::task::Poll::Ready(Some(value));
        }
        expired.as_mut().poll(context).map(|_| None)
    })
    .await;
    drop(done);
    timer.join().unwrap();
    result
}

fn bytes_of(records: &[Record]) -> Vec<Bytes> {
    records.iter().map(|record| record.envelope.clone()).collect()
}
