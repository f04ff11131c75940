//! Every agent of a town at a glance: what needs a person first.

use std::collections::BTreeMap;

use maud::{Markup, html};
use protocol::{
    AgentId, Seq, Timestamp,
    model::{PartBody, Role, SessionStatus},
    view::{PendingAsk, SessionRef},
};

use super::{
    regions,
    shell::{self, Frame, Headline, Place, Stream},
};
use crate::dashboard::{
    element::{self, icon},
    figures,
    model::{Doing, MINUTES, Minute, Model},
    part::{
        Reader, Scope, ask,
        tool_kind::{self, Kind},
    },
    transcript,
    tree::{ALWAYS, Content, Node},
};

/// Asks that are shown in the strip at the top.
const URGENT: usize = 12;

/// One agent, as the fleet page shows it: made of its model, so that no model is held while the page is rendered.
#[derive(Debug, Clone)]
pub(crate) struct Resident {
    /// Its id.
    pub id: AgentId,
    /// Its name.
    pub name: String,
    /// Its role.
    pub role: String,
    /// What runs it.
    pub runtime: String,
    /// What it does just now.
    pub doing: Doing,
    /// Its state in words.
    pub state: Markup,
    /// The icon and the line that say what it does just now.
    pub now: (&'static str, String),
    /// What it is about: its session's title.
    pub title: String,
    /// All its tokens.
    pub tokens: u64,
    /// What it cost.
    pub cost: f64,
    /// When its turn began, if one runs.
    pub since: Option<Timestamp>,
    /// Events per minute.
    pub minutes: Vec<Minute>,
    /// What it asks, oldest first.
    pub asks: Vec<PendingAsk>,
    /// Where its folder is.
    pub directory: String,
}

impl Resident {
    /// Whether it waits for a person.
    pub(crate) fn needs_a_person(&self) -> bool {
        self.doing == Doing::Waiting
    }

    /// An agent as its town and its log know it. `trouble` is what the town says where the log cannot: a wrapper that
    /// died is not there to say so.
    pub(crate) fn new(agent: &town::Agent, model: &Model) -> Self {
        let doing = doing(agent, model);
        let view = &model.view;
        let asks: Vec<PendingAsk> = if matches!(doing, Doing::Exited | Doing::Failed) {
            Vec::new()
        } else {
            view.pending().into_iter().cloned().collect()
        };
        let root = view.roots().last().copied();
        let is_open = root.is_some_and(|root| root.is_turn_open())
            && matches!(doing, Doing::Busy | Doing::Waiting | Doing::Retrying);
        let prompted = root.and_then(|root| {
            root.messages()
                .iter()
                .rev()
                .find_map(|message| message.info().filter(|info| info.role == Role::User)?.time.created)
        });
        let usage = view.usage();
        let (state, icon_name, word) = doing.words();
        let state = match doing {
            Doing::Waiting => asks.first().map_or_else(
                || element::needs(icon_name, word),
                |first| {
                    let (icon_name, word) = ask::kind(first);
                    element::needs(icon_name, word)
                },
            ),
            Doing::Stalled => regions::agent_state(model, Reader::Reads),
            Doing::Retrying => element::state(
                state,
                icon_name,
                &regions::retry_words(view).unwrap_or_else(|| word.to_owned()),
            ),
            Doing::Failed | Doing::Busy | Doing::Starting | Doing::Stopping | Doing::Idle | Doing::Exited => {
                element::state(state, icon_name, word)
            }
        };
        Self {
            id: agent.id.clone(),
            name: agent.name.clone(),
            role: agent.role.to_string(),
            runtime: agent.runtime.kind.to_string(),
            doing,
            state,
            now: now(agent, model, doing),
            title: root.map(about).unwrap_or_default(),
            tokens: usage.tokens.total(),
            cost: usage.cost,
            since: prompted.filter(|_| is_open),
            minutes: model.minutes.iter().copied().collect(),
            asks,
            directory: agent.directory.clone(),
        }
    }
}

/// The regions of the fleet page, by their ids. `now` ends the density pictures.
pub(crate) fn regions(residents: &[Resident], headline: Headline, steer: bool, now: Timestamp) -> Vec<Node> {
    let mut sorted: Vec<&Resident> = residents.iter().collect();
    sorted.sort_by(|a, b| (a.doing, &a.name).cmp(&(b.doing, &b.name)));
    let mut regions = vec![
        leaf("title", shell::title(&title(headline))),
        leaf("state-filter", chips(residents)),
        urgent(&sorted, steer),
        leaf(
            "empty",
            html! { div class="card empty" id="empty" hidden[!residents.is_empty()] { p { "No agents yet. Start one where its repository is:" } code class="cmd" { "gastown agent start --runtime opencode --dir ." } } },
        ),
        rows(&sorted, now),
        leaf(
            "rig-town-meta",
            html! { span class="section-meta" id="rig-town-meta" { span { (figures::plural(residents.len(), "agent")) } span { (figures::dollars(headline.cost)) } } },
        ),
    ];
    regions.extend(shell::headline(headline));
    regions
}

fn title(headline: Headline) -> String {
    match headline.needs {
        0 => "Agents · Gastown".to_owned(),
        needs => format!("({needs}) Agents · Gastown"),
    }
}

/// The whole page around its regions.
pub(crate) fn page(town: &str, headline: Headline, stream: Stream, nodes: &[Node]) -> Markup {
    let nodes: BTreeMap<&str, &Node> = nodes.iter().map(|node| (&*node.id, node)).collect();
    let region = |id: &str| nodes.get(id).map_or_else(|| html! {}, |node| element::ready(node.html()));
    let title = title(headline);
    let frame =
        Frame { title: &title, town, headline: Some(headline), place: Place::Fleet, stream: Some(stream) };
    shell::page(
        &frame,
        &html! {
            div class="page-head" { h1 { "Agents" } (region("state-filter")) }
            (region("urgent"))
            (region("empty"))
            section class="rig-group" id="rig-town" aria-labelledby="rig-town-h" {
                div class="rig-head" { h2 id="rig-town-h" { "Town" } (region("rig-town-meta")) }
                div class="agent-list" {
                    div class="agent-cols" aria-hidden="true" {
                        span { "State" } span { "Agent" } span { "What it does now" } span { "Events, last 60 min" }
                        span class="num" { "Tokens" } span class="num" { "Cost" } span class="num" { "Elapsed" }
                    }
                    (region("rig-town-agents"))
                }
            }
        },
    )
}

fn leaf(id: &str, html: Markup) -> Node {
    Node::leaf(id, ALWAYS, html.into_string())
}

fn chips(residents: &[Resident]) -> Markup {
    let count = |doing: Doing| residents.iter().filter(|resident| resident.doing == doing).count();
    html! {
        div class="chips" role="group" aria-label="Filter by state" id="state-filter" {
            button type="button" class="chip" data-show="all" aria-pressed="true" { "All " b id="n-all" { (residents.len()) } }
            @for doing in [Doing::Waiting, Doing::Stalled, Doing::Failed, Doing::Retrying, Doing::Busy, Doing::Starting, Doing::Stopping, Doing::Idle, Doing::Exited] {
                @let (state, icon_name, word) = doing.words();
                @if count(doing) > 0 {
                    button type="button" class="chip" data-show=(state) data-state=(state) aria-pressed="false" { (icon(icon_name)) (word) " " b id={ "n-" (state) } { (count(doing)) } }
                }
            }
        }
    }
}

fn urgent(residents: &[&Resident], steer: bool) -> Node {
    let mut asks: Vec<(&Resident, &PendingAsk)> =
        residents.iter().filter_map(|resident| Some((*resident, resident.asks.first()?))).collect();
    asks.sort_by_key(|(resident, ask)| (ask.time, resident.id.clone()));
    let cards = asks.iter().take(URGENT).map(|(resident, ask)| {
        let id = format!("ask-{}-{}", resident.id, element::id(&ask.id));
        Node::leaf(id.clone(), ALWAYS, urgent_card(&id, resident, ask, steer).into_string())
    });
    Node {
        id: "urgent".into(),
        changed: ALWAYS,
        content: Content::Branch {
            open: "<section class=\"urgent\" id=\"urgent\" aria-label=\"Needs you\">".into(),
            container: "urgent".into(),
            children: cards.collect(),
            close: "</section>".into(),
        },
    }
}

fn urgent_card(id: &str, resident: &Resident, ask: &PendingAsk, steer: bool) -> Markup {
    let reader = Reader::of(steer);
    let scope = Scope { agent: resident.id.clone(), reader, directory: resident.directory.clone() };
    let (icon_name, word) = ask::kind(ask);
    let page = format!("/agents/{}", resident.id);
    html! {
        article class="card urgent-card" id=(id) data-state="waiting" {
            div class="urgent-head" {
                (element::needs(icon_name, word)) a href=(page) { b { (element::first_line(&resident.name)) } }
                span class="faint clip" { (resident.role) }
                span class="age" { (element::age("waits", ask.time)) }
            }
            div class="urgent-ask" {
                @match ask.permission() {
                    Some(permission) => { span { (element::first_line(&permission.permission)) } code { (ask::summary(ask)) } },
                    None => span { (ask::summary(ask)) },
                }
                @if resident.asks.len() > 1 { a class="faint" href=(page) { "and " (resident.asks.len() - 1) " more" } }
            }
            div class="urgent-acts" {
                @if steer { (ask::short_form(&scope, ask, "row", false)) }
                a class="btn btn-sm btn-quiet" href={ (page) "#" (element::id(&ask.id)) } { @if ask.question().is_some() { "Answer in words" } @else { "Show" } }
            }
        }
    }
}

fn rows(residents: &[&Resident], now: Timestamp) -> Node {
    Node {
        id: "rig-town-agents".into(),
        changed: ALWAYS,
        content: Content::Branch {
            open: "<ul id=\"rig-town-agents\">".into(),
            container: "rig-town-agents".into(),
            children: residents.iter().map(|resident| row(resident, now)).collect(),
            close: "</ul>".into(),
        },
    }
}

/// A row. Its cells change on their own: the row itself only when the agent's state does.
fn row(resident: &Resident, now: Timestamp) -> Node {
    let id = format!("agent-{}", resident.id);
    let (state, ..) = resident.doing.words();
    let cell = |name: &str, html: Markup| Node::leaf(format!("{id}-{name}"), Seq::ZERO, html.into_string());
    let cells = vec![
        cell("state", html! { span class="c-state" id={ (id) "-state" } { (resident.state) } }),
        cell(
            "who",
            html! { span class="c-who" id={ (id) "-who" } { a class="agent-link agent-name clip" href={ "/agents/" (resident.id) } { (element::first_line(&resident.name)) } span class="agent-role" { (resident.role) } } },
        ),
        cell(
            "what",
            html! {
                span class="c-what clip" id={ (id) "-what" } {
                    span class="agent-bead" { span class="clip" { @if resident.title.is_empty() { span class="faint" { (resident.runtime) } } @else { (resident.title) } } }
                    span class="agent-now" id={ (id) "-now" } { (icon(resident.now.0)) span class="clip" { (resident.now.1) } }
                }
            },
        ),
        cell(
            "spark",
            html! { span class="c-spark" id={ (id) "-spark" } { (spark(&resident.minutes, now)) } },
        ),
        cell(
            "tokens",
            html! { span class="c-tok num" id={ (id) "-tokens" } { (figures::short(resident.tokens)) } },
        ),
        cell(
            "cost",
            html! { span class="c-cost num" id={ (id) "-cost" } { (figures::dollars(resident.cost)) } },
        ),
        cell(
            "elapsed",
            html! { span class="c-time num faint" id={ (id) "-elapsed" } { @match resident.since { Some(since) => time datetime=(since) data-elapsed { (figures::time_of_day(since)) }, None => "—" } } },
        ),
    ];
    let open = format!("<li class=\"agent-row\" id=\"{id}\" data-state=\"{state}\">");
    Node {
        id: id.clone().into(),
        changed: ALWAYS,
        content: Content::Branch {
            open: open.into(),
            container: id.into(),
            children: cells,
            close: "</li>".into(),
        },
    }
}

/// The events of the last hour, a bar per minute, on a root scale: one busy minute must not hide the others.
fn spark(minutes: &[Minute], now: Timestamp) -> Markup {
    let last = now.unix_ms().div_euclid(60_000);
    let width = i64::try_from(MINUTES).unwrap_or(60);
    let (mut calm, mut bad) = (String::new(), String::new());
    let top = minutes.iter().map(|minute| minute.events).max().unwrap_or(1).max(4);
    for minute in minutes {
        let x = minute.at - (last - width + 1);
        if !(0..width).contains(&x) {
            continue;
        }
        let height = (f64::from(minute.events) / f64::from(top)).sqrt() * 21.0 + 1.0;
        let bar = format!("M{:.1} 23v-{height:.1}h1.8v{height:.1}z", x as f64 * 2.4);
        if minute.errors > 0 { bad.push_str(&bar) } else { calm.push_str(&bar) }
    }
    html! {
        svg class="spark" viewBox="0 0 144 24" preserveAspectRatio="none" aria-hidden="true" {
            path class="spark-base" d="M0 23.5H144" {}
            @if !calm.is_empty() { path d=(calm) {} }
            @if !bad.is_empty() { path class="spark-err" d=(bad) {} }
        }
    }
}

/// What an agent does, where its town knows better than its log.
fn doing(agent: &town::Agent, model: &Model) -> Doing {
    match agent.phase {
        town::AgentPhase::Stopped { .. } => Doing::Exited,
        town::AgentPhase::Failed { .. } => Doing::Failed,
        town::AgentPhase::BackingOff { .. } => Doing::Failed,
        town::AgentPhase::Stopping { .. } => Doing::Stopping,
        town::AgentPhase::Running | _ => match model.doing() {
            // Launched, and its wrapper has not said anything yet.
            Doing::Exited | Doing::Failed => Doing::Starting,
            doing @ (Doing::Waiting
            | Doing::Stalled
            | Doing::Retrying
            | Doing::Busy
            | Doing::Starting
            | Doing::Stopping
            | Doing::Idle) => doing,
        },
    }
}

/// What a session is about: its title, or the newest prompt as long as it has none of its own.
fn about(session: SessionRef<'_>) -> String {
    let title = session
        .info()
        .map(|info| info.title.as_str())
        .filter(|title| !title.is_empty() && !title.starts_with("New session"));
    let prompt = || {
        let messages = session.messages();
        let prompts = messages
            .iter()
            .rev()
            .filter(|message| message.info().is_some_and(|info| info.role == Role::User));
        prompts
            .flat_map(|message| message.parts())
            .find_map(|part| part.body().text().map(element::first_line))
    };
    title.map(element::first_line).or_else(prompt).unwrap_or_default()
}

fn now(agent: &town::Agent, model: &Model, doing: Doing) -> (&'static str, String) {
    let view = &model.view;
    match (&agent.phase, doing) {
        (town::AgentPhase::Failed { reason } | town::AgentPhase::BackingOff { reason, .. }, _) => {
            return ("s-failed", element::first_line(reason));
        }
        (town::AgentPhase::Stopped { reason }, _) => {
            return ("exit", reason.as_deref().map_or_else(|| "Stopped".to_owned(), element::first_line));
        }
        _ => {}
    }
    if doing == Doing::Waiting
        && let Some(first) = view.pending().first()
    {
        let (icon_name, _) = ask::kind(first);
        return (
            icon_name,
            match first.permission() {
                Some(_) => format!("Asks for {}", ask::summary(first)),
                None => ask::summary(first),
            },
        );
    }
    for session in view.sessions() {
        if let SessionStatus::Retry { message, .. } = session.status() {
            return ("s-retry", element::first_line(message));
        }
    }
    newest_part(model, &agent.directory).unwrap_or_else(|| match doing {
        Doing::Starting => ("s-start", format!("{} is being started", agent.runtime.kind)),
        Doing::Waiting
        | Doing::Stalled
        | Doing::Failed
        | Doing::Retrying
        | Doing::Busy
        | Doing::Stopping
        | Doing::Idle
        | Doing::Exited => ("log", "Nothing yet".to_owned()),
    })
}

/// What the newest part says: the tool that runs, or the last words.
fn newest_part(model: &Model, directory: &str) -> Option<(&'static str, String)> {
    let sessions = model.view.sessions();
    let messages = sessions
        .iter()
        .flat_map(|session| session.messages())
        .filter(|message| message.info().is_none_or(|info| info.role != Role::User));
    let (message, part) = messages
        .flat_map(|message| message.parts().map(move |part| (message, part)))
        .filter(|(_, part)| {
            matches!(part.body(), PartBody::Tool(_) | PartBody::Text(_) | PartBody::Reasoning(_))
        })
        .filter(|(_, part)| part.body().text().is_none_or(|text| !text.trim().is_empty()))
        .max_by_key(|(_, part)| part.changed())?;
    let scope = Scope { agent: "x".parse().ok()?, reader: Reader::Reads, directory: directory.to_owned() };
    Some(match part.body() {
        PartBody::Tool(tool) => {
            let kind = Kind::of(&tool.tool);
            let title = tool_kind::title(tool, &scope);
            (kind.icon(), if title.is_empty() { tool_kind::name(tool) } else { title })
        }
        PartBody::Reasoning(text) => ("think", last_line(&text.text)),
        PartBody::Text(text) if transcript::is_open(part, message) => ("log", last_line(&text.text)),
        PartBody::Text(text) => ("log", plain(&text.text)),
        PartBody::File(_)
        | PartBody::StepStart(_)
        | PartBody::StepFinish(_)
        | PartBody::Patch(_)
        | PartBody::Snapshot(_)
        | PartBody::Agent(_)
        | PartBody::Retry(_)
        | PartBody::Subtask(_)
        | PartBody::Compaction(_)
        | PartBody::Unknown
        | _ => return None,
    })
}

fn last_line(text: &str) -> String {
    plain(text.trim_end().lines().next_back().unwrap_or_default())
}

/// The first line without the marks of Markdown.
fn plain(text: &str) -> String {
    element::first_line(text).trim_start_matches(['#', '>', '*', '-', ' ']).replace(['`', '*'], "")
}
