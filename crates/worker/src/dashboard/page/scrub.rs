//! The timeline under an agent's head: how dense its log is over time, what happened when, and the way to the past.

use maud::{Markup, html};
use protocol::{
    AgentId, Seq, Timestamp,
    model::{PartBody, Role},
    view::{NoticeBody, SessionView},
};

use crate::dashboard::{
    element::{self, icon},
    figures,
    model::Model,
    part::{Reader, Scope, ask, moment, tool_kind},
    timeline::{MOMENTS, Timeline},
    transcript,
    tree::{ALWAYS, Content, Node},
};

/// Marks at most, the newest; nearer than a hundredth of the track two of them become one.
const MARKS: usize = 48;
/// The height of a column.
const HEIGHT: f64 = 34.0;

/// How fast the past is played.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
pub(crate) enum Speed {
    /// As fast as it went.
    #[serde(rename = "1")]
    Once,
    /// Ten times as fast.
    #[serde(rename = "10")]
    TenTimes,
}

impl Speed {
    /// How many times as fast.
    pub(crate) fn factor(self) -> u32 {
        match self {
            Self::Once => 1,
            Self::TenTimes => 10,
        }
    }
}

/// Where in the past a page stands, and whether it moves on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment {
    /// The position.
    pub seq: Seq,
    /// Where that is on the timeline, from 0 to [`MOMENTS`].
    pub at: usize,
    /// How fast it moves on.
    pub speed: Option<Speed>,
}

/// Something that the timeline names.
struct Mark {
    time: Timestamp,
    icon: &'static str,
    state: Option<&'static str>,
    words: String,
    /// The element of the transcript that shows it.
    element: String,
}

/// The regions of the timeline. What changes with every event is small: all columns but the last stand on their own.
pub(crate) fn regions(model: &Model, scope: &Scope) -> Vec<Node> {
    let timeline = &model.timeline;
    let last = timeline.slots().last().map(|(slot, _)| slot);
    vec![
        Node::leaf("scrub-from", ALWAYS, from(timeline).into_string()),
        Node::leaf("scrub-past", ALWAYS, past(timeline, last).into_string()),
        Node::leaf("scrub-now", ALWAYS, now(timeline, last).into_string()),
        marks(model, scope),
    ]
}

/// The buttons that play the past: from a moment of it on, or from the beginning of what is kept.
pub(crate) fn speed(agent: &AgentId, timeline: &Timeline, moment: Option<Moment>) -> Node {
    let from = moment.map(|moment| moment.seq).or_else(|| timeline.column_at(0).map(|column| column.last));
    let playing = moment.and_then(|moment| moment.speed);
    let target = |seq: Seq, speed: Speed| format!("/agents/{agent}?at={seq}&speed={}", speed.factor());
    let html = html! {
        span class="seg" id="scrub-speed" role="group" aria-label="Replay"
            data-seq=[moment.map(|moment| moment.seq)] data-moment=[moment.map(|moment| moment.at)] {
            @if let Some(seq) = from {
                @if playing.is_some() {
                    a href={ "/agents/" (agent) "?at=" (seq) } aria-label="Stop here" title="Stop here" { (icon("stop")) }
                }
                @for speed in [Speed::Once, Speed::TenTimes] {
                    a href=(target(seq, speed)) aria-current=[(playing == Some(speed)).then_some("true")]
                        title=(if speed == Speed::Once { "Play as fast as it went" } else { "Play ten times as fast" }) { (speed.factor()) "×" }
                }
            }
        }
    };
    Node::leaf("scrub-speed", ALWAYS, html.into_string())
}

/// The timeline around its regions. `at` is where it stands, if not at the end.
pub(crate) fn form(agent: &str, at: Option<usize>, region: &impl Fn(&str) -> Markup) -> Markup {
    let page = format!("/agents/{agent}");
    html! {
        form class="scrub" id="scrub-form" method="get" action=(page) role="group" aria-label="Timeline" {
            span class="scrub-time" { (region("scrub-from")) }
            div class="scrub-track" id="scrub" {
                (region("scrub-past"))
                (region("scrub-now"))
                input type="range" id="scrub-at" name="moment" min="0" max=(MOMENTS) value=(at.unwrap_or(MOMENTS)) autocomplete="off" aria-label="Go to a moment";
                (region("scrub-marks"))
                output class="scrub-label" id="scrub-label" for="scrub-at" hidden {}
            }
            button class="btn btn-sm no-js" { "Go there" }
            (region("scrub-speed"))
            @if at.is_some() {
                a class="btn btn-sm live-btn" id="live" href=(page) { (icon("play")) "Back to live" }
            } @else {
                a class="btn btn-sm live-btn" id="live" href="#deck" data-state="offline" { span class="conn-dot" {} "Live" }
            }
        }
    }
}

fn from(timeline: &Timeline) -> Markup {
    html! { span id="scrub-from" { @if let Some(start) = timeline.start() { (element::time(start)) } } }
}

/// All columns but the last, and what the page module needs to say which time a slot is.
fn past(timeline: &Timeline, last: Option<usize>) -> Markup {
    let runs: Vec<String> = timeline.runs().iter().map(|(slot, after)| format!("{slot}:{after}")).collect();
    html! {
        svg class="scrub-density" id="scrub-past" viewBox=(view_box(timeline)) preserveAspectRatio="none" aria-hidden="true"
            data-start=(timeline.start_ms()) data-width=(timeline.width_ms()) data-slots=(timeline.len()) data-runs=(runs.join(" ")) {
            (columns(timeline, |slot| Some(slot) != last))
        }
    }
}

fn now(timeline: &Timeline, last: Option<usize>) -> Markup {
    html! {
        svg class="scrub-density" id="scrub-now" viewBox=(view_box(timeline)) preserveAspectRatio="none" aria-hidden="true" {
            (columns(timeline, |slot| Some(slot) == last))
        }
    }
}

fn view_box(timeline: &Timeline) -> String {
    format!("0 0 {} {HEIGHT}", timeline.len().max(1) * 4)
}

/// Columns on a root scale, whose top is a power of two: it seldom moves, and the picture with it.
fn columns(timeline: &Timeline, shown: impl Fn(usize) -> bool) -> Markup {
    let top = timeline.slots().map(|(_, column)| column.events).max().unwrap_or(1).max(8).next_power_of_two();
    let (mut calm, mut bad) = (String::new(), String::new());
    for (slot, column) in timeline.slots().filter(|(slot, _)| shown(*slot)) {
        let height = (f64::from(column.events) / f64::from(top)).sqrt() * (HEIGHT - 10.0) + 1.0;
        let bar = format!("M{} {HEIGHT}v-{height:.1}h3v{height:.1}z", slot * 4);
        if column.errors > 0 { bad.push_str(&bar) } else { calm.push_str(&bar) }
    }
    html! {
        @if !calm.is_empty() { path d=(calm) {} }
        @if !bad.is_empty() { path class="is-err" d=(bad) {} }
    }
}

fn marks(model: &Model, scope: &Scope) -> Node {
    let mut all = found(&model.view, scope);
    all.sort_by_key(|mark| mark.time);
    let mut placed: Vec<(usize, &Mark)> = Vec::new();
    for mark in &all[all.len().saturating_sub(MARKS)..] {
        let percent = model.timeline.moment(mark.time) * 100 / MOMENTS;
        match placed.last_mut() {
            // One that says something is wrong hides one that does not, never the other way round.
            Some((at, before)) if *at == percent => {
                if mark.state.is_some() || before.state.is_none() {
                    *before = mark;
                }
            }
            Some(_) | None => placed.push((percent, mark)),
        }
    }
    let children = placed.into_iter().map(|(percent, mark)| {
        let id = format!("mark-{}", mark.element);
        let words = format!("{} {}", figures::time_of_day(mark.time), mark.words);
        let target = if scope.reader == Reader::Guest {
            format!("#{}", mark.element)
        } else {
            format!("/agents/{}?part={}#{}", scope.agent, mark.element, mark.element)
        };
        let html = html! {
            a class="scrub-mark" id=(id) data-v=(percent) data-state=[mark.state] href=(target) title=(words) aria-label=(words) { (icon(mark.icon)) }
        };
        Node::leaf(id.clone(), ALWAYS, html.into_string())
    });
    Node {
        id: "scrub-marks".into(),
        changed: ALWAYS,
        content: Content::Branch {
            open: "<span class=\"scrub-marks\" id=\"scrub-marks\">".into(),
            container: "scrub-marks".into(),
            children: children.collect(),
            close: "</span>".into(),
        },
    }
}

/// Prompts, failures, asks, and what happened to the agent and its log.
fn found(view: &SessionView, scope: &Scope) -> Vec<Mark> {
    let mut marks = Vec::new();
    for session in view.roots() {
        for message in session.messages() {
            for part in message.parts() {
                let Some(time) = transcript::start(part, message) else { continue };
                let is_prompt = message.info().is_some_and(|info| info.role == Role::User);
                let mark = match part.body() {
                    PartBody::Text(text) if is_prompt && text.synthetic != Some(true) => {
                        Some(("user", None, element::first_line(&text.text)))
                    }
                    PartBody::Tool(call) if tool_kind::has_failed(call) => Some((
                        "s-failed",
                        Some("error"),
                        format!("{} {}", tool_kind::name(call), tool_kind::title(call, scope)),
                    )),
                    PartBody::Compaction(_) => Some(("fold", None, "context compacted".to_owned())),
                    PartBody::Text(_)
                    | PartBody::Tool(_)
                    | PartBody::Reasoning(_)
                    | PartBody::File(_)
                    | PartBody::StepStart(_)
                    | PartBody::StepFinish(_)
                    | PartBody::Patch(_)
                    | PartBody::Snapshot(_)
                    | PartBody::Agent(_)
                    | PartBody::Retry(_)
                    | PartBody::Subtask(_)
                    | PartBody::Unknown
                    | _ => None,
                };
                if let Some((icon, state, words)) = mark {
                    let element = transcript::part_id(part);
                    marks.push(Mark { time, icon, state, words, element });
                }
            }
        }
    }
    for ask in view.pending().into_iter().filter(|_| !scope.is_shared()) {
        let (icon, word) = ask::kind(ask);
        let words = format!("{}: {}", word.to_lowercase(), ask::summary(ask));
        let element = ask::row_id(&ask.id);
        marks.push(Mark { time: ask.time, icon, state: Some("waiting"), words, element });
    }
    for notice in view.notices() {
        let committed;
        let (icon, state, words) = match &notice.body {
            NoticeBody::Error(error) if error.is_abort() => ("stop", None, "stopped by request"),
            NoticeBody::Error(error) => ("s-failed", Some("error"), error.message()),
            NoticeBody::Started(_) | NoticeBody::Resumed(_) => ("play", None, "agent started"),
            NoticeBody::Exited(_) => ("exit", None, "agent exited"),
            NoticeBody::Failed(_) => ("s-failed", Some("failed"), "agent failed"),
            NoticeBody::Done(_) => ("s-done", Some("completed"), "work is done"),
            NoticeBody::SessionRecreated(_) => ("gap", Some("gap"), "the session was gone"),
            NoticeBody::WorkspaceReady(_) => ("work", None, "work tree ready"),
            NoticeBody::AutoCommitCompleted(commit) => {
                committed = format!("committed {}", commit.short_hash());
                ("commit", None, committed.as_str())
            }
            NoticeBody::AutoCommitFailed(_) => ("s-failed", Some("error"), "commit failed"),
            NoticeBody::CondenseFailed(_) => ("s-failed", Some("error"), "condensing failed"),
            NoticeBody::Lost(_) => ("gap", Some("offline"), "wrapper lost"),
            NoticeBody::EventsDropped(_) => ("gap", Some("gap"), "events were dropped"),
            NoticeBody::Gap { .. } => ("gap", Some("gap"), "earlier events are no longer kept"),
            NoticeBody::Malformed { .. } | _ => continue,
        };
        let element = moment::notice_id(notice);
        let words = element::first_line(words);
        marks.push(Mark { time: notice.time, icon, state, words, element });
    }
    marks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_past_is_played_from_where_the_page_stands_or_from_its_beginning() {
        let agent = "toast".parse().unwrap();
        let mut timeline = Timeline::default();
        assert!(!speed(&agent, &timeline, None).html().contains("href"), "there is nothing to play");
        timeline.push(Timestamp::from_unix_ms(0), Seq::new(3), false);
        timeline.push(Timestamp::from_unix_ms(9_000), Seq::new(8), false);
        let html = speed(&agent, &timeline, None).html();
        assert!(html.contains("?at=3&amp;speed=10") && !html.contains("Stop here"), "{html}");
        let moment = Moment { seq: Seq::new(5), at: 400, speed: Some(Speed::Once) };
        let html = speed(&agent, &timeline, Some(moment)).html();
        assert!(html.contains("?at=5\"") && html.contains("data-moment=\"400\""), "{html}");
        assert_eq!(html.matches("aria-current").count(), 1, "{html}");
    }

    #[test]
    fn the_newest_event_changes_one_column_and_not_the_picture() {
        let mut model = Model::default();
        for n in 0..40 {
            model.timeline.push(Timestamp::from_unix_ms(n * 250), Seq::new(n as u64 + 1), false);
        }
        let scope =
            Scope { agent: "toast".parse().unwrap(), reader: Reader::Steers, directory: String::new() };
        let before = regions(&model, &scope);
        model.timeline.push(Timestamp::from_unix_ms(39 * 250 + 5), Seq::new(99), true);
        let after = regions(&model, &scope);
        assert_eq!(before[1], after[1]);
        assert_ne!(before[2], after[2]);
        assert!(after[2].html().contains("is-err") && after[2].html().len() < 300);
    }
}
