//! Frames: what is written can be read, limits are kept, and nothing that arrives makes a codec panic.

use proptest::prelude::*;
use protocol::{
    Command, CommandId, Cursor, Delivery, Epoch, ErrorCode, ErrorDetail, Event, LogId, NewEvent,
    PermissionReply, Prompt, RawData, Seq, Timestamp,
    codec::{DecodeError, Frame},
    frame::{
        FromViewer, FromWrapper, GapReason, IngestLimits, PatchOp, RuntimeInfo, StartAt, ToViewer, ToWrapper,
        WrapperPresence, WrapperState, encode_events,
    },
    limits,
};

#[test]
fn every_frame_to_a_viewer_survives_its_encoding() {
    for frame in to_viewer() {
        assert_eq!(ToViewer::decode(&frame.encode()).unwrap(), frame);
    }
}

#[test]
fn every_frame_from_a_viewer_survives_its_encoding() {
    for frame in from_viewer() {
        assert_eq!(FromViewer::decode(&frame.encode()).unwrap(), frame);
    }
}

#[test]
fn every_frame_from_a_wrapper_survives_its_encoding() {
    for frame in from_wrapper() {
        assert_eq!(FromWrapper::decode(&frame.encode()).unwrap(), frame);
    }
}

#[test]
fn every_frame_to_a_wrapper_survives_its_encoding() {
    for frame in to_wrapper() {
        assert_eq!(ToWrapper::decode(&frame.encode()).unwrap(), frame);
    }
}

#[test]
fn p9_payloads_pass_through_frames_byte_for_byte() {
    let odd = r#"{ "z":1.0,  "a":[1e2, "\u0041"] , "n":123456789012345678901234567890 }"#;
    let frame = format!(
        r#"{{"type":"append","first":1,"events":[{{"time":"2026-11-20T18:10:16.123Z","type":"x","data":{odd}}}]}}"#
    );
    let FromWrapper::Append { events, .. } = FromWrapper::decode(frame.as_bytes()).unwrap() else {
        panic!("it is an append")
    };
    assert_eq!(events[0].data.json(), odd);
    let event = events[0].clone().at(Seq::new(1));
    let sent = encode_events(&log(), [&event.encode()]);
    let ToViewer::Events { events, .. } = ToViewer::decode(&sent).unwrap() else {
        panic!("these are events")
    };
    assert_eq!(events[0].data.json(), odd);
    assert_eq!(events[0].encode(), event.encode());
}

#[test]
fn envelopes_that_are_encoded_already_make_the_same_frame() {
    for n in 0..3 {
        let events: Vec<Event> = (0..n).map(|seq| event().at(Seq::new(seq + 1))).collect();
        let envelopes: Vec<_> = events.iter().map(Event::encode).collect();
        let frame = ToViewer::Events { log: log(), events };
        assert_eq!(encode_events(&log(), &envelopes), frame.encode());
    }
}

#[test]
fn fields_that_are_not_known_are_skipped() {
    let pong = FromViewer::decode(br#"{"type":"pong","mood":"good"}"#).unwrap();
    assert_eq!(pong, FromViewer::Pong);
    let frame = br#"{"since":1,"type":"append","first":1,"events":[]}"#;
    assert_eq!(FromWrapper::decode(frame).unwrap(), FromWrapper::Append { first: 1, events: vec![] });
}

#[test]
fn an_append_is_one_wherever_its_type_stands_and_however_it_is_spelled() {
    let event = r#"{"time":"2026-11-20T18:10:16.123Z","type":"note","data":{"type":"hello"}}"#;
    let frames = [
        format!(r#"{{"type":"append","first":7,"events":[{event}]}}"#),
        format!(r#"{{"events":[{event}],"later":{{}},"first":7,"type":"append"}}"#),
        format!(r#"{{"type":"\u0061ppend","first":7,"events":[{event}]}}"#),
    ];
    let [first, others @ ..] = frames.map(|frame| FromWrapper::decode(frame.as_bytes()).unwrap());
    assert!(matches!(&first, FromWrapper::Append { first: 7, events } if events.len() == 1));
    assert!(others.iter().all(|other| *other == first));
    let hello = format!(r#"{{"type":"heartbeat","first":7,"events":[{event}]}}"#);
    assert_eq!(FromWrapper::decode(hello.as_bytes()).unwrap(), FromWrapper::Heartbeat);
}

#[test]
fn p20_a_frame_at_the_limit_is_read_and_one_byte_more_is_refused() {
    let padded = |len: usize| {
        let mut frame = br#"{"type":"pong"}"#.to_vec();
        frame.resize(len, b' ');
        frame
    };
    assert_eq!(FromViewer::decode(&padded(limits::VIEWER_FRAME_BYTES)).unwrap(), FromViewer::Pong);
    let error = FromViewer::decode(&padded(limits::VIEWER_FRAME_BYTES + 1)).unwrap_err();
    assert!(matches!(error, DecodeError::TooLarge { limit: limits::VIEWER_FRAME_BYTES, .. }), "{error}");
    assert_eq!(error.code(), ErrorCode::TooLarge);
}

#[test]
fn an_event_of_the_hard_size_fits_an_ingest_frame() {
    let data = RawData::of(&"x".repeat(limits::EVENT_DATA_HARD_BYTES - 2)).unwrap();
    let frame = FromWrapper::Append { first: 1, events: vec![NewEvent { data, ..event() }] };
    assert_eq!(FromWrapper::decode(&frame.encode()).unwrap(), frame);
}

#[test]
fn p20_a_depth_bomb_is_refused_also_inside_a_payload() {
    // The frame, its list and its event are three of the levels.
    let append = |depth: usize| {
        let bomb = format!("{}{}", "[".repeat(depth - 3), "]".repeat(depth - 3));
        format!(
            r#"{{"type":"append","first":1,"events":[{{"time":"2026-11-20T18:10:16.123Z","type":"x","data":{bomb}}}]}}"#
        )
    };
    assert!(FromWrapper::decode(append(limits::JSON_DEPTH).as_bytes()).is_ok());
    let error = FromWrapper::decode(append(limits::JSON_DEPTH + 1).as_bytes()).unwrap_err();
    assert!(matches!(error, DecodeError::TooDeep { .. }), "{error}");
    assert_eq!(error.code(), ErrorCode::BadRequest);
    assert!(FromWrapper::decode("[".repeat(limits::INGEST_FRAME_BYTES).as_bytes()).is_err());
}

#[test]
fn brackets_inside_of_strings_are_not_depth() {
    let text = format!(r#"\"{}\\"#, "[{".repeat(200));
    let frame = format!(r#"{{"type":"bye","reason":"{text}"}}"#);
    assert!(matches!(FromWrapper::decode(frame.as_bytes()), Ok(FromWrapper::Bye { .. })));
}

#[test]
fn a_frame_of_no_known_type_is_a_bad_request() {
    for text in
        ["", "null", "[]", "{}", r#"{"type":7}"#, r#"{"type":"sing"}"#, "\u{feff}{}", "{\"type\":\"pong\"}x"]
    {
        let error = FromViewer::decode(text.as_bytes()).unwrap_err();
        assert_eq!(error.code(), ErrorCode::BadRequest, "{text}");
        assert!(FromWrapper::decode(text.as_bytes()).is_err(), "{text}");
    }
    assert!(FromViewer::decode(b"{\"type\":\"pong\xff\"}").is_err(), "this is not UTF-8");
}

#[test]
fn subscriptions_start_at_the_beginning_at_a_cursor_or_now() {
    let start = |cursor: &str| {
        let frame = format!(r#"{{"type":"subscribe","log":"agent/a1"{cursor}}}"#);
        FromViewer::decode(frame.as_bytes()).map(|frame| {
            let FromViewer::Subscribe { cursor, .. } = frame else { panic!("it is a subscription") };
            cursor
        })
    };
    let at = |seq| Some(StartAt::After(Cursor { epoch: Epoch::new("e"), seq: Seq::new(seq) }));
    assert_eq!(start("").unwrap(), None);
    assert_eq!(start(r#","cursor":null"#).unwrap(), None);
    assert_eq!(start(r#","cursor":{"seq":"head"}"#).unwrap(), Some(StartAt::Head));
    assert_eq!(start(r#","cursor":{"epoch":"e","seq":41}"#).unwrap(), at(41));
    assert_eq!(start(r#","cursor":{"epoch":"e","seq":9007199254740991}"#).unwrap(), at((1 << 53) - 1));
    for refused in
        [r#"{"seq":41}"#, r#"{"epoch":"e"}"#, r#"{"epoch":"e","seq":-1}"#, r#"{"epoch":"e","seq":1.5}"#, "7"]
    {
        assert!(start(&format!(r#","cursor":{refused}"#)).is_err(), "{refused}");
    }
}

#[test]
fn a_position_that_no_json_reader_holds_exactly_is_refused() {
    for seq in ["9007199254740992", "18446744073709551615", "18446744073709551616", "1e300"] {
        let cursor = format!(r#"{{"epoch":"e","seq":{seq}}}"#);
        assert!(serde_json::from_str::<Cursor>(&cursor).is_err(), "{seq}");
        assert!(format!("e:{seq}").parse::<Cursor>().is_err(), "{seq}");
    }
    assert_eq!("e:9007199254740991".parse::<Cursor>().unwrap().seq, Seq::MAX);
}

#[test]
fn patch_operations_are_arrays_of_their_own_length() {
    let read = serde_json::from_str::<PatchOp>;
    assert_eq!(read(r#"["insert","p",null,"h"]"#).unwrap(), PatchOp::Insert("p".into(), None, "h".into()));
    for refused in [
        r#"["remove"]"#,
        r#"["remove","a","b"]"#,
        r#"["append","a"]"#,
        r#"["explode","a"]"#,
        "[]",
        r#"["replace",null,"h"]"#,
    ] {
        assert!(read(refused).is_err(), "{refused}");
    }
}

proptest! {
    #[test]
    fn p20_no_bytes_make_a_codec_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = FromViewer::decode(&bytes);
        let _ = FromWrapper::decode(&bytes);
        let _ = ToViewer::decode(&bytes);
        let _ = ToWrapper::decode(&bytes);
    }

    #[test]
    fn p20_no_damaged_frame_makes_a_codec_panic(which in any::<prop::sample::Index>(), at in any::<prop::sample::Index>(), byte: u8) {
        let frames: Vec<_> = to_viewer().iter().map(Frame::encode).chain(from_viewer().iter().map(Frame::encode))
            .chain(from_wrapper().iter().map(Frame::encode)).chain(to_wrapper().iter().map(Frame::encode)).collect();
        let mut bytes = frames[which.index(frames.len())].to_vec();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        let _ = FromViewer::decode(&bytes);
        let _ = FromWrapper::decode(&bytes);
        let _ = ToViewer::decode(&bytes);
        let _ = ToWrapper::decode(&bytes);
    }

    #[test]
    fn any_payload_survives_an_append(text in "\\PC{0,40}", kind in "[a-z.]{1,20}", first in 1_u64..1 << 53) {
        let data = RawData::of(&serde_json::json!({ "text": text })).unwrap();
        let events = vec![NewEvent { kind: kind.as_str().into(), data, ..event() }];
        let frame = FromWrapper::Append { first, events };
        prop_assert_eq!(FromWrapper::decode(&frame.encode()).unwrap(), frame);
    }
}

fn log() -> LogId {
    "agent/a1".parse().unwrap()
}

fn time() -> Timestamp {
    Timestamp::from_unix_ms(1_795_198_984_413)
}

fn event() -> NewEvent {
    NewEvent {
        time: time(),
        kind: "todo.updated".into(),
        session: Some("ses_1".into()),
        data: RawData::from_json(r#"{"sessionID":"ses_1", "todos":[]}"#).unwrap(),
    }
}

fn command_id() -> CommandId {
    "c-1".parse().unwrap()
}

fn to_viewer() -> Vec<ToViewer> {
    let detail = ErrorDetail::new(ErrorCode::AlreadyAnswered, "somebody was faster");
    vec![
        ToViewer::Hello { protocol: 1, heartbeat_ms: 15_000, server: "gastown/0.1.0".into() },
        ToViewer::Subscribed { log: log(), epoch: Epoch::new("e"), floor: Seq::new(12), head: Seq::new(345) },
        ToViewer::Events { log: log(), events: vec![event().at(Seq::new(1)), event().at(Seq::new(3))] },
        ToViewer::Live { log: log(), head: Seq::new(345) },
        ToViewer::Gap {
            log: log(),
            from: Some(Seq::new(1)),
            to: Some(Seq::new(2)),
            reason: GapReason::Pruned,
        },
        ToViewer::Gap { log: log(), from: None, to: None, reason: GapReason::Epoch },
        ToViewer::Presence { log: log(), wrapper: WrapperPresence::Connected, since: time() },
        ToViewer::Patch {
            log: log(),
            seq: Seq::new(7),
            ops: vec![
                PatchOp::Replace("a".into(), "<p id=\"a\">".into()),
                PatchOp::Append("a".into(), "more".into()),
                PatchOp::Insert("p".into(), Some("a".into()), "<i>".into()),
                PatchOp::Insert("p".into(), None, "<i>".into()),
                PatchOp::Remove("a".into()),
            ],
        },
        ToViewer::Heartbeat { time: time() },
        ToViewer::Ended { log: log(), reason: "stopped".into() },
        ToViewer::Error {
            code: ErrorCode::RateLimited,
            message: "slower".into(),
            log: Some(log()),
            retry_after_ms: Some(1_000),
        },
        ToViewer::Result { id: command_id(), ok: false, error: Some(detail), data: None },
    ]
}

fn from_viewer() -> Vec<FromViewer> {
    let cursor = Cursor { epoch: Epoch::new("e"), seq: Seq::new(41) };
    let mut frames = vec![
        FromViewer::Subscribe { log: log(), cursor: None, types: vec![] },
        FromViewer::Subscribe { log: log(), cursor: Some(StartAt::Head), types: vec!["message.*".into()] },
        FromViewer::Subscribe { log: log(), cursor: Some(StartAt::After(cursor)), types: vec![] },
        FromViewer::Unsubscribe { log: log() },
        FromViewer::Pong,
    ];
    frames.extend(commands().into_iter().map(|command| FromViewer::Command {
        id: command_id(),
        agent: "a1".parse().unwrap(),
        command,
    }));
    frames
}

fn commands() -> Vec<Command> {
    let answer = protocol::Answer { id: "que_1".into(), answers: vec![vec!["SQLite".into()], vec![]] };
    vec![
        Command::Prompt(Prompt {
            text: Some("go on".into()),
            delivery: Delivery::Interrupt,
            ..Prompt::default()
        }),
        Command::Abort,
        Command::Permission {
            id: "per_1".into(),
            reply: PermissionReply::Reject,
            message: Some("move it".into()),
        },
        Command::Question(answer),
        Command::QuestionReject { id: "que_1".into() },
        Command::Slash { name: "init".into(), arguments: String::new() },
        Command::Revert { message_id: "msg_1".into() },
        Command::Unrevert,
        Command::Fork { message_id: Some("msg_1".into()) },
        Command::Network { id: "net_1".into() },
        Command::NetworkReject { id: "net_1".into() },
        Command::Stop { drain: true },
        Command::Ping,
    ]
}

fn from_wrapper() -> Vec<FromWrapper> {
    vec![
        FromWrapper::Hello {
            protocol: 1,
            wrapper_version: "0.1.0".into(),
            agent: "a1".parse().unwrap(),
            town: "main".parse().unwrap(),
            producer: "p1".parse().unwrap(),
            generation: 3,
            runtime: RuntimeInfo { name: "kilo".into(), version: "7.7.7".into() },
            next: 18,
        },
        FromWrapper::Append { first: 18, events: vec![event(), event()] },
        FromWrapper::Presence { state: WrapperState::Active, last_activity: time() },
        FromWrapper::Result { id: command_id(), ok: true, error: None, data: Some(serde_json::json!([1])) },
        FromWrapper::Heartbeat,
        FromWrapper::Bye { reason: "done".into() },
    ]
}

fn to_wrapper() -> Vec<ToWrapper> {
    vec![
        ToWrapper::Welcome { protocol: 1, acked: 17, limits: IngestLimits::default(), config: None },
        ToWrapper::Ack { through: 18, seq: Seq::new(99) },
        ToWrapper::Nack {
            first: 19,
            code: ErrorCode::TooLarge,
            message: "an event is too large".into(),
            retry_after_ms: None,
        },
        ToWrapper::Command {
            id: command_id(),
            command: Command::Ping,
            config: Some(protocol::config::TownConfig::default().seal()),
        },
        ToWrapper::Heartbeat,
        ToWrapper::Superseded,
        ToWrapper::Draining { retry_after_ms: 500 },
    ]
}
