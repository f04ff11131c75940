//! One agent: state, transcript, asks, composer, side panel.

use std::collections::BTreeMap;

use maud::{Markup, html};
use protocol::frame::WrapperPresence;

use super::shell::{self, Frame, Stream};
use crate::dashboard::{
    element::{self, chevron, icon},
    tree::Node,
};

/// What the page needs beside its regions.
#[derive(Debug, Clone)]
pub(crate) struct AgentPage<'a> {
    /// Its name, for people.
    pub name: &'a str,
    /// Its id.
    pub agent: &'a str,
    /// Its role.
    pub role: &'a str,
    /// The town.
    pub town: &'a str,
    /// The browser's tab.
    pub title: &'a str,
    /// Agents of the town that wait for a person.
    pub needs: usize,
    /// Whether the reader may steer.
    pub steer: bool,
    /// The wrapper's link.
    pub presence: Option<WrapperPresence>,
    /// What the stream is opened with.
    pub stream: Stream,
}

/// The whole page around the agent's regions.
pub(crate) fn page(page: &AgentPage<'_>, regions: &[Node]) -> Markup {
    let regions: BTreeMap<&str, &Node> = regions.iter().map(|node| (&*node.id, node)).collect();
    let region = |id: &str| regions.get(id).map_or_else(|| html! {}, |node| element::ready(node.html()));
    let frame = Frame {
        title: page.title,
        town: page.town,
        needs: page.needs,
        class: "shell-agent",
        stream: Some(page.stream.clone()),
    };
    shell::page(
        &frame,
        &html! {
            header class="agent-head" id="agent-head" {
                div class="agent-bar" {
                    a class="back" href="/agents" aria-label="All agents" { (icon("back")) }
                    h1 { (element::first_line(page.name)) }
                    span class="tag" { (page.role) }
                    (region("agent-state"))
                    (connection("agent-conn", "conn", &region("last-event")))
                    span class="tag js-hide" id="wrapper" data-state=(presence_state(page.presence)) hidden[page.presence != Some(WrapperPresence::Disconnected)] { "wrapper not connected" }
                    div class="acts" { (region("lifecycle")) (region("stop")) }
                }
                dl class="stats" id="agent-stats" {
                    div class="stat conn" id="agent-conn-small" data-state="offline" {
                        dt class="sr-only" { "Connection" } dd class="row" { span class="conn-dot" {} span { b class="conn-word" { "Not live" } } }
                    }
                    div class="stat" { dt { "Model" } (region("stat-model")) }
                    div class="stat" { dt { "Context" } (region("stat-context")) }
                    div class="stat" { dt { "Tokens" } (region("stat-tokens")) }
                    div class="stat" { dt { "Cost" } (region("stat-cost")) }
                    div class="stat" { dt { "Elapsed" } (region("stat-elapsed")) }
                }
                nav class="tabs" aria-label="Agent panels" {
                    a class="tab" href="#panel-todos" { "Todos " (region("tab-todos")) }
                    a class="tab" href="#panel-files" { "Files " (region("tab-files")) }
                    a class="tab" href="#panel-children" { "Sub-agents " (region("tab-children")) }
                    a class="tab" href="#panel-events" { "Raw events" }
                }
            }
            div class="feed" {
                (find())
                (region("transcript"))
                div class="jump js-only" id="jump" hidden { button type="button" class="btn btn-sm" { (icon("down")) span id="jump-n" { "New" } } }
            }
            (side(&region))
            div class="deck" id="deck" {
                @if page.steer {
                    div class="deck-box" { (region("dock")) (composer(page, &region("hint"))) }
                }
            }
        },
    )
}

fn connection(id: &str, class: &str, last_event: &Markup) -> Markup {
    html! {
        span class=(class) id=(id) data-state="offline" role="status" {
            span class="conn-dot" {}
            span { b class="conn-word" { "Not live" } " · last event " span class="conn-age" id="agent-conn-age" { (last_event) } }
        }
    }
}

fn presence_state(presence: Option<WrapperPresence>) -> &'static str {
    match presence {
        Some(WrapperPresence::Connected) | None => "live",
        Some(WrapperPresence::Disconnected) => "offline",
    }
}

/// Search and filter within the page: both need the page module.
fn find() -> Markup {
    html! {
        div class="find js-only" role="search" aria-label="In this session" {
            div class="find-box" {
                (icon("search")) label class="sr-only" for="find" { "Find in session" }
                input class="field" id="find" type="search" placeholder="Find in session" autocomplete="off";
                span class="find-n" id="find-n" {}
            }
            div class="chips" role="group" aria-label="Show" id="show" {
                @for (kind, word) in [("all", "All"), ("prompt", "Prompts"), ("text", "Text"), ("edit", "Edits"), ("bash", "Commands"), ("error", "Errors")] {
                    button type="button" class="chip" data-show=(kind) aria-pressed={ @if kind == "all" { "true" } @else { "false" } } { (word) }
                }
            }
        }
    }
}

fn side(region: &impl Fn(&str) -> Markup) -> Markup {
    let panel = |id: &str, word: &str, note: Markup, body: Markup| {
        html! {
            details class="panel" id={ "panel-" (id) } open { summary { (chevron()) (word) (note) } (body) }
        }
    };
    html! {
        aside class="side" id="side" aria-label="Session details" {
            div class="side-close" { span { "Session details" } a class="btn btn-sm btn-icon btn-quiet" href="#transcript" aria-label="Close" { (icon("x")) } }
            (panel("todos", "Todos", region("todos-n"), region("todos")))
            (panel("files", "Files changed", region("files-n"), region("files")))
            (panel("children", "Sub-agents", region("children-n"), region("children")))
            (panel("events", "Raw events", html! { span class="end" { "seq " (region("head-seq")) } }, region("events")))
        }
    }
}

fn composer(page: &AgentPage<'_>, hint: &Markup) -> Markup {
    html! {
        form class="composer" id="composer" method="post" action={ "/agents/" (page.agent) "/prompt" } data-live {
            label class="sr-only" for="prompt" { "Message to " (element::first_line(page.name)) }
            textarea id="prompt" name="text" rows="1" required maxlength="60000" placeholder={ "Message " (element::first_line(page.name)) } {}
            div class="composer-tools" {
                span class="seg" role="radiogroup" aria-label="Delivery" {
                    label title="After this turn" { input type="radio" name="delivery" value="queue" checked; "Queue" }
                    label title="At the next step, without stopping" { input type="radio" name="delivery" value="boundary"; "At next step" }
                    label title="Stops what runs now" { input type="radio" name="delivery" value="interrupt"; "Interrupt" }
                }
                (hint)
            }
            button class="btn btn-primary btn-sm" { (icon("send")) "Send " kbd { "⌘↵" } }
        }
    }
}
