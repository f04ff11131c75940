//! What `event-protocol` decodes: no input panics, and what was understood is understood again after it was written.

use std::fmt::Debug;

use bytes::Bytes;
use protocol::{
    Command, CommandResult, Event, NewEvent, Seq, classify,
    codec::Frame,
    frame::{FromViewer, FromWrapper, ToViewer, ToWrapper},
    session_of,
    sse::{Decoder, SseEvent},
    view::SessionView,
};

/// Takes any bytes at all, and panics if what holds for all of them does not.
type Target = fn(&[u8]);

/// Every target here, by name.
pub(crate) const TARGETS: &[(&str, Target)] =
    &[("frame", frame), ("event", event), ("command", command), ("sse", sse)];

/// A frame of any of the four kinds.
fn frame(data: &[u8]) {
    decoded::<FromViewer>(data);
    decoded::<ToWrapper>(data);
    if let Some(FromWrapper::Append { events, .. }) = decoded::<FromWrapper>(data) {
        for event in &events {
            let _ = event.classify();
        }
    }
    if let Some(ToViewer::Events { events, .. }) = decoded::<ToViewer>(data) {
        fold(&events);
    }
}

/// An event with its position, or one on its way to a log; a line each, folded together.
fn event(data: &[u8]) {
    let mut events = Vec::new();
    for line in data.split(|byte| *byte == b'\n') {
        if let Ok(event) = serde_json::from_slice::<Event>(line) {
            let again: Event = serde_json::from_slice(&event.encode()).expect("an envelope is an event");
            assert_eq!(again.data.json(), event.data.json(), "data is kept byte for byte");
            events.push(event);
        } else if let Ok(event) = serde_json::from_slice::<NewEvent>(line) {
            let _ = (event.classify(), session_of(&event.kind, event.data.json()));
            let seq = u64::try_from(events.len()).expect("a short input");
            events.push(event.at(Seq::new(seq + 1)));
        } else if let Ok(text) = std::str::from_utf8(line) {
            let (kind, rest) = text.split_once(' ').unwrap_or((text, ""));
            let _ = (classify(kind, None, rest), session_of(kind, rest));
        }
    }
    fold(&events);
}

fn command(data: &[u8]) {
    json::<Command>(data);
    json::<CommandResult>(data);
}

/// However the bytes of a stream are cut, the same events are found in them.
fn sse(data: &[u8]) {
    let whole = read(data, data.len().max(1));
    assert_eq!(read(data, 1), whole);
    assert_eq!(read(data, 7), whole);
}

fn read(data: &[u8], step: usize) -> Vec<SseEvent> {
    let (mut decoder, mut found) = (Decoder::new(4096), Vec::new());
    for chunk in data.chunks(step) {
        let mut chunk = Bytes::copy_from_slice(chunk);
        loop {
            match decoder.next(&mut chunk) {
                Ok(Some(event)) => found.push(event),
                Ok(None) => break,
                Err(_) => return found,
            }
        }
    }
    found
}

fn decoded<F: Frame + Debug>(data: &[u8]) -> Option<F> {
    let frame = F::decode(data).ok()?;
    let text = frame.encode();
    // What a frame leaves out can make its text longer than the one that was read.
    if text.len() <= F::MAX_BYTES {
        F::decode(&text).unwrap_or_else(|error| panic!("{error}: {frame:?}"));
    }
    Some(frame)
}

fn json<T: serde::Serialize + serde::de::DeserializeOwned>(data: &[u8]) {
    if let Ok(value) = serde_json::from_slice::<T>(data) {
        let text = serde_json::to_vec(&value).expect("it serialises");
        serde_json::from_slice::<T>(&text)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&text)));
    }
}

fn fold(events: &[Event]) {
    let mut view = SessionView::default();
    for event in events {
        view.apply(event);
    }
    // As text: what an agent server said stays as it said it, numbers that no float holds included.
    serde_json::to_vec(&view).map(drop::<Vec<u8>>).expect("a view serialises");
    for session in view.sessions() {
        let _ = (session.total_usage(), session.context_tokens(), session.children(), session.queued());
        for part in session.messages().iter().flat_map(|message| message.parts()) {
            let _ = (part.to_json(), part.kind(), part.body().tool().map(|tool| tool.state.output()));
        }
    }
    let _ = (view.roots(), view.pending(), view.answered(), view.malformed());
}
