//! Moments between the parts: the end of a step, an agent that started or ended, a gap, an error, a retry.

use maud::{Markup, html};
use protocol::{
    Seq, Timestamp,
    frame::GapReason,
    model::{MessageError, SessionStatus, StepFinishPart},
    view::{Notice, NoticeBody},
};

use super::{Row, Scope, after_turn, hidden, output};
use crate::dashboard::{
    element::{self, icon},
    figures,
    tree::Node,
};

/// The divider after a step.
pub(crate) fn step(
    id: &str,
    changed: Seq,
    number: usize,
    step: &StepFinishPart,
    took: Option<std::time::Duration>,
) -> Node {
    let tokens = step.tokens;
    let html = html! {
        li class="step" id=(id) {
            span { "Step " (number) }
            span { (figures::grouped(tokens.input)) " in" }
            span { (figures::grouped(tokens.output + tokens.reasoning)) " out" }
            @if tokens.cache.read > 0 { span class="hide-s" { (figures::grouped(tokens.cache.read)) " cached" } }
            @if step.cost > 0.0 { span { (figures::dollars(step.cost)) } }
            @if let Some(took) = took { span class="hide-s" { (figures::duration(took)) } }
            @if step.reason == "length" { span { "cut at the model's limit" } }
        }
    };
    Node::leaf(id, changed, html.into_string())
}

/// A moment: a line across the transcript.
pub(crate) fn moment(
    id: &str,
    changed: Seq,
    state: Option<&str>,
    icon_name: &str,
    time: Option<Timestamp>,
    words: &Markup,
) -> Node {
    let html = html! {
        li class="moment" id=(id) data-state=[state] {
            span class="moment-text" {
                (icon(icon_name))
                span { (words) @if let Some(time) = time { " " span class="faint" { (element::time(time)) } } }
            }
        }
    };
    Node::leaf(id, changed, html.into_string())
}

/// The id of a notice's element.
pub(crate) fn notice_id(notice: &Notice) -> String {
    if let NoticeBody::Gap { from, to, .. } = &notice.body {
        let number = |seq: &Option<Seq>| seq.map_or_else(|| "x".to_owned(), |seq| seq.to_string());
        return format!("gap-{}-{}", number(from), number(to));
    }
    format!("evt-{}", notice.seq)
}

/// Something that happened. `end` is the notice of its end, if it was begun and is over: that one is shown in its place.
pub(crate) fn notice(scope: &Scope, notice: &Notice, end: Option<&Notice>) -> Node {
    let id = notice_id(notice);
    if let Some(end) = end {
        return hidden(&id, end.seq);
    }
    let (seq, time) = (notice.seq, notice.time);
    let line = |state: Option<&str>, icon_name: &str, words: Markup| {
        moment(&id, seq, state, icon_name, Some(time), &words)
    };
    match &notice.body {
        NoticeBody::Error(error) => failure(scope, &id, seq, Some(time), error),
        NoticeBody::Started(started) => line(None, "play", html! {
            b { "Agent started" } " · generation " (started.generation)
            @if started.resumed { " · session resumed" }
            span class="faint" { " · " (element::first_line(&started.runtime)) " " (element::first_line(&started.version)) }
        }),
        NoticeBody::Exited(exited) => line(Some("exited"), "exit", html! {
            b { "Agent exited" } ": " (element::first_line(&exited.reason)) @if let Some(code) = exited.code { " · exit " (code) }
        }),
        NoticeBody::Failed(failed) => Row { id: &id, kind: "notice", time: Some(time), changed: seq }.leaf(scope, &html! {
            div class="notice" data-state="error" role="status" {
                (icon("s-failed"))
                div class="notice-title" { "Agent failed" @if let Some(code) = failed.exit_code { ", exit " (code) } }
                div class="notice-text" { (element::cut(&failed.message, element::LINE_BYTES * 8).0) }
                @if !failed.stderr.is_empty() { div class="notice-more" { (output::terminal(None, &failed.stderr.join("\n"))) } }
            }
        }),
        NoticeBody::Done(done) => line(Some("completed"), "s-done", html! {
            b { "Work is done" } @if let Some(summary) = &done.summary { ": " (element::first_line(summary)) }
        }),
        NoticeBody::Resumed(resumed) => line(None, "play", html! {
            b { "Wrapper took over" } " · generation " (resumed.generation)
            @if let Some(detail) = &resumed.detail { span class="faint" { " · " (element::first_line(detail)) } }
        }),
        NoticeBody::SessionRecreated(recreated) => line(Some("gap"), "gap", html! {
            b { "Session was gone" } @if recreated.summarised { "; a new one is told what the log has of it" } @else { "; a new one begins with nothing of it" }
        }),
        NoticeBody::WorkspaceReady(ready) => {
            line(ready.stale.as_ref().map(|_| "gap"), "work", after_turn::work_tree(ready))
        }
        NoticeBody::Lost(lost) => line(Some("offline"), "gap", html! {
            b { "Wrapper lost" } ": nothing was heard since " (element::time(lost.since))
        }),
        NoticeBody::EventsDropped(dropped) => line(Some("gap"), "gap", html! {
            (figures::grouped(dropped.to.saturating_sub(dropped.from) + 1)) " events were dropped by the wrapper: " (element::first_line(&dropped.reason))
        }),
        NoticeBody::Gap { from, to, reason } => moment(&id, seq, Some("gap"), "gap", None, &html! {
            @match (from, to, reason) {
                (Some(from), Some(to), GapReason::Pruned) => {
                    "Earlier events are no longer kept " span class="faint" { "(pruned, seq " (from) "–" (to) ")" }
                },
                (_, _, GapReason::Pruned) => { "Earlier events are no longer kept" },
                (_, _, GapReason::Epoch) => { "The log began anew" },
                (_, _, GapReason::Ahead) => { "The log was set back" },
            }
        }),
        NoticeBody::Malformed { kind, reason } => line(Some("gap"), "gap", html! {
            "An event was not understood: " span class="mono" { (element::first_line(kind)) } " " span class="faint" { (element::first_line(reason)) }
        }),
        body @ (NoticeBody::AutoCommitStarted(_)
        | NoticeBody::AutoCommitCompleted(_)
        | NoticeBody::AutoCommitSkipped(_)
        | NoticeBody::AutoCommitFailed(_)
        | NoticeBody::CondenseStarted
        | NoticeBody::CondenseCompleted
        | NoticeBody::CondenseSkipped(_)
        | NoticeBody::CondenseFailed(_)
        | _) => match after_turn::words(body) {
            Some((state, icon_name, words)) => line(state, icon_name, words),
            // A notice of a newer protocol.
            None => hidden(&id, seq),
        },
    }
}

/// An error of a session or a message; an abort is no failure.
pub(crate) fn failure(
    scope: &Scope,
    id: &str,
    changed: Seq,
    time: Option<Timestamp>,
    error: &MessageError,
) -> Node {
    if error.is_abort() {
        return moment(id, changed, None, "stop", time, &html! { b { "Stopped" } " by request" });
    }
    let status = error.data.get("statusCode").and_then(serde_json::Value::as_u64);
    Row { id, kind: "notice", time, changed }.leaf(scope, &html! {
        div class="notice" data-state="error" role="status" {
            (icon("s-failed"))
            div class="notice-title" { (element::cut(error.message(), element::LINE_BYTES * 8).0) }
            div class="notice-text" { (element::first_line(&error.name)) @if let Some(status) = status { " · HTTP " (status) } }
        }
    })
}

/// The session's retry, if it waits for one; hidden otherwise.
pub(crate) fn retry(scope: &Scope, session: &str, changed: Seq, status: &SessionStatus) -> Node {
    let id = format!("retry-{}", element::id(session));
    let body = match status {
        SessionStatus::Retry { attempt, message, next } => html! {
            div class="notice" data-state="retrying" role="status" {
                (icon("s-retry"))
                div class="notice-title" { (element::cut(message, element::LINE_BYTES * 4).0) }
                div class="notice-text" {
                    "The model's provider refused · attempt " (attempt)
                    @if let Some(next) = next { " · next try in " time class="countdown" datetime=(next) data-until { (figures::time_of_day(*next)) } }
                }
                @if scope.may_steer() {
                    form class="notice-acts" method="post" action={ "/agents/" (scope.agent) "/abort" } data-live { button class="btn btn-sm btn-quiet" { "Stop" } }
                }
                @if let Some(next) = next { span class="meter" { i class="drain" data-to=(next) {} } }
            }
        },
        SessionStatus::Offline { message, .. } => html! {
            div class="notice" data-state="offline" role="status" {
                (icon("gap"))
                div class="notice-title" { "No network" }
                div class="notice-text" { (element::first_line(message)) }
            }
        },
        SessionStatus::Idle | SessionStatus::Busy | SessionStatus::Unknown | _ => {
            return hidden(&id, changed);
        }
    };
    Row { id: &id, kind: "notice", time: None, changed }.leaf(scope, &body)
}
