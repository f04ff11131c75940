//! The frame of every page: head, top bar, navigation.

use maud::{DOCTYPE, Markup, html};

use crate::dashboard::{
    assets,
    element::{self, icon},
};

/// What the frame of a page needs to know.
#[derive(Debug, Clone)]
pub(crate) struct Frame<'a> {
    /// What the browser's tab shows.
    pub title: &'a str,
    /// The town's name.
    pub town: &'a str,
    /// Agents that wait for a person.
    pub needs: usize,
    /// Classes of the shell beside `shell`.
    pub class: &'a str,
    /// What the stream is opened with; without one the page does not change.
    pub stream: Option<Stream>,
}

/// What the page module opens its stream with.
#[derive(Debug, Clone)]
pub(crate) struct Stream {
    /// Where a ticket is had, by POST; the cookie is enough without one.
    pub ticket: Option<String>,
    /// The stream's address.
    pub path: String,
    /// The incarnation of what the page shows.
    pub epoch: String,
    /// The position that the page shows.
    pub after: u64,
    /// The id of the whole that a patch may replace.
    pub log: String,
}

/// A page.
pub(crate) fn page(frame: &Frame<'_>, main: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            (head(frame.title))
            body data-stream=[frame.stream.as_ref().map(|stream| stream.path.as_str())]
                data-ticket=[frame.stream.as_ref().and_then(|stream| stream.ticket.as_deref())]
                data-epoch=[frame.stream.as_ref().map(|stream| stream.epoch.as_str())]
                data-after=[frame.stream.as_ref().map(|stream| stream.after)]
                data-log=[frame.stream.as_ref().map(|stream| stream.log.as_str())] {
                (element::ready(assets::ICONS))
                a class="skip" href="#main" { "Skip to content" }
                div class={ "shell " (frame.class) } {
                    header class="topbar" {
                        a class="brand" href="/agents" aria-label={ "Gastown, town " (frame.town) } {
                            (brand_mark()) span { "Gastown" } span class="brand-town" { (frame.town) }
                        }
                        div class="topbar-end" {
                            @if frame.stream.is_some() {
                                span class="conn" id="conn" data-state="offline" role="status" {
                                    span class="conn-dot" {} span { b class="conn-word" { "Not live" } " " span class="conn-age" id="conn-age" {} }
                                }
                            }
                            button type="button" class="btn btn-sm btn-quiet btn-icon js-only" id="theme" aria-label="Light or dark" title="Light or dark" { (icon("theme")) }
                            form method="post" action="/logout" { button class="btn btn-sm btn-quiet" { "Sign out" } }
                        }
                    }
                    nav class="nav" aria-label="Town" {
                        ul class="nav-list" {
                            li {
                                a class="nav-item" href="/agents" aria-current="page" {
                                    (icon("agents")) span { "Agents" } (nav_needs(frame.needs))
                                }
                            }
                        }
                        div class="nav-foot" {
                            "gastown " (env!("CARGO_PKG_VERSION"))
                            div class="keys js-only" {
                                @for (keys, what) in [(&["j", "k"][..], "parts"), (&["o"], "open"), (&["g", "l"], "live"), (&["g", "a"], "agents"), (&["/"], "find")] {
                                    span { @for key in keys { kbd { (key) } } } span { (what) }
                                }
                            }
                        }
                    }
                    main class={ "main" @if frame.class.contains("shell-agent") { " main-agent" } } id="main" { (main) }
                }
                noscript { p class="noscript" { "Without script this page shows what was when it was loaded. " a href="" { "Load it again" } " to see more." } }
            }
        }
    }
}

/// The count of agents that wait, in the navigation.
pub(crate) fn nav_needs(needs: usize) -> Markup {
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
