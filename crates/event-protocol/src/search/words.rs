//! What a word is: the same for a text and for a query, in every store.

use std::{borrow::Cow, ops::Range};

/// Characters of a word that count: what is longer is told apart by its beginning.
const WORD_CHARS: usize = 64;

/// A word of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Word<'a> {
    /// Where it is, in bytes.
    pub range: Range<usize>,
    /// Its letters and digits in lower case.
    pub text: Cow<'a, str>,
}

/// The words of a text: runs of letters and digits, in lower case. Scripts that are written without spaces have a word
/// per character, so that a query of several of them is found wherever they stand together.
pub fn words(text: &str) -> impl Iterator<Item = Word<'_>> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let start = at + text[at..].find(char::is_alphanumeric)?;
        let first = text[start..].chars().next()?;
        let end = if stands_alone(first) {
            start + first.len_utf8()
        } else {
            let run = &text[start..];
            start + run.find(|c: char| !c.is_alphanumeric() || stands_alone(c)).unwrap_or(run.len())
        };
        at = end;
        Some(Word { range: start..end, text: normal(&text[start..end]) })
    })
}

/// Characters of scripts without spaces between words: Han, Hiragana, Katakana.
pub(super) fn stands_alone(c: char) -> bool {
    matches!(c,
        '\u{3040}'..='\u{30ff}' | '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}' | '\u{f900}'..='\u{faff}'
        | '\u{20000}'..='\u{3fffd}')
}

fn normal(word: &str) -> Cow<'_, str> {
    if word.len() <= WORD_CHARS && word.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit()) {
        return Cow::Borrowed(word);
    }
    Cow::Owned(word.chars().take(WORD_CHARS).flat_map(char::to_lowercase).collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn punctuation_and_space_part_words() {
        assert_eq!(
            texts("fn read_file(path: &Path) -> io::Result"),
            ["fn", "read", "file", "path", "path", "io", "result"]
        );
        assert_eq!(texts("  "), [""; 0]);
    }

    #[test]
    fn case_does_not_count_and_accents_do() {
        assert_eq!(texts("Größe CAFÉ ΣΑΣ"), ["größe", "café", "σασ"]);
        assert_ne!(texts("cafe"), texts("café"));
    }

    #[test]
    fn scripts_without_spaces_have_a_word_per_character() {
        assert_eq!(texts("修复bug了"), ["修", "复", "bug", "了"]);
    }

    #[test]
    fn of_a_very_long_word_the_beginning_counts() {
        let long = "A".repeat(1000);
        assert_eq!(texts(&long), ["a".repeat(64)]);
        assert_eq!(words(&long).next().unwrap().range, 0..1000);
    }

    proptest! {
        #[test]
        fn words_are_where_they_say_and_are_words_themselves(text in "\\PC{0,40}") {
            let mut end = 0;
            for word in words(&text) {
                prop_assert!(word.range.start >= end && word.range.end > word.range.start);
                end = word.range.end;
                prop_assert_eq!(texts(&text[word.range.clone()]), [word.text.clone()]);
                prop_assert!(word.text.chars().all(|c| !c.is_ascii() || c.is_ascii_lowercase() || c.is_ascii_digit()));
            }
        }
    }

    fn texts(text: &str) -> Vec<String> {
        words(text).map(|word| word.text.into_owned()).collect()
    }
}
