//! The regions of one agent's page that change, by their ids: what [`super::agent`] puts into its frame and what the
//! stream patches.

use maud::{Markup, html};
use protocol::{
    Seq, Timestamp,
    model::{PartBody, Role, SessionStatus},
    view::{NoticeBody, SessionRef, SessionView},
};

use super::{
    scrub::{self, Moment, Speed},
    stats,
};
use crate::dashboard::{
    element::{self, icon},
    figures,
    model::{Doing, Model, Recent},
    part::{
        Reader, Scope, ask, tool,
        tool_kind::{self, Kind},
    },
    past::Scene,
    timeline::Timeline,
    transcript,
    tree::{ALWAYS, Content, Node},
};

/// Regions that are not for who came by a share link: they lead to what only this town's people see.
const GUESTS_HAVE_NO: [&str; 4] = ["events", "hint", "stop", "lifecycle"];
/// Files of the side panel.
const FILES: usize = 60;

/// Every region of an agent's page.
pub(crate) fn all(model: &Model, scope: &Scope, cache: &mut transcript::Cache) -> Vec<Node> {
    let view = &model.view;
    let todos = todos(view);
    let files = files(view, scope, cache);
    let done = todos.iter().filter(|todo| todo.status == "completed").count();
    let (added, removed) = files.iter().fold((0, 0), |sum, file| (sum.0 + file.added, sum.1 + file.removed));
    let children = children(view);
    let mut regions = scrub::regions(model, scope);
    regions.extend(stats::regions(view));
    regions.extend([
        region("agent-state", html! { span id="agent-state" { (agent_state(model, scope.reader)) } }),
        region(
            "last-event",
            html! { span id="last-event" { @if let Some(time) = view.time() { time datetime=(time) data-age { (figures::time_of_day(time)) } } @else { "none yet" } } },
        ),
        region("tab-todos", html! { b id="tab-todos" { (done) "/" (todos.len()) } }),
        region("tab-files", html! { b id="tab-files" { (files.len()) } }),
        region("tab-children", html! { b id="tab-children" { (children.len()) } }),
        transcript_region(transcript::rows(view, scope, cache)),
        region("todos-n", html! { span class="end" id="todos-n" { (done) " of " (todos.len()) } }),
        region(
            "todos",
            html! { div id="todos" { @if todos.is_empty() { p class="panel-body faint" { "No list yet" } } @else { (tool::checklist(None, &todos)) } } },
        ),
        region(
            "files-n",
            html! { span class="end" id="files-n" { @if added > 0 { span class="adds" { "+" (added) } } " " @if removed > 0 { span class="dels" { "−" (removed) } } } },
        ),
        region(
            "files",
            html! { div class="panel-body" id="files" { @if files.is_empty() { p class="faint" { "No file changed yet" } } @for file in files.iter().take(FILES) { (file_row(file)) } } },
        ),
        region(
            "children-n",
            html! { span class="end" id="children-n" { @if !children.is_empty() { (figures::dollars(children.iter().map(|child| child.total_usage().cost).sum())) } } },
        ),
        region(
            "children",
            html! { div class="panel-body" id="children" { @if children.is_empty() { p class="faint" { "None" } } @for child in &children { (child_row(view, *child)) } } },
        ),
        region("head-seq", html! { span id="head-seq" { (figures::grouped(view.seq().get())) } }),
        events(&model.recent, scope),
        region("show", filters(view)),
        region("hint", html! { span class="hint faint" id="hint" { (hint(view)) } }),
        region("stop", html! { span id="stop" { @if scope.may_steer() { (stop(model, scope)) } } }),
        region("lifecycle", html! { span id="lifecycle" { @if scope.may_steer() { (lifecycle(model, scope)) } } }),
    ]);
    if scope.is_shared() {
        regions.retain(|region| !GUESTS_HAVE_NO.contains(&&*region.id));
    }
    if scope.may_steer() {
        regions.push(dock(view, scope));
    }
    regions
}

/// The page's title: what a browser tab shows.
pub(crate) fn title(name: &str, model: &Model, reader: Reader) -> String {
    match model.doing() {
        Doing::Waiting if reader != Reader::Guest => format!("● {name} needs you · Gastown"),
        Doing::Failed => format!("✕ {name} failed · Gastown"),
        Doing::Stalled => format!("{name} stalled · Gastown"),
        Doing::Waiting
        | Doing::Retrying
        | Doing::Busy
        | Doing::Starting
        | Doing::Stopping
        | Doing::Idle
        | Doing::Exited => format!("{name} · Gastown"),
    }
}

/// The agent's state, as its header shows it.
pub(crate) fn agent_state(model: &Model, reader: Reader) -> Markup {
    let doing = model.doing();
    let (state, icon_name, word) = doing.words();
    let pending = model.view.pending();
    match (doing, &pending[..]) {
        (Doing::Waiting, _) if reader == Reader::Guest => {
            element::state(state, icon_name, "Waits for an answer")
        }
        (Doing::Stalled, _) => html! {
            span class="state" data-state=(state) {
                (icon(icon_name)) (word)
                @if let Some(since) = model.stalled_since() { " " time datetime=(since) data-elapsed { "since " (figures::time_of_day(since)) } }
            }
        },
        (Doing::Waiting, [first, ..]) => {
            let (icon_name, word) = ask::kind(first);
            let word =
                if pending.len() > 1 { format!("Needs you · {}", pending.len()) } else { word.to_owned() };
            element::needs(icon_name, &word)
        }
        (Doing::Waiting, []) => element::needs(icon_name, word),
        (Doing::Retrying, _) => {
            element::state(state, icon_name, &retry_words(&model.view).unwrap_or_else(|| word.to_owned()))
        }
        (
            Doing::Failed | Doing::Busy | Doing::Starting | Doing::Stopping | Doing::Idle | Doing::Exited,
            _,
        ) => element::state(state, icon_name, word),
    }
}

/// `Retry 2`, of whichever session waits for one.
pub(crate) fn retry_words(view: &SessionView) -> Option<String> {
    view.sessions().iter().find_map(|session| {
        if let SessionStatus::Retry { attempt, .. } = session.status() {
            Some(format!("Retry {attempt}"))
        } else {
            None
        }
    })
}

/// Every region of a page that shows the past.
pub(crate) fn past(
    scene: Scene,
    scope: &Scope,
    timeline: &Timeline,
    speed: Option<Speed>,
    cache: &mut transcript::Cache,
) -> Vec<Node> {
    let Scene { seq, time, mut model } = scene;
    model.timeline = timeline.clone();
    let moment = Moment { seq, at: timeline.moment(time), speed };
    let mut regions = all(&model, scope, cache);
    regions.push(scrub::speed(&scope.agent, timeline, Some(moment)));
    regions.push(region("past", past_note(seq, time)));
    regions
}

fn past_note(seq: Seq, time: Timestamp) -> Markup {
    html! {
        div class="grow" id="past" {
            b { "As it was at " (element::time(time)) }
            p class="faint" { "What had begun by position " (seq) ", as it turned out: what was replaced since is no longer in the log." }
        }
    }
}

/// A region that changes as a whole.
pub(super) fn region(id: &str, html: Markup) -> Node {
    Node::leaf(id, ALWAYS, html.into_string())
}

fn transcript_region(rows: Vec<Node>) -> Node {
    Node {
        id: "transcript".into(),
        changed: Seq::ZERO,
        content: Content::Branch {
            open: "<ol class=\"transcript\" id=\"transcript\" aria-label=\"Transcript\" aria-live=\"off\">"
                .into(),
            container: "transcript".into(),
            children: rows,
            close: "</ol>".into(),
        },
    }
}

/// What of the transcript is shown, with how much there is of each.
fn filters(view: &SessionView) -> Markup {
    let (mut prompts, mut texts, mut edits, mut commands, mut errors) = (0, 0, 0, 0, 0);
    let sessions = view.sessions();
    for message in sessions.iter().filter(|session| session.is_root()).flat_map(|session| session.messages())
    {
        let is_prompt = message.info().is_some_and(|info| info.role == Role::User);
        for part in message.parts() {
            match part.body() {
                PartBody::Text(text) if text.text.trim().is_empty() => {}
                PartBody::Text(_) if is_prompt => prompts += 1,
                PartBody::Text(_) => texts += 1,
                PartBody::Tool(call) => {
                    let kind = Kind::of(&call.tool);
                    edits += usize::from(matches!(kind, Kind::Edit | Kind::Write));
                    commands += usize::from(kind == Kind::Bash);
                    errors += usize::from(tool_kind::has_failed(call));
                }
                PartBody::Reasoning(_)
                | PartBody::File(_)
                | PartBody::StepStart(_)
                | PartBody::StepFinish(_)
                | PartBody::Patch(_)
                | PartBody::Snapshot(_)
                | PartBody::Agent(_)
                | PartBody::Retry(_)
                | PartBody::Subtask(_)
                | PartBody::Compaction(_)
                | PartBody::Unknown
                | _ => {}
            }
        }
    }
    errors += view.notices().iter().filter(|notice| is_error(&notice.body)).count();
    let chips = [
        ("all", "All", 0),
        ("prompt", "Prompts", prompts),
        ("text", "Text", texts),
        ("edit", "Edits", edits),
        ("bash", "Commands", commands),
    ];
    html! {
        div class="chips" role="group" aria-label="Show" id="show" {
            @for (kind, word, count) in chips {
                button type="button" class="chip" data-show=(kind) aria-pressed={ @if kind == "all" { "true" } @else { "false" } } {
                    (word) @if count > 0 { " " b { (count) } }
                }
            }
            button type="button" class="chip" data-show="error" data-state=[(errors > 0).then_some("error")] aria-pressed="false" {
                @if errors > 0 { (icon("s-failed")) } "Errors" @if errors > 0 { " " b { (errors) } }
            }
        }
    }
}

fn is_error(body: &NoticeBody) -> bool {
    matches!(body, NoticeBody::Failed(_) | NoticeBody::AutoCommitFailed(_) | NoticeBody::CondenseFailed(_))
        || matches!(body, NoticeBody::Error(error) if !error.is_abort())
}

fn events(recent: &std::collections::VecDeque<Recent>, scope: &Scope) -> Node {
    let rows = recent.iter().rev().map(|event| {
        let id = format!("seq-{}", event.seq);
        let raw = format!("/agents/{}/events/{}", scope.agent, event.seq);
        let html = html! {
            div class="event-row" id=(id) {
                a class="seq" href=(raw) title="Raw event" { (event.seq) }
                @match &event.element {
                    Some(element) => a class="clip" href={ "#" (element) } { (element::first_line(&event.kind)) },
                    None => a class="clip" href=(raw) { (element::first_line(&event.kind)) },
                }
                span class="faint" { (figures::bytes(event.bytes)) }
            }
        };
        Node::leaf(id, event.seq, html.into_string())
    });
    Node {
        id: "events".into(),
        changed: ALWAYS,
        content: Content::Branch {
            open: "<div class=\"panel-body\" id=\"events\">".into(),
            container: "events".into(),
            children: rows.collect(),
            close: "</div>".into(),
        },
    }
}

fn dock(view: &SessionView, scope: &Scope) -> Node {
    let pending = view.pending();
    region(
        "dock",
        html! {
            section class="dock" id="dock" aria-label="Waiting for you" hidden[pending.is_empty()] {
                @if let [first, ..] = &pending[..] {
                    @let (icon_name, word) = ask::kind(first);
                    @let count = if pending.len() > 1 { format!("1 of {}", pending.len()) } else { word.to_owned() };
                    (element::needs(icon_name, &count))
                    span class="clip grow" {
                        @if first.permission().is_some() { (first.permission().map(|p| p.permission.as_str()).unwrap_or_default()) " " code { (ask::summary(first)) } } @else { (ask::summary(first)) }
                    }
                    span class="dock-acts" {
                        (ask::short_form(scope, first, "dock-form", true))
                        a class="btn btn-sm btn-quiet" href={ "#" (element::id(&first.id)) } { "Show" }
                    }
                }
            }
        },
    )
}

fn todos(view: &SessionView) -> Vec<protocol::model::Todo> {
    view.roots()
        .iter()
        .rev()
        .map(|root| root.todos())
        .find(|todos| !todos.is_empty())
        .unwrap_or_default()
        .to_vec()
}

/// Sub-agents.
pub(super) fn children(view: &SessionView) -> Vec<SessionRef<'_>> {
    view.sessions().into_iter().filter(|session| !session.is_root()).collect()
}

fn child_row(view: &SessionView, child: SessionRef<'_>) -> Markup {
    let usage = child.total_usage();
    let title = child.info().map(|info| info.title.as_str()).unwrap_or_default();
    html! {
        a class="child-row" href={ "#sub-" (element::id(child.id())) } {
            b class="clip" { (element::first_line(title)) }
            span class="faint" { (figures::short(usage.tokens.total())) }
            span { (figures::dollars(usage.cost)) }
            @match child.status() {
                SessionStatus::Retry { attempt, .. } => (element::state("retrying", "s-retry", &format!("Retry {attempt}"))),
                _ if view.pending().iter().any(|ask| ask.session.as_ref() == Some(child.id())) => (element::state("waiting", "s-waiting", "Waits for you")),
                _ if child.is_turn_open() => (element::state("running", "s-busy", "Working")),
                _ => (element::state("completed", "s-done", "Done")),
            }
        }
    }
}

/// A file and what was changed in it.
struct FileChange {
    path: String,
    element: String,
    added: usize,
    removed: usize,
    is_new: bool,
}

/// Files that edits and writes changed, in the order of their first change.
fn files(view: &SessionView, scope: &Scope, cache: &mut transcript::Cache) -> Vec<FileChange> {
    let mut files: Vec<FileChange> = Vec::new();
    for session in view.sessions() {
        for part in session.messages().iter().flat_map(|message| message.parts()) {
            let PartBody::Tool(call) = part.body() else { continue };
            let protocol::model::ToolState::Completed(state) = &call.state else { continue };
            if !matches!(call.tool.as_str(), "edit" | "write" | "multiedit" | "patch" | "apply_patch") {
                continue;
            }
            let input = &state.input;
            let path = ["filePath", "path"]
                .iter()
                .find_map(|field| input.get(field)?.as_str())
                .unwrap_or("several files");
            let (added, removed) = cache.change_counts(part, call);
            let path = scope.path(path).to_owned();
            match files.iter_mut().find(|file| file.path == path) {
                Some(file) => (file.added, file.removed) = (file.added + added, file.removed + removed),
                None => files.push(FileChange {
                    path,
                    element: transcript::part_id(part),
                    added,
                    removed,
                    is_new: call.tool == "write" && removed == 0,
                }),
            }
        }
    }
    files
}

fn file_row(file: &FileChange) -> Markup {
    html! {
        a class="file-row" href={ "#" (file.element) } {
            span class="file-kind" { @if file.is_new { "A" } @else { "M" } }
            span class="file-path clip" { bdi { (element::first_line(&file.path)) } }
            span class="adds" { @if file.added > 0 { "+" (file.added) } }
            span class="dels" { @if file.removed > 0 { "−" (file.removed) } }
        }
    }
}

fn hint(view: &SessionView) -> Markup {
    let queued: usize = view.roots().iter().map(|root| root.queued().len()).sum();
    let is_open = view.roots().iter().any(|root| root.is_turn_open());
    html! { @if is_open { "a turn runs" } @if is_open && queued > 0 { " · " } @if queued > 0 { (figures::plural(queued, "message")) " queued" } }
}

/// Breaks the turn that runs off.
fn stop(model: &Model, scope: &Scope) -> Markup {
    let runs = matches!(model.doing(), Doing::Busy | Doing::Stalled | Doing::Waiting | Doing::Retrying);
    html! {
        form method="post" action={ "/agents/" (scope.agent) "/abort" } data-live {
            button class="btn btn-sm btn-danger" disabled[!runs] title="End the turn that runs" { (icon("stop")) "Stop" }
        }
    }
}

/// Starts an agent that is not there.
fn lifecycle(model: &Model, scope: &Scope) -> Markup {
    let gone = matches!(model.doing(), Doing::Exited | Doing::Failed);
    html! {
        @if gone {
            form method="post" action={ "/agents/" (scope.agent) "/start" } data-live { button class="btn btn-sm" { (icon("play")) "Start" } }
        }
    }
}
