//! Events over the limit are cut to fit (§3, §11): the long texts in them, with a mark that says how long they were.
//!
//! What an event is about (its ids, hence its key and effect) always stays. The longest texts go first: they are cut in the
//! middle, since the beginning says what it is and the end how it went; data URLs go whole. Each mark names the file that has what is
//! missing there: a text, or the whole payload where items and fields were left out.

use std::path::{Path, PathBuf};

use protocol::{NewEvent, RawData, limits::EVENT_DATA_BYTES};
use serde_json::{Map, Value, json};

/// How much of a value is kept, from generous to little.
const LEVELS: [Level; 5] = [
    Level { text: 64 * 1024, items: usize::MAX },
    Level { text: 16 * 1024, items: usize::MAX },
    Level { text: 4 * 1024, items: usize::MAX },
    Level { text: 1024, items: 256 },
    Level { text: 256, items: 64 },
];

/// Fields of an object of which nothing else fits, and the bytes of each: three such objects are below the limit.
const FIELDS: usize = 32;
const FIELD: usize = 128;

/// Bytes of a file's name, without its ending.
const NAME: usize = 128;

#[derive(Debug, Clone, Copy)]
struct Level {
    /// Bytes of one text.
    text: usize,
    /// Items of one list, entries of one object.
    items: usize,
}

/// What was cut, and where its whole is to be kept.
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
    let name = file_name(event);
    let whole =
        std::mem::replace(&mut event.data, RawData::of(&Value::Null).expect("a JSON value serialises"));
    tracing::info!(kind = &*event.kind, bytes = len, "an event is over the limit: it is cut");
    for level in LEVELS {
        let mut cutter = Cutter { level, name: &name, keep_in, cuts: Vec::new(), leaves_out: false };
        event.data = RawData::of(&cutter.value(&value)).expect("a JSON value serialises");
        if event.data.json().len() <= EVENT_DATA_BYTES {
            return cutter.cuts(whole.json());
        }
    }
    let level = Level { text: FIELD, items: FIELDS };
    let mut cutter = Cutter { level, name: &name, keep_in, cuts: Vec::new(), leaves_out: false };
    event.data = RawData::of(&cutter.skeleton(&value)).expect("a JSON value serialises");
    cutter.cuts(whole.json())
}

/// What an event's files are called, by what it is about. One that is about nothing is replaced by none: its time tells it from others.
fn file_name(event: &NewEvent) -> String {
    let about = event.classify().key.map(|key| key.as_str().to_owned());
    let about = about.unwrap_or_else(|| format!("{}-{}", event.kind, event.time.unix_ms()));
    let plain = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '-' };
    let mut name: String = about.chars().map(plain).collect();
    if name.len() > NAME {
        name.truncate(NAME - 9);
        name += &format!("-{:08x}", crc32c::crc32c(about.as_bytes()));
    }
    name
}

#[derive(Debug)]
struct Cutter<'a> {
    level: Level,
    name: &'a str,
    keep_in: Option<&'a Path>,
    cuts: Vec<Cut>,
    /// Items or fields: no text of their own is kept.
    leaves_out: bool,
}

impl Cutter<'_> {
    /// What an event is about, and how its texts begin and end.
    fn skeleton(&mut self, value: &Value) -> Value {
        let len = value.to_string().len();
        let mark = self.mark_left_out(&format!("most of {len} bytes"));
        let mut fields: Vec<(&String, &Value)> = value.as_object().into_iter().flatten().collect();
        fields.retain(|(name, _)| name.len() <= FIELD);
        let is_inner = |name: &str| matches!(name, "part" | "info" | "state");
        fields.sort_by_key(|(name, value)| (!is_inner(name) && !is_small(value), name.len()));
        let mut kept = Map::new();
        for (name, value) in fields.into_iter().take(FIELDS) {
            let value = match value {
                Value::Object(_) if is_inner(name) => self.skeleton(value),
                Value::Object(_) if name == "input" && !is_small(value) => json!({ "trimmed": mark }),
                Value::String(text) => Value::String(self.text(text)),
                _ if is_small(value) => value.clone(),
                Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
                    continue;
                }
            };
            kept.insert(name.clone(), value);
        }
        kept.insert("trimmed".to_owned(), Value::String(mark));
        Value::Object(kept)
    }

    fn value(&mut self, value: &Value) -> Value {
        match value {
            Value::String(text) => Value::String(self.text(text)),
            Value::Array(items) => {
                let kept = self.level.items;
                let mut list: Vec<Value> = items.iter().take(kept).map(|item| self.value(item)).collect();
                if items.len() > kept {
                    let gone = format!("{} of {} items", items.len() - kept, items.len());
                    list.push(Value::String(self.mark_left_out(&gone)));
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
        let gone = format!("{} of {} fields", fields.len() - object.len(), fields.len());
        object.insert("trimmed".to_owned(), Value::String(self.mark_left_out(&gone)));
        object
    }

    fn text(&mut self, text: &str) -> String {
        let len = text.len();
        if len <= self.level.text {
            return text.to_owned();
        }
        let kept_at = self.keep(text);
        if let Some(mime) = mime_of_data_url(text) {
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
        let kept_at = whole_in(folder, &file);
        self.cuts.push(Cut { file, text: text.to_owned() });
        kept_at
    }

    /// The mark in the place of what is left out, of which the whole payload is kept.
    fn mark_left_out(&mut self, gone: &str) -> String {
        self.leaves_out = true;
        let kept_at = self.keep_in.map(|folder| whole_in(folder, &self.file_of_all())).unwrap_or_default();
        format!("[trimmed: {gone}{kept_at}]")
    }

    /// What is to be kept.
    fn cuts(mut self, whole: &str) -> Vec<Cut> {
        if self.leaves_out && self.keep_in.is_some() {
            let file = self.file_of_all();
            self.cuts.push(Cut { file, text: whole.to_owned() });
        }
        self.cuts
    }

    fn file_of_all(&self) -> PathBuf {
        PathBuf::from(format!("{}.json", self.name))
    }
}

fn whole_in(folder: &Path, file: &Path) -> String {
    format!(", whole in {}", folder.join(file).display())
}

/// The type in a data URL (RFC 2397), which has no blanks before its data as other texts have.
fn mime_of_data_url(text: &str) -> Option<&str> {
    let (mime, _) = text.strip_prefix("data:")?.split_once(',')?;
    let is_mime = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~/;=\"".contains(&byte);
    (mime.len() <= 128 && mime.bytes().all(is_mime)).then_some(mime)
}

fn is_small(value: &Value) -> bool {
    match value {
        Value::String(text) => text.len() <= FIELD,
        Value::Null | Value::Bool(_) | Value::Number(_) => true,
        Value::Array(_) | Value::Object(_) => value.to_string().len() <= FIELD,
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

    #[test]
    fn what_is_left_out_is_kept_in_a_file_of_the_whole() {
        let file = |n: u32| json!({ "file": format!("src/{n}.rs") });
        let many: Vec<Value> = (0..100_000).map(file).collect();
        for input in [json!({ "files": many }), json!({ "lists": too_many_lists() })] {
            let mut event = tool(
                &json!({ "status": "completed", "input": input, "output": "done\n".repeat(100), "title": "look" }),
            );
            let whole = event.data.json().to_owned();
            let cuts = fit(&mut event, Some(Path::new("kept")));
            assert!(event.data.json().len() <= EVENT_DATA_BYTES);
            assert!(event.data.json().contains(", whole in kept/part-msg_1-prt_1.json]"));
            assert_eq!(cuts.last().unwrap(), &Cut { file: "part-msg_1-prt_1.json".into(), text: whole });
        }
    }

    #[test]
    fn a_skeleton_is_still_a_call_of_its_tool_with_the_ends_of_its_output_and_its_times() {
        let output = format!("first{}last", "x".repeat(1_000));
        let mut event = tool(&json!({
            "status": "completed", "input": { "lists": too_many_lists() }, "output": output, "title": "look", "time": { "start": 1, "end": 2 },
        }));
        fit(&mut event, None);
        let state = part(&event)["state"].clone();
        let said = state["output"].as_str().unwrap();
        assert!(
            said.starts_with("first") && said.ends_with("last") && said.contains("of 1009 bytes"),
            "{said}"
        );
        assert_eq!((&state["title"], &state["time"]), (&json!("look"), &json!({ "start": 1, "end": 2 })));
        let mark = state["input"]["trimmed"].as_str().unwrap();
        assert!(mark.starts_with("[trimmed: most of "), "{mark}");
    }

    #[test]
    fn a_text_that_only_begins_as_a_data_url_does_keeps_its_ends() {
        let text = format!("data: {{\"a\": 1, \"b\": 2}}\n{}end", "data: x\n".repeat(50_000));
        let mut event = tool(&json!({ "status": "completed", "output": text }));
        fit(&mut event, None);
        let cut = part(&event)["state"]["output"].as_str().unwrap().to_owned();
        assert!(cut.starts_with("data: {\"a\": 1") && cut.ends_with("end"));
    }

    #[test]
    fn events_of_no_entity_have_files_of_their_own_and_no_name_is_too_long() {
        let long =
            json!({ "sessionID": "s", "error": { "name": "x", "data": { "message": "m".repeat(300_000) } } });
        let names = [1, 2].map(|ms| {
            let mut event = event("session.error", &long.to_string());
            event.time = protocol::Timestamp::from_unix_ms(ms);
            fit(&mut event, Some(Path::new("kept"))).remove(0).file
        });
        assert_ne!(names[0], names[1]);
        let part = |id: char| {
            let part = json!({ "id": id.to_string().repeat(1_000), "messageID": "m".repeat(1_000), "type": "text", "text": "x".repeat(300_000) });
            let mut event = event("message.part.updated", &json!({ "part": part }).to_string());
            fit(&mut event, Some(Path::new("kept"))).remove(0).file
        };
        assert!(part('a').as_os_str().len() < 255);
        assert_ne!(part('a'), part('b'));
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

    /// None of them is long, and nothing but a skeleton fits.
    fn too_many_lists() -> Value {
        json!(vec![vec!["x".repeat(100); 60]; 60])
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
