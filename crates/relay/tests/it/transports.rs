//! One log read over every transport (§4, §5): the same clauses for all of them. A clause that a transport has no word
//! for (a page says no `ended`) asks [`Transport::says`].

mod reader;

use std::collections::BTreeSet;

use gastown_relay::{
    RelayApi as _,
    server::{RelayConfig, now},
};
use protocol::{Cursor, Epoch, ErrorCode, LogId, RawData, Seq, frame::GapReason};
use serde_json::json;
use store::{MemoryStore, Retention, RetentionPolicy};

use self::reader::{Refused, Start, Told, Transport};
use crate::support::{Server, event, within};

const A1: &str = "a1";

#[tokio::test]
async fn p2_history_comes_in_order_then_live_once_then_what_is_committed() {
    for transport in Transport::ALL {
        for server in [Server::start().await, Server::on_disk().await] {
            server.append("agent/a1", &["1", "2", "3"]).await;
            let mut reader = transport.open(&server, A1, Start::default()).await;
            let (floor, head) = (Seq::ZERO, Seq::new(3));
            let Told::Subscribed { floor: told_floor, head: told_head, .. } = reader.next().await else {
                panic!("{transport:?}: the bounds come first")
            };
            assert_eq!((told_floor, told_head), (floor, head), "{transport:?}");
            let told = reader.until_live().await;
            assert_eq!(told, [text(1), text(2), text(3), Told::Live { head }], "{transport:?}");
            for n in 4..10 {
                server.append("agent/a1", &[&n.to_string()]).await;
                assert_eq!(reader.next().await, text(n), "{transport:?}");
            }
        }
    }
}

#[tokio::test]
async fn p2_a_reader_that_comes_back_with_any_cursor_gets_exactly_what_follows() {
    for transport in Transport::ALL {
        let server = Server::start().await;
        // Every third event replaces the one of its kind before it, so that the positions have holes.
        for n in 1..=12_u64 {
            let kind = if n % 3 == 0 { "agent.status" } else { "note" };
            let events = vec![event(kind, &json!({"text": n.to_string(), "state": "idle"}))];
            server.relay.append(&a1(), events).await.unwrap();
        }
        let kept = [1, 2, 4, 5, 7, 8, 10, 11, 12];
        let epoch = server.epoch("agent/a1").await;
        for seq in 0..=12 {
            let from = Start {
                after: Some(Cursor { epoch: epoch.clone(), seq: Seq::new(seq) }),
                ..Start::default()
            };
            let mut reader = transport.open(&server, A1, from).await;
            assert!(matches!(reader.next().await, Told::Subscribed { .. }), "{transport:?}");
            let rest = kept.iter().filter(|kept| **kept > seq).map(|kept| text(*kept));
            let expected = rest.chain([Told::Live { head: Seq::new(12) }]).collect::<Vec<_>>();
            assert_eq!(reader.until_live().await, expected, "{transport:?} after {seq}");
        }
    }
}

#[tokio::test]
async fn p3_a_cursor_below_the_floor_gets_the_gap_before_the_events() {
    for transport in Transport::ALL {
        let agent = Retention { events: 3, ..Retention::AGENT };
        let store = MemoryStore::new(RetentionPolicy { agent, ..RetentionPolicy::default() });
        let server = Server::with(store, RelayConfig::default()).await;
        for n in 1..200 {
            server.append("agent/a1", &[&n.to_string()]).await;
        }
        let after = Some(Cursor { epoch: server.epoch("agent/a1").await, seq: Seq::new(1) });
        let mut reader = transport.open(&server, A1, Start { after, ..Start::default() }).await;
        let Told::Subscribed { floor, .. } = reader.next().await else { panic!("{transport:?}") };
        assert!(floor > Seq::new(1), "the log is bounded");
        let gap = Told::Gap { from: Some(Seq::new(2)), to: Some(floor), reason: GapReason::Pruned };
        assert_eq!(reader.next().await, gap, "{transport:?}");
        assert_eq!(reader.next().await, text(floor.get() + 1), "{transport:?}");
    }
}

#[tokio::test]
async fn p3_a_cursor_of_another_epoch_gets_the_gap_and_then_all_there_is() {
    for transport in Transport::ALL {
        let server = Server::start().await;
        server.append("agent/a1", &["1"]).await;
        let after = Some(Cursor { epoch: Epoch::new("other"), seq: Seq::new(7) });
        let mut reader = transport.open(&server, A1, Start { after, ..Start::default() }).await;
        assert!(matches!(reader.next().await, Told::Subscribed { .. }), "{transport:?}");
        let gap = Told::Gap { from: None, to: None, reason: GapReason::Epoch };
        let live = Told::Live { head: Seq::new(1) };
        assert_eq!(reader.until_live().await, [gap, text(1), live], "{transport:?}");
    }
}

#[tokio::test]
async fn p3_a_cursor_ahead_of_the_head_gets_the_gap_without_a_wait() {
    for transport in Transport::ALL {
        let server = Server::start().await;
        server.append("agent/a1", &["1"]).await;
        let after = Some(Cursor { epoch: server.epoch("agent/a1").await, seq: Seq::new(99) });
        let mut reader = transport.open(&server, A1, Start { after, ..Start::default() }).await;
        assert!(matches!(reader.next().await, Told::Subscribed { .. }), "{transport:?}");
        let gap = Told::Gap { from: Some(Seq::new(2)), to: Some(Seq::new(99)), reason: GapReason::Ahead };
        let live = Told::Live { head: Seq::new(1) };
        assert_eq!(reader.until_live().await, [gap, text(1), live], "{transport:?}");
    }
}

#[tokio::test]
async fn p3_a_log_that_is_made_anew_is_a_gap_to_whoever_read_it() {
    for transport in Transport::ALL {
        let server = Server::start().await;
        server.append("agent/a1", &["1", "2"]).await;
        let mut reader = transport.open(&server, A1, Start::default()).await;
        reader.until_live().await;
        server.relay.remove_log(&a1()).await.unwrap();
        server.append("agent/a1", &["1"]).await;
        let gap = Told::Gap { from: None, to: None, reason: GapReason::Epoch };
        assert_eq!(reader.next_but_bounds().await, gap, "{transport:?}");
        assert_eq!(reader.next_but_bounds().await, text(1), "{transport:?}");
    }
}

#[tokio::test]
async fn p9_an_event_has_the_same_bytes_live_replayed_and_over_every_transport() {
    for server in [Server::start().await, Server::on_disk().await] {
        let odd = r#"{"text":  "é\u00e9",
            "n": 1.10, "a":[ ]}"#;
        server.append("agent/a1", &["1"]).await;
        let mut live = Vec::new();
        for transport in Transport::ALL {
            let mut reader = transport.open(&server, A1, Start::default()).await;
            reader.until_live().await;
            live.push(reader);
        }
        let mut odd_event = event("note", &json!(null));
        odd_event.data = RawData::from_json(odd).unwrap();
        server.relay.append(&a1(), vec![odd_event]).await.unwrap();
        let mut seen = BTreeSet::new();
        for reader in &mut live {
            reader.next().await;
            seen.insert(reader.envelope().to_owned());
        }
        for transport in Transport::ALL {
            let mut replayed = transport.open(&server, A1, Start::default()).await;
            replayed.until_live().await;
            seen.insert(replayed.envelope().to_owned());
        }
        let [envelope] = seen.iter().collect::<Vec<_>>()[..] else {
            panic!("one event, several bytes: {seen:#?}")
        };
        assert!(envelope.contains(odd), "{envelope}");
    }
}

#[tokio::test]
async fn a_filter_passes_its_types_and_hides_no_live_mark() {
    for transport in Transport::ALL {
        let server = Server::start().await;
        let append = async |kind: &str, n: u64| {
            let events = vec![event(kind, &json!({ "text": n.to_string() }))];
            server.relay.append(&a1(), events).await.unwrap();
        };
        for (n, kind) in [(1, "note"), (2, "file.edited"), (3, "other"), (4, "file.gone")] {
            append(kind, n).await;
        }
        let mut reader =
            transport.open(&server, A1, Start { types: "other,file.*", ..Start::default() }).await;
        let told = reader.until_live_but_bounds().await;
        assert_eq!(told, [text(2), text(3), text(4), Told::Live { head: Seq::new(4) }], "{transport:?}");
        append("note", 5).await;
        append("other", 6).await;
        assert_eq!(reader.next().await, text(6), "{transport:?}");
        let mut nothing = transport.open(&server, A1, Start { types: "none", ..Start::default() }).await;
        assert_eq!(
            nothing.until_live_but_bounds().await,
            [Told::Live { head: Seq::new(6) }],
            "{transport:?}"
        );
    }
}

#[tokio::test]
async fn whoever_starts_at_the_head_gets_what_comes_and_nothing_before() {
    for transport in Transport::ALL {
        let server = Server::start().await;
        server.append("agent/a1", &["1", "2"]).await;
        let mut reader = transport.open(&server, A1, Start { at_head: true, ..Start::default() }).await;
        assert_eq!(reader.until_live_but_bounds().await, [Told::Live { head: Seq::new(2) }], "{transport:?}");
        server.append("agent/a1", &["3"]).await;
        assert_eq!(reader.next().await, text(3), "{transport:?}");
    }
}

#[tokio::test]
async fn an_agents_end_is_told_after_its_event_and_the_log_stays_readable() {
    for transport in Transport::ALL {
        let server = Server::start().await;
        server.append("agent/a1", &["1"]).await;
        let end = event("agent.exited", &json!({"text": "2", "reason": "it was done"}));
        server.relay.append(&a1(), vec![end]).await.unwrap();
        let mut reader = transport.open(&server, A1, Start::default()).await;
        let mut told = reader.until_live_but_bounds().await;
        if transport.says_ended() {
            if !told.contains(&Told::Ended) {
                told.push(reader.next().await);
            }
            let event = told.iter().position(|told| *told == text(2));
            assert!(event < told.iter().position(|told| *told == Told::Ended), "{transport:?}: {told:?}");
        } else {
            assert_eq!(told[1], text(2), "{transport:?}");
        }
        server.append("agent/a1", &["3"]).await;
        assert_eq!(reader.next().await, text(3), "{transport:?}");
    }
}

#[tokio::test]
async fn p17_p18_every_credential_opens_what_it_is_for() {
    for transport in Transport::ALL {
        let server = Server::start().await;
        server.append("agent/a1", &["1"]).await;
        server.append("agent/a2", &["1"]).await;
        let ticket = server.ticket(A1, None, now()).expose().to_owned();
        let share = server.share(A1, "s1").await.expose().to_owned();
        for token in [&ticket, &share, &share] {
            let with = Start { ticket: Some(token.clone()), ..Start::default() };
            let mut reader = transport.open(&server, A1, with).await;
            assert_eq!(reader.until_live_but_bounds().await[0], text(1), "{transport:?}");
        }
        let elsewhere = server.ticket(A1, None, now()).expose().to_owned();
        for (ticket, agent, code) in [
            (Some(String::new()), A1, ErrorCode::Unauthenticated),
            (Some("garbage".to_owned()), A1, ErrorCode::Unauthenticated),
            (Some(ticket), A1, ErrorCode::Unauthenticated),
            (Some(share), "a2", ErrorCode::Forbidden),
            (Some(elsewhere), "a2", ErrorCode::Forbidden),
        ] {
            transport.is_refused(&server, agent, Start { ticket, ..Start::default() }, code).await;
        }
    }
}

#[tokio::test]
async fn what_is_asked_wrongly_is_refused_with_its_code() {
    for transport in Transport::ALL {
        let server = Server::start().await;
        server.append("agent/a1", &["1"]).await;
        transport.is_refused(&server, "none", Start::default(), ErrorCode::UnknownLog).await;
        let types = "x,".repeat(65);
        let too_many = Start { types: &types, ..Start::default() };
        transport.is_refused(&server, A1, too_many, ErrorCode::BadRequest).await;
    }
}

#[tokio::test]
async fn one_reader_too_many_of_a_log_is_told_to_wait() {
    for transport in Transport::ALL {
        let mut config = RelayConfig::default();
        config.viewers.per_log = 2;
        let server = Server::with(MemoryStore::new(RetentionPolicy::default()), config).await;
        server.append("agent/a1", &["1"]).await;
        let mut readers = Vec::new();
        for _ in 0..2 {
            let mut reader = Transport::WebSocket.open(&server, A1, Start::default()).await;
            reader.until_live().await;
            readers.push(reader);
        }
        transport.is_refused(&server, A1, Start::default(), ErrorCode::RateLimited).await;
        drop(readers);
        // The place is free when the relay has noticed.
        let free = async { while transport.try_open(&server, A1, Start::default()).await.is_err() {} };
        within(free).await;
    }
}

#[tokio::test]
async fn p15_a_relay_that_goes_down_ends_readers_and_takes_no_more() {
    for transport in Transport::ALL {
        let server = Server::start().await;
        server.append("agent/a1", &["1"]).await;
        let mut reader = transport.open(&server, A1, Start::default()).await;
        reader.until_live().await;
        let relay = server.relay.clone();
        let (end, ()) = tokio::join!(reader.end(), relay.drain());
        if let Some(Refused { code, .. }) = end {
            assert_eq!(code, ErrorCode::Draining, "{transport:?}");
        }
        if transport.keeps_open() {
            transport.is_refused(&server, A1, Start::default(), ErrorCode::Draining).await;
        }
    }
}

/// The event of this position, as [`Server::append`] makes it of the position as text.
fn text(seq: u64) -> Told {
    Told::Event { seq: Seq::new(seq), text: seq.to_string() }
}

fn a1() -> LogId {
    "agent/a1".parse().unwrap()
}
