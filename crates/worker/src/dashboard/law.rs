//! The laws of live pages, tried with every recording of a real agent server: patches lead where rendering leads,
//! whoever joins ends with the page that everyone has, and nothing that a log holds becomes markup.

mod logs;

use protocol::{Event, RawData, frame::PatchOp};
use serde_json::Value;

use self::logs::{compact, everything, recordings};
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
