//! Small pieces of HTML that every part uses: ids, icons, times.

use maud::{Markup, PreEscaped, html};
use protocol::Timestamp;

use super::figures;

/// Bytes of a text that are shown at all; a mark says that the rest is cut.
pub(crate) const TEXT_BYTES: usize = 128 * 1024;
/// Bytes of a text that are shown in one line.
pub(crate) const LINE_BYTES: usize = 240;

/// An id of the log as an HTML id: what is none of `[A-Za-z0-9_-/]` becomes `.` and its code, so that different ids stay
/// different.
pub(crate) fn id(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '/') {
            out.push(c);
        } else {
            out.push_str(&format!(".{:x}.", u32::from(c)));
        }
    }
    out
}

/// An icon of the sprite.
pub(crate) fn icon(name: &str) -> Markup {
    html! { svg class="icon" aria-hidden="true" { use href={ "#i-" (name) } {} } }
}

/// The chevron of something that opens.
pub(crate) fn chevron() -> Markup {
    html! { svg class="icon chev" aria-hidden="true" { use href="#i-chev" {} } }
}

/// A time of day, for the page module to put into the reader's own.
pub(crate) fn time(time: Timestamp) -> Markup {
    html! { time datetime=(time) data-clock { (figures::time_of_day(time)) } }
}

/// A day and a time of day.
pub(crate) fn date_and_time(time: Timestamp) -> Markup {
    let text = time.to_string();
    html! { time datetime=(time) data-date { (text.get(..10).unwrap_or_default()) " " (figures::time_of_day(time)) } }
}

/// How long ago a time is, as `waits 1:42`: the page module counts on; without it the time itself is read.
pub(crate) fn age(word: &str, since: Timestamp) -> Markup {
    html! { (word) " " time datetime=(since) data-age { "since " (figures::time_of_day(since)) } }
}

/// A state: its icon and its word.
pub(crate) fn state(state: &str, icon_name: &str, word: &str) -> Markup {
    html! { span class="state" data-state=(state) { (icon(icon_name)) (word) } }
}

/// The one filled badge: a person is needed.
pub(crate) fn needs(icon_name: &str, word: &str) -> Markup {
    html! { span class="needs" { (icon(icon_name)) (word) } }
}

/// A part of a whole, 0 to 100.
pub(crate) fn meter(percent: u64, label: &str) -> Markup {
    let percent = percent.min(100);
    html! {
        span class="meter" data-v=(percent) role="meter" aria-valuenow=(percent) aria-valuemin="0" aria-valuemax="100" aria-label=(label) { i {} }
    }
}

/// The first line of a text, cut.
pub(crate) fn first_line(text: &str) -> String {
    let line = text.trim_start().lines().next().unwrap_or_default();
    let (line, cut) = cut(line, LINE_BYTES);
    if cut > 0 { format!("{line}…") } else { line.to_owned() }
}

/// At most `bytes` of a text, and how many bytes are left out.
pub(crate) fn cut(text: &str, bytes: usize) -> (&str, usize) {
    let end = text.floor_char_boundary(bytes);
    (&text[..end], text.len() - end)
}

/// Says that a text was cut.
pub(crate) fn cut_mark(bytes: usize) -> Markup {
    html! { @if bytes > 0 { p class="cut faint" { "… " (figures::bytes(bytes)) " more are not shown. The raw event has them." } } }
}

/// HTML that one of the renderers here made.
pub(crate) fn ready(html: impl Into<String>) -> Markup {
    PreEscaped(html.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_the_log_are_safe_and_stay_different() {
        assert_eq!(id("msg_1fa/prt_2"), "msg_1fa/prt_2");
        assert_eq!(id("a\" onload=x"), "a.22..20.onload.3d.x");
        assert_ne!(id("a.22."), id("a\""));
    }

    #[test]
    fn a_cut_never_splits_a_character() {
        assert_eq!(cut("añb", 2), ("a", 3));
    }
}
