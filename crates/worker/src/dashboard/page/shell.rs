//! The frame of every page: head, top bar, navigation.

use maud::{DOCTYPE, Markup, html};

use crate::dashboard::{
    assets,
    element::{self, icon},
    figures,
    tree::{ALWAYS, Node},
};

/// What the frame of a page needs to know.
#[derive(Debug, Clone)]
pub(crate) struct Frame<'a> {
    /// What the browser's tab shows.
    pub title: &'a str,
    /// The town's name.
    pub town: &'a str,
    /// What stands at the top of every page of the town; who came by a share link is shown none of it.
    pub headline: Option<Headline>,
    /// Which entry of the navigation this page is.
    pub place: Place,
    /// What the stream is opened with; without one the page does not change.
    pub stream: Option<Stream>,
}

/// The places that the navigation leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// Every agent.
    Fleet,
    /// One agent.
    Agent,
    /// The search.
    Search,
    /// None of them: a page that says one thing.
    Elsewhere,
}

/// What every page of the town shows at its top: who needs a person, and what it cost so far.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Headline {
    /// Agents that wait for a person.
    pub needs: usize,
    /// Tokens of all agents.
    pub tokens: u64,
    /// What they cost, in dollars.
    pub cost: f64,
}

/// What the page module opens its stream with.
#[derive(Debug, Clone, Default)]
pub(crate) struct Stream {
    /// Where a ticket is had, by POST; the cookie is enough without one.
    pub ticket: Option<String>,
    /// The stream's address.
    pub path: String,
    /// The incarnation of what the page shows.
    pub epoch: String,
    /// The position that the page shows.
    pub after: u64,
    /// A key that opens it any number of times, in place of tickets: that of a share link.
    pub key: Option<String>,
    /// The id of the whole that a patch may replace.
    pub log: String,
}

/// A page.
pub(crate) fn page(frame: &Frame<'_>, main: &Markup) -> Markup {
    let stream = frame.stream.as_ref();
    let class = if frame.place == Place::Agent { "shell shell-agent" } else { "shell" };
    html! {
        (DOCTYPE)
        html lang="en" {
            (head(frame.title))
            body data-stream=[stream.map(|stream| stream.path.as_str())]
                data-ticket=[stream.and_then(|stream| stream.ticket.as_deref())]
                data-key=[stream.and_then(|stream| stream.key.as_deref())]
                data-epoch=[stream.map(|stream| stream.epoch.as_str())]
                data-after=[stream.map(|stream| stream.after)]
                data-log=[stream.map(|stream| stream.log.as_str())] {
                (element::ready(assets::ICONS))
                a class="skip" href="#main" { "Skip to content" }
                div class={ (class) @if frame.headline.is_none() { " is-shared" } } {
                    (topbar(frame))
                    @if let Some(headline) = frame.headline { (navigation(frame.place, headline)) }
                    main class={ "main" @if frame.place == Place::Agent { " main-agent" } } id="main" { (main) }
                }
                @if stream.is_some() {
                    noscript { p class="noscript" { "Without script this page shows what was when it was loaded. " a href="" { "Load it again" } " to see more." } }
                }
            }
        }
    }
}

fn topbar(frame: &Frame<'_>) -> Markup {
    html! {
        header class="topbar" {
            @match frame.headline {
                Some(_) => a class="brand" href="/agents" aria-label={ "Gastown, town " (frame.town) } { (brand(frame.town)) },
                None => span class="brand" { (brand(frame.town)) },
            }
            @if frame.headline.is_some() { (search_box("")) }
            div class="topbar-end" {
                @if frame.headline.is_none() { span class="tag" { (icon("read")) "Shared, read only" } }
                @if frame.stream.is_some() {
                    span class="conn" id="conn" data-state="offline" role="status" {
                        span class="conn-dot" {} span { b class="conn-word" { "Not live" } " " span class="conn-age" id="conn-age" {} }
                    }
                }
                @if let Some(headline) = frame.headline { (spend(headline)) }
                button type="button" class="btn btn-sm btn-quiet btn-icon js-only" id="theme" aria-label="Light or dark" title="Light or dark" { (icon("theme")) }
                @if frame.headline.is_some() { form method="post" action="/logout" { button class="btn btn-sm btn-quiet hide-s" { "Sign out" } } }
            }
        }
    }
}

fn brand(town: &str) -> Markup {
    html! { (brand_mark()) span { "Gastown" } span class="brand-town" { (town) } }
}

/// The search over every agent of the town.
pub(crate) fn search_box(query: &str) -> Markup {
    html! {
        form class="search" role="search" method="get" action="/search" {
            (icon("search"))
            label class="sr-only" for="search" { "Search agents and transcripts" }
            input id="search" name="q" type="search" value=(query) placeholder="Search agents and transcripts" autocomplete="off" maxlength="400";
            kbd class="js-only" aria-hidden="true" { "/" }
        }
    }
}

fn navigation(place: Place, headline: Headline) -> Markup {
    let here = |is_here: bool| is_here.then_some("page");
    html! {
        nav class="nav" aria-label="Town" {
            ul class="nav-list" {
                li {
                    a class="nav-item" href="/agents" aria-current=[here(matches!(place, Place::Fleet | Place::Agent))] {
                        (icon("agents")) span { "Agents" } (nav_needs(headline.needs))
                    }
                }
                li { a class="nav-item" href="/search" aria-current=[here(place == Place::Search)] { (icon("search")) span { "Search" } } }
            }
            div class="nav-foot" {
                "gastown " (env!("CARGO_PKG_VERSION"))
                div class="keys js-only" {
                    @for (keys, what) in KEYS { span { @for key in *keys { kbd { (key) } } } span { (what) } }
                }
            }
        }
    }
}

/// What the keys of the page module do.
const KEYS: &[(&[&str], &str)] = &[
    (&["j", "k"], "next, previous"),
    (&["o"], "open"),
    (&["/"], "find, search"),
    (&["y", "a", "n"], "answer"),
    (&["g", "l"], "live"),
    (&["g", "a"], "agents"),
    (&["g", "s"], "search"),
];

/// The regions at the top of every page of the town.
pub(crate) fn headline(headline: Headline) -> [Node; 2] {
    [
        Node::leaf("nav-needs", ALWAYS, nav_needs(headline.needs).into_string()),
        Node::leaf("spend", ALWAYS, spend(headline).into_string()),
    ]
}

fn spend(headline: Headline) -> Markup {
    html! {
        span class="spend" id="spend" title="What the agents of this town used so far" {
            b { (figures::dollars(headline.cost)) } span class="num" { (figures::short(headline.tokens)) " tokens" }
        }
    }
}

/// The count of agents that wait, in the navigation.
fn nav_needs(needs: usize) -> Markup {
    html! {
        span class="count count-needs" id="nav-needs" aria-label={ (needs) " need you" } hidden[needs == 0] { (needs) }
    }
}

/// The head of every page.
pub(crate) fn head(title: &str) -> Markup {
    html! {
        head {
            meta charset="utf-8";
            meta name="viewport" content="width=device-width, initial-scale=1, viewport-fit=cover";
            meta name="color-scheme" content="light dark";
            (self::title(title))
            link rel="stylesheet" href=(assets::STYLE.path());
            link rel="icon" type="image/svg+xml" href=(assets::FAVICON.path());
            // Not a module: it is small, and the theme must be there before the first paint.
            script src=(assets::THEME.path()) {}
            script type="module" src=(assets::MODULE.path()) {}
        }
    }
}

/// What a browser's tab shows.
pub(crate) fn title(words: &str) -> Markup {
    html! { title id="title" { (words) } }
}

/// The mark beside the name.
pub(crate) fn brand_mark() -> Markup {
    html! {
        svg class="brand-mark" viewBox="0 0 20 20" aria-hidden="true" {
            path d="M3 16.5V8.2L10 3l7 5.2v8.3" fill="none" stroke="currentColor" stroke-width="1.75" stroke-linejoin="round" stroke-linecap="round" {}
            path d="M6.75 16.5v-5M10 16.5V8.5M13.25 16.5v-3" stroke="currentColor" stroke-width="1.75" stroke-linecap="round" {}
        }
    }
}
