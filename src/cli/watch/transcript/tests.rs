//! The transcript of recordings of real agent servers, and of what they do not hold.

use std::{fs, path::PathBuf};

use protocol::{Class, Effect, NewEvent, RawData, model::Role, session_of};
use serde_json::{Value, json};

use super::*;

#[test]
fn every_text_of_every_recording_is_shown_once() {
    let mut texts = 0;
    for name in recordings() {
        let events = recording(&name);
        let shown = squeezed(&plain(&events));
        let mut view = SessionView::default();
        events.iter().for_each(|event| view.apply(event));
        for session in view.roots() {
            for message in session.messages() {
                let answered = message.info().is_some_and(|info| info.role == Role::Assistant);
                for text in message
                    .parts()
                    .filter_map(|part| part.body().text())
                    .filter(|text| answered && text.len() > 40)
                {
                    // Part after part may be the same text; each is shown as often as it was said.
                    let said = said(&view, text);
                    assert_eq!(shown.matches(&squeezed(text)).count(), said, "{name}: {text:?}");
                    texts += 1;
                }
            }
        }
    }
    assert!(texts >= 10, "only {texts} texts were compared");
}

#[test]
fn what_was_shown_is_not_shown_again_when_the_server_repeats_it() {
    let events = recording("opencode-1.18.33/a_plain");
    let mut transcript = watching();
    events.iter().for_each(|event| drop(transcript.apply(event)));
    let finished =
        |event: &&Event| &*event.kind == "message.part.updated" && event.data.json().contains("\"end\"");
    let mut repeats = 0;
    for event in events.iter().filter(finished) {
        let mut repeated = event.clone();
        repeated.seq = transcript.view.seq().next();
        assert_eq!(transcript.apply(&repeated), "", "{}", event.data.json());
        repeats += 1;
    }
    assert!(repeats > 0);
}

#[test]
fn tools_reasoning_and_diffs_as_in_the_recording() {
    insta::assert_snapshot!("tools", plain(&recording("opencode-1.18.33/c_tools")));
}

#[test]
fn a_permission_is_shown_with_what_to_type_and_its_answer_follows() {
    for server in ["opencode-1.18.33", "kilo-7.7.7"] {
        let shown = plain(&recording(&format!("{server}/d_permission")));
        let asked = shown.find("? toast asks to bash").unwrap_or_else(|| panic!("{server}: {shown}"));
        assert!(shown[asked..].contains("gastown permit toast per_"), "{server}: {shown}");
        let answered = shown.find("↳ permission: ").unwrap_or_else(|| panic!("{server}: {shown}"));
        assert!(asked < answered, "{server}: {shown}");
    }
}

#[test]
fn a_question_is_shown_with_its_choices() {
    let shown = plain(&recording("opencode-1.18.33/d2_question"));
    assert!(shown.contains("\n? ") || shown.starts_with("? "), "{shown}");
    assert!(shown.contains("  • "), "{shown}");
    assert!(shown.contains("gastown answer toast que_"), "{shown}");
}

#[test]
fn a_sub_agent_is_introduced_and_set_in() {
    let shown = plain(&recording("opencode-1.18.33/h_subagent"));
    assert_eq!(shown.matches("┌ sub-agent ").count(), 1, "{shown}");
    assert!(shown.lines().any(|line| line.starts_with("│ ")), "{shown}");
}

#[test]
fn an_abort_and_errors_are_told_apart() {
    assert!(plain(&recording("opencode-1.18.33/e_abort")).contains("✂ broken off on request"));
    let shown = plain(&recording("opencode-1.18.33/f_errors"));
    assert!(shown.contains("✗ ") || shown.contains("↻ "), "{shown}");
}

#[test]
fn a_turn_ends_with_a_divider() {
    let shown = plain(&recording("kilo-7.7.7/a_plain"));
    assert!(shown.trim_end().ends_with("──"), "{shown}");
    assert!(shown.contains("── turn ended "), "{shown}");
}

#[test]
fn text_that_was_streamed_as_deltas_appears_piece_by_piece() {
    let mut transcript = watching();
    let told: Vec<String> = streamed().iter().map(|event| transcript.apply(event)).collect();
    assert_eq!(told, ["", "", "\nHel", "lo", "", ""]);
    assert_eq!(transcript.finish(), "\n");
}

#[test]
fn a_text_that_the_server_rewrote_is_shown_whole_again() {
    let mut transcript = watching();
    streamed().iter().for_each(|event| drop(transcript.apply(event)));
    let part = json!({ "id": "p", "messageID": "m", "sessionID": "s", "type": "text", "text": "Goodbye", "time": { "start": 1, "end": 2 } });
    let told = transcript.apply(&event(9, "message.part.updated", &json!({ "part": part })));
    assert_eq!(told, "\n\nGoodbye");
}

#[test]
fn text_that_was_broken_off_says_so() {
    let mut transcript = watching();
    let mut told = String::new();
    streamed().iter().take(4).for_each(|event| told += &transcript.apply(event));
    let part = json!({
        "id": "p", "messageID": "m", "sessionID": "s", "type": "text", "text": "Hello",
        "time": { "start": 1, "end": 2 }, "metadata": { "interrupted": true }
    });
    told += &transcript.apply(&event(9, "message.part.updated", &json!({ "part": part })));
    assert_eq!(told, "\nHello\n✂ broken off\n");
}

#[test]
fn p3_after_a_gap_everything_that_follows_is_shown_anew() {
    let mut transcript = watching();
    streamed().iter().for_each(|event| drop(transcript.apply(event)));
    let gap = transcript.gap(None, None, GapReason::Epoch, Timestamp::default());
    assert!(gap.starts_with("\n⚠ earlier events do not count any more"), "{gap:?}");
    let told: String = streamed().iter().map(|event| transcript.apply(event)).collect();
    assert_eq!(told, "\nHello");
}

#[test]
fn no_recording_can_command_the_terminal() {
    for name in recordings() {
        let shown = plain(&recording(&name));
        assert!(!shown.contains(|c: char| c.is_control() && c != '\n' && c != '\t'), "{name}");
    }
}

#[test]
fn history_stands_in_the_order_of_messages_and_parts_however_the_log_was_compacted() {
    for name in recordings() {
        let events = recording(&name);
        let mut transcript = Transcript::new("toast", Paint::Plain, false);
        let folded: String = compacted(&events).iter().map(|event| transcript.apply(event)).collect();
        assert_eq!(folded, "", "{name}: history is shown when it is complete");
        let shown = squeezed(&transcript.live());
        assert_eq!(transcript.live(), "", "{name}: history is shown once");
        let mut at = 0;
        for session in transcript.view.roots() {
            for message in session.messages() {
                for text in message
                    .parts()
                    .filter_map(|part| part.body().text())
                    .map(squeezed)
                    .filter(|text| text.len() > 40)
                {
                    let found = shown[at..].find(&text);
                    at += found
                        .unwrap_or_else(|| panic!("{name}: {text:?} is not where it was said in {shown}"))
                        + text.len();
                }
            }
        }
    }
}

#[test]
fn in_history_a_sub_agent_stands_where_it_was_called() {
    let mut transcript = Transcript::new("toast", Paint::Plain, false);
    recording("opencode-1.18.33/h_subagent").iter().for_each(|event| drop(transcript.apply(event)));
    let shown = transcript.live();
    let called = shown.find("✓ task").expect("the call");
    let introduced = shown.find("┌ sub-agent").expect("the sub-agent");
    let last = shown.rfind("\n│ ").expect("what the sub-agent did");
    let after = shown[last..].lines().filter(|line| !line.is_empty() && !line.starts_with('│')).count();
    assert!(called < introduced && introduced < last && after > 0, "{shown}");
}

#[test]
fn an_ask_that_waits_is_the_end_of_history_and_an_answered_one_is_not_in_it() {
    let events = recording("opencode-1.18.33/d_permission");
    let asked = events.iter().position(|event| &*event.kind == "permission.asked").expect("an ask");
    let mut waiting = Transcript::new("toast", Paint::Plain, false);
    events[..=asked].iter().for_each(|event| drop(waiting.apply(event)));
    let shown = waiting.live();
    assert!(shown.trim_end().ends_with("once|always|reject"), "{shown}");
    let mut answered = Transcript::new("toast", Paint::Plain, false);
    events.iter().for_each(|event| drop(answered.apply(event)));
    assert!(!answered.live().contains("gastown permit"));
}

#[test]
fn what_goes_on_after_a_cursor_is_shown_although_its_message_was_described_before() {
    let mut transcript = Transcript::new("toast", Paint::Plain, true);
    transcript.live();
    let told: String = streamed()[2..].iter().map(|event| transcript.apply(event)).collect();
    assert_eq!(told, "\nHello");
}

/// A transcript whose history was empty.
fn watching() -> Transcript {
    let mut transcript = Transcript::new("toast", Paint::Plain, false);
    assert_eq!(transcript.live(), "");
    transcript
}

/// What a store keeps: of each entity the newest statement, and what was appended since.
fn compacted(events: &[Event]) -> Vec<Event> {
    let newest = |event: &&Event| {
        let Some(key) = &event.key else { return true };
        let later = events.iter().filter(|later| later.seq > event.seq);
        let mut obsolete = later.filter(|later| match later.effect() {
            Effect::Append => false,
            Effect::Replace => later.key.as_ref() == Some(key),
            Effect::Remove => later.key.as_ref().is_some_and(|removed| removed.covers(key)),
        });
        obsolete.next().is_none()
    };
    events.iter().filter(newest).cloned().collect()
}

/// A message whose text comes as two deltas and then whole.
fn streamed() -> Vec<Event> {
    let part = |text: &str, time: Value| json!({ "part": { "id": "p", "messageID": "m", "sessionID": "s", "type": "text", "text": text, "time": time } });
    let delta = |text: &str| json!({ "sessionID": "s", "messageID": "m", "partID": "p", "field": "text", "delta": text });
    let message =
        json!({ "info": { "id": "m", "sessionID": "s", "role": "assistant", "time": { "created": 1 } } });
    vec![
        event(1, "message.updated", &message),
        event(2, "message.part.updated", &part("", json!({ "start": 1 }))),
        event(3, "message.part.delta", &delta("Hel")),
        event(4, "message.part.delta", &delta("lo")),
        event(5, "message.part.updated", &part("Hello", json!({ "start": 1, "end": 2 }))),
        event(6, "message.updated", &message),
    ]
}

fn event(seq: u64, kind: &str, data: &Value) -> Event {
    let data = RawData::of(data).expect("JSON");
    let session = session_of(kind, data.json());
    NewEvent { time: Timestamp::default(), kind: kind.into(), session, data }.at(Seq::new(seq))
}

fn plain(events: &[Event]) -> String {
    let mut transcript = watching();
    let mut shown: String = events.iter().map(|event| transcript.apply(event)).collect();
    shown += &transcript.finish();
    shown
}

/// How many parts of the agent's own sessions hold this text somewhere.
fn said(view: &SessionView, text: &str) -> usize {
    let messages = view.sessions().into_iter().flat_map(|session| session.messages());
    let texts = messages.flat_map(|message| message.parts().filter_map(|part| part.body().text()));
    texts.map(|other| squeezed(other).matches(&squeezed(text)).count()).sum()
}

fn squeezed(text: &str) -> String {
    text.split_whitespace().filter(|word| !matches!(*word, "·" | "│" | "▌")).collect::<Vec<_>>().join(" ")
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("crates/event-protocol/tests/recordings")
}

fn recordings() -> Vec<String> {
    let mut names = Vec::new();
    for server in ["opencode-1.18.33", "kilo-7.7.7"] {
        for file in fs::read_dir(folder().join(server)).expect("the recordings are checked in") {
            let file = file.expect("a file").file_name().into_string().expect("a name");
            if let Some(scenario) = file.strip_suffix(".jsonl").filter(|name| !name.ends_with(".http")) {
                names.push(format!("{server}/{scenario}"));
            }
        }
    }
    names.sort();
    assert!(names.len() >= 17);
    names
}

fn recording(name: &str) -> Vec<Event> {
    let text = fs::read_to_string(folder().join(format!("{name}.jsonl"))).expect("a recording");
    let lines = text.lines().filter_map(|line| {
        let line: Value = serde_json::from_str(line).expect("one JSON object per line");
        let kind = line["event"]["type"].as_str()?.to_owned();
        (Class::of(&kind) != Class::Volatile).then(|| (kind, line["event"]["properties"].clone()))
    });
    lines.zip(1..).map(|((kind, data), seq)| event(seq, &kind, &data)).collect()
}
