//! What an event costs on its way through a relay, step by step, on one core and without I/O: what a wrapper sent is
//! decoded, classified, given its envelope, framed for all viewers at once, and folded by those who show it. What the
//! store adds is in `crates/event-store/benches`; what it comes to with sockets and a disk, in `docs/benchmarks.md`.

use std::{hint::black_box, sync::Arc};

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use gastown_relay::Segment;
use protocol::{
    Event, LogId, NewEvent, RawData, Seq, Timestamp, classify,
    codec::Frame as _,
    frame::{FromWrapper, encode_events},
    session_of,
    view::SessionView,
};
use store::Record;

criterion_group!(benches, decode, classifier, envelope, segment, fold);
criterion_main!(benches);

/// An `append` frame of 64 pieces of text.
fn decode(criterion: &mut Criterion) {
    let frame = FromWrapper::Append { first: 1, events: deltas(64) }.encode();
    let mut group = criterion.benchmark_group("decode");
    group.throughput(Throughput::Elements(64));
    group.bench_function("append_of_64", |bencher| {
        bencher.iter(|| FromWrapper::decode(black_box(&frame)).expect("it is a frame"));
    });
}

/// Every event of a recorded session, with the payloads that servers send.
fn classifier(criterion: &mut Criterion) {
    let events = recorded();
    let mut group = criterion.benchmark_group("classify");
    group.throughput(Throughput::Elements(events.len() as u64));
    group.bench_function("recorded_session", |bencher| {
        bencher.iter(|| {
            for event in &events {
                black_box(event.classify());
            }
        });
    });
    let delta = &deltas(1)[0];
    group.throughput(Throughput::Elements(1));
    group.bench_function("piece_of_text", |bencher| {
        bencher.iter(|| classify(black_box(&delta.kind), delta.session.as_deref(), delta.data.json()));
    });
}

/// The envelope, made once per event.
fn envelope(criterion: &mut Criterion) {
    let event = deltas(1).remove(0).at(Seq::new(1));
    let mut group = criterion.benchmark_group("encode");
    group.throughput(Throughput::Elements(1));
    group.bench_function("envelope", |bencher| bencher.iter(|| black_box(&event).encode()));
}

/// 64 events as one frame, shared by all viewers.
fn segment(criterion: &mut Criterion) {
    let log: LogId = "agent/a1".parse().expect("it is a log's name");
    let records = records(deltas(64));
    let mut group = criterion.benchmark_group("encode");
    group.throughput(Throughput::Elements(64));
    group.bench_function("events_frame_of_64", |bencher| {
        bencher.iter(|| encode_events(&log, records.iter().map(|record| &record.envelope)));
    });
    group.bench_function("segment_of_64", |bencher| {
        bencher.iter_batched(
            || records.clone(),
            |records| Segment::encode(&log, records),
            BatchSize::SmallInput,
        );
    });
}

/// A session, from its first event to its last.
fn fold(criterion: &mut Criterion) {
    let place = |(n, event): (usize, NewEvent)| event.at(Seq::new(n as u64 + 1));
    for (name, events) in [("recorded_session", recorded()), ("2000_pieces_of_one_text", deltas(2_000))] {
        let events: Vec<Event> = events.into_iter().enumerate().map(place).collect();
        let mut group = criterion.benchmark_group("fold");
        group.throughput(Throughput::Elements(events.len() as u64));
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let mut view = SessionView::default();
                events.iter().for_each(|event| view.apply(event));
                view
            });
        });
    }
}

/// Pieces of one text, of about 512 bytes: what agents mostly say.
fn deltas(count: usize) -> Vec<NewEvent> {
    let delta = "All happy families are alike; each unhappy family is unhappy in its own way. ".repeat(4);
    let data = format!(
        r#"{{"sessionID":"ses_1","messageID":"msg_1","partID":"prt_1","field":"text","delta":"{delta}"}}"#
    );
    vec![event("message.part.delta", data); count]
}

/// The session that the demonstration plays.
fn recorded() -> Vec<NewEvent> {
    let lines = include_str!("../../../demo/recording.jsonl").lines();
    let parse = |line: &str| {
        let line: serde_json::Value = serde_json::from_str(line).expect("the recording is JSON");
        // A line without an event says something of the recording itself.
        let kind = line["event"]["type"].as_str()?;
        Some(event(kind, line["event"]["properties"].to_string()))
    };
    lines.filter_map(parse).collect()
}

fn event(kind: &str, data: String) -> NewEvent {
    let session = session_of(kind, &data);
    let data = RawData::from_json(data).expect("it is JSON");
    NewEvent { time: Timestamp::from_unix_ms(0), kind: kind.into(), session, data }
}

fn records(events: Vec<NewEvent>) -> Vec<Record> {
    let record = |(n, event): (usize, NewEvent)| {
        let event = event.at(Seq::new(n as u64 + 1));
        Record {
            seq: event.seq,
            kind: Arc::clone(&event.kind),
            key: event.key.clone(),
            envelope: event.encode(),
        }
    };
    events.into_iter().enumerate().map(record).collect()
}
