//! Pages that say one thing: what was refused and what to do, or one raw event.

use maud::{Markup, html};
use protocol::Event;

use super::shell::{self, Frame, Headline, Place};
use crate::dashboard::element;

/// Bytes of a raw event that are shown: what an event may have at all.
const EVENT_BYTES: usize = 1024 * 1024;

/// Something went wrong: what, and the way back.
pub(crate) fn refusal(
    town: &str,
    headline: Option<Headline>,
    heading: &str,
    words: &str,
    back: Option<&str>,
) -> Markup {
    let frame = Frame { title: heading, town, headline, place: Place::Elsewhere, stream: None };
    shell::page(
        &frame,
        &html! {
            div class="page-head" { h1 { (heading) } }
            div class="notice" data-state="error" role="alert" {
                (element::icon("s-failed"))
                div class="notice-title" { (words) }
                @if let Some(back) = back { div class="notice-text" { a href=(back) { "Back" } } }
            }
        },
    )
}

/// One event as it is in the log.
pub(crate) fn event(town: &str, headline: Headline, agent: &str, event: &Event) -> Markup {
    let title = format!("Event {} · {agent}", event.seq);
    let headline = Some(headline);
    let frame = Frame { title: &title, town, headline, place: Place::Elsewhere, stream: None };
    let pretty = event
        .data
        .parse::<serde_json::Value>()
        .ok()
        .and_then(|value| serde_json::to_string_pretty(&value).ok());
    let (shown, cut) = element::cut(pretty.as_deref().unwrap_or(event.data.json()), EVENT_BYTES);
    shell::page(
        &frame,
        &html! {
            div class="page-head" { h1 { "Event " (event.seq) } span class="tag" { (event.kind) } div class="page-head-end" { a class="btn" href={ "/agents/" (agent) } { "Back to " (agent) } } }
            dl class="kv" {
                dt { "Time" } dd { (event.time) }
                @if let Some(session) = &event.session { dt { "Session" } dd { (session) } }
                @if let Some(key) = &event.key { dt { "Key" } dd { (key) } }
            }
            div class="code event-data" { pre { code { (element::ready(crate::dashboard::highlight::code("json", shown).as_ref())) } } }
            (element::cut_mark(cut))
        },
    )
}
