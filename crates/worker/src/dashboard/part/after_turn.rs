//! What is done after a turn, as moments: a commit of what it changed, and a summary of its session.

use maud::{Markup, html};
use protocol::{
    agent::{AutoCommitCompleted, NotPushed, WorkspaceReady},
    view::NoticeBody,
};

use crate::dashboard::{element, figures};

/// The state, the icon and the words of a notice, if it is one of these.
pub(super) fn words(notice: &NoticeBody) -> Option<(Option<&'static str>, &'static str, Markup)> {
    Some(match notice {
        NoticeBody::AutoCommitStarted(started) => (
            None,
            "commit",
            html! {
                b { "Committing" } " " (figures::plural(usize::try_from(started.paths).unwrap_or(usize::MAX), "path")) (on(&started.branch))
            },
        ),
        NoticeBody::AutoCommitCompleted(commit) => {
            let is_kept_back = matches!(commit.not_pushed, Some(NotPushed::Rejected | NotPushed::Failed));
            (Some(if is_kept_back { "gap" } else { "completed" }), "commit", committed(commit))
        }
        NoticeBody::AutoCommitSkipped(skipped) => {
            (None, "commit", html! { "Commit skipped: " (skipped.reason) })
        }
        NoticeBody::AutoCommitFailed(failed) => (
            Some("error"),
            "s-failed",
            html! {
                b { "Commit failed" } ": " (element::first_line(&failed.message))
            },
        ),
        NoticeBody::CondenseStarted => (None, "fold", html! { b { "Condensing" } " the session" }),
        NoticeBody::CondenseCompleted => (None, "fold", html! { b { "Session condensed" } }),
        NoticeBody::CondenseSkipped(skipped) => {
            (None, "fold", html! { "Condensing skipped: " (skipped.reason) })
        }
        NoticeBody::CondenseFailed(failed) => (
            Some("error"),
            "s-failed",
            html! {
                b { "Condensing failed" } ": " (element::first_line(&failed.message))
            },
        ),
        NoticeBody::Error(_)
        | NoticeBody::Started(_)
        | NoticeBody::Exited(_)
        | NoticeBody::Failed(_)
        | NoticeBody::Done(_)
        | NoticeBody::Resumed(_)
        | NoticeBody::SessionRecreated(_)
        | NoticeBody::WorkspaceReady(_)
        | NoticeBody::Lost(_)
        | NoticeBody::EventsDropped(_)
        | NoticeBody::Gap { .. }
        | NoticeBody::Malformed { .. }
        | _ => return None,
    })
}

/// The words of a work tree that is ready.
pub(super) fn work_tree(ready: &WorkspaceReady) -> Markup {
    html! {
        b { "Work tree ready" } ": " span class="mono" { (element::first_line(&ready.branch)) }
        @if let Some(base) = &ready.base { " from " span class="mono" { (element::first_line(base)) } }
        @if ready.resumed { " goes on" }
        @if !ready.rescued.is_empty() { " · put away in " span class="mono" { (element::first_line(&ready.rescued.join(", "))) } }
        @if let Some(stale) = &ready.stale { span class="faint" { " · the remote could not be asked: " (element::first_line(stale)) } }
    }
}

fn committed(commit: &AutoCommitCompleted) -> Markup {
    html! {
        b { "Committed" } " " span class="mono" title=(commit.hash) { (commit.short_hash()) } " — " (element::first_line(&commit.subject))
        @if let (true, Some(upstream)) = (commit.pushed, &commit.upstream) { span class="faint" { " · pushed to " (element::first_line(upstream)) } }
        @else { span class="faint" { (on(&commit.branch)) } }
        @match (commit.not_pushed, &commit.detail) {
            (Some(NotPushed::NoUpstream) | None, _) => {},
            (Some(why), Some(detail)) => { " · not pushed: " (why) span class="faint" { ", " (element::first_line(detail)) } },
            (Some(why), None) => { " · not pushed: " (why) },
        }
        @if let Some(hooks) = &commit.hooks_skipped { span class="faint" { " · without its hooks: " (element::first_line(hooks)) } }
    }
}

fn on(branch: &str) -> Markup {
    html! { " on " span class="mono" { (element::first_line(branch)) } }
}
