//! The laws of live pages, tried with every recording of a real agent server: patches lead where rendering leads,
//! whoever joins ends with the page that everyone has, and nothing that a log holds becomes markup.

use std::path::PathBuf;

use protocol::{Effect, Event, NewEvent, RawData, Seq, Timestamp, frame::PatchOp, session_of};
use serde_json::{Value, json};

use super::{
    dom::Dom,
    model::Model,
    page::regions,
    part::{Reader, Scope},
    transcript::Cache,
    tree::{self, Node},
};

#[test]
fn patches_lead_where_rendering_leads() {
    for (name, events) in recordings() {
        let mut model = Model::default();
        let mut cache = Cache::default();
        let mut page = regions::all(&model, &scope(), &mut cache);
        let mut dom = document(&page);
        // Every event on its own where there are few; bursts of a prime length where there are thousands.
        let burst = if events.len() > 1_000 { 17 } else { 1 };
        for (n, events) in events.chunks(burst).enumerate() {
            for event in events {
                model.apply(event);
            }
            let next = regions::all(&model, &scope(), &mut cache);
            patch(&mut dom, page.iter().zip(&next).flat_map(|(old, new)| tree::diff(old, new)));
            page = next;
            if n % 16 == 0 {
                assert_same(&dom, &document(&page), &name);
            }
        }
        assert_same(&dom, &document(&page), &name);
        let anew = regions::all(&model, &scope(), &mut Cache::default());
        assert_same(&document(&page), &document(&anew), &format!("{name}: rows from the cache"));
    }
}

#[test]
fn p2_who_joins_at_any_position_ends_with_the_page_of_everyone() {
    for (name, events) in recordings() {
        let whole = fold(&events);
        let compacted = fold(&compact(&events));
        for (kind, model) in [("whole", whole), ("compacted", compacted)] {
            let page = render(&model);
            let removed = model.view.removed().map(|(_, removed)| removed.seq).max().unwrap_or_default();
            for n in (0..events.len()).step_by(events.len() / 12 + 1) {
                let seq = events[n].seq;
                let mut dom = document(&render(&fold(&events[..=n])));
                patch(
                    &mut dom,
                    page.iter().flat_map(|region| {
                        if removed > seq { tree::whole(region) } else { tree::since(region, seq) }
                    }),
                );
                assert_same(&dom, &document(&page), &format!("{name}, {kind}, joined at {seq}"));
            }
        }
    }
}

#[test]
fn a_page_that_begins_later_changes_as_the_end_of_the_whole_one() {
    for (name, events) in recordings() {
        let half = fold(&events[..events.len() / 2]);
        let (mut cache, mut model) = (Cache::default(), half);
        let mut page = regions::all(&model, &scope(), &mut cache);
        for window in [2, 5] {
            let rows = transcript(&page).children();
            let first = rows.len().saturating_sub(window);
            let Some(first_id) = rows.get(first).map(|row| row.id.clone()) else { continue };
            let from = |page: &[Node]| {
                let transcript = transcript(page);
                let first = transcript.children().iter().position(|row| row.id == first_id);
                first.map(|first| Dom::parse(&transcript.html_from(first)))
            };
            let mut dom = from(&page).unwrap();
            for events in events[events.len() / 2..].chunks(3) {
                for event in events {
                    model.apply(event);
                }
                let next = regions::all(&model, &scope(), &mut cache);
                patch(&mut dom, tree::diff(transcript(&page), transcript(&next)));
                page = next;
            }
            // What moved or came to stand before the first row is not seen; what stands from there on is.
            let Some(anew) = from(&page) else { continue };
            let (dom, anew) = (dom.outline(), anew.outline());
            assert!(dom.ends_with(anew.split_once('\n').unwrap().1.split_once('\n').unwrap().1), "{name}");
        }
    }
}

#[test]
fn a_guest_is_shown_no_ask_no_form_and_no_way_to_anything_else() {
    for (name, events) in recordings() {
        for n in [events.len() / 3, events.len() / 2, events.len()] {
            let scope = Scope { reader: Reader::Guest, ..scope() };
            let page = regions::all(&fold(&events[..n]), &scope, &mut Cache::default());
            for element in document(&page).elements() {
                assert!(!matches!(element.name(), "form" | "input" | "textarea"), "{name}");
                let leads = element.attributes().iter().find(|(name, _)| name == "href");
                assert!(leads.is_none_or(|(_, to)| !to.starts_with('/')), "{name}: {leads:?}");
            }
        }
    }
}

#[test]
fn text_that_is_written_is_appended_rather_than_sent_again() {
    let (mut deltas, mut appends, mut rows) = (0, 0, 0);
    for (_, events) in recordings() {
        let mut model = Model::default();
        let mut cache = Cache::default();
        let mut page = regions::all(&model, &scope(), &mut cache);
        for event in events.iter().take(600) {
            model.apply(event);
            let next = regions::all(&model, &scope(), &mut cache);
            let ops: Vec<PatchOp> =
                page.iter().zip(&next).flat_map(|(old, new)| tree::diff(old, new)).collect();
            if &*event.kind == "message.part.delta" {
                deltas += 1;
                appends += ops.iter().filter(|op| matches!(op, PatchOp::Append(..))).count();
                rows += ops
                    .iter()
                    .filter(
                        |op| matches!(op, PatchOp::Replace(_, html) if html.starts_with("<li class=\"part")),
                    )
                    .count();
            }
            page = next;
        }
    }
    assert!(deltas > 500 && appends * 10 > deltas * 8, "{appends} of {deltas} deltas were appended");
    assert!(rows * 20 < deltas, "{rows} of {deltas} deltas sent a whole row again");
}

#[test]
fn every_id_is_on_the_page_once() {
    for (name, events) in recordings() {
        let dom = document(&render(&fold(&events)));
        let mut ids: Vec<&str> = dom.elements().iter().filter_map(|element| element.id()).collect();
        ids.sort_unstable();
        for pair in ids.windows(2) {
            assert_ne!(pair[0], pair[1], "{name}");
        }
    }
}

#[test]
fn nothing_that_a_log_holds_becomes_markup() {
    const HOSTILE: [&str; 4] = [
        "\"><script>alert(1)</script><img src=x onerror=alert(1)>",
        "'><svg onload=alert(1)> [x](javascript:alert(1)) <a href=\"javascript:alert(1)\">",
        "</textarea></pre></code></title><style>*{}</style><iframe src=//evil>",
        "\u{1b}]8;;javascript:alert(1)\u{7}x\u{1b}[31m<b onclick=alert(1)>\r\n```html\n<script>\n",
    ];
    for hostile in HOSTILE {
        for (name, events) in recordings() {
            if events.len() > 1_000 {
                continue;
            }
            let mut model = Model::default();
            for (n, event) in events.iter().enumerate() {
                let mut data: Value = event.data.parse().unwrap();
                poison(&mut data, hostile);
                let mut poisoned = event.clone();
                poisoned.data = RawData::of(&data).unwrap();
                model.apply(&poisoned);
                if n % 40 == 0 || n + 1 == events.len() {
                    assert_harmless(&document(&render(&model)), &name);
                }
            }
        }
    }
}

#[test]
fn a_reader_who_may_not_steer_is_shown_no_form() {
    for (name, events) in recordings() {
        for n in [events.len() / 2, events.len()] {
            let scope = Scope { reader: Reader::Reads, ..scope() };
            let page = regions::all(&fold(&events[..n]), &scope, &mut Cache::default());
            let dom = document(&page);
            assert!(
                dom.elements().iter().all(|element| element.name() != "button"
                    || element
                        .attributes()
                        .iter()
                        .any(|(name, _)| name == "data-act" || name == "data-show")),
                "{name}"
            );
        }
    }
}

#[test]
fn a_log_of_everything_looks_as_it_did() {
    insta::assert_snapshot!(document(&render(&fold(&everything()))).outline());
}

/// Poisons texts of people and models, not the words that say what something is.
fn poison(value: &mut Value, hostile: &str) {
    const WORDS: [&str; 12] = [
        "type",
        "status",
        "role",
        "tool",
        "field",
        "id",
        "sessionID",
        "messageID",
        "partID",
        "requestID",
        "parentID",
        "sessionId",
    ];
    match value {
        Value::String(text) => text.push_str(hostile),
        Value::Array(items) => items.iter_mut().for_each(|item| poison(item, hostile)),
        Value::Object(fields) => {
            for (name, field) in fields.iter_mut() {
                if !(WORDS.contains(&name.as_str()) && field.is_string()) {
                    poison(field, hostile);
                }
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn assert_harmless(dom: &Dom, name: &str) {
    for element in dom.elements() {
        assert!(
            !["script", "style", "iframe", "img", "object", "base"].contains(&element.name()),
            "{name}: <{}>",
            element.name()
        );
        for (attribute, value) in element.attributes() {
            assert!(!attribute.starts_with("on") && attribute != "style", "{name}: {attribute}={value:?}");
            assert!(
                attribute.chars().all(|c| c.is_ascii_alphabetic() || c == '-'),
                "{name}: {attribute}={value:?}"
            );
            if ["href", "src", "action"].contains(&attribute.as_str()) {
                let start = value.to_ascii_lowercase();
                assert!(
                    ["#", "/", "http://", "https://", "mailto:"].iter().any(|safe| start.starts_with(safe)),
                    "{name}: {value:?}"
                );
                assert!(!start.starts_with("//"), "{name}: {value:?}");
            }
        }
    }
}

fn patch(dom: &mut Dom, ops: impl IntoIterator<Item = PatchOp>) {
    for op in ops {
        // The page module sees operations as JSON.
        let json = serde_json::to_string(&op).unwrap();
        dom.apply(&serde_json::from_str(&json).unwrap());
    }
}

fn assert_same(left: &Dom, right: &Dom, what: &str) {
    let (left, right) = (left.outline(), right.outline());
    if left != right {
        let differs = left.lines().zip(right.lines()).position(|(a, b)| a != b).unwrap_or(0);
        let near = |text: &str| {
            text.lines()
                .skip(differs.saturating_sub(3))
                .take(8)
                .map(|line| line.chars().take(240).collect::<String>())
                .collect::<Vec<_>>()
                .join("\n")
        };
        panic!("{what}: line {differs}\n--- patched\n{}\n--- rendered\n{}", near(&left), near(&right));
    }
}

fn document(page: &[Node]) -> Dom {
    Dom::parse(&page.iter().map(Node::html).collect::<String>())
}

fn transcript(page: &[Node]) -> &Node {
    page.iter().find(|region| &*region.id == "transcript").unwrap()
}

fn render(model: &Model) -> Vec<Node> {
    regions::all(model, &scope(), &mut Cache::default())
}

fn fold(events: &[Event]) -> Model {
    let mut model = Model::default();
    for event in events {
        model.apply(event);
    }
    model
}

fn scope() -> Scope {
    Scope {
        agent: "toast".parse().unwrap(),
        reader: Reader::Steers,
        directory: "/home/dev/c_tools".to_owned(),
    }
}

/// What a log keeps of events (§3).
fn compact(events: &[Event]) -> Vec<Event> {
    let mut kept: Vec<Event> = Vec::new();
    for event in events {
        if let Some(key) = &event.key {
            match event.effect() {
                Effect::Append => {}
                Effect::Replace => kept.retain(|earlier| earlier.key.as_ref() != Some(key)),
                Effect::Remove => kept.retain(|earlier| {
                    let below = earlier.key.as_ref().is_some_and(|earlier| key.covers(earlier));
                    let of_session = key
                        .as_str()
                        .strip_prefix("session/")
                        .is_some_and(|id| earlier.session.as_deref() == Some(id));
                    !below && !of_session
                }),
            }
        }
        kept.push(event.clone());
    }
    kept
}

/// Every recording, as the log of an agent would hold it.
fn recordings() -> Vec<(String, Vec<Event>)> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../event-protocol/tests/recordings");
    let mut recordings = Vec::new();
    for server in ["kilo-7.7.7", "opencode-1.18.33"] {
        let mut files: Vec<PathBuf> =
            std::fs::read_dir(root.join(server)).unwrap().map(|file| file.unwrap().path()).collect();
        files.sort();
        for file in files {
            let name = file.file_name().unwrap().to_str().unwrap().to_owned();
            if name.ends_with(".jsonl") && !name.contains(".http.") {
                recordings
                    .push((format!("{server}/{name}"), events(&std::fs::read_to_string(&file).unwrap())));
            }
        }
    }
    assert!(recordings.len() >= 16, "the recordings are there");
    recordings.push(("everything".to_owned(), everything()));
    recordings
}

/// What no recording holds: Gastown's own events, and tools and parts of other servers.
fn everything() -> Vec<Event> {
    let tool = |id: &str, tool: &str, state: Value| {
        let part = json!({ "id": id, "messageID": "msg_2", "sessionID": "s", "type": "tool", "tool": tool, "callID": id, "state": state });
        ("message.part.updated", json!({ "sessionID": "s", "part": part }))
    };
    let done = |input: Value, output: &str, metadata: Value| json!({ "status": "completed", "input": input, "output": output, "title": "t", "metadata": metadata, "time": { "start": 1, "end": 2 } });
    let part = |id: &str, mut body: Value| {
        body["id"] = id.into();
        body["messageID"] = "msg_2".into();
        body["sessionID"] = "s".into();
        ("message.part.updated", json!({ "sessionID": "s", "part": body }))
    };
    let question = json!({ "questions": [{ "question": "Which?", "header": "h", "multiple": true, "options": [{ "label": "a", "description": "b" }] },
        { "question": "And?", "header": "h", "options": [] }] });
    let mut asked = question.clone();
    asked["id"] = "que_1".into();
    asked["sessionID"] = "s".into();
    let list = vec![
        (
            "agent.started",
            json!({ "generation": 3, "runtime": "opencode", "version": "1", "session": "s", "resumed": true, "directory": "/d" }),
        ),
        ("wrapper.resumed", json!({ "generation": 4, "detail": "took over" })),
        (
            "session.created",
            json!({ "sessionID": "s", "info": { "id": "s", "title": "t", "directory": "/d", "time": { "created": 1 } } }),
        ),
        (
            "message.updated",
            json!({ "sessionID": "s", "info": { "id": "msg_1", "sessionID": "s", "role": "user", "time": { "created": 2 } } }),
        ),
        (
            "message.part.updated",
            json!({ "sessionID": "s", "part": { "id": "p1", "messageID": "msg_1", "sessionID": "s", "type": "text", "text": "# do\n`it`" } }),
        ),
        (
            "message.updated",
            json!({ "sessionID": "s", "info": { "id": "msg_2", "sessionID": "s", "role": "assistant", "modelID": "m", "time": { "created": 3 } } }),
        ),
        tool(
            "t01",
            "grep",
            done(
                json!({ "pattern": "x", "path": "/d" }),
                "/d/a.rs:\n  Line 3: x\nplain",
                json!({ "matches": 1 }),
            ),
        ),
        tool("t02", "read", done(json!({ "filePath": "/d/a.rs" }), "x", json!({ "preview": "fn x() {}" }))),
        tool(
            "t03",
            "read",
            json!({ "status": "running", "input": { "filePath": "/d/b.rs" }, "time": { "start": 1 } }),
        ),
        tool(
            "t03",
            "read",
            json!({ "status": "error", "input": { "filePath": "/d/b.rs" }, "error": "not there", "time": { "start": 1, "end": 2 } }),
        ),
        tool("t04", "glob", done(json!({ "pattern": "*.rs" }), "a.rs", json!({ "count": 1 }))),
        tool(
            "t05",
            "webfetch",
            done(json!({ "url": "https://a.example" }), "[x](https://b.example)", json!({})),
        ),
        tool("t06", "mail_send", done(json!({ "to": "heron", "n": 3, "list": ["a"] }), "sent", json!({}))),
        tool("t07", "question", done(question, "", json!({ "answers": [["a"], ["own"]] }))),
        tool(
            "t08",
            "multiedit",
            done(json!({ "filePath": "/d/a.rs", "oldString": "a b c", "newString": "a x c" }), "", json!({})),
        ),
        tool(
            "t09",
            "write",
            done(json!({ "filePath": "/d/n.rs", "content": "fn n() {}" }), "", json!({ "exists": false })),
        ),
        tool(
            "t10",
            "bash",
            json!({ "status": "running", "input": { "command": "ls", "description": "List" }, "metadata": { "output": "\u{1b}[31ma" }, "time": { "start": 1 } }),
        ),
        tool(
            "t11",
            "task",
            json!({ "status": "running", "input": { "description": "look", "subagent_type": "general", "prompt": "p" }, "time": { "start": 1 } }),
        ),
        (
            "session.created",
            json!({ "sessionID": "c", "info": { "id": "c", "parentID": "s", "title": "child", "time": { "created": 4 } } }),
        ),
        (
            "message.updated",
            json!({ "sessionID": "c", "info": { "id": "msg_3", "sessionID": "c", "role": "assistant", "time": { "created": 5 } } }),
        ),
        (
            "message.part.updated",
            json!({ "sessionID": "c", "part": { "id": "p3", "messageID": "msg_3", "sessionID": "c", "type": "text", "text": "" } }),
        ),
        (
            "message.part.delta",
            json!({ "sessionID": "c", "messageID": "msg_3", "partID": "p3", "field": "text", "delta": "One\n\nTwo" }),
        ),
        tool(
            "t11",
            "task",
            json!({ "status": "running", "input": { "description": "look", "subagent_type": "general" }, "metadata": { "sessionId": "c" }, "time": { "start": 1 } }),
        ),
        (
            "session.error",
            json!({ "sessionID": "c", "error": { "name": "APIError", "data": { "message": "bad", "statusCode": 400 } } }),
        ),
        part("p20", json!({ "type": "file", "mime": "image/png", "filename": "a.png", "url": "data:x" })),
        part("p21", json!({ "type": "subtask", "prompt": "p", "description": "d", "agent": "general" })),
        part("p22", json!({ "type": "agent", "name": "plan" })),
        part(
            "p23",
            json!({ "type": "retry", "attempt": 2, "error": { "name": "APIError", "data": { "message": "slow down" } } }),
        ),
        part("p24", json!({ "type": "compaction", "auto": true })),
        part("p25", json!({ "type": "hologram", "depth": 3, "note": "of a newer server" })),
        part("p26", json!({ "type": "reasoning", "text": "" })),
        (
            "message.part.delta",
            json!({ "sessionID": "s", "messageID": "msg_2", "partID": "p26", "field": "text", "delta": "I think" }),
        ),
        part("p26", json!({ "type": "reasoning", "text": "I think\nso", "time": { "start": 1, "end": 2 } })),
        part("p27", json!({ "type": "text", "text": "half a", "metadata": { "interrupted": true } })),
        (
            "session.status",
            json!({ "sessionID": "s", "status": { "type": "retry", "attempt": 2, "message": "Rate limit", "next": 1_795_199_100_000_i64 } }),
        ),
        (
            "permission.asked",
            json!({ "id": "per_1", "sessionID": "s", "permission": "edit", "patterns": ["a"], "always": ["*"],
            "metadata": { "filepath": "/d/a.rs", "diff": "@@ -1,1 +1,1 @@\n-a\n+b\n" } }),
        ),
        ("question.asked", asked),
        ("session.network.asked", json!({ "id": "que_2", "sessionID": "s", "message": "reset" })),
        ("session.status", json!({ "sessionID": "s", "status": { "type": "offline", "message": "reset" } })),
        ("session.network.replied", json!({ "sessionID": "s", "requestID": "que_2" })),
        ("question.rejected", json!({ "sessionID": "s", "requestID": "que_1" })),
        ("permission.replied", json!({ "sessionID": "s", "requestID": "per_1", "reply": "always" })),
        ("session.status", json!({ "sessionID": "s", "status": { "type": "idle" } })),
        (
            "todo.updated",
            json!({ "sessionID": "s", "todos": [{ "content": "x", "status": "cancelled", "priority": "high" }] }),
        ),
        ("wrapper.events_dropped", json!({ "from": 3, "to": 9, "reason": "disk full" })),
        ("wrapper.lost", json!({ "since": "2026-11-20T18:10:16.123Z" })),
        (
            "session.error",
            json!({ "sessionID": "s", "error": { "name": "MessageAbortedError", "data": { "message": "Aborted" } } }),
        ),
        (
            "message.updated",
            json!({ "sessionID": "s", "info": { "id": "msg_2", "sessionID": "s", "role": "assistant", "time": { "created": 3, "completed": 9 },
            "error": { "name": "MessageAbortedError", "data": { "message": "Aborted" } } } }),
        ),
        ("agent.done", json!({ "summary": "all is done" })),
        (
            "agent.failed",
            json!({ "message": "it died: start it again", "exit_code": 101, "stderr": ["a", "\u{1b}[31mb"] }),
        ),
        ("agent.exited", json!({ "reason": "stopped", "code": 0 })),
    ];
    let at = |n: usize, (kind, data): (&str, Value)| {
        let data = RawData::of(&data).unwrap();
        let session = session_of(kind, data.json());
        let time = Timestamp::from_unix_ms(1_795_199_000_000 + n as i64);
        NewEvent { time, kind: kind.into(), session, data }.at(Seq::new(n as u64 * 2 + 1))
    };
    list.into_iter().enumerate().map(|(n, event)| at(n, event)).collect()
}

fn events(recording: &str) -> Vec<Event> {
    let mut events = Vec::new();
    for line in recording.lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        let (Some(t_ms), Some(event)) = (line["t_ms"].as_f64(), line["event"].as_object()) else { continue };
        let kind = event["type"].as_str().unwrap();
        if protocol::Class::of(kind) == protocol::Class::Volatile {
            continue;
        }
        let data = RawData::of(&event["properties"]).unwrap();
        let session = session_of(kind, data.json());
        #[expect(clippy::cast_possible_truncation, reason = "recordings are minutes long")]
        let time = Timestamp::from_unix_ms(1_795_199_000_000 + t_ms as i64);
        let new = NewEvent { time, kind: kind.into(), session, data };
        events.push(new.at(Seq::new(events.len() as u64 * 3 + 5)));
    }
    events
}
