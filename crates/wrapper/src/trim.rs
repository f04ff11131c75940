//! Events over the limit are cut to fit (§3, §11): the long texts in them, with a mark that says how long they were.
//!
//! What an event is about (its ids, hence its key and effect) always stays. The longest texts go first: they are cut in the
//! middle, since the beginning says what it is and the end how it went; data URLs go whole.

use std::path::{Path, PathBuf};

use protocol::{NewEvent, RawData, limits::EVENT_DATA_BYTES};
use serde_json::{Map, Value};

/// How much of a value is kept, from generous to little.
const LEVELS: [Level; 5] = [
    Level { text: 64 * 1024, items: usize::MAX },
    Level { text: 16 * 1024, items: usize::MAX },
    Level { text: 4 * 1024, items: usize::MAX },
    Level { text: 1024, items: 256 },
    Level { text: 256, items: 64 },
];

/// Fields of an object of which nothing else fits, and the bytes of each: three such objects are below the limit.
const FIELDS: usize = 64;
const FIELD: usize = 128;

#[derive(Debug, Clone, Copy)]
struct Level {
    /// Bytes of one text.
    text: usize,
    /// Items of one list, entries of one object.
    items: usize,
}

/// A text that was cut, and where its whole is to be kept.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Cut {
    /// The file, below the folder for full texts.
    pub(crate) file: PathBuf,
    /// The whole.
    pub(crate) text: String,
}

/// Cuts an event whose payload is over the limit. With a folder for full texts, the marks name the files in it, and the texts
/// to be put there are returned; one entity has the same files every time.
pub(crate) fn fit(event: &mut NewEvent, keep_in: Option<&Path>) -> Vec<Cut> {
    let len = event.data.json().len();
    if len <= EVENT_DATA_BYTES {
        return Vec::new();
    }
    let Ok(value) = event.data.parse::<Value>() else { return Vec::new() };
    let name = event.classify().key.map_or_else(|| event.kind.to_string(), |key| key.as_str().to_owned());
    let name: String =
        name.chars().map(|c| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '-' }).collect();
    tracing::info!(kind = &*event.kind, bytes = len, "an event is over the limit: it is cut");
    for level in LEVELS {
        let mut cutter = Cutter { level, name: &name, keep_in, cuts: Vec::new() };
        event.data = RawData::of(&cutter.value(&value)).expect("a JSON value serialises");
        if event.data.json().len() <= EVENT_DATA_BYTES {
            return cutter.cuts;
        }
    }
    event.data = RawData::of(&skeleton(&value, len)).expect("a JSON value serialises");
    Vec::new()
}

/// What an event is about, and nothing else.
fn skeleton(value: &Value, len: usize) -> Value {
    let fields = value.as_object().into_iter().flatten();
    let mut kept: Map<String, Value> = fields
        .clone()
        .filter(|(name, value)| name.len() <= FIELD && is_small(value))
        .take(FIELDS)
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    for (name, value) in fields.filter(|(name, _)| matches!(name.as_str(), "part" | "info" | "state")) {
        kept.insert(name.clone(), skeleton(value, value.to_string().len()));
    }
    kept.insert("trimmed".to_owned(), Value::String(format!("[trimmed: most of {len} bytes]")));
    Value::Object(kept)
}

#[derive(Debug)]
struct Cutter<'a> {
    level: Level,
    name: &'a str,
    keep_in: Option<&'a Path>,
    cuts: Vec<Cut>,
}

impl Cutter<'_> {
    fn value(&mut self, value: &Value) -> Value {
        match value {
            Value::String(text) => Value::String(self.text(text)),
            Value::Array(items) => {
                let kept = self.level.items;
                let mut list: Vec<Value> = items.iter().take(kept).map(|item| self.value(item)).collect();
                if items.len() > kept {
                    list.push(Value::String(format!(
                        "[trimmed: {} of {} items]",
                        items.len() - kept,
                        items.len()
                    )));
                }
                Value::Array(list)
            }
            Value::Object(fields) => Value::Object(self.object(fields)),
            Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
        }
    }

    fn object(&mut self, fields: &Map<String, Value>) -> Map<String, Value> {
        let kept = self.level.items;
        if fields.len() <= kept {
            return fields.iter().map(|(name, value)| (name.clone(), self.value(value))).collect();
        }
        // What an event is about is said by ids and words: they stay before anything that is large.
        let mut by_size: Vec<(&String, &Value)> = fields.iter().collect();
        by_size.retain(|(name, _)| name.len() <= self.level.text);
        by_size.sort_by_key(|(name, value)| {
            (!is_small(value) && !matches!(name.as_str(), "part" | "info"), name.len())
        });
        let mut object: Map<String, Value> =
            by_size.into_iter().take(kept).map(|(name, value)| (name.clone(), self.value(value))).collect();
        object.insert(
            "trimmed".to_owned(),
            Value::String(format!("{} of {} fields", fields.len() - object.len(), fields.len())),
        );
        object
    }

    fn text(&mut self, text: &str) -> String {
        let len = text.len();
        if len <= self.level.text {
            return text.to_owned();
        }
        let kept_at = self.keep(text);
        if let Some((mime, _)) = text.strip_prefix("data:").and_then(|rest| rest.split_once(',')) {
            let mime: String = mime.chars().take(64).collect();
            return format!("[trimmed: {len} bytes of {mime}{kept_at}]");
        }
        let (head, tail) = (floor(text, self.level.text * 2 / 3), ceil(text, len - self.level.text / 3));
        let gone = tail - head;
        format!("{}\n… [trimmed: {gone} of {len} bytes{kept_at}] …\n{}", &text[..head], &text[tail..])
    }

    /// Has the whole text kept, and says where.
    fn keep(&mut self, text: &str) -> String {
        let Some(folder) = self.keep_in else { return String::new() };
        let file = PathBuf::from(format!("{}.{}.txt", self.name, self.cuts.len()));
        let kept_at = format!(", whole in {}", folder.join(&file).display());
        self.cuts.push(Cut { file, text: text.to_owned() });
        kept_at
    }
}

fn is_small(value: &Value) -> bool {
    match value {
        Value::String(text) => text.len() <= FIELD,
        Value::Null | Value::Bool(_) | Value::Number(_) => true,
        Value::Array(_) | Value::Object(_) => false,
    }
}

/// The last edge of a character at or before this byte.
fn floor(text: &str, at: usize) -> usize {
    (0..=at).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0)
}

/// The first edge of a character at or after this byte.
fn ceil(text: &str, at: usize) -> usize {
    (at..=text.len()).find(|at| text.is_char_boundary(*at)).unwrap_or(text.len())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::testing::event;

    #[test]
    fn an_event_within_the_limit_stays_byte_for_byte() {
        let data = format!(r#"{{"sessionID" : "s", "text":"{}"}}"#, "x".repeat(EVENT_DATA_BYTES - 64));
        let mut same = event("session.status", &data);
        assert_eq!(fit(&mut same, None), []);
        assert_eq!(same.data.json(), data);
    }

    #[test]
    fn a_long_output_keeps_its_beginning_and_its_end_and_says_how_long_it_was() {
        let output = format!("first\n{}\nlast", "x".repeat(600_000));
        let mut event = tool(&json!({ "status": "completed", "output": output, "title": "make" }));
        fit(&mut event, None);
        let state = part(&event)["state"].clone();
        let cut = state["output"].as_str().unwrap();
        assert!(cut.starts_with("first\n") && cut.ends_with("\nlast"));
        assert!(cut.contains(&format!("of {} bytes", output.len())), "the true size is said");
        assert_eq!((&state["status"], &state["title"]), (&json!("completed"), &json!("make")));
    }

    #[test]
    fn a_picture_goes_whole_and_leaves_its_kind_and_size() {
        let url = format!("data:image/png;base64,{}", "A".repeat(400_000));
        let mut event = tool(&json!({ "status": "completed", "attachments": [{ "url": url }] }));
        fit(&mut event, None);
        let mark = part(&event)["state"]["attachments"][0]["url"].as_str().unwrap().to_owned();
        assert_eq!(mark, format!("[trimmed: {} bytes of image/png;base64]", url.len()));
    }

    #[test]
    fn the_whole_is_kept_in_a_file_that_the_mark_names() {
        let output = "line\n".repeat(100_000);
        let mut event = tool(&json!({ "status": "completed", "output": output }));
        let cuts = fit(&mut event, Some(Path::new(".gastown/output")));
        assert_eq!(cuts, [Cut { file: "part-msg_1-prt_1.0.txt".into(), text: output }]);
        assert!(event.data.json().contains("whole in .gastown/output/part-msg_1-prt_1.0.txt"));
    }

    #[test]
    fn a_multitude_of_small_things_is_cut_too_and_the_ids_stay() {
        let many: Vec<Value> = (0..100_000).map(|n| json!({ "file": format!("src/{n}.rs") })).collect();
        let mut event = tool(&json!({ "status": "completed", "metadata": { "files": many } }));
        fit(&mut event, None);
        assert!(event.data.json().len() <= EVENT_DATA_BYTES);
        assert_eq!(event.classify().key.unwrap().as_str(), "part/msg_1/prt_1");
        assert!(event.data.json().contains("of 100000 items"));
    }

    proptest! {
        // Each case is an event of some hundred KiB.
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn what_is_cut_fits_and_is_about_the_same_thing(value in any_value(), times in 1_usize..300) {
            let many = vec![value; times];
            let before = tool(&json!({ "status": "completed", "metadata": many, "output": "ü".repeat(times * 1000) }));
            let mut after = before.clone();
            fit(&mut after, None);
            prop_assert!(after.data.json().len() <= EVENT_DATA_BYTES, "{}", after.data.json().len());
            let (was, is) = (before.classify(), after.classify());
            prop_assert_eq!((was.class, was.key, was.effect), (is.class, is.key, is.effect));
            let mut again = after.clone();
            fit(&mut again, None);
            prop_assert_eq!(again, after);
        }
    }

    fn any_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            any::<i32>().prop_map(|n| json!(n)),
            ".{0,40}".prop_map(|text| json!(text)),
            Just(json!("\u{1}".repeat(500))),
        ];
        leaf.prop_recursive(4, 24, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..8).prop_map(Value::Array),
                prop::collection::btree_map("[a-z]{1,8}", inner, 0..8)
                    .prop_map(|fields| Value::Object(fields.into_iter().collect())),
            ]
        })
    }

    fn tool(state: &Value) -> NewEvent {
        let part = json!({
            "id": "prt_1", "messageID": "msg_1", "sessionID": "ses_1", "type": "tool", "tool": "bash", "callID": "c",
            "state": state,
        });
        event("message.part.updated", &json!({ "sessionID": "ses_1", "part": part }).to_string())
    }

    fn part(event: &NewEvent) -> Value {
        event.data.parse::<Value>().unwrap()["part"].clone()
    }
}
