//! What happened, as one line.

use protocol::{Seq, frame::GapReason, view::NoticeBody};

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
        // A notice of a newer protocol.
        _ => return None,
    };
    Some((tone, text))
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
    use super::*;

    #[test]
    fn thousands_are_set_apart() {
        assert_eq!(
            ["0", "999", "1,000", "1,234,567"],
            [0, 999, 1000, 1_234_567].map(thousands).each_ref().map(String::as_str)
        );
    }

    #[test]
    fn p3_a_gap_says_what_is_gone_and_why() {
        assert_eq!(
            gap(Some(Seq::new(13)), Some(Seq::new(40)), GapReason::Pruned),
            "⚠ events 13 to 40 are gone (pruned: the log is bounded)"
        );
    }
}
