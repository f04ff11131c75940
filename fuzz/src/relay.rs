//! The relay's machines and its WebSocket: no input panics, whatever it is cut into, and a machine always comes to rest.

use std::{
    fmt::Display,
    str::FromStr,
    time::{Duration, Instant},
};

use gastown_relay::{
    filter::TypeFilter,
    ingest::{self, Ingest},
    viewer::{self, Viewer},
    websocket::{Decoder, Received},
};
use protocol::{AgentId, CommandResult, Cursor, Epoch, ErrorCode, ErrorDetail, LogId, Seq, Timestamp};
use store::{Appended, Bounds};

/// Takes any bytes at all, and panics if what holds for all of them does not.
type Target = fn(&[u8]);

/// Every target here, by name.
pub(crate) const TARGETS: &[(&str, Target)] =
    &[("websocket", websocket), ("viewer", viewer), ("ingest", ingest), ("query", query)];

/// The most that one input may make a machine say.
const STEPS: usize = 100_000;

/// However a client's bytes are cut, the same messages are found in them, and the same fault.
fn websocket(data: &[u8]) {
    let Some((&cut, bytes)) = data.split_first() else { return };
    let whole = decoded(bytes, bytes.len().max(1));
    assert_eq!(decoded(bytes, 1), whole);
    assert_eq!(decoded(bytes, usize::from(cut) + 1), whole);
}

/// Messages and control frames, as text to compare; a fault is the last of them.
fn decoded(bytes: &[u8], step: usize) -> Vec<String> {
    let (mut decoder, mut found) = (Decoder::new(256), Vec::new());
    for chunk in bytes.chunks(step) {
        let mut chunk = chunk.to_vec();
        let mut input = &mut chunk[..];
        loop {
            match decoder.next(&mut input) {
                Ok(None) => break,
                Ok(Some(Received::Close { code })) => {
                    found.push(format!("close {code:?}"));
                    return found;
                }
                Ok(Some(received)) => found.push(format!("{received:?}")),
                Err(fault) => {
                    // A message that is both too large and no text has two faults: which is seen first depends on the cut.
                    found.push("fault".to_owned());
                    assert!((1000..5000).contains(&fault.close_code()));
                    return found;
                }
            }
        }
    }
    found
}

/// A viewer that sends each line as a frame. What it asks for is answered in all the ways there are, by turns.
fn viewer(data: &[u8]) {
    let mut now = start();
    let mut viewer = Viewer::new(now);
    let mut turn = 0_u8;
    for line in data.split(|byte| *byte == b'\n') {
        turn = turn.wrapping_add(line.first().copied().unwrap_or(1));
        now += Duration::from_millis(u64::from(turn) * 20);
        viewer.handle_text(now, line);
        for step in 0.. {
            assert!(step < STEPS, "the machine comes to rest");
            let Some(action) = viewer.poll(now) else { break };
            turn = turn.wrapping_add(1);
            match action {
                viewer::Action::Send(_) => viewer.handle_sent(),
                viewer::Action::Open(log) if turn.is_multiple_of(4) => {
                    viewer.handle_refused(&log, no_such_log())
                }
                viewer::Action::Open(log) => drop(viewer.handle_opened(&log, bounds())),
                viewer::Action::Read { log, .. } => viewer.handle_nothing(&log),
                viewer::Action::Leave(_) => {}
                viewer::Action::Command { id, .. } => {
                    viewer.handle_result(CommandResult::refused(id, ErrorCode::AgentOffline, "nobody"));
                }
                viewer::Action::Close { .. } => {
                    assert!(viewer.poll(now).is_none(), "nothing follows a close");
                    return;
                }
            }
        }
        assert!(viewer.deadline() >= start());
        viewer.handle_time(viewer.deadline().max(now), Timestamp::from_unix_ms(0));
    }
}

/// A wrapper that sends each line as a frame, before a store that takes everything.
fn ingest(data: &[u8]) {
    let mut now = start();
    let mut link = Ingest::new(now);
    let (mut acked, mut head) = (0_u64, Seq::ZERO);
    for line in data.split(|byte| *byte == b'\n') {
        now += Duration::from_millis(50);
        if !link.wants_input() {
            return;
        }
        link.handle_text(now, line);
        for step in 0.. {
            assert!(step < STEPS, "the machine comes to rest");
            let Some(action) = link.poll(now) else { break };
            match action {
                ingest::Action::Send(_)
                | ingest::Action::TurnAway(_)
                | ingest::Action::Presence { .. }
                | ingest::Action::Result(_) => {}
                ingest::Action::Open(_) => link.handle_opened(&appended(acked, head, 0), None),
                ingest::Action::Append(batch) => {
                    let producer = batch.producer.expect("a wrapper numbers its events");
                    let count = batch.events.len();
                    assert!(count > 0 && producer.first > acked, "only what is new is appended");
                    acked = producer.first + count as u64 - 1;
                    head = Seq::new(head.get() + count as u64);
                    link.handle_appended(&appended(acked, head, count));
                }
                ingest::Action::Close { .. } => {
                    assert!(link.poll(now).is_none(), "nothing follows a close");
                    return;
                }
            }
        }
        link.handle_time(link.deadline().max(now));
    }
}

/// What a query holds: ids, logs, cursors, times, types.
fn query(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    one_form::<AgentId>(text);
    one_form::<LogId>(text);
    if let Ok(cursor) = text.parse::<Cursor>() {
        assert_eq!(cursor.to_string().parse(), Ok(cursor), "{text}");
    }
    if let Ok(time) = text.parse::<Timestamp>() {
        assert_eq!(time.to_string().parse::<Timestamp>().ok(), Some(time), "{text}");
    }
    let (list, kind) = text.split_once('\n').unwrap_or((text, "message.updated"));
    if let Ok(filter) = TypeFilter::parse(list) {
        assert!(filter.passes(kind) || !filter.is_all(), "no pattern lets everything pass");
    }
}

fn one_form<T: FromStr + Display>(text: &str) {
    if let Ok(value) = text.parse::<T>() {
        assert_eq!(value.to_string(), text, "a name has one form");
    }
}

fn bounds() -> Bounds {
    Bounds { epoch: Epoch::new("e1"), floor: Seq::new(3), head: Seq::new(9) }
}

fn appended(acked: u64, head: Seq, appended: usize) -> Appended {
    Appended { epoch: Epoch::new("e1"), head, appended, acked }
}

fn no_such_log() -> ErrorDetail {
    ErrorDetail::new(ErrorCode::UnknownLog, "there is no such log")
}

/// The same in every run of one process: only differences of times count.
fn start() -> Instant {
    static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    *START.get_or_init(clock)
}

#[expect(clippy::disallowed_methods, reason = "an instant can be had from nowhere else")]
fn clock() -> Instant {
    Instant::now()
}
