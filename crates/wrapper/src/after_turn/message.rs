//! The message of a commit that a wrapper makes.

use protocol::AgentId;

/// Characters of the first line.
const SUBJECT: usize = 72;
/// Characters of a message that the agent wrote.
const WRITTEN: usize = 4_000;

/// The message: what the agent wrote, else the first line of what it was asked for; then who made the commit, and in which session.
pub(super) fn message(written: Option<&str>, prompt: Option<&str>, agent: &AgentId, session: &str) -> String {
    let written = written.map(|text| printable(text).chars().take(WRITTEN).collect::<String>());
    let written = written.map(|text| text.trim().to_owned()).filter(|text| !text.is_empty());
    let text = written.or_else(|| prompt.and_then(subject)).unwrap_or_else(|| format!("Work of {agent}"));
    let session = printable(session);
    let trailers = if session.is_empty() {
        format!("Gastown-Agent: {agent}")
    } else {
        format!("Gastown-Agent: {agent}\nGastown-Session: {}", session.replace('\n', " "))
    };
    format!("{text}\n\n{trailers}\n")
}

/// The first line of a message.
pub(super) fn subject_of(message: &str) -> String {
    message.lines().next().unwrap_or_default().to_owned()
}

/// The first line of a prompt that says anything, cut at a word.
fn subject(prompt: &str) -> Option<String> {
    let text = printable(prompt);
    let line = text.lines().map(str::trim).find(|line| !line.is_empty())?;
    if line.chars().count() <= SUBJECT {
        return Some(line.to_owned());
    }
    let cut: String = line.chars().take(SUBJECT - 1).collect();
    let whole_words =
        cut.rsplit_once(char::is_whitespace).map_or(cut.as_str(), |(words, _)| words.trim_end());
    Some(format!("{whole_words}…"))
}

fn printable(text: &str) -> String {
    text.chars().filter(|c| *c == '\n' || *c == '\t' || !c.is_control()).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_the_agent_wrote_comes_first_and_then_what_it_was_asked_for() {
        let of = |written, prompt| subject_of(&message(written, prompt, &agent(), "ses_1"));
        assert_eq!(of(Some("Fix the parser\n\nIt lost a byte."), Some("please fix")), "Fix the parser");
        assert_eq!(of(Some(" \n"), Some("\n  please fix\nand test")), "please fix");
        assert_eq!(of(None, Some("\u{1b}[31m\u{7}")), "[31m");
        assert_eq!(of(None, None), "Work of toast");
    }

    #[test]
    fn a_message_says_who_made_the_commit() {
        assert_eq!(
            message(None, Some("go"), &agent(), "ses_1"),
            "go\n\nGastown-Agent: toast\nGastown-Session: ses_1\n"
        );
        assert_eq!(message(None, Some("go"), &agent(), ""), "go\n\nGastown-Agent: toast\n");
    }

    #[test]
    fn a_long_prompt_is_cut_at_a_word() {
        let prompt = "word ".repeat(40);
        let subject = subject_of(&message(None, Some(&prompt), &agent(), ""));
        assert!(subject.ends_with("word…") && subject.chars().count() <= SUBJECT, "{subject:?}");
    }

    proptest! {
        #[test]
        fn a_subject_is_one_printable_line_of_bounded_length(prompt in any::<String>()) {
            let subject = subject_of(&message(None, Some(&prompt), &agent(), "s"));
            prop_assert!(!subject.is_empty() && subject.chars().count() <= SUBJECT);
            prop_assert!(!subject.contains(|c: char| c.is_control() && c != '\t'));
        }
    }

    fn agent() -> AgentId {
        "toast".parse().unwrap()
    }
}
