//! Colours of a terminal, and what of foreign text may reach it.

use std::{borrow::Cow, io::IsTerminal};

/// Whether to colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Paint {
    /// Text only: a pipe, a file, or `NO_COLOR`.
    Plain,
    /// With escape sequences.
    Colour,
}

/// What a piece of text is, as its look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tone {
    /// The agent's own words.
    Plain,
    /// What matters less: reasoning, counts, times.
    Dim,
    /// What a person said.
    Person,
    /// The name of a tool.
    Strong,
    /// Went well; lines added.
    Good,
    /// Went wrong; lines removed.
    Bad,
    /// Waits, or is tried again.
    Warn,
    /// Waits for you.
    Ask,
}

impl Tone {
    fn code(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Dim => "\x1b[2m",
            Self::Person => "\x1b[36m",
            Self::Strong => "\x1b[1m",
            Self::Good => "\x1b[32m",
            Self::Bad => "\x1b[31m",
            Self::Warn => "\x1b[33m",
            Self::Ask => "\x1b[1;7;33m",
        }
    }
}

impl Paint {
    /// Colours for a stream that is a terminal, unless `NO_COLOR` is set to anything (no-color.org).
    pub(super) fn of(stream: &impl IsTerminal) -> Self {
        let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        if stream.is_terminal() && !unwanted { Self::Colour } else { Self::Plain }
    }

    /// The text in that tone. Lines are coloured one by one, so that a pager can start anywhere.
    pub(super) fn paint(self, tone: Tone, text: &str) -> String {
        if self == Self::Plain || tone == Tone::Plain || text.is_empty() {
            return text.to_owned();
        }
        let mut out = String::with_capacity(text.len() + 16);
        for (i, line) in text.split('\n').enumerate() {
            if i > 0 {
                out.push('\n');
            }
            if !line.is_empty() {
                out.push_str(tone.code());
                out.push_str(line);
                out.push_str("\x1b[0m");
            }
        }
        out
    }
}

/// Foreign text as it may be shown: without escape sequences and control characters, so that no agent, file or model
/// can move the cursor, change the title or hide text in the terminal of whoever watches. Bytes from the start of a
/// sequence that is not complete are left out; see [`settled`].
pub(super) fn clean(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_control) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(is_control) {
        out.push_str(&rest[..at]);
        let control = &rest[at..];
        rest = match sequence(control) {
            Some(length) => &control[length..],
            None => "",
        };
    }
    out.push_str(rest);
    Cow::Owned(out)
}

/// How many bytes of a text that still grows can be shown: all but an escape sequence at its end that is not complete.
pub(super) fn settled(text: &str) -> usize {
    let Some(at) = text.rfind('\x1b') else { return text.len() };
    if sequence(&text[at..]).is_some() { text.len() } else { at }
}

fn is_control(c: char) -> bool {
    c.is_control() && c != '\n' && c != '\t'
}

/// The length of the control character or escape sequence that the text begins with; `None` if it is not complete.
fn sequence(text: &str) -> Option<usize> {
    let Some(after) = text.strip_prefix('\x1b') else { return text.chars().next().map(char::len_utf8) };
    let kind = after.chars().next()?;
    match kind {
        // CSI: parameters, then one letter or sign.
        '[' => after[1..].find(|c: char| ('\x40'..='\x7e').contains(&c)).map(|end| end + 3),
        // OSC, DCS, APC, PM, SOS: anything up to BEL or ESC \.
        ']' | 'P' | '_' | '^' | 'X' => {
            let bell = after.find('\x07').map(|end| end + 2);
            let terminator = after.find("\x1b\\").map(|end| end + 3);
            bell.into_iter().chain(terminator).min()
        }
        other => Some(1 + other.len_utf8()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn escape_sequences_are_taken_out_whole() {
        assert_eq!(
            clean("\x1b[1;31mred\x1b[0m and \x1b]0;title\x07plain\x1b]8;;http://x\x1b\\link\r\n"),
            "red and plainlink\n"
        );
        assert_eq!(clean("tab\tstays \u{9b}31m"), "tab\tstays 31m");
    }

    #[test]
    fn a_sequence_that_is_not_complete_waits() {
        let text = "ok \x1b[3";
        assert_eq!(settled(text), 3);
        assert_eq!(settled("ok \x1b[31m"), 8);
    }

    #[test]
    fn plain_paint_adds_nothing_and_colour_closes_every_line() {
        assert_eq!(Paint::Plain.paint(Tone::Bad, "a\nb"), "a\nb");
        assert_eq!(Paint::Colour.paint(Tone::Bad, "a\nb"), "\x1b[31ma\x1b[0m\n\x1b[31mb\x1b[0m");
    }

    proptest! {
        #[test]
        fn nothing_that_a_terminal_obeys_gets_through(text in "(\\PC|\\x1b|\\x07|\\x9b|\\[|\\]|m|\n|\r|\t){0,40}") {
            prop_assert!(!clean(&text).chars().any(is_control));
        }

        #[test]
        fn text_shown_as_it_grows_is_the_text_shown_at_once(text in "(a|b|\n|\\x1b\\[3[0-7]m|\\x1b\\]0;t\\x07){0,20}", cut in 0usize..200) {
            let cut = (0..=cut.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
            let shown = settled(&text[..cut]);
            let grown = format!("{}{}", clean(&text[..shown]), clean(&text[shown..]));
            prop_assert_eq!(grown, clean(&text).into_owned());
        }
    }
}
