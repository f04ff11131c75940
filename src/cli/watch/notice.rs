//! What happened, as one line.

use protocol::{
    Seq,
    agent::{AutoCommitCompleted, NotPushed, WorkspaceReady},
    frame::GapReason,
    view::NoticeBody,
};

use super::super::paint::Tone;

/// A notice as a line, unless it says nothing to whoever watches.
pub(super) fn line(notice: &NoticeBody) -> Option<(Tone, String)> {
    let (tone, text) = match notice {
        NoticeBody::Error(error) if error.is_abort() => (Tone::Warn, "✂ broken off on request".to_owned()),
        NoticeBody::Error(error) => (Tone::Bad, format!("✗ {}: {}", error.name, error.message())),
        NoticeBody::Started(started) => {
            let how = if started.resumed { "goes on" } else { "started" };
            (Tone::Dim, format!("● {how}: {} {}", started.runtime, started.version))
        }
        NoticeBody::Exited(exited) => (Tone::Dim, format!("○ ended: {}", exited.reason)),
        NoticeBody::Failed(failed) => {
            let mut text = format!("✗ failed: {}", failed.message);
            for line in &failed.stderr {
                text.push_str("\n    ");
                text.push_str(line);
            }
            (Tone::Bad, text)
        }
        NoticeBody::Done(done) => (
            Tone::Good,
            format!("✓ done{}", done.summary.as_deref().map(|s| format!(": {s}")).unwrap_or_default()),
        ),
        NoticeBody::Resumed(_) => return None,
        NoticeBody::Lost(lost) => {
            (Tone::Warn, format!("⚠ nothing heard of its wrapper since {}", lost.since))
        }
        NoticeBody::EventsDropped(dropped) => (
            Tone::Warn,
            format!("⚠ events {} to {} could not be kept: {}", dropped.from, dropped.to, dropped.reason),
        ),
        NoticeBody::Gap { from, to, reason } => (Tone::Warn, gap(*from, *to, *reason)),
        NoticeBody::Malformed { kind, reason } => {
            (Tone::Dim, format!("[{kind} was not understood: {reason}]"))
        }
        body @ (NoticeBody::SessionRecreated(_)
        | NoticeBody::WorkspaceReady(_)
        | NoticeBody::AutoCommitStarted(_)
        | NoticeBody::AutoCommitCompleted(_)
        | NoticeBody::AutoCommitSkipped(_)
        | NoticeBody::AutoCommitFailed(_)
        | NoticeBody::CondenseStarted
        | NoticeBody::CondenseCompleted
        | NoticeBody::CondenseSkipped(_)
        | NoticeBody::CondenseFailed(_)
        | _) => return of_wrapper(body),
    };
    Some((tone, text))
}

/// What a wrapper did for its agent.
fn of_wrapper(notice: &NoticeBody) -> Option<(Tone, String)> {
    Some(match notice {
        NoticeBody::SessionRecreated(recreated) => {
            let told = if recreated.summarised {
                "is told what the log has of it"
            } else {
                "begins with nothing of it"
            };
            (Tone::Warn, format!("⚠ the session was gone; a new one {told}"))
        }
        NoticeBody::WorkspaceReady(ready) => (Tone::Dim, work_tree(ready)),
        NoticeBody::AutoCommitStarted(started) => {
            let paths = if started.paths == 1 { "path" } else { "paths" };
            (Tone::Dim, format!("± committing {} {paths} on {}", started.paths, started.branch))
        }
        NoticeBody::AutoCommitCompleted(commit) => committed(commit),
        NoticeBody::AutoCommitSkipped(skipped) => {
            (Tone::Dim, format!("± commit skipped: {}", skipped.reason))
        }
        NoticeBody::AutoCommitFailed(failed) => (Tone::Bad, format!("✗ commit failed: {}", failed.message)),
        NoticeBody::CondenseStarted => (Tone::Dim, "── condensing the session ──".to_owned()),
        // The agent's own line says that it did.
        NoticeBody::CondenseCompleted => return None,
        NoticeBody::CondenseSkipped(skipped) => {
            (Tone::Dim, format!("condensing skipped: {}", skipped.reason))
        }
        NoticeBody::CondenseFailed(failed) => (Tone::Bad, format!("✗ condensing failed: {}", failed.message)),
        NoticeBody::Error(_)
        | NoticeBody::Started(_)
        | NoticeBody::Exited(_)
        | NoticeBody::Failed(_)
        | NoticeBody::Done(_)
        | NoticeBody::Resumed(_)
        | NoticeBody::Lost(_)
        | NoticeBody::EventsDropped(_)
        | NoticeBody::Gap { .. }
        | NoticeBody::Malformed { .. }
        // A notice of a newer protocol.
        | _ => return None,
    })
}

fn work_tree(ready: &WorkspaceReady) -> String {
    let mut text = format!("± work tree ready: {}", ready.branch);
    match &ready.base {
        Some(base) => text.push_str(&format!(" from {base}")),
        None if ready.resumed => text.push_str(" goes on"),
        None => {}
    }
    for put_away in &ready.rescued {
        text.push_str(&format!("\n    put away in {put_away}"));
    }
    if let Some(stale) = &ready.stale {
        text.push_str(&format!("\n    the remote could not be asked: {stale}"));
    }
    text
}

fn committed(commit: &AutoCommitCompleted) -> (Tone, String) {
    let mut text = format!("✓ committed {} — {}", commit.short_hash(), commit.subject);
    if let (true, Some(upstream)) = (commit.pushed, &commit.upstream) {
        text.push_str(&format!(" · pushed to {upstream}"));
    }
    let not_pushed = commit.not_pushed.filter(|why| *why != NotPushed::NoUpstream);
    if let Some(why) = not_pushed {
        text.push_str(&format!("\n    not pushed: {why}"));
        if let Some(detail) = &commit.detail {
            text.push_str(&format!(": {detail}"));
        }
    }
    if let Some(hooks) = &commit.hooks_skipped {
        text.push_str(&format!("\n    without its hooks: {hooks}"));
    }
    (if not_pushed.is_some() { Tone::Warn } else { Tone::Good }, text)
}

/// A gap as a line.
pub(super) fn gap(from: Option<Seq>, to: Option<Seq>, reason: GapReason) -> String {
    let why = match reason {
        GapReason::Pruned => "pruned: the log is bounded",
        GapReason::Epoch => "the log was made anew",
        GapReason::Ahead => "the cursor is ahead of the log",
    };
    match (from, to) {
        (Some(from), Some(to)) => format!("⚠ events {from} to {to} are gone ({why})"),
        (Some(_) | None, Some(_) | None) => format!("⚠ earlier events do not count any more ({why})"),
    }
}

/// A number with its thousands set apart.
pub(super) fn thousands(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use protocol::{NewEvent, Timestamp, view::SessionView};
    use serde_json::json;

    use super::*;

    #[test]
    fn thousands_are_set_apart() {
        assert_eq!(
            ["0", "999", "1,000", "1,234,567"],
            [0, 999, 1000, 1_234_567].map(thousands).each_ref().map(String::as_str)
        );
    }

    #[test]
    fn what_a_wrapper_did_is_a_line_each() {
        let lines: Vec<String> = [
            ("wrapper.workspace.ready", json!({ "branch": "gt/toast/work", "commit": "0f", "base": "main" })),
            (
                "wrapper.workspace.ready",
                json!({ "branch": "gt/toast/work", "commit": "0f", "resumed": true, "stale": "no route" }),
            ),
            ("wrapper.session_recreated", json!({ "lost": "a", "session": "b", "summarised": true })),
            ("wrapper.session_recreated", json!({ "lost": "a", "session": "b", "summarised": false })),
            ("wrapper.auto_commit.started", json!({ "branch": "gt/toast/work", "paths": 2 })),
            (
                "wrapper.auto_commit.completed",
                json!({ "hash": "a1b2c3d4e5", "branch": "b", "subject": "Fix it", "pushed": true, "upstream": "origin/b" }),
            ),
            (
                "wrapper.auto_commit.completed",
                json!({ "hash": "a1b2c3d4e5", "branch": "b", "subject": "Fix it", "pushed": false, "not_pushed": "rejected",
                "detail": "fetch first", "hooks_skipped": "lint" }),
            ),
            ("wrapper.auto_commit.skipped", json!({ "reason": "default_branch" })),
            ("wrapper.auto_commit.failed", json!({ "message": "no space" })),
            ("wrapper.condense.started", json!({})),
            ("wrapper.condense.completed", json!({})),
            ("wrapper.condense.skipped", json!({ "reason": "unsupported" })),
            ("wrapper.condense.failed", json!({ "message": "no model" })),
        ]
        .map(|(kind, data)| shown(kind, &data))
        .into_iter()
        .flatten()
        .collect();
        insta::assert_snapshot!(lines.join("\n"));
    }

    #[test]
    fn p3_a_gap_says_what_is_gone_and_why() {
        assert_eq!(
            gap(Some(Seq::new(13)), Some(Seq::new(40)), GapReason::Pruned),
            "⚠ events 13 to 40 are gone (pruned: the log is bounded)"
        );
    }

    /// The line of an event, as it comes in a log.
    fn shown(kind: &str, data: &serde_json::Value) -> Option<String> {
        let mut view = SessionView::default();
        view.apply(&NewEvent::of(Timestamp::from_unix_ms(0), kind, data).unwrap().at(Seq::new(1)));
        line(&view.notices()[0].body).map(|(_, text)| text)
    }
}
