//! The laws of live pages, tried with every recording of a real agent server: patches lead where rendering leads,
//! whoever joins ends with the page that everyone has, and nothing that a log holds becomes markup.

use std::path::PathBuf;

use protocol::{Effect, Event, NewEvent, RawData, Seq, Timestamp, session_of};
use serde_json::Value;

use super::{
    dom::Dom,
    model::Model,
    page::regions,
    part::Scope,
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
            for n in (0..events.len()).step_by(events.len() / 40 + 1) {
                let seq = events[n].seq;
                let mut dom = document(&render(&fold(&events[..=n])));
                patch(&mut dom, page.iter().flat_map(|region| if removed > seq { tree::whole(region) } else { tree::since(region, seq) }));
                assert_same(&dom, &document(&page), &format!("{name}, {kind}, joined at {seq}"));
            }
        }
    }
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
                if n % 8 == 0 || n + 1 == events.len() {
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
            let scope = Scope { steer: false, ..scope() };
            let page = regions::all(&fold(&events[..n]), &scope, &mut Cache::default());
            let dom = document(&page);
            assert!(dom.elements().iter().all(|element| element.name() != "button" || element.attributes().iter().any(|(name, value)| name == "data-act" && value == "copy")), "{name}");
        }
    }
}

/// Poisons texts of people and models, not the words that say what something is.
fn poison(value: &mut Value, hostile: &str) {
    const WORDS: [&str; 12] =
        ["type", "status", "role", "tool", "field", "id", "sessionID", "messageID", "partID", "requestID", "parentID", "sessionId"];
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
        assert!(!["script", "style", "iframe", "img", "object", "base"].contains(&element.name()), "{name}: <{}>", element.name());
        for (attribute, value) in element.attributes() {
            assert!(!attribute.starts_with("on") && attribute != "style", "{name}: {attribute}={value:?}");
            assert!(attribute.chars().all(|c| c.is_ascii_alphabetic() || c == '-'), "{name}: {attribute}={value:?}");
            if ["href", "src", "action"].contains(&attribute.as_str()) {
                let start = value.to_ascii_lowercase();
                assert!(["#", "/", "http://", "https://", "mailto:"].iter().any(|safe| start.starts_with(safe)), "{name}: {value:?}");
                assert!(!start.starts_with("//"), "{name}: {value:?}");
            }
        }
    }
}

fn patch(dom: &mut Dom, ops: impl IntoIterator<Item = protocol::frame::PatchOp>) {
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
        let near = |text: &str| text.lines().skip(differs.saturating_sub(3)).take(8).map(|line| line.chars().take(240).collect::<String>()).collect::<Vec<_>>().join("\n");
        panic!("{what}: line {differs}\n--- patched\n{}\n--- rendered\n{}", near(&left), near(&right));
    }
}

fn document(page: &[Node]) -> Dom {
    Dom::parse(&page.iter().map(Node::html).collect::<String>())
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
    Scope { agent: "toast".parse().unwrap(), steer: true, directory: "/home/dev/c_tools".to_owned() }
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
                    let of_session = key.as_str().strip_prefix("session/").is_some_and(|id| earlier.session.as_deref() == Some(id));
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
        let mut files: Vec<PathBuf> = std::fs::read_dir(root.join(server)).unwrap().map(|file| file.unwrap().path()).collect();
        files.sort();
        for file in files {
            let name = file.file_name().unwrap().to_str().unwrap().to_owned();
            if name.ends_with(".jsonl") && !name.contains(".http.") {
                recordings.push((format!("{server}/{name}"), events(&std::fs::read_to_string(&file).unwrap())));
            }
        }
    }
    assert!(recordings.len() >= 16, "the recordings are there");
    recordings
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
