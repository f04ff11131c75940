//! The parts of a transcript, one element each: pure functions from the fold to HTML.

mod after_turn;
pub(crate) mod ask;
pub(crate) mod moment;
pub(crate) mod output;
pub(crate) mod prose;
pub(crate) mod tool;
pub(crate) mod tool_kind;

use maud::{Markup, html};
use protocol::{AgentId, Seq, Timestamp};

use super::{element, tree::Node};

/// Who reads a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Reader {
    /// May steer: asks can be answered, and there is a composer.
    Steers,
    /// May read everything.
    Reads,
    /// Came by a share link: one agent's page, without asks and without a way to anything else.
    Guest,
}

/// What every part of one agent's page needs to know.
#[derive(Debug, Clone)]
pub(crate) struct Scope {
    /// Whose page it is.
    pub agent: AgentId,
    /// Who reads it.
    pub reader: Reader,
    /// The folder the agent works in: paths are shown relative to it.
    pub directory: String,
}

impl Reader {
    /// One who has signed in.
    pub(crate) fn of(may_steer: bool) -> Self {
        if may_steer { Self::Steers } else { Self::Reads }
    }
}

impl Scope {
    /// Whether the reader may steer.
    pub(crate) fn may_steer(&self) -> bool {
        self.reader == Reader::Steers
    }

    /// Whether the reader came by a share link.
    pub(crate) fn is_shared(&self) -> bool {
        self.reader == Reader::Guest
    }

    /// A path, relative to the agent's folder where it lies in it.
    pub(crate) fn path<'p>(&self, path: &'p str) -> &'p str {
        let inside =
            path.strip_prefix(self.directory.trim_end_matches('/')).and_then(|rest| rest.strip_prefix('/'));
        if self.directory.is_empty() { path } else { inside.unwrap_or(path) }
    }
}

/// One row of a transcript.
#[derive(Debug)]
pub(crate) struct Row<'a> {
    /// The element's id.
    pub id: &'a str,
    /// `text`, `tool`, `prompt`, `think`, `notice`, `ask`, `done`.
    pub kind: &'static str,
    /// When it began, where that is known.
    pub time: Option<Timestamp>,
    /// The position of its last change.
    pub changed: Seq,
}

impl Row<'_> {
    /// The row with this body.
    pub(crate) fn leaf(&self, scope: &Scope, body: &Markup) -> Node {
        let html = html! {
            li class={ "part part-" (self.kind) } id=(self.id) {
                (self.time_link(scope))
                div class="part-body" { (body) }
            }
        };
        Node::leaf(self.id, self.changed, html.into_string())
    }

    /// The start of the row, up to and with the start tag of its body.
    pub(crate) fn open(&self, scope: &Scope) -> String {
        self.start(&self.time_link(scope))
    }

    /// The same for a row that grows: without the number of its last event, so that it can stay as it is meanwhile.
    pub(crate) fn open_growing(&self) -> String {
        self.start(&html! { span class="part-time" { (self.time()) } })
    }

    fn start(&self, time: &Markup) -> String {
        let Self { kind, id, .. } = self;
        let time = time.clone().into_string();
        format!("<li class=\"part part-{kind}\" id=\"{id}\">{time}<div class=\"part-body\">")
    }

    /// The time is the row's own address; beside it is the event that changed it last.
    fn time_link(&self, scope: &Scope) -> Markup {
        let event = format!("/agents/{}/events/{}", scope.agent, self.changed);
        html! {
            span class="part-time" {
                (self.time())
                @if !scope.is_shared() { a class="part-seq" href=(event) data-seq=(self.changed) title="Raw event" { (self.changed) } }
            }
        }
    }

    fn time(&self) -> Markup {
        html! { @if let Some(time) = self.time { a href={ "#" (self.id) } { (element::time(time)) } } }
    }
}

/// A row that shows nothing at present. It stays, so that whoever has it as it was is told.
pub(crate) fn hidden(id: &str, changed: Seq) -> Node {
    Node::leaf(id, changed, html! { li id=(id) hidden {} }.into_string())
}
