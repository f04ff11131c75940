//! The language of queries: words, `"phrases"` and `prefix*`.

use std::{fmt, str::FromStr};

use super::words::{stands_alone, words};
use crate::limits;

/// What a text must have: every term, in any order and in any of its fields.
///
/// A term is a word, a `"phrase"` (these words, one after the other) or, with a `*` at its end, a beginning. A word with
/// punctuation in it is a phrase: `read_file` is found as `read_file`, `read file` and `read-file`. Case does not count.
/// Whatever else stands in a query is punctuation: no text is an error for its syntax.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms {
    /// As it was written.
    text: String,
    terms: Vec<Term>,
}

/// One thing that a text must have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Term {
    /// Words that follow each other; at least one.
    pub words: Vec<String>,
    /// The last of them is the beginning of a word.
    pub is_prefix: bool,
}

/// Why a query finds nothing anywhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TermsError {
    /// It has no word.
    #[error(
        "the query has no word: write words, \"phrases\" in quotes, or the beginning of a word with a * after it"
    )]
    Empty,
    /// It is too long.
    #[error("the query is longer than {} bytes", limits::SEARCH_QUERY_BYTES)]
    TooLong,
    /// It has too many words.
    #[error("the query has more than {} words", limits::SEARCH_WORDS)]
    TooManyWords,
    /// Half of everything begins with it.
    #[error("the beginning of a word has two characters or more before its *")]
    ShortPrefix,
}

impl Terms {
    /// Each of them.
    #[must_use]
    pub fn terms(&self) -> &[Term] {
        &self.terms
    }

    /// The query as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The same, where the last word may go on: what to offer to somebody who found nothing. `None` where it may
    /// already, or cannot.
    #[must_use]
    pub fn open_ended(&self) -> Option<Self> {
        let may_go_on = |terms: &Self| terms.terms.last().is_some_and(|last| last.is_prefix);
        let open: Self = format!("{}*", self.text.trim_end()).parse().ok()?;
        (!may_go_on(self) && may_go_on(&open)).then_some(open)
    }
}

impl fmt::Display for Terms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for Terms {
    type Err = TermsError;

    fn from_str(query: &str) -> Result<Self, TermsError> {
        if query.len() > limits::SEARCH_QUERY_BYTES {
            return Err(TermsError::TooLong);
        }
        let mut terms = Vec::new();
        let mut rest = query;
        while let Some((chunk, is_starred, after)) = next_chunk(rest) {
            rest = after;
            terms.extend(term(chunk, is_starred)?);
        }
        match terms.iter().map(|term| term.words.len()).sum::<usize>() {
            0 => Err(TermsError::Empty),
            words if words > limits::SEARCH_WORDS => Err(TermsError::TooManyWords),
            _ => Ok(Self { text: query.to_owned(), terms }),
        }
    }
}

/// The next word or phrase, whether a `*` ends it, and what comes after it. A quote that is not closed goes to the end.
fn next_chunk(query: &str) -> Option<(&str, bool, &str)> {
    let query = query.trim_start();
    if query.is_empty() {
        return None;
    }
    let (chunk, after) = match query.strip_prefix('"') {
        Some(quoted) => quoted.split_once('"').unwrap_or((quoted, "")),
        None => query.split_at(query.find(|c: char| c.is_whitespace() || c == '"').unwrap_or(query.len())),
    };
    if let Some(after) = after.strip_prefix('*') {
        return Some((chunk, true, after));
    }
    Some((chunk, chunk.ends_with('*'), after))
}

fn term(chunk: &str, is_starred: bool) -> Result<Option<Term>, TermsError> {
    let words: Vec<String> = words(chunk).map(|word| word.text.into_owned()).collect();
    let Some(last) = words.last() else { return Ok(None) };
    // What is a word by itself, as in scripts without spaces, begins no other.
    let is_prefix = is_starred && !last.starts_with(stands_alone);
    if is_prefix && last.chars().count() == 1 {
        return Err(TermsError::ShortPrefix);
    }
    Ok(Some(Term { is_prefix, words }))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_last_word_may_be_let_go_on() {
        let open = |query: &str| query.parse::<Terms>().unwrap().open_ended().map(|terms| terms.to_string());
        assert_eq!(open("the config ").as_deref(), Some("the config*"));
        assert_eq!(open("\"read fi\"").as_deref(), Some("\"read fi\"*"));
        for query in ["config*", "x", "文"] {
            assert_eq!(open(query), None, "{query}");
        }
    }

    #[test]
    fn words_phrases_and_beginnings() {
        assert_eq!(parse("Borrow checker"), ["borrow", "checker"]);
        assert_eq!(parse("\"borrow checker\" tok*"), ["borrow+checker", "tok*"]);
        assert_eq!(parse("\"cannot bor\"* x"), ["cannot+bor*", "x"]);
        assert_eq!(parse("\"cannot bor*\""), ["cannot+bor*"]);
        assert_eq!(parse("read_file src/main.rs"), ["read+file", "src+main+rs"]);
    }

    #[test]
    fn what_looks_like_the_syntax_of_an_index_is_text() {
        assert_eq!(parse("NOT a AND (b OR c)"), ["not", "a", "and", "b", "or", "c"]);
        assert_eq!(parse("text:x ^y -z {a b} NEAR(q, 2)"), ["text+x", "y", "z", "a", "b", "near+q", "2"]);
        assert_eq!(parse("\"never closed"), ["never+closed"]);
        assert_eq!(parse("it''s; DROP TABLE logs --"), ["it+s", "drop", "table", "logs"]);
        assert_eq!(parse("a\"b\"c"), ["a", "b", "c"]);
    }

    #[test]
    fn a_query_without_a_word_is_refused() {
        for query in ["", "   ", "\"\"", "&& || !", "*", "\"*\""] {
            assert_eq!(query.parse::<Terms>(), Err(TermsError::Empty), "{query:?}");
        }
    }

    #[test]
    fn a_query_is_taken_at_its_limits_and_refused_beyond_them() {
        let words = |n: usize| vec!["w"; n].join(" ").parse::<Terms>();
        assert_eq!(words(limits::SEARCH_WORDS).unwrap().terms().len(), limits::SEARCH_WORDS);
        assert_eq!(words(limits::SEARCH_WORDS + 1), Err(TermsError::TooManyWords));
        let long = |n: usize| "w".repeat(n).parse::<Terms>();
        assert!(long(limits::SEARCH_QUERY_BYTES).is_ok());
        assert_eq!(long(limits::SEARCH_QUERY_BYTES + 1), Err(TermsError::TooLong));
        assert_eq!("a*".parse::<Terms>(), Err(TermsError::ShortPrefix));
        assert_eq!("ж*".parse::<Terms>(), Err(TermsError::ShortPrefix));
        assert!("ab*".parse::<Terms>().is_ok());
        assert_eq!(parse("修*"), ["修"]);
    }

    proptest! {
        #[test]
        fn no_query_makes_parsing_panic(query in "\\PC{0,60}") {
            if let Ok(terms) = query.parse::<Terms>() {
                prop_assert!(terms.terms().iter().all(|term| !term.words.is_empty()));
                prop_assert_eq!(terms.to_string(), query);
            }
        }
    }

    fn parse(query: &str) -> Vec<String> {
        let terms: Terms = query.parse().unwrap();
        let show = |term: &Term| term.words.join("+") + if term.is_prefix { "*" } else { "" };
        terms.terms().iter().map(show).collect()
    }
}
