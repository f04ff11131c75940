//! From events to the text of a terminal: what to print next, and nothing twice.
//!
//! A terminal cannot take back what it shows, so each event yields what is to be *added*: the new end of a streamed
//! text, a tool call when it starts and again when it is over, an ask when it comes and when it is answered.
//!
//! What happened before somebody watched is another matter. A compacted log has an entity where it changed last, which
//! is not where it stood: history is folded first, and then shown in the order of messages and parts.

use std::collections::{BTreeMap, BTreeSet};

use protocol::{
    Event, Key, Seq, Timestamp,
    frame::GapReason,
    model::{PartBody, Role, SessionStatus, TextPart, ToolState},
    view::{Answer, Ask, NoticeBody, PartView, PendingAsk, SessionView},
};

use super::{
    super::paint::{Paint, Tone, clean, settled},
    notice, tool,
};

/// What was printed of an agent so far.
#[derive(Debug)]
pub(crate) struct Transcript {
    /// The name to give in hints.
    agent: String,
    paint: Paint,
    view: SessionView,
    /// What comes is history: it is folded, and shown when it is complete.
    history: bool,
    /// The log is read from its middle on: a message may have been described before.
    from_the_middle: bool,
    /// The text of each text part, as far as it was printed.
    texts: BTreeMap<Key, String>,
    /// The state each tool call was printed in.
    tools: BTreeMap<Key, &'static str>,
    /// Everything else that is printed once.
    once: BTreeSet<Key>,
    /// Notices printed.
    notices: usize,
    /// Sub-agents that were introduced.
    introduced: BTreeSet<String>,
    /// The part whose text the last line belongs to.
    open: Option<Key>,
    /// The last line is not complete.
    mid_line: bool,
    turn_open: bool,
    retrying: Option<u64>,
}

impl Transcript {
    /// An empty one, to which history comes first. `agent` is the name that hints tell to type.
    pub(crate) fn new(agent: &str, paint: Paint, from_the_middle: bool) -> Self {
        Self {
            agent: agent.to_owned(),
            paint,
            view: SessionView::default(),
            history: true,
            from_the_middle,
            texts: BTreeMap::new(),
            tools: BTreeMap::new(),
            once: BTreeSet::new(),
            notices: 0,
            introduced: BTreeSet::new(),
            open: None,
            mid_line: false,
            turn_open: false,
            retrying: None,
        }
    }

    /// What an event adds.
    pub(crate) fn apply(&mut self, event: &Event) -> String {
        self.view.apply(event);
        if self.history {
            return String::new();
        }
        let mut out = String::new();
        match (&*event.kind, &event.key) {
            ("message.part.updated" | "message.part.delta", Some(key)) => self.part(&mut out, key),
            ("message.updated", Some(key)) => self.parts_of(&mut out, key),
            ("permission.asked" | "question.asked" | "session.network.asked", Some(key)) => {
                self.ask(&mut out, key)
            }
            (
                "permission.replied"
                | "question.replied"
                | "question.rejected"
                | "session.network.replied"
                | "session.network.rejected",
                Some(key),
            ) => self.answer(&mut out, key),
            ("todo.updated", _) => self.todos(&mut out, event.session.as_deref()),
            ("session.status", _) => self.status(&mut out, event.session.as_deref()),
            _ => {}
        }
        self.notices(&mut out, None);
        self.turn(&mut out, event);
        out
    }

    /// History is complete: what it adds. Nothing, when this is said again.
    pub(crate) fn live(&mut self) -> String {
        let mut out = String::new();
        if !std::mem::take(&mut self.history) {
            return out;
        }
        let mut sessions: Vec<String> =
            self.view.roots().iter().map(|session| session.id().to_string()).collect();
        // A sub-agent whose call is not kept any more stands after its parents.
        sessions.extend(self.view.sessions().iter().map(|session| session.id().to_string()));
        let mut shown = BTreeSet::new();
        for id in sessions {
            self.session(&mut out, &id, &mut shown);
        }
        for root in self.view.roots().iter().map(|session| session.id().to_string()).collect::<Vec<_>>() {
            self.todos(&mut out, Some(&root));
        }
        self.notices(&mut out, None);
        for key in self.view.pending().into_iter().map(PendingAsk::key).collect::<Vec<_>>() {
            self.ask(&mut out, &key);
        }
        self.turn_open = self.view.roots().iter().any(|session| session.is_turn_open());
        out
    }

    /// What a gap adds: from here on the transcript rests on the events that follow.
    pub(crate) fn gap(
        &mut self,
        from: Option<Seq>,
        to: Option<Seq>,
        reason: GapReason,
        time: Timestamp,
    ) -> String {
        let mut out = String::new();
        self.view.restart_after_gap(NoticeBody::Gap { from, to, reason }, time);
        self.notices = self.view.notices().len();
        self.texts.clear();
        self.tools.clear();
        self.once.clear();
        self.turn_open = false;
        self.introduced.clear();
        self.line(&mut out, 0, Tone::Warn, &notice::gap(from, to, reason));
        out
    }

    /// Ends the last line, if it is not complete.
    pub(crate) fn finish(&mut self) -> String {
        let mut out = String::new();
        self.close(&mut out);
        out
    }

    /// A session of the history, each sub-agent where it was called.
    fn session(&mut self, out: &mut String, id: &str, shown: &mut BTreeSet<String>) {
        if !shown.insert(id.to_owned()) {
            return;
        }
        let Some(session) = self.view.session(id) else { return };
        let messages = session.messages().into_iter().map(|message| {
            let created = message.info().and_then(|info| info.time.created);
            let parts = message.parts().map(|part| {
                let child = part.body().tool().and_then(|tool| tool.state.child_session()).map(str::to_owned);
                (part.key(), child)
            });
            (created, parts.collect::<Vec<_>>())
        });
        for (created, parts) in messages.collect::<Vec<_>>() {
            self.notices(out, created);
            for (key, child) in parts {
                self.part(out, &key);
                if let Some(child) = child {
                    self.session(out, &child, shown);
                }
            }
        }
    }

    fn part(&mut self, out: &mut String, key: &Key) {
        let Some(part) = find(&self.view, key).cloned() else { return };
        let depth = self.introduce(out, &part);
        match part.body() {
            PartBody::Text(text) => self.text(out, key, &part, text, depth),
            PartBody::Reasoning(text) => self.grow(out, key, text, depth, "· ", Tone::Dim),
            PartBody::Tool(call) => self.tool(out, key, &call.tool, &call.state, depth),
            PartBody::Patch(patch) => {
                let files = patch.files.iter().map(|file| short(file)).collect::<Vec<_>>().join(" ");
                self.single(out, key, depth, Tone::Dim, &format!("± changed {files}"));
            }
            PartBody::File(file) => {
                let name = file.filename.as_deref().unwrap_or(&file.mime);
                self.single(out, key, depth, Tone::Person, &format!("+ {name}"));
            }
            PartBody::Retry(retry) => {
                let text = format!("↻ attempt {} failed: {}", retry.attempt, retry.error.message());
                self.single(out, key, depth, Tone::Warn, &text);
            }
            PartBody::Subtask(task) => {
                self.single(
                    out,
                    key,
                    depth,
                    Tone::Strong,
                    &format!("→ {}: {}", task.agent, task.description),
                );
            }
            PartBody::Compaction(_) => {
                self.single(out, key, depth, Tone::Dim, "── the session was condensed ──")
            }
            PartBody::StepStart(_) | PartBody::StepFinish(_) | PartBody::Snapshot(_) | PartBody::Agent(_) => {
            }
            // Of a newer server, known to this crate or not.
            PartBody::Unknown | _ => self.single(out, key, depth, Tone::Dim, &format!("[{}]", part.kind())),
        }
    }

    /// A part may come before its message says whose it is; it is printed when that is known.
    fn parts_of(&mut self, out: &mut String, message: &Key) {
        let Some(id) = message.as_str().strip_prefix("message/") else { return };
        let Some(message) = self.view.message(id) else { return };
        let waiting: Vec<Key> =
            message.parts().map(PartView::key).filter(|key| !self.texts.contains_key(key)).collect();
        for key in waiting {
            if find(&self.view, &key).is_some_and(|part| part.body().text().is_some()) {
                self.part(out, &key);
            }
        }
    }

    fn text(&mut self, out: &mut String, key: &Key, part: &PartView, text: &TextPart, depth: usize) {
        if text.synthetic == Some(true) || text.ignored == Some(true) {
            return;
        }
        let role = self.view.message(part.message()).and_then(|message| message.info()).map(|info| info.role);
        match role {
            Some(Role::User) => self.grow(out, key, text, depth, "▌ ", Tone::Person),
            Some(Role::Assistant) => self.grow(out, key, text, depth, "", Tone::Plain),
            // What a person says is whole at once: what goes on in the middle of a log is the agent's.
            None if self.from_the_middle => self.grow(out, key, text, depth, "", Tone::Plain),
            // Whose it is will be said by its message.
            Some(_) | None => {}
        }
    }

    /// Prints what a text has more than when it was printed last.
    fn grow(&mut self, out: &mut String, key: &Key, part: &TextPart, depth: usize, mark: &str, tone: Tone) {
        let text = part.text.trim_start_matches('\n');
        let shown = self.texts.get(key).map_or("", String::as_str);
        let begun = !shown.is_empty();
        let over = part.time.is_some_and(|time| time.end.is_some());
        let end = if over { text.len() } else { settled(text) };
        let more = text[..end].strip_prefix(shown);
        if more == Some("") {
            self.broken_off(out, key, part, depth);
            return;
        }
        let margin = format!("{}{mark}", "│ ".repeat(depth));
        let more = match more {
            Some(more) if self.open.as_ref() == Some(key) => more.to_owned(),
            Some(more) => {
                self.begin(out, key);
                out.push_str(&margin);
                if begun { format!("…{more}") } else { more.to_owned() }
            }
            None => {
                self.begin(out, key);
                out.push_str(&margin);
                text[..end].to_owned()
            }
        };
        let painted = self.paint.paint(tone, &clean(&more)).replace('\n', &format!("\n{margin}"));
        out.push_str(&painted);
        self.mid_line = true;
        self.texts.insert(key.clone(), text[..end].to_owned());
        self.broken_off(out, key, part, depth);
    }

    /// Says once that nothing more of a text will come.
    fn broken_off(&mut self, out: &mut String, key: &Key, part: &TextPart, depth: usize) {
        if part.is_interrupted() {
            self.single(out, key, depth, Tone::Warn, "✂ broken off");
        }
    }

    fn tool(&mut self, out: &mut String, key: &Key, name: &str, state: &ToolState, depth: usize) {
        let word = state.word();
        if matches!(state, ToolState::Pending(_)) || self.tools.get(key) == Some(&word) {
            return;
        }
        self.tools.insert(key.clone(), word);
        let card = tool::card(self.paint, name, state);
        self.close(out);
        for line in card.lines() {
            out.push_str(&"│ ".repeat(depth));
            out.push_str(line);
            out.push('\n');
        }
    }

    fn ask(&mut self, out: &mut String, key: &Key) {
        let Some(ask) = self.view.ask(key).cloned() else { return };
        if !self.once.insert(key.clone()) {
            return;
        }
        for (tone, line) in ask_lines(&self.agent, &ask) {
            self.line(out, 0, tone, &line);
        }
    }

    fn answer(&mut self, out: &mut String, key: &Key) {
        let Some((_, id)) = key.as_str().split_once('/') else { return };
        let answered = self.view.answered().into_iter().rev().find(|ask| &*ask.id == id);
        let Some(answer) = answered.map(|ask| ask.answer.clone()) else { return };
        let text = match &answer {
            Answer::Permission(reply) => format!("↳ permission: {reply}"),
            Answer::Question(answers) => {
                format!(
                    "↳ {}",
                    answers.iter().map(|labels| labels.join(", ")).collect::<Vec<_>>().join(" · ")
                )
            }
            Answer::QuestionRejected => "↳ question declined".to_owned(),
            Answer::NetworkReplied => "↳ goes on".to_owned(),
            Answer::NetworkRejected => "↳ given up".to_owned(),
        };
        self.line(out, 0, Tone::Person, &text);
    }

    fn todos(&mut self, out: &mut String, session: Option<&str>) {
        let Some(session) = session.and_then(|id| self.view.session(id)) else { return };
        let lines: Vec<(Tone, String)> = session
            .todos()
            .iter()
            .map(|todo| match todo.status.as_str() {
                "completed" => (Tone::Good, format!("☑ {}", todo.content)),
                "in_progress" => (Tone::Strong, format!("▸ {}", todo.content)),
                "cancelled" => (Tone::Dim, format!("☒ {}", todo.content)),
                _ => (Tone::Plain, format!("☐ {}", todo.content)),
            })
            .collect();
        for (tone, line) in lines {
            self.line(out, 0, tone, &line);
        }
    }

    fn status(&mut self, out: &mut String, session: Option<&str>) {
        let Some(session) = session.and_then(|id| self.view.session(id)) else { return };
        let (attempt, line) = match session.status() {
            SessionStatus::Retry { attempt, message, .. } => {
                (Some(*attempt), Some(format!("↻ attempt {attempt} failed: {message}")))
            }
            SessionStatus::Offline { message, .. } => (Some(0), Some(format!("⚠ offline: {message}"))),
            // Idle and busy are said by the turn's divider.
            SessionStatus::Idle | SessionStatus::Busy | SessionStatus::Unknown | _ => (None, None),
        };
        if self.retrying == attempt {
            return;
        }
        self.retrying = attempt;
        if let Some(line) = line {
            self.line(out, 0, Tone::Warn, &line);
        }
    }

    /// Notices that were not shown yet, up to a time if one is given.
    fn notices(&mut self, out: &mut String, until: Option<Timestamp>) {
        let waiting = self.view.notices().iter().skip(self.notices);
        let due: Vec<_> = waiting.take_while(|found| until.is_none_or(|until| found.time <= until)).collect();
        let lines: Vec<(Tone, String)> = due.iter().filter_map(|found| notice::line(&found.body)).collect();
        self.notices += due.len();
        for (tone, line) in lines {
            self.line(out, 0, tone, &line);
        }
    }

    /// A divider where a turn ends.
    fn turn(&mut self, out: &mut String, event: &Event) {
        let open = self.view.roots().iter().any(|session| session.is_turn_open());
        let ended = self.turn_open && !open;
        self.turn_open = open;
        if !ended {
            return;
        }
        let usage = self.view.usage();
        let tokens = notice::thousands(usage.tokens.total());
        let text = format!("── turn ended {} · {tokens} tokens · ${:.4} ──", clock(event.time), usage.cost);
        self.line(out, 0, Tone::Dim, &text);
    }

    /// Says once that a sub-agent is at work; gives its depth under the agent's own session.
    fn introduce(&mut self, out: &mut String, part: &PartView) -> usize {
        let Some(id) = part.session() else { return 0 };
        let Some(session) = self.view.session(id) else { return 0 };
        let depth = depth(&self.view, id);
        let title = session.info().map(|info| info.title.clone()).unwrap_or_default();
        if depth > 0 && self.introduced.insert(id.to_string()) {
            self.line(out, depth - 1, Tone::Strong, &format!("┌ sub-agent {title}"));
        }
        depth
    }

    fn single(&mut self, out: &mut String, key: &Key, depth: usize, tone: Tone, text: &str) {
        if self.once.insert(key.clone()) {
            self.line(out, depth, tone, text);
        }
    }

    /// A line of its own, of foreign text.
    fn line(&mut self, out: &mut String, depth: usize, tone: Tone, text: &str) {
        self.close(out);
        for line in clean(text).lines() {
            out.push_str(&"│ ".repeat(depth));
            out.push_str(&self.paint.paint(tone, line));
            out.push('\n');
        }
    }

    fn begin(&mut self, out: &mut String, key: &Key) {
        self.close(out);
        out.push('\n');
        self.open = Some(key.clone());
    }

    fn close(&mut self, out: &mut String) {
        if std::mem::take(&mut self.mid_line) {
            out.push('\n');
        }
        self.open = None;
    }
}

/// The part that a key names.
fn find<'v>(view: &'v SessionView, key: &Key) -> Option<&'v PartView> {
    let (message, part) = key.as_str().strip_prefix("part/")?.split_once('/')?;
    view.part(message, part)
}

/// How many sessions lie above this one in the log.
fn depth(view: &SessionView, id: &str) -> usize {
    let mut depth = 0;
    let mut at = view.session(id);
    while let Some(parent) =
        at.and_then(|session| session.parent_id()).and_then(|parent| view.session(parent))
    {
        depth += 1;
        at = Some(parent);
        if depth > 8 {
            break;
        }
    }
    depth
}

/// An ask, with what to type.
fn ask_lines(agent: &str, ask: &PendingAsk) -> Vec<(Tone, String)> {
    match &ask.ask {
        Ask::Permission(permission) => {
            let what = permission.patterns.join("  ");
            vec![
                (Tone::Ask, format!("? {agent} asks to {}: {what}", permission.permission)),
                (Tone::Dim, format!("  gastown permit {agent} {} once|always|reject", ask.id)),
            ]
        }
        Ask::Question(question) => {
            let mut lines = Vec::new();
            for info in &question.questions {
                lines.push((Tone::Ask, format!("? {}", info.question)));
                for option in &info.options {
                    lines.push((Tone::Plain, format!("  • {}  {}", option.label, option.description)));
                }
            }
            lines.push((Tone::Dim, format!("  gastown answer {agent} {} <answer>…", ask.id)));
            lines
        }
        Ask::Network(network) => {
            vec![(Tone::Ask, format!("? the provider cannot be reached: {}", network.message))]
        }
    }
}

/// The last two names of a path.
pub(super) fn short(path: &str) -> &str {
    let mut slashes = path.rmatch_indices('/');
    slashes.next();
    slashes.next().map_or(path, |(at, _)| &path[at + 1..])
}

/// The time of day, UTC.
fn clock(time: Timestamp) -> String {
    let text = time.to_string();
    text.get(11..19).map_or(text.clone(), |clock| format!("{clock}Z"))
}

#[cfg(test)]
mod tests;
