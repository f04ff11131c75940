use std::io::IoSlice;

use proptest::prelude::*;

use super::*;

const LIMIT: usize = 1000;

#[test]
fn a_message_in_one_piece_is_found_where_it_lies() {
    let mut bytes = client_frame(true, 1, b"hello");
    let range = bytes.as_ptr_range();
    let (mut decoder, mut input) = (Decoder::new(LIMIT), &mut bytes[..]);
    let Ok(Some(Received::Text(text))) = decoder.next(&mut input) else { panic!("it is whole") };
    assert_eq!(text, "hello");
    assert!(range.contains(&text.as_ptr()), "nothing was copied");
    assert!(input.is_empty());
}

#[test]
fn fragments_make_one_message_with_control_frames_between_them() {
    let frames = [
        client_frame(false, 1, b"he"),
        client_frame(true, 9, b"there?"),
        client_frame(false, 0, b""),
        client_frame(true, 10, b""),
        client_frame(true, 0, b"llo"),
        client_frame(true, 2, &[0xff]),
    ];
    let all = ["ping there?", "pong", "text hello", "binary [255]"];
    assert_eq!(decode(&frames.concat(), usize::MAX), (all.map(str::to_owned).to_vec(), None));
}

#[test]
fn p20_what_the_rfc_forbids_is_refused_with_its_code() {
    let text_255 = [client_frame(false, 1, b"ab"), client_frame(true, 0, &[0xff])].concat();
    let long = [&[0x81, 0xfe, 0, 5, 0, 0, 0, 0][..], b"hello"].concat();
    let longer = [&[0x81, 0xff, 0, 0, 0, 0, 0, 0, 0, 126, 0, 0, 0, 0][..], &[b'x'; 126]].concat();
    for (name, bytes, code) in [
        ("RSV1", vec![0xc1, 0x80, 0, 0, 0, 0], 1002),
        ("RSV3 in a control frame", vec![0x99, 0x80, 0, 0, 0, 0], 1002),
        ("opcode 3", vec![0x83, 0x80, 0, 0, 0, 0], 1002),
        ("opcode 15", vec![0x8f, 0x80, 0, 0, 0, 0], 1002),
        ("no mask", vec![0x81, 0x00], 1002),
        ("a ping of 126 bytes", vec![0x89, 0xfe], 1002),
        ("a fragmented ping", client_frame(false, 9, b""), 1002),
        ("a fragmented close", client_frame(false, 8, b""), 1002),
        ("a continuation of nothing", client_frame(true, 0, b"x"), 1002),
        ("a message in a message", [client_frame(false, 1, b""), client_frame(true, 1, b"")].concat(), 1002),
        ("a length of 2^63", vec![0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], 1002),
        ("5 in two bytes", long, 1002),
        ("126 in eight bytes", longer, 1002),
        ("half a close code", client_frame(true, 8, &[3]), 1002),
        ("close 999", client_frame(true, 8, &999_u16.to_be_bytes()), 1002),
        ("close 1005", client_frame(true, 8, &1005_u16.to_be_bytes()), 1002),
        ("close 1015", client_frame(true, 8, &1015_u16.to_be_bytes()), 1002),
        ("close 2999", client_frame(true, 8, &2999_u16.to_be_bytes()), 1002),
        ("close 5000", client_frame(true, 8, &5000_u16.to_be_bytes()), 1002),
        ("a reason that is not UTF-8", client_frame(true, 8, &[3, 0xe8, 0xff]), 1007),
        ("text that is not UTF-8", client_frame(true, 1, &[0xc0]), 1007),
        ("text that ends within a character", client_frame(true, 1, &[0xe2, 0x82]), 1007),
        ("fragments that are not UTF-8", text_255, 1007),
        ("a message too long", client_frame(true, 1, &[b'x'; LIMIT + 1])[..8].to_vec(), 1009),
        ("2^62 bytes", vec![0x81, 0xff, 0x40, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], 1009),
    ] {
        for chunk in [1, 3, usize::MAX] {
            let (_, fault) = decode(&bytes, chunk);
            assert_eq!(fault.map(|fault| fault.close_code()), Some(code), "{name} in pieces of {chunk}");
        }
    }
}

#[test]
fn p20_text_that_cannot_become_utf8_is_refused_before_its_message_is_whole() {
    let begun = client_frame(false, 1, &[b'a', 0xce, 0xba, 0xff]);
    assert_eq!(decode(&begun, usize::MAX).1, Some(Fault::NotUtf8));
    let half = &client_frame(true, 1, &[&[0xce, 0xba, 0xff][..], &[b'x'; 50]].concat())[..9];
    assert_eq!(decode(half, 1).1, Some(Fault::NotUtf8));
    let may_go_on = client_frame(false, 1, &[b'a', 0xf0, 0x9f]);
    assert_eq!(decode(&may_go_on, 1).1, None);
}

#[test]
fn the_largest_message_passes_whole_and_in_fragments() {
    let whole = client_frame(true, 1, &[b'x'; LIMIT]);
    let parts = [client_frame(false, 1, &[b'x'; LIMIT - 1]), client_frame(true, 0, b"x")].concat();
    for bytes in [whole, parts] {
        let (seen, fault) = decode(&bytes, usize::MAX);
        assert_eq!((seen[0].len(), fault), ("text ".len() + LIMIT, None));
    }
    let beyond = [client_frame(false, 1, &[b'x'; LIMIT]), client_frame(true, 0, b"x")].concat();
    assert_eq!(decode(&beyond, usize::MAX).1, Some(Fault::TooLarge { limit: LIMIT }));
}

#[test]
fn close_codes_that_may_be_sent_are_taken() {
    for code in [1000_u16, 1001, 1003, 1007, 1011, 1012, 1014, 3000, 4999] {
        let close = client_frame(true, 8, &[&code.to_be_bytes()[..], "straße".as_bytes()].concat());
        assert_eq!(decode(&close, 2), (vec![format!("close {code}")], None));
    }
    assert_eq!(decode(&client_frame(true, 8, b""), 2).0, ["close"]);
}

#[test]
fn nothing_is_held_between_messages() {
    let mut decoder = Decoder::new(LIMIT);
    let mut bytes = [client_frame(false, 1, &[b'x'; 500]), client_frame(true, 0, b"x")].concat();
    let mut input = &mut bytes[..];
    while decoder.next(&mut input).unwrap().is_some() {}
    assert_eq!(decoder.held(), 0);
}

#[test]
fn p20_an_announced_length_costs_nothing() {
    let mut decoder = Decoder::new(1 << 20);
    let mut bytes = [&[0x81, 0xff, 0, 0, 0, 0, 0, 0x0f, 0, 0, 0, 0, 0, 0][..], b"only ten b"].concat();
    assert_eq!(decoder.next(&mut &mut bytes[..]), Ok(None));
    assert!(decoder.held() < 100, "{}", decoder.held());
}

#[test]
fn pings_are_answered_in_order_and_a_flood_of_them_by_the_newest() {
    let mut connection = Connection::new(LIMIT);
    let pings =
        |range: std::ops::Range<u8>| range.map(|n| client_frame(true, 9, &[n])).collect::<Vec<_>>().concat();
    hear(&mut connection, &pings(0..3));
    assert_eq!(sent(&mut connection), (0..3).map(|n| vec![0x8a, 1, n]).collect::<Vec<_>>().concat());
    hear(&mut connection, &pings(0..200));
    let answers = sent(&mut connection);
    assert!(answers.len() < 200, "they do not pile up");
    assert_eq!(answers[answers.len() - 3..], [0x8a, 1, 199]);
}

#[test]
fn a_close_is_answered_with_its_code_and_nothing_follows_it() {
    let mut connection = Connection::new(LIMIT);
    connection.send(text(b"first"));
    hear(&mut connection, &client_frame(true, 8, &[0x0f, 0xa1, b'x']));
    connection.send(text(b"late"));
    connection.close(1000, "too late as well");
    assert!(!connection.is_over());
    assert_eq!(sent(&mut connection), [&b"\x81\x05first"[..], &[0x88, 2, 0x0f, 0xa1]].concat());
    assert!(connection.is_over());
    hear(&mut connection, &client_frame(true, 1, b"it speaks on"));
    assert!(connection.is_over());
}

#[test]
fn a_close_of_the_server_waits_for_the_answer() {
    let mut connection = Connection::new(LIMIT);
    connection.close(4408, "stalled");
    assert_eq!(sent(&mut connection), b"\x88\x09\x11\x38stalled");
    assert!(connection.is_closed() && !connection.is_over());
    hear(&mut connection, &client_frame(true, 1, b"on its way"));
    assert!(!connection.is_over());
    hear(&mut connection, &client_frame(true, 8, &4408_u16.to_be_bytes()));
    assert!(connection.is_over());
}

#[test]
fn after_a_fault_nothing_is_understood_and_the_close_is_the_last_word() {
    let mut connection = Connection::new(LIMIT);
    let mut bytes = [client_frame(true, 3, b""), client_frame(true, 1, b"x")].concat();
    let mut input = &mut bytes[..];
    let Some(Incoming::Fault(fault)) = connection.receive(&mut input) else { panic!("opcode 3 is none") };
    assert_eq!(connection.receive(&mut input), None);
    connection.close(fault.close_code(), &fault.to_string());
    assert_eq!(sent(&mut connection)[2..4], 1002_u16.to_be_bytes());
    assert!(connection.is_over());
}

#[test]
fn what_was_begun_is_finished_and_the_rest_may_be_dropped() {
    let mut connection = Connection::new(LIMIT);
    connection.send(text(b"begun"));
    connection.send(text(b"dropped"));
    connection.sent(3);
    connection.clear_unsent();
    connection.close(4408, "");
    assert_eq!(sent(&mut connection), b"egun\x88\x02\x11\x38");
    connection.sent(0);
    connection.clear_unsent();
    assert!(connection.is_all_sent());
}

#[test]
fn a_reason_is_cut_to_what_a_close_frame_holds() {
    let close = close(Some(1000), &"ö".repeat(100));
    assert_eq!((close.len(), close[1]), (126, 124));
    assert!(std::str::from_utf8(&close[4..]).is_ok());
}

#[test]
fn frames_to_clients_have_the_shortest_header() {
    for (len, header) in [(0, 2), (125, 2), (126, 4), (65_535, 4), (65_536, 10)] {
        let frame = text(&vec![b'x'; len]);
        assert_eq!((frame.len(), frame[0], frame[1] & 0x80), (header + len, 0x81, 0), "{len}");
        assert_eq!(payload(&frame).len(), len);
    }
}

proptest! {
    /// However the bytes are cut, the same is found in them.
    #[test]
    fn cuts_make_no_difference(
        frames in prop::collection::vec((any::<bool>(), 0_u8..11, prop::collection::vec(any::<u8>(), 0..300)), 0..12),
        cuts in prop::collection::vec(1_usize..200, 1..20),
    ) {
        let bytes = frames.iter().map(|(fin, opcode, payload)| client_frame(*fin, *opcode, payload)).collect::<Vec<_>>().concat();
        let whole = decode(&bytes, usize::MAX);
        let mut decoder = Decoder::new(LIMIT);
        let (mut seen, mut fault, mut rest, mut cuts) = (Vec::new(), None, &bytes[..], cuts.into_iter().cycle());
        while !rest.is_empty() && fault.is_none() {
            let (piece, later) = rest.split_at(cuts.next().unwrap_or(1).min(rest.len()));
            fault = feed(&mut decoder, piece, &mut seen);
            rest = later;
        }
        prop_assert_eq!((seen, fault), whole);
    }

    /// No bytes make it panic, or hold more than a message and a control frame.
    #[test]
    fn p20_any_bytes_are_taken_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..600), chunk in 1_usize..100) {
        let mut decoder = Decoder::new(LIMIT);
        for piece in bytes.chunks(chunk) {
            if feed(&mut decoder, piece, &mut Vec::new()).is_some() {
                break;
            }
            prop_assert!(decoder.held() <= 2 * LIMIT + 125);
        }
    }

    #[test]
    fn what_is_sent_in_parts_is_what_was_queued(
        frames in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..20),
        writes in prop::collection::vec(1_usize..60, 1..10),
    ) {
        let mut connection = Connection::new(LIMIT);
        let mut all = Vec::new();
        for frame in &frames {
            let frame = text(frame);
            all.extend_from_slice(&frame);
            connection.send(frame);
        }
        let mut out = Vec::new();
        let mut writes = writes.into_iter().cycle();
        while !connection.is_all_sent() {
            let mut slices = [IoSlice::new(&[]); 3];
            let offered = connection.unsent(&mut slices).iter().flat_map(|slice| slice.to_vec()).collect::<Vec<_>>();
            let taken = writes.next().unwrap_or(1).min(offered.len());
            out.extend_from_slice(&offered[..taken]);
            connection.sent(taken);
        }
        prop_assert_eq!(out, all);
    }
}

/// A frame as a client sends it.
fn client_frame(fin: bool, opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [0x37, 0xfa, 0x21, 0x3d];
    let mut frame = vec![u8::from(fin) << 7 | opcode];
    match payload.len() {
        len @ ..126 => frame.push(0x80 | len as u8),
        len => {
            frame.push(0x80 | 126);
            frame.extend_from_slice(&u16::try_from(len).unwrap().to_be_bytes());
        }
    }
    frame.extend_from_slice(&mask);
    frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

/// What is found in bytes that come in pieces of a size, and the fault that ends it.
fn decode(bytes: &[u8], chunk: usize) -> (Vec<String>, Option<Fault>) {
    let (mut decoder, mut seen) = (Decoder::new(LIMIT), Vec::new());
    let fault = bytes.chunks(chunk).find_map(|piece| feed(&mut decoder, piece, &mut seen));
    (seen, fault)
}

fn feed(decoder: &mut Decoder, piece: &[u8], seen: &mut Vec<String>) -> Option<Fault> {
    let mut piece = piece.to_vec();
    let mut input = &mut piece[..];
    loop {
        match decoder.next(&mut input) {
            Ok(None) => return None,
            Err(fault) => return Some(fault),
            Ok(Some(received)) => seen.push(match received {
                Received::Text(text) => format!("text {text}"),
                Received::Binary(bytes) => format!("binary {bytes:?}"),
                Received::Ping(payload) => format!("ping {}", String::from_utf8_lossy(payload)),
                Received::Pong => "pong".to_owned(),
                Received::Close { code: Some(code) } => format!("close {code}"),
                Received::Close { code: None } => "close".to_owned(),
            }),
        }
    }
}

fn hear(connection: &mut Connection, bytes: &[u8]) {
    let mut bytes = bytes.to_vec();
    let mut input = &mut bytes[..];
    while connection.receive(&mut input).is_some() {}
}

fn sent(connection: &mut Connection) -> Vec<u8> {
    let mut out = Vec::new();
    while !connection.is_all_sent() {
        let mut slices = [IoSlice::new(&[]); 8];
        let before = out.len();
        out.extend(connection.unsent(&mut slices).iter().flat_map(|slice| slice.to_vec()));
        connection.sent(out.len() - before);
    }
    out
}
