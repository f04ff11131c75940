//! The recordings of real agent servers: one event per line, and the HTTP calls that were made beside it.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use protocol::{Class, Event, NewEvent, RawData, Seq, Timestamp, session_of, view::SessionView};
use serde::Deserialize;
use serde_json::{Value, value::RawValue};

/// Folders of recordings in another shape, and which.
const OTHER_FORMATS: &[(&str, &str)] = &[(
    "acp-opencode-1.18.33",
    "JSON-RPC messages of the Agent Client Protocol, both directions: no event stream",
)];

/// One run of a server.
pub(crate) struct Recording {
    /// `<server>/<scenario>`.
    pub(crate) name: String,
    /// What its event stream sent, with the milliseconds since the start.
    pub(crate) events: Vec<(f64, NewEvent)>,
    /// What was asked of it.
    pub(crate) calls: Vec<Call>,
}

/// One HTTP call.
#[derive(Deserialize)]
pub(crate) struct Call {
    pub(crate) t_ms: f64,
    pub(crate) took_ms: f64,
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) status: u16,
    pub(crate) response: Value,
}

impl Recording {
    /// Every recording of an opencode or kilo server.
    pub(crate) fn all() -> Vec<Self> {
        let servers = names(&folder())
            .into_iter()
            .filter(|server| OTHER_FORMATS.iter().all(|(other, _)| other != server));
        let mut all = Vec::new();
        for server in servers {
            let files = names(&folder().join(&server));
            let scenarios = files.iter().filter_map(|file| file.strip_suffix(".jsonl"));
            all.extend(
                scenarios
                    .filter(|name| !name.ends_with(".http"))
                    .map(|scenario| Self::load(&server, scenario)),
            );
        }
        assert!(all.len() >= 17, "the recordings are checked in");
        all
    }

    fn load(server: &str, scenario: &str) -> Self {
        let name = format!("{server}/{scenario}");
        let events = lines(&format!("{name}.jsonl")).iter().filter_map(|line| event(line)).collect();
        let calls = lines(&format!("{name}.http.jsonl"))
            .iter()
            .map(|line| serde_json::from_str(line).expect("a call is one JSON object per line"))
            .collect();
        Self { name, events, calls }
    }

    /// The log of this run: its events that are not volatile, numbered, with the milliseconds since the start.
    fn numbered(&self) -> impl Iterator<Item = (f64, Event)> {
        let kept = self.events.iter().filter(|(_, event)| event.classify().class != Class::Volatile);
        kept.zip(1..).map(|((at, event), seq)| (*at, event.clone().at(Seq::new(seq))))
    }

    /// The log of this run.
    pub(crate) fn log(&self) -> Vec<Event> {
        self.numbered().map(|(_, event)| event).collect()
    }

    /// The part of the log that came after one time and until another.
    pub(crate) fn log_between(&self, after_ms: f64, until_ms: f64) -> Vec<Event> {
        let of_it = |(at, event)| (after_ms < at && at <= until_ms).then_some(event);
        self.numbered().filter_map(of_it).collect()
    }

    /// The fold of the log as far as it came until a time.
    pub(crate) fn fold_until(&self, until_ms: f64) -> SessionView {
        fold(&self.log_between(f64::NEG_INFINITY, until_ms))
    }
}

impl Call {
    /// When the answer was there.
    pub(crate) fn end_ms(&self) -> f64 {
        self.t_ms + self.took_ms
    }

    /// The path without its query.
    pub(crate) fn bare_path(&self) -> &str {
        self.path.split('?').next().expect("a split has a first piece")
    }
}

/// The fold of a log.
pub(crate) fn fold<'e>(log: impl IntoIterator<Item = &'e Event>) -> SessionView {
    let mut view = SessionView::default();
    for event in log {
        view.apply(event);
    }
    view
}

/// The names in a folder, sorted.
fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("the recordings are checked in");
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/recordings")
}

fn lines(path: &str) -> Vec<String> {
    let text = fs::read_to_string(folder().join(path)).expect("the recordings are checked in");
    text.lines().map(str::to_owned).collect()
}

/// One line of an event stream, as a wrapper would send it on; `None` for the client's own remarks.
fn event(line: &str) -> Option<(f64, NewEvent)> {
    #[derive(Deserialize)]
    struct Line<'a> {
        t_ms: f64,
        #[serde(borrow)]
        event: Option<ServerEvent<'a>>,
    }
    #[derive(Deserialize)]
    struct ServerEvent<'a> {
        #[serde(rename = "type")]
        kind: String,
        #[serde(borrow)]
        properties: Option<&'a RawValue>,
    }
    let line: Line<'_> = serde_json::from_str(line).expect("an event is one JSON object per line");
    let event = line.event?;
    let data = event.properties.map_or_else(|| RawData::from_json("{}").unwrap(), RawData::from);
    let session: Option<Arc<str>> = session_of(&event.kind, data.json());
    #[expect(clippy::cast_possible_truncation, reason = "milliseconds of a run")]
    let time = Timestamp::from_unix_ms(line.t_ms as i64);
    Some((line.t_ms, NewEvent { time, kind: event.kind.into(), session, data }))
}
