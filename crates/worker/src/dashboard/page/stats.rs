//! The figures in the head of an agent's page.

use maud::{Markup, html};
use protocol::{
    model::Role,
    view::{SessionRef, SessionView},
};

use super::regions::{children, region};
use crate::dashboard::{element, figures, tree::Node};

/// Every figure.
pub(crate) fn regions(view: &SessionView) -> [Node; 5] {
    [
        region("stat-model", html! { dd id="stat-model" { (model_name(view)) } }),
        region("stat-context", html! { dd class="row" id="stat-context" { (context(view)) } }),
        region("stat-tokens", html! { dd id="stat-tokens" { (tokens(view)) } }),
        region("stat-cost", html! { dd id="stat-cost" { (cost(view)) } }),
        region("stat-elapsed", html! { dd id="stat-elapsed" { (elapsed(view)) } }),
    ]
}

fn model_name(view: &SessionView) -> Markup {
    let roots = view.roots();
    let root = roots.last();
    let model = root.and_then(|root| root.info()?.model.as_ref());
    let variant = model.and_then(|model| model.variant.as_deref()).filter(|variant| *variant != "default");
    html! {
        @match newest_model(view).or_else(|| model.map(|model| model.id.clone())) {
            Some(name) => { (element::first_line(&name)) @if let Some(variant) = variant { " " span class="faint" { (element::first_line(variant)) } } },
            None => "—",
        }
    }
}

/// How full the model's window is; where nobody says how large it is, how much is in it.
fn context(view: &SessionView) -> Markup {
    let tokens = view.roots().last().map_or(0, SessionRef::context_tokens);
    let limit = newest_model(view).and_then(|model| {
        let started = view.agent().started.as_ref()?;
        started.context_limits.get(&model).copied().filter(|limit| *limit > 0)
    });
    html! {
        @match limit {
            Some(limit) => {
                (element::meter(tokens * 100 / limit, "Context used"))
                span { ((tokens * 100 / limit).min(100)) "% " span class="faint" { "of " (figures::short(limit)) } }
            },
            None if tokens > 0 => span { (figures::short(tokens)) " " span class="faint" { "tokens" } },
            None => "—",
        }
    }
}

fn tokens(view: &SessionView) -> Markup {
    let tokens = view.usage().tokens;
    html! {
        span class="live-num" { (figures::short(tokens.input)) " in" } " " span class="faint" { "·" } " " (figures::short(tokens.output + tokens.reasoning)) " out"
        @if tokens.cache.read > 0 { " " span class="faint" { "· " (figures::short(tokens.cache.read)) " cached" } }
    }
}

fn cost(view: &SessionView) -> Markup {
    let children: f64 = children(view).iter().map(|child| child.usage().cost).sum();
    html! { (figures::dollars(view.usage().cost)) @if children > 0.0 { " " span class="faint" { "incl. " (figures::dollars(children)) " sub-agents" } } }
}

fn elapsed(view: &SessionView) -> Markup {
    let roots = view.roots();
    let Some(start) = roots.last().and_then(|root| {
        root.messages()
            .iter()
            .rev()
            .find_map(|message| message.info().filter(|info| info.role == Role::User)?.time.created)
    }) else {
        return html! { "—" };
    };
    let is_open = roots.iter().any(|root| root.is_turn_open());
    let end = roots
        .last()
        .and_then(|root| root.messages().iter().rev().find_map(|message| message.info()?.time.completed));
    html! {
        @match (is_open, end) {
            (false, Some(end)) => (figures::duration(end.since(start))),
            (true | false, _) => time datetime=(start) data-elapsed { "since " (figures::time_of_day(start)) },
        }
    }
}

/// The model that answered last.
fn newest_model(view: &SessionView) -> Option<String> {
    let roots = view.roots();
    roots.last()?.messages().iter().rev().find_map(|message| message.info()?.model_name().map(str::to_owned))
}
