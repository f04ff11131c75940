//! What was said and done by every agent of a town, found by its words.

use std::collections::BTreeMap;

use maud::{Markup, html};
use protocol::{
    AgentId, LogId,
    search::{Field, Found, Hit, Position, Terms, TextKind},
};

use super::shell::{self, Frame, Headline, Place};
use crate::dashboard::{
    element::{self, icon},
    figures,
    part::ask,
};

/// What was looked for, as it was typed.
#[derive(Debug, Clone, Default)]
pub(crate) struct Asked {
    /// The words.
    pub words: String,
    /// One agent only.
    pub agent: Option<AgentId>,
    /// One kind only.
    pub kind: Option<TextKind>,
}

/// What the page needs beside the answer.
#[derive(Debug)]
pub(crate) struct SearchPage<'a> {
    /// The town.
    pub town: &'a str,
    /// What stands at the top of every page of the town.
    pub headline: Headline,
    /// What was looked for.
    pub asked: &'a Asked,
    /// Names of agents, for people.
    pub names: &'a BTreeMap<AgentId, String>,
}

/// The search page: with an answer, with a sentence that says why there is none, or empty.
pub(crate) fn page(page: &SearchPage<'_>, answer: Option<&Result<Found, String>>) -> Markup {
    let asked = page.asked;
    let title = if asked.words.is_empty() {
        "Search · Gastown".to_owned()
    } else {
        format!("{} · Search · Gastown", element::first_line(&asked.words))
    };
    let frame = Frame {
        title: &title,
        town: page.town,
        headline: Some(page.headline),
        place: Place::Search,
        stream: None,
    };
    shell::page(
        &frame,
        &html! {
            div class="page-head" { h1 { "Search" } }
            (form(page))
            @match answer {
                None => p class="search-help" {
                    "All words must occur. " code { "\"as one\"" } " finds a phrase, " code { "tok*" } " whatever begins so."
                },
                Some(Err(why)) => div class="notice" data-state="error" role="alert" { (icon("s-failed")) div class="notice-title" { (why) } },
                Some(Ok(found)) => (results(page, found)),
            }
        },
    )
}

fn form(page: &SearchPage<'_>) -> Markup {
    let asked = page.asked;
    html! {
        form class="search-form" role="search" method="get" action="/search" aria-label="Transcripts" {
            label class="sr-only" for="q" { "Words" }
            input class="field" id="q" name="q" type="search" value=(asked.words) placeholder="Words that were said, commands, files, errors" autocomplete="off" maxlength="400" autofocus[asked.words.is_empty()];
            label class="sr-only" for="search-agent" { "Agent" }
            select class="field" id="search-agent" name="agent" {
                option value="" { "All agents" }
                @for (id, name) in page.names { option value=(id) selected[asked.agent.as_ref() == Some(id)] { (element::first_line(name)) } }
            }
            label class="sr-only" for="search-kind" { "Kind" }
            select class="field" id="search-kind" name="type" {
                option value="" { "Everything" }
                @for kind in TextKind::ALL { option value=(kind) selected[asked.kind == Some(kind)] { (words(kind).1) } }
            }
            button class="btn btn-primary" { "Search" }
        }
    }
}

fn results(page: &SearchPage<'_>, found: &Found) -> Markup {
    html! {
        p class="section-meta search-n" role="status" {
            @if found.hits.is_empty() { "Nothing has these words." }
            @else { span { (figures::plural(found.hits.len(), "place")) @if found.next.is_some() { " and more" } } span { "newest first" } }
        }
        @if !found.damaged.is_empty() {
            div class="notice" data-state="gap" role="status" {
                (icon("gap"))
                div class="notice-title" { (figures::plural(found.damaged.len(), "event")) " could not be read" }
                div class="notice-text" { "The store reported damage there; something may be missing below." }
            }
        }
        ol class="hits" { @for hit in &found.hits { (row(page, hit)) } }
        @if let Some(next) = found.next {
            (again(page.asked, &page.asked.words, Some(next), "Older"))
        } @else if let Some(open) = open_ended(page.asked).filter(|_| found.hits.is_empty()) {
            (again(page.asked, open.as_str(), None, &format!("Look for {open}")))
        }
    }
}

/// A button that looks for other words, or for what is older, in the same places.
fn again(asked: &Asked, words: &str, before: Option<Position>, name: &str) -> Markup {
    html! {
        form class="search-more" method="get" action="/search" {
            input type="hidden" name="q" value=(words);
            @if let Some(agent) = &asked.agent { input type="hidden" name="agent" value=(agent); }
            @if let Some(kind) = asked.kind { input type="hidden" name="type" value=(kind); }
            @if let Some(before) = before { input type="hidden" name="before" value=(before); }
            button class="btn" { (name) }
        }
    }
}

/// The same words, the last of which may go on.
fn open_ended(asked: &Asked) -> Option<Terms> {
    asked.words.parse::<Terms>().ok()?.open_ended()
}

fn row(page: &SearchPage<'_>, hit: &Hit) -> Markup {
    let (icon_name, word) = words(hit.kind);
    let state = matches!(hit.kind, TextKind::Error).then_some("error");
    let agent = hit.log.agent();
    let name =
        agent.and_then(|agent| page.names.get(agent)).map_or_else(|| hit.log.to_string(), Clone::clone);
    html! {
        li class="hit" data-state=[state] {
            (icon(icon_name))
            div class="hit-body" {
                a class="hit-link" href=(target(hit)) {
                    b { (element::first_line(&name)) }
                    @match hit.title.as_ref().or(hit.tool.as_ref()) {
                        Some(title) => span class="clip" { (element::first_line(title)) },
                        None => span { (word) },
                    }
                }
                p class={ "hit-text" @if !matches!(hit.field, Field::Text | Field::Title) { " mono" } } {
                    @for piece in &hit.snippet { @if piece.hit { mark { (piece.text) } } @else { (piece.text) } }
                }
            }
            span class="hit-time" { (element::date_and_time(hit.time)) }
        }
    }
}

/// Where a hit is shown: the part in its agent's page, opened, or else the raw event.
fn target(hit: &Hit) -> String {
    let Some(agent) = hit.log.agent() else { return "/agents".to_owned() };
    match hit.key.as_ref().and_then(|key| key.as_str().split_once('/')) {
        Some(("part", id)) => {
            let id = element::id(id);
            format!("/agents/{agent}?part={id}#{id}")
        }
        Some(("permission" | "question" | "network", id)) => {
            let id = ask::row_id(id);
            format!("/agents/{agent}?part={id}#{id}")
        }
        Some(_) => format!("/agents/{agent}"),
        None => format!("/agents/{agent}?part=evt-{}#evt-{}", hit.seq, hit.seq),
    }
}

/// The logs that an answer may be from.
pub(crate) fn logs_of(
    asked: &Asked,
    agents: impl Iterator<Item = AgentId>,
) -> std::collections::BTreeSet<LogId> {
    agents.filter(|agent| asked.agent.as_ref().is_none_or(|only| only == agent)).map(LogId::Agent).collect()
}

/// A kind's icon and word.
fn words(kind: TextKind) -> (&'static str, &'static str) {
    match kind {
        TextKind::Prompt => ("user", "Prompts"),
        TextKind::Text => ("log", "Answers"),
        TextKind::Reasoning => ("think", "Thoughts"),
        TextKind::Tool => ("bash", "Tools"),
        TextKind::Error => ("s-failed", "Errors"),
        TextKind::Question => ("question", "Questions"),
        TextKind::Permission => ("lock", "Permissions"),
        TextKind::Session => ("agents", "Titles"),
        TextKind::Patch => ("edit", "Changes"),
        TextKind::Done => ("s-done", "Outcomes"),
        _ => ("log", "Other"),
    }
}

#[cfg(test)]
mod tests {
    use protocol::{Epoch, Key, Seq, Timestamp, search::Piece};

    use super::*;

    #[test]
    fn a_hit_leads_to_its_part_and_shows_what_was_found_as_text() {
        let hit = hit(Some("part/msg_1/prt_2"));
        let html = show(&Found { hits: vec![hit], next: None, damaged: Vec::new() });
        assert!(html.contains("href=\"/agents/toast?part=msg_1/prt_2#msg_1/prt_2\""), "{html}");
        assert!(html.contains("&lt;b&gt;a <mark>&lt;flaky&gt;</mark>"), "{html}");
        assert!(html.contains("<b>Toast</b>"), "{html}");
    }

    #[test]
    fn what_has_no_part_leads_to_its_event_and_asks_to_their_cards() {
        assert_eq!(target(&hit(None)), "/agents/toast?part=evt-7#evt-7");
        assert_eq!(target(&hit(Some("permission/per_1"))), "/agents/toast?part=prt_per_1#prt_per_1");
        assert_eq!(target(&hit(Some("session/s"))), "/agents/toast");
    }

    #[test]
    fn older_hits_are_asked_for_with_the_same_words() {
        let found = Found { hits: Vec::new(), next: Some(Position::new(9)), damaged: Vec::new() };
        let html = show(&found);
        let form = &html[html.find("search-more").unwrap()..];
        assert!(form.contains("name=\"q\" value=\"flaky\"") && form.contains("name=\"before\""), "{form}");
    }

    #[test]
    fn where_nothing_is_found_words_that_begin_so_are_offered() {
        let html = show(&Found { hits: Vec::new(), next: None, damaged: Vec::new() });
        assert!(html.contains("value=\"flaky*\"") && html.contains("Look for flaky*"), "{html}");
    }

    #[test]
    fn one_agent_or_all_of_those_given() {
        let agents = || ["toast", "ember"].into_iter().map(|id| id.parse().unwrap());
        let only = Asked { agent: "ember".parse().ok(), ..Asked::default() };
        assert_eq!(logs_of(&only, agents()).len(), 1);
        assert_eq!(logs_of(&Asked::default(), agents()).len(), 2);
        let stranger = Asked { agent: "nobody".parse().ok(), ..Asked::default() };
        assert!(logs_of(&stranger, agents()).is_empty());
    }

    fn show(found: &Found) -> String {
        let names = BTreeMap::from([("toast".parse().unwrap(), "Toast".to_owned())]);
        let asked = Asked { words: "flaky".into(), ..Asked::default() };
        let search = SearchPage { town: "t", headline: Headline::default(), asked: &asked, names: &names };
        page(&search, Some(&Ok(found.clone()))).into_string()
    }

    fn hit(key: Option<&str>) -> Hit {
        let piece = |text: &str, hit| Piece { text: text.into(), hit };
        Hit {
            log: "agent/toast".parse().unwrap(),
            epoch: Epoch::new("e"),
            seq: Seq::new(7),
            time: Timestamp::from_unix_ms(0),
            kind: TextKind::Tool,
            session: None,
            key: key.map(Key::new),
            tool: Some("bash".into()),
            title: None,
            field: Field::Output,
            snippet: vec![piece("<b>a ", false), piece("<flaky>", true)],
        }
    }
}
