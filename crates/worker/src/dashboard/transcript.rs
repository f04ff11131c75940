//! A transcript: the sessions of one agent as rows in reading order.
//!
//! A row is a function of what the fold holds, and its `changed` is not below the position of anything it shows. A row
//! that has nothing to show any more stays as a hidden one. Both together are what [`super::tree::since`] rests on.

use std::collections::{BTreeMap, BTreeSet};

use maud::html;
use protocol::{
    Seq, Timestamp,
    model::{MessageError, PartBody, Role, ToolPart},
    view::{MessageView, NoticeBody, PartView, SessionRef, SessionView},
};

use super::{
    element,
    part::{Row, Scope, ask, hidden, moment, prose, tool, tool_kind::Kind},
    tree::Node,
};

/// Sub-agents inside of sub-agents that are shown.
const DEPTH: usize = 4;

/// Rows that a page holds to begin with: more than anybody reads at once, few enough for a phone to lay out at once.
pub(crate) const WINDOW: usize = 160;
/// Rows before the one that a page was asked for.
const AHEAD: usize = 12;

/// Which rows of a transcript a page holds to begin with: always a run up to the last one, so that what changes later
/// finds its place (see the page module's `insert`).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) enum Window {
    /// The newest ones.
    #[default]
    Newest,
    /// A window more than those from this row on: an id.
    Before(String),
    /// Those from a little before this row on, if it is not among the newest: the id of a row, or of an element in one.
    Around(String),
}

impl Window {
    /// The index of the first row.
    pub(crate) fn first_of(&self, rows: &[Node]) -> usize {
        let newest = rows.len().saturating_sub(WINDOW);
        match self {
            Self::Newest => newest,
            Self::Before(id) => {
                let row = rows.iter().position(|row| *row.id == **id).unwrap_or(0);
                row.saturating_sub(WINDOW).min(newest)
            }
            Self::Around(id) => {
                let within = format!("id=\"{id}\"");
                let is_it = |row: &Node| *row.id == **id || row.html().contains(&within);
                let row = rows[..newest].iter().position(is_it).unwrap_or(newest + AHEAD);
                row.saturating_sub(AHEAD).min(newest)
            }
        }
    }
}

/// Rows that were rendered before, by part; a row whose inputs have not changed is not rendered again.
#[derive(Debug, Default)]
pub(crate) struct Cache {
    rows: BTreeMap<String, (Stamp, Node)>,
    used: BTreeSet<String>,
    /// Lines added and removed, by the part of the edit.
    changes: BTreeMap<String, (Seq, (usize, usize))>,
}

impl Cache {
    /// Lines that an edit or write added and removed. To compare two texts is the dearest thing a page does.
    pub(crate) fn change_counts(&mut self, part: &PartView, call: &ToolPart) -> (usize, usize) {
        let id = part_id(part);
        match self.changes.get(&id) {
            Some((seq, counts)) if *seq == part.changed() => *counts,
            Some(_) | None => {
                let counts = tool::change_counts(call);
                self.changes.insert(id, (part.changed(), counts));
                counts
            }
        }
    }
}

/// The inputs of a cached row: the positions of its part and its message, its number, and whether it is open.
type Stamp = (Seq, Seq, usize, bool);

/// The rows of the agent's own sessions, with its sub-agents inside of them.
pub(crate) fn rows(view: &SessionView, scope: &Scope, cache: &mut Cache) -> Vec<Node> {
    cache.used.clear();
    let mut writer = Writer { view, scope, cache, shown: BTreeSet::new(), starters: starters(view) };
    let mut timed = Vec::new();
    for root in view.roots() {
        writer.session(root, 0, &mut timed);
    }
    if view.roots().is_empty() {
        writer.asks(None, i64::MIN, &mut timed);
    }
    for notice in view.notices() {
        let concerns_child = notice
            .session
            .as_deref()
            .and_then(|id| view.session(id))
            .is_some_and(|session| !session.is_root());
        if !concerns_child {
            timed.push(Timed {
                order: order_of_notice(notice),
                node: moment::notice(scope, notice, view.end_of(notice)),
            });
        }
    }
    let rows = in_order(timed);
    let Cache { rows: kept, used, .. } = cache;
    kept.retain(|key, _| used.contains(key));
    rows
}

/// A row and where it belongs. Rows of one message keep their order: they share its time.
struct Timed {
    order: (i64, u8),
    node: Node,
}

fn in_order(mut timed: Vec<Timed>) -> Vec<Node> {
    timed.sort_by_key(|row| row.order);
    timed.into_iter().map(|row| row.node).collect()
}

struct Writer<'a> {
    view: &'a SessionView,
    scope: &'a Scope,
    cache: &'a mut Cache,
    /// Sessions that are on the page already: an id must not be there twice.
    shown: BTreeSet<String>,
    /// For each sub-agent's session the part that started it.
    starters: BTreeMap<String, (String, Seq)>,
}

impl Writer<'_> {
    fn session(&mut self, session: SessionRef<'_>, depth: usize, out: &mut Vec<Timed>) {
        if !self.shown.insert(session.id().to_string()) {
            return;
        }
        let mut steps = 0;
        let mut last = i64::MIN;
        for message in session.messages() {
            let at = message.info().and_then(|info| info.time.created).or_else(|| first_time(message));
            last = at.map_or(last, Timestamp::unix_ms).max(last);
            let order = (last, 1);
            let mut rows = Vec::new();
            self.message(message, depth, &mut steps, &mut rows);
            out.extend(rows.into_iter().map(|node| Timed { order, node }));
        }
        for node in self.orphans(session, depth) {
            out.push(Timed { order: (last, 2), node });
        }
        self.asks(Some(session), last, out);
        let changed = session.changed();
        out.push(Timed {
            order: (i64::MAX, 0),
            node: moment::retry(self.scope, session.id(), changed, session.status()),
        });
    }

    fn message(&mut self, message: &MessageView, depth: usize, steps: &mut usize, out: &mut Vec<Node>) {
        let parts: Vec<&PartView> = message.parts().collect();
        let mut at = 0;
        while at < parts.len() {
            let looks = parts[at..].iter().take_while(|part| is_look(part)).count();
            if looks >= 2 {
                self.looks(&parts[at..at + looks], message, out);
                at += looks;
            } else {
                self.part(parts[at], message, depth, steps, out);
                at += 1;
            }
        }
        if let Some(error) = message.info().and_then(|info| info.error.as_ref()) {
            out.push(self.message_error(message, error));
        }
    }

    /// Consecutive reads and searches share a card; those that failed stand alone. All rows of the run change together,
    /// since any of them can leave the card.
    fn looks(&mut self, parts: &[&PartView], message: &MessageView, out: &mut Vec<Node>) {
        let changed = parts.iter().map(|part| part.changed()).fold(Seq::ZERO, Seq::max);
        for run in parts.chunk_by(|a, b| !is_failed(a) && !is_failed(b)) {
            let id = part_id(run[0]);
            let tools: Vec<&ToolPart> = run.iter().filter_map(|part| part.body().tool()).collect();
            let stamp = (changed, message.info_changed(), run.len(), false);
            let row = Row { id: &id, kind: "tool", time: start(run[0], message), changed };
            let scope = self.scope;
            out.push(self.cached(&id, stamp, || match &tools[..] {
                [only] => tool::card(&row, scope, only),
                several => tool::looks(&row, scope, several),
            }));
        }
    }

    fn part(
        &mut self,
        part: &PartView,
        message: &MessageView,
        depth: usize,
        steps: &mut usize,
        out: &mut Vec<Node>,
    ) {
        let scope = self.scope;
        let id = part_id(part);
        let changed = part.changed().max(message.info_changed());
        let row = |kind| Row { id: &id, kind, time: start(part, message), changed };
        let role = message.info().map_or(Role::Assistant, |info| info.role);
        let is_open = is_open(part, message);
        if matches!(part.body(), PartBody::StepFinish(_)) {
            *steps += 1;
        }
        if let PartBody::Tool(call) = part.body()
            && Kind::of(&call.tool) == Kind::Task
            && let Some(node) = self.task(&row("tool"), call, depth)
        {
            out.push(node);
            return;
        }
        let stamp = (part.changed(), message.info_changed(), *steps, is_open);
        let number = *steps;
        let node = self.cached(&id, stamp, || match part.body() {
            PartBody::Text(text) if role == Role::User => {
                prose::prompt(&row("prompt"), scope, text, message.info().and_then(|info| info.agent.as_deref()))
            }
            PartBody::Text(text) if is_open => prose::writing(&row("text"), text),
            PartBody::Text(text) => prose::answer(&row("text"), scope, text),
            PartBody::Reasoning(text) => prose::reasoning(&row("think"), scope, text, is_open),
            PartBody::Tool(call) => tool::card(&row("tool"), scope, call),
            PartBody::StepFinish(step) => {
                let took = message.info().and_then(|info| Some(info.time.completed?.since(info.time.created?)));
                moment::step(&id, changed, number, step, took)
            }
            PartBody::File(file) => row("prompt").leaf(scope, &html! {
                div class="prompt" { div class="prompt-head" { b { "File" } span { (element::first_line(file.filename.as_deref().unwrap_or("unnamed"))) } span class="tag" { (element::first_line(&file.mime)) } } }
            }),
            PartBody::Subtask(task) => row("prompt").leaf(scope, &html! {
                div class="prompt" { div class="prompt-head" { b { "Sub-agent" } span class="tag" { (element::first_line(&task.agent)) } } p { (element::first_line(&task.description)) } }
            }),
            PartBody::Agent(agent) => row("prompt").leaf(scope, &html! {
                div class="prompt" { div class="prompt-head" { b { "Agent" } span class="tag" { (element::first_line(&agent.name)) } } }
            }),
            PartBody::Retry(retry) => moment::moment(&id, changed, Some("retrying"), "s-retry", None, &html! {
                "Attempt " (retry.attempt) " failed: " (element::first_line(retry.error.message()))
            }),
            PartBody::Compaction(compaction) => moment::moment(&id, changed, None, "fold", start(part, message), &html! {
                "Context compacted" @if compaction.auto { span class="faint" { " · it was full" } }
            }),
            PartBody::StepStart(_) | PartBody::Patch(_) | PartBody::Snapshot(_) => hidden(&id, changed),
            PartBody::Unknown | _ => row("tool").leaf(scope, &unknown(part)),
        });
        out.push(node);
    }

    /// A sub-agent, if its session is known and not on the page yet.
    fn task(&mut self, row: &Row<'_>, call: &ToolPart, depth: usize) -> Option<Node> {
        let child = self.view.session(call.state.child_session()?)?;
        if depth >= DEPTH || self.shown.contains(&**child.id()) {
            return None;
        }
        let usage = child.total_usage();
        let note = tool::cost_note(usage.tokens.total(), usage.cost);
        let rows = self.child_rows(child, depth);
        Some(tool::task(row, self.scope, call, &element::id(child.id()), &note, rows))
    }

    fn child_rows(&mut self, child: SessionRef<'_>, depth: usize) -> Vec<Node> {
        let mut timed = Vec::new();
        self.session(child, depth + 1, &mut timed);
        for notice in self.view.notices().iter().filter(|notice| notice.session.as_ref() == Some(child.id()))
        {
            let node = moment::notice(self.scope, notice, self.view.end_of(notice));
            timed.push(Timed { order: order_of_notice(notice), node });
        }
        in_order(timed)
    }

    /// Sub-agents that no part names. Hidden as soon as one does.
    fn orphans(&mut self, session: SessionRef<'_>, depth: usize) -> Vec<Node> {
        let mut nodes = Vec::new();
        for child in session.children() {
            let id = format!("child-{}", element::id(child.id()));
            let starter = self.starters.get(&**child.id()).cloned();
            if let Some((_, changed)) = starter {
                nodes.push(hidden(&id, changed.max(child.changed())));
            } else if depth < DEPTH && !self.shown.contains(&**child.id()) {
                let call = ToolPart { tool: "task".into(), state: running(child), ..ToolPart::default() };
                let row = Row {
                    id: &id,
                    kind: "tool",
                    time: child.info().and_then(|info| info.time.created),
                    changed: child.changed(),
                };
                let usage = child.total_usage();
                let note = tool::cost_note(usage.tokens.total(), usage.cost);
                let rows = self.child_rows(child, depth);
                nodes.push(tool::task(&row, self.scope, &call, &element::id(child.id()), &note, rows));
            }
        }
        nodes
    }

    /// The asks of a session, or those of a log without one.
    fn asks(&mut self, session: Option<SessionRef<'_>>, last: i64, out: &mut Vec<Timed>) {
        for pending in self.view.pending().into_iter().filter(|_| !self.scope.is_shared()) {
            if self.is_of(pending.session.as_deref(), session) {
                let id = ask::row_id(&pending.id);
                let row = Row { id: &id, kind: "ask", time: Some(pending.time), changed: pending.seq };
                out.push(Timed {
                    order: (pending.time.unix_ms().max(last), 3),
                    node: ask::open(&row, self.scope, pending),
                });
            }
        }
        for answered in self.view.answered() {
            if self.is_of(answered.session.as_deref(), session) {
                let id = ask::row_id(&answered.id);
                let row = Row { id: &id, kind: "done", time: Some(answered.time), changed: answered.seq };
                out.push(Timed {
                    order: (answered.time.unix_ms(), 2),
                    node: ask::answered(&row, self.scope, answered),
                });
            }
        }
    }

    /// Whether an ask belongs to this session; asks of sessions that nobody knows belong to the first root.
    fn is_of(&self, asking: Option<&str>, session: Option<SessionRef<'_>>) -> bool {
        let asking =
            asking.and_then(|id| self.view.session(id)).or_else(|| self.view.roots().first().copied());
        asking.map(|session| session.id()) == session.map(|session| session.id())
    }

    /// The error of a message; hidden if the session reported the same.
    fn message_error(&self, message: &MessageView, error: &MessageError) -> Node {
        let id = format!("{}-error", element::id(message.id()));
        let same = self.view.notices().iter().filter(|notice| notice.session.as_ref() == message.session()).find(|notice| {
            matches!(&notice.body, NoticeBody::Error(other) if other.name == error.name && other.message() == error.message())
        });
        match same {
            Some(notice) => hidden(&id, message.info_changed().max(notice.seq)),
            None => {
                let time = message.info().and_then(|info| info.time.completed);
                moment::failure(self.scope, &id, message.info_changed(), time, error)
            }
        }
    }

    fn cached(&mut self, id: &str, stamp: Stamp, render: impl FnOnce() -> Node) -> Node {
        self.cache.used.insert(id.to_owned());
        match self.cache.rows.get(id) {
            Some((known, node)) if *known == stamp => node.clone(),
            Some(_) | None => {
                let node = render();
                self.cache.rows.insert(id.to_owned(), (stamp, node.clone()));
                node
            }
        }
    }
}

/// The element's id of a part.
pub(crate) fn part_id(part: &PartView) -> String {
    element::id(&format!("{}/{}", part.message(), part.id()))
}

/// Whether a text or a thought is still being written.
pub(crate) fn is_open(part: &PartView, message: &MessageView) -> bool {
    let over = message
        .info()
        .is_some_and(|info| info.time.completed.is_some() || info.error.is_some() || info.role == Role::User);
    part.body()
        .text_part()
        .is_some_and(|text| !over && !text.is_interrupted() && text.time.and_then(|time| time.end).is_none())
}

fn order_of_notice(notice: &protocol::view::Notice) -> (i64, u8) {
    // What is missing is missing before everything that is there.
    if let NoticeBody::Gap { .. } = notice.body { (i64::MIN, 0) } else { (notice.time.unix_ms(), 2) }
}

fn starters(view: &SessionView) -> BTreeMap<String, (String, Seq)> {
    let mut starters = BTreeMap::new();
    for session in view.sessions() {
        for part in session.messages().iter().flat_map(|message| message.parts()) {
            if let Some(child) = part.body().tool().and_then(|tool| tool.state.child_session()) {
                starters.entry(child.to_owned()).or_insert_with(|| (part_id(part), part.changed()));
            }
        }
    }
    starters
}

fn running(child: SessionRef<'_>) -> protocol::model::ToolState {
    let title = child.info().map(|info| info.title.clone()).unwrap_or_default();
    let input = serde_json::json!({ "description": title });
    protocol::model::ToolState::Running(protocol::model::ToolStateRunning { input, ..Default::default() })
}

fn is_look(part: &PartView) -> bool {
    part.body().tool().is_some_and(|tool| Kind::of(&tool.tool).is_look())
}

fn is_failed(part: &PartView) -> bool {
    part.body().tool().is_some_and(|tool| matches!(tool.state, protocol::model::ToolState::Error(_)))
}

/// When a part began, where that is known.
pub(crate) fn start(part: &PartView, message: &MessageView) -> Option<Timestamp> {
    let text = part.body().text_part().and_then(|text| text.time);
    let own = text.or_else(|| part.body().tool().map(|tool| tool.state.time())).and_then(|time| time.start);
    own.or_else(|| message.info().and_then(|info| info.time.created))
}

fn first_time(message: &MessageView) -> Option<Timestamp> {
    message.parts().map(PartView::time).min()
}

fn unknown(part: &PartView) -> maud::Markup {
    let json = serde_json::to_string_pretty(&part.to_json()).unwrap_or_default();
    html! {
        details class="tool" id={ (part_id(part)) "-card" } data-state="idle" {
            summary class="tool-head" {
                (element::icon("mcp")) span class="tool-name" { (element::first_line(&part.kind())) }
                span class="tool-title is-text" { "a part of a newer server" } span class="tool-meta" { (element::chevron()) }
            }
            div class="tool-body" { div class="code is-flush" { pre { code { (element::cut(&json, element::LINE_BYTES * 40).0) } } } }
        }
    }
}
