//! What the simulated server has on its disk, what it has streamed, and whether a viewer's fold says the same.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use protocol::{
    model::{PartBody, ToolState},
    view::{MessageView, SessionView},
};
use rand::rngs::StdRng;
use serde_json::{Value, json};
use wrapper::runtime::ServerState;

use super::{
    agent_server::SESSION,
    turn::{self, Step},
};

/// All that outlives a process of the server.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) random: StdRng,
    /// When a process was begun, by the simulation's clock.
    pub(super) starts: Vec<Duration>,
    pub(super) failing_starts: u32,
    /// Something happened that the stream did not tell.
    pub(super) has_missed: bool,
    messages: Vec<Stored>,
    /// The texts that were streamed, by part.
    streamed: BTreeMap<String, Streamed>,
    /// How often each prompt was taken.
    taken: BTreeMap<String, u32>,
    is_busy: bool,
    /// Where the messages of the turn that runs begin.
    turn_from: usize,
    ids: u64,
}

/// A message and its parts, as the server's API gives them.
#[derive(Debug)]
struct Stored {
    info: Value,
    parts: Vec<Value>,
}

#[derive(Debug, Default)]
struct Streamed {
    text: String,
    /// Some of it was not told.
    has_hole: bool,
    /// The turn was broken off, and whether the wrapper heard all that was told before.
    broken: Option<bool>,
}

impl Streamed {
    /// Whether a text that was broken off is what is left of it.
    fn is_kept_by(&self, text: &str) -> bool {
        match self.broken {
            _ if self.has_hole => true,
            Some(true) => self.text == text,
            Some(false) | None => self.text.starts_with(text),
        }
    }
}

impl Held {
    pub(super) fn new(random: StdRng) -> Self {
        Self {
            random,
            starts: Vec::new(),
            failing_starts: 0,
            has_missed: false,
            messages: Vec::new(),
            streamed: BTreeMap::new(),
            taken: BTreeMap::new(),
            is_busy: false,
            turn_from: 0,
            ids: 0,
        }
    }

    /// Ids in the order in which they are made.
    pub(super) fn next_id(&mut self, kind: &str) -> String {
        self.ids += 1;
        format!("{kind}_{:06}", self.ids)
    }

    /// Takes a prompt.
    pub(super) fn begin_turn(&mut self, text: &str) -> VecDeque<(Duration, Step)> {
        *self.taken.entry(text.to_owned()).or_default() += 1;
        self.turn_from = self.messages.len();
        turn::answering(self, text)
    }

    /// A process has died, and its wrapper hears of it or not: nothing of a turn goes on in the next one.
    pub(super) fn turn_was_broken(&mut self, is_heard: bool) {
        for streamed in self.streamed.values_mut() {
            streamed.broken.get_or_insert(is_heard);
        }
        self.is_busy = false;
        self.turn_from = self.messages.len();
    }

    /// Messages of the turn that runs, with the texts by now.
    pub(super) fn unfinished(&self) -> Vec<(Value, Vec<Value>)> {
        let of_turn = &self.messages[self.turn_from..];
        let open = of_turn.iter().filter(|message| message.info["time"]["completed"].is_null());
        let with_texts = |message: &Stored| {
            let parts = message.parts.iter().cloned().map(|mut part| {
                if let Some(streamed) = self.streamed.get(id_of(&part))
                    && part["time"]["end"].is_null()
                {
                    part["text"] = streamed.text.clone().into();
                }
                part
            });
            (message.info.clone(), parts.collect())
        };
        open.map(with_texts).collect()
    }

    /// Takes in what the server says, as its own database does: a streamed text is stored when it is whole.
    pub(super) fn store(&mut self, kind: &str, data: &Value, is_told: bool) {
        self.has_missed |= !is_told;
        match kind {
            "message.updated" => {
                let info = data["info"].clone();
                match self.messages.iter_mut().find(|message| id_of(&message.info) == id_of(&info)) {
                    Some(message) => message.info = info,
                    None => self.messages.push(Stored { info, parts: Vec::new() }),
                }
            }
            "message.part.updated" => {
                let part = data["part"].clone();
                let of = part["messageID"].as_str().unwrap_or_default().to_owned();
                let message = self.messages.iter_mut().find(|message| id_of(&message.info) == of);
                let parts = &mut message.expect("a message comes before its parts").parts;
                match parts.iter_mut().find(|known| id_of(known) == id_of(&part)) {
                    Some(known) => *known = part,
                    None => parts.push(part),
                }
            }
            "message.part.delta" => {
                let streamed =
                    self.streamed.entry(data["partID"].as_str().unwrap_or_default().to_owned()).or_default();
                streamed.text.push_str(data["delta"].as_str().unwrap_or_default());
                streamed.has_hole |= !is_told;
            }
            "session.status" => self.is_busy = data["status"]["type"] == "busy",
            _ => {}
        }
    }

    pub(super) fn state(&self) -> ServerState {
        let messages =
            self.messages.iter().map(|message| json!({ "info": message.info, "parts": message.parts }));
        let mut state = ServerState {
            sessions: vec![json!({ "id": SESSION, "title": "a day", "time": { "created": 1 } })],
            messages: messages.collect(),
            ..ServerState::default()
        };
        if self.is_busy {
            state.status.insert(SESSION.to_owned(), json!({ "type": "busy" }));
        }
        state
    }

    /// How often a prompt was taken.
    pub(super) fn times_taken(&self, prompt: &str) -> u32 {
        self.taken.get(prompt).copied().unwrap_or(0)
    }

    /// Prompts that were taken more than once.
    pub(super) fn taken_twice(&self) -> Vec<&str> {
        self.taken.iter().filter(|(_, times)| **times > 1).map(|(prompt, _)| prompt.as_str()).collect()
    }

    /// Whether a message that answers this prompt is whole.
    pub(super) fn has_answered(&self, prompt: &str) -> bool {
        self.messages.iter().any(|message| {
            message.info["role"] == "assistant"
                && message.info["finish"] == "stop"
                && message.parts.iter().any(|part| {
                    part["text"].as_str().is_some_and(|text| text.starts_with(&format!("{prompt} ")))
                })
        })
    }

    /// What a viewer's fold says otherwise than the server.
    pub(super) fn difference(&self, view: &SessionView) -> Option<String> {
        let session = view.session(SESSION);
        let shown: Vec<&MessageView> = session.map(|session| session.messages()).unwrap_or_default();
        let ids = |ids: Vec<String>| ids.join(" ");
        let (theirs, ours) = (
            ids(shown.iter().map(|message| message.id().to_string()).collect()),
            ids(self.messages.iter().map(|message| id_of(&message.info).to_owned()).collect()),
        );
        if theirs != ours {
            return Some(format!("the viewer has the messages {theirs}, the server {ours}"));
        }
        self.messages.iter().zip(shown).find_map(|(stored, shown)| self.difference_of(stored, shown))
    }

    fn difference_of(&self, stored: &Stored, shown: &MessageView) -> Option<String> {
        let id = id_of(&stored.info);
        let is_broken = stored.info["time"]["completed"].is_null();
        if shown.info().is_none_or(|info| info.time.completed.is_none()) {
            return Some(format!("{id} is left open: {:?}", shown.raw_info()));
        }
        for part in &stored.parts {
            let Some(known) = shown.part(id_of(part)) else {
                return Some(format!("{id} lacks {}", id_of(part)));
            };
            let expected = part["text"].as_str().unwrap_or_default();
            let streamed = self.streamed.get(id_of(part));
            let difference = if let PartBody::Tool(tool) = known.body() {
                matches!(tool.state, ToolState::Pending(_) | ToolState::Running(_))
                    .then(|| "it runs".to_owned())
            } else {
                let text = known.body().text().unwrap_or_default();
                let is_same = match streamed {
                    // Broken off: the server has nothing of it, and the wrapper's copy is the only one.
                    Some(streamed) if is_broken && part["time"]["end"].is_null() => streamed.is_kept_by(text),
                    Some(_) | None => text == expected,
                };
                (!is_same).then(|| format!("{text:?} instead of {expected:?}, {streamed:?}"))
            };
            if let Some(difference) = difference {
                return Some(format!("{id}, {}: {difference}", id_of(part)));
            }
        }
        (shown.parts().len() != stored.parts.len()).then(|| format!("{id} has other parts than the server's"))
    }
}

fn id_of(value: &Value) -> &str {
    value["id"].as_str().unwrap_or_default()
}
