//! Every limit of §11: where it is tried at the limit and one past it; and those of them that show on the relay's wire alone.

use std::path::Path;

use gastown_relay::server::RelayConfig;
use protocol::limits;
use reqwest::StatusCode;
use serde_json::{Value, json};
use store::{MemoryStore, RetentionPolicy};

use crate::support::{Server, append, event, http, within};

/// A constant of `protocol::limits`, and the test that holds it: the file, below the workspace, and the function.
#[rustfmt::skip]
const TRIED: &[(&str, &str, &str)] = &[
    ("EVENT_DATA_BYTES", "crates/wrapper/src/trim.rs", "an_event_within_the_limit_stays_byte_for_byte"),
    ("EVENT_DATA_HARD_BYTES", "crates/relay/tests/it/bad_input.rs", "an_event_of_the_hard_size_passes_and_a_larger_one_is_a_nack"),
    ("INGEST_FRAME_BYTES", "crates/relay/tests/it/websocket/framing.rs", "the_largest_message_is_taken_and_one_byte_more_is_too_large"),
    ("INGEST_WINDOW_EVENTS", "crates/relay/src/ingest/tests.rs", "input_is_held_back_while_hello_is_checked_and_beyond_the_window"),
    ("INGEST_WINDOW_BYTES", "crates/relay/tests/it/limits.rs", "a_wrapper_may_send_a_whole_window_before_an_ack"),
    ("BATCH_EVENTS", "crates/relay/tests/it/limits.rs", "a_batch_of_256_events_is_taken_and_one_of_257_is_too_large"),
    ("BATCH_BYTES", "crates/relay/tests/it/limits.rs", "a_wrapper_may_send_a_whole_window_before_an_ack"),
    ("VIEWER_FRAME_BYTES", "crates/relay/tests/it/websocket/framing.rs", "the_largest_message_is_taken_and_one_byte_more_is_too_large"),
    ("VIEWER_FRAMES_PER_SECOND", "crates/relay/tests/it/bad_input.rs", "the_twenty_first_frame_within_a_second_closes_the_stream"),
    ("SUBSCRIPTIONS_PER_SOCKET", "crates/relay/tests/it/bad_input.rs", "of_257_logs_on_one_socket_256_are_served_and_the_last_is_an_error"),
    ("LOG_EVENTS", "crates/relay/tests/it/limits.rs", "p3_a_log_keeps_its_2000_newest_events"),
    ("LOG_BYTES", "crates/event-store/src/conformance/bounding.rs", "p3_pruning_by_bytes_raises_the_floor"),
    ("LOG_IDLE_DAYS", "crates/event-store/src/conformance/bounding.rs", "idle_logs_are_emptied_and_go_on"),
    ("VIEWERS_PER_LOG", "crates/relay/src/server/relay.rs", "as_many_streams_are_taken_as_the_limits_say_and_one_more_is_told_to_wait"),
    ("VIEWERS", "crates/relay/src/server/relay.rs", "as_many_streams_are_taken_as_the_limits_say_and_one_more_is_told_to_wait"),
    ("VIEWERS_PER_ADDRESS", "crates/relay/src/server/relay.rs", "as_many_streams_are_taken_as_the_limits_say_and_one_more_is_told_to_wait"),
    ("HEADER_MS", "crates/relay/src/server/accept.rs", "p20_a_kept_connection_rests_for_15_s_and_then_has_5_s_for_a_header"),
    ("HEADER_BYTES", "crates/relay/src/server/accept.rs", "p20_a_header_that_comes_in_pieces_has_the_same_limit"),
    ("HEADERS", "crates/relay/tests/it/bad_input.rs", "p20_a_header_is_taken_at_its_limits_and_refused_past_them"),
    ("BODY_MS", "crates/relay/tests/it/hostile.rs", "p20_a_body_that_does_not_come_is_given_up_and_one_of_a_stranger_is_not_waited_for"),
    ("IDLE_MS", "crates/relay/src/server/accept.rs", "p20_a_kept_connection_rests_for_15_s_and_then_has_5_s_for_a_header"),
    ("DRAIN_MS", "crates/relay/src/server/accept.rs", "p15_a_server_that_ends_waits_for_what_runs_10_s_and_no_longer"),
    ("HEARTBEAT_MS", "crates/relay/src/viewer/tests.rs", "silence_is_filled_with_heartbeats_and_three_unanswered_end_it"),
    ("DEAD_MS", "crates/relay/src/ingest/tests.rs", "silence_is_filled_with_heartbeats_and_45_s_of_it_end_the_link"),
    ("PING_AFTER_MS", "crates/relay/src/client/session/tests.rs", "p14_a_silent_server_is_asked_after_20_s_and_left_5_s_later"),
    ("PONG_WITHIN_MS", "crates/wrapper/src/link/machine/tests.rs", "a_silent_link_is_kept_alive_and_a_dead_one_is_left"),
    ("STALLED_MS", "crates/relay/src/viewer/tests.rs", "p8_a_viewer_that_takes_nothing_is_closed_after_60_s_and_a_slow_one_is_not"),
    ("TICKET_LIFE_MS", "crates/relay/src/auth/tests.rs", "p18_a_ticket_lives_for_a_minute"),
    ("TICKETS_OUTSTANDING", "crates/relay/src/auth/tests.rs", "p18_the_thousand_and_first_outstanding_ticket_is_refused_until_one_is_used_or_ends"),
    ("PAGE_EVENTS", "crates/relay/tests/it/limits.rs", "a_page_has_500_events_unless_it_is_asked_for_up_to_1000"),
    ("PAGE_EVENTS_MAX", "crates/relay/tests/it/limits.rs", "a_page_has_500_events_unless_it_is_asked_for_up_to_1000"),
    ("LONG_POLL_S", "crates/relay/tests/it/limits.rs", "a_long_poll_waits_up_to_30_s_and_no_longer_one_is_begun"),
    ("SEARCH_HITS_MAX", "crates/relay/tests/it/search.rs", "p20_no_query_is_more_than_a_bad_request"),
    ("SEARCH_HITS", "crates/relay/tests/it/limits.rs", "a_search_finds_20_unless_it_is_asked_for_more"),
    ("SEARCH_QUERY_BYTES", "crates/event-protocol/src/search/terms.rs", "a_query_is_taken_at_its_limits_and_refused_beyond_them"),
    ("SEARCH_WORDS", "crates/event-protocol/src/search/terms.rs", "a_query_is_taken_at_its_limits_and_refused_beyond_them"),
    ("SEARCH_TEXT_BYTES", "crates/event-protocol/src/search/text.rs", "a_text_is_cut_at_its_limit_and_leaves_room_for_what_follows"),
    ("SEARCH_CANDIDATES", "crates/event-store/src/sqlite/search/tests.rs", ""),
    ("HTTP_BODY_BYTES", "crates/relay/tests/it/limits.rs", "a_body_of_64_kib_is_read_and_one_byte_more_is_too_large"),
    ("ID_BYTES", "crates/event-protocol/src/id.rs", "an_id_has_1_to_64_bytes"),
    ("JSON_DEPTH", "crates/event-protocol/tests/it/frames.rs", ""),
];

#[test]
fn every_limit_is_tried_by_a_test_that_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let limits = std::fs::read_to_string(root.join("crates/event-protocol/src/limits.rs")).unwrap();
    let names = limits.lines().filter_map(|line| Some(line.strip_prefix("pub const ")?.split_once(':')?.0));
    let names = names.collect::<Vec<_>>();
    assert!(names.len() > 20, "the limits were found");
    for name in &names {
        assert!(TRIED.iter().any(|(limit, ..)| limit == name), "{name} is tried nowhere");
    }
    for (name, file, test) in TRIED {
        assert!(names.contains(name), "{name} is a limit no more");
        let text = std::fs::read_to_string(root.join(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
        let is_there =
            if test.is_empty() { text.contains(name) } else { text.contains(&format!("fn {test}(")) };
        assert!(is_there, "{file} does not try {name}");
    }
}

#[tokio::test]
async fn a_batch_of_256_events_is_taken_and_one_of_257_is_too_large() {
    let server = Server::start().await;
    let mut wrapper = server.wrapper("a1", "p1", 1).await;
    let batch = |first| append(first, &vec!["x"; limits::BATCH_EVENTS]);
    wrapper.send(&batch(1)).await;
    assert_eq!(wrapper.next().await["through"], limits::BATCH_EVENTS);
    wrapper.send(&append(257, &vec!["x"; limits::BATCH_EVENTS + 1])).await;
    assert_eq!(wrapper.close_code().await, 4413);
}

#[tokio::test]
async fn a_wrapper_may_send_a_whole_window_before_an_ack() {
    let server = Server::start().await;
    let mut wrapper = server.wrapper("a1", "p1", 1).await;
    // Four frames of a mebibyte each: the window in bytes; and none of them fits into one commit with another.
    let text = "x".repeat(limits::BATCH_BYTES - 100);
    let frames = limits::INGEST_WINDOW_BYTES / limits::BATCH_BYTES;
    for first in 1..=frames as u64 {
        wrapper.send(&append(first, &[&text])).await;
    }
    let mut acked = 0;
    while acked < frames as u64 {
        let ack = wrapper.next().await;
        assert!(ack["through"].as_u64().unwrap() > acked, "{ack}");
        acked = ack["through"].as_u64().unwrap();
    }
}

#[tokio::test]
async fn p3_a_log_keeps_its_2000_newest_events() {
    let server = Server::start().await;
    for _ in 0..2 * limits::LOG_EVENTS / 250 {
        server.append("agent/a1", &["x"; 250]).await;
    }
    let page = server.get("/v1/agents/a1/events?limit=1").await.json::<Value>().await.unwrap();
    let (floor, head) = (page["floor"].as_u64().unwrap(), page["head"].as_u64().unwrap());
    assert_eq!(head, 2 * limits::LOG_EVENTS);
    // Pruning is by the piece: it takes what is over the limit and a little more, and never what is within.
    assert!(head - floor <= limits::LOG_EVENTS, "{} are kept", head - floor);
    assert!(head - floor > limits::LOG_EVENTS * 3 / 4, "{} are kept", head - floor);
}

#[tokio::test]
async fn a_page_has_500_events_unless_it_is_asked_for_up_to_1000() {
    let server = Server::start().await;
    for _ in 0..5 {
        server.append("agent/a1", &["x"; 250]).await;
    }
    for (query, events) in [("", limits::PAGE_EVENTS), ("?limit=1000", limits::PAGE_EVENTS_MAX)] {
        let page = server.get(&format!("/v1/agents/a1/events{query}")).await.json::<Value>().await.unwrap();
        assert_eq!((page["events"].as_array().unwrap().len(), &page["more"]), (events, &json!(true)));
    }
    assert_eq!(server.get("/v1/agents/a1/events?limit=1001").await.status(), 400);
}

#[tokio::test]
async fn a_long_poll_waits_up_to_30_s_and_no_longer_one_is_begun() {
    let server = Server::start().await;
    server.append("agent/a1", &["1"]).await;
    let longest = format!("/v1/agents/a1/events?after=1&wait={}", limits::LONG_POLL_S);
    let (page, ()) = tokio::join!(server.get(&longest), server.append("agent/a1", &["2"]));
    assert_eq!(page.status(), 200);
    let longer = format!("/v1/agents/a1/events?after=2&wait={}", limits::LONG_POLL_S + 1);
    assert_eq!(server.get(&longer).await.status(), 400);
}

#[tokio::test]
async fn a_search_finds_20_unless_it_is_asked_for_more() {
    let server = Server::start().await;
    let log = "agent/a1".parse().unwrap();
    for n in 0..=limits::SEARCH_HITS {
        let part = json!({"id": format!("prt_{n}"), "messageID": "msg_1", "sessionID": "s", "type": "text", "text": "needle", "time": {"start": 1, "end": 2}});
        let found = event("message.part.updated", &json!({ "part": part }));
        gastown_relay::RelayApi::append(&server.relay, &log, vec![found]).await.unwrap();
    }
    let all = limits::SEARCH_HITS + 1;
    for (query, hits) in [("", limits::SEARCH_HITS), (&*format!("&limit={all}"), all)] {
        let found = server.get(&format!("/v1/search?q=needle{query}")).await.json::<Value>().await.unwrap();
        assert_eq!(found["hits"].as_array().map(Vec::len), Some(hits), "{found:.300}");
    }
}

#[tokio::test]
async fn a_body_of_64_kib_is_read_and_one_byte_more_is_too_large() {
    let store = MemoryStore::new(RetentionPolicy::default());
    let server = Server::with(store, RelayConfig::default()).await;
    let around = json!({"type": "prompt", "text": ""}).to_string().len();
    for (len, status) in [
        (limits::HTTP_BODY_BYTES, StatusCode::SERVICE_UNAVAILABLE),
        (limits::HTTP_BODY_BYTES + 1, StatusCode::PAYLOAD_TOO_LARGE),
    ] {
        let body = json!({"type": "prompt", "text": "x".repeat(len - around)}).to_string();
        assert_eq!(body.len(), len);
        let post = http().post(server.http("/v1/agents/a1/commands")).bearer_auth(server.operator().expose());
        // Nobody runs the agent, which is known only after the body was understood.
        assert_eq!(within(post.body(body).send()).await.unwrap().status(), status);
    }
}
